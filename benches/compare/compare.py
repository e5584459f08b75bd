#!/usr/bin/env python3
"""The node beside its peers, in one run: what a request costs in processor time of the server, how many are answered, how long they
take, and what a million entries hold in memory.

- Candidates: H, a bare epoll loop (`bare.c`: what the kernel alone costs); nginx with `return 200`; Redis without persistence; the
  node, with raw values and with JSON. What is not installed is named and left out.
- The server is pinned to core 0 and the generator (`db-node-bench`) to core 1. Candidates take turns, round by round; medians count, and
  ratios of medians of one run. Redis is driven by the same generator, in its own protocol.
- Writes target/compare/report.md and report.json.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "target/compare"
NODE, BENCH = ROOT / "target/release/db-node", ROOT / "target/release/db-node-bench"
ENTRIES = 1_000_000
PORTS = {"H": 9411, "nginx": 9412, "redis": 9413, "node": 9414}

# What issue and README promise: measure, candidate, beside whom, at most.
LIMITS = [
    ("get", "node raw", "H", 1.20, 1.08),
    ("get", "node json", "H", 1.30, 1.18),
    ("set", "node raw", "H", 1.45, 1.20),
    ("set", "node json", "H", 1.55, 1.30),
    ("get", "node raw", "redis", 0.90, 0.75),
    ("set", "node raw", "redis", 0.90, 0.75),
    ("get", "node raw", "nginx", 0.90, 0.75),
    ("get x16", "node raw", "redis", 0.75, 0.50),
    ("set x16", "node raw", "redis", 0.90, 0.60),
]


class Server:
    """A process on core 0 that listens on its port."""

    def __init__(self, name: str, command: list[str]):
        self.port = PORTS[name]
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        sys.exit(f"{name} does not listen on port {self.port}: is it in use?")

    @property
    def pid(self) -> int:
        # nginx answers in a child of its own.
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else self.process.pid

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024 / 1e6

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def build() -> None:
    # The generator first: the node is to be built without what only the generator needs.
    for features in (["--features", "bench", "--bin", "db-node-bench"], ["--bin", "db-node"]):
        subprocess.run(["cargo", "build", "--release", "--locked", *features], cwd=ROOT, check=True)
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-o", OUT / "bare", ROOT / "benches/compare/bare.c"], check=True)


def bench(server: Server, *options: str) -> dict:
    command = ["taskset", "-c", "1", str(BENCH), f"127.0.0.1:{server.port}", "--json", "-", "--pid", str(server.pid), *options]
    outcome = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if outcome["refused"]:
        sys.exit(f"{outcome['refused']} requests were refused: {command}")
    return outcome


def answer_of_node(port: int) -> bytes:
    """The bytes of the node's answer to a GET, for H and nginx to send as many."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /kv/key:000000000001 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(65536)


