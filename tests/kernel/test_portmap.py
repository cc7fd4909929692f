"""portmap: published ports are reached by real clients from everywhere, and by nobody else."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_py.spec.attachment import Attachment
from fixtures.configs import V4, V6, host_local, routed
from fixtures.dump import differences, dump
from fixtures.host import Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.parents import child, uplink
from fixtures.ports import (
    UPLINK,
    ask,
    bridged,
    mapping,
    outside,
    portmap,
    publish,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["nftables", "iptables"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_from_everywhere(host: Host, backend: str, protocol: str) -> None:
    """From outside, another container, itself, the host by its own address and by localhost.

    Whoever can be answered directly is seen as who he is.
    """
    machine = outside(host)
    server, neighbour = host.container("c1"), host.container("c2")
    publish(host, server, mapping(protocol=protocol), backend=backend)
    publish(host, neighbour, mapping(9999), backend=backend)
    uplinks = [own for own, _ in UPLINK.values()]
    gateways = ["10.1.2.1", "fd00:1::1"]
    with serving(server):
        seen = ask(machine, *uplinks, protocol=protocol)
        assert seen == [f"c1 {other}" for _, other in UPLINK.values()]
        seen = ask(host, *uplinks, *gateways, "127.0.0.1", "127.0.0.5", protocol=protocol)
        assert seen == [f"c1 {own}" for own in (*uplinks, *gateways, "10.1.2.1", "10.1.2.1")]
        for inside in (server, neighbour):
            seen = ask(inside, *uplinks, *gateways, protocol=protocol)
            assert seen == [f"c1 {own}" for own in (*gateways, *gateways)]


def test_host_ip(host: Host, backend: str) -> None:
    """A port of one address leaves the others', and another container can have it there."""
    machine = outside(host)
    first, second = host.container("c1"), host.container("c2")
    publish(host, first, mapping(hostIP="192.0.2.1"), backend=backend)
    addresses = ["192.0.2.1", "10.1.2.1", "2001:db8:ff::1"]
    with serving(first, second):
        assert ask(host, *addresses) == ["c1 192.0.2.1", *["ConnectionRefusedError"] * 2]
        pair = (mapping(hostIP="10.1.2.1"), mapping(hostIP="2001:db8:ff::1", protocol="TCP"))
        publish(host, second, *pair, backend=backend)
        assert ask(host, *addresses) == ["c1 192.0.2.1", "c2 10.1.2.1", "c2 2001:db8:ff::1"]
        assert ask(machine, "192.0.2.1") == ["c1 192.0.2.2"]
        assert ask(machine, "2001:db8:ff::1") == ["c2 2001:db8:ff::2"]


def test_localhost_as_host_ip(host: Host, backend: str) -> None:
    machine, server = outside(host), host.container("c1")
    publish(host, server, mapping(hostIP="127.0.0.1"), backend=backend)
    with serving(server):
        assert ask(host, "127.0.0.1") == ["c1 10.1.2.1"]
        assert ask(host, "192.0.2.1") == ask(machine, "192.0.2.1") == ["ConnectionRefusedError"]


def test_localhost_by_ipv6(host: Host) -> None:
    """[W-PM10] `localhost` is refused by IPv6 at once, and answered by IPv4."""
    server = host.container("c1")
    publish(host, server, mapping())
    with serving(server):
        assert ask(host, "::1", "127.0.0.1") == ["ConnectionRefusedError", "c1 10.1.2.1"]


def test_only_what_is_sent_to_the_host(host: Host, backend: str) -> None:
    """[CVE-2025-67499] A mapped port of other machines is theirs, also for the container."""
    machine = outside(host)
    server, neighbour = host.container("c1"), host.container("c2")
    publish(host, server, mapping(80), backend=backend)
    publish(host, neighbour, mapping(9999), backend=backend)
    machine.run("ip", "route", "add", "10.1.2.0/24", "via", "192.0.2.1")
    with serving(server, machine, neighbour):
        seen = [*ask(server, "192.0.2.2", port=80), *ask(neighbour, "192.0.2.2", port=80)]
        assert seen == ["outside 10.1.2.2", "outside 10.1.2.3"]
        assert ask(host, "192.0.2.2", port=80) == ["outside 192.0.2.1"]
        # And one that is routed through the host to a container.
        assert ask(machine, "10.1.2.3", port=80) == ["c2 192.0.2.2"]


