"""The server's side of the launcher's message, and what a worker reports: bytes and descriptors."""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING

import msgspec

from cni_py.server import handover, worker
from cni_py.server.metrics import Metrics
from fuzz.target import require_told

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (
    "CNI1",
    "CNI2",
    "CNI9",
    "4026531840",
    "bridge",
    "CNI_COMMAND=ADD",
    "CNI_NETNS=",
    "PATH=",
    "=",
)
_NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
_MOST_FDS = 253


def seeds() -> Iterator[bytes]:
    for mask, count in ((0x3F, 6), (0x1F, 5), (0x18, 2), (0, 0), (0x3F, 7)):
        yield bytes((count,)) + b"CNI1" + bytes((mask,)) + b"bridge\0CNI_COMMAND=ADD\0A=\0=B\0"
    body = b"bridge\x004026531840\0CNI_COMMAND=ADD\0A=B\0"
    for mask, count in ((0x7F, 7), (0x58, 3), (0xFF, 8)):
        yield bytes((count,)) + b"CNI2" + bytes((mask,)) + body
    yield bytes((9,)) + b"CNI9" + bytes((0xFF,)) + body
    yield b"\0" + msgspec.json.encode(worker.Report(plugin="bridge", verb="ADD", code=7))


def run(data: bytes) -> None:
    if not data:
        return
    count, message = data[0] % (_MOST_FDS + 1), data[1:]
    before = _open_descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        fds = array.array("i", [_NULL] * count)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if count else []
        ours.sendmsg([message], rights)
        try:
            call = handover.receive(theirs)
        except handover.OtherVersionError:
            assert message[3:4] not in (b"1", b"2")
        except ValueError as error:
            require_told(error)
        else:
            assert all("\0" not in key + value for key, value in call.environ.items())
            worker._shown(call.name).encode()
            assert len(call.descriptors) == count
            for fd in call.descriptors:
                os.close(fd)
    assert _open_descriptors() == before
    _report(message)


def _open_descriptors() -> int:
    """The number that the next file would get: none below it is free."""
    fd = os.dup(_NULL)
    os.close(fd)
    return fd


def _report(message: bytes) -> None:
    try:
        told = msgspec.json.decode(message, type=worker.Report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    metrics = Metrics()
    metrics.count(told.plugin, told.verb, told.code, told.milliseconds)
    metrics.text({})
