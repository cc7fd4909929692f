"""`cni-py show`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from . import completing
from .networks import net_dir_option, networks_option
from .output import console, json_option, need_root, print_json
from .overview import SECTIONS, headline, print_problems, sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cni_py.inventory.model import Inventory

_SECTIONS = (*SECTIONS, "problems")
# The others are a page each on a busy host.
_USUAL = ("networks", "bridges", "containers", "addresses", "ports", "problems")
# Wide enough for every row: what is piped is a line each.
_PIPED_COLUMNS = 4000


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completing.names)
@networks_option
@click.option(
    "--section",
    "wanted",
    multiple=True,
    type=click.Choice(_SECTIONS),
    help="Only these tables; may be given again.",
)
@click.option("--full", is_flag=True, help="Ids in full, and every section.")
@net_dir_option
@json_option
def show(
    names: Sequence[str],
    networks: Sequence[str],
    wanted: Sequence[str],
    full: bool,  # noqa: FBT001 - click passes options by name
    net_dir: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Show what cni-py and CNI made on this host.

    NAME is a container's id or its beginning, a network or a bridge; without one everything is
    listed. A container is shown in depth.

    Exit status 1: something does not fit, such as a container that is gone and has addresses still.
    """
    from cni_py.inventory.reading import read

    from .naming import meant, require_networks

    need_root("looking into containers' namespaces")
    found = read(net_dir)
    if networks:
        found = found.of(require_networks(found, networks))
    of_networks, containers = meant(found, names)
    shown = found.of(of_networks, frozenset(containers)) if names else found
    if as_json:
        print_json(shown)
    else:
        out = console() if os.isatty(1) else console(width=_PIPED_COLUMNS)
        _print_containers(out, found, containers)
        if of_networks or not names:
            listed = found.of(of_networks) if names else found
            _print_sections(out, listed, wanted or (_SECTIONS if full else _USUAL), full=full)
    sys.exit(1 if shown.problems else 0)


def _print_containers(out: Console, found: Inventory, containers: Sequence[str]) -> None:
    from .in_depth import print_container

    for one in containers:
        print_container(out, found, one)


def _print_sections(out: Console, found: Inventory, wanted: Sequence[str], *, full: bool) -> None:
    from rich.text import Text

    from .columns import print_section

    out.print(Text(", ").join(Text(text, style=style) for text, style in headline(found)))
    out.print()
    tables = sections(found, shorten=not full)
    for name in wanted:
        if name == "problems":
            print_problems(out, found.problems, all_of_them=len(wanted) == 1 or full)
            continue
        section = tables[name]()
        if section.rows:
            print_section(out, section)
