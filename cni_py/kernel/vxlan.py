"""VXLAN devices (linux/if_link.h, IFLA_VXLAN_*; RFC 7348)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from . import new_links
from .netlink import attribute

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

    from .links import Link
    from .netlink import Request

KIND = "vxlan"

_ID, _GROUP, _LOCAL, _LEARNING, _PORT, _GROUP6, _LOCAL6, _UDP_CSUM, _GBP = (
    1, 2, 4, 7, 15, 16, 17, 18, 23,
)  # fmt: skip
_U32 = struct.Struct("=I")


class Vxlan(NamedTuple):
    """What a device is created with."""

    vni: int
    port: int
    local: IP | None
    learning: bool
    gbp: bool


def create(name: str, vxlan: Vxlan, *, mac: str, mtu: int, group: int) -> Request:
    """The request that creates a device which knows nobody, down.

    It is bound to no link: packets leave by the route to their host. One with a MAC address that
    was asked for keeps it: MACAddressPolicy of systemd.link(5) is for others. Outer packets of IPv4
    have no checksum (RFC 7348, 5) and may be fragmented on their way.
    """
    data = attribute(_ID, _U32.pack(vxlan.vni))
    data += attribute(_PORT, vxlan.port.to_bytes(2, "big"))
    data += attribute(_LEARNING, bytes([vxlan.learning]))
    if vxlan.local is not None:
        version4 = vxlan.local.version == 4
        data += attribute(_LOCAL if version4 else _LOCAL6, vxlan.local.packed)
        if version4:
            data += attribute(_UDP_CSUM, b"\0")
    if vxlan.gbp:
        data += attribute(_GBP, b"")
    return new_links.create(name, KIND, data, mac=mac, mtu=mtu, group=group)


def read(link: Link) -> Vxlan | None:
    """What a device was created with; None for one that asks a group for unknown addresses."""
    if any(link.data.get(one, b"").strip(b"\0") for one in (_GROUP, _GROUP6)):
        return None
    local: IP | None = None
    if _LOCAL in link.data:
        local = IPv4Address(link.data[_LOCAL])
    elif _LOCAL6 in link.data:
        local = IPv6Address(link.data[_LOCAL6])
    port = int.from_bytes(link.data.get(_PORT, b""), "big")
    learning = bool(link.number(_LEARNING))
    return Vxlan(link.number(_ID) or 0, port, local, learning, _GBP in link.data)
