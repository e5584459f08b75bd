"""Hosts that are network namespaces, on one switch that is a namespace, too.

Nothing of the machine's own network is changed, and several networks can be there at once.

A cut between two hosts is made at the switch, a direction at a time, so that packets vanish as on a
wire. A host that is cut from all loses its link.
"""

import ctypes
import os
import subprocess
import threading
from pathlib import Path

RATE = ["rate", "256kbit", "burst", "8kb", "latency", "400ms"]
RULES = """
table bridge faults {
  set cut { type ipv4_addr . ipv4_addr; }
  chain pass { type filter hook forward priority 0; ip saddr . ip daddr @cut drop; }
}
"""


def run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, check=True, input=text, text=True, stdout=subprocess.DEVNULL)


class Network:
    """Hosts by name, each with an address of 10.77.0.0/24 on its only interface."""

    def __init__(self, hosts: list[str]):
        self.prefix = f"faults{os.getpid()}"
        self.addresses = {host: f"10.77.0.{number}" for number, host in enumerate(hosts, 1)}
        self.namespaces: list[str] = []
        self.cuts: list[set[tuple[str, str]]] = []
        self.lock = threading.Lock()

    def make(self) -> None:
        switch = self._namespace("switch")
        run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        for host, address in self.addresses.items():
            inside = self._namespace(host)
            run(
                "ip",
                "link",
                "add",
                "eth0",
                "netns",
                inside,
                "type",
                "veth",
                "peer",
                "name",
                host,
                "netns",
                switch,
            )
            run("ip", "-n", switch, "link", "set", host, "master", "bridge", "up")
            run("ip", "-n", inside, "addr", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", inside, "link", "set", link, "up")
        self._filter(RULES)

    def _namespace(self, host: str) -> str:
        name = f"{self.prefix}-{host}"
        run("ip", "netns", "add", name)
        self.namespaces.append(name)
        return name

    def remove(self) -> None:
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)

    def inside(self, host: str) -> list[str]:
        """What comes before a command that runs on a host; the process is the command's own."""
        return ["nsenter", f"--net=/run/netns/{self.prefix}-{host}"]

    def enter(self, host: str) -> None:
        """This thread, and threads and processes that it starts, are on that host from now on."""
        with Path(f"/run/netns/{self.prefix}-{host}").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")

    def cut(self, pairs: set[tuple[str, str]]) -> None:
        """From now on nothing gets from the first to the second host of each pair."""
        with self.lock:
            self.cuts.append(pairs)
            self._apply()

    def mend(self, pairs: set[tuple[str, str]]) -> None:
        """Ends one cut; what another one says stays."""
        with self.lock:
            self.cuts.remove(pairs)
            self._apply()

    def _apply(self) -> None:
        pairs = sorted(set().union(*self.cuts))
        named = ", ".join(f"{self.addresses[a]} . {self.addresses[b]}" for a, b in pairs)
        add = f"add element bridge faults cut {{ {named} }}\n" if named else ""
        self._filter(f"flush set bridge faults cut\n{add}")

    def _filter(self, rules: str) -> None:
        run(*self.inside("switch"), "nft", "-f", "-", text=rules)

    def link(self, host: str, state: str) -> None:
        """Pulls the cable of a host, "down", or puts it in again, "up"."""
        run("ip", "-n", f"{self.prefix}-switch", "link", "set", host, state)

    def slow(self, host: str, is_slow: bool) -> None:
        """Makes the link of a host a slow one, in both directions, or as it was."""
        for namespace, link in ((f"{self.prefix}-{host}", "eth0"), (f"{self.prefix}-switch", host)):
            how = (
                ["replace", "dev", link, "root", "tbf", *RATE]
                if is_slow
                else ["del", "dev", link, "root"]
            )
            run("tc", "-n", namespace, "qdisc", *how)
