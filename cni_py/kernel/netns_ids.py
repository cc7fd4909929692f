"""The numbers by which one network namespace knows others (rtnetlink(7), RTM_GETNSID)."""

from __future__ import annotations

import struct
import sys

from .netlink import Netlink, Request, attribute, attributes

_RTM_GETNSID = 90
# linux/net_namespace.h
_NETNSA_NSID, _NETNSA_FD = 1, 3
_FAMILY = bytes(4)
_NLMSG_BYTES = 16
_SIGNED = struct.Struct("=i")


def id_of(netlink: Netlink, fd: int) -> int | None:
    """The number of the open namespace in that of the socket; None where it has none there.

    A link's `peer_netnsid` is such a number. Raises KernelError.
    """
    message = _FAMILY + attribute(_NETNSA_FD, fd.to_bytes(4, sys.byteorder))
    body = netlink.get(Request("look up the number of a namespace", _RTM_GETNSID, message))
    have = {} if body is None else attributes(body, _NLMSG_BYTES + len(_FAMILY))
    if _NETNSA_NSID not in have:
        return None
    (number,) = _SIGNED.unpack(have[_NETNSA_NSID])
    return int(number) if number >= 0 else None
