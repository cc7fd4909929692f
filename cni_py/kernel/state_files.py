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

DAMAGED = "damaged"

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


def read(path: str, aside: str = "") -> bytes | None:
    """A state file's content; None without one, or where it is no file and has been set aside.

    `aside` is the folder for what is damaged. Never follows a link, never waits. Raises OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        set_aside(path, os.strerror(error.errno or 0), aside)
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            set_aside(path, "it is no file", aside)
            return None
        if status.st_size > _MOST_BYTES:
            set_aside(path, f"it has {status.st_size} bytes", aside)
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
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        set_aside(path, str(error) if data else "it is empty")
        return None


def set_aside(path: str, why: str, aside: str = "") -> None:
    """Move what is at `path` out of the way, and say so on stderr.

    One of that name that was set aside before goes. Nothing is raised: where it cannot be moved,
    that is said too.
    """
    folder = aside or os.path.join(os.path.dirname(path), DAMAGED)
    target = os.path.join(folder, os.path.basename(path))
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


def forget_aside(path: str) -> None:
    """Remove what was set aside of `path`. Raises OSError."""
    target = _aside_of(path)
    if os.path.lexists(target):
        remove(target)
        with suppress(OSError):
            os.rmdir(os.path.dirname(target))


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
