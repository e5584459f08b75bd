"""What the node does beside requests of its own: memory, idle connections, large values, and latencies while it merges and while a replica
joins again and again."""

import http.client
import json
import resource
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import servers
from servers import PORTS, Server, bench, fill, node

MIB = 1024 * 1024


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def overwritten(server: Server, keys: int, passes: int) -> float:
    """Resident MB after overwriting everything so many times."""
    for _ in range(passes):
        fill(server, keys)
    time.sleep(2)
    return server.resident_mb()


def idle(connection_count: int) -> dict:
    """Memory of a node that has nothing to do, and what each idle connection adds: resident, and heap as the node counts it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connection_count + 1000), hard))
    server = node()
    try:
        time.sleep(0.5)
        ask(server, "GET", "/livez")
        before = server.resident_mb()
        held = []
        for _ in range(connection_count):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(4096)
            held.append(connection)
        after = server.resident_mb()
        metrics = ask(server, "GET", "/metrics").decode()
        heap = [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("dbnode_memory_bytes") and "connections" in line]
        for connection in held:
            connection.close()
        each = (after - before) * 1e6 / connection_count
        return {"idleMb": before, "connections": connection_count, "residentBytesEach": each, "heapBytesEach": heap[0] / connection_count if heap else None}
    finally:
        server.stop()


def large_values(rounds: int, seconds: float) -> dict:
    """Bytes of 1 MiB values sent per second of processor time, by the node and by the bare loop, in each round."""
    found: dict[str, list[float]] = {"node": [], "H": []}
    with tempfile.TemporaryDirectory() as folder:
        candidates = {"node": node()}
        bench(candidates["node"], "--fill", "--keys", 4, "--value-bytes", MIB, "--connections", 4)
        candidates["H"] = servers.bare(Path(folder), servers.answer_of(candidates["node"], "/kv/key:000000000001"))
        try:
            for _ in range(rounds):
                for name, server in candidates.items():
                    options = ["--keys", 4, "--connections", 4, "--seconds", seconds, "--warm-up-seconds", 0.2]
                    found[name].append(MIB / bench(server, *options)["cpuUsPerRequest"])
        finally:
            for server in candidates.values():
                server.stop()
    return {"mbPerCpuSecond": found}


def turns(keys: int, seconds: float, times: int) -> dict:
    """The longest slice of maintenance and the longest turn under a load of SETs, in us of processor time: of each of several nodes, and the
    least of them. What the hypervisor takes meanwhile counts as theirs, in the middle of anything, and can only be too much: so the least
    says most about the node. Beside each stands the longest request of the bare loop, under as many requests and for as long."""
    found, bare_longest_us = [], []
    with tempfile.TemporaryDirectory() as name:
        longest = Path(name) / "longest"
        for _ in range(times):
            server, begun = node(), time.monotonic()
            try:
                fill(server, keys)
                load = ["--reads", 0, "--keys", keys, "--pipeline", 4, "--warm-up-seconds", 0]
                bench(server, *load, "--seconds", seconds)
                lasted = time.monotonic() - begun
                found.append(json.loads(ask(server, "GET", "/status"))["loop"])
                answer = servers.answer_of(server, "/kv/key:000000000001")
            finally:
                server.stop()
            server = servers.bare(Path(name), answer, longest)
            try:
                bench(server, *load, "--seconds", lasted)
            finally:
                server.stop()
            bare_longest_us.append(float(longest.read_text()))
    each = {key: [one[key] for one in found] for key in ("longestTurnUs", "longestSliceUs")}
    least = {key: min(values) for key, values in each.items()}
    shares = [one["slowTurns"] / one["turns"] for one in found]
    return {"keys": keys, **least, "each": each | {"bareLongestRequestUs": bare_longest_us}, "slowTurnShare": min(shares)}


def half_load(server: Server, keys: int) -> int:
    """Half of the GETs a second that it can answer in the open loop."""
    options = ["--keys", keys, "--seconds", 1, "--warm-up-seconds", 0.3]
    return int(max(bench(server, *options, "--rate", rate)["perSecond"] for rate in (60_000, 90_000, 120_000)) / 2)


def open_loop(server: Server, keys: int, rate: int, seconds: float) -> dict:
    return bench(server, "--keys", keys, "--rate", rate, "--seconds", seconds, "--slice-ms", 100, "--warm-up-seconds", 0.5)


class Merging:
    """Keeps a node merging: everything, again and again, with a few writes to merge."""

    def __init__(self, server: Server):
        self.server, self.is_over = server, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        number = 0
        while not self.is_over.wait(0.1):
            # Spread over all keys, so that no part of the data can be left as it is.
            writes = [{"op": "set", "key": f"key:{(number + 10_007 * index) % 1_000_000:012}", "value": "v"} for index in range(100)]
            number += 1
            answer = ask(self.server, "POST", "/batch", json.dumps({"ops": writes}).encode())
            assert b'"success":true' in answer, answer
            ask(self.server, "POST", "/admin/compact")

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


class Joining:
    """An empty replica joins again and again; it gets what the generator leaves of the other core."""

    def __init__(self, leader: Server):
        self.leader, self.is_over, self.count = leader, threading.Event(), 0
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        listen = f"127.0.0.1:{PORTS['replica']}"
        while not self.is_over.wait(0.3):
            command = ["chrt", "--idle", "0", "taskset", "-c", "1", str(servers.NODE), "--listen", listen, "--replication-listen", "off"]
            replica = subprocess.Popen([*command, "--replica-of", f"127.0.0.1:{self.leader.port}"], stderr=subprocess.DEVNULL)
            while not self.is_over.is_set() and not is_in_sync(PORTS["replica"]):
                time.sleep(0.01)
            self.count += 1
            replica.terminate()
            replica.wait()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


def is_in_sync(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/replica")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def disturbed(keys: int, rounds: int, seconds: float) -> dict:
    """Latencies of GETs at half load: undisturbed, while everything is merged, while a replica joins."""
    server = node("node", "--replication-listen", f"127.0.0.1:{PORTS['repl-port']}")
    found: dict[str, list[dict]] = {"undisturbed": [], "merging": [], "a replica joins": []}
    joined = 0
    try:
        fill(server, keys)
        time.sleep(2)
        rate = half_load(server, keys)
        for at in range(rounds):
            found["undisturbed"].append(open_loop(server, keys, rate, seconds) | {"round": at})
            with Merging(server):
                found["merging"].append(open_loop(server, keys, rate, seconds) | {"round": at})
            joining = Joining(server)
            with joining:
                found["a replica joins"].append(open_loop(server, keys, rate, seconds) | {"round": at})
            joined += joining.count
    finally:
        server.stop()
    return {"rate": rate, "joined": joined, "runs": found}
