"""VRF devices (linux/if_link.h; Documentation/networking/vrf.rst)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from . import new_links
from .errors import KernelError
from .links import IFF_UP
from .netlink import attribute

if TYPE_CHECKING:
    from .links import Link
    from .netlink import Netlink, Request

KIND = "vrf"

_VRF_TABLE = 1
_U32 = struct.Struct("=I")


def create(name: str, table: int, group: int) -> Request:
    """The request that creates a VRF, up. `group` marks it until it has its label."""
    data = attribute(_VRF_TABLE, _U32.pack(table))
    return new_links.create(name, KIND, data, group=group, flags=IFF_UP)


def table_of(link: Link) -> int:
    """The routing table of a VRF."""
    return link.number(_VRF_TABLE) or 0


def require_support(netlink: Netlink) -> None:
    """Raises KernelError EOPNOTSUPP where the kernel has no VRFs; creates none.

    One without a table is refused, but only by a kernel that knows what it is.
    """
    try:
        netlink.submit(new_links.create("", KIND, what="create a vrf"))
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise
