"""Listening on a unix socket: one's own, or those that systemd hands over (sd_listen_fds(3))."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from .own_folders import not_own

if TYPE_CHECKING:
    from pathlib import Path

FIRST_PASSED_FD = 3
_CREDENTIALS = struct.Struct("=iii")
_BACKLOG = 1024


def passed_sockets() -> list[socket.socket]:
    """What systemd, or this process before it executed itself anew, has passed on."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    number = int(os.environ.get("LISTEN_FDS", "0"))
    passed = [socket.socket(fileno=FIRST_PASSED_FD + index) for index in range(number)]
    for one in passed:
        one.set_inheritable(False)
        one.settimeout(0.0)
    return passed


class Place(NamedTuple):
    """A socket's file, and which file it is: another server may have taken the path since."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Place:
        """What is at the path now. Raises OSError."""
        status = path.stat()
        return cls(path, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Take the file away if it is this one still. Raises OSError."""
        try:
            if Place.of(self.path) == self:
                self.path.unlink()
        except FileNotFoundError:
            return


def listen(path: Path, kind: socket.SocketKind, *, take_over: bool = False) -> socket.socket:
    """A socket at `path` that only its owner can connect to; a stale one is replaced.

    `take_over` replaces also one that somebody listens on, in one step: who connects finds the one
    or the other. Raises OSError: EADDRINUSE where somebody listens there, or where it is something
    else.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_safe(path)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if take_over and (path.is_socket() or not os.path.lexists(path)):
        spare = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        _bind(listener, spare)
        listener.listen(_BACKLOG)
        spare.replace(path)
        return listener
    try:
        _bind(listener, path)
    except OSError:
        if _is_alive(path, kind) or not path.is_socket():
            raise
        path.unlink(missing_ok=True)
        _bind(listener, path)
    listener.listen(_BACKLOG)
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)


def may_call(connection: socket.socket) -> bool:
    """Whether the peer is root or the server's own user (SO_PEERCRED, unix(7))."""
    return _peer(connection)[1] in (0, os.geteuid())


def sees_the_same_files(connection: socket.socket) -> bool:
    """Whether the peer is in the server's mount namespace, with the same root.

    Elsewhere the configuration's paths, and those of the allocations, may lead to other files.
    """
    pid = _peer(connection)[0]
    try:
        return all(
            os.path.samestat(os.stat(f"/proc/{pid}/{link}"), os.stat(f"/proc/self/{link}"))
            for link in ("ns/mnt", "root")
        )
    except OSError:
        return False


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process id and user of the other end; 0 for a process that cannot be seen from here."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def _require_safe(path: Path) -> None:
    """Raises OSError where somebody else could put a socket of their own in this one's place."""
    folder = os.fspath(path.parent.resolve())
    problem = not_own(folder)
    if problem and not os.stat(folder).st_mode & stat.S_ISVTX:
        raise OSError(errno.EACCES, f"{folder} {problem}", os.fspath(path))


def _is_alive(path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
