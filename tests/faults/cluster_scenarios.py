"""What goes wrong in a cluster, each as a function that breaks it, mends it, and measures.

Host 1 is the one that something happens to, unless it is the store. Hosts 2 and 3 send each other a
packet a millisecond meanwhile: none of those may be lost.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.agents import Agent, Cluster, took
from fixtures.clocks import WallClock
from fixtures.underlay import Stream, eventually, reaches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fixtures.underlay import Member

# The leases of all agents here, in seconds.
TTL = 4
_SECONDS = 60.0
_SO_RCVBUFFORCE = 33
_ROOM = 1 << 25
# Hosts whose clocks are off, and by how many hours.
_OFF = ((1, 5.0), (2, -30.0))
_LOSSES = ("lease lost", "lease unsure", "subnet changed", "failed")


@dataclass
class Measured:
    """What came of a fault: `seconds` from its end until all is as before.

    `lost` are packets between the hosts that it did not concern. `own` tells of those it did.
    """

    seconds: float = 0.0
    lost: int = 0
    own: str = ""


def _stream(source: Member, target: Member) -> Stream:
    """Packets whose receiver may sleep for seconds on a busy machine: none is lost by that."""
    made = Stream(source, target)
    with suppress(PermissionError):
        made._other.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    return made


@contextmanager
def unaffected(cluster: Cluster, measured: Measured) -> Iterator[None]:
    """Packets between hosts 2 and 3 while the block runs."""
    members = cluster.underlay.members
    with _stream(members[2], members[3]) as stream:
        yield
    measured.lost = len(stream.lost)


def recovered(cluster: Cluster) -> float:
    """Seconds until every agent is ready, knows the others, and packets get to host 1 and back."""
    members = cluster.underlay.members

    def is_well() -> bool:
        others = len(cluster.agents) - 1
        ready = all(one.is_ready() and len(one.peers()) == others
                    for one in cluster.agents.values())  # fmt: skip
        return ready and reaches(members[1], members[2], seconds=0.3)

    began = time.monotonic()
    assert eventually(is_well, _SECONDS), cluster.told()
    return time.monotonic() - began


def agent_restarted(cluster: Cluster, _: float) -> Measured:
    """An agent is stopped and started, then killed and started"""
    measured = Measured()
    members = cluster.underlay.members
    agent = cluster.agents[1]
    times = len(agent.events("subnet"))
    with unaffected(cluster, measured), _stream(members[1], members[2]) as stream:
        agent.restart()
        assert agent.has_told("subnet", times + 1)
        began = time.monotonic()
        agent.restart(signal.SIGKILL)
        assert agent.has_told("subnet", times + 2)
        recovered(cluster)
        measured.seconds = time.monotonic() - began
    measured.own = f"{len(stream.lost)} of its packets are lost; its subnet stays"
    _require_all(stream, cluster)
    return measured


def host_cut_off(cluster: Cluster, seconds: float) -> Measured:
    """A host is cut off for longer than its lease, while the store is compacted"""
    measured = Measured()
    member, agent = cluster.underlay.members[1], cluster.agents[1]
    with unaffected(cluster, measured):
        member.set_cable(up=False)
        began = time.monotonic()
        assert eventually(lambda: len(cluster.agents[2].peers()) == 1, _SECONDS)
        gone = time.monotonic() - began
        # It knows by itself, at about the same time, and takes nothing away.
        assert eventually(lambda: agent.problem() == 50, _SECONDS), cluster.told()
        assert len(agent.peers()) == 2
        cluster.etcd.compact()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        member.set_cable(up=True)
        measured.seconds = recovered(cluster)
    assert not agent.events("subnet changed")
    measured.own = (
        f"the others drop it after {gone:.1f} s (leases of {TTL} s); it says so in STATUS (50),"
        " and has its subnet again"
    )
    return measured


def host_killed(cluster: Cluster, _: float) -> Measured:
    """A host dies"""
    measured = Measured()
    member, agent = cluster.underlay.members[1], cluster.agents[1]
    with unaffected(cluster, measured):
        agent.end(signal.SIGKILL)
        member.set_cable(up=False)
        others = [cluster.underlay.members[n].host for n in (2, 3)]
        gone = took(
            lambda: not any("10.244.1.0" in one.run("ip", "route").stdout for one in others)
        )
        member.set_cable(up=True)
        agent.start()
        measured.seconds = recovered(cluster)
    measured.own = f"its routes are gone after {gone:.1f} s (leases of {TTL} s)"
    return measured


def store_down(cluster: Cluster, seconds: float) -> Measured:
    """etcd is down, for longer than leases last"""
    measured = Measured()
    members = cluster.underlay.members
    with unaffected(cluster, measured), _stream(members[1], members[2]) as stream:
        cluster.etcd.kill()
        time.sleep(seconds)
        cluster.etcd.start()
        measured.seconds = recovered(cluster)
    _require_all(stream, cluster)
    assert not any(one.events("subnet changed") for one in cluster.agents.values())
    measured.own = "no packet of any host is lost"
    return measured


def store_restored(cluster: Cluster, _: float) -> Measured:
    """etcd is restored from a backup that is older than a node"""
    measured = Measured()
    members = cluster.underlay.members
    agent = cluster.agents[1]
    agent.release(_SECONDS)
    backup = cluster.etcd.backup()
    cluster.wish(1)
    agent.start()
    recovered(cluster)
    with unaffected(cluster, measured), _stream(members[1], members[2]) as stream:
        cluster.etcd.restore(backup)
        measured.seconds = _written_again(cluster)
    _require_all(stream, cluster)
    measured.own = "all nodes write their records again; no packet of any host is lost"
    return measured


def _require_all(stream: Stream, cluster: Cluster) -> None:
    """No packet was lost; if some were, tell how many and when, and what was changed meanwhile."""
    lost = stream.lost
    changes = {n: len(one.events("changed")) for n, one in cluster.agents.items()}
    assert not lost, f"{len(lost)} lost, from {lost[0]} to {lost[-1]}; changes: {changes}"


def _written_again(cluster: Cluster) -> float:
    """Seconds until the store has the records of all nodes, and all agents know that."""
    wanted = {f"subnets/10.244.{n}.0-24&fd00:244:0:{n}::-64" for n in cluster.agents}
    seconds = took(lambda: wanted <= set(cluster.etcd.keys()))
    seconds += took(lambda: not any(one.status()["missing"] for one in cluster.agents.values()))
    return seconds + recovered(cluster)


def store_empty(cluster: Cluster, _: float) -> Measured:
    """etcd has lost all its data"""
    measured = Measured()
    members = cluster.underlay.members
    with unaffected(cluster, measured), _stream(members[1], members[2]) as stream:
        cluster.etcd.kill()
        cluster.etcd.wipe()
        cluster.etcd.start()
        measured.seconds = _written_again(cluster)
    _require_all(stream, cluster)
    cluster.configure()
    measured.own = (
        "the same; the operator writes the network's configuration again, which new nodes need"
    )
    return measured


def new_leader(cluster: Cluster, _: float) -> Measured:
    """The leader of three members is killed, with a new node in the middle"""
    measured = Measured()
    agent = cluster.agents[1]
    agent.release(_SECONDS)
    assert eventually(lambda: len(cluster.agents[2].peers()) == 1, _SECONDS)
    with unaffected(cluster, measured):
        leader = cluster.etcd.leader()
        cluster.wish(1)
        cluster.etcd.kill(leader)
        agent.start()
        measured.seconds = recovered(cluster)
    cluster.etcd.start(leader)
    measured.own = "counted from the kill; with the start of the node's agent"
    return measured


def mtu_changed(cluster: Cluster, _: float) -> Measured:
    """The MTU of a host's underlay shrinks by 100 bytes, and grows again"""
    measured = Measured()
    member, agent = cluster.underlay.members[1], cluster.agents[1]
    with unaffected(cluster, measured):
        member.set_mtu(1400)
        measured.seconds = took(lambda: _mtu(cluster) == 1330)
        told = agent.file()
        assert told is not None
        assert told.mtu == 1330
        member.set_mtu(1500)
        assert eventually(lambda: _mtu(cluster) == 1430, _SECONDS)
    measured.own = "device and file follow; containers that are there keep what they have"
    return measured


