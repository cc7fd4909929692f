"""IP tunnels whose other end is told by each route (linux/if_tunnel.h, IFLA_IPTUN_*)."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from . import new_links
from .netlink import attribute

if TYPE_CHECKING:
    from .links import Link
    from .netlink import Request

IPIP, IP6TNL = "ipip", "ip6tnl"

_LOCAL, _REMOTE, _ENCAP_LIMIT, _FLAGS, _PROTO, _PMTUDISC, _COLLECT_METADATA = 2, 3, 6, 8, 9, 10, 19
# linux/ip6_tunnel.h: no option that takes 8 bytes more.
_IGNORE_ENCAP_LIMIT = 1
_U32 = struct.Struct("=I")


def create_ipip(name: str, local: IPv4Address, *, mtu: int, group: int) -> Request:
    """The request that creates a tunnel of IPv4 packets in IPv4, down.

    A route's next hop through it is the other end (net/ipv4/ip_tunnel.c). Outer packets may be
    fragmented on their way.
    """
    data = attribute(_LOCAL, local.packed) + attribute(_PMTUDISC, b"\0")
    return new_links.create(name, IPIP, data, mtu=mtu, group=group)


def create_ip6tnl(name: str, *, mtu: int, group: int) -> Request:
    """The request that creates a tunnel of IPv6 packets in IPv6, down.

    A route through it carries the other end (`MarkedRoute.encap`). A namespace has one such device,
    which takes what no other tunnel takes.
    """
    data = attribute(_PROTO, bytes([socket.IPPROTO_IPV6])) + attribute(_COLLECT_METADATA, b"")
    data += attribute(_ENCAP_LIMIT, b"\0") + attribute(_FLAGS, _U32.pack(_IGNORE_ENCAP_LIMIT))
    return new_links.create(name, IP6TNL, data, mtu=mtu, group=group)


def local_of(link: Link) -> IPv4Address | None:
    """An ipip device's own end; None for one that has a remote end or is bound to no address."""
    if link.data.get(_REMOTE, b"").strip(b"\0") or not link.data.get(_LOCAL, b"").strip(b"\0"):
        return None
    return IPv4Address(link.data[_LOCAL])


def is_told_by_routes(link: Link) -> bool:
    """Whether an ip6tnl device has no other end of its own."""
    return _COLLECT_METADATA in link.data
