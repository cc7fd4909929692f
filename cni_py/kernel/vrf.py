"""VRF devices (linux/if_link.h; Documentation/networking/vrf.rst)."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from .errors import KernelError
from .links import IFF_UP, RTM_NEWLINK
from .netlink import CREATE, Netlink, Request, attribute

if TYPE_CHECKING:
    from .links import Link

KIND = "vrf"

_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_GROUP = 3, 18, 27
_INFO_KIND, _INFO_DATA = 1, 2
_VRF_TABLE = 1
_INFO = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")


def create(name: str, table: int, group: int) -> Request:
    """The request that creates a VRF, up. `group` marks it until it has its label."""
    data = attribute(_INFO_DATA, attribute(_VRF_TABLE, _U32.pack(table)))
    message = _INFO.pack(0, 0, 0, IFF_UP, IFF_UP)
    message += attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
    message += attribute(_IFLA_GROUP, _U32.pack(group))
    message += attribute(_IFLA_LINKINFO, attribute(_INFO_KIND, KIND.encode() + b"\0") + data)
    return Request(f"create vrf {name}", RTM_NEWLINK, message, CREATE)


def table_of(link: Link) -> int:
    """The routing table of a VRF."""
    return link.number(_VRF_TABLE) or 0


def require_support(netlink: Netlink) -> None:
    """Raises KernelError EOPNOTSUPP where the kernel has no VRFs; creates none.

    One without a table is refused, but only by a kernel that knows what it is.
    """
    message = _INFO.pack(0, 0, 0, 0, 0)
    message += attribute(_IFLA_LINKINFO, attribute(_INFO_KIND, KIND.encode() + b"\0"))
    try:
        netlink.submit(Request("create a vrf", RTM_NEWLINK, message, CREATE))
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise
