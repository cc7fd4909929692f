"""Which link and address lead to the other nodes."""

from __future__ import annotations

from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from cni_py.cluster.backends import make
from cni_py.cluster.underlay import Chosen, find
from cni_py.kernel.netlink import Netlink
from cni_py.spec.errors import CniError
from fixtures.underlay import entered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fixtures.host import Host

_LINKS = """
link add a0 mtu 1500 type veth peer name a1
link add b0 mtu 9000 type veth peer name b1
link set a0 addrgenmode none
link set b0 addrgenmode none
link set a0 up
link set a1 up
link set b0 up
link set b1 up
addr add 192.0.2.10/24 dev a0
addr add 192.0.2.11/24 dev a0
addr add fe80::9/64 dev a0 nodad
addr add 2001:db8::10/64 dev a0 nodad
addr add 10.1.0.10/16 dev b0
addr add 10.2.0.10/16 dev b0
route add default via 192.0.2.1
route add 203.0.113.0/24 via 10.1.0.1
route add 198.51.100.0/24 dev b0
"""


@pytest.fixture
def netlink(host: Host) -> Iterator[Netlink]:
    host.run("ip", "-batch", "-", stdin=_LINKS.strip() + "\n")
    with entered(host):
        opened = Netlink()
    with opened as netlink:
        yield netlink


@pytest.mark.parametrize(
    ("chosen", "link", "address", "why"),
    [
        (Chosen(), "a0", "192.0.2.10", "it has the default route"),
        (Chosen("b0"), "b0", "10.1.0.10", "it was named"),
        (Chosen("10.2.0.10"), "b0", "10.2.0.10", "it has an address in 10.2.0.10/32"),
        (Chosen("10.2.0.0/16"), "b0", "10.2.0.10", "it has an address in 10.2.0.0/16"),
        (Chosen("2001:db8::/32"), "a0", "192.0.2.10", "it has an address in 2001:db8::/32"),
        (
            Chosen(towards="203.0.113.7"), "b0", "10.1.0.10",
            "the route to 203.0.113.7 leads through it",
        ),
    ],
)  # fmt: skip
def test_the_link_that_is_chosen(
    netlink: Netlink, chosen: Chosen, link: str, address: str, why: str
) -> None:
    found = find(netlink, chosen)
    assert (found.link, found.address, found.why) == (link, IPv4Address(address), why)
    assert found.mtu == (1500 if link == "a0" else 9000)
    assert found.address6 == (IPv6Address("2001:db8::10") if link == "a0" else None)


def test_who_is_on_the_link(netlink: Netlink) -> None:
    found = find(netlink, Chosen("b0"))
    for address, directly in (("10.2.3.4", True), ("198.51.100.1", True), ("203.0.113.7", False)):
        assert found.reaches_directly(IPv4Address(address)) is directly


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (Chosen("c0"), "there is no interface 'c0' to other nodes"),
        (Chosen("172.16.0.0/12"), "no interface has an address in 172.16.0.0/12"),
        (Chosen(towards="2001:db9::1"), "there is no route to 2001:db9::1"),
    ],
)
def test_what_there_is_not(netlink: Netlink, chosen: Chosen, message: str) -> None:
    with pytest.raises(CniError) as refused:
        find(netlink, chosen)
    assert (refused.value.code, refused.value.msg) == (50, message)


def test_without_a_default_route(host: Host, netlink: Netlink) -> None:
    host.run("ip", "route", "del", "default")
    with pytest.raises(CniError, match="there is no default route"):
        find(netlink, Chosen())


@pytest.mark.parametrize(
    ("configured", "name"),
    [
        ({"Type": "vxlan", "VNI": 7, "Other": {}}, "vxlan"),
        ({"type": "VXLAN", "vni": 7}, "vxlan"),
        ({"Type": "host-gw"}, "host-gw"),
        ({"Type": "ipip", "DirectRouting": True}, "ipip"),
        ({"Type": "wireguard", "Mode": "auto", "ListenPort": 4000}, "wireguard"),
    ],
)
def test_a_backend_by_its_configuration(host: Host, configured: Any, name: str) -> None:
    with entered(host), closing(make(configured, Chosen(), frozenset({4}))) as backend:
        assert backend.name == name


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({}, "its Type is None"),
        ({"Type": "udp\n"}, r"its Type is 'udp\\n'"),
        ({"Type": ["vxlan"]}, "its Type is "),
        ({"Type": "vxlan", "VNI": 0}, r"Expected `int` >= 1 - at `\$\.vni`"),
        ({"Type": "vxlan", "VNI": 2**24}, r"Expected `int` <= 16777215 - at `\$\.vni`"),
        ({"Type": "vxlan", "Port": "8472"}, r"Expected `int`, got `str` - at `\$\.port`"),
        ({"Type": "wireguard", "Mode": "any"}, r"Invalid enum value 'any' - at `\$\.mode`"),
        ({"Type": "wireguard", "PSK": "aGk="}, "PSK is no key"),
    ],
)
def test_a_configuration_that_cannot_be(host: Host, configured: Any, message: str) -> None:
    with entered(host), pytest.raises(CniError, match=message) as refused:
        make(configured, Chosen(), frozenset({4}))
    assert refused.value.code == 7
    assert refused.value.msg.startswith("the network's Backend cannot be used: ")