def start_all(folder: Path) -> dict[str, Server]:
    servers = {"node": Server("node", [str(NODE), "--listen", f"127.0.0.1:{PORTS['node']}", "--replication-listen", "off", "--log", "off"])}
    bench(servers["node"], "--fill", "--pipeline", "50", "--keys", str(ENTRIES))
    (folder / "answer").write_bytes(answer_of_node(PORTS["node"]))
    servers["H"] = Server("H", [str(OUT / "bare"), str(PORTS["H"]), str(folder / "answer")])
    if shutil.which("nginx"):
        (folder / "nginx.conf").write_text(
            f"worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null; daemon off;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/body;\n"
            f"  server {{ listen 127.0.0.1:{PORTS['nginx']}; location / {{ default_type application/octet-stream;\n"
            f"    return 200 \"{'v' * 32}\"; }} }} }}\n"
        )
        servers["nginx"] = Server("nginx", ["nginx", "-c", str(folder / "nginx.conf")])
    if shutil.which("redis-server"):
        redis = ["redis-server", "--port", str(PORTS["redis"]), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        servers["redis"] = Server("redis", redis)
        bench(servers["redis"], "--protocol", "resp", "--fill", "--pipeline", "50", "--keys", str(ENTRIES))
    return servers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    missing = [name for name in ("cc", "taskset", "nginx", "redis-server") if not shutil.which(name)]
    if {"cc", "taskset"} & set(missing):
        sys.exit(f"needed and not installed: {', '.join(missing)}")
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    build()
    with tempfile.TemporaryDirectory() as folder:
        servers = start_all(Path(folder))
        try:
            compare(servers, options, missing)
        finally:
            for server in servers.values():
                server.stop()


def compare(servers: dict[str, Server], options: argparse.Namespace, missing: list[str]) -> None:
    faces = [("H", "H", "raw"), ("nginx", "nginx", "raw"), ("redis", "redis", "resp"), ("node raw", "node", "raw"), ("node json", "node", "json")]
    faces = [face for face in faces if face[1] in servers]
    fresh = {name: servers[name].resident_mb() for name in ("node", "redis") if name in servers}
    measures = {"get": ("1", "1"), "set": ("0", "1"), "get x16": ("1", "16"), "set x16": ("0", "16")}
    outcomes: dict[tuple[str, str], list[dict]] = {}
    for _ in range(options.rounds):
        for measure, (reads, pipeline) in measures.items():
            for name, server, protocol in faces:
                if name == "nginx" and measure != "get":
                    continue
                load = ["--protocol", protocol, "--reads", reads, "--pipeline", pipeline, "--keys", str(ENTRIES)]
                timing = ["--seconds", str(options.seconds), "--warm-up-seconds", str(min(0.5, options.seconds / 2))]
                outcomes.setdefault((measure, name), []).append(bench(servers[server], *load, *timing))
    passes = 1 if options.quick else 10
    for _ in range(passes):
        bench(servers["node"], "--fill", "--pipeline", "50", "--keys", str(ENTRIES))
    time.sleep(2)
    overwritten = servers["node"].resident_mb()
    write_report(options, missing, outcomes, fresh, overwritten, passes)


def median(outcomes: list[dict], figure) -> float:
    return statistics.median(figure(outcome) for outcome in outcomes)


def write_report(options, missing, outcomes, fresh, overwritten, passes) -> None:
    cpu = {key: median(found, lambda one: one["cpuUsPerRequest"]) for key, found in outcomes.items()}
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    lines = [
        "# The node beside its peers",
        "",
        f"64 connections, 16-byte keys, 32-byte values, {ENTRIES} keys at random; medians of {options.rounds} rounds of {options.seconds} s,",
        f"candidates in turn; congestion control of all: {control}; {os.cpu_count()} processors, server on the first, generator on the second.",
        *([f"Not installed, left out: {', '.join(missing)}."] if missing else []),
        "",
        "| measure | candidate | CPU us/request | requests/s | p50 us | p99 us | p99.9 us | max us |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (measure, name), found in outcomes.items():
        shown = [median(found, lambda one, key=key: one["latencyUs"][key]) for key in ("p50", "p99", "p999", "max")]
        rate = median(found, lambda one: one["perSecond"])
        lines.append(f"| {measure} | {name} | {cpu[measure, name]:.2f} | {rate:.0f} | " + " | ".join(f"{value:.0f}" for value in shown) + " |")
    lines += ["", "| ratio of CPU time | measured | at most | aim | |", "|---|---|---|---|---|"]
    ratios = []
    for measure, name, beside, at_most, aim in LIMITS:
        if (measure, beside) in cpu:
            ratio = cpu[measure, name] / cpu[measure, beside]
            verdict = "aim reached" if ratio <= aim else "holds" if ratio <= at_most else "**falls short**"
            ratios.append({"measure": measure, "candidate": name, "beside": beside, "ratio": ratio, "atMost": at_most, "aim": aim})
            lines.append(f"| {measure}: {name} ÷ {beside} | {ratio:.2f} | {at_most} | {aim} | {verdict} |")
    entry_bytes = fresh["node"] * 1e6 / ENTRIES - 48
    lines += ["", f"- Resident with {ENTRIES} entries: node {fresh['node']:.1f} MB ({entry_bytes:.1f} bytes an entry beyond key and value, all told)"]
    if "redis" in fresh:
        lines[-1] += f", Redis {fresh['redis']:.1f} MB: {fresh['node'] / fresh['redis']:.2f} (at most 0.55, aim 0.45)"
    lines.append(f"- After {passes} more passes of overwriting: {overwritten:.1f} MB, {overwritten / fresh['node']:.2f} of fresh (at most 1.3, aim 1.15)")
    report = "\n".join(lines) + "\n"
    (OUT / "report.md").write_text(report)
    details = {f"{measure}: {name}": found for (measure, name), found in outcomes.items()}
    figures = {"congestionControl": control, "ratios": ratios, "residentMb": fresh, "overwrittenMb": overwritten, "runs": details}
    (OUT / "report.json").write_text(json.dumps(figures, indent=1))
    print(report)
    print(f"written: {OUT / 'report.md'}, {OUT / 'report.json'}")


if __name__ == "__main__":
    main()