def _mtu(cluster: Cluster) -> int:
    device = cluster.underlay.members[1].host.link("flannel-v6.1")
    told = cluster.agents[1].file()
    found = {0 if device is None else device["mtu"], 0 if told is None else told.mtu}
    return found.pop() if len(found) == 1 else 0


def interface_down(cluster: Cluster, _: float) -> Measured:
    """The underlay's interface goes down and comes back, without its routes"""
    measured = Measured()
    host, agent = cluster.underlay.members[1].host, cluster.agents[1]
    with unaffected(cluster, measured):
        host.run("ip", "link", "set", "eth0", "down")
        assert eventually(lambda: agent.problem() == 50, _SECONDS)
        host.run("ip", "link", "set", "eth0", "up")
        # What a network manager does again; the kernel has dropped IPv6 addresses too.
        host.run("ip", "route", "add", "default", "via", "192.168.1.254")
        host.run("ip", "addr", "add", "fd00:1:0:1::1/64", "dev", "eth0", "nodad")
        host.run("ip", "-6", "route", "add", "default", "via", "fd00:1:0:1::fe")
        measured.seconds = recovered(cluster)
    measured.own = "STATUS says 50 meanwhile"
    return measured


def device_deleted(cluster: Cluster, _: float) -> Measured:
    """Somebody deletes the VXLAN device of a host, and with it all its routes"""
    measured = Measured()
    host = cluster.underlay.members[1].host
    members = cluster.underlay.members
    with unaffected(cluster, measured), _stream(members[1], members[2]) as stream:
        began = time.monotonic()
        host.run("ip", "link", "del", "flannel.1")
        recovered(cluster)
        measured.seconds = time.monotonic() - began
    assert stream.lost
    measured.own = f"made again, the routes too; {len(stream.lost)} packets are lost"
    return measured


