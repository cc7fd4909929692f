"""Interface addresses (rtnetlink(7), RTM_*ADDR)."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import KernelError
from .messages import ifaddrmsg
from .netlink import CREATE, Netlink, Request

if TYPE_CHECKING:
    from cni_py.spec.addresses import Cidr

    from .links import Link

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40

RTMGRP_IPV6_IFADDR = 0x100

_BROADCAST_BITS = 31


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
    message = _message(index, address)
    message["flags"] = flags & 0xFF
    if address.version == 4 and address.network.prefixlen < _BROADCAST_BITS:
        message["attrs"].append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    return Request(f"add address {address} to {name}", RTM_NEWADDR, message, CREATE, tolerate)


def delete(index: int, name: str, address: Cidr, tolerate: frozenset[int] = frozenset()) -> Request:
    """The request that takes `address` off the link."""
    message = _message(index, address)
    return Request(f"remove address {address} of {name}", RTM_DELADDR, message, tolerate=tolerate)


def dump(netlink: Netlink, index: int, version: int = 0) -> list[Address]:
    """The addresses of one link, of IP version 4 or 6 or both. Raises KernelError."""
    message = ifaddrmsg()
    message["family"] = _FAMILY[version]
    message["index"] = index
    message["attrs"] = []
    found = netlink.dump(Request(f"list the addresses of link {index}", RTM_GETADDR, message))
    return [
        Address(
            ip_interface(f"{_own_address(one)}/{one['prefixlen']}"),
            one.get_attr("IFA_FLAGS") or one["flags"],
        )
        for one in found
        if one["index"] == index
    ]


def wait_until_settled(netlink: Netlink, events: Netlink, link: Link, deadline: float) -> None:
    """Wait for the end of duplicate address detection on a link (`deadline` of time.monotonic()).

    `events` is of the same namespace and has joined RTMGRP_IPV6_IFADDR before the addresses were
    added. Raises KernelError: EADDRINUSE for an address that another host has, ETIMEDOUT.
    """
    reports = events.events(deadline, ifaddrmsg())
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


_FAMILY = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


def _own_address(message: Any) -> str:
    """IFA_LOCAL where there is one: on point-to-point links IFA_ADDRESS is the peer's."""
    text: str = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return text


def _message(index: int, address: Cidr) -> Any:
    message = ifaddrmsg()
    message["family"] = _FAMILY[address.version]
    message["prefixlen"] = address.network.prefixlen
    message["index"] = index
    text = str(address.ip)
    message["attrs"] = [("IFA_ADDRESS", text), ("IFA_LOCAL", text)]
    return message
