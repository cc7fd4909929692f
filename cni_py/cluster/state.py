"""What an overlay is made of in a kernel, as values: what is wanted, and what is there.

Links are called by their names. Each kind of thing has a `key`, by which what is wanted is held
against what is there, and `what` calls it in a step's words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address

    from cni_py.spec.addresses import IP, Cidr, Network


class Vxlan(NamedTuple):
    """What a VXLAN device is created with and keeps for life."""

    vni: int
    port: int
    local: IP
    gbp: bool = False
    learning: bool = False


class Tunnel(NamedTuple):
    """The same of an ipip device: each route's next hop is the other end."""

    local: IPv4Address


class Tunnel6(NamedTuple):
    """An ip6tnl device is told the other end by each route, and needs no own one."""


class WireGuard(NamedTuple):
    """WireGuard is created with nothing; keys and port can be changed: `Keys`."""


class Unfinished(NamedTuple):
    """A device of ours whose maker was killed before it was labelled, or one of a strange shape."""


Shape = Vxlan | Tunnel | Tunnel6 | WireGuard | Unfinished


@dataclass(frozen=True, slots=True)
class Device:
    """A link of ours. `mac` is `""` where the kind has none; `addresses` are with prefix lengths.

    `checksums` says whether it leaves a packet's checksum to whatever sends it on, None where that
    does not matter.
    """

    name: str
    kind: str
    shape: Shape
    mtu: int
    mac: str = ""
    addresses: frozenset[Cidr] = frozenset()
    up: bool = True
    checksums: bool | None = None


class Route(NamedTuple):
    """A route in the main table, through a link; on the link alone without `gateway`.

    `encap` is the other end of an IPv6 tunnel. Without a link it is the last resort: packets are
    refused that no other route takes.
    """

    destination: Network
    link: str
    gateway: IP | None = None
    onlink: bool = False
    encap: IPv6Address | None = None

    @property
    def key(self) -> tuple[Network, bool]:
        """Two routes to one destination are not wanted, but for a last resort."""
        return self.destination, bool(self.link)

    @property
    def what(self) -> str:
        """In words."""
        if not self.link:
            return f"route unreachable {self.destination}"
        via = "" if self.gateway is None else f" via {self.gateway}"
        to = "" if self.encap is None else f" encap ip6 dst {self.encap}"
        return f"route {self.destination}{to}{via} dev {self.link}"


class Neighbour(NamedTuple):
    """Which MAC address a permanent neighbour entry gives an address."""

    link: str
    address: IP
    mac: str

    @property
    def key(self) -> tuple[str, IP]:
        """One MAC address each."""
        return self.link, self.address

    @property
    def what(self) -> str:
        """In words."""
        return f"neighbour {self.address} at {self.mac} dev {self.link}"


class Forwarding(NamedTuple):
    """To which host a VXLAN device sends frames for a MAC address (an FDB entry)."""

    link: str
    mac: str
    host: IP

    @property
    def key(self) -> tuple[str, str]:
        """One host each."""
        return self.link, self.mac

    @property
    def what(self) -> str:
        """In words."""
        return f"forwarding of {self.mac} to {self.host} dev {self.link}"


class Keys(NamedTuple):
    """A WireGuard device's private key and the port that it listens at."""

    link: str
    private: bytes
    port: int

    @property
    def key(self) -> str:
        """One each device."""
        return self.link

    @property
    def what(self) -> str:
        """In words, without the key."""
        return f"key and port {self.port} of {self.link}"


class Tunneled(NamedTuple):
    """A WireGuard peer: what is sent to it and believed from it.

    `settled` says of one that is there that its endpoint has proved itself lately, wherever it is.
    """

    link: str
    public: bytes
    host: IP
    port: int
    allowed: frozenset[Network]
    preshared: bytes
    keepalive: int
    settled: bool = False

    @property
    def key(self) -> tuple[str, bytes]:
        """By its public key."""
        return self.link, self.public

    @property
    def what(self) -> str:
        """In words, without keys."""
        subnets = " ".join(sorted(str(one) for one in self.allowed))
        return f"WireGuard peer {self.host} for {subnets} dev {self.link}"


@dataclass(frozen=True, slots=True)
class State:
    """All of it."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwardings: frozenset[Forwarding] = frozenset()
    keys: frozenset[Keys] = frozenset()
    tunneled: frozenset[Tunneled] = frozenset()
