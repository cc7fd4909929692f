"""`cni-py show`."""

from __future__ import annotations

import click

from .output import json_option, need_root, print_json


@click.command()
@json_option
def show(as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Show what cni-py and CNI made on this host."""
    from cni_py.inventory.reading import read

    need_root("reading containers' namespaces")
    inventory = read()
    if as_json:
        print_json(inventory)
