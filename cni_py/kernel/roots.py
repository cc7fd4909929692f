"""Acting in the files of another root folder, and coming back (chroot(2)).

A path walked from a descriptor of somebody's root sees his mounts, whatever mount namespace this
process is in; setns(2) into that namespace would take its threads and what it has open along.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .errors import kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OWN_MOUNTS = "/proc/self/ns/mnt"
_INFO_BYTES = 1024
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Identity(NamedTuple):
    """What makes two open folders the same place: the folder, and the mount it is seen through."""

    device: int
    inode: int
    mount: int


class Root(NamedTuple):
    """An open root folder, and the number of the mount namespace that it belongs to."""

    fd: int
    mounts: int


# Where this process acts when that is not in its own root, and its own, open, for the way back.
_away: Root | None = None
_home: Root | None = None


def own() -> Root:
    """The root of this process, opened. Raises OSError."""
    return Root(os.open("/", _OPEN), os.stat(_OWN_MOUNTS).st_ino)


def of_process(path: Path) -> Root:
    """The root at `/proc/PID/root`, opened. Raises OSError: also for any other path."""
    fd = os.open(path, _OPEN)
    try:
        return Root(fd, os.stat(path.parent / "ns" / "mnt").st_ino)
    except OSError as error:
        os.close(fd)
        text = "not the root of a process, as /proc/1/root is"
        raise OSError(error.errno, text, os.fspath(path)) from error


def identity(fd: int) -> Identity:
    """Of an open folder; asked while this process is in its own root. Raises OSError."""
    status = os.fstat(fd)
    # By hand, for each call is asked: a file object takes four times as long.
    about = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(about, _INFO_BYTES)
    finally:
        os.close(about)
    # The kernel's own number of the mount, which two that are there at once never share.
    number = text.partition(b"mnt_id:")[2].split(None, 1)[0]
    return Identity(status.st_dev, status.st_ino, int(number))


def own_identity() -> Identity:
    """Of this process's root. Raises OSError."""
    root = own()
    try:
        return identity(root.fd)
    finally:
        os.close(root.fd)


def enter(root: Root) -> None:
    """Act in another root from here on; it is the working folder then.

    Raises KernelError, and leaves this process where it was.
    """
    global _away, _home
    home = _home
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        home = home or own()
        os.fchdir(root.fd)
        os.chroot(".")
    except OSError as error:
        os.fchdir(before)
        if home is not None and home is not _home:
            os.close(home.fd)
        raise kernel_error("enter the caller's root folder", error) from error
    finally:
        os.close(before)
    _away, _home = root, home


def leave() -> None:
    """Be in the own root again, which is the working folder then. Raises OSError."""
    global _away, _home
    if _home is None:
        os.chdir("/")
        return
    go_home()
    os.close(_home.fd)
    _away = _home = None


def is_away() -> bool:
    """Whether another root is acted in."""
    return _away is not None


def go_home() -> None:
    """`leave` of a child process that executes a program of this one's own. Raises OSError."""
    if _home is not None:
        os.fchdir(_home.fd)
        os.chroot(".")


@contextmanager
def inside(root: Root | None) -> Iterator[None]:
    """Act in another root while the block runs; None changes nothing. Raises KernelError."""
    if root is None:
        yield
        return
    enter(root)
    try:
        yield
    finally:
        leave()


def mounts() -> int:
    """The number of the mount namespace whose files this process acts in. Raises OSError."""
    return os.stat(_OWN_MOUNTS).st_ino if _away is None else _away.mounts
