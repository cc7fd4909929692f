"""vxlan: packets to other nodes in UDP, wherever the nodes are (RFC 7348).

Of each peer there are a route, a neighbour and an FDB entry, all written before the first packet:
no address is ever asked for, and none is learned. The form of leases and the names of devices are
flannel's.
"""

from __future__ import annotations

import re
from hashlib import sha512
from ipaddress import IPv6Address, ip_interface
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from .backend import Announcement
from .kernel_backend import KernelBackend, Wanted, halves
from .settings import Settings
from .state import Device, Forwarding, Neighbour, Route, State, Vxlan
from .vetting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.spec.addresses import IP

    from .backend import Node, View
    from .kernel_backend import Half
    from .underlay import Chosen, Underlay

_OVERHEAD = {4: 50, 6: 70}
_PORT = 8472
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_IFNAME_BYTES = 15
_MULTICAST, _LOCAL = 0x01, 0x02
# flannel keeps a VNI in 16 bits in leases, and reads no lease with a larger one; devices have 24.
_LEASE_VNI = 0xFFFF


class VxlanSettings(Settings, frozen=True):
    """What flannel reads for `vxlan`."""

    vni: Annotated[int, msgspec.Meta(ge=1, le=2**24 - 1)] = 1
    """The network's number within the underlay."""

    port: Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)] = _PORT
    """The UDP port; 0 stands for the kernel's, 8472. All nodes have the same."""

    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """The MTU of the underlay in bytes, where its interface does not tell."""

    directrouting: bool = False
    """Send packets to nodes on the same link as they are."""

    gbp: bool = False
    """Carry the group of a packet's sender along (VXLAN-GBP)."""

    learning: bool = False
    """Learn MAC addresses of others from packets; there is no use in it."""

    checksumoffload: bool = False
    """Leave checksums of inner packets to the underlay's hardware."""


class VxlanBackend(KernelBackend):
    """See the module."""

    name: ClassVar[str] = "vxlan"

    def __init__(self, settings: VxlanSettings, chosen: Chosen, versions: frozenset[int]) -> None:
        """Raises KernelError."""
        super().__init__(chosen, versions)
        self._settings = settings

    def overhead(self, version: int) -> int:
        """Outer IP, UDP, VXLAN and the inner Ethernet header."""
        return _OVERHEAD[version]

    def underlay_mtu(self, under: Underlay) -> int:
        """The key `MTU` counts where it is there."""
        return self._settings.mtu or under.mtu

    def announce(self) -> Announcement:
        """The MAC address is derived from the node's address: it is the same after a boot."""
        under = self.underlay()
        data = {
            version: {
                "VNI": self._settings.vni & _LEASE_VNI,
                "VtepMAC": self._mac(self.announced(under, version)),
            }
            for version in sorted(self._versions)
        }
        return Announcement(
            self.name,
            self._chosen.public or under.address,
            self._chosen.public6 or under.address6,
            data.get(4),
            data.get(6),
        )

    def _mac(self, address: IP) -> str:
        digest = bytearray(sha512(f"vxlan {self._settings.vni} {address}".encode()).digest()[:6])
        digest[0] = digest[0] & ~_MULTICAST | _LOCAL
        return bytes(digest).hex(":")

    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """A device a family, and for each peer what leads there."""
        devices = {half.version: self._device(half, under) for half in halves(view.own)}
        routes: set[Route] = set()
        neighbours: set[Neighbour] = set()
        forwardings: set[Forwarding] = set()
        refused: dict[str, str] = {}
        # Whose frames go where already; the own address is nobody else's.
        hosts: dict[tuple[str, str], IP | None] = {
            (one.name, one.mac): None for one in devices.values()
        }
        for peer in peers:
            theirs = [half for half in halves(peer) if half.version in devices]
            problems = [self._problem(half, devices[half.version].name, hosts) for half in theirs]
            if any(problems):
                refused[peer.name] = next(filter(None, problems))
                continue
            for half in theirs:
                assert half.address is not None
                name = devices[half.version].name
                if self._settings.directrouting and under.reaches_directly(half.address):
                    routes.add(Route(half.subnet, under.link, half.address))
                    continue
                mac = _mac_of(half)
                end = half.subnet.network_address if half.version == 4 else _link_local(mac)
                hosts[name, mac] = half.address
                forwardings.add(Forwarding(name, mac, half.address))
                neighbours.add(Neighbour(name, end, mac))
                routes.add(Route(half.subnet, name, end, onlink=True))
        state = State(
            {one.name: one for one in devices.values()},
            frozenset(routes),
            frozenset(neighbours),
            frozenset(forwardings),
        )
        return Wanted(state, refused)

    def _device(self, own: Half, under: Underlay) -> Device:
        settings = self._settings
        local = under.address if own.version == 4 else under.address6
        # What is announced may be an address that is translated to this one.
        shape = Vxlan(
            settings.vni,
            settings.port or _PORT,
            local or self.announced(under, own.version),
            settings.gbp,
            settings.learning,
        )
        end = ip_interface((own.subnet.network_address, own.subnet.max_prefixlen))
        return Device(
            device_name(settings.vni, own.version),
            "vxlan",
            shape,
            self.mtu_of(under, own.version),
            self._mac(self.announced(under, own.version)),
            frozenset({end}),
            checksums=settings.checksumoffload,
        )

    def _problem(self, half: Half, device: str, hosts: dict[tuple[str, str], IP | None]) -> str:
        if half.address is None:
            return f"it has no IPv{half.version} address"
        data = half.data
        if not isinstance(data, dict):
            return f"its data is {quoted(data)}, not an object with VNI and VtepMAC"
        # Early versions of flannel did not tell.
        ours = self._settings.vni & _LEASE_VNI
        vni = data.get("VNI", ours)
        if type(vni) is not int or vni != ours:
            return f"its VNI is {quoted(vni)}, this node's is {ours}"
        mac = _mac_of(half)
        if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00" or _is_multicast(mac):
            return f"its VtepMAC is {quoted(data.get('VtepMAC'))}, which no device has"
        if hosts.get((device, mac), half.address) != half.address:
            return f"its VtepMAC {mac} is this node's or that of an older lease"
        return ""


def device_name(vni: int, version: int) -> str:
    """flannel's name of the device, or a shorter one where that has more than 15 letters."""
    name = f"flannel.{vni}" if version == 4 else f"flannel-v6.{vni}"
    if len(name) <= _IFNAME_BYTES:
        return name
    return f"fl.{vni}" if version == 4 else f"fl-v6.{vni}"


def _mac_of(half: Half) -> str:
    data = half.data
    mac = data.get("VtepMAC") if isinstance(data, dict) else None
    return mac.lower() if isinstance(mac, str) else ""


def _link_local(mac: str) -> IPv6Address:
    """The address that a device with that MAC address would give itself (RFC 4291, appendix A).

    As a gateway it is taken wherever other routes lead, while the kernel refuses one inside the
    subnet as long as another route leads there, over another device or to all of fd00::/8, say.
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    start = bytes([octets[0] ^ _LOCAL, *octets[1:3]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + start + b"\xff\xfe" + octets[3:])


def _is_multicast(mac: str) -> bool:
    return bool(int(mac[:2], 16) & _MULTICAST)
