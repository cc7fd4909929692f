"""What is to be installed: files, as values."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, NamedTuple

# An executable of ours is known by its mark; of the others we know only what we have written.
Kind = Literal["executable", "unit", "configuration"]


class InstallationError(Exception):
    """It cannot be installed, and nothing has been changed: the text says why and what to do."""


class Wanted(NamedTuple):
    """A file that is to be there; `path` is where programs will find it."""

    path: str
    content: bytes
    mode: int
    kind: Kind

    @property
    def digest(self) -> str:
        """The content's SHA-256, in hexadecimal digits."""
        return sha256(self.content).hexdigest()
