"""What changes in a namespace's links, addresses, routes and neighbours, as the kernel tells it.

For who keeps something as it should be: a report is a reason to look, not the whole truth.
"""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING, Literal, NamedTuple

from . import addresses, links, routes
from .netlink import RTMGRP_LINK, Netlink, attributes

if TYPE_CHECKING:
    from cni_py.spec.addresses import Network

_RTMGRP_NEIGH, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x4, 0x10, 0x40
_RTMGRP_IPV6_ROUTE = 0x400
_GROUPS = (
    RTMGRP_LINK
    | _RTMGRP_NEIGH
    | _RTMGRP_IPV4_IFADDR
    | _RTMGRP_IPV4_ROUTE
    | addresses.RTMGRP_IPV6_IFADDR
    | _RTMGRP_IPV6_ROUTE
)
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_KINDS: dict[int, tuple[Literal["link", "address", "route", "neighbour"], bool]] = {
    links.RTM_NEWLINK: ("link", False),
    links.RTM_DELLINK: ("link", True),
    addresses.RTM_NEWADDR: ("address", False),
    addresses.RTM_DELADDR: ("address", True),
    routes.RTM_NEWROUTE: ("route", False),
    routes.RTM_DELROUTE: ("route", True),
    _RTM_NEWNEIGH: ("neighbour", False),
    _RTM_DELNEIGH: ("neighbour", True),
}
_NLMSG_BYTES = 16
_INFO = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF = 1, 4
_ADDRESS_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Change(NamedTuple):
    """One report. `lost` stands for any number that the kernel had no room for.

    `link` is an ifindex, 0 where there is none; `protocol` and `destination` are a route's.
    """

    kind: Literal["link", "address", "route", "neighbour", "lost"]
    gone: bool = False
    link: int = 0
    protocol: int = 0
    destination: Network | None = None


class Changes:
    """The reports of the namespace that the thread is in, from now on."""

    def __init__(self) -> None:
        """Raises KernelError."""
        self._netlink = Netlink(_GROUPS)

    def fileno(self) -> int:
        """What becomes readable when there are reports."""
        return self._netlink.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def read(self) -> list[Change]:
        """The reports that are there; never waits. Raises KernelError."""
        found = (_change(body) if body else Change("lost") for body in self._netlink.pending())
        return [one for one in found if one is not None]


def _change(body: bytes) -> Change | None:
    (number,) = struct.unpack_from("=H", body, 4)
    if number not in _KINDS:
        return None
    kind, gone = _KINDS[number]
    if kind == "link":
        _, _, index, _, _ = _INFO.unpack_from(body, _NLMSG_BYTES)
        return Change(kind, gone, index)
    if kind == "address":
        return Change(kind, gone, _ADDRESS.unpack_from(body, _NLMSG_BYTES)[4])
    if kind == "neighbour":
        return Change(kind, gone, _NEIGHBOUR.unpack_from(body, _NLMSG_BYTES)[1])
    family, length, _, _, _, protocol, _, _, _ = _ROUTE.unpack_from(body, _NLMSG_BYTES)
    have = attributes(body, _NLMSG_BYTES + _ROUTE.size)
    if family not in _ADDRESS_BYTES:
        return None
    destination = have.get(_RTA_DST) or bytes(_ADDRESS_BYTES[family])
    link = int.from_bytes(have.get(_RTA_OIF, b""), sys.byteorder)
    network = ip_network((destination, length), strict=False)
    return Change(kind, gone, link, protocol=protocol, destination=network)
