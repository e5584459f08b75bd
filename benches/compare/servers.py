"""The candidates: each a process (or two) on core 0 with a port of its own, and the load generator on core 1."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from building import BENCH, NODE, ROOT

OUT = ROOT / "target/compare"
BARE = OUT / "bare"
# The program that each peer needs; what is not installed is left out.
PEERS = {"nginx": "nginx", "redis": "redis-server", "webdis": "webdis", "memcached": "memcached", "etcd": "etcd"}
PORTS = {name: 9411 + index for index, name in enumerate(["H", "node", *PEERS, "webdis-redis", "etcd-peer", "replica", "repl-port"])}
PROTOCOLS = {"H": "raw", "nginx": "raw", "redis": "resp", "webdis": "webdis", "memcached": "memcached", "etcd": "etcd"}


class Server:
    """A process on core 0 that listens on its port, and what it needs behind it."""

    def __init__(self, name: str, command: list, behind: "Server | None" = None):
        self.name, self.port, self.behind = name, PORTS[name], behind
        self.command = ["taskset", "-c", "0", *map(str, command)]
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        sys.exit(f"{name} does not listen on port {self.port}: is it in use?")

    def pids(self) -> list[int]:
        """All processes: nginx answers in a child of its own."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children), *(self.behind.pids() if self.behind else [])]

    def resident_mb(self) -> float:
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in self.pids())
        return sum(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) for status in statuses) * 1024 / 1e6

    def cpu_seconds(self) -> float:
        tasks = (task for pid in self.pids() for task in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def congestion_control(self) -> set[str]:
        """What the kernel uses for connections that are open now."""
        shown = subprocess.run(["ss", "-tin", f"sport = :{self.port}"], stdout=subprocess.PIPE, text=True).stdout
        return set(re.findall(r"\b(bbr|cubic|reno|vegas|htcp|dctcp)\b", shown))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.behind:
            self.behind.stop()


def missing() -> list[str]:
    return [f"{name} ({program})" for name, program in PEERS.items() if not shutil.which(program)]


def bench_command(server: Server, *options) -> list[str]:
    pids = ",".join(map(str, server.pids()))
    return ["taskset", "-c", "1", str(BENCH), f"127.0.0.1:{server.port}", "--json", "-", "--pid", pids, *map(str, options)]


def bench(server: Server, *options) -> dict:
    command = bench_command(server, *options)
    outcome = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if outcome["refused"]:
        sys.exit(f"{outcome['refused']} requests were refused: {command}")
    return outcome


def fill(server: Server, keys: int, *options) -> None:
    protocol = PROTOCOLS.get(server.name, "raw")
    # etcd answers some thousand requests a second; it is asked for less, and gets less.
    depth = 1 if server.name in ("etcd", "webdis") else 50
    bench(server, "--protocol", protocol, "--fill", "--pipeline", depth, "--keys", keys, *options)


def node(name: str = "node", *options) -> Server:
    listen = ["--listen", f"127.0.0.1:{PORTS[name]}", "--log", "off"]
    return Server(name, [NODE, *listen, *(options or ("--replication-listen", "off"))])


def redis(name: str = "redis") -> Server:
    return Server(name, ["redis-server", "--port", PORTS[name], "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])


def bare(folder: Path, answer: bytes, *options) -> Server:
    (folder / "answer").write_bytes(answer)
    return Server("H", [BARE, PORTS["H"], folder / "answer", *options])


def answer_of(server: Server, path: str) -> bytes:
    """The bytes of an answer to a GET, for H to send as many."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        pieces = []
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces).replace(b"Connection: close\r\n", b"")


def nginx(folder: Path) -> Server:
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null; daemon off;\n"
        "events { worker_connections 2048; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/body;\n"
        f"  server {{ listen 127.0.0.1:{PORTS['nginx']}; location / {{ default_type application/octet-stream;\n"
        f"    return 200 \"{'v' * 32}\"; }} }} }}\n"
    )
    return Server("nginx", ["nginx", "-c", folder / "nginx.conf"])


def webdis(folder: Path) -> Server:
    store = redis("webdis-redis")
    settings = {
        "redis_host": "127.0.0.1", "redis_port": PORTS["webdis-redis"], "http_host": "127.0.0.1", "http_port": PORTS["webdis"],
        "threads": 1, "pool_size": 20, "daemonize": False, "acl": [{"enabled": ["*"]}], "verbosity": 0, "logfile": "/dev/null",
    }
    (folder / "webdis.json").write_text(json.dumps(settings))
    return Server("webdis", ["webdis", folder / "webdis.json"], behind=store)


def memcached() -> Server:
    return Server("memcached", ["memcached", "-l", "127.0.0.1", "-p", PORTS["memcached"], "-U", 0, "-t", 1, "-m", 2048, "-c", 2048, "-u", "root"])


def etcd(folder: Path) -> Server:
    url, peer = f"http://127.0.0.1:{PORTS['etcd']}", f"http://127.0.0.1:{PORTS['etcd-peer']}"
    urls = ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
    cluster = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    return Server("etcd", ["etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync", *urls, *cluster])


def peers(folder: Path) -> dict[str, Server]:
    """All that are installed, empty."""
    makers = {"nginx": lambda: nginx(folder), "redis": redis, "webdis": lambda: webdis(folder), "memcached": memcached, "etcd": lambda: etcd(folder)}
    return {name: make() for name, make in makers.items() if shutil.which(PEERS[name]) and (name != "webdis" or shutil.which("redis-server"))}
