#!/usr/bin/env python3
"""Whether histories of `load.py` are linearizable: what one register for each key shows.

As in tests/simulation/etcd/register.rs: values differ, so every read tells which write it has seen.
A value was in force at least from the earliest end of an operation on it to the latest start of
one. A history is linearizable if no read ends before its write starts, no two such times overlap,
and no value without one lies within the time of another (Gibbons and Korach, "Testing Shared
Memories", 1997).

`judge.py FILE...` says what contradicts that, or nothing.
"""

import json
import sys
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from math import inf
from pathlib import Path


@dataclass
class Zone:
    """All operations on one value."""

    value: str | None
    written_at: float = inf
    first_end: float = inf
    last_start: float = 0


def violation(operations: list[dict]) -> str | None:
    """What contradicts a register, of the operations on one key, if anything does."""
    counted = [line for line in operations if line["result"] != "fail"]
    seen = {line["value"] for line in counted if line["op"] == "read"}
    zones = {None: Zone(None, 0, 0)}
    for line in counted:
        value, end = line["value"], inf if line["end"] is None else line["end"]
        # What no client has seen, and no client was told of, may never have been.
        if line["op"] == "write" and end == inf and value not in seen:
            continue
        zone = zones.setdefault(value, Zone(value))
        if line["op"] == "write":
            zone.written_at = line["start"]
        zone.first_end = min(zone.first_end, end)
        zone.last_start = max(zone.last_start, line["start"])
    for zone in zones.values():
        if zone.first_end < zone.written_at:
            return f"value {zone.value} was read before it was written, or without: {zone}"
    forward = sorted(
        (z for z in zones.values() if z.first_end < z.last_start), key=lambda z: z.first_end
    )
    for one, next_one in zip(forward, forward[1:]):
        if next_one.first_end < one.last_start:
            return f"two values were in force at the same time: {one}, {next_one}"
    begins = [zone.first_end for zone in forward]
    for zone in zones.values():
        if zone.first_end >= zone.last_start:
            at = bisect_left(begins, zone.last_start)
            if at and zone.first_end < forward[at - 1].last_start:
                return f"a value was in force while another was: {zone}, {forward[at - 1]}"
    return None


def lost(operations: list[dict]) -> bool:
    """Whether the only write of a key was acknowledged, and the last read does not show it."""
    writes = [line for line in operations if line["op"] == "write"]
    reads = [line for line in operations if line["op"] == "read" and line["result"] == "ok"]
    if len(writes) != 1 or writes[0]["result"] != "ok" or not reads:
        return False
    return max(reads, key=lambda line: line["start"])["value"] != writes[0]["value"]


def by_key(history: list[dict]) -> dict[str, list[dict]]:
    keys = defaultdict(list)
    for line in history:
        keys[line["key"]].append(line)
    return keys


def violations(history: list[dict]) -> list[str]:
    """A line for each key that is no register."""
    found = ((key, violation(operations)) for key, operations in by_key(history).items())
    return [f"{key}: {what}" for key, what in found if what]


def lost_count(history: list[dict]) -> int:
    return sum(map(lost, by_key(history).values()))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_itself() -> None:
    """The judge objects to what is no register, and to nothing else."""

    def history(*operations: tuple) -> list[dict]:
        names = ("op", "value", "start", "end")
        return [
            dict(zip(names, each), key="k", result="ok" if each[3] else "unknown")
            for each in operations
        ]

    good = [
        history(),
        history(("read", None, 1, 2), ("write", "a", 3, 4), ("read", "a", 5, 6)),
        history(("write", "a", 1, 9), ("read", None, 2, 3), ("read", "a", 4, 5)),
        history(("write", "a", 1, None), ("read", None, 2, 30), ("read", "a", 40, 50)),
        history(
            ("write", "a", 1, 10), ("write", "b", 1, 10), ("read", "b", 3, 4), ("read", "a", 5, 6)
        ),
    ]
    bad = [
        history(("read", "a", 1, 2), ("write", "a", 3, 4)),
        history(("read", "c", 1, 2)),
        history(("write", "a", 1, 2), ("read", None, 3, 4)),
        history(("write", "a", 1, 2), ("write", "b", 3, 4), ("read", "a", 5, 6)),
        history(("write", "a", 1, 9), ("read", "a", 2, 3), ("read", None, 4, 5)),
        history(("write", "a", 1, 2), ("read", "a", 9, 10), ("write", "b", 4, 5)),
    ]
    assert not any(map(violations, good)) and all(map(violations, bad))
    assert lost_count(bad[2]) == 1 and lost_count(good[1]) == 0


if __name__ == "__main__":
    check_itself()
    objections = [
        f"{path}: {what}" for path in sys.argv[1:] for what in violations(read(Path(path)))
    ]
    sys.exit("\n".join(objections) or None)
