"""What is told of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from cni_py.spec.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.spec import located
    from cni_py.spec.errors import CniError
    from cni_py.spec.located import Node, Parsed

Severity = Literal["error", "warning", "info"]


class Finding(msgspec.Struct, frozen=True, order=True):
    """Something about a file; lines and columns begin with 1, a column is a character.

    An `error` keeps the network from working, or makes it another one than is written; a `warning`
    probably does; `info` is what is good to know. `hint` says what would be right, or is `""`.
    """

    file: str
    line: int
    column: int
    severity: Severity
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """`file:line:column: severity: message; hint`."""
        hint = f"; {self.hint}" if self.hint else ""
        place = f"{printable(self.file)}:{self.line}:{self.column}"
        return f"{place}: {self.severity}: {self.message}{hint}"


class Report(msgspec.Struct, frozen=True):
    """The answer for programs: the files that were looked at, and those that cannot be read."""

    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    unreadable: tuple[str, ...]


class Notes:
    """The findings of one file, while it is looked at."""

    def __init__(self, file: str, parsed: Parsed) -> None:
        self.file = file
        self.found: list[Finding] = []
        self._text = parsed.text

    def add(self, at: Node | int, severity: Severity, message: str, hint: str = "") -> None:
        """Note something at a value, or an offset."""
        offset = at if isinstance(at, int) else at.offset
        place = self._text.place(offset)
        one = Finding(
            self.file, place.line, place.column, severity, printable(message), printable(hint)
        )
        if one not in self.found:
            self.found.append(one)

    def error(self, at: Node | int, message: str, hint: str = "") -> None:
        """Note an error."""
        self.add(at, "error", message, hint)

    def warn(self, at: Node | int, message: str, hint: str = "") -> None:
        """Note a warning."""
        self.add(at, "warning", message, hint)

    def refused(self, config: Node, error: CniError) -> None:
        """Note what a plugin would refuse, at the key that it is about."""
        self.error(find(config, error.key), error.msg, error.details)

    def mistakes(self, mistakes: Iterable[located.Mistake]) -> None:
        """Note what is wrong with the JSON."""
        for one in mistakes:
            self.error(one.offset, one.text, one.hint)


def find(config: Node, path: str) -> Node:
    """The value at a path such as `ipam.ranges[0][1].subnet`, or what comes nearest above it."""
    node = config
    for step in path.replace("[", ".[").split("."):
        if step.startswith("["):
            index = int(step[1:-1]) if step[1:-1].isdigit() else len(node.items)
            below = node.items[index] if index < len(node.items) else None
        else:
            below = node.get(step)
        if below is None:
            return node
        node = below
    return node
