#!/usr/bin/env python3
"""Sets and checks many keys over HTTP: `fill.py ADDRESS set|check COUNT [PASSES]`, 16-byte keys, 32-byte values."""

import random
import socket
import sys

BATCH = 500


def value_of(number: int, generation: int) -> str:
    return f"value-{number:012d}-{generation:013d}"


def exchange(sock: socket.socket, reader, requests: list[bytes]) -> list[bytes]:
    """Sends pipelined requests and returns the bodies of the answers, all of which must be 200 or 201."""
    sock.sendall(b"".join(requests))
    bodies = []
    for _ in requests:
        status = reader.readline().split()[1]
        length = 0
        while (line := reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = reader.read(length)
        if status not in (b"200", b"201"):
            sys.exit(f"status {status.decode()}: {body[:200]!r}")
        bodies.append(body)
    return bodies


def put(number: int, generation: int) -> bytes:
    value = value_of(number, generation).encode()
    assert len(value) == 32
    return b"PUT /kv/key:%012d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\n%s" % (number, value)


def get(number: int) -> bytes:
    return b"GET /kv/key:%012d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number


def main() -> None:
    address, action, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    generation = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)))
    reader = sock.makefile("rb", 1 << 20)
    numbers = list(range(count))
    random.Random(generation).shuffle(numbers)
    for start in range(0, count, BATCH):
        batch = numbers[start : start + BATCH]
        if action == "set":
            exchange(sock, reader, [put(number, generation) for number in batch])
        else:
            for number, body in zip(batch, exchange(sock, reader, [get(number) for number in batch])):
                if body.decode() != value_of(number, generation):
                    sys.exit(f"key {number}: {body!r}")
    print(f"{action}: {count} keys, all right")


if __name__ == "__main__":
    main()
