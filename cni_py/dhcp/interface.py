"""The container's interface as the daemon sees it.

Nothing of it is held open between two messages: an open socket would keep the namespace alive when
its container is gone. So it is found again each time, and known by more than its path.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, links, routes, sysctl
from cni_py.kernel.dhcp_socket import DhcpSocket
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import cookie, open_netns
from cni_py.spec.errors import CniError, Code

from . import options
from .lease import routes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.spec.addresses import Cidr

    from .lease import Lease

_ETHERNET_BYTES = 6
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})
_NO_ROUTE = frozenset({errno.ESRCH, errno.ENODEV, errno.ENETUNREACH})
_PRESENT = frozenset({errno.EEXIST})
# Drivers that cannot set a hardware address, or not while the link is up.
_FIXED_MAC = frozenset({errno.EOPNOTSUPP, errno.EBUSY, errno.EPERM})
# Its links share one hardware address: an answer to it alone reaches none of them.
_SHARED_MAC_KINDS = ("ipvlan",)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An interface. `netns_id` tells its namespace from a later one at the same path."""

    netns: str
    netns_id: str
    ifname: str
    ifindex: int
    mac: bytes
    mtu: int
    shares_mac: bool


def find(netns: str, ifname: str) -> Place:
    """The interface, which is set up if it is not. Raises CniError."""
    opened = open_netns(netns)
    if opened is None:
        msg = f'CNI_NETNS "{netns}" is not a network namespace'
        details = "the path does not exist in the DHCP daemon's view, or nothing is mounted there"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, details)
    with opened:
        with opened.entered():
            netlink = Netlink()
            own = cookie()
        with netlink:
            link = links.get(netlink, ifname)
            if link is None:
                msg = f"interface {ifname} does not exist in {netns}"
                raise CniError(Code.INVALID_ENVIRONMENT, msg, "IPAM dhcp needs the interface")
            mac = bytes.fromhex(link.mac.replace(":", ""))
            if len(mac) != _ETHERNET_BYTES or not any(mac):
                msg = f"interface {ifname} has no Ethernet address"
                raise CniError(Code.INVALID_CONFIG, msg, f"its address is {link.mac or 'empty'}")
            if not link.up:
                netlink.submit(links.set_up(ifname))
                _settle(netlink, link)
        identity = f"cookie {own}" if own is not None else f"inode {opened.identity.inode}"
    return Place(
        netns=netns,
        netns_id=identity,
        ifname=ifname,
        ifindex=link.ifindex,
        mac=mac,
        mtu=link.mtu,
        shares_mac=link.kind in _SHARED_MAC_KINDS,
    )


def _settle(inside: Netlink, link: Link) -> None:
    """Have a bridge forward now and not in a second, by asking for the state of both ends."""
    links.get(inside, link.name)
    if link.kind == "veth" and link.peer_index:
        with Netlink() as host:
            links.get_by_index(host, link.peer_index)


def is_there(place: Place) -> bool:
    """Whether the interface still exists, in the namespace that it was in. Raises CniError."""
    with _inside(place) as found:
        return found is not None


def open_socket(place: Place) -> DhcpSocket | None:
    """A socket on the interface; None if it is gone. Raises CniError."""
    with _inside(place) as found:
        return None if found is None else DhcpSocket(place.ifname)


def limit_mtu(place: Place, lease: Lease) -> None:
    """Give the interface the lease's MTU, but none that it was not made for. Raises CniError."""
    with _inside(place) as netlink:
        wanted = min(lease.mtu or place.mtu, place.mtu)
        link = None if netlink is None else links.get(netlink, place.ifname)
        if netlink is not None and link is not None and link.mtu != wanted:
            netlink.submit(links.change(place.ifname, ("IFLA_MTU", wanted)))


def has_address(place: Place, lease: Lease) -> bool:
    """Whether the interface has the lease's address. Raises CniError."""
    with _inside(place) as netlink:
        return netlink is not None and address_of(lease) in _have(netlink, place)


def change(place: Place, old: Lease | None, new: Lease, priority: int) -> None:
    """Give the interface the address and the routes of `new` in place of those of `old`.

    Raises CniError.
    """
    index, name = place.ifindex, place.ifname
    with _inside(place) as netlink:
        if netlink is None:
            return
        before, after = (None if old is None else address_of(old)), address_of(new)
        requests = []
        if before != after:
            requests.append(addresses.add(index, name, after, tolerate=_PRESENT))
            if before is not None:
                requests.append(addresses.delete(index, name, before, tolerate=_ABSENT))
        wanted = routes_of(new, priority)
        for route in () if old is None else routes_of(old, priority):
            if route not in wanted:
                gone = routes.delete(index, name, route, route.gw)
                requests.append(gone._replace(tolerate=_NO_ROUTE))
        added = (routes.add(index, name, route, route.gw) for route in wanted)
        requests += [one._replace(tolerate=_PRESENT) for one in added]
        with _promoting(name):
            netlink.submit(*requests)
        # The address that it has already: the kernel then tells the neighbours (arp_notify).
        told = links.change(name, ("IFLA_ADDRESS", place.mac.hex(":")))
        netlink.submit(told._replace(tolerate=_FIXED_MAC))


@contextmanager
def _promoting(ifname: str) -> Iterator[None]:
    """Have a second address of a subnet outlive the first one, and with it the routes."""
    key = f"net/ipv4/conf/{ifname}/promote_secondaries"
    before = sysctl.read(key)
    sysctl.ensure(key, "1")
    try:
        yield
    finally:
        sysctl.ensure(key, before)


def withdraw(place: Place, lease: Lease) -> bool:
    """Take the lease's address off the interface; False if it did not have it. Raises CniError."""
    with _inside(place) as netlink:
        if netlink is None or address_of(lease) not in _have(netlink, place):
            return False
        address = address_of(lease)
        netlink.submit(addresses.delete(place.ifindex, place.ifname, address, tolerate=_ABSENT))
        return True


def address_of(lease: Lease) -> Cidr:
    """The lease's address with its prefix length."""
    length = options.prefix_length(lease.options)
    return ip_interface(f"{lease.address}/{32 if length is None else length}")


def _have(netlink: Netlink, place: Place) -> set[Cidr]:
    return {one.address for one in addresses.dump(netlink, place.ifindex, 4)}


@contextmanager
def _inside(place: Place) -> Iterator[Netlink | None]:
    """The thread in the interface's namespace, with a netlink socket there; None if it is gone."""
    opened = open_netns(place.netns)
    if opened is None:
        yield None
        return
    with opened, opened.entered():
        own = cookie()
        identity = f"cookie {own}" if own is not None else f"inode {opened.identity.inode}"
        if identity != place.netns_id:
            yield None
            return
        with Netlink() as netlink:
            link = links.get(netlink, place.ifname)
            there = link is not None and link.ifindex == place.ifindex
            yield netlink if there else None
