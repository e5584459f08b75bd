"""The faults: each is a function that brings it about, waits, and ends it.

`PLANNED` are what an operator does on purpose: clients may see a pause and no error.
"""

import random
import shutil
import signal
import subprocess
import time

from cluster import MEMBERS, NODES, PROXY, Cluster


def the_leader(cluster: Cluster) -> str:
    leader = cluster.leader_soon()
    cluster.targets.append(f"leader {leader}")
    return leader


def a_replica(cluster: Cluster, rng: random.Random) -> str:
    replica = rng.choice(cluster.replicas(cluster.leader_soon()))
    cluster.targets.append(f"replica {replica}")
    return replica


def a_node(cluster: Cluster, rng: random.Random) -> str:
    """The leader, mostly."""
    return the_leader(cluster) if rng.random() < 0.7 else a_replica(cluster, rng)


def killed(cluster: Cluster, rng: random.Random, names: list[str]) -> None:
    for name in names:
        cluster.nodes[name].kill()
    cluster.sleep(rng.uniform(0, 7))
    for name in rng.sample(names, len(names)):
        cluster.nodes[name].start()
        cluster.sleep(rng.choice([0, rng.uniform(0, 2)]))


def kill_leader(cluster: Cluster, rng: random.Random) -> None:
    killed(cluster, rng, [the_leader(cluster)])


def kill_replica(cluster: Cluster, rng: random.Random) -> None:
    killed(cluster, rng, [a_replica(cluster, rng)])


def kill_two(cluster: Cluster, rng: random.Random) -> None:
    """The leader and a replica in the same moment."""
    leader = cluster.leader_soon()
    killed(cluster, rng, [leader, rng.choice(cluster.replicas(leader))])


def kill_all(cluster: Cluster, rng: random.Random) -> None:
    killed(cluster, rng, rng.sample(NODES, 3))


def kill_leader_ahead(cluster: Cluster, rng: random.Random) -> None:
    """The leader is killed while a replica is still in sync and no longer hears it."""
    leader = the_leader(cluster)
    pairs = both_ways(leader, [a_replica(cluster, rng)])
    cluster.network.cut(pairs)
    cluster.sleep(rng.uniform(0.1, 0.5) * cluster.lease_ms / 1000)
    cluster.nodes[leader].kill()
    cluster.network.mend(pairs)
    killed(cluster, rng, [leader])


def empty(cluster: Cluster, rng: random.Random) -> None:
    """A node is killed and its disk replaced: a new copy."""
    name = a_node(cluster, rng)
    cluster.nodes[name].kill()
    for entry in (cluster.folder / name).iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    cluster.sleep(rng.uniform(0, 4))
    cluster.nodes[name].start()


def pause(cluster: Cluster, rng: random.Random) -> None:
    node = cluster.nodes[a_node(cluster, rng)]
    node.signal(signal.SIGSTOP)
    try:
        cluster.sleep(rng.uniform(1, 10))
    finally:
        node.signal(signal.SIGCONT)


def cut(cluster: Cluster, rng: random.Random, pairs: set[tuple[str, str]]) -> None:
    cluster.network.cut(pairs)
    try:
        cluster.sleep(rng.uniform(0.5, 8))
    finally:
        cluster.network.mend(pairs)


def both_ways(name: str, others: list[str]) -> set[tuple[str, str]]:
    others = [other for other in others if other != name]
    return {(name, other) for other in others} | {(other, name) for other in others}


def cut_peers(cluster: Cluster, rng: random.Random) -> None:
    cut(cluster, rng, both_ways(a_node(cluster, rng), NODES))


def cut_etcd(cluster: Cluster, rng: random.Random) -> None:
    cut(cluster, rng, both_ways(a_node(cluster, rng), MEMBERS))


def cut_both(cluster: Cluster, rng: random.Random) -> None:
    """From peers and etcd; HAProxy still reaches the node."""
    cut(cluster, rng, both_ways(a_node(cluster, rng), NODES + MEMBERS))


def cut_one_and_etcd(cluster: Cluster, rng: random.Random) -> None:
    """A node, from etcd and one other node, while the third hears both."""
    name = a_node(cluster, rng)
    other = rng.choice([other for other in NODES if other != name])
    cut(cluster, rng, both_ways(name, [other, *MEMBERS]))


