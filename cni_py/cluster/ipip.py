"""ipip: packets to other nodes in IPv4, with 20 bytes more and nothing to tell flows apart.

IPv6 packets travel in IPv4 too (6in4). A device a family knows its own end alone; the other one is
each route's next hop.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING, ClassVar

from .backend import Announcement
from .kernel_backend import KernelBackend, Wanted, halves
from .settings import Settings
from .state import Device, Route, State, Tunnel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.spec.addresses import IP

    from .backend import Node, View
    from .kernel_backend import Half
    from .underlay import Chosen, Underlay

_OVERHEAD = 20
_KIND = {4: "ipip", 6: "sit"}
_NAME = {4: "flannel.ipip", 6: "flannel.sit"}


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
        """An IPv4 header, for either family."""
        del version
        return _OVERHEAD

    def announce(self) -> Announcement:
        """The IPv4 address is needed for IPv6 too."""
        under = self.underlay()
        self.announced(under, 4)
        public, public6 = self._chosen.public, self._chosen.public6
        return Announcement(self.name, public or under.address, public6 or under.address6)

    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """A device a family, and a route for each peer."""
        devices = {half.version: self._device(half, under) for half in halves(view.own)}
        routes: set[Route] = set()
        refused: dict[str, str] = {}
        for peer in peers:
            address = peer.said.address
            if address is None:
                refused[peer.name] = "it has no IPv4 address"
                continue
            for half in halves(peer):
                if half.version in devices:
                    routes.add(self._route(half, address, devices[half.version].name, under))
        return Wanted(
            State({one.name: one for one in devices.values()}, frozenset(routes)), refused
        )

    def _route(self, half: Half, address: IPv4Address, device: str, under: Underlay) -> Route:
        direct = half.address
        if self._settings.directrouting and direct and under.reaches_directly(direct):
            return Route(half.subnet, under.link, direct)
        # `::a.b.c.d` is how a 6in4 device is told the IPv4 address of the other end.
        end: IP = address if half.version == 4 else IPv6Address(int(address))
        return Route(half.subnet, device, end, onlink=True)

    def _device(self, own: Half, under: Underlay) -> Device:
        local = under.address or self.announced(under, 4)
        address = ip_interface((own.subnet.network_address, own.subnet.max_prefixlen))
        return Device(
            _NAME[own.version],
            _KIND[own.version],
            Tunnel(local),
            self.mtu_of(under, own.version),
            addresses=frozenset({address}),
        )
