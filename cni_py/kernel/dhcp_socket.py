"""A packet socket on one interface that hears what is for the DHCP client's port (packet(7))."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .dhcp_messages import ANY, CLIENT_PORT, datagram, payload
from .errors import kernel_error

# Imported after the module that enters the package.
from pyroute2.ext import bpf  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_AUXDATA = struct.Struct("=I16x")
_CHECKSUM_NOT_READY = 1 << 3
_PACKET_BYTES = 4096

BROADCAST_MAC = b"\xff" * 6

_BPF = bpf.BPF
# Offsets in an IPv4 packet: protocol, fragment; of the UDP header: destination port.
_FILTER = (
    [_BPF.LD + _BPF.B + _BPF.ABS, 0, 0, 9],
    [_BPF.JMP + _BPF.JEQ + _BPF.K, 0, 6, socket.IPPROTO_UDP],
    [_BPF.LD + _BPF.H + _BPF.ABS, 0, 0, 6],
    [_BPF.JMP + _BPF.JSET + _BPF.K, 4, 0, 0x1FFF],
    [_BPF.LDX + _BPF.B + _BPF.MSH, 0, 0, 0],
    [_BPF.LD + _BPF.H + _BPF.IND, 0, 0, 2],
    [_BPF.JMP + _BPF.JEQ + _BPF.K, 0, 1, CLIENT_PORT],
    [_BPF.RET + _BPF.K, 0, 0, 0xFFFF],
    [_BPF.RET + _BPF.K, 0, 0, 0],
)


class Heard(NamedTuple):
    """One DHCP message's bytes, and the hardware address that sent them."""

    data: bytes
    mac: bytes


class DhcpSocket:
    """Sends and hears on the interface, in the namespace that it was opened in."""

    def __init__(self, ifname: str) -> None:
        """Raises KernelError."""
        what = f"open a packet socket on {ifname}"
        try:
            # Without a protocol it hears nothing before the filter is in place.
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
            )
        except OSError as error:
            raise kernel_error(what, error) from error
        try:
            program, kept = bpf.compile(list(_FILTER))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            del kept
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._socket.bind((ifname, _ETH_P_IP))
        except OSError as error:
            self._socket.close()
            raise kernel_error(what, error) from error
        self._ifname = ifname
        self._deaf = _deaf_udp_socket(ifname)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it: it keeps the namespace alive."""
        self._socket.close()
        if self._deaf is not None:
            self._deaf.close()

    def send(self, data: bytes, source: IPv4Address, destination: IPv4Address, mac: bytes) -> None:
        """Send a message to the hardware address `mac`. Raises KernelError."""
        packet = datagram(data, source, destination)
        try:
            self._socket.sendto(packet, (self._ifname, _ETH_P_IP, 0, 0, mac))
        except OSError as error:
            raise kernel_error(f"send a DHCP message on {self._ifname}", error) from error

    def receive(self) -> Iterator[Heard]:
        """What has come. What is no DHCP datagram is passed over, as is a link that went down."""
        while True:
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(
                    _PACKET_BYTES, socket.CMSG_SPACE(_AUXDATA.size)
                )
            except OSError:
                # Nothing more, or ENETDOWN, which is told once.
                return
            try:
                data = payload(packet, checksum_ready=_is_ready(ancillary))
            except ValueError:
                continue
            yield Heard(data, bytes(sender[4]))


def _is_ready(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Whether the packet's checksum has been filled in."""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
            return not _AUXDATA.unpack_from(data)[0] & _CHECKSUM_NOT_READY
    return True


def _deaf_udp_socket(ifname: str) -> socket.socket | None:
    """A socket at the client's port, so that the kernel does not tell servers that it is closed.

    None where the container has one of its own.
    """
    deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ifname.encode() + b"\0")
        with suppress(OSError):
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        deaf.bind((str(ANY), CLIENT_PORT))
    except OSError:
        deaf.close()
        return None
    return deaf
