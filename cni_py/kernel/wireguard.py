"""WireGuard devices and their peers (linux/wireguard.h), over generic netlink.

The kernel computes the public key of a private one: nothing here knows the curve.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from . import new_links
from .errors import KernelError
from .netlink import NLM_F_DUMP, Netlink, Request, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP, Network

KIND = "wireguard"
KEY_BYTES = 32
NO_KEY = bytes(KEY_BYTES)

_NETLINK_GENERIC = 16
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_GENERIC = struct.Struct("=BBH")
_NLMSG_BYTES = 16
_GET_DEVICE, _SET_DEVICE, _VERSION = 0, 1, 1
_IFINDEX, _PRIVATE, _PUBLIC, _PORT, _PEERS = 1, 3, 4, 6, 8
_PEER_PUBLIC, _PEER_PRESHARED, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 2, 3, 4, 5
_PEER_HANDSHAKE, _PEER_ALLOWED = 6, 9
_REMOVE_ME, _REPLACE_ALLOWED = 1, 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_NESTED = 0x8000
_ATTRIBUTE = struct.Struct("=HH")
_U16, _U32, _TIME = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=qq")
_SOCKADDR4, _SOCKADDR6 = struct.Struct("=H2s4s8x"), struct.Struct("=H2sI16sI")
# A session is used for as long after its handshake (REJECT_AFTER_TIME).
_SETTLED_SECONDS = 180


class Peer(NamedTuple):
    """A peer. `handshake` is when the last one was, in seconds since the epoch; 0 for never."""

    public: bytes
    host: IP
    port: int
    allowed: frozenset[Network]
    preshared: bytes = NO_KEY
    keepalive: int = 0
    handshake: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether it has proved itself lately at this endpoint."""
        return 0 <= time.time() - self.handshake < _SETTLED_SECONDS


class Device(NamedTuple):
    """A device; keys are NO_KEY and the port 0 as long as it has none."""

    private: bytes
    public: bytes
    port: int
    peers: list[Peer]


def create(name: str, *, mtu: int, group: int) -> Request:
    """The request that creates a device, down."""
    return new_links.create(name, KIND, mtu=mtu, group=group)


def set_keys(index: int, private: bytes, port: int, what: str) -> Request:
    """The request that gives a device its private key and its UDP port; for `Client.submit`."""
    changes = attribute(_PRIVATE, private) + attribute(_PORT, _U16.pack(port))
    return _set(index, changes, what)


def put(index: int, peer: Peer, what: str) -> Request:
    """The request that makes a peer, or changes it to be like this; for `Client.submit`."""
    message = attribute(_PEER_PUBLIC, peer.public) + attribute(_PEER_PRESHARED, peer.preshared)
    message += attribute(_PEER_FLAGS, _U32.pack(_REPLACE_ALLOWED))
    message += attribute(_PEER_ENDPOINT, _endpoint(peer.host, peer.port))
    message += attribute(_PEER_KEEPALIVE, _U16.pack(peer.keepalive))
    allowed = b"".join(_allowed(one) for one in sorted(peer.allowed, key=str))
    message += attribute(_PEER_ALLOWED | _NESTED, allowed)
    return _set(index, _peers(message), what)


def remove(index: int, public: bytes, what: str) -> Request:
    """The request that takes a peer away, if it is there; for `Client.submit`."""
    message = attribute(_PEER_PUBLIC, public) + attribute(_PEER_FLAGS, _U32.pack(_REMOVE_ME))
    return _set(index, _peers(message), what)


