#!/usr/bin/env python3
"""Clients of a cluster that write and read through its proxy, and write down what they saw.

Each has one request under way at a time. Values are unique. Half of the requests write; most are
about a few keys that all clients share, the others about keys that are written once, so that a lost
write is not covered by the next one. The clients go on until standard input ends; then every key is
read once more.

A line of the history is JSON: client, op (write, read), key, value (null: there was none), start
and end (microseconds of CLOCK_MONOTONIC), result, and the status where it was refused. ok: it was
acknowledged. fail: the answer says that nothing was done. unknown: it may be carried out at any
time after its start, or never; its end is null.
"""

import argparse
import asyncio
import json
import random
import sys
import time

SHARED_KEYS = 40
LONG_VALUE_BYTES = 12_000
# Longer than the proxy lets a request wait, and than a node waits for acknowledgements.
ANSWER_SECONDS = 12
LAST_READS_SECONDS = 40
# Nothing was done: refused, or not possible now, or no room.
NOT_DONE = {400, 403, 421, 429, 503, 507}


def now() -> int:
    return time.monotonic_ns() // 1000


class Client:
    """One connection to the proxy, opened again when it breaks."""

    def __init__(self, run: "Run", number: int):
        self.run, self.number, self.count = run, number, 0
        self.random = random.Random(f"{run.options.seed}-{number}")
        self.reader, self.writer = None, None

    async def request(self, method: str, key: str, body: bytes) -> tuple[int, bytes]:
        head = f"{method} /kv/{key} HTTP/1.1\r\nHost: proxy\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:] if line)
        found = await self.reader.readexactly(int(headers.get("content-length", 0)))
        status = int(answer.split(" ", 2)[1])
        if headers.get("connection") == "close" or status in (502, 504):
            self.close()
        return status, found

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.writer = None

    async def operate(self, op: str, key: str, value: str | None = None) -> str:
        """One operation and its line in the history; what became of it."""
        if not self.writer:
            try:
                self.reader, self.writer = await asyncio.open_connection(*self.run.proxy)
            except OSError:
                # Not an operation: nothing was sent.
                return "fail"
        line = {
            "client": self.number,
            "op": op,
            "key": key,
            "value": value,
            "start": now(),
            "end": None,
        }
        # Long ones only where they replace each other, so that the data stays small.
        is_long = "once" not in key and self.random.random() < 0.2
        padding = self.random.randrange(LONG_VALUE_BYTES if is_long else 60)
        body = f"{value}.{'x' * padding}".encode() if value else b""
        try:
            answering = self.request("PUT" if value else "GET", key, body)
            status, found = await asyncio.wait_for(answering, ANSWER_SECONDS)
            line["end"] = now()
            is_missing = status == 404 and b'"key_not_found"' in found
            if status in (200, 201) or is_missing:
                line["result"] = "ok"
                if op == "read" and not is_missing:
                    line["value"] = found.decode().split(".")[0]
            else:
                line |= {
                    "result": "fail" if op == "read" or status in NOT_DONE else "unknown",
                    "status": status,
                }
                line["error"] = found.decode(errors="replace")[:200]
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.close()
            line |= {"result": "fail" if op == "read" else "unknown", "error": repr(error)}
        if line["result"] == "unknown":
            line["end"] = None
        self.run.write(line)
        return line["result"]

    async def go_on(self) -> None:
        prefix, written_once = self.run.options.prefix, self.run.written_once
        while not self.run.is_over:
            await asyncio.sleep(self.random.uniform(0, 2 * self.run.options.pause_ms / 1000))
            key = f"{prefix}-{self.random.randrange(SHARED_KEYS)}"
            is_shared = self.random.random() < 0.75
            if self.random.random() < 0.5:
                self.count += 1
                value = f"{self.number}-{self.count}"
                if not is_shared:
                    key = f"{prefix}-once-{value}"
                    written_once.append(key)
                await self.operate("write", key, value)
            else:
                if not is_shared and written_once:
                    # One of the newest.
                    key = written_once[-self.random.randint(1, min(200, len(written_once)))]
                await self.operate("read", key)

    async def read_the_rest(self, keys: list[str], deadline: float) -> None:
        while keys and time.monotonic() < deadline:
            key = keys.pop()
            if await self.operate("read", key) != "ok":
                keys.append(key)
                await asyncio.sleep(0.2)


class Run:
    """All clients, and the file of their history."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.is_over, self.written_once = options, False, []
        host, port = options.proxy.split(":")
        self.proxy = (host, int(port))
        self.file = open(options.history, "w", encoding="utf-8")

    def write(self, line: dict) -> None:
        self.file.write(json.dumps(line) + "\n")

    async def all(self) -> int:
        clients = [Client(self, number) for number in range(self.options.clients)]
        working = [asyncio.create_task(client.go_on()) for client in clients]
        while await asyncio.to_thread(sys.stdin.readline):
            # A line asks for what there is so far.
            self.file.flush()
        self.is_over = True
        await asyncio.gather(*working)
        keys = [
            f"{self.options.prefix}-{number}" for number in range(SHARED_KEYS)
        ] + self.written_once
        deadline = time.monotonic() + LAST_READS_SECONDS
        await asyncio.gather(*(client.read_the_rest(keys, deadline) for client in clients))
        self.file.close()
        return len(keys)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proxy", required=True, help="HOST:PORT")
    parser.add_argument("--history", required=True, help="the file to write")
    parser.add_argument("--prefix", required=True, help="of the keys; not used before")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--pause-ms",
        type=float,
        default=100,
        help="a client waits so long between requests, on average",
    )
    parser.add_argument("--seed", default="1")
    left = asyncio.run(Run(parser.parse_args()).all())
    if left:
        sys.exit(f"{left} keys could not be read in the end")


if __name__ == "__main__":
    main()
