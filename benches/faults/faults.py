#!/usr/bin/env python3
"""Fail-overs with real processes: three nodes, three members of etcd, HAProxy, and 64 clients.

- A round: all is well; clients write and read through HAProxy (load.py); a fault, or two that
  overlap, comes and goes (injections.py); all is well again (cluster.py); every key is read once
  more; what the clients saw is judged (judge.py).
- Hosts are network namespaces (network.py), so it needs root, and etcd, haproxy, nft, tc and ip;
  strace for faults of the disk. Several can run at the same time.
- The schedule follows from --seed; what becomes of it depends on the machine, too.
- Ends only what it started, and removes its hosts, also when it is interrupted. Writes
  target/faults/SEED/: rounds.jsonl, the logs, and the history of each round with a violation or a
  problem (of all, with --keep).

Exit status 1: a violation, a lost write, a cluster that does not become well again, or a client's
error where there should be none.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import judge
from cluster import PROXY_PORT, Cluster
from injections import FAULTS, MAY_OVERLAP, ONLY_NAMED, PLANNED

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDED = ["etcd", "haproxy", "nft", "ip", "tc", "nsenter", "strace"]
# Fewer operations in the second before a fault: the round says nothing.
LEAST_OPERATIONS = 100
WELL_SECONDS = 30


def schedule(seed: int, names: list[str], overlap: float):
    """The faults of each round, and when each begins, without end."""
    rng = random.Random(seed)
    while True:
        first = rng.choice(names)
        chosen = [(first, 0.0)]
        others = [name for name in MAY_OVERLAP if name in names and name != first]
        if first in MAY_OVERLAP and others and rng.random() < overlap:
            chosen.append((rng.choice(others), rng.uniform(0, 5)))
        yield chosen, rng.getrandbits(32)


class Load:
    """The clients of one round."""

    def __init__(self, cluster: Cluster, history: Path, prefix: str, seed: int, clients: int):
        self.history = history
        address = f"{cluster.proxy.address}:{PROXY_PORT}"
        command = [
            sys.executable,
            Path(__file__).with_name("load.py"),
            "--proxy",
            address,
            "--history",
            history,
        ]
        command += ["--prefix", prefix, "--seed", str(seed), "--clients", str(clients)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def finish(self) -> str:
        """Ends it, after every key was read again; what it complains of."""
        try:
            return self.process.communicate(timeout=90)[1].strip()
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "the clients do not end"


def begin(cluster: Cluster, chosen: list, seed: int, problems: list[str]) -> list[threading.Thread]:
    """A thread for each fault."""

    def inject(name: str, after: float) -> None:
        try:
            cluster.sleep(after)
            FAULTS[name](cluster, random.Random(f"{seed}-{name}"))
        except Exception as error:  # noqa: BLE001 - told in the round's line
            problems.append(f"{name}: {error!r}")

    threads = [threading.Thread(target=inject, args=each, daemon=True) for each in chosen]
    for thread in threads:
        thread.start()
    return threads


def longest_gap_ms(history: list[dict], op: str, since: int, until: int) -> int:
    """The longest time without an acknowledged operation that ended since then."""
    ends = sorted(
        line["end"]
        for line in history
        if line["op"] == op and line["result"] == "ok" and line["end"] < until
    )
    gaps = [later - earlier for earlier, later in pairwise([*ends, until]) if later > since]
    return max(gaps, default=0) // 1000


def changes(epochs: int) -> int:
    """How often the leader has changed: a recovery by an operator is 1,000 epochs further."""
    leaps, single = divmod(epochs, 1000)
    return leaps + single


def one_round(
    cluster: Cluster, number: int, chosen: list, seed: int, options: argparse.Namespace
) -> dict:
    problems: list[str] = []
    cluster.targets, cluster.measures = [], []
    before = cluster.config().get("epoch", 0)
    history_file = options.out / f"history-{number}.jsonl"
    load = Load(cluster, history_file, f"r{number}", seed, options.clients)
    cluster.sleep(2.5)
    since = time.monotonic_ns() // 1000
    for thread in begin(cluster, chosen, seed, problems):
        while thread.is_alive():
            cluster.sleep(0.02)
    began = time.monotonic()
    if not cluster.becomes_well(WELL_SECONDS):
        problems.append(f"not well after {WELL_SECONDS} s: {cluster.complaint()}")
    well_after = time.monotonic() - began
    cluster.sleep(0.5)
    until = time.monotonic_ns() // 1000
    if complaint := load.finish():
        problems.append(complaint)
    history = judge.read(history_file)
    counts = {
        result: sum(line["result"] == result for line in history)
        for result in ("ok", "fail", "unknown")
    }
    is_alone = len(chosen) == 1
    if is_alone and chosen[0][0] in PLANNED and counts["ok"] != len(history):
        problems.append(f"{len(history) - counts['ok']} requests failed where none should")
    result = {
        "round": number,
        "faults": [name for name, _ in chosen],
        "targets": cluster.targets,
        "epochs": changes(cluster.config().get("epoch", 0) - before),
        "operationsInSecondBefore": sum(
            line["result"] == "ok" and since - 1_000_000 < line["end"] < since for line in history
        ),
        **counts,
        "gapMs": {op: longest_gap_ms(history, op, since, until) for op in ("write", "read")},
        "wellAfterS": round(well_after, 1),
        "measures": cluster.measures,
        "lost": judge.lost_count(history),
        "violations": judge.violations(history),
        "problems": problems,
        "load": os.getloadavg()[0],
    }
    if not (result["violations"] or problems or options.keep):
        history_file.unlink()
    return result


def told(result: dict) -> str:
    gap = result["gapMs"]
    what = f"{' + '.join(result['faults'])} ({', '.join(result['targets'])})"
    words = [
        f"{result['round']:4} {what:44}",
        f"epochs +{result['epochs']}  ok {result['ok']:5}  fail {result['fail']:3}",
        f"unknown {result['unknown']:3}  gap {gap['write']:5} ms, reads {gap['read']:5}",
        f"lost {result['lost']}  violations {len(result['violations'])}",
    ]
    words += ["void"] if is_void(result) else []
    return "  ".join(words + result["violations"][:3] + result["problems"])


def is_void(result: dict) -> bool:
    return result["operationsInSecondBefore"] < LEAST_OPERATIONS


def summary(results: list[dict]) -> dict:
    counted = [result for result in results if not is_void(result)]
    names = sorted(
        {" + ".join(result["faults"]) for result in counted if len(result["faults"]) == 1}
    )
    gaps = {name: [r["gapMs"]["write"] for r in counted if r["faults"] == [name]] for name in names}
    return {
        "rounds": len(counted),
        "void": len(results) - len(counted),
        "failOvers": sum(result["epochs"] for result in counted),
        "operations": sum(result["ok"] for result in counted),
        "lost": sum(result["lost"] for result in results),
        "violations": sum(len(result["violations"]) for result in results),
        "problems": sum(len(result["problems"]) for result in counted),
        "writeGapMs": {
            name: {"n": len(g), "p50": statistics.median(g), "max": max(g)}
            for name, g in gaps.items()
        },
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument(
        "--fail-overs", type=int, default=20, help="ends after so many changes of the leader [20]"
    )
    parser.add_argument("--rounds", type=int, default=1 << 30, help="ends after so many rounds")
    parser.add_argument(
        "--faults",
        help="some, with commas between them; one named twice is twice as frequent: "
        + ", ".join(FAULTS),
    )
    parser.add_argument(
        "--overlap", type=float, default=0.35, help="how often two faults come together [0.35]"
    )
    parser.add_argument("--lease-ms", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=3, help="the fault `move` needs 2 [3]")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/db-node")
    parser.add_argument(
        "--other-binary", type=Path, help="for the fault `upgrade`: a release to go to, and back"
    )
    parser.add_argument("--out", type=Path, help="folder for what is written [target/faults/SEED]")
    parser.add_argument("--keep", action="store_true", help="keeps the history of every round")
    options = parser.parse_args()
    default = [name for name in FAULTS if name not in ONLY_NAMED]
    options.names = options.faults.split(",") if options.faults else default
    if unknown := set(options.names) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(unknown)}")
    if "upgrade" in options.names and not options.other_binary:
        parser.error("the fault upgrade needs --other-binary")
    if "move" in options.names and options.copies == 3:
        parser.error("the fault move needs --copies 2")
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        parser.error(f"needed and not installed: {', '.join(missing)}")
    if os.geteuid():
        parser.error("needs root, for network namespaces")
    if not options.binary.exists():
        parser.error(f"{options.binary} is not built: cargo build --release")
    options.out = (options.out or ROOT / f"target/faults/{options.seed}").resolve()
    return options


def rounds(cluster: Cluster, options: argparse.Namespace) -> list[dict]:
    cluster.start()
    results, fail_overs = [], 0
    if not cluster.becomes_well(WELL_SECONDS):
        sys.exit(
            f"the cluster does not become well: {cluster.complaint()}; logs are in {options.out}"
        )
    with (options.out / "rounds.jsonl").open("w") as file:
        for number, (chosen, seed) in enumerate(
            schedule(options.seed, options.names, options.overlap), 1
        ):
            result = one_round(cluster, number, chosen, seed, options)
            results.append(result)
            print(told(result), flush=True)
            file.write(json.dumps(result) + "\n")
            file.flush()
            fail_overs += 0 if is_void(result) else result["epochs"]
            if fail_overs >= options.fail_overs or number >= options.rounds:
                break
            if not cluster.becomes_well(WELL_SECONDS):
                print(f"not well for a minute: {cluster.complaint()}")
                break
    return results


def main() -> None:
    options = parse()
    judge.check_itself()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    print(
        f"seed {options.seed}, lease {options.lease_ms} ms, {options.binary}; {options.out}",
        flush=True,
    )
    cluster = Cluster(options.binary, options.out, options.lease_ms, options.copies)
    if options.other_binary:
        shutil.copy(options.other_binary, options.out / "other")
    try:
        results = rounds(cluster, options)
    except KeyboardInterrupt:
        sys.exit("ended")
    finally:
        cluster.end()
    found = summary(results)
    print(json.dumps(found))
    if found["lost"] or found["violations"] or found["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
