"""What requests cost: processor time, rates, latencies and system calls, of all candidates in turn; over data sizes and connections."""

import shutil
import signal
import subprocess
import time

import servers
from servers import Server, bench

MEASURES = {"get": (1, 1), "set": (0, 1), "get x16": (1, 16), "set x16": (0, 16)}


def load(measure: str, protocol: str, keys: int, seconds: float) -> list:
    reads, pipeline = MEASURES[measure]
    timing = ["--seconds", seconds, "--warm-up-seconds", min(0.3, seconds / 2)]
    return ["--protocol", protocol, "--reads", reads, "--pipeline", pipeline, "--keys", keys, *timing]


def faces(candidates: dict[str, Server]) -> list[tuple[str, Server, str]]:
    """Name, server, protocol: the node has two faces."""
    found = []
    for name, server in candidates.items():
        names = [("node raw", "raw"), ("node json", "json")] if name == "node" else [(name, servers.PROTOCOLS[name])]
        found += [(face, server, protocol) for face, protocol in names]
    return found


def asks(name: str, measure: str) -> bool:
    """nginx answers in one way; webdis and etcd take some time for a little, and are not asked in pipelines."""
    return measure == "get" or name != "nginx" and not (name in ("webdis", "etcd") and "x16" in measure)


def compare(candidates: dict[str, Server], keys: int, rounds: int, seconds: float) -> dict[tuple[str, str], list[dict]]:
    outcomes: dict[tuple[str, str], list[dict]] = {}
    for at in range(rounds):
        for measure in MEASURES:
            for name, server, protocol in faces(candidates):
                if asks(name, measure):
                    try:
                        outcome = bench(server, *load(measure, protocol, keys, seconds))
                    except subprocess.CalledProcessError:
                        if server.name == "node":
                            raise
                        # webdis 0.1.9 answers a request twice now and then. The generator has said what was wrong.
                        print(f"{name}, {measure}: went wrong, this round does not count")
                        continue
                    outcomes.setdefault((measure, name), []).append(outcome | {"round": at})
    return outcomes


def congestion_controls(candidates: dict[str, Server], keys: int) -> dict[str, list[str]]:
    """What the kernel uses for each, looked at under load."""
    found = {}
    for name, server, protocol in faces(candidates):
        command = servers.bench_command(server, *load("get", protocol, keys, 0.6))
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(0.4)
        found[name] = sorted(server.congestion_control())
        running.wait()
    return found


def system_calls(candidates: dict[str, Server], keys: int) -> dict[tuple[str, str], float]:
    """System calls per request; never while timing, since tracing costs more than what is traced."""
    if not shutil.which("strace"):
        return {}
    found = {}
    for name, server, protocol in faces(candidates):
        for measure in MEASURES:
            if not asks(name, measure):
                continue
            trace = servers.OUT / "strace.txt"
            pids = [option for pid in server.pids() for option in ("-p", str(pid))]
            tracer = subprocess.Popen(["strace", "-f", "-c", "-o", trace, *pids], stderr=subprocess.DEVNULL)
            time.sleep(0.3)
            try:
                answered = bench(server, *load(measure, protocol, keys, 1), "--requests", 20_000, "--warm-up-seconds", 0)["answered"]
            except subprocess.CalledProcessError:
                # Some programs cannot bear to be traced: webdis 0.1.9 was seen to answer a request twice.
                print(f"{name}, {measure}: goes wrong while it is traced, system calls not counted")
                continue
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait()
            # Share, seconds, microseconds a call, calls, and errors if there were any.
            total = [line.split() for line in trace.read_text().splitlines() if line.endswith(" total")]
            if total:
                found[measure, name] = int(total[0][3]) / answered
    return found


def over_sizes(sizes: list[int], rounds: int, seconds: float) -> dict[str, dict[int, list[float]]]:
    """CPU us a request of node and Redis in each round, by candidate and measure, over the number of entries."""
    figures: dict[str, dict[int, list[float]]] = {}
    for size in sizes:
        candidates = {"node": servers.node(), **({"redis": servers.redis()} if shutil.which("redis-server") else {})}
        try:
            for server in candidates.values():
                servers.fill(server, size)
            time.sleep(2)
            found: dict[str, list[float]] = {}
            for _ in range(rounds):
                for measure in MEASURES:
                    for name, server in candidates.items():
                        protocol = servers.PROTOCOLS.get(name, "raw")
                        cost = bench(server, *load(measure, protocol, size, seconds))["cpuUsPerRequest"]
                        found.setdefault(f"{name} {measure}", []).append(cost)
            for name, costs in found.items():
                figures.setdefault(name, {})[size] = costs
        finally:
            for server in candidates.values():
                server.stop()
    return figures


def over_connections(candidates: dict[str, Server], counts: list[int], keys: int, rounds: int, seconds: float) -> dict[str, dict[int, list[float]]]:
    """GETs a second in each round, by candidate and number of connections."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in counts:
            for name, server, protocol in faces(candidates):
                if name not in ("node json", "webdis", "etcd"):
                    outcome = bench(server, *load("get", protocol, keys, seconds), "--connections", count)
                    found.setdefault((name, count), []).append(outcome["perSecond"])
    names = dict.fromkeys(name for name, _ in found)
    return {name: {count: found[name, count] for count in counts} for name in names}
