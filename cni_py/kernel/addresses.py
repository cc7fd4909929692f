"""Interface addresses (rtnetlink(7), RTM_*ADDR)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import ip_interface
from typing import TYPE_CHECKING, NamedTuple

from .encoding import ADDRESS, encoded
from .errors import KernelError
from .links import RTM_SETLINK
from .netlink import CREATE, Netlink, Request, attribute, attributes

if TYPE_CHECKING:
    from cni_py.spec.addresses import Cidr

    from .links import Link

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40
IFA_F_PERMANENT = 0x80

RTMGRP_IPV6_IFADDR = 0x100

_BROADCAST_BITS = 31

# linux/if_addr.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_NLMSG_BYTES = 16
_INFO = struct.Struct("=BBBBI")
# linux/if_link.h
_IFLA_AF_SPEC, _INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 26, 8, 1
_LINK = struct.Struct("=BxHiII")


class Address(NamedTuple):
    """One address of a link."""

    address: Cidr
    flags: int


def add(
    index: int,
    name: str,
    address: Cidr,
    *,
    flags: int = 0,
    tolerate: frozenset[int] = frozenset(),
) -> Request:
    """The request that gives the link `address`; IPv4 gets its broadcast address (K-04)."""
    message = _message(index, address, flags & 0xFF)
    if address.version == 4 and address.network.prefixlen < _BROADCAST_BITS:
        broadcast = str(address.network.broadcast_address)
        message += encoded(ADDRESS, [("IFA_BROADCAST", broadcast)])
    return Request(f"add address {address} to {name}", RTM_NEWADDR, message, CREATE, tolerate)


def delete(index: int, name: str, address: Cidr, tolerate: frozenset[int] = frozenset()) -> Request:
    """The request that takes `address` off the link."""
    message = _message(index, address)
    return Request(f"remove address {address} of {name}", RTM_DELADDR, message, tolerate=tolerate)


def no_link_local(index: int, name: str) -> Request:
    """The request that keeps IPv6 from giving a link, which is down, an address of its own."""
    mode = attribute(_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    message = _LINK.pack(0, 0, index, 0, 0)
    message += attribute(_IFLA_AF_SPEC, attribute(socket.AF_INET6, mode))
    without = frozenset({errno.EAFNOSUPPORT})
    return Request(f"turn off link-local addresses of {name}", RTM_SETLINK, message, 0, without)


def dump(netlink: Netlink, index: int, version: int = 0) -> list[Address]:
    """The addresses of one link, of IP version 4 or 6 or both. Raises KernelError."""
    return dump_all(netlink, index, version).get(index, [])


def dump_all(netlink: Netlink, index: int = 0, version: int = 0) -> dict[int, list[Address]]:
    """The addresses by their link's index. Raises KernelError."""
    found: dict[int, list[Address]] = {}
    for body in netlink.dump(_listing(index, version)):
        _, length, flags, _, link = _INFO.unpack_from(body, _NLMSG_BYTES)
        have = attributes(body, _NLMSG_BYTES + _INFO.size)
        # On point-to-point links IFA_ADDRESS is the peer's.
        own = have.get(_IFA_LOCAL) or have[_IFA_ADDRESS]
        wide = int.from_bytes(have.get(_IFA_FLAGS, b""), sys.byteorder)
        address = Address(ip_interface((own, length)), wide or flags)
        found.setdefault(link, []).append(address)
    return found


def snapshot(netlink: Netlink, index: int) -> list[bytes]:
    """The addresses of a link that do not expire, each with all that the kernel tells of it.

    For `put_back`. Raises KernelError.
    """
    bodies = netlink.dump(_listing(index, 0))
    return [one[_NLMSG_BYTES:] for one in bodies if _flags(one) & IFA_F_PERMANENT]


def require_message(address: bytes) -> None:
    """Raises ValueError for what cannot be an address of a `snapshot`."""
    if len(address) < _INFO.size:
        raise ValueError("an address's message is cut short")
    if len(attributes(address, _INFO.size).get(_IFA_FLAGS, bytes(4))) != 4:
        raise ValueError("an address's flags are not 32 bits")


def put_back(index: int, name: str, address: bytes, *, flags: int = 0) -> Request:
    """The request that gives a link an address of a `snapshot`, unless it has it.

    `flags` are added to those that it had.
    """
    family, length, own, scope, _ = _INFO.unpack_from(address)
    message = _INFO.pack(family, length, (own | flags) & 0xFF, scope, index)
    for kind, value in attributes(address, _INFO.size).items():
        if kind == _IFA_FLAGS:
            wide = int.from_bytes(value, sys.byteorder) | flags
            message += attribute(kind, wide.to_bytes(len(value), sys.byteorder))
        # The times at which it was set.
        elif kind != _IFA_CACHEINFO:
            message += attribute(kind, value)
    present = frozenset({errno.EEXIST})
    return Request(f"restore an address of {name}", RTM_NEWADDR, message, CREATE, present)


def wait_until_settled(netlink: Netlink, events: Netlink, link: Link, deadline: float) -> None:
    """Wait for the end of duplicate address detection on a link (`deadline` of time.monotonic()).

    `events` is of the same namespace and has joined RTMGRP_IPV6_IFADDR before the addresses were
    added. Raises KernelError: EADDRINUSE for an address that another host has, ETIMEDOUT.
    """
    reports = events.events(deadline)
    while True:
        have = dump(netlink, link.ifindex, 6)
        for one in have:
            if one.flags & IFA_F_DADFAILED:
                what = f"use address {one.address} on {link.name}"
                raise KernelError(what, errno.EADDRINUSE, "duplicate address detection")
        if not any(one.flags & IFA_F_TENTATIVE for one in have):
            return
        if next(reports, None) is None:
            what = f"wait for duplicate address detection on {link.name}"
            raise KernelError(what, errno.ETIMEDOUT)


def _listing(index: int, version: int) -> Request:
    message = _INFO.pack(_FAMILY[version], 0, 0, 0, index)
    what = f"list the addresses of link {index}" if index else "list the addresses"
    return Request(what, RTM_GETADDR, message)


def _flags(body: bytes) -> int:
    _, _, flags, _, _ = _INFO.unpack_from(body, _NLMSG_BYTES)
    wide = attributes(body, _NLMSG_BYTES + _INFO.size).get(_IFA_FLAGS, b"")
    return int.from_bytes(wide, sys.byteorder) or flags


_FAMILY = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


def _message(index: int, address: Cidr, flags: int = 0) -> bytes:
    text = str(address.ip)
    message = _INFO.pack(_FAMILY[address.version], address.network.prefixlen, flags, 0, index)
    return message + encoded(ADDRESS, [("IFA_ADDRESS", text), ("IFA_LOCAL", text)])
