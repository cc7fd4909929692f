"""DHCP's messages as bytes (RFC 2131, 2132, 3396), and the datagrams that carry them.

The fixed headers are read and written by pyroute2's classes, options here: decision 15.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import NamedTuple

# Imported first: pyroute2 without its `__init__`.
from . import messages as _messages  # noqa: F401  # isort: skip
from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.protocols import ip4msg, msg, udp4_pseudo_header, udpmsg

from .checksum import internet_checksum

CLIENT_PORT = 68
SERVER_PORT = 67
BOOTREQUEST, BOOTREPLY = 1, 2
BROADCAST_FLAG = 0x8000
ANY = IPv4Address("0.0.0.0")  # noqa: S104 - the source address of a client that has none yet
BROADCAST = IPv4Address("255.255.255.255")

_PAD, _MESSAGE_TYPE, _OVERLOAD, _END = 0, 53, 52, 255
_FILE_OVERLOADED, _SNAME_OVERLOADED = 1, 2
_COOKIE = b"c\x82Sc"
# Offsets in a message: sname, file, the cookie, the options.
_SNAME, _FILE, _COOKIE_AT, _OPTIONS = 44, 108, 236, 240
# What a BOOTP relay may insist on (RFC 1542, 2.1).
_LEAST_BYTES = 300
_MOST_OPTION_BYTES = 255
_HARDWARE_BYTES = 6

_IPV4_BYTES, _UDP_BYTES = 20, 8
_UDP = 17
_FRAGMENT_MASK = 0x3FFF


class _Header(msg):  # type: ignore[misc]
    """The fixed part of a message."""

    fields = dhcp4msg.fields


class Message(NamedTuple):
    """One message. `chaddr` is six bytes; an option's value may be longer than 255 bytes."""

    op: int
    xid: int
    chaddr: bytes
    options: dict[int, bytes]
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = ANY
    yiaddr: IPv4Address = ANY

    @property
    def type(self) -> int:
        """Option 53; 0 for a BOOTP message."""
        value = self.options.get(_MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else 0


def encode(message: Message) -> bytes:
    """The message's bytes, option 53 first."""
    header = _Header(
        {
            "op": message.op,
            "xid": message.xid,
            "secs": min(message.secs, 0xFFFF),
            "flags": message.flags,
            "ciaddr": str(message.ciaddr),
            "yiaddr": str(message.yiaddr),
            "siaddr": str(ANY),
            "giaddr": str(ANY),
            "chaddr": message.chaddr.hex(":"),
        }
    )
    header.encode()
    codes = sorted(message.options, key=lambda code: code != _MESSAGE_TYPE)
    options = b"".join(_encode_option(code, message.options[code]) for code in codes)
    return bytes(header.buf + options + bytes((_END,))).ljust(_LEAST_BYTES, b"\0")


def decode(data: bytes) -> Message:
    """Read a message. Raises ValueError for what is none."""
    if len(data) < _OPTIONS or data[_COOKIE_AT:_OPTIONS] != _COOKIE:
        raise ValueError("not a DHCP message")
    header = _Header(buf=data)
    header.decode()
    if (header["htype"], header["hlen"]) != (1, _HARDWARE_BYTES):
        raise ValueError("not a message for an Ethernet address")
    return Message(
        op=header["op"],
        xid=header["xid"],
        chaddr=bytes.fromhex(header["chaddr"].replace(":", "")),
        options=_decode_options(data),
        secs=header["secs"],
        flags=header["flags"],
        ciaddr=IPv4Address(header["ciaddr"]),
        yiaddr=IPv4Address(header["yiaddr"]),
    )


def _encode_option(code: int, value: bytes) -> bytes:
    """One option; a long value in pieces, which the reader puts together (RFC 3396)."""
    starts = range(0, max(len(value), 1), _MOST_OPTION_BYTES)
    pieces = (value[start : start + _MOST_OPTION_BYTES] for start in starts)
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)


def _decode_options(data: bytes) -> dict[int, bytes]:
    """The options, also those in the fields that option 52 lends (RFC 2131, 4.1)."""
    options: dict[int, bytes] = {}
    _collect(data[_OPTIONS:], options)
    overload = int.from_bytes(options.get(_OVERLOAD, b""), "big")
    if overload & _FILE_OVERLOADED:
        _collect(data[_FILE:_COOKIE_AT], options)
    if overload & _SNAME_OVERLOADED:
        _collect(data[_SNAME:_FILE], options)
    return options


def _collect(area: bytes, options: dict[int, bytes]) -> None:
    """Add the options of one area. Raises ValueError where one is cut short."""
    at = 0
    while at < len(area) and area[at] != _END:
        code = area[at]
        if code == _PAD:
            at += 1
            continue
        if at + 1 >= len(area) or at + 2 + area[at + 1] > len(area):
            raise ValueError(f"option {code} is cut short")
        value = area[at + 2 : at + 2 + area[at + 1]]
        options[code] = options.get(code, b"") + value
        at += 2 + len(value)


def datagram(payload: bytes, source: IPv4Address, destination: IPv4Address) -> bytes:
    """The IPv4 packet with `payload` from the client's port to the server's."""
    length = _UDP_BYTES + len(payload)
    udp = {"sport": CLIENT_PORT, "dport": SERVER_PORT, "len": length}
    pseudo = udp4_pseudo_header({"src": str(source), "dst": str(destination), "len": length})
    checksum = internet_checksum(pseudo.encode().buf + udpmsg(udp).encode().buf + payload)
    ip = {
        "len": _IPV4_BYTES + length,
        "proto": _UDP,
        "src": str(source),
        "dst": str(destination),
    }
    ip["csum"] = internet_checksum(ip4msg(ip).encode().buf)
    # A checksum of zero stands for none.
    header = ip4msg(ip).encode().buf + udpmsg(udp | {"csum": checksum or 0xFFFF}).encode().buf
    return bytes(header + payload)


def payload(packet: bytes, *, checksum_ready: bool = True) -> bytes:
    """What an IPv4 packet to the client's port carries. Raises ValueError for any other one.

    The kernel leaves the checksum open where the sender is on the same host (packet(7)).
    """
    if len(packet) < _IPV4_BYTES + _UDP_BYTES:
        raise ValueError("the packet is cut short")
    ip = ip4msg(buf=packet)
    ip.decode()
    start = (ip["verlen"] & 0xF) * 4
    fragment = int.from_bytes(packet[6:8], "big") & _FRAGMENT_MASK
    if ip["verlen"] >> 4 != 4 or start < _IPV4_BYTES or fragment or ip["proto"] != _UDP:
        raise ValueError("not a whole UDP packet")
    udp = udpmsg(buf=packet, offset=start)
    udp.decode()
    end = start + udp["len"]
    if udp["dport"] != CLIENT_PORT or udp["len"] < _UDP_BYTES or end > len(packet):
        raise ValueError("not for a DHCP client")
    pseudo = udp4_pseudo_header({"src": ip["src"], "dst": ip["dst"], "len": udp["len"]})
    if (
        checksum_ready
        and udp["csum"]
        and internet_checksum(pseudo.encode().buf + packet[start:end])
    ):
        raise ValueError("the checksum is wrong")
    return packet[start + _UDP_BYTES : end]
