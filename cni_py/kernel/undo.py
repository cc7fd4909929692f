"""A failed ADD leaves nothing."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError

from .interruption import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def undone_on_failure(undo: Callable[[], None]) -> Iterator[None]:
    """Run `undo` when the block fails, whatever the reason; the block's error is what is raised.

    No signal cuts the undoing short. What it could not do goes to stderr: DEL will meet it again.
    """
    try:
        yield
    except BaseException:
        with shielded():
            try:
                undo()
            except (CniError, OSError) as error:
                sys.stderr.write(f"cni-py: undoing a failed ADD: {error}\n")
        raise
