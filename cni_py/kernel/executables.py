"""Executing a plugin: finding its file, running it, and what its end means (spec.md 12).

Whoever executes a plugin does it here: an interface plugin its delegate, a runtime its chain.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING

from cni_py.spec import delegation
from cni_py.spec.errors import CniError, Code, code_of
from cni_py.spec.limits import MOST_DELEGATE_BYTES

from . import interruption, processes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

_BUSY_ATTEMPTS = 6
_BUSY_PAUSE_SECONDS = 1.0


def find(name: str, path: str) -> str:
    """The first regular file of the name in a folder of CNI_PATH (F-02).

    Raises CniError 7 for what is no name, 999 where there is none.
    """
    delegation.validate_plugin_name(name)
    for folder in delegation.search_folders(path):
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate):
            return candidate
    raise delegation.not_found(name, path)


def execute(
    path: str,
    environ: Mapping[str, str],
    stdin: bytes,
    *,
    says: Callable[[str], None],
    seconds: float | None = None,
    cancel: int | None = None,
) -> bytes:
    """Run the executable; its stdout. What it wrote to stderr goes to `says`, if it is anything.

    Raises CniError: the plugin's own where it failed, 0 where it did not say why, 11 where it was
    ended because `seconds` had passed; and processes.CancelledError once `cancel` can be read.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    done = _run(path, environ, stdin, deadline, cancel)
    if done.stderr:
        says(done.stderr.decode(errors="replace"))
    if done.returncode != 0:
        number = done.returncode
        status = f"exit status {number}" if number > 0 else f"signal: {-number}"
        raise delegation.failure(status, done.stdout, done.stderr)
    return done.stdout


def _run(
    path: str,
    environ: Mapping[str, str],
    stdin: bytes,
    deadline: float | None,
    cancel: int | None,
) -> subprocess.CompletedProcess[bytes]:
    """A file that is being written (ETXTBSY) is tried again for a few seconds (X-10)."""
    for attempt in range(_BUSY_ATTEMPTS):
        try:
            return processes.run(
                [path],
                stdin,
                environ=environ,
                seconds=None if deadline is None else max(0.0, deadline - time.monotonic()),
                cancel=cancel,
                most=MOST_DELEGATE_BYTES,
            )
        except processes.TimeoutExpired:
            msg = f"{path} had not finished when its time was over, and was ended"
            raise CniError(Code.TRY_AGAIN_LATER, msg) from None
        except OSError as error:
            if error.errno == errno.ETXTBSY and attempt + 1 < _BUSY_ATTEMPTS:
                with interruption.waiting():
                    _pause(cancel)
                continue
            msg = f"netplugin failed with no error message: {path}: {error.strerror}"
            # The reference's 0, but for what passes.
            passing = code_of(error.errno or 0) == Code.TRY_AGAIN_LATER
            raise CniError(Code.TRY_AGAIN_LATER if passing else Code.UNKNOWN, msg) from error
    raise AssertionError("unreachable")


def _pause(cancel: int | None) -> None:
    """Raises processes.CancelledError."""
    if cancel is None:
        time.sleep(_BUSY_PAUSE_SECONDS)
    elif select.select([cancel], [], [], _BUSY_PAUSE_SECONDS)[0]:
        raise processes.CancelledError
