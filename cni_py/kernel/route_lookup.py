"""Asking the kernel where it would send a packet (rtnetlink(7), RTM_GETROUTE)."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from .errors import KernelError
from .netlink import Request, attribute, attributes
from .routes import RTM_GETROUTE

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

    from .netlink import Netlink

# linux/rtnetlink.h
_RTMSG = struct.Struct("=BBBBBBBBI")
_NLMSG_BYTES = 16
_DST, _SRC, _IIF, _OIF, _GATEWAY, _PREFSRC, _TABLE, _MARK, _VIA = 1, 2, 3, 4, 5, 7, 15, 16, 18
_FLAG_LOOKUP_TABLE = 0x1000
_KINDS = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
# What the kernel answers instead of a route.
_REFUSALS = {
    errno.ENETUNREACH: "none",
    errno.EHOSTUNREACH: "unreachable",
    errno.EACCES: "prohibit",
    errno.EINVAL: "martian",
    errno.EXDEV: "reverse path",
    # Without IPv6 there is no way to anybody by it.
    errno.EAFNOSUPPORT: "none",
    errno.EOPNOTSUPP: "none",
}


class Decision(NamedTuple):
    """Where a packet goes.

    `kind` is a route's type, or `none`, `martian` (an address that cannot come from there) or
    `reverse path` (rp_filter refuses the source). `link` is the ifindex that it leaves through,
    `source` the address that the kernel would give it.
    """

    kind: str
    link: int = 0
    gateway: IP | None = None
    source: IP | None = None
    table: int = 0


def look_up(
    netlink: Netlink,
    destination: IP,
    *,
    source: IP | None = None,
    iif: int = 0,
    oif: int = 0,
    mark: int = 0,
) -> Decision:
    """The decision for a packet that comes in through `iif`, or is sent from here. KernelError."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    length = destination.max_prefixlen
    source_length = 0 if source is None else length
    # Linux refuses the flag for IPv6, which tells the table without it.
    flags = _FLAG_LOOKUP_TABLE if destination.version == 4 else 0
    message = _RTMSG.pack(family, length, source_length, 0, 0, 0, 0, 0, flags)
    message += attribute(_DST, destination.packed)
    if source is not None:
        message += attribute(_SRC, source.packed)
    for kind, number in ((_IIF, iif), (_OIF, oif), (_MARK, mark)):
        if number:
            message += attribute(kind, number.to_bytes(4, sys.byteorder))
    what = f"look up the route to {destination}"
    try:
        body = netlink.get(Request(what, RTM_GETROUTE, message))
    except KernelError as error:
        if error.errno not in _REFUSALS:
            raise
        return Decision(_REFUSALS[error.errno])
    assert body is not None
    return _decision(body)


def _decision(body: bytes) -> Decision:
    table, _, _, kind = _RTMSG.unpack_from(body, _NLMSG_BYTES)[4:8]
    have = attributes(body, _NLMSG_BYTES + _RTMSG.size)
    gateway = have.get(_GATEWAY) or have.get(_VIA, b"")[2:]
    return Decision(
        _KINDS.get(kind, f"type {kind}"),
        _number(have.get(_OIF, b"")),
        ip_address(gateway) if gateway else None,
        ip_address(have[_PREFSRC]) if _PREFSRC in have else None,
        _number(have.get(_TABLE, b"")) or table,
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def explained(kind: str) -> str:
    """A decision in words, for one that leads nowhere."""
    words = {
        "none": os.strerror(errno.ENETUNREACH),
        "unreachable": os.strerror(errno.EHOSTUNREACH),
        "prohibit": "prohibited by a route",
        "blackhole": "dropped by a blackhole route",
        "martian": "an address that cannot come in there (martian)",
        "reverse path": "rp_filter: the way back to the source leads through another link",
    }
    return words.get(kind, kind)
