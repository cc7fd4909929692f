"""Proxy neighbours: addresses for which the host answers on a link (ip-neighbour(8), rtnetlink(7)).

It answers ARP requests where its own route to the address leads elsewhere, and neighbour
solicitations always; for both it has to forward.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from .netlink import NLM_F_CREATE, Netlink, Request, attribute, attributes

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

    from .links import Link

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_NDA_DST, _NDA_IFINDEX = 1, 8
_NTF_PROXY = 0x08
_NDMSG = struct.Struct("=BxxxiHBB")
_NLMSG_BYTES = 16
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def add(link: Link, address: IP) -> Request:
    """The request that has the host answer for `address` on the link; again is no error."""
    what = f"answer for {address} on {link.name}"
    return Request(what, _RTM_NEWNEIGH, _message(link, address), NLM_F_CREATE)


def delete(link: Link, address: IP) -> Request:
    """The request that ends that; that it has ended is no error."""
    what = f"stop answering for {address} on {link.name}"
    gone = frozenset({errno.ENOENT})
    return Request(what, _RTM_DELNEIGH, _message(link, address), tolerate=gone)


def dump(netlink: Netlink, link: Link) -> list[IP]:
    """The addresses that the host answers for on the link. Raises KernelError."""
    found: list[IP] = []
    for family in _FAMILY.values():
        # Checked strictly, the kernel takes the link as an attribute only.
        message = _NDMSG.pack(family, 0, 0, _NTF_PROXY, 0)
        message += attribute(_NDA_IFINDEX, struct.pack("=I", link.ifindex))
        request = Request(f"list the proxy neighbours of {link.name}", _RTM_GETNEIGH, message)
        for body in netlink.dump(request):
            _, index, _, flags, _ = _NDMSG.unpack_from(body, _NLMSG_BYTES)
            if index == link.ifindex and flags & _NTF_PROXY:
                have = attributes(body, _NLMSG_BYTES + _NDMSG.size)
                found.append(ip_address(have[_NDA_DST]))
    return found


def _message(link: Link, address: IP) -> bytes:
    header = _NDMSG.pack(_FAMILY[address.version], link.ifindex, 0, _NTF_PROXY, 0)
    return header + attribute(_NDA_DST, address.packed)
