"""Running another executable, whose end a signal to this process need not wait for.

One that a killed process leaves behind keeps the next call waiting (`inheriting`).
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import subprocess
import time
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

from . import inheriting, interruption, roots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CancelledError", "TimeoutExpired", "run"]

_ENDING_SECONDS = 5.0
_CHUNK_BYTES = 64 * 1024


class CancelledError(Exception):
    """Somebody has given up on the program, which has been ended."""


def run(
    arguments: Sequence[str],
    stdin: bytes,
    *,
    environ: Mapping[str, str] | None = None,
    seconds: float | None = None,
    cancel: int | None = None,
    most: int,
    own_program: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with `stdin`; `most` bytes of each of its streams are collected.

    `own_program` is one that comes with this process, and lies in its own root (`roots`).

    What is more on stderr is dropped; more on stdout is EFBIG. Raises OSError when it cannot be
    started, TimeoutExpired after `seconds`, CancelledError once the descriptor `cancel`
    can be read, and Interrupted; it is ended then: asked to first, for it may have something to
    undo.
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        pass_fds=inheriting.descriptors,
        preexec_fn=roots.go_home if own_program and roots.is_away() else None,  # noqa: PLW1509 - no threads
    )
    with process:
        try:
            with interruption.waiting():
                stdout, stderr = _exchange(process, stdin, seconds, cancel, most)
        except BaseException:
            with interruption.shielded():
                _end(process)
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def _exchange(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    seconds: float | None,
    cancel: int | None,
    most: int,
) -> tuple[bytes, bytes]:
    """Write `stdin` and read both streams to their ends, as each is ready; then wait."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = None if seconds is None else time.monotonic() + seconds
    stdout, stderr = bytearray(), bytearray()
    read = {process.stdout.fileno(): stdout, process.stderr.fileno(): stderr}
    left = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for fd in read:
            selector.register(fd, selectors.EVENT_READ)
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        others = _watch(selector, cancel)
        while len(selector.get_map()) > others:
            for key, _ in selector.select(_rest(process, deadline)):
                if key.fd == cancel:
                    raise CancelledError
                if key.fd not in read:
                    left = _written(key.fd, left)
                    if not left:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                elif data := os.read(key.fd, _CHUNK_BYTES):
                    into = read[key.fd]
                    if len(data) > most - len(into) and into is stdout:
                        raise OSError(errno.EFBIG, f"it wrote more than {most} bytes to stdout")
                    into += data[: most - len(into)]
                else:
                    selector.unregister(key.fd)
    if cancel is not None:
        _wait(process, deadline, cancel)
    process.wait(_rest(process, deadline))
    return bytes(stdout), bytes(stderr)


def _watch(selector: selectors.BaseSelector, cancel: int | None) -> int:
    """Have `cancel` looked at too; how many descriptors that are."""
    if cancel is None:
        return 0
    selector.register(cancel, selectors.EVENT_READ)
    return 1


def _wait(process: subprocess.Popen[bytes], deadline: float | None, cancel: int) -> None:
    """Wait for the end of a program that has closed its streams. Raises CancelledError."""
    ended = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([ended, cancel], [], [], _rest(process, deadline))
    finally:
        os.close(ended)
    if cancel in ready and ended not in ready:
        raise CancelledError


def _rest(process: subprocess.Popen[bytes], deadline: float | None) -> float | None:
    """The seconds that are left. Raises TimeoutExpired."""
    if deadline is None:
        return None
    rest = deadline - time.monotonic()
    if rest <= 0:
        raise TimeoutExpired(process.args, 0)
    return rest


def _written(fd: int, data: memoryview) -> memoryview:
    """What is left to write; nothing where nobody reads it any more."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_ENDING_SECONDS)
    except TimeoutExpired:
        process.kill()
