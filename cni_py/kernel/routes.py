"""Routes (rtnetlink(7), RTM_*ROUTE)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.spec.addresses import default_route
from cni_py.spec.errors import CniError, Code

from .encoding import ROUTE, encoded
from .netlink import (
    CREATE,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Netlink,
    Request,
    attribute,
    attributes,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP, Cidr, Network
    from cni_py.spec.results import Route

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

MAIN_TABLE, LOCAL_TABLE = 254, 255
SCOPE_LINK, SCOPE_HOST = 253, 254
# What `add` does where the kernel has such a route: fail with EEXIST, or put it in its place.
EXCLUSIVE, REPLACE = CREATE, NLM_F_CREATE | NLM_F_REPLACE

_PROTO_KERNEL, _PROTO_BOOT = 2, 3
_TYPE_UNICAST = 1
_SCOPE_UNIVERSE = 0
_ONE_BYTE_TABLES = 256
_SCOPE_NOWHERE = 255
_MAX_U8, _MAX_U32 = 255, 2**32 - 1
_FLAG_CLONED = 0x200
# The main table of IPv4 is made with the first address: a fresh namespace has none.
_NO_TABLE = frozenset({errno.ENOENT})

# linux/rtnetlink.h
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 8, 9, 15, 18
_RTAX_MTU = 2
_NLMSG_BYTES = 16
_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXT_HOP = struct.Struct("=HBBi")


class KernelRoute(NamedTuple):
    """One route as the kernel has it; `link` is an ifindex, 0 where there is not one."""

    destination: Cidr
    gateway: IP | None
    priority: int
    table: int
    scope: int
    mtu: int
    advmss: int
    link: int = 0


def add(
    index: int,
    name: str,
    route: Route,
    gateway: IP | None,
    *,
    source: IP | None = None,
    flags: int = NLM_F_CREATE,
) -> Request:
    """The request that adds `route` through the link; `gateway` is the next hop it ends up with.

    `source` is the address to prefer for what is sent along it. `mtu` and `advmss` are programmed
    as metrics (W-G9). One of 0.0.0.0 or :: stands for none: the destination is on the link
    (RFC 3442). Without other `flags`, a second route to the same destination is added beside the
    first, as the reference does (K-05). Raises CniError 7 for a number that no route can have.
    """
    _require_in_range(route)
    destination = route.dst.network
    table = MAIN_TABLE if route.table is None else route.table
    scope = _SCOPE_UNIVERSE if route.scope is None else route.scope
    message = _message(destination, table=table, proto=_PROTO_BOOT, scope=scope, kind=_TYPE_UNICAST)
    attributes: list[tuple[str, Any]] = [("RTA_DST", str(destination.network_address))]
    attributes.append(("RTA_OIF", index))
    if gateway is not None and not gateway.is_unspecified:
        attributes.append(("RTA_GATEWAY", str(gateway)))
    if source is not None:
        attributes.append(("RTA_PREFSRC", str(source)))
    if table >= _ONE_BYTE_TABLES:
        attributes.append(("RTA_TABLE", table))
    if route.priority:
        attributes.append(("RTA_PRIORITY", route.priority))
    metrics = [("RTAX_MTU", route.mtu)] if route.mtu else []
    if route.advmss:
        metrics.append(("RTAX_ADVMSS", route.advmss))
    if metrics:
        attributes.append(("RTA_METRICS", {"attrs": metrics}))
    message += encoded(ROUTE, attributes)
    via = "" if gateway is None else f" via {gateway}"
    return Request(f"add route {destination}{via} dev {name}", RTM_NEWROUTE, message, flags)


def _require_in_range(route: Route) -> None:
    """The protocol sets no limits, and the kernel's messages have 32 bits, or 8 for a scope."""
    numbers = {
        "mtu": (route.mtu, _MAX_U32),
        "advmss": (route.advmss, _MAX_U32),
        "priority": (route.priority, _MAX_U32),
        "table": (route.table or 0, _MAX_U32),
        "scope": (route.scope or 0, _MAX_U8),
    }
    for key, (value, most) in numbers.items():
        if not 0 <= value <= most:
            msg = f"the route to {route.dst} has the {key} {value}"
            raise CniError(Code.INVALID_CONFIG, msg, f"{key} is 0 to {most}")


def delete_connected(index: int, name: str, subnet: Network) -> Request:
    """The request that deletes the route that the kernel made of an address; a /32 has none."""
    message = _message(
        subnet, table=MAIN_TABLE, proto=_PROTO_KERNEL, scope=_SCOPE_NOWHERE, kind=_TYPE_UNICAST
    )
    where = [("RTA_DST", str(subnet.network_address)), ("RTA_OIF", index)]
    message += encoded(ROUTE, where)
    what = f"delete route {subnet} dev {name}"
    return Request(what, RTM_DELROUTE, message, tolerate=frozenset({errno.ESRCH}))


