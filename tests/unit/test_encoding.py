"""Our tables of attributes say what pyroute2's classes say."""

from __future__ import annotations

from typing import Any

import pytest

from cni_py.kernel import encoding, messages

MAC = "02:00:00:00:00:01"


def nested(*attributes: tuple[str, Any]) -> dict[str, Any]:
    return {"attrs": list(attributes)}


def of_kind(kind: str, *data: tuple[str, Any]) -> tuple[str, Any]:
    return ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", nested(*data))))


def by_pyroute2(kind: type[Any], attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    """The attributes of a message of that class."""
    empty, message = kind(), kind()
    empty["attrs"], message["attrs"] = [], attributes
    for one in (empty, message):
        for name, value in fields.items():
            one[name] = value
        one.reset()
        one.encode()
    return bytes(message.data)[len(empty.data) :]


@pytest.mark.parametrize(
    "attributes",
    [
        [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", MAC), ("IFLA_MTU", 1500), ("IFLA_TXQLEN", 0)],
        [("IFLA_IFALIAS", "é, net: net1"), ("IFLA_GROUP", 0x44123456), ("IFLA_MASTER", 7)],
        [("IFLA_NET_NS_FD", 5), ("IFLA_EXT_MASK", 2), ("IFLA_IF_NETNSID", 3)],
        [of_kind("bridge", ("IFLA_BR_VLAN_FILTERING", 1))],
        [of_kind("veth", ("VETH_INFO_PEER", nested(("IFLA_IFNAME", "e"), ("IFLA_MTU", 9000))))],
    ],
    ids=lambda attributes: attributes[0][0],
)
def test_links(attributes: list[tuple[str, Any]]) -> None:
    expected = by_pyroute2(messages.ifinfmsg, attributes)
    assert encoding.encoded(encoding.LINK, attributes) == expected


def test_ports() -> None:
    data = nested(("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 0))
    info = nested(("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data))
    attributes = [("IFLA_LINKINFO", info)]
    expected = by_pyroute2(messages.ifinfmsg, attributes)
    assert encoding.encoded(encoding.LINK, attributes) == expected


def test_vlans() -> None:
    spec = nested(("IFLA_BRIDGE_VLAN_INFO", {"vid": 100, "flags": 6}))
    expected = by_pyroute2(messages.ifinfmsg, [("IFLA_AF_SPEC", spec)], family=7)
    assert encoding.encoded(encoding.LINK, [("IFLA_AF_SPEC", spec)]) == expected


@pytest.mark.parametrize(
    ("family", "destination", "gateway"), [(2, "10.1.0.0", "10.1.2.1"), (10, "fd00::", "fd00::1")]
)
def test_routes(family: int, destination: str, gateway: str) -> None:
    metrics = nested(("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1360))
    attributes = [
        ("RTA_DST", destination),
        ("RTA_OIF", 3),
        ("RTA_GATEWAY", gateway),
        ("RTA_PREFSRC", gateway),
        ("RTA_TABLE", 1000),
        ("RTA_PRIORITY", 5),
        ("RTA_METRICS", metrics),
    ]
    expected = by_pyroute2(messages.rtmsg, attributes, family=family)
    assert encoding.encoded(encoding.ROUTE, attributes) == expected


@pytest.mark.parametrize(("family", "address"), [(2, "10.1.2.3"), (10, "fd00::3")])
def test_addresses(family: int, address: str) -> None:
    attributes = [("IFA_ADDRESS", address), ("IFA_LOCAL", address)]
    expected = by_pyroute2(messages.ifaddrmsg, attributes, family=family)
    assert encoding.encoded(encoding.ADDRESS, attributes) == expected
