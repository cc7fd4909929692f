"""The message by which the launcher hands a call over, and the answers to it.

One datagram on a SOCK_SEQPACKET socket: `CNI` and the version's digit, a byte that says which file
descriptors come with it, then NUL-terminated strings: the plugin's name, the number of the caller's
mount namespace, and the environment. Version 1 has neither that number nor the descriptor of the
caller's root. plugins/launcher.c is the other side.
"""

from __future__ import annotations

import array
import os
import socket
from typing import NamedTuple

MAX_MESSAGE_BYTES = 128 * 1024

# A server serves the launchers of its own release, of the one before, and of the one after it,
# which then sends what both know.
OLDEST_VERSION, NEWEST_VERSION = 1, 2

_MAGIC = b"CNI"
_HEAD_BYTES = len(_MAGIC) + 2
_FD_NAMES = ("stdin", "stdout", "stderr", "own_netns", "cwd", "container_netns", "root")
_FDS_OF_VERSION_1 = 6
# As many as the kernel lets one message have (SCM_MAX_FD): those of versions to come are closed.
_MOST_FDS = 253
_REQUIRED = ("own_netns", "cwd")
# Of a number of 64 bits.
_MOST_DIGITS = 20

BEGUN = b"A"
WRITING = b"W"
ENDED = b"X"
REFUSED = b"E"
VERSIONS = b"V" + bytes((OLDEST_VERSION, NEWEST_VERSION))
NOT_SERVED = b"N"
SIGNAL = b"S"


class OtherVersionError(Exception):
    """The message has a version that this server does not know."""


class Handover(NamedTuple):
    """One call as the launcher has sent it; -1 stands for a descriptor that it did not have.

    `mounts` is the number of the caller's mount namespace, 0 where it is not known.
    """

    version: int
    name: str
    mounts: int
    environ: dict[str, str]
    stdin: int
    stdout: int
    stderr: int
    own_netns: int
    cwd: int
    container_netns: int
    root: int

    @property
    def descriptors(self) -> list[int]:
        """Those that came with the message."""
        return [getattr(self, name) for name in _FD_NAMES if getattr(self, name) >= 0]


def receive(connection: socket.socket) -> Handover:
    """Read the call.

    Raises ValueError for a message that is not one, OtherVersionError, and OSError.
    """
    fds = array.array("i")
    space = socket.CMSG_SPACE(_MOST_FDS * fds.itemsize)
    data, ancillary, flags, _ = connection.recvmsg(
        MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    try:
        version = _version(data)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("the message is too long")
        return _parse(version, data, list(fds))
    except (ValueError, OtherVersionError):
        for fd in fds:
            os.close(fd)
        raise


def _version(data: bytes) -> int:
    """Raises ValueError, and OtherVersionError."""
    digit = data[len(_MAGIC) : len(_MAGIC) + 1]
    if data[: len(_MAGIC)] != _MAGIC or not digit.isdigit():
        raise ValueError("the message is not a call")
    if not OLDEST_VERSION <= int(digit) <= NEWEST_VERSION:
        raise OtherVersionError
    return int(digit)


def _parse(version: int, data: bytes, fds: list[int]) -> Handover:
    if len(data) < _HEAD_BYTES or not data.endswith(b"\0"):
        raise ValueError("the message is not a call")
    mask = data[_HEAD_BYTES - 1]
    names = _FD_NAMES[:_FDS_OF_VERSION_1] if version == 1 else _FD_NAMES
    given = [name for bit, name in enumerate(names) if mask & 1 << bit]
    if mask >> len(names) or len(given) != len(fds):
        raise ValueError("the message's file descriptors are not those that it names")
    missing = [name for name in _REQUIRED if name not in given]
    if missing:
        raise ValueError(f"the message lacks {', '.join(missing)}")
    name, *variables = (os.fsdecode(text) for text in data[_HEAD_BYTES:-1].split(b"\0"))
    mounts = 0
    if version > 1:
        if not variables or not (variables[0].isascii() and variables[0].isdigit()):
            raise ValueError("the message lacks the number of the mount namespace")
        mounts = int(variables.pop(0)[:_MOST_DIGITS])
    # Of a variable that is there twice the first one counts, as for getenv(3).
    pairs = (variable.split("=", 1) for variable in reversed(variables) if "=" in variable[1:])
    environ = {key: value for key, value in pairs if key}
    numbers = dict.fromkeys(_FD_NAMES, -1) | dict(zip(given, fds, strict=True))
    return Handover(version, name, mounts, environ, **numbers)
