#!/usr/bin/env python3
"""The node beside its peers, in one run: what a request costs in processor time of the server, how many are answered, how long they
take, and what a million entries hold in memory.

- Candidates: H, a bare epoll loop (`bare.c`: what the kernel alone costs); nginx with `return 200`; Redis without persistence; webdis
  in front of another Redis; memcached with one thread; etcd through its JSON gateway, without fsync; the node, with raw values and with
  JSON. What is not installed is named and left out; nothing is installed.
- Servers are pinned to core 0 and the generator (`db-node-bench`) to core 1. Candidates take turns, round by round; medians count, and
  ratios of medians of one run. Beside each stands the spread over the rounds: [least–most].
- Writes target/compare/report.md, report.json, and plots as SVG.

Parts: requests (with memory and system calls), sizes, connections, disturbed (while merging and while a replica joins), large (values of
1 MiB), idle (memory of a node and its connections), turns (how long the loop is held).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import behaviour
import requests
import servers
from building import build
from report import Report, Spread

PARTS = ["requests", "connections", "sizes", "disturbed", "large", "idle", "turns"]
MILLION = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short rounds with little data, to see that everything works: the figures say nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some parts, with commas between them: {', '.join(PARTS)}")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.4
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    if needed := [program for program in ("cc", "taskset", "ss", "chrt") if not shutil.which(program)]:
        sys.exit(f"needed and not installed: {', '.join(needed)}")
    left_out = servers.missing() + ([] if shutil.which("strace") else ["system calls (strace)"])
    if left_out:
        print(f"not installed, left out: {', '.join(left_out)}")
    build()
    servers.OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-o", servers.BARE, Path(__file__).with_name("bare.c")], check=True)
    keys = 20_000 if options.quick else MILLION
    report = Report("The node beside its peers")
    report.add(
        f"64 connections unless said otherwise, 16-byte keys, 32-byte values, {keys:,} keys at random; medians of {options.rounds} rounds of",
        f"{options.seconds:g} s with their spread [least–most], candidates in turn; {os.cpu_count()} processors, servers on the first, generator on the second.",
        *([f"Not installed, left out: {', '.join(left_out)}."] if left_out else []),
        "",
    )
    if {"requests", "connections"} & set(parts):
        beside_peers(report, options, parts, keys)
    if "sizes" in parts:
        sizes = [1_000, 10_000] if options.quick else [10_000, 100_000, MILLION, 10 * MILLION]
        over_sizes(report, sizes, options)
    if "disturbed" in parts:
        report.disturbed(behaviour.disturbed(keys, options.rounds, 2 * options.seconds))
    if "large" in parts:
        found = behaviour.large_values(options.rounds, options.seconds)
        report.figures["large"] = found
        node, bare = (dict(enumerate(found["mbPerCpuSecond"][name])) for name in ("node", "H"))
        report.judge("1 MiB GET, bytes per CPU second ÷ bare send loop", Spread.ratio(node, bare), 0.85, 0.95, least=True)
    if "idle" in parts:
        found = behaviour.idle(500 if options.quick else 10_000)
        report.figures["idle"] = found
        report.judge("idle memory, MiB", found["idleMb"] * 1e6 / behaviour.MIB, 4, 2)
        report.judge("per idle connection, bytes resident", found["residentBytesEach"], 1024, 512)
    if "turns" in parts:
        for count in [10_000] if options.quick else [MILLION, 10 * MILLION]:
            found = behaviour.turns(count, 4 * options.seconds, 1 if options.quick else 5)
            report.figures[f"turns at {count}"] = found
            for key, what in (("longestSliceUs", "slice of maintenance"), ("longestTurnUs", "turn")):
                nodes = Spread(found["each"][key])
                # The least of them counts, see there.
                nodes.median = found[key]
                report.judge(f"longest {what} at {count:,} entries, us of CPU", nodes, 1000, 250)
            longest = ", ".join(f"{turn} beside {bare:.0f}" for turn, bare in zip(found["each"]["longestTurnUs"], found["each"]["bareLongestRequestUs"]))
            report.add(f"Longest turns of nodes with {count:,} entries, each beside the longest single request of H as long under such load, us: {longest}.", "")
    report.write()


def beside_peers(report: Report, options: argparse.Namespace, parts: list[str], keys: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidates = {"node": servers.node()}
        try:
            servers.fill(candidates["node"], keys)
            candidates |= {"H": servers.bare(folder, servers.answer_of(candidates["node"], "/kv/key:000000000001"))}
            candidates |= servers.peers(folder)
            for peer, server in candidates.items():
                if peer not in ("node", "H", "nginx"):
                    # etcd would take minutes for a million.
                    servers.fill(server, min(keys, 20_000) if peer == "etcd" else keys)
            time.sleep(2)
            fresh = {peer: server.resident_mb() for peer, server in candidates.items()}
            control = requests.congestion_controls(candidates, keys)
            used = {found for each in control.values() for found in each}
            report.add(f"Congestion control of all: {', '.join(used)}." if len(used) == 1 else f"**Congestion control differs**: {control}.", "")
            if "requests" in parts:
                outcomes = requests.compare(candidates, keys, options.rounds, options.seconds)
                report.requests(outcomes, requests.system_calls(candidates, keys))
                memory(report, fresh, candidates["node"], keys, 1 if options.quick else 10)
            if "connections" in parts:
                counts = [1, 16, 64] if options.quick else [1, 4, 16, 64, 256, 1000]
                figures = requests.over_connections(candidates, counts, keys, max(1, options.rounds // 2), options.seconds / 2)
                report.series("connections", "GETs a second over connections", "connections", "requests/s", figures)
        finally:
            for server in candidates.values():
                server.stop()


def memory(report: Report, fresh: dict[str, float], server: servers.Server, keys: int, passes: int) -> None:
    report.add(f"## Memory with {keys:,} entries of 48 bytes", "", "| | resident MB | bytes an entry beside key and value |", "|---|---|---|")
    for name, resident in fresh.items():
        if name not in ("H", "nginx", "etcd"):
            report.add(f"| {name} | {resident:.1f} | {resident * 1e6 / keys - 48:.1f} |")
    after = behaviour.overwritten(server, keys, passes)
    report.add(f"| node, overwritten {passes} more times | {after:.1f} | {after * 1e6 / keys - 48:.1f} |", "")
    report.figures["residentMb"] = fresh | {"node, overwritten": after}
    if "redis" in fresh:
        report.judge("resident memory: node ÷ redis", fresh["node"] / fresh["redis"], 0.55, 0.45)
    report.judge(f"resident memory after {passes} overwrite passes ÷ fresh", after / fresh["node"], 1.3, 1.15)


def over_sizes(report: Report, sizes: list[int], options: argparse.Namespace) -> None:
    figures = requests.over_sizes(sizes, max(1, options.rounds - 2), options.seconds)
    report.series("sizes", "Cost of a request over the size of the data", "entries", "CPU us/request", figures)
    most, least = (dict(enumerate(figures["node get"][size])) for size in (sizes[-1], sizes[0]))
    report.judge(f"CPU per GET at {sizes[-1]:,} ÷ at {sizes[0]:,} entries", Spread.ratio(most, least), 1.25, 1.1)


if __name__ == "__main__":
    main()
