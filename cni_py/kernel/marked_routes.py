"""Routes of the main table that carry a protocol number, by which their maker knows them.

See rtnetlink(7), rtm_protocol. Written and read by hand: a node of a large cluster has thousands.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, NamedTuple

from .netlink import CREATE, NLM_F_CREATE, NLM_F_REPLACE, Request, attribute, attributes
from .routes import MAIN_TABLE, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP, Network

    from .netlink import Netlink

# Which preference a route has that names none (IP6_RT_PRIO_USER).
DEFAULT_PRIORITY = {4: 0, 6: 1024}

# linux/rtnetlink.h: a route that leads on, and one that is refused.
UNICAST, UNREACHABLE = 1, 7

_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_ONLINK, _CLONED = 0x4, 0x200
_DST, _OIF, _GATEWAY, _PRIORITY, _TABLE, _ENCAP_TYPE, _ENCAP = 1, 4, 5, 6, 15, 21, 22
_ENCAP_IP6, _ENCAP_DST, _NESTED = 4, 2, 0x8000
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_NLMSG_BYTES = 16
_RTMSG = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
# The main table of IPv4 is made with the first address: a fresh namespace has none.
_NO_TABLE = frozenset({errno.ENOENT})
_GONE = frozenset({errno.ESRCH})


class MarkedRoute(NamedTuple):
    """A route; `link` is an ifindex, 0 where it has none or several.

    `encap` is the other end of the IPv6 tunnel that packets take (linux/lwtunnel.h).
    """

    destination: Network
    link: int
    gateway: IP | None = None
    onlink: bool = False
    protocol: int = 0
    priority: int = 0
    kind: int = UNICAST
    encap: IPv6Address | None = None


def put(route: MarkedRoute, what: str, *, replace: bool) -> Request:
    """The request that adds the route, or puts it in the place of the one to its destination.

    It fails with EEXIST where, unless it replaces, there is any route of its preference.
    """
    scope = _SCOPE_UNIVERSE
    if route.gateway is None and route.destination.version == 4 and route.kind == UNICAST:
        scope = _SCOPE_LINK
    flags = NLM_F_CREATE | NLM_F_REPLACE if replace else CREATE
    message = _message(route, scope)
    if route.encap is not None:
        message += attribute(_ENCAP | _NESTED, attribute(_ENCAP_DST, route.encap.packed))
        message += attribute(_ENCAP_TYPE, _ENCAP_IP6.to_bytes(2, sys.byteorder))
    return Request(what, RTM_NEWROUTE, message, flags)


def remove(route: MarkedRoute, what: str) -> Request:
    """The request that removes exactly this route; none is as good."""
    return Request(what, RTM_DELROUTE, _message(route, _SCOPE_NOWHERE), tolerate=_GONE)


def dump(netlink: Netlink, *, protocol: int = 0, but: int = 0, link: int = 0) -> list[MarkedRoute]:
    """The routes of the main table, those of a protocol, of all but one, or through a link.

    What is left out costs little. Raises KernelError.
    """
    found = []
    for version, family in _FAMILY.items():
        message = _RTMSG.pack(family, 0, 0, 0, MAIN_TABLE, protocol, 0, 0, 0)
        message += attribute(_TABLE, _U32.pack(MAIN_TABLE))
        if link:
            message += attribute(_OIF, _U32.pack(link))
        request = Request("list the routes", RTM_GETROUTE, message, tolerate=_NO_TABLE)
        for body in netlink.dump(request):
            # By the header alone.
            if but and _RTMSG.unpack_from(body, _NLMSG_BYTES)[5] == but:
                continue
            route = _route(body, version)
            # Kernels before 4.20 filter nothing.
            if route is not None and protocol in (0, route.protocol) and link in (0, route.link):
                found.append(route)
    return found


def _message(route: MarkedRoute, scope: int) -> bytes:
    destination = route.destination
    message = _RTMSG.pack(
        _FAMILY[destination.version], destination.prefixlen, 0, 0, MAIN_TABLE, route.protocol,
        scope, route.kind, _ONLINK if route.onlink else 0,
    )  # fmt: skip
    message += attribute(_DST, destination.network_address.packed)
    if route.link:
        message += attribute(_OIF, _U32.pack(route.link))
    if route.gateway is not None:
        message += attribute(_GATEWAY, route.gateway.packed)
    if route.priority:
        message += attribute(_PRIORITY, _U32.pack(route.priority))
    return message


def _route(body: bytes, version: int) -> MarkedRoute | None:
    _, length, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(body, _NLMSG_BYTES)
    have = attributes(body, _NLMSG_BYTES + _RTMSG.size)
    if _TABLE in have:
        table = _number(have[_TABLE])
    if table != MAIN_TABLE or flags & _CLONED:
        return None
    destination: Network = (
        IPv4Network((have.get(_DST) or bytes(4), length))
        if version == 4
        else IPv6Network((have.get(_DST) or bytes(16), length))
    )
    return MarkedRoute(
        destination,
        _number(have.get(_OIF, b"")),
        ip_address(have[_GATEWAY]) if _GATEWAY in have else None,
        bool(flags & _ONLINK),
        protocol,
        _number(have.get(_PRIORITY, b"")),
        kind,
        _other_end(have),
    )


def _other_end(have: dict[int, bytes]) -> IPv6Address | None:
    if _number(have.get(_ENCAP_TYPE, b"")) != _ENCAP_IP6:
        return None
    end = attributes(have.get(_ENCAP, b"")).get(_ENCAP_DST)
    return None if end is None else IPv6Address(end)


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)
