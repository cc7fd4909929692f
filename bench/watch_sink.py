"""A watch of etcd that counts what comes and keeps nothing: gRPC over HTTP/2, written by hand.

Thousands of clients of a simulation are there for what they cost the store. They read what an agent
reads, for a fraction of the processor time that a whole client takes. RFC 9113, RFC 7541.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING

from aetcd import rpc

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_HEADERS = 0x1, 0x4
_INITIAL_WINDOW, _LARGEST = 4, 2**31 - 1
_FIRST_WINDOW = 65535
_AT_ONCE = 1 << 18
_DELETED = 1


class Sink:
    """`count` is how many records there are below the prefix; `stirred` is when it last changed."""

    def __init__(self, path: str, count: int, done: Callable[[str], None]) -> None:
        """Connect to the unix socket. `done` is told if the stream ends."""
        self.count, self.stirred = count, time.monotonic()
        self._done = done
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.settimeout(0)
        self._frames, self._message = bytearray(), bytearray()

    def begin(self, prefix: bytes, end: bytes, after: int) -> None:
        """Ask for what comes after a revision."""
        window = struct.pack("!I", _LARGEST - _FIRST_WINDOW)
        settings = struct.pack("!HI", _INITIAL_WINDOW, _LARGEST)
        headers = (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/etcdserverpb.Watch/Watch"),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"hasleader", b"true"),
        )
        # Literals that enter no table.
        block = b"".join(
            b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in headers
        )
        create = rpc.WatchCreateRequest(
            key=prefix, range_end=end, start_revision=after + 1, progress_notify=True, fragment=True
        )
        request = rpc.WatchRequest(create_request=create).SerializeToString()
        asked = b"\0" + struct.pack("!I", len(request)) + request
        self._socket.send(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW, 0, 0, window)
            + _frame(_HEADERS, _END_HEADERS, 1, block)
            + _frame(_DATA, 0, 1, asked)
        )
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """End the connection."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        data = self._socket.recv(_AT_ONCE)
        if not data:
            self.close()
            self._done("etcd has closed the connection")
            return
        frames = self._frames
        frames += data
        at = 0
        while len(frames) - at >= 9:
            length = int.from_bytes(frames[at : at + 3], "big")
            if len(frames) - at - 9 < length:
                break
            kind, flags = frames[at + 3], frames[at + 4]
            body = frames[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == _DATA:
                self._message += body
            elif kind == _PING and not flags & _ACK:
                self._socket.send(_frame(_PING, _ACK, 0, bytes(body)))
            elif kind == _SETTINGS and not flags & _ACK:
                self._socket.send(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind in (_RST, _GOAWAY):
                self._done(f"etcd has ended the stream: {bytes(body)!r}")
        del frames[:at]
        self._messages()

    def _messages(self) -> None:
        message = self._message
        at = 0
        while len(message) - at >= 5:
            length = int.from_bytes(message[at + 1 : at + 5], "big")
            if len(message) - at - 5 < length:
                break
            found = rpc.WatchResponse.FromString(bytes(message[at + 5 : at + 5 + length]))
            at += 5 + length
            if found.canceled:
                self._done(f"the watch was ended: {found.cancel_reason}")
            for event in found.events:
                if event.type == _DELETED:
                    self.count -= 1
                    self.stirred = time.monotonic()
                elif event.kv.version == 1:
                    self.count += 1
                    self.stirred = time.monotonic()
        del message[:at]


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body
