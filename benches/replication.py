#!/usr/bin/env python3
"""What a joining replica costs, and whom: `benches/replication.py [ROUNDS]`; builds what it needs, takes some minutes.

Prints, for a leader with 1 M entries (16 + 32 bytes) in memory:
- how long an empty replica takes from its start to being in sync, beside a plain copy of as many bytes over loopback;
- latencies of GET and SET on the leader at half of its maximal load, without replicas and while one joins again and again
  (open loop, 64 connections, rounds interleaved, two cores: see `LEFT_OVER`);
- the leader's peak memory while it is overwritten, without and with joining replicas.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from building import BENCH, NODE, ROOT, build

ENTRIES = 1_000_000
LEADER, REPLICA = "127.0.0.1:9311", "127.0.0.1:9312"
# The leader has a core for itself. While latencies are measured, replicas get what the generator leaves of the other one.
ON_CORE_0, ON_CORE_1 = ("taskset", "-c", "0"), ("taskset", "-c", "1")
LEFT_OVER = ("chrt", "--idle", "0", *ON_CORE_1)


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def memory_mib(process: subprocess.Popen, field: str) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", text).group(1)) / 1024


def cpu_ms(process: subprocess.Popen) -> float:
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


class Node:
    def __init__(self, address: str, *arguments: str, pinned: tuple[str, ...] = ON_CORE_0):
        self.log = tempfile.NamedTemporaryFile(mode="r", suffix=".log")
        command = [*pinned, str(NODE), "--listen", address, *arguments]
        self.address = address
        self.process = subprocess.Popen(command, stderr=open(self.log.name, "w"))

    def wait(self, path: str) -> None:
        while get(self.address, path)[0] != 200:
            time.sleep(0.002)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


def seconds_of(line: str) -> float:
    hours, minutes, seconds = re.search(r"T(\d+):(\d+):([\d.]+)Z", line).groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def join(leader: Node, pinned: tuple[str, ...] = ON_CORE_1) -> dict:
    """One empty replica joins."""
    begun, leader_cpu = time.monotonic(), cpu_ms(leader.process)
    replica = Node(REPLICA, "--replica-of", LEADER, pinned=pinned)
    replica.wait("/replica")
    took = time.monotonic() - begun
    cpu = (cpu_ms(leader.process) - leader_cpu, cpu_ms(replica.process))
    lines = Path(replica.log.name).read_text().splitlines()
    moments = [seconds_of(line) for line in lines if "gets a snapshot" in line or "in sync" in line]
    replica.stop()
    return {"ms": took * 1000, "transfer_ms": (moments[1] - moments[0]) * 1000, "leader_cpu_ms": cpu[0], "replica_cpu_ms": cpu[1]}


def plain_copy_ms(byte_count: int) -> float:
    """As many bytes from one process to memory of another, over loopback, 64 KiB at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        sender = socket.create_connection(listener.getsockname())
        piece = bytes(64 * 1024)
        for _ in range(byte_count // len(piece)):
            sender.sendall(piece)
        os._exit(0)
    receiver, _ = listener.accept()
    taken, memory = 0, memoryview(bytearray(byte_count // 65536 * 65536))
    begun = time.monotonic()
    while taken < len(memory):
        taken += receiver.recv_into(memory[taken : taken + 65536])
    took = time.monotonic() - begun
    os.waitpid(child, 0)
    return took * 1000


def load(generator: str, kind: str, rate: int, seconds: int) -> dict:
    options = ["--reads", "1" if kind == "get" else "0", "--rate", str(rate), "--seconds", str(seconds), "--keys", str(ENTRIES)]
    command = [*ON_CORE_1, generator, LEADER, *options, "--json", "-"]
    outcome = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    latencies, lateness = outcome["latencyUs"], outcome["latenessUs"]
    return {"perSecond": outcome["perSecond"], "p99": latencies["p99"], "latenessP99": lateness["p99"]}


def joining(leader: Node, pinned: tuple[str, ...], stop: threading.Event, count: list[int]) -> None:
    while not stop.is_set():
        join(leader, pinned)
        count.append(1)
        stop.wait(0.5)


def with_joins(leader: Node, pinned: tuple[str, ...], work) -> tuple[dict, int]:
    stop, count = threading.Event(), []
    thread = threading.Thread(target=joining, args=(leader, pinned, stop, count))
    thread.start()
    result = work()
    stop.set()
    thread.join()
    return result, len(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    rounds = parser.parse_args().rounds
    build()
    generator = str(BENCH)
    leader = Node(LEADER)
    leader.wait("/readyz")
    subprocess.run([ROOT / "benches/fill.py", LEADER, "set", str(ENTRIES)], check=True, stdout=subprocess.DEVNULL)
    time.sleep(2)
    size = len(get(LEADER, "/snapshot")[1])
    print(f"{ENTRIES} entries, {size / 1e6:.1f} MB as a snapshot, leader {memory_mib(leader.process, 'VmRSS'):.1f} MiB")

    joins = [join(leader) | {"plain_ms": plain_copy_ms(size)} for _ in range(2 * rounds + 1)]
    median = {key: statistics.median(one[key] for one in joins) for key in joins[0]}
    print("join:", ", ".join(f"{key} {value:.0f}" for key, value in median.items()), end="; ")
    print(f"bandwidth of the transfer / plain copy {median['plain_ms'] / median['transfer_ms']:.2f}")

    for kind in ("get", "set"):
        most = max(load(generator, kind, rate, 3)["perSecond"] for rate in (60_000, 90_000, 120_000))
        rate = int(most / 2)
        without, during, joined = [], [], 0
        for _ in range(rounds):
            without.append(load(generator, kind, rate, 5))
            result, count = with_joins(leader, LEFT_OVER, lambda: load(generator, kind, rate, 5))
            during.append(result)
            joined += count
        p99 = [statistics.median(one["p99"] for one in results) for results in (without, during)]
        late = [statistics.median(one["latenessP99"] for one in results) for results in (without, during)]
        print(f"{kind} at {rate}/s: p99 {p99[0]:.0f} us, {p99[1]:.0f} us during {joined} joins, ratio {p99[1] / p99[0]:.2f}", end="; ")
        print(f"the generator's own lateness {late[0]:.0f} and {late[1]:.0f} us")

    load(generator, "set", 30_000, 10)
    Path(f"/proc/{leader.process.pid}/clear_refs").write_text("5")
    load(generator, "set", 30_000, 10)
    steady = memory_mib(leader.process, "VmHWM")
    Path(f"/proc/{leader.process.pid}/clear_refs").write_text("5")
    _, joined = with_joins(leader, ON_CORE_1, lambda: load(generator, "set", 30_000, 10))
    peak = memory_mib(leader.process, "VmHWM")
    print(f"peak memory under 30,000 overwrites/s: {steady:.1f} MiB, {peak:.1f} MiB during {joined} joins, ratio {peak / steady:.2f}")
    leader.stop()


if __name__ == "__main__":
    main()
