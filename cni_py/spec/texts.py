"""Texts of others, as a terminal can show them and UTF-8 has them; pure."""

from __future__ import annotations

import re

__all__ = ["encodable", "printable", "printable_lines"]

# How a byte of a file's name that is not UTF-8 shows (PEP 383), and what else UTF-8 has not.
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """A text of others as it can be shown on a terminal: control characters are written out."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """The same, with its lines kept."""
    return "\n".join(map(printable, text.split("\n")))


def encodable(value: object) -> object:
    """Plain values (dicts, lists, scalars) in which what UTF-8 does not have is written out."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: repr(found[0])[1:-1], value)
    if isinstance(value, dict):
        return {encodable(key): encodable(one) for key, one in value.items()}
    return list(map(encodable, value)) if isinstance(value, (list, tuple)) else value
