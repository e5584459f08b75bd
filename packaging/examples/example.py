"""db-node from Python, with the standard library alone: set, get, compare-and-swap, watch.

    python3 packaging/examples/example.py

DB_NODE_URL names the node (http://localhost:9001 if not given), DB_NODE_TOKEN its token.
"""

import json
import os
import threading
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

URL = os.environ.get("DB_NODE_URL", "http://localhost:9001")
TOKEN = os.environ.get("DB_NODE_TOKEN")


def ask(method, path, body=None, headers=None):
    """The answer to a request: its headers and body. A status of 400 or more is an HTTPError."""
    headers = dict(headers or {})
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    with urlopen(Request(URL + path, body, headers, method=method), timeout=60) as answer:
        return answer.headers, answer.read()


def path_of(key):
    return "/kv/" + quote(key, safe="")


def add(key, amount):
    """Adds to a number that others may change meanwhile, and returns the sum."""
    while True:
        try:
            headers, value = ask("GET", path_of(key))
            condition = {"If-Match": headers["ETag"]}
        except HTTPError as error:
            if error.code != 404:
                raise
            value, condition = b"0", {"If-None-Match": "*"}
        total = int(value) + amount
        try:
            ask("PUT", path_of(key), str(total).encode(), condition)
            return total
        except HTTPError as error:
            if error.code != 412:  # changed since it was read: read it again
                raise


def watch(prefix, since=None):
    """Yields the changes under a prefix, and goes on where it was after each answer."""
    while True:
        query = {"prefix": prefix, "timeout": 20} | ({"since": since} if since else {})
        _, body = ask("GET", "/watch?" + urlencode(query))
        answer = json.loads(body)
        yield from answer["events"]
        since = answer["position"]


def main():
    ask("PUT", path_of("py/greeting"), b"hello")
    print("greeting:", ask("GET", path_of("py/greeting"))[1].decode())

    _, body = ask("GET", "/watch?timeout=0")
    position = json.loads(body)["position"]

    ask("DELETE", "/delete?key=py/counter")
    threads = [threading.Thread(target=add, args=("py/counter", 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("counter after 8 threads:", ask("GET", path_of("py/counter"))[1].decode())

    for event in watch("py/counter", position):
        print("watched:", event["op"], event["key"], event.get("value", ""))
        if event.get("value") == "8":
            break


if __name__ == "__main__":
    main()
