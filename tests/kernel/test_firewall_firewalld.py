"""firewall with a real firewalld, which sees the test's host alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.dump import differences, dump
from fixtures.firewalld import Firewalld
from fixtures.firewalls import attach, blocked, elements, firewall, network, passes
from fixtures.host import Host, refusal
from fixtures.reference import reference

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def firewalld(host: Host) -> Iterator[Firewalld]:
    daemon = Firewalld(host)
    try:
        yield daemon
        host.delete_all()
    finally:
        daemon.stop()


OWN = ["10.1.1.2/32", "fd00:1::2/128"]


def test_sources_of_a_zone(host: Host, firewalld: Firewalld) -> None:
    """[6.3] The default where firewalld runs; CHECK heeds its answers [W-FW2]."""
    container = host.container("c1")
    config = attach(host, container, "")
    assert firewalld.sources() == OWN
    assert host.call("firewall", "STATUS", firewall("firewalld")).status == 0
    assert host.call("firewall", "CHECK", config, container).status == 0
    firewalld.command("--zone=trusted", "--remove-source=10.1.1.2/32")
    error = refusal(host.call("firewall", "CHECK", config, container))
    assert error["msg"] == "firewalld's zone of 10.1.1.2/32 differs"
    assert error["details"] == "expected trusted, found none"
    host.delete("firewall", firewall("iptables"), container)
    assert firewalld.sources() == []


def test_another_zone(host: Host, firewalld: Firewalld) -> None:
    """An address that another zone has is not taken from it; an unknown zone is an error."""
    container = host.container("c1")
    result = host.add("bridge", network(), container)
    firewalld.command("--zone=dmz", "--add-source=fd00:1::2/128")
    before = dump(host)
    for zone, reason in (("internal", "source of the zone dmz"), ("nowhere", "INVALID_ZONE")):
        config = firewall("firewalld", firewalldZone=zone) | {"prevResult": result}
        error = refusal(host.call("firewall", "ADD", config, container))
        assert error["msg"].startswith("failed to add the address")
        assert reason in error["details"]
        assert firewalld.sources(zone if zone == "internal" else "trusted") == []
        # firewalld makes the chains of a zone when it is first asked for one.
        assert differences(before, dump(host) | {"nft": before["nft"]}) == ""
    firewalld.command("--zone=dmz", "--remove-source=fd00:1::2/128")
    host.add("firewall", firewall("firewalld", firewalldZone="internal") | {"prevResult": result},
             container)  # fmt: skip
    assert firewalld.sources("internal") == OWN
    # The configuration has changed since.
    host.delete("firewall", firewall("firewalld"), container)
    assert firewalld.sources("internal") == []


def test_isolation(host: Host, firewalld: Firewalld) -> None:
    """firewalld accepts, and the policies hold all the same, also when it is loaded anew."""
    first, second, other = (host.container(name) for name in ("c1", "c2", "c3"))
    for container, name in ((first, "net1"), (second, "net1"), (other, "net2")):
        attach(host, container, "firewalld", name, ingressPolicy="same-bridge")
    assert passes(first, "10.1.1.3")
    assert blocked(first, "10.1.2.2")
    firewalld.command("--reload")
    assert elements(host, "isolation_bridges") == ["br-net1", "br-net2"]
    assert firewalld.sources() == []


def test_firewalld_is_gone(host: Host) -> None:
    """DEL has nothing to remove from a firewalld that does not run."""
    daemon = Firewalld(host)
    try:
        container = host.container("c1")
        config = attach(host, container, "firewalld")
    finally:
        daemon.stop()
    error = refusal(host.call("firewall", "CHECK", config, container))
    assert error["msg"] == "firewalld does not answer on the system bus"
    host.delete("firewall", config, container)


def test_beside_the_reference(host: Host, firewalld: Firewalld) -> None:
    theirs = reference(host, "firewall")
    container = host.container("c1")
    config = attach(host, container, "firewalld")
    assert theirs.call("firewall", "CHECK", config, container).status == 0
    assert theirs.call("firewall", "DEL", config, container).status == 0
    assert firewalld.sources() == []
    host.delete("firewall", config, container)
    assert theirs.call("firewall", "ADD", config, container).status == 0
    assert firewalld.sources() == OWN
    assert host.call("firewall", "CHECK", config, container).status == 0
    host.delete("firewall", config, container)
    assert firewalld.sources() == []


def test_address_that_another_container_has_got(host: Host, firewalld: Firewalld) -> None:
    """[W-FW3]"""
    first, second = host.container("c1"), host.container("c2")
    config = attach(host, first, "firewalld")
    host.delete("bridge", network(), first)
    pool = {"type": "static", "addresses": [{"address": "10.1.1.2/24"}]}
    result = host.add("bridge", network(ipam=pool), second)
    host.add("firewall", config | {"prevResult": result}, second)
    host.delete("firewall", config, first)
    assert firewalld.sources() == OWN[:1]