def delete(index: int, name: str, route: Route, gateway: IP | None) -> Request:
    """The request that takes away what `add` has added with the same arguments."""
    request = add(index, name, route, gateway)
    family, length, own, tos, table, _, scope, _, flags = _RTMSG.unpack_from(request.message)
    # What is 0 is not compared; a scope of "nowhere" is.
    scope = _SCOPE_NOWHERE if route.scope is None else scope
    message = _RTMSG.pack(family, length, own, tos, table, 0, scope, 0, flags)
    message += request.message[_RTMSG.size :]
    what = f"remove{request.what.removeprefix('add')}"
    return Request(what, RTM_DELROUTE, message)


def dump(netlink: Netlink, index: int) -> list[KernelRoute]:
    """The routes of all tables through one link, without cached ones. Raises KernelError.

    Of several next hops each is a route: the kernel makes one of IPv6 routes to the same
    destination, such as the default routes of two interfaces.
    """
    found: list[Any] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        message = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        message += encoded(ROUTE, [("RTA_OIF", index)])
        bodies = netlink.dump(Request("list the routes", RTM_GETROUTE, message))
        found.extend(decode("rtmsg", body) for body in bodies)
    every = (hop for one in found if not one["flags"] & _FLAG_CLONED for hop in _hops(one))
    return [one for one in every if one.link == index]


class SeenRoute(NamedTuple):
    """A route in texts, for who only looks: `gateway` is `""` for none, `link` an ifindex or 0."""

    destination: str
    gateway: str
    priority: int
    table: int
    mtu: int
    link: int


def dump_unicast(netlink: Netlink) -> list[SeenRoute]:
    """The routes of all tables but the local one that lead somewhere. Raises KernelError.

    Of several next hops each is a route, as for `dump`. Decoded by hand: of a thousand containers,
    pyroute2's classes would take seconds.
    """
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        message = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, _TYPE_UNICAST, 0)
        for body in netlink.dump(Request("list the routes", RTM_GETROUTE, message)):
            found += _seen(body, family)
    return found


def _seen(body: bytes, family: int) -> list[SeenRoute]:
    _, length, _, _, table, _, _, kind, flags = _RTMSG.unpack_from(body, _NLMSG_BYTES)
    have = attributes(body, _NLMSG_BYTES + _RTMSG.size)
    table = _number(have[_RTA_TABLE]) if _RTA_TABLE in have else table
    if kind != _TYPE_UNICAST or flags & _FLAG_CLONED or table == LOCAL_TABLE:
        return []
    destination = have.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    route = SeenRoute(
        destination=f"{socket.inet_ntop(family, destination)}/{length}",
        gateway=socket.inet_ntop(family, have[_RTA_GATEWAY]) if _RTA_GATEWAY in have else "",
        priority=_number(have.get(_RTA_PRIORITY, b"")),
        table=table,
        mtu=_number(attributes(have.get(_RTA_METRICS, b"")).get(_RTAX_MTU, b"")),
        link=_number(have.get(_RTA_OIF, b"")),
    )
    hops = _next_hops(have.get(_RTA_MULTIPATH, b""))
    return [
        route._replace(link=link, gateway=socket.inet_ntop(family, via) if via else "")
        for link, via in hops
    ] or [route]


def dump_to(netlink: Netlink, destination: Cidr) -> list[KernelRoute]:
    """The main table's routes to exactly that network. Raises KernelError."""
    subnet = destination.network
    message = _RTMSG.pack(_family(subnet.version), 0, 0, 0, MAIN_TABLE, 0, 0, 0, 0)
    message += encoded(ROUTE, [("RTA_TABLE", MAIN_TABLE)])
    what = f"list the routes to {subnet}"
    request = Request(what, RTM_GETROUTE, message, tolerate=_NO_TABLE)
    # A host can have a great many, so that only those of the length are decoded.
    same = (body for body in netlink.dump(request) if body[_NLMSG_BYTES + 1] == subnet.prefixlen)
    found = (_route(decode("rtmsg", body)) for body in same)
    return [one for one in found if one.destination.network == subnet]


class Way(NamedTuple):
    """How the host reaches an address: the link's index, and whether it is a neighbour there."""

    link: int
    is_neighbour: bool


