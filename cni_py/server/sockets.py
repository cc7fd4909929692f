"""The server's sockets: its own, or those that systemd hands over (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FIRST_PASSED_FD = 3
_CREDENTIALS = struct.Struct("=iii")
BACKLOG = 1024


def passed_sockets() -> list[socket.socket]:
    """What systemd, or this process before it executed itself anew, has passed on.

    The first listens for calls, the second, if there is one, for metrics.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    number = int(os.environ.get("LISTEN_FDS", "0"))
    passed = [socket.socket(fileno=_FIRST_PASSED_FD + index) for index in range(number)]
    for one in passed:
        one.set_inheritable(False)
        one.settimeout(0.0)
    return passed


def pass_on(sockets: list[socket.socket]) -> dict[str, str]:
    """Put `sockets` where `passed_sockets` finds them after exec; returns its environment."""
    # Out of the way first: one may lie where another has to go.
    moved = [os.dup(one.fileno()) for one in sockets]
    high = [os.dup2(fd, 100 + index) for index, fd in enumerate(moved)]
    for index, fd in enumerate(high):
        os.dup2(fd, _FIRST_PASSED_FD + index, inheritable=True)
        os.close(fd)
    return {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}


def listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A socket at `path` that only its owner can connect to; a stale one is replaced.

    Raises OSError, EADDRINUSE where somebody listens there.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        if _is_alive(path, kind):
            raise
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


def may_call(connection: socket.socket) -> bool:
    """Whether the peer is root or the server's own user (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return uid in (0, os.geteuid())


def _is_alive(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def children() -> set[int]:
    """The process ids of this process's children (proc(5)); none on a kernel that lists none."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:
            return {int(one) for one in file.read().split()}
    except FileNotFoundError:
        return set()


def sees_the_same_files(connection: socket.socket) -> bool:
    """Whether the peer is in the server's mount namespace, with the same root.

    Elsewhere the configuration's paths, and those of the allocations, may lead to other files.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    # 0 for a process that cannot be seen from here.
    pid, _, _ = _CREDENTIALS.unpack(raw)
    try:
        return all(
            os.path.samestat(os.stat(f"/proc/{pid}/{link}"), os.stat(f"/proc/self/{link}"))
            for link in ("ns/mnt", "root")
        )
    except OSError:
        return False
