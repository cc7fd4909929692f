"""What the programs that a call runs get of its open files: the lock on the attachment."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Apart from `processes`, which takes long to load and which most calls have no need of.
descriptors: list[int] = []


@contextmanager
def inheriting(fd: int) -> Iterator[None]:
    """Let the programs that the block runs have `fd` too: a lock on it lasts until they end.

    A killed call leaves them behind, and what they still do must not come after the next call.
    """
    descriptors.append(fd)
    try:
        yield
    finally:
        descriptors.remove(fd)
