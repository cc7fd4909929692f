"""Our ptp beside the Go one: the same results, and each takes down what the other has set up.

CNI_REFERENCE is the folder of another release than the installed one.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import V4, V6, host_local, routed
from fixtures.host import BIN, Container, Host
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = os.environ.get("CNI_REFERENCE", "/usr/lib/cni")
# Debian's stable release of the reference speaks no 1.1.0.
VERSION = "1.0.0"

ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "10.1.2.9"}]
DEFAULTS = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]

CONFIGS = {
    "plain": routed(),
    "mtu": routed(mtu=1400),
    "IPv6": routed(ipam=host_local(V6)),
    "dual stack": routed(ipam=host_local(V4, V6, routes=DEFAULTS)),
    "two of a family": routed(ipam=host_local(V4, [{"subnet": "10.1.3.0/24"}])),
    "routes": routed(ipam=host_local(V4, routes=ROUTES)),
    "masquerading": routed(ipMasq=True, ipMasqBackend="iptables", ipam=host_local(V4, V6)),
    "gateway outside": routed(
        ipam={
            "type": "static",
            "addresses": [
                {"address": "10.9.9.9/24", "gateway": "10.8.8.1"},
                {"address": "fd09::9/128", "gateway": "fd09::1"},
            ],
        }
    ),
    "dns": routed(dns={"nameservers": ["192.0.2.53"], "domain": "example"}),
}
# What 1.9.1 does with nftables, older releases do with iptables.
NFTABLES = routed(ipMasq=True, ipMasqBackend="nftables", ipam=host_local(V4, V6))


@pytest.fixture
def other() -> Iterator[Host]:
    """A second host, whose plugins are the reference's."""
    second = Host.start()
    second.path = REFERENCE
    try:
        yield second
    finally:
        second.close()


def attached(host: Host, config: dict[str, Any], container: Container) -> dict[str, Any]:
    """An ADD that the test takes down by itself."""
    outcome = host.call("ptp", "ADD", config, container)
    assert outcome.status == 0, outcome
    result: dict[str, Any] = outcome.json
    return result


def seen(host: Host, container: Container, result: dict[str, Any]) -> dict[str, Any]:
    """The result, and what the kernel shows of it on both sides, without random names and MACs."""
    (port,) = host.ip("link", "show", "type", "veth")
    eth0 = container.link()
    state = {
        # An empty dns: release 1.1.1 prints it in 1.0.0, newer ones do not.
        "result": {key: value for key, value in result.items() if (key, value) != ("dns", {})},
        "mtus": [port["mtu"], eth0["mtu"]],
        # The other end has 1000 with 1.9.1 and here, 0 with 1.1.1.
        "txqlen": port.get("txqlen"),
        "addresses": [container.addresses(), addresses(host, port["ifname"])],
        "routes": [
            [one for one in where.ip(*family, "route") if not one["dst"].startswith("fe80")]
            for where in (container, host)
            for family in ((), ("-6",))
        ],
        "iptables": [host.iptables(version=version) for version in (4, 6)],
        "forwarding": [
            host.sysctl("net/ipv4/ip_forward"),
            host.sysctl("net/ipv6/conf/all/forwarding"),
        ],
        "accept_ra": host.sysctl(f"net/ipv6/conf/{port['ifname']}/accept_ra"),
        "files": {
            name: content
            for name, content in host.files("/var/lib/cni").items()
            if "/.cni-py/" not in name
        },
    }
    text = json.dumps(state)
    for name, stand_in in (
        (port["ifname"], "<pair>"), (port["address"], "<mac>"), (eth0["address"], "<inside>")
    ):  # fmt: skip
        text = text.replace(name, stand_in)
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def addresses(host: Host, name: str) -> list[str]:
    shown = host.ip("addr", "show", "dev", name)[0]["addr_info"]
    return [f"{one['local']}/{one['prefixlen']}" for one in shown if one["scope"] != "link"]


@pytest.mark.parametrize("name", CONFIGS)
def test_same_result_and_same_kernel_state(host: Host, other: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    ours, theirs = host.container("c1", "cid1"), other.container("c1", "cid1")
    mine = seen(host, ours, host.add("ptp", config, ours))
    reference = seen(other, theirs, attached(other, config, theirs))
    for part, expected in reference.items():
        assert (part, mine[part]) == (part, expected)


@pytest.mark.parametrize("name", [*CONFIGS, "nftables"])
@pytest.mark.parametrize("state", ["there", "no result", "gone"])
def test_we_take_down_what_the_reference_set_up(host: Host, name: str, state: str) -> None:
    config = {**CONFIGS, "nftables": NFTABLES}[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    host.path = REFERENCE
    result = attached(host, config, container)
    host.path = str(BIN)
    if state != "no result":
        config["prevResult"] = result
    if state == "gone":
        container.delete_netns()
    host.delete("ptp", config, container)
    assert leaks(host) == []
    if state != "gone":
        assert container.ip("link", "show", "type", "veth") == []


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_takes_down_what_we_set_up(host: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    config["prevResult"] = attached(host, config, container)
    host.path = REFERENCE
    host.delete("ptp", config, container)
    host.path = str(BIN)
    assert container.ip("link", "show", "type", "veth") == []
    # Our index learns of it at the next call.
    host.delete("ptp", config, container)
    assert leaks(host) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_the_references_check_accepts_ours(host: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    checked = config | {"prevResult": host.add("ptp", config, container)}
    host.path = REFERENCE
    outcome = host.call("ptp", "CHECK", checked, container)
    host.path = str(BIN)
    assert outcome.status == 0, outcome


@pytest.mark.parametrize("name", CONFIGS)
def test_our_check_accepts_the_references(host: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    host.path = REFERENCE
    config["prevResult"] = attached(host, config, container)
    host.path = str(BIN)
    outcome = host.call("ptp", "CHECK", config, container)
    host.delete("ptp", config, container)
    assert outcome.status == 0, outcome


def test_beside_each_other(host: Host) -> None:
    """Containers of both plugins in one network: one IPAM, and packets flow between them."""
    config = routed(cniVersion=VERSION, ipam=host_local(V4, V6))
    first, second = host.container("c1"), host.container("c2")
    host.path = REFERENCE
    previous = attached(host, config, first)
    host.path = str(BIN)
    host.add("ptp", config, second)
    assert second.reaches("10.1.2.2")
    assert first.reaches("10.1.2.3")
    host.delete("ptp", config | {"prevResult": previous}, first)
    assert second.reaches("10.1.2.1")


def test_left_over_pair_of_the_reference(host: Host) -> None:
    """[W-P8] Its container lives on, but the address has been given to another one."""
    pool = {"type": "static", "addresses": [{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}]}
    config = routed(cniVersion=VERSION, ipam=pool)
    old, new = host.container("c1"), host.container("c2")
    host.path = REFERENCE
    previous = attached(host, config, old)
    host.path = str(BIN)
    host.add("ptp", config, new)
    assert new.reaches("10.1.2.1")
    host.delete("ptp", config | {"prevResult": previous}, old)
    assert new.reaches("10.1.2.1")