def test_without_snat(host: Host, backend: str) -> None:
    """Nothing is masqueraded, and nothing is set for localhost."""
    machine, server = outside(host), host.container("c1")
    publish(host, server, mapping(), backend=backend, snat=False)
    assert host.sysctl("net/ipv4/conf/cni0/route_localnet") == "0"
    with serving(server):
        assert ask(machine, "192.0.2.1") == ["c1 192.0.2.2"]
        assert "c1" not in ask(host, "127.0.0.1", seconds=0.3)[0]
    assert not any("CNI-HOSTPORT-MASQ" in line for line in host.iptables())


def test_masq_all(host: Host, backend: str) -> None:
    machine, server = outside(host), host.container("c1")
    publish(host, server, mapping(), backend=backend, masqAll=True)
    with serving(server):
        seen = ask(machine, *(own for own, _ in UPLINK.values()))
        assert seen == ["c1 10.1.2.1", "c1 fd00:1::1"]
        assert ask(host, "127.0.0.1") == ["c1 10.1.2.1"]
        machine.run("ip", "route", "add", "10.1.2.0/24", "via", "192.0.2.1")
        # Who is not sent through the port is seen as who he is.
        assert ask(machine, "10.1.2.2", port=80) == ["c1 192.0.2.2"]


CONDITIONS = {
    "nftables": {
        "conditionsV4": ["ip", "saddr", "!=", "{ 192.0.2.2, 198.51.100.0/24 }"],
        "conditionsV6": ["ip6", "saddr", "!=", "2001:db8:ff::2"],
    },
    "iptables": {
        "conditionsV4": ["!", "-s", "192.0.2.2"],
        "conditionsV6": ["!", "-s", "2001:db8:ff::2"],
    },
}


@pytest.mark.parametrize("keys", CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_are_each_containers_own(host: Host, keys: dict[str, list[str]]) -> None:
    """[W-PM5] Whatever container is added last; the backend is that whose words they are."""
    machine = outside(host)
    first, second, third = (host.container(f"c{number}") for number in (1, 2, 3))
    publish(host, first, mapping(8081))
    config = publish(host, second, mapping(8082), mapping(8083, hostIP="192.0.2.1"), **keys)
    publish(host, third, mapping(8084))
    uplinks = [own for own, _ in UPLINK.values()]
    with serving(first, second, third):
        for port, name in ((8081, "c1"), (8084, "c3")):
            seen = ask(machine, *uplinks, port=port)
            assert seen == [f"{name} {other}" for _, other in UPLINK.values()]
        assert ask(machine, *uplinks, port=8082) == ["ConnectionRefusedError"] * 2
        assert ask(host, *uplinks, port=8082) == [f"c2 {own}" for own in uplinks]
        assert ask(machine, "192.0.2.1", port=8083) == ["ConnectionRefusedError"]
        assert ask(host, "192.0.2.1", port=8083) == ["c2 192.0.2.1"]
    assert host.call("portmap", "CHECK", config, second).status == 0
    host.delete("portmap", config, second)
    assert "port_" not in host.nft()


def test_other_marks(host: Host) -> None:
    """[W-PM8] A changed bit takes the old one's place, for all containers."""
    first, second = host.container("c1"), host.container("c2")
    publish(host, first, mapping(), backend="iptables")
    publish(host, second, mapping(8081), backend="iptables", markMasqBit=20)
    marks = [line for line in host.iptables() if "MARK --set-xmark" in line or "-m mark" in line]
    assert [line.split()[-1] for line in marks] == ["MASQUERADE", "0x100000/0x100000"]
    with serving(first):
        assert ask(first, "10.1.2.1") == ["c1 10.1.2.1"]


def test_external_mark(host: Host) -> None:
    """The chain that is named marks, and who has made it masquerades."""
    for name in ("iptables", "ip6tables"):
        for rule in (
            ("-N", "ELSEWHERE"),
            ("-A", "ELSEWHERE", "-j", "MARK", "--set-xmark", "0x1/0x1"),
            ("-A", "POSTROUTING", "-m", "mark", "--mark", "0x1/0x1", "-j", "MASQUERADE"),
        ):
            host.run(name, "-t", "nat", *rule)
    server = host.container("c1")
    config = publish(host, server, mapping(), externalSetMarkChain="ELSEWHERE")
    assert not any("CNI-HOSTPORT-SETMARK" in line for line in host.iptables())
    with serving(server):
        assert ask(server, "10.1.2.1", "fd00:1::1") == ["c1 10.1.2.1", "c1 fd00:1::1"]
        assert ask(host, "127.0.0.1") == ["c1 10.1.2.1"]
    assert host.call("portmap", "CHECK", config, server).status == 0


def test_routed_containers_are_seen(host: Host) -> None:
    """Where neighbours are routed through the host, they are seen as who they are."""
    first, second = host.container("c1"), host.container("c2")
    network = routed(ipam=host_local(V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]))
    publish(host, first, mapping(), network=network)
    publish(host, second, mapping(8081), network=network)
    with serving(first):
        assert ask(second, "10.1.2.1", "fd00:1::1") == ["c1 10.1.2.3", "c1 fd00:1::3"]
        assert ask(first, "10.1.2.1", "fd00:1::1") == ["c1 10.1.2.1", "c1 fd00:1::1"]
        assert ask(host, "127.0.0.1")[0].startswith("c1 ")


