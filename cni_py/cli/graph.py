"""`cni-py graph`."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import click

from . import completing
from .group import Unreadable
from .networks import net_dir_option, networks_option
from .output import console, json_option, need_root, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .drawing.picture import Picture

_FORMATS = ("tree", "mermaid", "dot", "svg", "html")
_FOLDED = 40
_WIDE = 4000


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completing.names)
@click.option("--format", "kind", type=click.Choice(_FORMATS), default="tree", show_default=True)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, writable=True),
    help="Write to this file; without it to standard output.",
)
@networks_option
@click.option(
    "--fold",
    type=click.IntRange(min=0),
    default=_FOLDED,
    show_default=True,
    metavar="NUMBER",
    help="Draw as many containers of a bridge at most, 0 for all. A page folds by itself.",
)
@net_dir_option
@json_option
def graph(
    names: Sequence[str],
    kind: str,
    path: str | None,
    networks: Sequence[str],
    fold: int,
    net_dir: str,
    as_json: bool,  # noqa: FBT001 - click passes options by name
) -> None:
    """Draw the host's container networks.

    From the ways out over bridges and host ends to the containers. NAME is a network or a bridge,
    or a container's id or its beginning.
    """
    from cni_py.inventory.reading import read

    from .drawing.picture import picture
    from .naming import meant, require_networks

    need_root("looking into containers' namespaces")
    found = read(net_dir)
    if networks:
        found = found.of(require_networks(found, networks))
    if names:
        of_networks, containers = meant(found, names)
        found = found.of(of_networks, frozenset(containers))
    drawn = picture(found, socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))
    if as_json:
        print_json(drawn)
    elif kind == "tree":
        _print_tree(drawn, fold, path)
    else:
        _write(_text(drawn, kind, fold), path)


def _text(drawn: Picture, kind: str, fold: int) -> str:
    if kind == "mermaid":
        from .drawing.mermaid import mermaid

        return mermaid(drawn, fold)
    if kind == "dot":
        from .drawing.dot import dot

        return dot(drawn, fold)
    if kind == "svg":
        from .drawing.svg import svg

        return svg(drawn, fold)
    from .drawing.page import page

    return page(drawn)


def _write(text: str, path: str | None) -> None:
    """Raises Unreadable for a file that cannot be written."""
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Unreadable(f"{path} cannot be written: {error.strerror}") from None


def _print_tree(drawn: Picture, fold: int, path: str | None) -> None:
    from .drawing.tree import tree

    if path is None:
        out = console() if os.isatty(1) else console(width=_WIDE)
        out.print(tree(drawn, fold))
        return
    from io import StringIO

    from rich.console import Console

    held = StringIO()
    Console(file=held, width=_WIDE, highlight=False).print(tree(drawn, fold))
    _write(held.getvalue(), path)
