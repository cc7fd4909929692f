"""What an examination says: one thing, how bad it is, and what to do."""

from __future__ import annotations

from typing import Literal

import msgspec

# note: worth knowing, and nothing has to be done. unseen: it could not be looked at.
Severity = Literal["ok", "note", "look", "broken", "unseen"]
WRONG: tuple[Severity, ...] = ("look", "broken")


class Finding(msgspec.Struct, frozen=True):
    """`remedy` is a command to paste, or what to do in words; `subject` the examination's name."""

    severity: Severity
    text: str
    remedy: str = ""
    subject: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether somebody has to do something."""
        return self.severity in WRONG


def fine(text: str) -> Finding:
    """It is as it should be."""
    return Finding("ok", text)


def note(text: str, remedy: str = "") -> Finding:
    """It is worth knowing."""
    return Finding("note", text, remedy)


def look(text: str, remedy: str) -> Finding:
    """It works, and should be looked at."""
    return Finding("look", text, remedy)


def broken(text: str, remedy: str) -> Finding:
    """Something does not work."""
    return Finding("broken", text, remedy)


def unseen(text: str, remedy: str = "") -> Finding:
    """It could not be looked at."""
    return Finding("unseen", text, remedy)
