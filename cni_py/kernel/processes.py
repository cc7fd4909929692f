"""Running another executable, whose end a signal to this process need not wait for."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from . import interruption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENDING_SECONDS = 5.0


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
