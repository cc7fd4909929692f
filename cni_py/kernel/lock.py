"""Locks on files: flock(2) with a limit, and one that an attachment has while it changes."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from cni_py.spec.errors import CniError, Code

from . import interruption, markers, proc
from .inheriting import inheriting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import FrameType

    from cni_py.spec.attachment import Attachment
    from cni_py.spec.collection import Collection

    from .netns import Netns

_SECONDS = 30.0
FOLDER = "/run/cni-py/attachments"
# When a lock, by its path, was last waited for in vain.
_in_vain: dict[str, float] = {}


@contextmanager
def alone(plugin: str, attachment: Attachment) -> Iterator[None]:
    """Let no other call of the plugin change the attachment while the block runs.

    A DEL that comes while an ADD still runs, or undoes itself, would take away half of what the
    next ADD sets up. Programs that the block runs have the lock too: where this process is killed
    the next call waits for their end. Raises CniError 11 after 30 s. Where /run cannot be written,
    nobody waits.
    """
    path = f"{FOLDER}/{plugin}-{attachment.key}"
    while (lock := _opened(path)) is not None:
        try:
            take_lock(lock, path)
            # Who has had it before has removed the file: the lock is on the one that is there now.
            if not is_at(path, lock):
                continue
            try:
                with inheriting(lock):
                    yield
            finally:
                # The call has been answered, and systemd takes the folder away with the service.
                with suppress(OSError):
                    os.unlink(path)
            return
        finally:
            os.close(lock)
    yield


def collect(plugin: str, collection: Collection) -> None:
    """Remove the files of `alone` that a killed call has left: nobody holds a lock on them."""
    begin = f"{plugin}-{collection.prefix}"
    try:
        names = [one for one in os.listdir(FOLDER) if one.startswith(begin)]
    except OSError:
        return
    for name in names:
        key = name.removeprefix(f"{plugin}-")
        with _unheld(f"{FOLDER}/{name}") as path:
            if path and collection.takes(f"lock {path}", key, lambda: "no call holds it"):
                os.unlink(path)


@contextmanager
def _unheld(path: str) -> Iterator[str]:
    """The path while nobody else can get the lock; `""` where somebody has it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield ""
        return
    try:
        yield path if try_lock(lock) and is_at(path, lock) else ""
    finally:
        os.close(lock)


@contextmanager
def alone_in(container: Netns) -> Iterator[None]:
    """Let no other call change the container's namespace while the block runs.

    The lock is on the namespace itself, as the reference's is: there is no file at its path to
    create, and none to leave behind (W-SB1). Raises CniError 11 after 30 s, and Interrupted.
    """
    take_lock(container.fd, container.path)
    try:
        yield
    finally:
        fcntl.flock(container.fd, fcntl.LOCK_UN)


def _opened(path: str) -> int | None:
    try:
        try:
            return markers.opened(path)
        except FileNotFoundError:
            os.makedirs(FOLDER, 0o700, exist_ok=True)
            return markers.opened(path)
    except OSError:
        return None


def is_at(path: str, fd: int) -> bool:
    """Whether what is open is still what is at the path. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def changing_rules() -> Iterator[None]:
    """Change records and rules together, while nobody restores rules from records.

    Raises CniError 11 after 30 s.
    """
    with on_folder(FOLDER, fcntl.LOCK_SH):
        yield


@contextmanager
def restoring_rules() -> Iterator[None]:
    """Let nobody change records and rules while the block runs. Raises CniError 11 after 30 s."""
    with on_folder(FOLDER):
        yield


@contextmanager
def on_folder(path: str, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock on a folder itself, which is made: nothing is left of it after a crash.

    Where /run cannot be written, nobody waits. Raises CniError 11 after 30 s.
    """
    fd = _opened_folder(path)
    if fd is None:
        yield
        return
    try:
        take_lock(fd, path, kind)
        yield
    finally:
        os.close(fd)


