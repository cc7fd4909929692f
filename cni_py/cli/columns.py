"""Tables that are quick with thousands of rows.

rich's own takes 40 microseconds a cell to wrap and measure: a second for a thousand containers. It
still has the terminal: its width, its colours, and none where there is no terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.segment import Segment

_GAP = 2
_NARROWEST = 8
# A text with its style, `""` for none; it may have several lines.
Cell = tuple[str, str]


class Column(NamedTuple):
    """A column's head. Where there is too little room, one that `folds` goes on in another line,
    one that `yields` is cut, and the others stay as they are.
    """

    head: str
    folds: bool = False
    yields: bool = False
    right: bool = False


class Section(NamedTuple):
    """A table with a name."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def print_section(console: Console, section: Section) -> None:
    """Print the table under its name; where stdout is no terminal, a line each row."""
    from rich.segment import Segment, Segments

    rows = section.rows
    if not console.is_terminal:
        rows = [[(text.replace("\n", ","), style) for text, style in row] for row in rows]
    widths = _widths(section.columns, rows, console.width)
    console.print(section.name.upper(), style="bold")
    segments: list[Segment] = []
    head = [(column.head, "dim") for column in section.columns]
    for row in (head, *rows):
        segments += _row(console, section.columns, widths, row)
    console.print(Segments([*segments, Segment("\n")]), end="", soft_wrap=True)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int) -> list[int]:
    """What the columns need, or have, where that is more than there is room for."""
    from rich.cells import cell_len

    widths = [cell_len(column.head) for column in columns]
    for row in rows:
        for index, (text, _) in enumerate(row):
            for line in text.split("\n"):
                widths[index] = max(widths[index], cell_len(line))
    left = room - _GAP * (len(columns) - 1)
    while sum(widths) > left:
        able = [
            index
            for index, column in enumerate(columns)
            if (column.folds or column.yields) and widths[index] > _NARROWEST
        ]
        if not able:
            break
        widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _row(
    console: Console, columns: Sequence[Column], widths: Sequence[int], row: Sequence[Cell]
) -> Iterator[Segment]:
    from rich.segment import Segment

    lines = [
        list(_fitted(text, width, column))
        for (text, _), width, column in zip(row, widths, columns, strict=True)
    ]
    for number in range(max(map(len, lines))):
        blanks = 0
        for own, width, (_, style), column in zip(lines, widths, row, columns, strict=True):
            text, size = own[number] if number < len(own) else ("", 0)
            before = width - size if column.right else 0
            if text:
                yield Segment(" " * (blanks + before))
                yield Segment(text, console.get_style(style) if style else None)
                blanks = width - size - before + _GAP
            else:
                blanks += width + _GAP
        yield Segment("\n")


def _fitted(text: str, width: int, column: Column) -> Iterator[tuple[str, int]]:
    """The lines of a cell, each with its width."""
    from rich.cells import cell_len, set_cell_size

    for line in text.split("\n"):
        size = cell_len(line)
        if size <= width:
            yield line, size
        elif column.folds:
            yield from ((part, cell_len(part)) for part in _folded(line, width))
        else:
            yield set_cell_size(line, width - 1) + "…", width


def _folded(line: str, width: int) -> Iterator[str]:
    """A line in parts that fit: between words, and within one that is too long by itself."""
    from rich.cells import cell_len, chop_cells

    have = ""
    for word in line.split(" "):
        longer = f"{have} {word}" if have else word
        if cell_len(longer) <= width:
            have = longer
            continue
        if have:
            yield have
        *full, have = chop_cells(word, width) or [""]
        yield from full
    yield have
