"""ipip: packets to other nodes in IP, with one header more and nothing to tell flows apart.

IPv4 packets travel in IPv4, IPv6 packets in IPv6 (RFC 2003, RFC 2473). There is a device a family,
and each route tells it the other end.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING, ClassVar

from .kernel_backend import KernelBackend, Wanted, halves
from .settings import Settings
from .state import Device, Route, State, Tunnel, Tunnel6

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .backend import Announcement, Node, View
    from .kernel_backend import Half
    from .underlay import Chosen, Underlay

_OVERHEAD = {4: 20, 6: 40}
_NAME = {4: "flannel.ipip", 6: "flannel.ip6tnl"}


class IpipSettings(Settings, frozen=True):
    """What flannel reads for `ipip`."""

    directrouting: bool = False
    """Send packets to nodes on the same link as they are."""


class IpipBackend(KernelBackend):
    """See the module."""

    name: ClassVar[str] = "ipip"

    def __init__(self, settings: IpipSettings, chosen: Chosen, versions: frozenset[int]) -> None:
        """Raises KernelError."""
        super().__init__(chosen, versions)
        self._settings = settings

    def overhead(self, version: int) -> int:
        """The outer header."""
        return _OVERHEAD[version]

    def announce(self) -> Announcement:
        """The node's addresses say all."""
        return self.addresses()

    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """A device a family, and a route for each peer."""
        devices = {half.version: self._device(half, under) for half in halves(view.own)}
        routes: set[Route] = set()
        refused: dict[str, str] = {}
        for peer in peers:
            theirs = [half for half in halves(peer) if half.version in devices]
            without = [half.version for half in theirs if half.address is None]
            if without:
                refused[peer.name] = f"it has no IPv{without[0]} address"
                continue
            routes.update(self._route(half, devices[half.version].name, under) for half in theirs)
        return Wanted(
            State({one.name: one for one in devices.values()}, frozenset(routes)), refused
        )

    def _route(self, half: Half, device: str, under: Underlay) -> Route:
        address = half.address
        assert address is not None
        if self._settings.directrouting and under.reaches_directly(address):
            return Route(half.subnet, under.link, address)
        if isinstance(address, IPv6Address):
            return Route(half.subnet, device, encap=address)
        return Route(half.subnet, device, address, onlink=True)

    def _device(self, own: Half, under: Underlay) -> Device:
        end = frozenset({ip_interface((own.subnet.network_address, own.subnet.max_prefixlen))})
        name, mtu = _NAME[own.version], self.mtu_of(under, own.version)
        if own.version == 6:
            return Device(name, "ip6tnl", Tunnel6(), mtu, addresses=end)
        # What is announced may be an address that is translated to the link's.
        local = under.address or self.announced(under, 4)
        assert isinstance(local, IPv4Address)
        return Device(name, "ipip", Tunnel(local), mtu, addresses=end)