def test_without_bridged_packets_in_iptables(host: Host) -> None:
    """Neighbours on a bridge that answer each other past the host are masqueraded."""
    host.run("sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-ip*; do echo 0 >$f; done")
    first, second = host.container("c1"), host.container("c2")
    network = bridged(hairpinMode=False)
    publish(host, first, mapping(), network=network)
    publish(host, second, mapping(8081), network=network)
    with serving(first):
        for client in (first, second):
            seen = ask(client, "10.1.2.1", "fd00:1::1")
            assert seen == ["c1 10.1.2.1", "c1 fd00:1::1"]


# Localhost.


def test_route_localnet_as_long_as_it_is_needed(host: Host, backend: str) -> None:
    """[W-PM9] Set with the first mapping, reset with the last; nowhere else."""
    outside(host)
    first, second = host.container("c1"), host.container("c2")
    key = "net/ipv4/conf/cni0/route_localnet"
    one = publish(host, first, mapping(), backend=backend)
    two = publish(host, second, mapping(8081), backend=backend)
    assert host.sysctl(key) == "1"
    assert host.sysctl("net/ipv4/conf/uplink/route_localnet") == "0"
    assert host.sysctl("net/ipv4/conf/all/route_localnet") == "0"
    host.delete("portmap", one, first)
    assert host.sysctl(key) == "1"
    host.delete("portmap", two, second)
    assert host.sysctl(key) == "0"
    host.run("sh", "-c", f"echo 1 > /proc/sys/{key}")
    one = publish(host, host.container("c3"), mapping(), backend=backend)
    host.delete("portmap", one, Container(host, "id-c3", "/run/netns/c3"))
    # Somebody else has set it.
    assert host.sysctl(key) == "1"


def test_nothing_comes_in_to_localhost(host: Host, backend: str) -> None:
    """[CVE-2020-8558] [W-PM9] A container cannot send to what listens on the host's 127.0.0.1."""
    attacker = host.container("c1")
    publish(host, attacker, mapping(), backend=backend)
    attacker.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
    attacker.run("ip", "addr", "flush", "dev", "lo")
    attacker.run("ip", "route", "add", "127.0.0.1", "via", "10.1.2.1", "src", "10.1.2.2")
    with serving(host):
        assert ask(attacker, "127.0.0.1", port=80, seconds=0.3) == ["TimeoutError"]
        # It is the guard that keeps it out.
        host.run("nft", "delete element inet cni_py portlocalnet { cni0 }")
        assert ask(attacker, "127.0.0.1", port=80) == ["host 10.1.2.2"]


def test_parent_to_the_outside_is_left_alone(host: Host) -> None:
    """[W-PM9] A macvlan's parent leads to others than the container."""
    uplink(host, "macvlan")
    server = host.container("c1")
    publish(host, server, mapping(), network=child("macvlan"))
    flags = host.run("sh", "-c", "cat /proc/sys/net/ipv4/conf/*/route_localnet").stdout.split()
    assert set(flags) == {"0"}


# Who has a port.


