"""The runtime gives up on a call: a signal is noted, and raised where the call can be left.

A handler that raised would do so between any two instructions: after the kernel has created a link
and before anybody is to undo it, or while a lock is being given back. So it only notes the signal,
and `point` and `waiting` raise it.
"""

from __future__ import annotations

import select
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupted(BaseException):
    """The call is to be left; its cause is the CNI error to report.

    No Exception: what handles failures must not take this for one, and go on.
    """


class _State:
    """One call's: what was noted, and whether the thread waits, or undoes and must not be left."""

    reason = ""
    waiting = False
    shielded = 0


_state = _State()


def note(reason: str) -> None:
    """For a signal's handler: have the call left with `reason`. Only a wait is left at once."""
    _state.reason = _state.reason or reason
    if _state.waiting:
        _state.waiting = False
        point()


def forget() -> None:
    """Begin another call."""
    _state.reason = ""


def point() -> None:
    """Raises Interrupted if the call is to be left."""
    if _state.reason and not _state.shielded:
        raise Interrupted from CniError(Code.TRY_AGAIN_LATER, _state.reason)


@contextmanager
def waiting() -> Iterator[None]:
    """Let a signal cut the block short, which may wait long. Raises Interrupted.

    The block must be such that it may end anywhere: it takes nothing that has to be given back.
    """
    _state.waiting = not _state.shielded
    try:
        point()
        yield
    finally:
        _state.waiting = False


@contextmanager
def shielded() -> Iterator[None]:
    """Let nothing cut the block short: it undoes."""
    _state.shielded += 1
    try:
        yield
    finally:
        _state.shielded -= 1


def wait_writable(fd: int) -> None:
    """Wait until a pipe takes PIPE_BUF bytes; at once for an ordinary file. Raises Interrupted."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    with waiting():
        poll.poll()
