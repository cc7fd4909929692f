"""The lock of a network's allocations, which the reference plugin takes too."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from types import FrameType

_SECONDS = 30.0


def take_lock(fd: int, path: str) -> None:
    """flock(2) with a limit. Raises CniError 11, which names the holder, when it passes."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except TimeoutError:
        msg = f"the lock {path} was not free within {_SECONDS:.0f} s"
        raise CniError(Code.TRY_AGAIN_LATER, msg, _holder(fd)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _holder(fd: int) -> str:
    """`held by process N (name)`, from proc(5)'s list of locks."""
    status = os.fstat(fd)
    # btrfs and overlayfs list another device than stat(2) tells: the inode alone is second best.
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    exact, similar = f"{device}:{status.st_ino}", f":{status.st_ino}"
    with open("/proc/locks") as locks:
        held = [fields for fields in map(str.split, locks) if fields[1] == "FLOCK"]
    found = [fields[4] for fields in held if fields[5] == exact]
    found += [fields[4] for fields in held if fields[5].endswith(similar)]
    for pid in found[:1]:
        try:
            with open(f"/proc/{pid}/comm") as comm:
                return f"held by process {pid} ({comm.read().strip()})"
        except FileNotFoundError:
            break
    return "held by a process that cannot be seen from here"
