"""Network namespaces: open, identify, enter.

setns(2) moves the calling thread only; a plugin's call runs in one thread, and sockets stay in the
namespace that they were opened in.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.spec.errors import CniError

from .errors import KernelError, kernel_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_NS_GET_NSTYPE = 0xB703
_SO_NETNS_COOKIE = 71
_COOKIE_BYTES = 8
# What open(2) says of a path that leads nowhere, is too long to, or leads to a socket or fifo.
_NO_NAMESPACE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ESRCH,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
        errno.ENODEV,
    }
)


class Identity(NamedTuple):
    """What makes two open namespaces the same one (N-05)."""

    device: int
    inode: int


class Netns:
    """An open network namespace; close it, or use it as a context manager."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def __enter__(self) -> Netns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    @property
    def identity(self) -> Identity:
        """Device and inode of the namespace's file."""
        status = os.fstat(self.fd)
        return Identity(status.st_dev, status.st_ino)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the block inside the namespace, then come back. Raises KernelError."""
        home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.fd, f"enter the network namespace {self.path}")
            try:
                yield
            finally:
                _setns(home, "return to the own network namespace")
        finally:
            os.close(home)


_provided: dict[str, int] = {}


def provide(path: str, fd: int) -> None:
    """Let `open_netns(path)` use a descriptor that somebody else has opened there, or -1.

    The caller of a server may see other paths than the server does.
    """
    _provided[path] = fd


@contextmanager
def provided(path: str, fd: int) -> Iterator[None]:
    """The same while the block runs."""
    before = dict(_provided)
    provide(path, fd)
    try:
        yield
    finally:
        _provided.clear()
        _provided.update(before)


def forget_provided() -> None:
    """Take all of that back."""
    _provided.clear()


def of_processes() -> dict[Identity, list[int]]:
    """The namespaces that processes are in, each with their numbers in order.

    Those that cannot be looked at are left out.
    """
    found: dict[Identity, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                status = os.stat(f"/proc/{name}/ns/net")
                found.setdefault(Identity(status.st_dev, status.st_ino), []).append(int(name))
    return {identity: sorted(pids) for identity, pids in found.items()}


def enter_for_good(fd: int) -> None:
    """Move the thread into the namespace behind a descriptor, and stay. Raises KernelError."""
    status = os.fstat(fd)
    if Identity(status.st_dev, status.st_ino) != own_identity():
        _setns(fd, "enter the caller's network namespace")


def open_netns(path: str) -> Netns | None:
    """Open `path`; None where there is no namespace (any more): missing, or an ordinary file.

    A bind mount that was taken off leaves an empty file behind, which is as gone as no file (W-G4).
    Raises KernelError for anything else, such as EACCES.
    """
    if _provided.get(path) == -1:
        return None
    try:
        if path in _provided:
            fd = os.dup(_provided[path])
        else:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_NAMESPACE:
            return None
        raise kernel_error(f"open the network namespace {path}", error) from error
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET:
            return Netns(fd, path)
    except OSError:
        # Not a namespace file at all (ENOTTY).
        pass
    os.close(fd)
    return None


def why_gone(path: str, is_it: Callable[[Netns], bool]) -> str:
    """Why nobody can be in the namespace that was at `path`; `""` where somebody may be.

    `is_it` tells it from another one that took its path.
    """
    try:
        container = open_netns(path)
        if container is None:
            return f"its namespace {path} is gone"
        with container:
            return "" if is_it(container) else f"{path} is another namespace by now"
    except CniError:
        return ""


def is_there(path: str, is_it: Callable[[Netns], bool]) -> bool:
    """Whether the namespace that was at `path` certainly is there still."""
    try:
        container = open_netns(path)
        if container is None:
            return False
        with container:
            return is_it(container)
    except CniError:
        return False


def open_own() -> Netns:
    """The namespace that the thread is in now."""
    return Netns(os.open(OWN, os.O_RDONLY | os.O_CLOEXEC), OWN)


def own_identity() -> Identity:
    """The calling thread's namespace."""
    status = os.stat(OWN)
    return Identity(status.st_dev, status.st_ino)


def cookie_inside(netns: Netns) -> int | None:
    """The number of another namespace. Raises KernelError."""
    with netns.entered():
        return cookie()


def cookie() -> int | None:
    """The number of the namespace that the thread is in, unique until the next boot.

    Inodes are reused as soon as a namespace is gone; cookies are not. None before Linux 5.14.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            value = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE_BYTES)
    except OSError:
        return None
    return int.from_bytes(value, "little" if _LITTLE_ENDIAN else "big")


_LITTLE_ENDIAN = socket.htons(1) != 1


def _setns(fd: int, what: str) -> None:
    if hasattr(os, "setns"):
        try:
            os.setns(fd, _CLONE_NEWNET)
        except OSError as error:
            raise kernel_error(what, error) from error
        return
    # Python 3.11 has no os.setns.
    import ctypes

    if _libc_setns()(fd, _CLONE_NEWNET) != 0:
        raise KernelError(what, ctypes.get_errno())


def unshare(*, mounts: bool = False) -> None:
    """Move this process, for good, to a fresh network namespace, and one of mounts if asked.

    Raises KernelError.
    """
    # Python 3.11 has no os.unshare.
    import ctypes

    flags = _CLONE_NEWNET | (_CLONE_NEWNS if mounts else 0)
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise KernelError("unshare(2)", ctypes.get_errno())


@cache
def _libc_setns() -> Any:
    """libc's function; each look-up of the library would build a class anew."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True).setns