def way_to(netlink: Netlink, address: IP) -> Way | None:
    """The way that the host's routes give; None without one. Raises KernelError."""
    family = _family(address.version)
    message = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    message += attribute(_RTA_DST, address.packed)
    none = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
    request = Request(f"look up the route to {address}", RTM_GETROUTE, message, tolerate=none)
    body = netlink.get(request)
    if body is None:
        return None
    kind = _RTMSG.unpack_from(body, _NLMSG_BYTES)[7]
    have = attributes(body, _NLMSG_BYTES + _RTMSG.size)
    if kind != _TYPE_UNICAST or _RTA_OIF not in have:
        return None
    return Way(_number(have[_RTA_OIF]), _RTA_GATEWAY not in have and _RTA_VIA not in have)


class Hop(NamedTuple):
    """A next hop of a default route: its link's index, the route's metric and MTU, 0 for none."""

    version: int
    metric: int
    link: int
    mtu: int


def default_link(netlink: Netlink) -> int | None:
    """The index of the link that a default route of the main table leads through.

    That of the lowest metric, IPv4 before IPv6; of several next hops the first. None if there is
    none. Raises KernelError.
    """
    best = min(default_hops(netlink), key=lambda hop: (hop.version, hop.metric), default=None)
    return None if best is None else best.link


def default_hops(netlink: Netlink) -> list[Hop]:
    """The next hops of all default routes of the main table. Raises KernelError."""
    found = []
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        # The kernel leaves out other tables and types; a host can have very many routes.
        message = _RTMSG.pack(family, 0, 0, 0, MAIN_TABLE, 0, 0, _TYPE_UNICAST, 0)
        request = Request("list the routes", RTM_GETROUTE, message, tolerate=_NO_TABLE)
        for body in netlink.dump(request):
            _, length, _, _, table, _, _, kind, flags = _RTMSG.unpack_from(body, _NLMSG_BYTES)
            if length or table != MAIN_TABLE or kind != _TYPE_UNICAST or flags & _FLAG_CLONED:
                continue
            have = attributes(body, _NLMSG_BYTES + _RTMSG.size)
            metric = _number(have.get(_RTA_PRIORITY, b""))
            mtu = _number(attributes(have.get(_RTA_METRICS, b"")).get(_RTAX_MTU, b""))
            hops = _next_hops(have.get(_RTA_MULTIPATH, b""))
            indices = [link for link, _ in hops] or [_number(have.get(_RTA_OIF, b""))]
            found += [Hop(version, metric, index, mtu) for index in indices if index]
    return found


def _next_hops(multipath: bytes) -> list[tuple[int, bytes]]:
    """The link and the gateway of several next hops; no bytes for none."""
    found = []
    offset = 0
    while offset + _NEXT_HOP.size <= len(multipath):
        length, _, _, index = _NEXT_HOP.unpack_from(multipath, offset)
        if length < _NEXT_HOP.size:
            break
        own = attributes(multipath[offset + _NEXT_HOP.size : offset + length])
        found.append((index, own.get(_RTA_GATEWAY, b"")))
        offset += (length + 3) & ~3
    return found


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _message(subnet: Network, *, table: int, proto: int, scope: int, kind: int) -> bytes:
    family = _family(subnet.version)
    short = table if table < _ONE_BYTE_TABLES else 0
    return _RTMSG.pack(family, subnet.prefixlen, 0, 0, short, proto, scope, kind, 0)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _hops(message: Any) -> Iterator[KernelRoute]:
    """A route for each of its next hops."""
    route = _route(message)
    hops = message.get_attr("RTA_MULTIPATH")
    if not hops:
        yield route
    for hop in hops or ():
        via = hop.get_attr("RTA_GATEWAY")
        yield route._replace(link=hop["oif"], gateway=None if via is None else ip_address(via))


def _route(message: Any) -> KernelRoute:
    anywhere = default_route(4 if message["family"] == socket.AF_INET else 6).ip
    gateway = message.get_attr("RTA_GATEWAY")
    metrics = message.get_attr("RTA_METRICS")
    return KernelRoute(
        destination=ip_interface(f"{message.get_attr('RTA_DST') or anywhere}/{message['dst_len']}"),
        gateway=None if gateway is None else ip_address(gateway),
        priority=message.get_attr("RTA_PRIORITY") or 0,
        table=message.get_attr("RTA_TABLE") or message["table"],
        scope=message["scope"],
        mtu=(metrics and metrics.get_attr("RTAX_MTU")) or 0,
        advmss=(metrics and metrics.get_attr("RTAX_ADVMSS")) or 0,
        link=message.get_attr("RTA_OIF") or 0,
    )
