"""DHCP's messages as bytes (RFC 2131, 2132, 3396)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.kernel import dhcp_messages
from cni_py.kernel.dhcp_messages import ANY, BROADCAST, Message

MAC = bytes.fromhex("020000000001")

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
# 52 lends fields of the header, which `encode` leaves empty.
codes = st.integers(1, 254).filter(lambda code: code != 52)
messages = st.builds(
    Message,
    op=st.sampled_from([1, 2]),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(min_size=6, max_size=6),
    options=st.dictionaries(codes, st.binary(max_size=600), max_size=12),
    secs=st.integers(0, 0xFFFF),
    flags=st.sampled_from([0, 0x8000]),
    ciaddr=addresses,
    yiaddr=addresses,
)


def reply(options: bytes, *, sname: bytes = b"", file: bytes = b"") -> bytes:
    """A message by hand, with these options."""
    head = struct.pack("!4BIHH4s4s4s4s", 2, 1, 6, 0, 7, 0, 0, *(bytes(4),) * 4)
    return (
        head + MAC.ljust(16, b"\0") + sname.ljust(64, b"\0") + file.ljust(128, b"\0")
        + b"\x63\x82\x53\x63" + options
    )  # fmt: skip


@given(messages)
def test_round_trip(message: Message) -> None:
    assert dhcp_messages.decode(dhcp_messages.encode(message)) == message


def test_discover_byte_by_byte() -> None:
    """[A.17]"""
    options = {55: b"\3\1", 53: b"\1", 57: b"\x05\xdc", 61: b"\0cid1/net1/eth0"}
    data = dhcp_messages.encode(Message(1, 0x01020304, MAC, options))
    fixed = "01010600" + "01020304" + "0000" + "0000" + "00000000" * 4 + MAC.hex() + "00" * 202
    sent = "63825363" + "350101" + "37020301" + "390205dc" + "3d0f00" + b"cid1/net1/eth0".hex()
    assert data.hex() == (fixed + sent + "ff").ljust(600, "0")


def test_secs_has_two_bytes() -> None:
    data = dhcp_messages.encode(Message(1, 1, MAC, {53: b"\1"}, secs=1 << 20))
    assert dhcp_messages.decode(data).secs == 0xFFFF


def test_pieces_are_joined() -> None:
    """[RFC 3396] Equal options are one, also with pads between them."""
    data = reply(b"\x79\x02ab\0\0\x35\x01\x02\x79\x01c\xff\x79\x01d")
    assert dhcp_messages.decode(data).options == {121: b"abc", 53: b"\x02"}


@pytest.mark.parametrize(
    ("overload", "expected"),
    [(0, b"a"), (1, b"af"), (2, b"as"), (3, b"afs")],
)
def test_overload(overload: int, expected: bytes) -> None:
    """[RFC 2131, 4.1] file comes before sname."""
    options = bytes((0x34, 1, overload)) + b"\x0f\x01a\xff"
    data = reply(options, file=b"\x0f\x01f\xff", sname=b"\x0f\x01s\xff")
    assert dhcp_messages.decode(data).options[15] == expected


def test_empty_option() -> None:
    """One of length 0 does not shift the others."""
    assert dhcp_messages.decode(reply(b"\x50\0\x35\x01\x05")).options == {80: b"", 53: b"\x05"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        reply(b"")[:239],
        reply(b"").replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
        reply(b"\x35"),
        reply(b"\x35\x02\x01"),
        reply(b"\x34\x01\x01\xff", file=b"\x0f" * 128),
        reply(b"\xff")[:2] + b"\x07" + reply(b"\xff")[3:],
    ],
    ids=["empty", "short", "cookie", "no-length", "cut-short", "file", "hardware"],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        dhcp_messages.decode(data)


@given(st.binary(max_size=400), st.booleans())
def test_anything_is_a_message_or_refused(data: bytes, whole: bool) -> None:
    for one in (data, reply(data) if whole else data):
        try:
            dhcp_messages.decode(one)
        except ValueError:
            continue


# Datagrams.


def arriving(payload: bytes, source: str = "10.9.0.1", destination: str = "10.9.0.50") -> bytes:
    """A packet from the server's port to the client's: with the ports and checksum changed."""
    packet = dhcp_messages.datagram(payload, IPv4Address(source), IPv4Address(destination))
    return packet[:20] + packet[22:24] + packet[20:22] + packet[24:]


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


@given(st.binary(max_size=600), addresses, addresses)
def test_datagram(payload: bytes, source: IPv4Address, destination: IPv4Address) -> None:
    """[RFC 791, 768] The checksums of both headers are right."""
    packet = dhcp_messages.datagram(payload, source, destination)
    assert checksum(packet[:20]) == 0xFFFF
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 17, len(packet) - 20)
    assert checksum(pseudo + packet[20:]) == 0xFFFF
    assert struct.unpack("!HHH", packet[20:26]) == (68, 67, 8 + len(payload))
    assert packet[12:20] == source.packed + destination.packed
    assert packet[28:] == payload


@given(st.binary(max_size=600))
def test_payload(payload: bytes) -> None:
    packet = arriving(payload)
    assert dhcp_messages.payload(packet) == payload
    # An Ethernet frame has at least 46 bytes: what is over is padding.
    assert dhcp_messages.payload(packet + bytes(20)) == payload


def test_wrong_checksum() -> None:
    """It is not looked at where the kernel has not filled it in, or the sender has none."""
    packet = bytearray(arriving(b"payload"))
    packet[-1] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        dhcp_messages.payload(bytes(packet))
    assert dhcp_messages.payload(bytes(packet), checksum_ready=False) == b"payloae"
    packet[26:28] = b"\0\0"
    assert dhcp_messages.payload(bytes(packet)) == b"payloae"


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"\x65"), (0, b"\x44"), (6, b"\x20"), (7, b"\x01"), (9, b"\x06"), (22, b"\0\x45"),
     (24, b"\0\x07"), (24, b"\x40\0")],
    ids=["version", "header", "more-fragments", "fragment", "tcp", "port", "small", "large"],
)  # fmt: skip
def test_foreign_packets(at: int, value: bytes) -> None:
    packet = bytearray(arriving(b"payload"))
    packet[at : at + len(value)] = value
    with pytest.raises(ValueError, match=r"."):
        dhcp_messages.payload(bytes(packet), checksum_ready=False)


@given(st.binary(max_size=100))
def test_any_packet(data: bytes) -> None:
    for one in (data, b"\x45" + data):
        try:
            dhcp_messages.payload(one)
        except ValueError:
            continue


def test_constants() -> None:
    assert (str(ANY), str(BROADCAST)) == ("0.0.0.0", "255.255.255.255")
