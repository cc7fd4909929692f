"""Running another executable, whose end a signal to this process need not wait for.

One that a killed process leaves behind keeps the next call waiting (`inheriting`).
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import interruption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ENDING_SECONDS = 5.0

_inherited: list[int] = []


@contextmanager
def inheriting(fd: int) -> Iterator[None]:
    """Let the programs that the block runs have `fd` too: a lock on it lasts until they end.

    A killed call leaves them behind, and what they still do must not come after the next call.
    """
    _inherited.append(fd)
    try:
        yield
    finally:
        _inherited.remove(fd)


def run(
    arguments: Sequence[str],
    stdin: bytes,
    *,
    environ: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with `stdin`; its streams are collected.

    Raises OSError when it cannot be started, subprocess.TimeoutExpired after `seconds`, and
    Interrupted; it is ended then: asked to first, for it may have something to undo.
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        pass_fds=_inherited,
    )
    with process:
        try:
            with interruption.waiting():
                stdout, stderr = process.communicate(stdin, seconds)
        except BaseException:
            with interruption.shielded():
                _end(process)
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
