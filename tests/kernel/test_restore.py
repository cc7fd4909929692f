"""cni-py firewall restore: after a flush by somebody else, everything is as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.dump import differences, dump
from fixtures.firewalls import attach, blocked, firewall, network, passes
from fixtures.host import Host
from fixtures.ports import ask, mapping, portmap, serving
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Container

BACKENDS = ["nftables", "iptables"]
# What somebody else does with iptables: puts another ruleset in, or flushes all chains.
RESTORED = "echo '*filter\nCOMMIT\n*nat\nCOMMIT' | tee /run/empty | iptables-restore; "
RESTORED += "ip6tables-restore </run/empty"
FLUSHED = "for one in iptables ip6tables; do for table in filter nat; do $one -t $table -F; "
FLUSHED += "$one -t $table -X; done; done"
FLUSHES = {
    "nftables": ["nft flush ruleset", "nft delete table inet cni_py"],
    "iptables": ["nft flush ruleset", RESTORED, FLUSHED],
}
EVERY_FLUSH = [(backend, one) for backend, listed in FLUSHES.items() for one in listed]
every_flush = pytest.mark.parametrize(("backend", "flush"), EVERY_FLUSH)


def restore(host: Host) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(host.run(CNI_PY, "firewall", "restore", "--json").stdout)
    assert done.pop("errors") == []
    return done


def everything(host: Host, backend: str) -> list[Container]:
    """Three containers with a firewall, masquerading, spoof check and a port; one bridge is
    isolated.
    """
    containers = [host.container(name) for name in ("c1", "c2", "c3")]
    places = (("net1", "isolated"), ("net1", "isolated"), ("net2", "same-bridge"))
    for index, (container, (name, policy)) in enumerate(zip(containers, places, strict=True)):
        keys = {"ipMasq": True, "ipMasqBackend": backend, "macspoofchk": True}
        result = host.add("bridge", network(name, **keys), container)
        config = firewall(backend, name, ingressPolicy=policy) | {"prevResult": result}
        host.add("firewall", config, container)
        ports = [mapping(8080 + index), mapping(9090 + index, protocol="udp", hostIP="10.1.1.1")]
        config = portmap(*ports, name=name, backend=backend, prevResult=result)
        host.add("portmap", config, container)
    return containers


def rules(host: Host) -> dict[str, list[str]]:
    """All rules; in what order tables and chains were made does not matter."""
    dumped = dump(host)
    return {kind: sorted(dumped[kind]) for kind in ("nft", "iptables")}


def shared_rules(host: Host) -> list[str]:
    """The rules of no single container, whose order counts."""
    return [one for one in host.iptables("filter") if "10.1." not in one and "br-net" not in one]


@every_flush
def test_everything_is_back(host: Host, backend: str, flush: str) -> None:
    """To the rule, and for real packets."""
    first, second, other = everything(host, backend)
    before, order = rules(host), shared_rules(host)
    host.run("sh", "-c", flush)
    assert differences(before, rules(host)) != ""
    assert passes(first, "10.1.2.2")
    restore(host)
    assert differences(before, rules(host)) == ""
    assert shared_rules(host) == order
    assert blocked(first, "10.1.2.2")
    assert blocked(first, "10.1.1.3")
    with serving(other):
        assert ask(host, "127.0.0.1", port=8082) == ["c3 10.1.2.1"]
    assert second.link()["address"] != other.link()["address"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_intact_rules_stay(host: Host, backend: str) -> None:
    everything(host, backend)
    before = dump(host)
    restore(host)
    restore(host)
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_dead_containers_are_not_restored(host: Host, backend: str) -> None:
    """One is gone without DEL, one with it; what DEL removes later is the rest."""
    dead, deleted, alive = everything(host, backend)
    dead.delete_netns()
    host.delete("portmap", portmap(backend=backend), deleted)
    host.delete("firewall", firewall(backend), deleted)
    host.delete("bridge", network(), deleted)
    host.run("nft", "flush", "ruleset")
    _wait_until_gone(host, dead)
    restore(host)
    have = "\n".join(line for lines in rules(host).values() for line in lines)
    for address in ("10.1.1.2", "10.1.1.3", "fd00:1::2", "fd00:1::3"):
        assert f"{address} " not in have
        assert f"{address}/" not in have
    assert "10.1.2.2" in have
    assert "br-net1" not in have
    host.delete("portmap", portmap(backend=backend), dead)
    host.delete("firewall", firewall(backend), dead)
    host.delete("bridge", network(ipMasq=True), dead)
    assert alive.addresses() == ["10.1.2.2/24", "fd00:2::2/64"]


def _wait_until_gone(host: Host, container: Container) -> None:
    """The kernel takes a namespace's links down some milliseconds after it."""
    for _ in range(500):
        if not any(f"id: {container.id}" in one.get("ifalias", "") for one in host.ip("link")):
            return
    raise AssertionError("the link of a container that is gone is still there")


def test_spoofed_address_is_not_made_genuine(host: Host) -> None:
    """What ADD found counts, not what the container has made of it."""
    container = host.container("c1")
    host.add("bridge", network(macspoofchk=True), container)
    before = rules(host)
    container.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    host.run("nft", "flush", "ruleset")
    restore(host)
    assert differences(before, rules(host)) == ""


def test_ptp(host: Host) -> None:
    from fixtures.configs import routed

    container = host.container("c1")
    host.add("ptp", routed(ipMasq=True), container)
    before = rules(host)
    host.run("nft", "flush", "ruleset")
    restore(host)
    assert differences(before, rules(host)) == ""


def test_operators_chain_is_left_alone(host: Host) -> None:
    container = host.container("c1")
    attach(host, container, "nftables")
    host.run("nft", "add rule inet cni_py forward_admin ip daddr 192.0.2.9 drop")
    host.run("nft", "flush set inet cni_py forward4")
    before = host.nft()
    restore(host)
    assert "192.0.2.9" in host.nft()
    assert "10.1.1.2 comment" in host.nft()
    assert "10.1.1.2 comment" not in before


def test_nothing_to_restore(host: Host) -> None:
    before = dump(host)
    assert restore(host) == {"nftables": 0, "iptables": 0, "firewalld": 0}
    done = host.run(CNI_PY, "firewall", "restore")
    assert done.stdout.startswith("restored: 0 commands of nftables")
    assert differences(before, dump(host)) == ""


def test_what_fails_is_said(host: Host) -> None:
    """A table in the way: the error is printed, and the rest is done."""
    first = host.container("c1")
    attach(host, first, "nftables")
    second = host.container("c2")
    host.add("bridge", network("net2", macspoofchk=True), second)
    host.run(
        "nft", "flush ruleset; add table inet cni_py; add set inet cni_py forward4 { type mark; }"
    )
    done = host.run(CNI_PY, "firewall", "restore", check=False)
    assert done.status == 1
    assert done.stderr.startswith("cni-py firewall restore: look up 10.1.1.2")
    assert "guarded" in host.nft()
    host.run("nft", "delete table inet cni_py")
    restore(host)