def hostile_records(cluster: Cluster, _: float) -> Measured:
    """Somebody writes nonsense and lies below the prefix"""
    measured = Measured()
    own = cluster.etcd.value("subnets/10.244.2.0-24&fd00:244:0:2::-64")
    lies = {
        "subnets/192.168.1.0-24": own | {"PublicIP": "192.168.1.77"},
        "subnets/10.244.0.0-16": own | {"PublicIP": "192.168.1.77"},
        "subnets/10.244.77.0-24": own | {"PublicIP": "10.244.2.2"},
        "subnets/10.244.78.0-24": own | {"PublicIP": "192.168.1.78"},
        "subnets/10.244.2.0-25": own | {"PublicIP": "192.168.1.79"},
        "subnets/10.244.80.0-24": "nonsense",
        "subnets/10.244.81.0-24": own | {"PublicIP": "224.0.0.1"},
        "subnets/../../etc": {},
    }
    began = time.monotonic()
    with unaffected(cluster, measured):
        for key, value in lies.items():
            cluster.etcd.put(key, json.dumps(value))
        assert eventually(
            lambda: all(_refused(one.status()) >= len(lies) for one in cluster.agents.values()),
            _SECONDS,
        ), cluster.told()
        assert all(len(one.peers()) == 2 for one in cluster.agents.values())
        measured.seconds = time.monotonic() - began
        for key in lies:
            cluster.etcd.delete(key)
        assert eventually(
            lambda: not any(_refused(one.status()) for one in cluster.agents.values()), _SECONDS
        )
    measured.own = "all are refused, with reasons; no route leads there"
    measured.seconds = 0.0
    return measured


def _refused(status: dict[str, object]) -> int:
    peers = status.get("peers", [])
    assert isinstance(peers, list)
    return sum(1 for one in peers if one["refused"])