def test_taken_by_a_living_container(host: Host, backend: str) -> None:
    """[W-PM1] Refused with the holder's name, and nothing changes; whatever its backend is."""
    first, second = host.container("c1"), host.container("c2")
    publish(host, first, mapping(), mapping(53, "udp", hostIP="10.1.2.1"), backend=backend)
    result = host.add("bridge", bridged(), second)
    before = dump(host)
    holder = "is taken by container id-c1 (network net1, eth0)"
    for other in ("nftables", "iptables"):
        for one, shown in (
            (mapping(), ":8080/tcp"),
            (mapping(hostIP="10.1.2.1"), "10.1.2.1:8080/tcp"),
            (mapping(53, "udp"), ":53/udp"),
        ):
            config = portmap(mapping(7777), one, prevResult=result, backend=other)
            error = refusal(host.call("portmap", "ADD", config, second))
            assert error["msg"] == f"host port {shown} {holder}"
    assert differences(uncounted(before), uncounted(dump(host))) == ""
    free = (mapping(protocol="sctp"), mapping(53, "udp", hostIP="127.0.0.1"), mapping(53))
    host.add("portmap", portmap(*free, prevResult=result, backend=backend), second)


def test_left_by_a_dead_container(host: Host, backend: str) -> None:
    """[W-PM1] A crash has left a mapping: its place is taken, whatever backend it was of."""
    first, second = host.container("c1"), host.container("c2")
    publish(host, first, mapping(), mapping(8081, hostIP="10.1.2.1"), backend="iptables")
    publish(host, host.container("c3"), mapping(9999))
    first.delete_netns()
    publish(host, second, mapping(8080), mapping(8081), backend=backend)
    assert not any("id-c1" in line for line in [*host.iptables(), *host.iptables(version=6)])
    with serving(second):
        assert ask(host, "10.1.2.1") == ["c2 10.1.2.1"]
        assert ask(host, "10.1.2.1", port=8081) == ["c2 10.1.2.1"]


def test_elements_without_a_record(host: Host) -> None:
    """The folder of the records was emptied: a dead container's mapping is replaced."""
    first, second = host.container("c1"), host.container("c2")
    publish(host, first, mapping())
    host.run("rm", "-r", "/run/cni-py/portmap")
    result = host.add("bridge", bridged(), second)
    config = portmap(mapping(), prevResult=result)
    error = refusal(host.call("portmap", "ADD", config, second))
    assert error["msg"] == "tcp . 8080 is already mapped"
    assert "id: id-c1" in error["details"]
    host.delete("bridge", bridged(), first)
    host.add("portmap", config, second)
    with serving(second):
        assert ask(host, "10.1.2.1") == ["c2 10.1.2.1"]


def test_the_same_port_on_each_network(host: Host, backend: str) -> None:
    """A runtime asks for a container's ports on each of its networks: the first one has them."""
    server = host.container("c1")
    publish(host, server, mapping(), backend=backend)
    second = bridged(name="net2", bridge="cni1", ipam=host_local([{"subnet": "10.9.0.0/24"}]))
    result = host.add("bridge", second, server, "eth1")
    config = portmap(mapping(), name="net2", prevResult=result, backend=backend)
    assert host.add("portmap", config, server, "eth1") == result
    assert host.call("portmap", "CHECK", config, server, "eth1").status == 0
    with serving(server):
        assert ask(host, "10.1.2.1") == ["c1 10.1.2.1"]


def test_again_with_other_ports(host: Host, backend: str) -> None:
    """[W-PM2] The new ports take the old ones' place."""
    server = host.container("c1")
    config = publish(host, server, mapping(), mapping(8081), backend=backend)
    again = config | {"runtimeConfig": {"portMappings": [mapping(8082), mapping(8081)]}}
    host.add("portmap", again, server)
    with serving(server):
        seen = [ask(host, "10.1.2.1", port=port)[0] for port in (8080, 8081, 8082)]
        assert seen == ["ConnectionRefusedError", "c1 10.1.2.1", "c1 10.1.2.1"]
    assert host.call("portmap", "CHECK", again, server).status == 0


# DEL.


