#!/usr/bin/env python3
"""What expiry, scans and watchers cost: `benches/features.py [ROUNDS]`; builds what it needs, takes some minutes.

Prints:
- a million keys (16 + 32 bytes) whose time ends in the same second: memory before and after, slow turns, and the longest one;
- a scan of a million keys, in pages of 10,000 from one point in time, while 5,000 of them are overwritten each second: how long it
  takes and how much memory; and the latency of GET at half of the maximal load, without and during such scans (open loop, 64
  connections, rounds interleaved);
- 5,000 idle watchers: memory each, and how long after a write the one whom it concerns is told.
"""

import argparse
import http.client
import json
import random
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from building import BENCH, ROOT, build
from replication import ENTRIES, LEADER, LEFT_OVER, Node, get, load, memory_mib

WATCHERS = 5_000
PIPELINED = 200


def connect() -> socket.socket:
    host, port = LEADER.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def put(key: bytes, headers: bytes = b"", value: bytes = b"v" * 32) -> bytes:
    head = b"PUT /kv/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n"
    return head % (key, len(value), headers) + value


def pipeline(connection: socket.socket, requests: list[bytes]) -> None:
    connection.sendall(b"".join(requests))
    answered = b""
    while answered.count(b"HTTP/1.1 20") < len(requests):
        answered += connection.recv(1 << 20)


def loop_figures() -> dict:
    return json.loads(get(LEADER, "/status")[1])["loop"]


def expiry() -> None:
    node = Node(LEADER)
    node.wait("/readyz")
    base = memory_mib(node.process, "VmRSS")
    connection, end = connect(), time.time() + 20
    for first in range(0, ENTRIES, PIPELINED):
        header = b"X-TTL: %.3f\r\n" % (end - time.time())
        pipeline(connection, [put(b"key:%012d" % number, header) for number in range(first, first + PIPELINED)])
    time.sleep(max(0.0, end - 1 - time.time()))
    full, before = memory_mib(node.process, "VmRSS"), loop_figures()
    gone_after = None
    while time.time() < end + 30:
        time.sleep(0.2)
        if gone_after is None and memory_mib(node.process, "VmRSS") < base + (full - base) / 5:
            gone_after = time.time() - end
    after = loop_figures()
    print(f"{ENTRIES} keys that end together: {base:.1f} MiB empty, {full:.1f} full, {memory_mib(node.process, 'VmRSS'):.1f} after 30 s", end="; ")
    print(f"four fifths gone after {gone_after and round(gone_after, 1)} s; slow turns meanwhile {after['slowTurns'] - before['slowTurns']}", end=", ")
    print(f"longest turn since the start {after['longestTurnUs']} us, before they ended {before['longestTurnUs']} us")
    node.stop()


def scan_all() -> int:
    """All keys, page by page; how many there are. The pages are not parsed but for their ends: that is the client's business."""
    host, port = LEADER.split(":")
    client = http.client.HTTPConnection(host, int(port))
    client.request("GET", "/scan?limit=10000&consistent=true&values=true")
    count = 0
    while True:
        page = client.getresponse().read()
        count += page.count(b'{"key":')
        end = json.loads(b"{" + page[page.rindex(b'"next":') :])
        if end["next"] is None:
            return count
        client.request("GET", f"/scan?limit=10000&at={end['version']}&after={end['next']}")


def writing(stop: threading.Event) -> None:
    connection = connect()
    while not stop.wait(0.02):
        pipeline(connection, [put(b"key:%012d" % random.randrange(ENTRIES)) for _ in range(100)])


def scans(generator: str, rounds: int) -> None:
    node = Node(LEADER)
    node.wait("/readyz")
    subprocess.run([ROOT / "benches/fill.py", LEADER, "set", str(ENTRIES)], check=True, stdout=subprocess.DEVNULL)
    time.sleep(2)
    stop = threading.Event()
    writer = threading.Thread(target=writing, args=(stop,))
    writer.start()
    time.sleep(3)
    grown, took = [], []
    for _ in range(rounds):
        Path(f"/proc/{node.process.pid}/clear_refs").write_text("5")
        before, begun = memory_mib(node.process, "VmRSS"), time.monotonic()
        count = scan_all()
        took.append(time.monotonic() - begun)
        grown.append(memory_mib(node.process, "VmHWM") - before)
    stop.set()
    writer.join()
    print(f"scan of {count} keys during writes: {statistics.median(took):.2f} s, memory grows by {max(grown):.1f} MiB at most")
    most = max(load(generator, "get", rate, 3)["perSecond"] for rate in (60_000, 90_000, 120_000))
    rate = int(most / 2)
    without, during = [], []
    for _ in range(rounds):
        without.append(load(generator, "get", rate, 5))
        # Another process, with what the generator leaves of its core.
        scanner = subprocess.Popen([*LEFT_OVER, sys.executable, __file__, "scan-again-and-again"])
        during.append(load(generator, "get", rate, 5))
        scanner.kill()
        scanner.wait()
    p99 = [statistics.median(one["p99"] for one in results) for results in (without, during)]
    late = [statistics.median(one["latenessP99"] for one in results) for results in (without, during)]
    print(f"get at {rate}/s: p99 {p99[0]:.0f} us, {p99[1]:.0f} us during scans, ratio {p99[1] / p99[0]:.2f}", end="; ")
    print(f"the generator's own lateness {late[0]:.0f} and {late[1]:.0f} us")
    node.stop()


def watchers() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * WATCHERS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    node = Node(LEADER)
    node.wait("/readyz")
    writer = connect()
    pipeline(writer, [put(b"warm")])
    base = memory_mib(node.process, "VmRSS")
    listeners = []
    for number in range(WATCHERS):
        listener = connect()
        request = b"GET /watch?prefix=user:%d: HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n" % number
        listener.sendall(request)
        listeners.append(listener)
    for listener in listeners:
        listener.recv(65536)
    time.sleep(1)
    each = (memory_mib(node.process, "VmRSS") - base) * 1024 * 1024 / WATCHERS
    told_us = []
    for _ in range(1_000):
        number = random.randrange(WATCHERS)
        begun = time.perf_counter()
        writer.sendall(put(b"user:%d:x" % number))
        listeners[number].recv(65536)
        told_us.append((time.perf_counter() - begun) * 1e6)
        writer.recv(65536)
    told_us.sort()
    print(f"{WATCHERS} idle watchers: {each:.0f} bytes each; told after a write: median {told_us[500]:.0f} us, p99 {told_us[990]:.0f} us")
    node.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    rounds = parser.parse_args().rounds
    build()
    generator = str(BENCH)
    expiry()
    scans(generator, rounds)
    watchers()


if __name__ == "__main__":
    if sys.argv[1:] == ["scan-again-and-again"]:
        while True:
            scan_all()
    else:
        main()
