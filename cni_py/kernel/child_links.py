"""Links on top of a parent: macvlan, ipvlan, vlan (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from .links import RTM_NEWLINK
from .netlink import CREATE, Request, attribute

if TYPE_CHECKING:
    from .links import Link

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_INFO_KIND, _INFO_DATA = 1, 2
_MACVLAN_MODE, _MACVLAN_BC_QUEUE_LEN = 1, 7
_IPVLAN_MODE = 1
_VLAN_ID = 1
_INFO = struct.Struct("=BxHiII")
_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")


class Child(NamedTuple):
    """A link to create: its kind, the kind's own attributes, and what every link has.

    `mac` `""` and `mtu` 0 leave the kernel's choice, which is the parent's MTU.
    """

    kind: str
    data: bytes
    mac: str = ""
    mtu: int = 0


def create(
    name: str, child: Child, parent: Link, *, netns_fd: int | None = None, index: int = 0
) -> Request:
    """The request that creates a child of `parent`, at once in the namespace of `netns_fd`.

    The parent is looked for in the socket's namespace. Before Linux 6.15 the kernel also looks for
    a link named `name` there, and then refuses with EEXIST, although the child would be somewhere
    else; given an `index`, it looks for that instead.
    """
    info = attribute(_INFO_KIND, child.kind.encode() + b"\0") + attribute(_INFO_DATA, child.data)
    message = _INFO.pack(0, 0, index, 0, 0)
    message += attribute(_IFLA_LINK, _U32.pack(parent.ifindex))
    message += attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
    if child.mtu:
        message += attribute(_IFLA_MTU, _U32.pack(child.mtu))
    if child.mac:
        message += attribute(_IFLA_ADDRESS, bytes.fromhex(child.mac.replace(":", "")))
    if netns_fd is not None:
        message += attribute(_IFLA_NET_NS_FD, _U32.pack(netns_fd))
    message += attribute(_IFLA_LINKINFO, info)
    return Request(f"create {child.kind} {name} on {parent.name}", RTM_NEWLINK, message, CREATE)


def macvlan_data(mode: str, queue_length: int) -> bytes:
    """macvlan's attributes; a `queue_length` of 0 leaves the kernel's for broadcasts."""
    data = attribute(_MACVLAN_MODE, _U32.pack(MACVLAN_MODES[mode]))
    if queue_length:
        data += attribute(_MACVLAN_BC_QUEUE_LEN, _U32.pack(queue_length))
    return data


def ipvlan_data(mode: str) -> bytes:
    """ipvlan's attributes."""
    return attribute(_IPVLAN_MODE, _U16.pack(IPVLAN_MODES[mode]))


def vlan_data(vlan_id: int) -> bytes:
    """vlan's attributes: 802.1Q."""
    return attribute(_VLAN_ID, _U16.pack(vlan_id))


def macvlan_mode(link: Link) -> str:
    """The mode of a macvlan."""
    return _name(MACVLAN_MODES, link.number(_MACVLAN_MODE))


def macvlan_queue_length(link: Link) -> int | None:
    """The broadcast queue that a macvlan asks of its parent; None before Linux 5.11."""
    return link.number(_MACVLAN_BC_QUEUE_LEN)


def ipvlan_mode(link: Link) -> str:
    """The mode of an ipvlan."""
    return _name(IPVLAN_MODES, link.number(_IPVLAN_MODE))


def vlan_id(link: Link) -> int | None:
    """The VLAN of a vlan."""
    return link.number(_VLAN_ID)


def _name(modes: dict[str, int], number: int | None) -> str:
    return next((name for name, value in modes.items() if value == number), str(number))