@pytest.mark.parametrize("left", ["all", "no ports", "no prevResult", "no netns", "other backend"])
def test_whatever_del_is_told(host: Host, backend: str, left: str) -> None:
    """[W-PM3] [W-PM4] [DL-02] The record says what there is to remove; a second DEL has nothing."""
    server = host.container("c1")
    publish(host, host.container("c2"), mapping(9999), backend=backend)
    result = host.add("bridge", bridged(), server)
    before = dump(host)
    ports = [mapping(8080 + number) for number in range(16)]
    config = portmap(*ports, mapping(53, "udp"), prevResult=result, backend=backend)
    host.add("portmap", config, server)
    container = server
    if left == "no ports":
        del config["runtimeConfig"]
    elif left == "no prevResult":
        del config["prevResult"]
    elif left == "no netns":
        container = Container(host, server.id, "")
    elif left == "other backend":
        config["backend"] = {"nftables": "iptables", "iptables": "nftables"}[backend]
    host.delete("portmap", config, container)
    assert differences(uncounted(before), uncounted(dump(host))) == ""
    host.delete("portmap", config, container)


def test_rules_that_are_gone_already(host: Host, backend: str) -> None:
    """DEL after somebody has flushed all rules."""
    server = host.container("c1")
    config = publish(host, server, mapping(), mapping(53, "udp"), backend=backend)
    host.run("nft", "flush", "ruleset")
    host.delete("portmap", config, server)
    assert leaks(host)[:1] != ["record"]


def test_without_ports(host: Host) -> None:
    """No ports, no work: the previous result goes on, and nothing at all is touched."""
    server = host.container("c1")
    result = host.add("bridge", bridged(), server)
    before = dump(host)
    for keys in ({}, {"runtimeConfig": {}}, {"runtimeConfig": {"portMappings": []}}):
        config = portmap(prevResult=result) | keys
        assert host.call("portmap", "ADD", config, server).json == result
        for verb in ("CHECK", "DEL"):
            assert host.call("portmap", verb, config, server).status == 0
        assert differences(uncounted(before), uncounted(dump(host))) == ""


# Flows.


def test_flows_are_forgotten(host: Host, backend: str) -> None:
    """[W-PM7] A client that goes on sending reaches the container at once, and the host again."""
    machine, server = outside(host), host.container("c1")
    publish(host, host.container("c2"), mapping(9999), backend=backend)
    with serving(host, server):
        same = {"protocol": "udp", "port": 80, "source_port": 5555}
        assert ask(machine, "192.0.2.1", **same) == ["host 192.0.2.2"]
        config = publish(host, server, mapping(80, "udp"), backend=backend)
        assert ask(machine, "192.0.2.1", **same) == ["c1 192.0.2.2"]
        host.delete("portmap", config, server)
        assert ask(machine, "192.0.2.1", **same) == ["host 192.0.2.2"]


def test_unrelated_flows_stay(host: Host) -> None:
    """[W-PM7] Those through the host to the same port of others, and of other protocols."""
    machine, server, neighbour = outside(host), host.container("c1"), host.container("c2")
    publish(host, neighbour, mapping(9999))
    machine.run("ip", "route", "add", "10.1.2.0/24", "via", "192.0.2.1")

    def flows() -> list[str]:
        lines = host.run("cat", "/proc/net/nf_conntrack").stdout.splitlines()
        return sorted(
            " ".join(one for one in line.split() if one[:4] in ("src=", "dst=", "spor", "dpor"))
            for line in lines
            if "sport=5555" in line
        )

    with serving(host, machine):
        ask(neighbour, "192.0.2.2", port=80, protocol="udp", source_port=5555)
        ask(machine, "192.0.2.1", port=80, protocol="udp", source_port=5555)
        ask(machine, "192.0.2.1", port=80, source_port=5555)
        before = flows()
        config = publish(host, server, mapping(80, "udp"))
        assert len(before) == 3
        kept = [one for one in before if "dst=192.0.2.1 sport=5555 dport=80" not in one]
        assert flows()[: len(kept)] == kept
        assert len(flows()) == 2
        host.delete("portmap", config, server)
        assert len(flows()) == 2


# CHECK, STATUS, GC.