def cut_one_way(cluster: Cluster, rng: random.Random) -> None:
    """What a node sends, or what it is sent, gets lost: to or from some or all others."""
    name = a_node(cluster, rng)
    others = [NODES, MEMBERS, NODES + MEMBERS, [rng.choice(NODES)], NODES + MEMBERS + [PROXY]]
    pairs = both_ways(name, rng.choice(others))
    side = rng.randrange(2)
    cut(cluster, rng, {pair for pair in pairs if pair[side] == name})


def cut_all(cluster: Cluster, rng: random.Random) -> None:
    """The cable is pulled."""
    name = a_node(cluster, rng)
    cluster.network.link(name, "down")
    try:
        cluster.sleep(rng.uniform(0.5, 8))
    finally:
        cluster.network.link(name, "up")


def slow(cluster: Cluster, rng: random.Random) -> None:
    name = a_node(cluster, rng)
    cluster.network.slow(name, True)
    try:
        cluster.sleep(rng.uniform(3, 10))
    finally:
        cluster.network.slow(name, False)


def disk_full(cluster: Cluster, rng: random.Random) -> None:
    ballast = cluster.folder / a_node(cluster, rng) / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
    except OSError:
        # Full.
        pass
    try:
        cluster.sleep(rng.uniform(2, 8))
    finally:
        ballast.unlink()


def syncs(cluster: Cluster, name: str, seconds: float, injection: str) -> None:
    """What becomes of fsync and fdatasync on a node for a while, in the words of strace."""
    pid = str(cluster.nodes[name].process.pid)
    calls = "fsync,fdatasync,sync_file_range"
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{injection}",
        "-p",
        pid,
    ]
    tracer = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        cluster.sleep(seconds)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()


def disk_error(cluster: Cluster, rng: random.Random) -> None:
    """Syncs fail for a while; then the node is restarted, as its disk is no longer trusted."""
    name = a_node(cluster, rng)
    syncs(cluster, name, rng.uniform(1, 5), "error=EIO")
    node = cluster.nodes[name]
    node.kill() if rng.random() < 0.5 else node.stop()
    node.start()


def disk_hangs(cluster: Cluster, rng: random.Random) -> None:
    syncs(
        cluster,
        a_node(cluster, rng),
        rng.uniform(1, 6),
        f"delay_enter={rng.randrange(500_000, 9_000_000)}",
    )


def etcd_leader_stops(cluster: Cluster, rng: random.Random) -> None:
    member = cluster.members[cluster.etcd_leader()]
    member.signal(signal.SIGSTOP)
    try:
        cluster.sleep(rng.uniform(1, 6))
    finally:
        member.signal(signal.SIGCONT)


def etcd_leader_killed(cluster: Cluster, rng: random.Random) -> None:
    etcd_killed(cluster, [cluster.etcd_leader()], rng.uniform(0, 5))


def etcd_rolling(cluster: Cluster, rng: random.Random) -> None:
    """The members are restarted one by one."""
    for name in rng.sample(MEMBERS, 3):
        etcd_killed(cluster, [name], 0.5)
        cluster.etcd_leader()
        cluster.sleep(2)


def etcd_away(cluster: Cluster, rng: random.Random, seconds: float = 30) -> None:
    """Two members of three are killed, and started again later."""
    etcd_killed(cluster, rng.sample(MEMBERS, 2), seconds)


def etcd_away_long(cluster: Cluster, rng: random.Random) -> None:
    etcd_away(cluster, rng, 600)


def etcd_killed(cluster: Cluster, names: list[str], seconds: float) -> None:
    for name in names:
        cluster.members[name].kill()
    try:
        cluster.sleep(seconds)
    finally:
        for name in names:
            if not cluster.is_over.is_set():
                cluster.members[name].start()


def etcd_emptied(cluster: Cluster, rng: random.Random) -> None:
    """etcd is killed and starts without data; then what docs/cluster.md tells an operator to do."""
    for member in cluster.members.values():
        member.kill()
    for name in MEMBERS:
        shutil.rmtree(cluster.folder / name)
    cluster.sleep(rng.uniform(0, 3))
    for member in cluster.members.values():
        member.start()
    cluster.etcd_leader()
    cluster.sleep(rng.uniform(0, 8))
    leader = cluster.leader_soon()
    recover = {"id": 0, "node": leader, "acceptDataLoss": True}
    for _ in range(30):
        status, answer = cluster.nodes[leader].request(
            "POST", "/partition/recover", recover, seconds=10
        )
        if status == 200:
            break
        cluster.sleep(1)
    assert status == 200, f"/partition/recover: {status} {answer}"
    for name in cluster.replicas(leader):
        cluster.nodes[name].stop()
        cluster.nodes[name].start()
        cluster.sleep(2)


