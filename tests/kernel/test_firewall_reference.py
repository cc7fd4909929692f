"""firewall beside the reference plugin: each checks and removes what the other has set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.firewalls import attach, blocked, elements, firewall, network
from fixtures.host import refusal
from fixtures.reference import reference

if TYPE_CHECKING:
    from fixtures.host import Container, Host

every_policy = pytest.mark.parametrize("policy", ["", "same-bridge", "isolated"])


def chained(host: Host, container: Container, policy: str) -> dict[str, Any]:
    result = host.add("bridge", network(), container)
    return firewall("iptables", ingressPolicy=policy) | {"prevResult": result}


def rules(host: Host) -> list[str]:
    """The filter tables, without what only ours sets."""
    lines = [one for version in (4, 6) for one in host.iptables("filter", version)]
    return [one for one in lines if "--ctstate DNAT" not in one]


@every_policy
def test_same_rules(host: Host, policy: str) -> None:
    """[A.11] Rule for rule and in the same order, and the result is the same."""
    theirs = reference(host, "firewall")
    container = host.container("c1")
    config = chained(host, container, policy)
    expected = theirs.call("firewall", "ADD", config, container).json
    their_rules = rules(host)
    assert any("10.1.1.2" in one for one in their_rules)
    for name in ("iptables", "ip6tables"):
        host.run(name, "-F")
        host.run(name, "-X")
    assert host.add("firewall", config, container) == expected
    assert rules(host) == their_rules


@every_policy
def test_reference_checks_and_deletes_ours(host: Host, policy: str) -> None:
    theirs = reference(host, "firewall")
    container = host.container("c1")
    config = chained(host, container, policy)
    host.add("firewall", config, container)
    assert theirs.call("firewall", "CHECK", config, container).status == 0
    assert theirs.call("firewall", "DEL", config, container).status == 0
    assert not any("10.1.1.2" in one or "fd00:1::2" in one for one in rules(host))
    # What is ours alone goes with our DEL, or with GC.
    gc = config | {"cni.dev/valid-attachments": []}
    assert host.call("firewall", "GC", gc).status == 0
    assert not any("10.1.1.2" in one for one in host.iptables("filter"))


@every_policy
@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_our_check_accepts_the_references(host: Host, policy: str, backend: str) -> None:
    """Also where the list has another backend by now; and it says what is not there."""
    theirs = reference(host, "firewall")
    container = host.container("c1")
    config = chained(host, container, policy)
    assert theirs.call("firewall", "ADD", config, container).status == 0
    config["backend"] = backend
    assert host.call("firewall", "CHECK", config, container).status == 0
    host.run("iptables", "-F", "CNI-FORWARD")
    assert refusal(host.call("firewall", "CHECK", config, container))["msg"]
    host.delete("firewall", config, container)


@every_policy
def test_deleting_the_references(host: Host, policy: str) -> None:
    """[W-FW4] By the addresses in prevResult; without it, as the reference, nothing is known."""
    theirs = reference(host, "firewall")
    container = host.container("c1")
    config = chained(host, container, policy)
    assert theirs.call("firewall", "ADD", config, container).status == 0
    host.delete("firewall", config, container)
    assert not any("10.1.1.2" in one or "fd00:1::2" in one for one in rules(host))


def test_isolation_with_the_references_containers(host: Host) -> None:
    """Our last container leaves the rules to a container of the reference on the same bridge."""
    theirs = reference(host, "bridge")
    far, ours, their_own = (host.container(name) for name in ("c1", "c2", "c3"))
    attach(host, far, "iptables", "net2", ingressPolicy="same-bridge")
    attach(host, ours, "iptables", ingressPolicy="same-bridge")
    result = theirs.call("bridge", "ADD", network(), their_own).json
    config = firewall("iptables", ingressPolicy="same-bridge") | {"prevResult": result}
    assert theirs.call("firewall", "ADD", config, their_own).status == 0
    assert blocked(far, "10.1.1.3")
    host.delete("firewall", firewall("iptables"), ours)
    assert blocked(far, "10.1.1.3")
    theirs.call("firewall", "DEL", config, their_own)
    assert theirs.call("bridge", "DEL", network() | {"prevResult": result}, their_own).status == 0
    assert elements(host, "forward4") == []
