"""Our portmap beside the Go one: the same rules of iptables, and each takes down the other's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.host import Container, Host
from fixtures.ports import ask, bridged, mapping, portmap, publish, serving
from fixtures.reference import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

# A.9's, and what else there is of each kind.
CONFIGS: dict[str, dict[str, Any]] = {
    "defaults": portmap(mapping(), mapping(5353, "udp", hostIP="10.1.2.1")),
    "many": portmap(*(mapping(8000 + number) for number in range(16)), mapping(53, "udp")),
    "stream control": portmap(mapping(protocol="sctp"), mapping()),
    "IPv6 host": portmap(mapping(hostIP="fd00:1::1")),
    "unspecified hosts": portmap(mapping(hostIP="0.0.0.0"), mapping(8081, hostIP="::")),
    "without snat": portmap(mapping(), snat=False),
    "masquerade all": portmap(mapping(), masqAll=True),
    "mark": portmap(mapping(), markMasqBit=0),
    "external chain": portmap(mapping(), externalSetMarkChain="ELSEWHERE"),
    "conditions": portmap(
        mapping(), conditionsV4=["!", "-d", "192.0.2.0/24"], conditionsV6=["-i", "cni0"]
    ),
}


@pytest.fixture
def other() -> Iterator[Host]:
    """A second host, whose plugins are the reference's."""
    second = Host.start()
    try:
        yield reference(second, "portmap")
    finally:
        second.close()


def attached(host: Host, config: dict[str, Any], container: Container) -> dict[str, Any]:
    """An ADD that the test takes down by itself, with iptables; returns the configuration."""
    host.run("ip", "link", "set", "lo", "up")
    if config.get("externalSetMarkChain"):
        for tool in ("iptables", "ip6tables"):
            host.run(tool, "-t", "nat", "-N", "ELSEWHERE")
    ours = Host(host.holder, host.attachments)
    result = ours.add("bridge", bridged(), container)
    whole = config | {"prevResult": result, "backend": "iptables"}
    outcome = host.call("portmap", "ADD", whole, container)
    assert outcome.status == 0, outcome
    assert outcome.json == result
    return whole


def state(host: Host) -> dict[str, Any]:
    """What portmap sets."""
    return {
        "IPv4": host.iptables(),
        "IPv6": host.iptables(version=6),
        "localhost": host.sysctl("net/ipv4/conf/cni0/route_localnet"),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_same_rules(host: Host, other: Host, name: str) -> None:
    """[A.9] [H-02] The reference's chains, rules, order and comments."""
    ours = host.container("c1", "cid1")
    config = attached(host, CONFIGS[name], ours)
    attached(other, CONFIGS[name], other.container("c1", "cid1"))
    mine, theirs = state(host), state(other)
    if name == "IPv6 host":
        # Nothing of IPv4 leads to the container.
        assert (mine.pop("localhost"), theirs.pop("localhost")) == ("0", "1")
    assert mine == theirs
    assert host.call("portmap", "CHECK", config, ours).status == 0
    outcome = host.call("portmap", "DEL", config, ours)
    assert (outcome.status, outcome.stdout) == (0, ""), outcome


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("told", ["all", "nothing"])
def test_we_take_down_what_the_reference_set_up(host: Host, name: str, told: str) -> None:
    """[W-PM3] Also when DEL does not say that there were ports."""
    container = host.container("c1", "cid1")
    config = attached(reference(host, "portmap"), CONFIGS[name], container)
    assert host.call("portmap", "CHECK", config, container).status == 0
    if told == "nothing":
        config = portmap()
        container = Container(host, container.id, "")
    host.delete("portmap", config, container)
    assert not any("CNI-" in line for line in [*host.iptables(), *host.iptables(version=6)])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_takes_down_what_we_set_up(host: Host, name: str) -> None:
    container = host.container("c1", "cid1")
    config = attached(host, CONFIGS[name], container)
    theirs = reference(host, "portmap")
    assert theirs.call("portmap", "CHECK", config, container).status == 0
    assert theirs.call("portmap", "DEL", config, container).status == 0
    assert not any("CNI-DN-" in line for line in [*host.iptables(), *host.iptables(version=6)])
    # Our records learn of it at the next call.
    host.delete("portmap", config, container)


def test_side_by_side(host: Host) -> None:
    """A node in the middle of a change: containers of both, and ours by nftables."""
    old, new, newest = (host.container(f"c{number}") for number in (1, 2, 3))
    before = attached(reference(host, "portmap"), portmap(mapping(8081)), old)
    config = publish(host, new, mapping(8082), backend="iptables")
    publish(host, newest, mapping(8083))
    with serving(old, new, newest):
        for number in (1, 2, 3):
            for address in ("10.1.2.1", "127.0.0.1"):
                assert ask(host, address, port=8080 + number) == [f"c{number} 10.1.2.1"]
    host.delete("portmap", config, new)
    with serving(old):
        assert ask(host, "10.1.2.1", port=8081) == ["c1 10.1.2.1"]
    host.delete("portmap", before, old)


def test_nftables_rules_of_the_reference(host: Host) -> None:
    """[A.10] [W-PM4] Taken down by ours, told or not."""
    theirs = reference(host, "portmap")
    for config in (portmap(mapping(), backend="iptables"), portmap()):
        container = host.container(f"c{len(host.attachments)}")
        result = host.add("bridge", bridged(), container)
        added = portmap(mapping(), mapping(53, "udp"), prevResult=result, backend="nftables")
        outcome = theirs.call("portmap", "ADD", added, container)
        assert outcome.status == 0, outcome
        assert container.id in host.nft()
        host.delete("portmap", config, container)
        assert f'"{container.id}"' not in host.nft()