LABEL = Attachment("net1", "id-c1", "eth0").label(120)
CHANGES = {
    "nftables": {
        "element": "nft delete element inet cni_py port4 { tcp . 8080 }",
        "IPv6 element": "nft delete element inet cni_py port6 { tcp . 8080 }",
        "target": "nft delete element inet cni_py port4 { tcp . 8080 } && "
        f"nft 'add element inet cni_py port4 {{ tcp . 8080 comment \"{LABEL}\" : 10.1.2.9 . 80 }}'",
        "masquerading": "nft delete element inet cni_py portsnat4 { 10.1.2.2 }",
        "hook": "nft flush chain inet cni_py portprerouting",
        "lookup": "nft insert rule inet cni_py portlookup return",
        "guard": "nft delete element inet cni_py portlocalnet { cni0 }",
        "sysctl": "echo 0 > /proc/sys/net/ipv4/conf/cni0/route_localnet",
        "table": "nft delete table inet cni_py",
    },
    "iptables": {
        "entry": "iptables -t nat -F CNI-HOSTPORT-DNAT",
        "IPv6 entry": "ip6tables -t nat -F CNI-HOSTPORT-DNAT",
        "jump": "iptables -t nat -F PREROUTING",
        "mark": "iptables -t nat -F CNI-HOSTPORT-SETMARK",
        "masquerading": "iptables -t nat -F CNI-HOSTPORT-MASQ",
        "rule": "iptables -t nat -S | grep -m 1 -e '-A CNI-DN-.*DNAT' | "
        "sed 's/^-A/iptables -t nat -D/' | sh",
        "guard": "nft delete element inet cni_py portlocalnet { cni0 }",
    },
}


@pytest.mark.parametrize("backend", CHANGES)
def test_check_finds_every_change(host: Host, backend: str) -> None:
    """[W-PM11] Each change by itself, with what differs in words."""
    server = host.container("c1")
    config = publish(host, server, mapping(), mapping(53, "udp"), backend=backend)
    for name, change in CHANGES[backend].items():
        assert host.call("portmap", "CHECK", config, server).status == 0, name
        host.run("sh", "-c", change)
        error = refusal(host.call("portmap", "CHECK", config, server))
        assert (error["code"], "differ" in error["msg"]) == (999, True), (name, error)
        host.run("nft", "delete table inet cni_py", check=False)
        host.delete("portmap", config, server)
        host.add("portmap", config, server)


@pytest.mark.parametrize(
    "keys",
    [
        {"backend": "x"},
        {"markMasqBit": 32},
        {"conditionsV4": ["-s", "10.0.0.0/8"], "backend": "nftables"},
    ],
)
def test_status_of_what_cannot_work(host: Host, keys: dict[str, object]) -> None:
    assert refusal(host.call("portmap", "STATUS", portmap(**keys)))["code"] == 50


def test_status_without_tools(host: Host) -> None:
    """[W-G2] Both backends are there, or what is missing is named."""
    host.stop_serving()
    for backend in ("nftables", "iptables"):
        assert host.call("portmap", "STATUS", portmap(backend=backend)).status == 0
    with without_libnftables(host):
        assert host.call("portmap", "STATUS", portmap()).status == 0
        error = refusal(host.call("portmap", "STATUS", portmap(backend="nftables")))
        assert (error["code"], error["msg"][:26]) == (50, "nftables is not available:")


def test_collecting(host: Host, backend: str) -> None:
    """[G-01] The dead's ports are free again; those of the living and of other networks stay."""
    containers = [host.container(name) for name in ("alive", "dead", "lost", "other")]
    names = ("net1", "net1", "net1", "net2")
    for number, (container, name) in enumerate(zip(containers, names, strict=True)):
        subnet = [{"subnet": f"10.{names.index(name) + 1}.0.0/24"}]
        network = bridged(name=name, bridge=f"br-{name}", ipam=host_local(subnet))
        publish(host, container, mapping(8080 + number), network=network, backend=backend)
    host.run("sh", "-c", "rm /run/cni-py/portmap/$(grep -l id-lost -r /run/cni-py/portmap | "
        "xargs basename -a)")  # fmt: skip
    valid = {"cni.dev/valid-attachments": [{"containerID": "id-alive", "ifname": "eth0"}]}
    outcome = host.call("portmap", "GC", portmap() | valid)
    assert (outcome.status, outcome.stdout) == (0, ""), outcome
    rules = host.nft() + "\n".join(host.iptables())
    assert [name in rules for name in ("id-alive", "id-dead", "id-lost", "id-other")] == [
        True,
        False,
        False,
        True,
    ]
    assert host.sysctl("net/ipv4/conf/br-net1/route_localnet") == "1"


# What somebody has flushed.

