"""wireguard: packets to other nodes encrypted, and taken only from whom they say they are from.

A node's private key is made once and stays in a file; leases have the public one. The whole of the
cluster's network leads into the device, and where that is gone, nowhere: nothing leaves unencrypted
because a peer is not known. The form of leases and the names of devices are flannel's.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec

from cni_py.kernel import state_files
from cni_py.kernel.wireguard import KEY_BYTES, NO_KEY
from cni_py.spec.errors import CniError, Code

from .backend import Announcement
from .kernel_backend import KernelBackend, Wanted, halves
from .plan import CreateDevice, Put
from .settings import Settings
from .state import Device, Keys, Route, State, Tunneled, WireGuard
from .vetting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.addresses import IP, Cidr, Network

    from .backend import Node, View
    from .kernel_backend import Half
    from .underlay import Chosen, Underlay

KEY_FILE = "/var/lib/cni/cni-py/overlay/wireguard.key"

# 40 bytes of IPv6, 8 of UDP, 32 of WireGuard; 20 less over IPv4, which flannel gives away too.
_OVERHEAD = 80
_BOTH = "flannel-wg"
_NAME = {4: _BOTH, 6: "flannel-wg-v6"}
_Port = Annotated[int, msgspec.Meta(ge=1, le=2**16 - 1)]


class WireGuardSettings(Settings, frozen=True):
    """What flannel reads for `wireguard`."""

    listenport: _Port = 51820
    """The UDP port. All nodes have the same."""

    listenportv6: _Port = 51821
    """The port of IPv6's own device, in the mode `separate`."""

    psk: str = ""
    """A key that all nodes share beside their own, in base64."""

    persistentkeepaliveinterval: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """After how many seconds of silence to send something, for a NAT's sake; 0 for never."""

    mode: Literal["separate", "auto", "ipv4", "ipv6"] = "separate"
    """`separate`: IPv4 packets travel in IPv4, IPv6 packets in IPv6. Else all travel in one."""

    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """The MTU of the underlay in bytes, where its interface does not tell."""


