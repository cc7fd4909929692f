"""Asking the kernel things in a network namespace that is thrown away, by a child in it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import msgspec

from .errors import KernelError, kernel_error
from .netns import unshare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CHUNK_BYTES = 64 * 1024


def elsewhere(ask: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """What `ask` says when it is called in a fresh network namespace.

    Raises KernelError: without root there is none to be had.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(ask, writing)
    os.close(writing)
    try:
        data = b"".join(iter(lambda: os.read(reading, _CHUNK_BYTES), b""))
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    if not data:
        what = "look around in a namespace of its own"
        raise kernel_error(what, OSError(os.waitstatus_to_exitcode(status) or 1, ""))
    return msgspec.json.decode(data, type=dict[str, str])


def _answer(ask: Callable[[], Mapping[str, str]], writing: int) -> None:
    """In the child: never returns."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        unshare()
        os.write(writing, msgspec.json.encode(dict(ask())))
        status = 0
    except KernelError as error:
        status = error.errno
    finally:
        os._exit(status)