RESTORE = """
from cni_py.kernel import iptables
from cni_py.kernel.nftables import nftables
from cni_py.plugins import portmap
commands, lines = portmap.restored()
nftables().apply("restore", *commands)
for (version, table), own in lines.items():
    iptables.restore(version, table, own, "restore")
"""


def test_restored(host: Host, backend: str) -> None:
    """The records bring all rules back, and change nothing where all are there."""
    machine = outside(host)
    first, second = host.container("c1"), host.container("c2")
    pair = (mapping(), mapping(53, "udp", hostIP="192.0.2.1"))
    configs = [
        publish(host, first, *pair, backend=backend),
        publish(host, second, mapping(8081), **CONDITIONS[backend]),
    ]
    dead = host.container("c3")
    publish(host, dead, mapping(8082), backend=backend)
    dead.delete_netns()
    host.delete("portmap", portmap(), dead)
    before = rules_of(host)
    host.run(sys.executable, "-c", RESTORE)
    assert rules_of(host) == before
    host.run("nft", "flush", "ruleset")
    host.run(sys.executable, "-c", RESTORE)
    assert rules_of(host) == before
    for config, container in zip(configs, (first, second), strict=True):
        assert host.call("portmap", "CHECK", config, container).status == 0
    with serving(first, second):
        assert ask(machine, "192.0.2.1") == ["c1 192.0.2.2"]
        assert ask(machine, "192.0.2.1", port=8081) == ["ConnectionRefusedError"]


def uncounted(dumped: dict[str, list[str]]) -> dict[str, list[str]]:
    """A dump without the packets that have passed rules of iptables meanwhile."""
    return {
        kind: [re.sub(r"packets \d+ bytes \d+", "", line) for line in lines]
        for kind, lines in dumped.items()
    }


def rules_of(host: Host) -> list[str]:
    """All rules, whatever order the tables and chains were made in."""
    ours = host.run("nft", "list", "table", "inet", "cni_py").stdout.splitlines()
    return sorted([*ours, *host.iptables(), *host.iptables(version=6)])


# What goes wrong.


@contextmanager
def without_libnftables(host: Host) -> Iterator[None]:
    (library,) = Path("/usr/lib").glob("*/libnftables.so.1")
    host.run("mount", "--bind", "/dev/null", str(library))
    try:
        yield
    finally:
        host.run("umount", str(library))


def test_without_nftables_library(host: Host) -> None:
    """Without libnftables the default is iptables, for the guard too."""
    host.stop_serving()
    server = host.container("c1")
    with without_libnftables(host):
        config = publish(host, server, mapping())
        guards = [line for line in host.iptables("raw") if "cni-py" in line]
        assert len(guards) == 2
        assert host.call("portmap", "CHECK", config, server).status == 0
        with serving(server):
            assert ask(host, "127.0.0.1") == ["c1 10.1.2.1"]
        host.delete("portmap", config, server)
        assert not any("cni" in line.lower() for line in host.iptables("raw") + host.iptables())


def test_failure_halfway(host: Host) -> None:
    """[W-PM11] [W-G20] IPv6's rules cannot be made: IPv4's go too, and what was set before."""
    first, server = host.container("c1"), host.container("c2")
    publish(host, first, mapping(9999), backend="iptables")
    host.run("iptables", "-t", "nat", "-N", "ELSEWHERE")
    result = host.add("bridge", bridged(), server)
    before = dump(host)
    keys = {"prevResult": result, "externalSetMarkChain": "ELSEWHERE"}
    error = refusal(host.call("portmap", "ADD", portmap(mapping(), **keys), server))
    assert error["msg"] == "map host ports of container id-c2: ip6tables-restore failed"
    assert differences(uncounted(before), uncounted(dump(host))) == ""