class Client:
    """WireGuard of the namespace that this is made in."""

    def __init__(self) -> None:
        """Raises KernelError."""
        self._netlink = Netlink(protocol=_NETLINK_GENERIC)
        self._family = 0

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def submit(self, request: Request) -> None:
        """Carry out a request of this module. Raises KernelError."""
        self._netlink.submit(request._replace(type=self._number()))

    def read(self, index: int) -> Device:
        """A device with all its peers. Raises KernelError."""
        message = _GENERIC.pack(_GET_DEVICE, _VERSION, 0) + attribute(_IFINDEX, _U32.pack(index))
        request = Request(f"read WireGuard link {index}", self._number(), message, NLM_F_DUMP)
        device = Device(NO_KEY, NO_KEY, 0, [])
        found: dict[bytes, Peer] = {}
        for body in self._netlink.dump(request):
            have = attributes(body, _NLMSG_BYTES + _GENERIC.size)
            if _PRIVATE in have or _PORT in have:
                port = int.from_bytes(have.get(_PORT, b""), sys.byteorder)
                device = Device(have.get(_PRIVATE, NO_KEY), have.get(_PUBLIC, NO_KEY), port, [])
            for one in _listed(have.get(_PEERS, b"")):
                peer = _peer(attributes(one))
                # What does not fit one message goes on in the next: more of what is allowed.
                before = found.get(peer.public)
                found[peer.public] = (
                    peer
                    if before is None
                    else before._replace(allowed=before.allowed | peer.allowed)
                )
        return device._replace(peers=list(found.values()))

    def _number(self) -> int:
        """The family's number; opening it loads the module."""
        if not self._family:
            message = _GENERIC.pack(_GET_FAMILY, 1, 0) + attribute(_FAMILY_NAME, b"wireguard\0")
            what = "find WireGuard in the kernel"
            none = frozenset({errno.ENOENT})
            body = self._netlink.get(Request(what, _CONTROL, message, tolerate=none))
            if body is None:
                raise KernelError(what, errno.EOPNOTSUPP, "it has no module wireguard")
            number = attributes(body, _NLMSG_BYTES + _GENERIC.size)[_FAMILY_ID]
            self._family = int.from_bytes(number, sys.byteorder)
        return self._family


def _set(index: int, changes: bytes, what: str) -> Request:
    message = _GENERIC.pack(_SET_DEVICE, _VERSION, 0) + attribute(_IFINDEX, _U32.pack(index))
    return Request(what, 0, message + changes)


def _peers(message: bytes) -> bytes:
    return attribute(_PEERS | _NESTED, attribute(_NESTED, message))


def _endpoint(host: IP, port: int) -> bytes:
    number = port.to_bytes(2, "big")
    if host.version == 4:
        return _SOCKADDR4.pack(socket.AF_INET, number, host.packed)
    return _SOCKADDR6.pack(socket.AF_INET6, number, 0, host.packed, 0)


def _allowed(network: Network) -> bytes:
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    message = attribute(_ALLOWED_FAMILY, _U16.pack(family))
    message += attribute(_ALLOWED_ADDRESS, network.network_address.packed)
    message += attribute(_ALLOWED_LENGTH, bytes([network.prefixlen]))
    return attribute(_NESTED, message)


def _peer(have: dict[int, bytes]) -> Peer:
    host, port = _read_endpoint(have.get(_PEER_ENDPOINT, b""))
    handshake, _ = _TIME.unpack(have.get(_PEER_HANDSHAKE, bytes(_TIME.size)))
    allowed = frozenset(_read_allowed(have.get(_PEER_ALLOWED, b"")))
    keepalive = int.from_bytes(have.get(_PEER_KEEPALIVE, b""), sys.byteorder)
    preshared = have.get(_PEER_PRESHARED, NO_KEY)
    return Peer(have[_PEER_PUBLIC], host, port, allowed, preshared, keepalive, handshake)


def _read_endpoint(data: bytes) -> tuple[IP, int]:
    """The endpoint of a sockaddr; `0.0.0.0` and 0 where there is none."""
    if len(data) >= _SOCKADDR6.size:
        _, number, _, packed, _ = _SOCKADDR6.unpack_from(data)
        return IPv6Address(packed), int.from_bytes(number, "big")
    if len(data) >= _SOCKADDR4.size:
        _, number, packed = _SOCKADDR4.unpack_from(data)
        return IPv4Address(packed), int.from_bytes(number, "big")
    return IPv4Address(0), 0


def _read_allowed(data: bytes) -> Iterator[Network]:
    for one in _listed(data):
        have = attributes(one)
        if _ALLOWED_ADDRESS in have and _ALLOWED_LENGTH in have:
            yield ip_network((ip_address(have[_ALLOWED_ADDRESS]), have[_ALLOWED_LENGTH][0]))


def _listed(data: bytes) -> Iterator[bytes]:
    """The values of attributes one after another, whatever their numbers."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, _ = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        yield data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
