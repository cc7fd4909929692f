"""The kernel's answers, also cut short: what is not understood must not loop, or be taken wrongly.

struct.error, KeyError and the like are let through: the kernel's messages are whole, and skel
reports what is not as code 999. What may not happen is anything that does not end.
"""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, conntrack, kept_routes, links, rule_events, rules, tc
from cni_py.kernel import netlink as transport
from cni_py.kernel.errors import KernelError
from cni_py.kernel.netlink import Netlink, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CUT_SHORT = (struct.error, KeyError, IndexError, ValueError)
_HEADER = struct.Struct("=IHHII")
_MOST_MESSAGES = 1 << 16


def _message(kind: int, body: bytes, flags: int = 2) -> bytes:
    return _HEADER.pack(16 + len(body), kind, flags, 1, 0) + body


def seeds() -> Iterator[bytes]:
    link = bytes(4) + struct.pack("=iII", 2, 1, 0)
    have = transport.attribute(3, b"eth0\0") + transport.attribute(4, struct.pack("=I", 1500))
    have += transport.attribute(18, transport.attribute(1, b"veth\0") + transport.attribute(2, b""))
    yield b"\0" + _message(16, link + have) + _message(3, bytes(4))
    yield b"\1" + _message(2, struct.pack("=i", -17) + _HEADER.pack(16, 16, 5, 1, 0), 0x100)
    yield b"\1" + _message(
        2, struct.pack("=i", -22) + bytes(16) + transport.attribute(1, b"no\0"), 0x300
    )
    address = bytes((2, 24, 0x80, 0, 2, 0, 0, 0)) + transport.attribute(1, b"\n\1\0\2")
    yield b"\2" + _message(20, address + transport.attribute(8, struct.pack("=I", 0x80)))
    route = bytes((2, 8, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0)) + transport.attribute(1, b"\n\0\0\0")
    route += transport.attribute(9, struct.pack("=HBBi", 8, 0, 0, 2)) + transport.attribute(
        5, b"\n\1\0\1"
    )
    yield b"\3" + _message(24, route) + _message(3, bytes(4))
    rule = bytes((2, 0, 32, 0, 100, 0, 0, 1, 0, 0, 0, 0)) + transport.attribute(2, b"\n\1\0\2")
    yield b"\4" + _message(32, rule)
    ends = transport.attribute(
        1, transport.attribute(1, b"\n\1\0\2") + transport.attribute(2, b"\n\1\0\3")
    )
    proto = transport.attribute(2, transport.attribute(1, b"\6") + transport.attribute(3, b"\0P"))
    flow = (
        bytes((2, 0, 0, 0))
        + transport.attribute(1, ends + proto)
        + transport.attribute(2, ends + proto)
    )
    yield b"\5" + _message(0x100, flow)
    qdisc = (
        bytes(4)
        + struct.pack("=iIII", 2, 0x10000, 0xFFFFFFFF, 0)
        + transport.attribute(1, b"u32\0")
    )
    qdisc += transport.attribute(
        2, transport.attribute(5, bytes(16)) + transport.attribute(1, bytes(4))
    )
    yield b"\6" + _message(36, qdisc)
    gone = bytes(4) + transport.attribute(1, b"cni_py\0")
    yield (
        b"\7"
        + _message(0x0A02, gone)
        + _message(0x0A05, bytes(4) + transport.attribute(3, b"CNI-FORWARD\0"))
    )


class _Fed(Netlink):
    """A socket that receives what the fuzzer says."""

    def __init__(self, data: bytes) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.send(data)
        theirs.close()
        self._socket = ours
        self._sequence = 0

    def _send(self, data: bytes) -> None:
        """The kernel has answered before."""


DECODERS: tuple[Callable[[bytes], object], ...] = (
    links._link,
    addresses._flags,
    lambda body: kept_routes.read(body[16:]),
    lambda body: kept_routes._links(body[16:]),
    lambda body: rules._rule(4, body),
    lambda body: list(conntrack._flows(4, [body])),
    tc._filter,
    tc._qdisc,
)


def run(data: bytes) -> None:
    if not data:
        return
    which, content = data[0], data[1:]
    if which == 7:
        rule_events.any_of_ours(content)
        return
    if not content:
        return
    netlink = _Fed(content)
    try:
        messages = netlink._receive()
    finally:
        netlink.close()
    assert len(messages) <= len(content) // 16
    for _, flags, _, body in messages:
        for decode in DECODERS:
            _tolerating(decode, body)
        for read in (transport._acknowledgement, transport._end_of_dump):
            _tolerating(partial(read, flags), body)
    _get(content)


def _get(content: bytes) -> None:
    """One answer and then nothing: the end of the socket ends it too."""
    netlink = _Once(content)
    try:
        netlink.get(Request("look", 18, b""))
    except (KernelError, EOFError, *_CUT_SHORT):
        pass
    finally:
        netlink.close()


class _Once(_Fed):
    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        messages = super()._receive()
        if not messages:
            raise EOFError
        return messages


def _tolerating(decode: Callable[[bytes], object], body: bytes) -> None:
    try:
        decode(body)
    except _CUT_SHORT:
        return
