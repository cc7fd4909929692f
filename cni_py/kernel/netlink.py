"""A synchronous rtnetlink transport.

rtnetlink answers before `send` returns, so a blocking socket needs no event loop: send a batch,
read the acknowledgements. Strict checking and extended acknowledgements are on (netlink(7)).
"""

from __future__ import annotations

import errno
import socket
import struct
import time

# threading.local, without the rest of threading.
from _thread import _local
from typing import TYPE_CHECKING, Any, NamedTuple

from . import interruption
from .errors import KernelError, kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_RECEIVE_BUFFER_BYTES = 1 << 20
# The kernel fills dumps in pieces of at most 32 KiB; one link with many VFs can be larger.
_DATAGRAM_BYTES = 1 << 18


class _Room(_local):
    """One for all sockets of a thread: room for each answer would be asked of the kernel each time.

    Threads must not share one: another's answer would be in it before this one's has been read.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_DATAGRAM_BYTES))


_room = _Room()

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
CREATE = NLM_F_CREATE | NLM_F_EXCL

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NLA_TYPE_MASK = 0x3FFF
_DUMP_SECONDS = 10.0

RTMGRP_LINK = 1


class Request(NamedTuple):
    """One message to the kernel, without its header, and what it is for in an error's words."""

    what: str
    type: int
    message: bytes
    flags: int = 0
    tolerate: frozenset[int] = frozenset()


class Netlink:
    """A socket in the network namespace that it was opened in, whatever the thread enters later."""

    def __init__(self, groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> None:
        """Raises KernelError."""
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, groups))
        except OSError as error:
            raise kernel_error("open a netlink socket", error) from error
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor, to be waited for."""
        return self._socket.fileno()

    def submit(self, *requests: Request) -> None:
        """Send all requests in one batch; the kernel carries out each, also after one failed.

        Raises KernelError for the first that failed with an errno it does not tolerate.
        """
        if not requests:
            return
        first = self._sequence + 1
        self._send(b"".join(self.encode(one, NLM_F_ACK) for one in requests))
        failed: dict[int, tuple[int, str]] = {}
        waiting = len(requests)
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind != _NLMSG_ERROR or not first <= sequence < first + len(requests):
                    continue
                waiting -= 1
                failed[sequence - first] = _acknowledgement(flags, body)
        for index, request in enumerate(requests):
            number, text = failed[index]
            if number and number not in request.tolerate:
                raise KernelError(request.what, number, text)

    def get(self, request: Request) -> bytes | None:
        """The message with the object asked for, None if the kernel says that there is none.

        Raises KernelError for anything but the errnos that the request tolerates.
        """
        self._send(self.encode(request, 0))
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind != _NLMSG_ERROR:
                    return body
                number, text = _acknowledgement(flags, body)
                if number in request.tolerate:
                    return None
                raise KernelError(request.what, number or errno.ENODATA, text)

    def dump(self, request: Request) -> list[bytes]:
        """The messages with all objects of a kind, from one consistent dump.

        An errno that the request tolerates stands for none. A dump that the kernel marks as
        interrupted is taken again. Raises KernelError, with EINTR
        when it was interrupted each time in 10 s: half a list must not pass for the whole (W-G6).
        Raises Interrupted between two attempts.
        """
        deadline = time.monotonic() + _DUMP_SECONDS
        while True:
            objects, complete = self._dump_once(request)
            if complete:
                return objects
            if time.monotonic() > deadline:
                break
            interruption.point()
        raise KernelError(request.what, errno.EINTR, "the dump was interrupted each time")

    def events(self, deadline: float) -> Iterator[bytes]:
        """The messages that the joined groups report until `deadline` (of time.monotonic()).

        An empty one stands for reports that the kernel had no room for: look again.
        """
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                with interruption.waiting():
                    received = self._receive()
            except TimeoutError:
                return
            except KernelError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield b""
                continue
            finally:
                self._socket.settimeout(None)
            for _, _, _, body in received:
                yield body

    def pending(self) -> Iterator[bytes]:
        """What `events` would yield without waiting."""
        self._socket.settimeout(0)
        try:
            while True:
                try:
                    received = self._receive()
                except KernelError as error:
                    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                        return
                    if error.errno != errno.ENOBUFS:
                        raise
                    yield b""
                    continue
                for _, _, _, body in received:
                    yield body
        finally:
            self._socket.settimeout(None)

    def _dump_once(self, request: Request) -> tuple[list[bytes], bool]:
        self._send(self.encode(request, NLM_F_DUMP))
        objects: list[bytes] = []
        complete = True
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                complete = complete and not flags & NLM_F_DUMP_INTR
                if kind == _NLMSG_DONE:
                    number, text = _end_of_dump(flags, body)
                    if number and number not in request.tolerate:
                        raise KernelError(request.what, number, text)
                    return objects, complete
                if kind == _NLMSG_ERROR:
                    number, text = _acknowledgement(flags, body)
                    if number in request.tolerate:
                        return objects, complete
                    raise KernelError(request.what, number, text)
                objects.append(body)

    def encode(self, request: Request, flags: int) -> bytes:
        """The request's message, with the socket's next sequence number."""
        self._sequence += 1
        length = _HEADER.size + len(request.message)
        together = NLM_F_REQUEST | request.flags | flags
        header = _HEADER.pack(length, request.type, together, self._sequence, 0)
        return header + request.message

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise kernel_error("send to netlink", error) from error

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """The (type, flags, sequence, body) of each message of one datagram."""
        try:
            room = _room.view
            data = bytes(room[: self._socket.recv_into(room)])
        except TimeoutError:
            raise
        except OSError as error:
            raise kernel_error("receive from netlink", error) from error
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            messages.append((kind, flags, sequence, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return messages


def decode(kind: str, body: bytes) -> Any:
    """A message as pyroute2's class of that name reads it."""
    # They take 35 ms to load, which most calls do without.
    from . import messages

    message = getattr(messages, kind)(body)
    message.decode()
    return message


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on, by number, without the flags in it; the last one counts."""
    found = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _end_of_dump(flags: int, body: bytes) -> tuple[int, str]:
    """The errno (0 for success) and the extended text of an NLMSG_DONE: a dump can fail midway."""
    if len(body) < _HEADER.size + 4:
        return 0, ""
    (code,) = struct.unpack_from("=i", body, _HEADER.size)
    told = attributes(body, _HEADER.size + 4) if flags & NLM_F_ACK_TLVS else {}
    return max(-code, 0), told.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")


def _acknowledgement(flags: int, body: bytes) -> tuple[int, str]:
    """The errno (0 for success) and the extended text of an NLMSG_ERROR."""
    (code,) = struct.unpack_from("=i", body, _HEADER.size)
    if not flags & NLM_F_ACK_TLVS:
        return -code, ""
    # The offending header follows the code; capped, without its payload.
    offset = _HEADER.size + 4
    (echoed,) = struct.unpack_from("=I", body, offset)
    offset += _HEADER.size if flags & NLM_F_CAPPED else (echoed + 3) & ~3
    text = attributes(body, offset).get(_NLMSGERR_ATTR_MSG, b"")
    return -code, text.rstrip(b"\0").decode(errors="replace")
