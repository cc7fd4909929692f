"""The message by which the launcher hands a call over, and the answers to it.

One datagram on a SOCK_SEQPACKET socket: `CNI1`, a byte that says which file descriptors come with
it, then NUL-terminated strings: the plugin's name and the environment. plugins/launcher.c is the
other side.
"""

from __future__ import annotations

import array
import os
import socket
from typing import NamedTuple

MAX_MESSAGE_BYTES = 128 * 1024

_MAGIC = b"CNI1"
_FD_NAMES = ("stdin", "stdout", "stderr", "own_netns", "cwd", "container_netns")
_REQUIRED = ("own_netns", "cwd")

BEGUN = b"A"
WRITING = b"W"
ENDED = b"X"
REFUSED = b"E"
SIGNAL = b"S"


class Handover(NamedTuple):
    """One call as the launcher has sent it; -1 stands for a descriptor that it did not have."""

    name: str
    environ: dict[str, str]
    stdin: int
    stdout: int
    stderr: int
    own_netns: int
    cwd: int
    container_netns: int

    @property
    def descriptors(self) -> list[int]:
        """Those that came with the message."""
        return [getattr(self, name) for name in _FD_NAMES if getattr(self, name) >= 0]


def receive(connection: socket.socket) -> Handover:
    """Read the call. Raises ValueError for a message that is not one, OSError."""
    fds = array.array("i")
    space = socket.CMSG_SPACE(len(_FD_NAMES) * fds.itemsize)
    data, ancillary, flags, _ = connection.recvmsg(
        MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("the message is too long")
        return _parse(data, list(fds))
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise


def _parse(data: bytes, fds: list[int]) -> Handover:
    if data[: len(_MAGIC)] != _MAGIC or len(data) <= len(_MAGIC) or not data.endswith(b"\0"):
        raise ValueError("the message is not a call")
    mask = data[len(_MAGIC)]
    given = [name for bit, name in enumerate(_FD_NAMES) if mask & 1 << bit]
    if mask >> len(_FD_NAMES) or len(given) != len(fds):
        raise ValueError("the message's file descriptors are not those that it names")
    missing = [name for name in _REQUIRED if name not in given]
    if missing:
        raise ValueError(f"the message lacks {', '.join(missing)}")
    name, *variables = (os.fsdecode(text) for text in data[len(_MAGIC) + 1 : -1].split(b"\0"))
    # Of a variable that is there twice the first one counts, as for getenv(3).
    pairs = (variable.split("=", 1) for variable in reversed(variables) if "=" in variable[1:])
    environ = {key: value for key, value in pairs if key}
    numbers = dict.fromkeys(_FD_NAMES, -1) | dict(zip(given, fds, strict=True))
    return Handover(name, environ, **numbers)
