"""Three nodes, three members of etcd, HAProxy with the file of packaging/, and the clients.

Each is on a host of its own.

Data lies in memory: each node has a small tmpfs, so that a disk can be filled. All that is started
here is ended here. Not here: the hosts and their links (network.py).
"""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from network import Network, run

NODES, MEMBERS = ["n1", "n2", "n3"], ["e1", "e2", "e3"]
PROXY, CLIENTS = "proxy", "clients"
PACKAGING = Path(__file__).resolve().parent.parent.parent / "packaging"
DISK = "192m"
PORT, PROXY_PORT = 9001, 9000


class Host:
    """A process on a host of its own, and its log; it is started again with the same words."""

    def __init__(self, network: Network, name: str, command: list, folder: Path):
        self.network, self.name, self.command = network, name, [str(word) for word in command]
        self.address = network.addresses[name]
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen | None = None
        self.starting = threading.Lock()

    def start(self) -> None:
        """Starts it, unless another fault has done so."""
        with self.starting, self.log.open("a") as log:
            if self.is_running():
                return
            log.write(f"--- {time.monotonic():.3f} started\n")
            log.flush()
            command = self.network.inside(self.name) + self.command
            # A group of its own: Ctrl-C is for the harness, which ends all in order.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0
            )

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.is_running():
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def stop(self, seconds: float = 30) -> None:
        """Asks it to end, and waits until it has."""
        self.signal(signal.SIGTERM)
        self.process.wait(seconds)

    def request(
        self, method: str, path: str, body: dict | None = None, port: int = PORT, seconds: float = 2
    ) -> tuple[int, dict]:
        """Its answer: the status, 0 without one, and the JSON, {} without."""
        connection = http.client.HTTPConnection(self.address, port, timeout=seconds)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
            return status, json.loads(text) if text.startswith(b"{") else {}
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()


