"""The request that creates a link of any kind (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import os
import struct

from .links import RTM_NEWLINK
from .netlink import CREATE, Request, attribute

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_GROUP, _IFLA_NET_NS_FD = 13, 18, 27, 28
_INFO_KIND, _INFO_DATA = 1, 2
_INFO = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")


def create(
    name: str,
    kind: str,
    data: bytes = b"",
    *,
    mac: str = "",
    mtu: int = 0,
    group: int = 0,
    flags: int = 0,
    parent: int = 0,
    netns_fd: int | None = None,
    index: int = 0,
    queue: int | None = None,
    what: str = "",
) -> Request:
    """A link with the kind's own attributes `data`; what is empty or 0 is left to the kernel.

    `flags` are set as they are (IFF_UP), `parent` is the index of the link that it is on top of,
    `queue` counts the packets that it holds where it has no qdisc of its own.
    """
    message = _INFO.pack(0, 0, index, flags, flags)
    if parent:
        message += attribute(_IFLA_LINK, _U32.pack(parent))
    if name:
        message += attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
    if mac:
        message += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if mtu:
        message += attribute(_IFLA_MTU, _U32.pack(mtu))
    if group:
        message += attribute(_IFLA_GROUP, _U32.pack(group))
    if queue is not None:
        message += attribute(_IFLA_TXQLEN, _U32.pack(queue))
    if netns_fd is not None:
        message += attribute(_IFLA_NET_NS_FD, _U32.pack(netns_fd))
    info = attribute(_INFO_KIND, kind.encode() + b"\0")
    if data:
        info += attribute(_INFO_DATA, data)
    message += attribute(_IFLA_LINKINFO, info)
    return Request(what or f"create {kind} {name}", RTM_NEWLINK, message, CREATE)


def create_ifb(name: str, *, mtu: int, group: int) -> Request:
    """The request that creates an intermediate functional block: what enters it comes back.

    It is down: to change the queue of a link which is up costs more.
    """
    # The queue is the qdisc's, so that the link needs none (K-03).
    return create(name, "ifb", mtu=mtu, group=group, queue=0)
