"""Attributes of rtnetlink's messages, encoded by tables of their names (linux/if_link.h).

pyroute2's classes know many more, and take ten times as long: 1 ms of a bridge's ADD (decision 2).
The names and values are written as those classes take them.
"""

from __future__ import annotations

import os
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from .netlink import attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Encoder = Callable[[Any], bytes]
    Table = Mapping[str, tuple[int, Encoder]]

_IFINFO_BYTES = 16
_VLAN = struct.Struct("=HH")


def encoded(table: Table, attributes: Iterable[tuple[str, Any]]) -> bytes:
    """The attributes one after another."""
    parts = []
    for name, value in attributes:
        number, encode = table[name]
        parts.append(attribute(number, encode(value)))
    return b"".join(parts)


_u8 = struct.Struct("=B").pack
_u32 = struct.Struct("=I").pack


def _text(value: str) -> bytes:
    return os.fsencode(value) + b"\0"


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _address(value: str) -> bytes:
    return ip_address(value).packed


def _nested(table: Table) -> Encoder:
    return lambda value: encoded(table, value["attrs"])


def _peer(value: dict[str, Any]) -> bytes:
    """A link within a link: it has a header of its own."""
    return bytes(_IFINFO_BYTES) + encoded(LINK, value["attrs"])


def _vlan(value: dict[str, int]) -> bytes:
    return _VLAN.pack(value["flags"], value["vid"])


# What a link's kind is told; the kinds that are created here have no number in common.
_KIND = {"IFLA_BR_VLAN_FILTERING": (7, _u8), "VETH_INFO_PEER": (1, _peer)}
_PORT = {"IFLA_BRPORT_MODE": (4, _u8), "IFLA_BRPORT_ISOLATED": (33, _u8)}
_INFO = {
    "IFLA_INFO_KIND": (1, _text),
    "IFLA_INFO_DATA": (2, _nested(_KIND)),
    "IFLA_INFO_SLAVE_KIND": (4, _text),
    "IFLA_INFO_SLAVE_DATA": (5, _nested(_PORT)),
}
LINK = {
    "IFLA_ADDRESS": (1, _mac),
    "IFLA_IFNAME": (3, _text),
    "IFLA_MTU": (4, _u32),
    "IFLA_MASTER": (10, _u32),
    "IFLA_TXQLEN": (13, _u32),
    "IFLA_LINKINFO": (18, _nested(_INFO)),
    "IFLA_IFALIAS": (20, _text),
    "IFLA_AF_SPEC": (26, _nested({"IFLA_BRIDGE_VLAN_INFO": (2, _vlan)})),
    "IFLA_GROUP": (27, _u32),
    "IFLA_NET_NS_FD": (28, _u32),
    "IFLA_EXT_MASK": (29, _u32),
    "IFLA_IF_NETNSID": (46, _u32),
}
ADDRESS = {"IFA_ADDRESS": (1, _address), "IFA_LOCAL": (2, _address), "IFA_BROADCAST": (4, _address)}
_METRICS = {"RTAX_MTU": (2, _u32), "RTAX_ADVMSS": (8, _u32)}
ROUTE = {
    "RTA_DST": (1, _address),
    "RTA_OIF": (4, _u32),
    "RTA_GATEWAY": (5, _address),
    "RTA_PRIORITY": (6, _u32),
    "RTA_PREFSRC": (7, _address),
    "RTA_METRICS": (8, _nested(_METRICS)),
    "RTA_TABLE": (15, _u32),
}
