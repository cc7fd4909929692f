"""Telling the neighbours who has an address: gratuitous ARP and unsolicited neighbour adverts.

An address that another container had a moment ago is still in its neighbours' caches. The frames go
out of a packet socket (packet(7)); their forms are RFC 5227 section 3 and RFC 4861 section 7.2.6.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from .errors import kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.spec.addresses import IP

_ETH_P_ARP = 0x0806
_ETH_P_IPV6 = 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ARP_REQUEST = 1
_NEXT_HEADER_ICMP6 = 58
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_LINK_ADDRESS = b"\x02\x01"
_HOP_LIMIT = 255


def announce(ifname: str, mac: str, addresses: Iterable[IP]) -> None:
    """Announce each address once on the link `ifname` of the namespace that the thread is in.

    Raises KernelError.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
            sock.bind((ifname, 0))
            for address in addresses:
                if isinstance(address, IPv4Address):
                    sock.send(gratuitous_arp(hardware, address))
                else:
                    sock.send(unsolicited_advertisement(hardware, address))
    except OSError as error:
        raise kernel_error(f"announce the addresses of {ifname}", error) from error


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP request for the sender's own address, to everyone."""
    ethernet = _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP)
    packed = address.packed
    body = struct.pack("!HHBBH", 1, 0x0800, len(mac), len(packed), _ARP_REQUEST)
    return ethernet + body + mac + packed + bytes(len(mac)) + packed


def unsolicited_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """A neighbour advertisement with the override flag, to all nodes."""
    ethernet = _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_P_IPV6)
    options = _TARGET_LINK_ADDRESS + mac
    fields = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE)
    body = fields + address.packed + options
    pseudo = address.packed + _ALL_NODES.packed
    pseudo += struct.pack("!IHBB", len(body), 0, 0, _NEXT_HEADER_ICMP6)
    checksum = internet_checksum(pseudo + body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(body), _NEXT_HEADER_ICMP6, _HOP_LIMIT)
    return ethernet + ip + address.packed + _ALL_NODES.packed + body


def internet_checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
