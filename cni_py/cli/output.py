"""What commands share in how they answer: JSON, tables, colour, the width of a terminal."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from cni_py.spec.texts import printable, printable_lines

from .group import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

__all__ = [
    "console",
    "json_option",
    "need_root",
    "new_table",
    "print_json",
    "print_paths",
    "print_table",
    "printable",
    "printable_lines",
    "tracked",
]

T = TypeVar("T")

# Wider than any row: an id has 64 characters.
_WIDE = 1000

json_option = click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")


def print_json(value: object) -> None:
    r"""Print structs, tuples and plain values as one indented JSON document.

    Names of files that are not UTF-8 keep their bytes as `\udc80` to `\udcff`.
    """
    try:
        text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=2)
    click.echo(text)


def print_paths(paths: Iterable[Path], *, as_json: bool) -> None:
    """Print what a command has written: a line each, or one list of strings."""
    texts = list(map(str, paths))
    if as_json:
        print_json(texts)
        return
    for one in texts:
        click.echo(printable(one))


def console(**options: Any) -> Console:
    """rich's console on stdout: no colour and no cut lines where stdout is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not os.isatty(1), **options)


def new_table(*headers: str) -> Table:
    """A table without lines; long cells go on in the next line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table: a row is one line where no person reads it.

    Cells are texts as they are: rich would take `[fd00::1]` or `[/x]` for its own markup.
    """
    if os.isatty(1):
        console(markup=False).print(table)
        return
    wide = console(width=_WIDE, markup=False)
    with wide.capture() as text:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def tracked(work: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Each of `work`, with a bar on stderr while a person waits; it is gone with the last one."""
    if not os.isatty(2):
        yield from work
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(work, total, description=what)


def need_root(what: str) -> None:
    """Raise Failed unless this is root: `what` says what needs it."""
    if os.geteuid() != 0:
        raise Failed(f"{what} needs root: try again with sudo")