def _opened_folder(path: str) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            os.makedirs(path, 0o700, exist_ok=True)
            return os.open(path, flags)
    except OSError:
        return None


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """flock(2) without waiting; whether the lock was free. Raises OSError."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_lock(fd: int, path: str, kind: int = fcntl.LOCK_EX) -> None:
    """flock(2) with a limit. Raises CniError 11, which names the holder, when it passes.

    One that was waited for in vain is not waited for again so soon: what the call does about its
    failure needs the same locks. Raises Interrupted.
    """
    if try_lock(fd, kind):
        return
    if time.monotonic() - _in_vain.get(path, -math.inf) < _SECONDS:
        raise _not_free(fd, path)

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        with interruption.waiting():
            fcntl.flock(fd, kind)
    except TimeoutError:
        _in_vain[path] = time.monotonic()
        raise _not_free(fd, path) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _not_free(fd: int, path: str) -> CniError:
    msg = f"the lock {path} was not free within {_SECONDS:.0f} s"
    return CniError(Code.TRY_AGAIN_LATER, msg, _holder(os.fstat(fd)))


def holder_of(path: str) -> str:
    """`held by process N (name)`, of a file that another program locks."""
    try:
        return _holder(os.stat(path))
    except OSError as error:
        return f"which cannot be looked at: {error.strerror}"


class Holder(NamedTuple):
    """Who has a lock: `held by process N (name)`, and for how long that process has been there."""

    pid: int
    text: str
    seconds: float


def holders(paths: Iterable[str]) -> dict[str, Holder]:
    """Who has the locks of files, by path; one that nobody is seen to have is not among them."""
    # All processes are looked through, which is slow on a large host: once for all paths.
    heirs = cache(_heirs)
    found = {}
    for path in paths:
        with suppress(OSError):
            one = next(_holders(os.stat(path), heirs), None)
            # That can be somebody with a file of the same inode in another file system.
            if one is not None and not _is_free(path):
                found[path] = one
    return found


def _is_free(path: str) -> bool:
    """Whether nobody holds the file's lock. Raises OSError."""
    with _unheld(path) as free:
        return bool(free)


def _holder(status: os.stat_result) -> str:
    found = next(_holders(status, _heirs), None)
    return "held by a process that cannot be seen from here" if found is None else found.text


def _holders(
    status: os.stat_result, heirs: Callable[[], Mapping[str, Sequence[str]]]
) -> Iterator[Holder]:
    """The same from proc(5)'s list of locks."""
    # btrfs and overlayfs list another device than stat(2) tells: the inode alone is second best.
    device, inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", status.st_ino
    with open("/proc/locks") as locks:
        held = [fields for fields in map(str.split, locks) if fields[1] == "FLOCK"]
    found = [fields[4] for fields in held if fields[5] == f"{device}:{inode}"]
    found += [fields[4] for fields in held if fields[5].endswith(f":{inode}")]
    yield from _described(found[:1])
    yield from _described(heirs().get(str(inode), ()))


def _described(pids: Iterable[str]) -> Iterator[Holder]:
    for pid in pids:
        with suppress(OSError):
            text = f"held by {proc.described(int(pid))}"
            began = _started(pid) / os.sysconf("SC_CLK_TCK")
            yield Holder(int(pid), text, time.clock_gettime(time.CLOCK_BOOTTIME) - began)


def _heirs() -> dict[str, list[str]]:
    """Who has locks that a process has taken which is gone: by inode, the oldest one first.

    What that one has started in turn has them too. The files themselves are not asked: one of a
    server that is away does not answer.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fdinfo"):
                with suppress(OSError), open(f"/proc/{pid}/fdinfo/{fd}") as about:
                    for inode in _locked_in(about):
                        found.setdefault(inode, []).append((_started(pid), pid))
    return {inode: [pid for _, pid in sorted(own)] for inode, own in found.items()}


def _locked_in(about: Iterable[str]) -> Iterator[str]:
    """The inodes of the locks in a file of /proc/PID/fdinfo (proc(5)): `... 00:2a:567 0 EOF`."""
    for line in about:
        fields = line.split()
        if "FLOCK" in fields:
            yield fields[-3].rpartition(":")[2]


def _started(pid: str) -> int:
    """When the process began, in ticks since boot (proc(5)). Raises OSError."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])
