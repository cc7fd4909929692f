"""Links on top of a parent: macvlan, ipvlan, vlan (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from . import new_links
from .netlink import attribute

if TYPE_CHECKING:
    from .links import Link
    from .netlink import Request

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}

_MACVLAN_MODE, _MACVLAN_BC_QUEUE_LEN = 1, 7
_IPVLAN_MODE = 1
_VLAN_ID = 1
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
    return new_links.create(
        name,
        child.kind,
        child.data,
        mac=child.mac,
        mtu=child.mtu,
        parent=parent.ifindex,
        netns_fd=netns_fd,
        index=index,
        what=f"create {child.kind} {name} on {parent.name}",
    )


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