class WireGuardBackend(KernelBackend):
    """See the module."""

    name: ClassVar[str] = "wireguard"

    def __init__(
        self,
        settings: WireGuardSettings,
        chosen: Chosen,
        versions: frozenset[int],
        key_file: str = KEY_FILE,
    ) -> None:
        """Raises CniError 7 for a PSK that is none, KernelError."""
        self._preshared = NO_KEY
        if settings.psk:
            self._preshared = _key(settings.psk)
            if self._preshared == NO_KEY:
                msg = "the network's Backend cannot be used: PSK is no key"
                details = "it is 32 random bytes in base64, as `wg genpsk` writes them"
                raise CniError(Code.INVALID_CONFIG, msg, details, key="Backend.PSK")
        super().__init__(chosen, versions)
        self._settings, self._key_file = settings, key_file
        self._private = b""

    def overhead(self, version: int) -> int:
        """The same for both, as flannel has it."""
        del version
        return _OVERHEAD

    def underlay_mtu(self, under: Underlay) -> int:
        """The key `MTU` counts where it is there."""
        return self._settings.mtu or under.mtu

    def announce(self) -> Announcement:
        """The devices are made, which compute the public key."""
        under = self.underlay()
        for version in self._endpoints(under):
            self.announced(under, version)
        data = {"PublicKey": b64encode(self._public(under)).decode()}
        return Announcement(
            self.name,
            self._chosen.public or under.address,
            self._chosen.public6 or under.address6,
            data if 4 in self._versions else None,
            data if 6 in self._versions else None,
        )

    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """Devices with keys, the peers, and routes: each peer's, and the whole network's."""
        own = list(halves(view.own))
        devices, keys = self._devices(under, own)
        tunneled: dict[tuple[str, bytes], Tunneled] = {}
        routes: set[Route] = set()
        refused: dict[str, str] = {}
        for peer in peers:
            theirs = [half for half in halves(peer) if half.version in {one.version for one in own}]
            problem = next(filter(None, (_problem(half, view) for half in theirs)), "")
            made = [] if problem else list(self._tunneled(peer, theirs, under))
            if not problem and len(made) < len({self._device_of(half) for half in theirs}):
                problem = "it has no address of the IP version that packets travel in"
            if any(one.key in tunneled for one in made):
                problem = "its PublicKey is that of an older lease"
            if problem:
                refused[peer.name] = problem
            else:
                tunneled |= {one.key: one for one in made}
                routes |= {Route(half.subnet, self._device_of(half)) for half in theirs}
        networks = {4: view.network, 6: view.network6}
        for half in own:
            network: Network | None = networks[half.version]
            if network is not None:
                routes |= {Route(network, self._device_of(half)), Route(network, "")}
        state = State(
            {one.name: one for one in devices},
            frozenset(routes),
            keys=frozenset(keys),
            tunneled=frozenset(tunneled.values()),
        )
        return Wanted(state, refused)

    def _device_of(self, half: Half) -> str:
        return _NAME[half.version] if self._settings.mode == "separate" else _BOTH

    def _endpoints(self, under: Underlay) -> set[int]:
        """Which IP versions packets travel in."""
        mode = self._settings.mode
        if mode == "separate":
            return set(self._versions)
        if mode == "auto":
            return {4} if under.address is not None else {6}
        return {4 if mode == "ipv4" else 6}

    def _devices(self, under: Underlay, own: list[Half]) -> tuple[list[Device], list[Keys]]:
        """Also without a lease, and then without addresses."""
        addresses: dict[str, set[Cidr]] = {}
        for half in own:
            end = ip_interface((half.subnet.network_address, half.subnet.max_prefixlen))
            addresses.setdefault(self._device_of(half), set()).add(end)
        mtu = min(self.mtu_of(under, version) for version in self._versions)
        devices = [
            Device(name, "wireguard", WireGuard(), mtu, addresses=frozenset(found))
            for name, found in addresses.items()
        ]
        return devices, [Keys(one.name, self._own_key(), self._port(one.name)) for one in devices]

    def _port(self, device: str) -> int:
        settings = self._settings
        return settings.listenport if device == _BOTH else settings.listenportv6

    def _tunneled(self, peer: Node, theirs: list[Half], under: Underlay) -> Iterator[Tunneled]:
        """A peer for each device that it is behind."""
        for device in sorted({self._device_of(half) for half in theirs}):
            behind = [half for half in theirs if self._device_of(half) == device]
            host: IP | None = behind[0].address
            if self._settings.mode != "separate":
                host = self._endpoint(peer, under)
            if host is None:
                continue
            yield Tunneled(
                device,
                _key(_public_key(behind[0])),
                host,
                self._port(device),
                frozenset(half.subnet for half in behind),
                self._preshared,
                self._settings.persistentkeepaliveinterval,
            )

    def _endpoint(self, peer: Node, under: Underlay) -> IP | None:
        """In the mode `auto`, what both have: IPv4, unless only IPv6 leads across the Internet."""
        address, address6 = peer.said.address, peer.said.address6
        if self._settings.mode == "ipv4":
            return address
        if self._settings.mode == "ipv6":
            return address6
        both6 = address6 is not None and under.address6 is not None
        if address is None or under.address is None:
            return address6 if both6 else None
        if both6 and address.is_private and address6 and address6.is_global:
            return address6
        return address

    def _public(self, under: Underlay) -> bytes:
        """The public key, computed by a device; those that are missing are made."""
        names = {_NAME[one] for one in self._versions}
        if self._settings.mode != "separate":
            names = {_BOTH}
        present = self._kernel.look()
        mtu = min(self.mtu_of(under, version) for version in self._versions)
        wanted = {name: Device(name, "wireguard", WireGuard(), mtu) for name in names}
        self._require_names(State(wanted), present)
        for name, device in wanted.items():
            keys = Keys(name, self._own_key(), self._port(name))
            if name not in present.state.devices:
                self._kernel.carry_out(CreateDevice(device))
            if keys not in present.state.keys:
                self._kernel.carry_out(Put(keys))
        return self._kernel.public_key(min(names))

    def _own_key(self) -> bytes:
        """The node's private key; made where there is none. Raises CniError."""
        if not self._private:
            written = state_files.read(self._key_file)
            found = _key((written or b"").decode("ascii", "replace").strip())
            if written is not None and found == NO_KEY:
                state_files.set_aside(self._key_file, "it is no key")
            if found == NO_KEY:
                found = _new_key()
                state_files.save(self._key_file, b64encode(found) + b"\n")
            self._private = found
        return self._private


def _new_key() -> bytes:
    """A private key of Curve25519 (RFC 7748, 5)."""
    key = bytearray(os.urandom(KEY_BYTES))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)


def _key(text: str) -> bytes:
    """The key of a text in base64; NO_KEY for any other text."""
    try:
        key = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return NO_KEY
    return key if len(key) == KEY_BYTES else NO_KEY


def _public_key(half: Half) -> str:
    data = half.data
    key = data.get("PublicKey") if isinstance(data, dict) else None
    return key if isinstance(key, str) else ""


def _problem(half: Half, view: View) -> str:
    text = _public_key(half)
    if _key(text) == NO_KEY:
        return f"its PublicKey is {quoted(text)}, not 32 bytes in base64"
    for own in halves(view.own):
        if _key(text) == _key(_public_key(own)):
            return "its PublicKey is this node's own"
    return ""
