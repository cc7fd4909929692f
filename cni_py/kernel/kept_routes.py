"""Routes as the kernel tells them, to take them away or copy them, and to put them back.

All that the kernel says of a route is kept, also what `routes` does not read.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni_py.spec.addresses import default_route

from .netlink import NLM_F_CREATE, NLM_F_REPLACE, Netlink, Request, attribute, attributes
from .routes import RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP, Network

_NLM_F_APPEND = 0x800

RTMGRP_IPV6_ROUTE = 0x400

# Made of addresses, or learnt of a router's advertisement: the kernel makes them again.
_BY_ITSELF = frozenset({2, 9})
_TYPE_UNICAST, _TYPE_LOCAL = 1, 2
_FLAG_CLONED = 0x200
_ONLINK = 0x4
_ONE_BYTE_TABLES = 256

# linux/rtnetlink.h
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _MULTIPATH = 1, 4, 5, 6, 7, 8, 9
_CACHEINFO, _TABLE, _EXPIRES, _NH_ID = 12, 15, 23, 30
# Times, and the number of a next hop object, whose content is told beside it.
_NOT_KEPT = frozenset({_CACHEINFO, _EXPIRES, _NH_ID})
_IDENTIFYING = frozenset({_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH})
_NLMSG_BYTES = 16
# family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")
_PRESENT, _GONE = frozenset({errno.EEXIST}), frozenset({errno.ESRCH})
# The link is down, or its addresses are not what they were: there can be no such route.
_IMPOSSIBLE = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.ENODEV}
)


class KeptRoute(NamedTuple):
    """A route: what is looked at of it, and the kernel's message without times and states."""

    destination: Network
    gateway: IP | None
    source: IP | None
    table: int
    protocol: int
    scope: int
    is_local: bool
    body: bytes

    @property
    def is_made_by_itself(self) -> bool:
        """Whether the kernel makes the route, and makes it again when the link comes up."""
        return self.protocol in _BY_ITSELF

    @property
    def text(self) -> str:
        """For an error's words."""
        via = "" if self.gateway is None else f" via {self.gateway}"
        return f"{self.destination}{via} in table {self.table}"


def snapshot(netlink: Netlink, index: int) -> list[KeptRoute]:
    """The routes of all tables that lead through that link alone, without cached ones.

    Local, unicast and others; in the kernel's order. Raises KernelError.
    """
    return [one for one in dump(netlink, index) if _links(one.body) == {index}]


def dump(netlink: Netlink, index: int = 0) -> list[KeptRoute]:
    """The routes of all tables, or those with a next hop on the link. Raises KernelError."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        message = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        if index:
            message += attribute(_OIF, _U32.pack(index))
        bodies = netlink.dump(Request("list the routes", RTM_GETROUTE, message))
        found += [body[_NLMSG_BYTES:] for body in bodies]
    return [read(one) for one in found if not _RTMSG.unpack_from(one)[-1] & _FLAG_CLONED]


def read(body: bytes) -> KeptRoute:
    """A route from its message, which has been kept. Raises ValueError for what is none."""
    if len(body) < _RTMSG.size:
        raise ValueError("a route's message is cut short")
    family, length, _, _, table, protocol, scope, kind, _ = _RTMSG.unpack_from(body)
    have = attributes(body, _RTMSG.size)
    version = 4 if family == socket.AF_INET else 6
    target = have.get(_DST) or default_route(version).ip.packed
    return KeptRoute(
        ip_network((target, length)),
        ip_address(have[_GATEWAY]) if _GATEWAY in have else None,
        ip_address(have[_PREFSRC]) if _PREFSRC in have else None,
        _number(have.get(_TABLE)) or table,
        protocol,
        scope,
        kind == _TYPE_LOCAL,
        _stateless(body),
    )


def put(route: KeptRoute, table: int) -> Request:
    """The request that has a copy of the route in a table, in the place of one that is like it."""
    flags = NLM_F_CREATE | NLM_F_REPLACE
    what = f"add route {route._replace(table=table).text}"
    return Request(what, RTM_NEWROUTE, _message(route.body, table, adding=True), flags)


def put_back(route: KeptRoute, table: int = 0, *, where_possible: bool = False) -> Request:
    """The request that adds a route again, behind what there is by now; unless it is there.

    `table` is another one than it was in. `where_possible` does without a route that the link and
    its addresses do not allow any more.
    """
    tolerate = _PRESENT | _IMPOSSIBLE if where_possible else _PRESENT
    table = table or route.table
    flags = NLM_F_CREATE | _NLM_F_APPEND
    what = f"restore route {route._replace(table=table).text}"
    return Request(what, RTM_NEWROUTE, _message(route.body, table, adding=True), flags, tolerate)


def remove(route: KeptRoute, table: int = 0) -> Request:
    """The request that takes the route away, or its copy in another table; it may be gone."""
    table = table or route.table
    what = f"remove route {route._replace(table=table).text}"
    message = _message(route.body, table, adding=False)
    return Request(what, RTM_DELROUTE, message, tolerate=_GONE)


def in_order(routes: list[KeptRoute]) -> list[KeptRoute]:
    """First what makes gateways reachable, then what leads through them."""
    return sorted(routes, key=lambda one: one.gateway is not None)


def _message(body: bytes, table: int, *, adding: bool) -> bytes:
    family, length, source, tos, _, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    short = table if table < _ONE_BYTE_TABLES else 0
    header = (family, length, source, tos, short, protocol, scope, kind, flags)
    message = _RTMSG.pack(*header) + attribute(_TABLE, _U32.pack(table))
    for number, value in attributes(body, _RTMSG.size).items():
        if number != _TABLE and (adding or number in _IDENTIFYING):
            message += attribute(number, value)
    return message


def _stateless(body: bytes) -> bytes:
    """A route's message with what can be told the kernel again."""
    header = _RTMSG.unpack_from(body)
    message = _RTMSG.pack(*header[:-1], header[-1] & _ONLINK)
    for number, value in attributes(body, _RTMSG.size).items():
        if number in _NOT_KEPT:
            continue
        changed = bytearray(value)
        if number == _MULTIPATH:
            for offset in _hops(value):
                changed[offset + 2] &= _ONLINK
        message += attribute(number, bytes(changed))
    return message


def _links(body: bytes) -> set[int]:
    """The links that a route leads through."""
    have = attributes(body, _RTMSG.size)
    multipath = have.get(_MULTIPATH, b"")
    found = {_NEXT_HOP.unpack_from(multipath, offset)[3] for offset in _hops(multipath)}
    return found or {_number(have.get(_OIF))}


def _hops(multipath: bytes) -> list[int]:
    """Where each of several next hops begins."""
    found = []
    offset = 0
    while offset + _NEXT_HOP.size <= len(multipath):
        length = _NEXT_HOP.unpack_from(multipath, offset)[0]
        if length < _NEXT_HOP.size:
            break
        found.append(offset)
        offset += (length + 3) & ~3
    return found


def _number(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value, sys.byteorder)
