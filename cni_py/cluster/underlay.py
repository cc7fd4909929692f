"""The network below the overlay: over which link, from which address, this node reaches others."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, links, marked_routes, routes
from cni_py.spec.addresses import parse_ip
from cni_py.spec.errors import CniError, Code

from .overlay_kernel import PROTOCOL

if TYPE_CHECKING:
    from cni_py.kernel.addresses import Address
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.addresses import IP, Network

_IFA_F_SECONDARY, _IFA_F_DEPRECATED = 0x01, 0x20
_UNUSABLE = addresses.IFA_F_DADFAILED | addresses.IFA_F_TENTATIVE | _IFA_F_DEPRECATED


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the operator says of it.

    `interface` is a link's name, an address of it, or a network that its address is in; `""` has
    the route to `towards` decide (the store, say), or else the default route. `public` are the
    addresses at which others reach this node where those are not its own (NAT).
    """

    interface: str = ""
    towards: str = ""
    public: IPv4Address | None = None
    public6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class Underlay:
    """A link with its MTU in bytes and addresses, and the networks whose hosts are right on it.

    `why` says what made it the one.
    """

    link: str
    index: int
    mtu: int
    address: IPv4Address | None
    address6: IPv6Address | None
    on_link: tuple[Network, ...]
    why: str

    def reaches_directly(self, address: IP) -> bool:
        """Whether a host with that address is on the link."""
        return any(address in one for one in self.on_link)


def find(netlink: Netlink, chosen: Chosen) -> Underlay:
    """The underlay as it is now. Raises CniError 50 where there is none, KernelError."""
    every = addresses.dump_all(netlink)
    index, wanted, why = _choice(netlink, chosen, every)
    link = links.get_by_index(netlink, index)
    if link is None or not link.up:
        msg = f"the interface to other nodes is {'gone' if link is None else 'down'}"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, why)
    on_link = tuple(
        one.destination
        for one in marked_routes.dump(netlink, but=PROTOCOL, link=index)
        if one.gateway is None
        and one.kind == marked_routes.UNICAST
        and not _is_for_links(one.destination)
    )
    found4, found6 = (_address(every.get(index, []), version, wanted) for version in (4, 6))
    return Underlay(
        link.name,
        index,
        _mtu(netlink, link),
        found4 if isinstance(found4, IPv4Address) else None,
        found6 if isinstance(found6, IPv6Address) else None,
        on_link,
        why,
    )


def _choice(
    netlink: Netlink, chosen: Chosen, every: dict[int, list[Address]]
) -> tuple[int, Network | None, str]:
    """The link's index, the network that its address has to be in, and why."""
    if chosen.interface:
        return _named(netlink, chosen.interface, every)
    if chosen.towards:
        address = parse_ip(chosen.towards)
        way = routes.way_to(netlink, address)
        if way is None:
            msg = f"there is no route to {address}"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "it chooses the interface to others")
        return way.link, None, f"the route to {address} leads through it"
    index = routes.default_link(netlink)
    if index is None:
        msg = "there is no default route, which would tell the interface to other nodes"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "name the interface, its address or network")
    return index, None, "it has the default route"


def _named(
    netlink: Netlink, text: str, every: dict[int, list[Address]]
) -> tuple[int, Network | None, str]:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        link = links.get(netlink, text)
        if link is None:
            msg = f"there is no interface {text!r} to other nodes"
            details = "name one, an address of it, or the network that its address is in"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details) from None
        return link.ifindex, None, "it was named"
    for index, found in sorted(every.items()):
        if any(one.address.ip in network for one in found):
            return index, network, f"it has an address in {network}"
    msg = f"no interface has an address in {network}"
    raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg)


def _address(found: list[Address], version: int, wanted: Network | None) -> IP | None:
    """The first address that lasts, in the wanted network if that is of its version."""
    usable = [
        one.address.ip
        for one in found
        if one.address.version == version
        and not one.flags & _UNUSABLE
        and not one.address.is_link_local
        and not one.address.is_loopback
        # Of IPv6 this is a temporary address (RFC 8981).
        and not (version == 6 and one.flags & _IFA_F_SECONDARY)
    ]
    if wanted is not None and wanted.version == version:
        usable = [one for one in usable if one in wanted]
    return usable[0] if usable else None


def _mtu(netlink: Netlink, link: Link) -> int:
    """The link's MTU; of one that nothing leaves through, the least of those of default routes."""
    if link.kind != "dummy" and link.name != "lo":
        return link.mtu
    ways = {hop.link for hop in routes.default_hops(netlink)}
    found = [one.mtu for one in links.dump(netlink) if one.ifindex in ways]
    return min(found, default=link.mtu)


def _is_for_links(network: Network) -> bool:
    return network.is_link_local or network.is_multicast
