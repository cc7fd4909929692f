"""Who answers for an address on a link (rtnetlink(7), RTM_GETNEIGH)."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from .netlink import Request, attributes

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

    from .netlink import Netlink

_RTM_GETNEIGH = 30
_NDMSG = struct.Struct("=BxxxiHBB")
_NLMSG_BYTES = 16
_DST, _LLADDR = 1, 2
_STATES = {
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}


class Neighbour(NamedTuple):
    """An entry of the kernel's table; `failed` says that nobody has answered."""

    link: int
    address: IP
    mac: str
    state: str


def dump(netlink: Netlink) -> list[Neighbour]:
    """All entries of both families. Raises KernelError."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        message = _NDMSG.pack(family, 0, 0, 0, 0)
        for body in netlink.dump(Request("list the neighbours", _RTM_GETNEIGH, message)):
            _, link, state, _, _ = _NDMSG.unpack_from(body, _NLMSG_BYTES)
            have = attributes(body, _NLMSG_BYTES + _NDMSG.size)
            if _DST in have:
                mac = have.get(_LLADDR, b"").hex(":")
                name = _STATES.get(state, "none")
                found.append(Neighbour(link, ip_address(have[_DST]), mac, name))
    return found