def hand_over(cluster: Cluster, rng: random.Random) -> None:
    leader = cluster.leader_soon()
    others = [copy["node"] for copy in cluster.config()["inSync"] if copy["node"] != leader]
    to = rng.choice(sorted(others))
    began = time.monotonic()
    status, answer = cluster.nodes[leader].request(
        "POST", "/partition/handover", {"id": 0, "to": to}, seconds=10
    )
    assert status == 200, f"/partition/handover: {status} {answer}"
    cluster.measures.append(("hand-over at the node, ms", round((time.monotonic() - began) * 1000)))
    cluster.sleep(rng.uniform(0.5, 2))


def restarted(cluster: Cluster, name: str) -> None:
    """SIGTERM, and the program again when it has ended; until all are in sync."""
    cluster.nodes[name].stop()
    cluster.nodes[name].start()
    cluster.sleep(0.3)
    assert cluster.becomes_well(
        30
    ), f"{name} is not well 30 s after a restart: {cluster.complaint()}"


def restart_leader(cluster: Cluster, _rng: random.Random) -> None:
    restarted(cluster, the_leader(cluster))


def restart_replica(cluster: Cluster, rng: random.Random) -> None:
    restarted(cluster, a_replica(cluster, rng))


def rolling_restart(cluster: Cluster, rng: random.Random) -> None:
    for name in rng.sample(NODES, 3):
        restarted(cluster, name)


def move(cluster: Cluster, rng: random.Random) -> None:
    """A copy, that of the leader or another one, goes to the node that has none."""
    names = cluster.config()["replicas"]
    body = {"id": 0, "from": rng.choice(names), "to": next(n for n in NODES if n not in names)}
    cluster.targets.append(f"{body['from']} to {body['to']}")
    status, answer = cluster.nodes[rng.choice(NODES)].request("POST", "/partition/move", body)
    assert status == 202, f"/partition/move: {status} {answer}"
    for _ in range(300):
        names = cluster.config().get("replicas", [])
        if body["to"] in names and body["from"] not in names:
            return
        cluster.sleep(0.1)
    raise TimeoutError(f"the move {body} takes over 30 s: {cluster.complaint()}")


def upgrade(cluster: Cluster, rng: random.Random) -> None:
    """Each node in turn becomes the other one of two releases: see --other-binary."""
    other = {"db-node": "other", "other": "db-node"}[cluster.release]
    for name in rng.sample(NODES, 3):
        cluster.use(name, cluster.folder / other)
        restarted(cluster, name)
        cluster.sleep(rng.uniform(0, 1))
    cluster.release = other


ALL = [
    kill_leader,
    kill_leader_ahead,
    kill_replica,
    kill_two,
    kill_all,
    empty,
    pause,
    cut_peers,
    cut_etcd,
    cut_both,
    cut_one_and_etcd,
    cut_one_way,
    cut_all,
    slow,
    disk_full,
    disk_error,
    disk_hangs,
    etcd_leader_stops,
    etcd_leader_killed,
    etcd_rolling,
    etcd_away,
    etcd_away_long,
    etcd_emptied,
    hand_over,
    restart_leader,
    restart_replica,
    rolling_restart,
    move,
    upgrade,
]
FAULTS = {fault.__name__: fault for fault in ALL}
PLANNED = {
    "etcd_leader_stops",
    "etcd_leader_killed",
    "etcd_rolling",
    "etcd_away",
    "etcd_away_long",
    "hand_over",
}
PLANNED |= {"restart_leader", "restart_replica", "rolling_restart", "move", "upgrade"}
# Not chosen unless named: they take long, or need other options.
ONLY_NAMED = {"etcd_away_long", "move", "upgrade"}
# Those that may come while another one lasts. The others end something for good, and are to meet a
# cluster that is well.
MAY_OVERLAP = [
    "kill_leader",
    "kill_replica",
    "pause",
    "cut_peers",
    "cut_etcd",
    "cut_both",
    "cut_one_way",
    "cut_all",
    "slow",
]
MAY_OVERLAP += ["etcd_leader_stops", "etcd_leader_killed"]
