"""IP tunnels whose other end is each route's next hop (linux/if_tunnel.h, IFLA_IPTUN_*)."""

from __future__ import annotations

import os
import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from .links import RTM_NEWLINK
from .netlink import CREATE, Request, attribute
from .vxlan import linkinfo

if TYPE_CHECKING:
    from .links import Link

IPIP, SIT = "ipip", "sit"

_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_GROUP = 3, 4, 18, 27
_LOCAL, _REMOTE, _PMTUDISC = 2, 3, 10
_INFO = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")


def create(name: str, kind: str, local: IPv4Address, *, mtu: int, group: int) -> Request:
    """The request that creates a tunnel over IPv4, down: of IPv4 (IPIP) or IPv6 (SIT) packets.

    Where a route's next hop through it is an IPv4 address, or the IPv6 address `::a.b.c.d`, that is
    the other end (net/ipv4/ip_tunnel.c). Outer packets may be fragmented on their way.
    """
    data = attribute(_LOCAL, local.packed) + attribute(_PMTUDISC, b"\0")
    message = _INFO.pack(0, 0, 0, 0, 0)
    message += attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
    message += attribute(_IFLA_MTU, _U32.pack(mtu)) + attribute(_IFLA_GROUP, _U32.pack(group))
    message += attribute(_IFLA_LINKINFO, linkinfo(kind, data))
    return Request(f"create {kind} {name}", RTM_NEWLINK, message, CREATE)


def local_of(link: Link) -> IPv4Address | None:
    """The tunnel's own end; None for one that has a remote end or is bound to no address."""
    if link.data.get(_REMOTE, b"").strip(b"\0") or not link.data.get(_LOCAL, b"").strip(b"\0"):
        return None
    return IPv4Address(link.data[_LOCAL])