def subnet_stolen(cluster: Cluster, _: float) -> Measured:
    """Somebody else puts a record of theirs in the place of a node's"""
    measured = Measured()
    key = "subnets/10.244.1.0-24&fd00:244:0:1::-64"
    theirs = cluster.etcd.value(key) | {
        "PublicIP": "192.168.1.99", "PublicIPv6": "fd00:1:0:1::99",
        "CniPy": {"Node": "another", "Host": "thief"},
    }  # fmt: skip
    agent = cluster.agents[1]
    with unaffected(cluster, measured):
        cluster.etcd.put(key, json.dumps(theirs))
        began = time.monotonic()
        assert agent.has_told("subnet changed")
        measured.seconds = time.monotonic() - began
        told = agent.file()
        assert told is not None
        assert told.ipv4_subnet != "10.244.1.0/24"
        assert any("10.244.1.0/24" in one for one in told.former)
        assert eventually(lambda: agent.problem() == 0, _SECONDS)
    measured.own = "it takes another subnet, and says what that means for its containers"
    return measured


def same_subnet(cluster: Cluster, _: float) -> Measured:
    """An agent is told to have the subnet that another one has"""
    measured = Measured()
    agent = cluster.agents[1]
    before, others = agent.options, cluster.etcd.value("subnets/10.244.2.0-24&fd00:244:0:2::-64")
    with unaffected(cluster, measured):
        agent.release(_SECONDS)
        times = len(agent.events("no subnet"))
        agent.options = (*before, "--subnet=10.244.2.0/24,fd00:244:0:2::/64")
        agent.start()
        assert agent.has_told("no subnet", times + 1, _SECONDS)
        assert "10.244.2.0" in agent.events("no subnet")[-1]["why"]
        assert agent.problem() == 50
        assert cluster.etcd.value("subnets/10.244.2.0-24&fd00:244:0:2::-64") == others
        agent.end()
        cluster.wish(1)
        agent.options = before
        agent.start()
        measured.seconds = recovered(cluster)
    measured.own = "it gets none, and says whose it is (STATUS 50), until it is told otherwise"
    return measured


def clocks_off(cluster: Cluster, seconds: float) -> Measured:
    """The wall clocks of two hosts are hours off, and jump by hours under their agents"""
    measured = Measured()
    members = cluster.underlay.members
    agents = cluster.agents
    clocks = {n: WallClock(cluster.etcd.folder / f"clock{n}", off) for n, off in _OFF}
    told = {n: {name: len(one.events(name)) for name in _LOSSES} for n, one in agents.items()}
    with unaffected(cluster, measured), _stream(members[1], members[2]) as stream:
        for number, clock in clocks.items():
            agents[number].through = clock.through
            agents[number].restart()
        recovered(cluster)
        for number, off in _OFF:
            assert abs(_wall_clock(agents[number]) - time.time() - off * 3600) < 60
        # For longer than a lease, and a jump each time.
        began = time.monotonic()
        while time.monotonic() < began + max(seconds, 2 * TTL):
            for number, off in _OFF:
                clocks[number].set(-off if time.monotonic() % 2 < 1 else 3 * off)
            time.sleep(0.5)
            assert all(one.is_ready() for one in agents.values()), cluster.told()
        for number in clocks:
            agents[number].through = ()
            agents[number].restart()
        recovered(cluster)
    _require_all(stream, cluster)
    assert told == {
        n: {name: len(one.events(name)) for name in _LOSSES} for n, one in agents.items()
    }
    measured.own = "no lease is lost, STATUS stays silent, no packet of any host is lost"
    return measured


def _wall_clock(agent: Agent) -> float:
    """What time it is to the agent's process: a program beside it is asked."""
    assert agent.process is not None
    assert "libfaketime" in Path(f"/proc/{agent.process.pid}/maps").read_text()
    asked = agent.host.run(*agent.through, sys.executable, "-c", "import time; print(time.time())")
    return float(asked.stdout)


SCENARIOS: tuple[Callable[[Cluster, float], Measured], ...] = (
    agent_restarted, host_cut_off, host_killed, store_down, store_restored, store_empty,
    mtu_changed, interface_down, device_deleted, hostile_records, new_leader, same_subnet,
    clocks_off, subnet_stolen,
)  # fmt: skip
