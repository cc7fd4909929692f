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
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec

from .errors import kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.collection import Collection

DAMAGED = "damaged"
# What a file is called until it is whole.
NEW = ".new"

_CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
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


# For each block of `only_looking` that is entered: what it has been told of.
_only_looked: list[set[str]] = []


@contextmanager
def only_looking() -> Iterator[None]:
    """Leave what is damaged where it is while the block runs: it must change nothing."""
    _only_looked.append(set(_only_looked[-1]) if _only_looked else set())
    try:
        yield
    finally:
        _only_looked.pop()


class DamagedError(Exception):
    """What is at a path cannot be what was written there: the text says why."""


def read(path: str, folder: str = "") -> bytes | None:
    """A state file's content; None without one, or where it is no file and has been set aside.

    `folder` is where to, if not beside it. Raises OSError.
    """
    try:
        return content(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedError as error:
        set_aside(path, str(error), folder)
        return None


def content(path: str) -> bytes:
    """A state file's content. Never follows a link, never waits.

    Raises DamagedError where there is something else, OSError.
    """
    fd = opened(path, os.O_RDONLY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError("it is no file")
        if status.st_size > _MOST_BYTES:
            raise DamagedError(f"it has {status.st_size} bytes")
        data = os.read(fd, _CHUNK)
        while len(data) >= _CHUNK and (more := os.read(fd, _CHUNK)):
            data += more
        return data
    finally:
        os.close(fd)


def opened(path: str, flags: int, mode: int = 0o600) -> int:
    """open(2) that follows no link and waits for no fifo. Raises DamagedError, OSError."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise DamagedError(os.strerror(error.errno or 0)) from error


def load(path: str, kind: type[T], folder: str = "") -> T | None:
    """The JSON file's value; None without one, or where it was damaged. Raises OSError."""
    data = read(path, folder)
    return None if data is None else decode(path, data, kind, folder)


def decode(path: str, data: bytes, kind: type[T], folder: str = "") -> T | None:
    """The value of the JSON that was read from `path`; None where it was damaged."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        set_aside(path, str(error) if data else "it is empty", folder)
        return None


def write(path: str, data: bytes, folder: str = "") -> None:
    """Write a file of mode 0600 in place; what is no file, or has another name, is set aside.

    Raises OSError.
    """
    try:
        fd = _opened_alone(path)
    except DamagedError as error:
        set_aside(path, str(error), folder)
        fd = os.open(path, _CREATING, 0o600)
    try:
        os.ftruncate(fd, 0)
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _opened_alone(path: str) -> int:
    """The file, open for writing and unchanged; made if there is none.

    One with a second name is somebody else's too. Raises DamagedError, OSError.
    """
    fd = opened(path, os.O_WRONLY | os.O_CREAT)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise DamagedError("it has another name, or another owner")


def save(path: str, data: bytes) -> None:
    """`replace`, and make the folder of mode 0700 around the file. Raises KernelError."""
    try:
        try:
            replace(path, data)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            replace(path, data)
    except OSError as error:
        raise kernel_error(f"write {path}", error) from error


def replace(path: str, data: bytes, folder: str = "", spare: str = "") -> None:
    """Write a file of mode 0600 that appears whole or not at all; what is no file is set aside.

    `spare` is its name until then, if not one beside it. Raises OSError.
    """
    spare = spare or path + NEW
    with unnamed(spare, data) as file:
        if file.takes(path):
            return
        file.takes_over(spare)
        try:
            try:
                os.replace(spare, path)
            except IsADirectoryError as error:
                set_aside(path, str(error.strerror), folder)
                os.replace(spare, path)
        except OSError:
            with suppress(OSError):
                os.unlink(spare)
            raise


class Unnamed:
    """A file that is whole and has no name yet, so that a killed call leaves nothing of it.

    Where the file system knows no such thing (O_TMPFILE) it has the name `spare` meanwhile.
    """

    def __init__(self, fd: int, spare: str) -> None:
        self._source = spare or f"/proc/self/fd/{fd}"
        # With a folder's descriptor, which absolute paths have no use for, a link is followed.
        self._folder = None if spare else fd
        self.status = os.fstat(fd)

    def takes(self, path: str) -> bool:
        """Have the name; False if something has it. Raises OSError."""
        try:
            os.link(self._source, path, src_dir_fd=self._folder)
        except FileExistsError:
            return False
        return True

    def takes_over(self, path: str) -> None:
        """Have a name that only a killed call can have left. Raises OSError."""
        if path != self._source and not self.takes(path):
            remove(path)
            self.takes(path)


@contextmanager
def unnamed(spare: str, data: bytes) -> Iterator[Unnamed]:
    """A new file of mode 0600 in the folder of `spare`, for the block to name. Raises OSError."""
    kept = ""
    try:
        fd = os.open(os.path.dirname(spare), os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        remove(spare)
        fd, kept = os.open(spare, _CREATING, 0o600), spare
    try:
        while data:
            data = data[os.write(fd, data) :]
        yield Unnamed(fd, kept)
    finally:
        os.close(fd)
        if kept:
            remove(kept)


def set_aside(path: str, why: str, folder: str = "") -> None:
    """Move what is at `path` out of the way, and say so on stderr.

    `folder` is where to, if not the one beside it. One of that name that was set aside before goes.
    Nothing is raised: where it cannot be moved, that is said too.
    """
    if _only_looked:
        if path not in _only_looked[-1]:
            _only_looked[-1].add(path)
            report(path, why, "and stays: nothing is changed now")
        return
    target = os.path.join(folder, os.path.basename(path)) if folder else _aside_of(path)
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
    report(path, why, said)


def report(path: str, why: str, done: str) -> None:
    """Say on stderr what is damaged, and what was done about it."""
    sys.stderr.write(f"cni-py: {path} is damaged ({why}) {done}\n")


def was_set_aside(path: str) -> bool:
    """Whether what was at `path` in this boot was damaged: nobody knows what it said."""
    try:
        status = os.lstat(_aside_of(path))
    except OSError:
        return False
    return not is_of_earlier_boot(status.st_ctime_ns)


def all_aside(folder: str) -> list[str]:
    """The paths of what was set aside of a folder. Raises KernelError."""
    aside = os.path.join(folder, DAMAGED)
    try:
        return [os.path.join(aside, name) for name in sorted(os.listdir(aside))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise kernel_error(f"list {aside}", error) from error


def taken_aside(folder: str, what: str, collection: Collection) -> list[str]:
    """What was set aside of a folder, of attachments that the collection takes, by their keys.

    `what` it was. Raises KernelError.
    """
    return [one for one in all_aside(folder) if collection.takes(f"{what} {one}", key_of(one))]


def key_of(path: str) -> str:
    """The attachment's key that is the file's name."""
    return os.path.basename(path).partition(".")[0]


def forget(path: str) -> None:
    """Remove what is at `path`, unfinished, or set aside of it. Raises KernelError."""
    aside = _aside_of(path)
    for one in (path, path + NEW, *filter(os.path.lexists, (aside,))):
        discard(one)


def discard(path: str) -> None:
    """Remove one file, or one thing that was set aside, and then its empty folder too.

    Raises KernelError.
    """
    try:
        remove(path)
    except OSError as error:
        raise kernel_error(f"remove {path}", error) from error
    folder = os.path.dirname(path)
    if os.path.basename(folder) == DAMAGED:
        with suppress(OSError):
            os.rmdir(folder)


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
