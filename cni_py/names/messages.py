"""Questions to a DNS server and its answers, as far as its own names need them (RFC 1035)."""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

_HEADER = struct.Struct(">HHHHHH")
_QUESTION = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")
_RECURSION_DESIRED = 0x0100
_ANSWERS = 0x8000
_TRUNCATED = 0x0200
_CODE_BITS = 0xF
_IN = 1
_POINTER_BITS = 0xC0
_POINTER_BYTES = 2


class Kind(IntEnum):
    """What is asked for."""

    A = 1
    AAAA = 28


class Answer(NamedTuple):
    """What a server said: the response code, and the addresses; not all where it is cut off."""

    code: int
    addresses: frozenset[IP]
    is_cut_off: bool


def kind_of(address: IP) -> Kind:
    """The kind of record that has such an address."""
    return Kind.A if address.version == 4 else Kind.AAAA


def question(number: int, name: str, kind: Kind) -> bytes:
    """The message that asks for a name, which is one of DNS."""
    encoded = b"".join(bytes([len(one)]) + one.encode("ascii") for one in name.split("."))
    head = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
    return head + encoded + b"\0" + _QUESTION.pack(kind, _IN)


def answer(message: bytes, number: int, kind: Kind) -> Answer | None:
    """What a message says; None where it does not answer the question of that number.

    Raises ValueError for what is no message.
    """
    try:
        found, flags, questions, records, _, _ = _HEADER.unpack_from(message)
        if found != number or not flags & _ANSWERS:
            return None
        place = _HEADER.size
        for _ in range(questions):
            place = _after_name(message, place) + _QUESTION.size
        addresses = set()
        for _ in range(records):
            place = _after_name(message, place)
            is_kind, _, _, length = _RECORD.unpack_from(message, place)
            place += _RECORD.size
            if is_kind == kind:
                addresses.add(ip_address(message[place : place + length]))
            place += length
    except (struct.error, IndexError) as error:
        raise ValueError("the message ends too early") from error
    return Answer(flags & _CODE_BITS, frozenset(addresses), bool(flags & _TRUNCATED))


def _after_name(message: bytes, place: int) -> int:
    while length := message[place]:
        if length & _POINTER_BITS:
            return place + _POINTER_BYTES
        place += 1 + length
    return place + 1
