"""What commands share in how they answer: JSON, tables, colour, the width of a terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .group import Failed

if TYPE_CHECKING:
    from rich.console import Console

json_option = click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")


def print_json(value: object) -> None:
    """Print structs, tuples and plain values as one indented JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


def console(**options: Any) -> Console:
    """rich's console on stdout: no colour and no cut lines where stdout is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not os.isatty(1), **options)


def printable(text: str) -> str:
    """A text of others as it can be shown on a terminal: control characters are written out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """The same, with its lines kept."""
    return "\n".join(map(printable, text.split("\n")))


def need_root(what: str) -> None:
    """Raise Failed unless this is root: `what` says what needs it."""
    if os.geteuid() != 0:
        raise Failed(f"{what} needs root: try again with sudo")
