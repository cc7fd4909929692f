"""How long the steps of this process's call took, for the log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import interruption

if TYPE_CHECKING:
    from collections.abc import Iterator

_milliseconds: dict[str, float] = {}


@contextmanager
def step(name: str) -> Iterator[None]:
    """Time the block as a step; the times of blocks of one name add up. Raises Interrupted.

    A call that is to be left is left between its steps.
    """
    interruption.point()
    start = time.monotonic()
    try:
        yield
    finally:
        elapsed = (time.monotonic() - start) * 1000
        _milliseconds[name] = _milliseconds.get(name, 0.0) + elapsed


def take() -> dict[str, float]:
    """The steps so far in milliseconds, with three digits; forgets them."""
    taken = {name: round(value, 3) for name, value in _milliseconds.items()}
    _milliseconds.clear()
    return taken
