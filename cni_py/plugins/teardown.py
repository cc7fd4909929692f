"""Undoing: a teardown goes on after what fails, a failed ADD runs it whole."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, cni_error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO)


class Teardown:
    """Steps that are all carried out; `finish` raises what failed."""

    def __init__(self) -> None:
        self._errors: list[CniError] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run the block, keep its error and go on."""
        try:
            yield
        except (CniError, OSError) as error:
            self._errors.append(cni_error_of(error))

    def finish(self) -> None:
        """Raise the first error, with the others in its details."""
        if not self._errors:
            return
        first, *others = self._errors
        if not others:
            raise first
        details = "; ".join((*filter(None, [first.details]), *map(str, others)))
        raise CniError(first.code, first.msg, details) from first


@contextmanager
def undone_on_failure(undo: Callable[[], None]) -> Iterator[None]:
    """Run `undo` when the block fails, whatever the reason; the block's error is what is raised.

    What the undoing itself could not do goes to stderr: DEL will meet it again.
    """
    try:
        yield
    except BaseException:
        with _undisturbed():
            try:
                undo()
            except (CniError, OSError) as error:
                sys.stderr.write(f"cni-py: undoing a failed ADD: {error}\n")
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep signals out until the block has ended: a second SIGTERM must not cut the undoing."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
