"""Who answers for an address on a link (rtnetlink(7), RTM_GETNEIGH)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from .netlink import NLM_F_CREATE, NLM_F_REPLACE, Request, attribute, attributes

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

    from .netlink import Netlink

RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
_RTM_GETNEIGH = 30
_NDMSG = struct.Struct("=BxxxiHBB")
_NLMSG_BYTES = 16
_DST, _LLADDR, _IFINDEX = 1, 2, 8
_AF_BRIDGE = 7
_PERMANENT, _SELF = 0x80, 0x02
_GONE = frozenset({errno.ENOENT})
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


class Entry(NamedTuple):
    """A permanent entry of one link: of a neighbour, or of whom a VXLAN device sends a MAC's to."""

    address: IP
    mac: str


def permanent(netlink: Netlink, link: int) -> list[Entry]:
    """A link's permanent neighbours of both families. Raises KernelError."""
    families = (socket.AF_INET, socket.AF_INET6)
    return [one for family in families for one in _entries(netlink, family, link)]


def forwardings(netlink: Netlink, link: int) -> list[Entry]:
    """A VXLAN device's entries, each with its host; learned ones are left out. KernelError."""
    return _entries(netlink, _AF_BRIDGE, link)


def put(link: int, entry: Entry, what: str) -> Request:
    """The request that makes a permanent neighbour, or gives the one there is its MAC address."""
    return _put(_FAMILY[entry.address.version], link, 0, entry, what)


def remove(link: int, entry: Entry, what: str) -> Request:
    """The request that takes a neighbour away; none is as good."""
    return _remove(_FAMILY[entry.address.version], link, 0, entry, what)


def forward(link: int, entry: Entry, what: str) -> Request:
    """The request that has a VXLAN device send a MAC address's frames to a host."""
    return _put(_AF_BRIDGE, link, _SELF, entry, what)


def forget(link: int, entry: Entry, what: str) -> Request:
    """The request that takes that back; none is as good."""
    return _remove(_AF_BRIDGE, link, _SELF, entry, what)


_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def _put(family: int, link: int, flags: int, entry: Entry, what: str) -> Request:
    message = _NDMSG.pack(family, link, _PERMANENT, flags, 0) + _keys(entry)
    return Request(what, RTM_NEWNEIGH, message, NLM_F_CREATE | NLM_F_REPLACE)


def _remove(family: int, link: int, flags: int, entry: Entry, what: str) -> Request:
    message = _NDMSG.pack(family, link, _PERMANENT, flags, 0) + _keys(entry)
    return Request(what, RTM_DELNEIGH, message, tolerate=_GONE)


def _keys(entry: Entry) -> bytes:
    mac = bytes.fromhex(entry.mac.replace(":", ""))
    return attribute(_DST, entry.address.packed) + attribute(_LLADDR, mac)


def _entries(netlink: Netlink, family: int, link: int) -> list[Entry]:
    message = _NDMSG.pack(family, 0, 0, 0, 0)
    message += attribute(_IFINDEX, link.to_bytes(4, sys.byteorder))
    found = []
    for body in netlink.dump(Request("list the neighbours", _RTM_GETNEIGH, message)):
        _, index, state, _, _ = _NDMSG.unpack_from(body, _NLMSG_BYTES)
        have = attributes(body, _NLMSG_BYTES + _NDMSG.size)
        if index == link and state & _PERMANENT and _DST in have and _LLADDR in have:
            found.append(Entry(ip_address(have[_DST]), have[_LLADDR].hex(":")))
    return found