class Cluster:
    """All of it."""

    def __init__(self, binary: Path, folder: Path, lease_ms: int, copies: int):
        self.folder, self.copies, self.lease_ms = folder, copies, lease_ms
        self.network = Network([*NODES, *MEMBERS, PROXY, CLIENTS])
        self.is_over = threading.Event()
        # Of this round: which nodes the faults have met, and what they have measured.
        self.targets: list[str] = []
        self.measures: list[tuple[str, int]] = []
        self.release = "db-node"
        shutil.copy(binary, folder / "db-node")
        etcd = ",".join(f"http://{self.network.addresses[name]}:2379" for name in MEMBERS)
        self.nodes = {name: self._node(name, etcd, lease_ms) for name in NODES}
        self.members = {name: self._member(name) for name in MEMBERS}
        self.proxy = Host(
            self.network, PROXY, ["haproxy", "-db", "-f", folder / "haproxy.cfg"], folder
        )

    def _node(self, name: str, etcd: str, lease_ms: int) -> Host:
        address = f"{self.network.addresses[name]}:{PORT}"
        command = [
            self.folder / f"{name}.bin",
            "--listen",
            address,
            "--allow-open",
            "--data-dir",
            self.folder / name,
            "--etcd",
            etcd,
        ]
        command += [
            "--node",
            name,
            "--lease-ms",
            lease_ms,
            "--cluster-init",
            f"partitions=1,replicas={self.copies}",
        ]
        return Host(self.network, name, command, self.folder)

    def _member(self, name: str) -> Host:
        def url(of: str, port: int) -> str:
            return f"http://{self.network.addresses[of]}:{port}"

        peers = ",".join(f"{of}={url(of, 2380)}" for of in MEMBERS)
        command = [
            "etcd",
            "--name",
            name,
            "--data-dir",
            self.folder / name,
            "--unsafe-no-fsync",
            "--initial-cluster",
            peers,
        ]
        command += [
            "--listen-peer-urls",
            url(name, 2380),
            "--initial-advertise-peer-urls",
            url(name, 2380),
        ]
        command += [
            "--listen-client-urls",
            url(name, 2379),
            "--advertise-client-urls",
            url(name, 2379),
        ]
        return Host(self.network, name, command, self.folder)

    def start(self) -> None:
        self.network.make()
        self.network.enter(CLIENTS)
        text = (PACKAGING / "haproxy-etcd.cfg").read_text()
        text = re.sub(r"^ *(user|group) haproxy", "", text, flags=re.M)
        for number, name in enumerate(NODES, 11):
            text = text.replace(f"10.0.0.{number}:9001", f"{self.network.addresses[name]}:{PORT}")
        (self.folder / "haproxy.cfg").write_text(text)
        for name in NODES:
            (self.folder / name).mkdir()
            run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self.folder / name))
            self.use(name, self.folder / "db-node")
        for host in self.hosts():
            host.start()

    def use(self, name: str, binary: Path) -> None:
        """The program that a node is from its next start on."""
        link = self.folder / f"{name}.bin"
        link.unlink(missing_ok=True)
        os.link(binary, link)

    def hosts(self) -> list[Host]:
        return [*self.members.values(), *self.nodes.values(), self.proxy]

    def end(self) -> None:
        """Ends what was started and takes the hosts away; the logs stay."""
        self.is_over.set()
        for host in self.hosts():
            host.signal(signal.SIGCONT)
            host.kill()
        self.network.remove()
        for name in NODES:
            subprocess.run(["umount", "-l", self.folder / name], stderr=subprocess.DEVNULL)
        for name in [*MEMBERS, *NODES]:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def sleep(self, seconds: float) -> None:
        if self.is_over.wait(seconds):
            raise InterruptedError("the run was ended")

    def partition(self, name: str) -> dict:
        _, answer = self.nodes[name].request("GET", "/status?partition=0")
        return (answer.get("partitions") or [{}])[0]

    def leader(self) -> str | None:
        """The node that may answer as the leader now."""
        return next(
            (name for name, node in self.nodes.items() if node.request("GET", "/leader")[0] == 200),
            None,
        )

    def leader_soon(self) -> str:
        for _ in range(600):
            if name := self.leader():
                return name
            self.sleep(0.05)
        raise TimeoutError("no node leads for 30 s")

    def replicas(self, leader: str) -> list[str]:
        return [name for name in NODES if name != leader]

    def config(self) -> dict:
        """The configuration of the partition, as etcd has it."""
        key = base64.b64encode(b"/db-node/default/partitions/0/config").decode()
        for member in self.members.values():
            status, answer = member.request("POST", "/v3/kv/range", {"key": key}, 2379)
            if status == 200 and answer.get("kvs"):
                return json.loads(base64.b64decode(answer["kvs"][0]["value"]))
        return {}

    def is_well(self) -> bool:
        """One node leads, all are in sync and say that they are ready, and HAProxy has found it."""
        config = self.config()
        names, in_sync = config.get("replicas", []), config.get("inSync", [])
        if not len(names) == len(in_sync) == self.copies or not self.leader():
            return False
        if not all(self.nodes[name].request("GET", "/readyz")[0] == 200 for name in names):
            return False
        return self.proxy.request("GET", "/kv/any", port=PROXY_PORT)[0] in (200, 404)

    def becomes_well(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self.is_well():
            if time.monotonic() > deadline:
                return False
            self.sleep(0.1)
        return True

    def etcd_leader(self) -> str:
        for _ in range(100):
            for name, member in self.members.items():
                _, answer = member.request("POST", "/v3/maintenance/status", {}, 2379)
                if answer.get("leader") and answer["leader"] == answer["header"]["member_id"]:
                    return name
            self.sleep(0.1)
        raise TimeoutError("etcd has no leader for 10 s")

    def complaint(self) -> str:
        """What is not well, in a line."""
        config = self.config()
        states = {name: self.partition(name).get("stateReason", "no answer") for name in NODES}
        in_sync = [copy["node"] for copy in config.get("inSync", [])]
        return f"leader {config.get('leader')}, in sync {in_sync}, {states}"
