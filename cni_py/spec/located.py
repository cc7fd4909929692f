"""JSON with the place of everything in it, and every mistake: for who writes it, not for plugins.

It goes on after a mistake as if the likely thing stood there. The time is linear in the text, and
what is nested more than `MOST_LEVELS` deep is not read.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LEVELS = 100
MOST_MISTAKES = 20

_BLANK = re.compile(r"[ \t\n\r]*")
_COMMENT = re.compile(r"//[^\n]*|#[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SINGLE_QUOTED = re.compile(r"[^'\n]*'?")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[^\s{}\[\],:\"']+")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = re.compile("[0-9a-fA-F]{4}")
_WORDS = {"true": True, "false": False, "null": None}
_MEANT = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_MEANT |= {"None": "null", "nil": "null", "undefined": "null", "NULL": "null"}
_SHOWN = 30
_BOM = "\ufeff"


class Place(NamedTuple):
    """A line and a column, both from 1; a column is a character."""

    line: int
    column: int


class Mistake(NamedTuple):
    """What is wrong at an offset, and what would be right."""

    offset: int
    text: str
    hint: str = ""


@dataclass(slots=True)
class Member:
    """A member of an object: where its key begins, and its value."""

    key: str
    offset: int
    node: Node


@dataclass(slots=True)
class Node:
    """A value and where it begins: a scalar's `value`, an object's `members`, a list's `items`."""

    offset: int
    kind: str
    value: Any = None
    members: list[Member] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def plain(self) -> Any:
        """As json.loads gives it: of equal keys the last one counts."""
        if self.kind == "object":
            return {one.key: one.node.plain() for one in self.members}
        if self.kind == "array":
            return [one.plain() for one in self.items]
        return self.value

    def member(self, name: str) -> Member | None:
        """The member that a reader without regard to case takes for `name`: an exact one first."""
        exact = [one for one in self.members if one.key == name]
        alike = [one for one in self.members if one.key.lower() == name.lower()]
        found = exact or alike
        return found[-1] if found else None

    def get(self, name: str) -> Node | None:
        """The value of that member; None where there is none, and for null."""
        found = self.member(name)
        return None if found is None or found.node.kind == "null" else found.node


