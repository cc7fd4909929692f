"""State on disk, read warily: what makes no sense is set aside, and the call goes on.

A damaged file goes to the folder `damaged` beside it, under its own name, and stderr says so. It
stays there as a sign that something is not known any more, until the attachment is gone: decision
30. A disk that fails is something else: that is an error, and the file stays where it is.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from contextlib import suppress
from typing import TypeVar

import msgspec

from .errors import kernel_error

DAMAGED = "damaged"
# What a file is called until it is whole.
NEW = ".new"

_CREATING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
# Of one folder; more than that is no accident, and must not fill the disk.
_KEPT = 256
_MOST_BYTES = 1 << 24
_CHUNK = 1 << 16
# What open(2) says of what is no file, or one that even root may not read.
_NO_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES})
# Made when the machine starts, before any clock has been set.
_OLD_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom")
_SLACK_NS = 1_000_000_000

T = TypeVar("T")


def read(path: str) -> bytes | None:
    """A state file's content; None without one, or where it is no file and has been set aside.

    Never follows a link, never waits. Raises OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        set_aside(path, os.strerror(error.errno or 0))
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            set_aside(path, "it is no file")
            return None
        if status.st_size > _MOST_BYTES:
            set_aside(path, f"it has {status.st_size} bytes")
            return None
        data = os.read(fd, _CHUNK)
        while len(data) >= _CHUNK and (more := os.read(fd, _CHUNK)):
            data += more
        return data
    finally:
        os.close(fd)


def load(path: str, kind: type[T]) -> T | None:
    """The JSON file's value; None without one, or where it was damaged. Raises OSError."""
    data = read(path)
    return None if data is None else decode(path, data, kind)


def decode(path: str, data: bytes, kind: type[T]) -> T | None:
    """The value of the JSON that was read from `path`; None where it was damaged."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        set_aside(path, str(error) if data else "it is empty")
        return None


def set_aside(path: str, why: str) -> None:
    """Move what is at `path` out of the way, and say so on stderr.

    One of that name that was set aside before goes. Nothing is raised: where it cannot be moved,
    that is said too.
    """
    target = _aside_of(path)
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        remove(target)
        os.rename(path, target)
        _prune(folder)
    except FileNotFoundError:
        # Another call was faster.
        return
    except OSError as error:
        said = f"and cannot be set aside: {error.strerror}"
    else:
        said = f"and was set aside as {target}"
    sys.stderr.write(f"cni-py: {path} is damaged ({why}) {said}\n")


def was_set_aside(path: str) -> bool:
    """Whether what was at `path` in this boot was damaged: nobody knows what it said."""
    try:
        status = os.lstat(_aside_of(path))
    except OSError:
        return False
    return not is_of_earlier_boot(status.st_ctime_ns)


def write(path: str, data: bytes) -> None:
    """Write a file of mode 0600, and the folder of mode 0700 around it. Raises KernelError.

    It appears whole. It has no name before, so a call that is killed leaves nothing; what replaces
    another has one for a moment, and so has any on a file system without O_TMPFILE.
    """
    try:
        fd = _nameless(os.path.dirname(path))
        if fd is None:
            fd = os.open(path + NEW, _CREATING, 0o600)
            source = ""
        else:
            source = f"/proc/self/fd/{fd}"
        try:
            while data:
                data = data[os.write(fd, data) :]
            if not source or not _linked(fd, source, path):
                if source and not _linked(fd, source, path + NEW):
                    remove(path + NEW)
                    _linked(fd, source, path + NEW)
                os.rename(path + NEW, path)
        finally:
            os.close(fd)
    except OSError as error:
        with suppress(OSError):
            os.unlink(path + NEW)
        raise kernel_error(f"write {path}", error) from error


def _nameless(folder: str) -> int | None:
    """A new file without a name in the folder; None where the file system has none such."""
    flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
    try:
        try:
            return os.open(folder, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(folder, 0o700, exist_ok=True)
            return os.open(folder, flags, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        return None


def _linked(fd: int, source: str, path: str) -> bool:
    """Give the file a name; False if there is one of it."""
    try:
        # With a folder's descriptor, which an absolute path has no use for, the link is followed.
        os.link(source, path, src_dir_fd=fd)
    except FileExistsError:
        return False
    return True


def forget(path: str) -> None:
    """Remove what is at `path`, unfinished, or set aside of it. Raises KernelError."""
    aside = _aside_of(path)
    try:
        remove(path)
        remove(path + NEW)
        if os.path.lexists(aside):
            remove(aside)
            with suppress(OSError):
                os.rmdir(os.path.dirname(aside))
    except OSError as error:
        raise kernel_error(f"remove {path}", error) from error


def remove(path: str) -> None:
    """Remove whatever is at `path`, which may be nothing. Raises OSError."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM) or not os.path.isdir(path):
            raise
        import shutil

        shutil.rmtree(path)


def is_of_earlier_boot(time_ns: int) -> bool:
    """Whether a file's time is before this boot, whatever clocks were set to since.

    A clock that is set forward moves what the kernel says of the boot's beginning too. The oldest
    devices have the time that there was at first.
    """
    began = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if time_ns >= began - _SLACK_NS:
        return False
    for device in _OLD_DEVICES:
        with suppress(OSError):
            began = min(began, os.lstat(device).st_mtime_ns)
    return time_ns < began - _SLACK_NS


def _aside_of(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, DAMAGED, name)


def _prune(folder: str) -> None:
    names = os.listdir(folder)
    if len(names) > _KEPT:
        oldest = min(names, key=lambda name: os.lstat(os.path.join(folder, name)).st_ctime_ns)
        remove(os.path.join(folder, oldest))