BOTH = "iptables (conditionsV4) and nftables (conditionsV6)"
OTHER = "iptables-specific options [externalSetMarkChain]"
BAD: dict[str, tuple[dict[str, object], str]] = {
    "host port 0": (portmap(mapping(0)), "Invalid host port number: 0"),
    "host port": (portmap(mapping(65536)), "Invalid host port number: 65536"),
    "container port": (
        portmap({"hostPort": 1, "containerPort": -1}), "Invalid container port number: -1"),
    "protocol": (portmap(mapping(protocol="icmp")), 'unknown protocol "icmp" of host port 8080'),
    "hostIP": (
        portmap(mapping(hostIP="x; flush ruleset")),
        'hostIP "x; flush ruleset" of host port 8080 is not an IP address'),
    "multicast": (
        portmap(mapping(hostIP="224.0.0.1")),
        'hostIP "224.0.0.1" of host port 8080 is of a multicast group'),
    "a target": (
        portmap(mapping(), conditionsV4=["-s", "1.2.3.4", "-j", "ACCEPT"]),
        "conditionsV4 has '-j': a condition says which packets, not what becomes of them"),
    "wrong family": (
        portmap(mapping(hostIP="2001:db8::1")),
        'hostIP "2001:db8::1" is of IPv6, and eth0 has no such address'),
    "twice": (
        portmap(mapping(), mapping(hostIP="0.0.0.0")), "host port :8080/tcp is mapped twice"),
    "backend": (portmap(mapping(), backend="ebtables"), 'unrecognized backend "ebtables"'),
    "mark": (portmap(mapping(), markMasqBit=32), "MasqMarkBit must be between 0 and 31"),
    "both marks": (
        portmap(mapping(), markMasqBit=3, externalSetMarkChain="X"),
        "Cannot specify externalSetMarkChain and markMasqBit"),
    "chain": (
        portmap(mapping(), externalSetMarkChain="A\nB"),
        'externalSetMarkChain "A\nB" is not the name of a chain'),
    "both flavours": (
        portmap(mapping(), conditionsV4=["-s", "1.2.3.4"], conditionsV6=["ip6", "saddr", "::1"]),
        f"configuration contains options of both {BOTH}"),
    "other backend": (
        portmap(mapping(), backend="nftables", externalSetMarkChain="A"),
        f"nftables backend was requested but configuration contains {OTHER}"),
    "a second command": (
        portmap(mapping(), conditionsV4=["tcp dport 1; flush ruleset"]),
        "conditionsV4 has 'tcp dport 1; flush ruleset', which is not part of one rule"),
    "a second line": (
        portmap(mapping(), conditionsV4=["-s", "1.2.3.4\n-F"]),
        "conditionsV4 has '1.2.3.4\\n-F', which is not part of one rule"),
    "braces": (
        portmap(mapping(), conditionsV4=["tcp", "dport", "1", "}", "{"]),
        "conditionsV4 has braces or quotes that are not closed"),
    "not nftables": (
        portmap(mapping(), conditionsV4=["nonsense"]),
        "conditionsV4 is not understood by nftables: nonsense"),
    "a verdict": (
        portmap(mapping(), conditionsV4=["tcp", "dport", "1", "drop"]),
        "conditionsV4 is not understood by nftables: tcp dport 1 drop"),
}  # fmt: skip


def test_bad_input(host: Host) -> None:
    """Refused with what is wrong, and nothing is changed."""
    server = host.container("c1")
    network = bridged(ipam=host_local(V4))
    publish(host, host.container("c2"), mapping(9999), network=network)
    result = host.add("bridge", network, server)
    before = dump(host)
    for name, (config, msg) in BAD.items():
        whole = {**config, "prevResult": result}
        error = refusal(host.call("portmap", "ADD", whole, server))
        assert (name, error["code"], error["msg"]) == (name, 7, msg)
    assert differences(uncounted(before), uncounted(dump(host))) == ""


def test_without_previous_result(host: Host) -> None:
    """It comes after another plugin, which has given addresses."""
    server = host.container("c1")
    error = refusal(host.call("portmap", "ADD", portmap(mapping()), server))
    assert (error["code"], error["msg"]) == (7, "Required prevResult missing")
    result = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": server.netns}]}
    config = portmap(mapping(), prevResult=result)
    error = refusal(host.call("portmap", "ADD", config, server))
    assert error["msg"] == "portMappings need an address of eth0, and prevResult has none"


def test_hostile_names(host: Host, backend: str) -> None:
    """The longest id that has every character of an id, and an interface's name that is odd."""
    server = host.container("c1", "a" + "._-" * 100)
    result = host.add("bridge", bridged(), server, "e\"`$;#'{}")
    config = portmap(mapping(), prevResult=result, backend=backend)
    host.add("portmap", config, server, "e\"`$;#'{}")
    with serving(server):
        assert ask(host, "10.1.2.1", "127.0.0.1") == ["c1 10.1.2.1"] * 2
    assert host.call("portmap", "CHECK", config, server, "e\"`$;#'{}").status == 0