class Text:
    """A text and its lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(one.end() for one in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        """Where an offset is."""
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)


class Parsed(NamedTuple):
    """What was read: `root` is None where there is no value at all."""

    text: Text
    root: Node | None
    mistakes: tuple[Mistake, ...]


def parse(data: bytes) -> Parsed:
    """Read a document. Nothing is raised."""
    text = data.decode(errors="replace")
    reader = _Reader(text)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        offset = len(data[: error.start].decode(errors="replace"))
        reader.note(offset, f"byte {data[error.start]:#04x} is not UTF-8", "save the file as UTF-8")
    root = None
    with suppress(_EndError):
        root = reader.document()
    return Parsed(Text(text), root, tuple(sorted(reader.mistakes)))


class _EndError(Exception):
    """Nothing more is read."""


class _Reader:
    """Reads one document; what is wrong is noted."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.mistakes: list[Mistake] = []

    def note(self, offset: int, text: str, hint: str = "") -> None:
        """Note a mistake. Raises _EndError after too many."""
        self.mistakes.append(Mistake(offset, text, hint))
        if len(self.mistakes) >= MOST_MISTAKES:
            raise _EndError

    def document(self) -> Node:
        if self._text.startswith(_BOM):
            self.note(0, "a byte order mark (BOM) stands before the JSON", "save without BOM")
            self._at = 1
        self._skip()
        if self._at == len(self._text):
            self.note(self._at, "there is no JSON in it", "a network is an object: {...}")
            raise _EndError
        root = self._value(0)
        self._skip()
        if self._at < len(self._text):
            self.note(self._at, f"{self._shown()} stands after the end of the JSON")
        return root

    def _next(self) -> str:
        """The next character; `""` at the end."""
        return self._text[self._at : self._at + 1]

    def _shown(self) -> str:
        word = _WORD.match(self._text, self._at)
        found = word[0][:_SHOWN] if word else self._next()
        return f"`{found}`" if found.isprintable() else repr(found)

    def _skip(self) -> None:
        """Skip blanks, and comments, which are noted."""
        while True:
            match = _BLANK.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            comment = _COMMENT.match(self._text, self._at)
            if comment is None:
                return
            self.note(self._at, "JSON has no comments", "take it out; an unknown key can hold text")
            self._at = comment.end()

    def _value(self, level: int) -> Node:
        character, offset = self._next(), self._at
        if character in ("{", "["):
            if level >= MOST_LEVELS:
                self.note(offset, f"it is nested more than {MOST_LEVELS} levels deep")
                raise _EndError
            return self._object(level) if character == "{" else self._array(level)
        if character in ('"', "'"):
            return Node(offset, "string", self._string())
        return self._scalar()

    def _object(self, level: int) -> Node:
        node = Node(self._at, "object")
        self._at += 1
        for _ in self._elements(node, "}"):
            node.members.append(self._member(level))
        return node

    def _array(self, level: int) -> Node:
        node = Node(self._at, "array")
        self._at += 1
        for _ in self._elements(node, "]"):
            if self._next() in (":", "}"):
                self.note(self._at, f"expected a value or `]`, got {self._shown()}")
                raise _EndError
            node.items.append(self._value(level + 1))
        return node

    def _elements(self, node: Node, end: str) -> Iterator[None]:
        """Yield where an element begins; the caller reads it."""
        is_first = True
        while True:
            self._skip()
            self._require_more(node, end)
            if self._next() == end:
                self._at += 1
                return
            if not is_first:
                self._comma(node, end)
                if self._next() == end:
                    self._at += 1
                    return
            elif self._next() == ",":
                self.note(self._at, f"expected {_first(end)} or `{end}`, got `,`")
                self._at += 1
                self._skip()
                self._require_more(node, end)
                if self._next() == end:
                    self._at += 1
                    return
            is_first = False
            yield

    def _comma(self, node: Node, end: str) -> None:
        """Read the comma between two elements."""
        comma = self._at
        if self._next() != ",":
            if self._next() in ("}", "]"):
                opened = "{" if end == "}" else "["
                self.note(self._at, f"`{self._next()}` does not close `{opened}`", f"`{end}` does")
                raise _EndError
            self.note(self._at, f"expected `,` or `{end}`, got {self._shown()}")
            if self._next() == ":":
                raise _EndError
            return
        self._at += 1
        self._skip()
        self._require_more(node, end)
        if self._next() == end:
            self.note(comma, f"nothing follows this comma but `{end}`", "take it out")
        while self._next() == ",":
            self.note(self._at, "two commas", "take one out")
            self._at += 1
            self._skip()
            self._require_more(node, end)

    def _require_more(self, node: Node, end: str) -> None:
        if self._at < len(self._text):
            return
        line, column = Text(self._text).place(node.offset)
        what = "object" if end == "}" else "list"
        text = f"the text ends inside the {what} that begins in line {line}, column {column}"
        self.note(self._at, text, f"`{end}` closes it")
        raise _EndError

    def _member(self, level: int) -> Member:
        offset = self._at
        if self._next() in ('"', "'"):
            key = self._string()
        else:
            word = _WORD.match(self._text, self._at)
            if word is None:
                self.note(offset, f"expected a key in double quotes or `}}`, got {self._shown()}")
                raise _EndError
            key = word[0]
            self._at = word.end()
            self.note(offset, f"the key {key[:_SHOWN]} has no quotes", f'write "{key[:_SHOWN]}"')
        self._skip()
        if self._next() == ":":
            self._at += 1
            self._skip()
        else:
            self.note(self._at, f'expected `:` after the key "{key[:_SHOWN]}"')
            if self._next() == "=":
                self._at += 1
                self._skip()
        if self._next() in ("", ",", "}", "]", ":"):
            self.note(self._at, f'expected a value for the key "{key[:_SHOWN]}"')
            if self._next() not in (",", "}"):
                raise _EndError
            return Member(key, offset, Node(offset, "null"))
        return Member(key, offset, self._value(level + 1))

    def _string(self) -> str:
        """A string from its quote on; it ends at the line's end at the latest."""
        quote, offset = self._next(), self._at
        self._at += 1
        if quote == "'":
            self.note(offset, "a string has double quotes", 'write "..."')
            return self._single_quoted()
        parts: list[str] = []
        while True:
            match = _PLAIN.match(self._text, self._at)
            assert match is not None
            parts.append(match[0])
            self._at = match.end()
            character = self._next()
            if character == '"':
                self._at += 1
                return "".join(parts)
            if character == "\\":
                parts.append(self._escape())
            elif character in ("", "\n", "\r"):
                self.note(offset, "this string does not end in its line", 'a `"` closes it')
                if not character:
                    raise _EndError
                return "".join(parts)
            else:
                shown = "a tab" if character == "\t" else f"the control character {ord(character)}"
                hint = "write \\t" if character == "\t" else f"write \\u{ord(character):04x}"
                self.note(self._at, f"{shown} stands in a string", hint)
                parts.append(character)
                self._at += 1

    def _single_quoted(self) -> str:
        match = _SINGLE_QUOTED.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return match[0].rstrip("'")

    def _escape(self) -> str:
        offset = self._at
        letter = self._text[offset + 1 : offset + 2]
        if letter in _ESCAPES:
            self._at += 2
            return _ESCAPES[letter]
        if letter == "u":
            digits = _HEX.match(self._text, offset + 2)
            if digits is not None:
                self._at = digits.end()
                return chr(int(digits[0], 16))
        self._at += 1
        shown = letter if letter.isprintable() else ""
        self.note(offset, f"`\\{shown}` is no escape in a string", "a backslash is `\\\\`")
        return "\\"

    def _scalar(self) -> Node:
        """A number or a word; what is neither is noted, and read as text."""
        offset = self._at
        word = _WORD.match(self._text, offset)
        if word is None:
            self.note(offset, f"expected a value, got {self._shown()}")
            raise _EndError
        text = word[0]
        self._at = word.end()
        if text in _WORDS:
            return Node(offset, "null" if text == "null" else "bool", _WORDS[text])
        if _NUMBER.fullmatch(text):
            return Node(offset, "number", _number(text))
        shown = text[:_SHOWN]
        if text in _MEANT:
            self.note(offset, f"`{shown}` is no JSON", f"write {_MEANT[text]}")
            return Node(offset, "bool", _WORDS[_MEANT[text]])
        if text.strip("+-").lower() in ("nan", "infinity", "inf"):
            self.note(offset, f"JSON has no {shown}")
        elif text[:1] in "+-.0123456789":
            self.note(
                offset, f"`{shown}` is no number of JSON", "no +, no leading 0, no other base"
            )
        else:
            self.note(offset, f"`{shown}` is no value of JSON", f'text is written "{shown}"')
        return Node(offset, "unknown", text)


def _first(end: str) -> str:
    return "a key in double quotes" if end == "}" else "a value"


def _number(text: str) -> int | float:
    if not set(text) & set(".eE"):
        # Python takes long to read very long ones, and refuses some.
        return int(text) if len(text) < 400 else float("inf")
    return float(text)
