"""A program that goes on without who has started it: found again, told to end.

Nothing is believed of a number in a file: the process at it may be another one by now. What it was
started with and its network namespace tell that it is the program, and it is signalled by a
descriptor (pidfd_open(2)) which has been opened before that was looked at.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from . import proc
from .netns import Identity, own_identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_TERM_SECONDS = 2.0
_KILL_SECONDS = 5.0
# Of cgroups(7), version 2 and the hierarchy that systemd has where version 1 is mounted.
_CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
_PROCESSES = "cgroup.procs"


class Daemon:
    """A running process; close it, or use it as a context manager. `fd` is readable at its end."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; the process goes on."""
        os.close(self.fd)

    def described(self) -> str:
        """`process N (name)`, and whether it is stopped."""
        try:
            return proc.described(self.pid)
        except OSError:
            return f"process {self.pid}, which has ended"

    def end(self) -> bool:
        """Have it end, and wait for that; whether it has. Raises OSError."""
        for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
            try:
                signal.pidfd_send_signal(self.fd, number)
            except ProcessLookupError:
                return True
            if select.select([self.fd], [], [], seconds)[0]:
                return True
        return False


def find(arguments: Sequence[str], hint: int | None = None) -> Daemon | None:
    """The process of this network namespace that was started with such arguments.

    The first argument is a file's name, in whatever folder. `hint` is a number that it may have;
    without it all processes are looked through.
    """
    if os.readlink("/proc/self") != str(os.getpid()):
        # Of another namespace of processes: its numbers mean others here.
        return None
    numbers = _processes() if hint is None else (hint,)
    return next(_found(arguments, numbers), None)


def leave_cgroup(pid: int, name: str) -> None:
    """Move a process out of the control group of who has started it, to one called `name`.

    systemd ends what is in a unit's group with the unit. Where that cannot be done, as in a
    container, it stays.
    """
    for root in _CGROUP_ROOTS:
        if not os.path.exists(f"{root}/{_PROCESSES}"):
            continue
        with suppress(OSError):
            os.makedirs(f"{root}/{name}", exist_ok=True)
            with open(f"{root}/{name}/{_PROCESSES}", "w") as file:
                file.write(str(pid))


def remove_cgroup(name: str) -> None:
    """Remove the group if nobody is in it."""
    for root in _CGROUP_ROOTS:
        with suppress(OSError):
            os.rmdir(f"{root}/{name}")


def _found(arguments: Sequence[str], numbers: Iterable[int]) -> Iterator[Daemon]:
    own = own_identity()
    for number in numbers:
        try:
            # Cheaply first: it is done for every process.
            if _arguments(number)[1:] != list(arguments[1:]):
                continue
            one = Daemon(number, os.pidfd_open(number))
        except (OSError, ValueError, OverflowError):
            continue
        if _is_it(one, arguments, own):
            yield one
        else:
            one.close()


def _is_it(one: Daemon, arguments: Sequence[str], own: Identity) -> bool:
    try:
        name, *rest = _arguments(one.pid)
        status = os.stat(f"/proc/{one.pid}/ns/net")
    except (OSError, ValueError):
        return False
    is_there = not select.select([one.fd], [], [], 0)[0]
    same = os.path.basename(name) == arguments[0] and rest == list(arguments[1:])
    return is_there and same and Identity(status.st_dev, status.st_ino) == own


def _arguments(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return [os.fsdecode(one) for one in file.read().split(b"\0")[:-1]]


def _processes() -> Iterator[int]:
    return (int(one) for one in os.listdir("/proc") if one.isdecimal())
