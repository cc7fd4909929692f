"""`cni-py gc`."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from cni_py.garbage import carry_out_deferred, collect, listed
from cni_py.kernel import state_files
from cni_py.spec.errors import CniError

from .completing import network_names
from .networks import cni_path_option, folders, named, net_dir_option
from .output import json_option, need_root, print_json, printable, tracked


@click.command()
@click.argument("network", shell_complete=network_names)
@click.argument("netns", required=False)
@click.option("--dry-run", is_flag=True, help="Only list what would be taken away, and why.")
@click.option(
    "--valid",
    multiple=True,
    metavar="CONTAINER/INTERFACE",
    help="An attachment that lives, may be given again: of all others everything is taken away.",
)
@click.option("--none-valid", is_flag=True, help="No attachment lives: take away everything.")
@json_option
@net_dir_option
@cni_path_option
def gc(
    network: str,
    netns: str | None,  # noqa: ARG001 - cnitool takes one
    dry_run: bool,  # noqa: FBT001 - click passes options by name
    valid: tuple[str, ...],
    none_valid: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    net_dir: str,
    cni_path: str,
) -> None:
    """Take away what a network's containers have left behind.

    NETWORK is a network's name, the path of its .conflist or .conf, or - for standard input; NETNS
    is taken for cnitool's sake, and of no use. Without --valid or
    --none-valid only what evidently outlived its container goes: its namespace is gone, or it is of
    an earlier boot.

    Before that the DELs are carried out, of whatever network, that launchers have written down
    while no server was there.
    """
    if valid and none_valid:
        raise click.UsageError("--valid names what lives, and --none-valid says that nothing does")
    need_root("looking for what containers have left")
    try:
        known = listed(valid) if valid or none_valid else None
    except CniError as error:
        raise click.UsageError(str(error)) from None
    asked = named(network, net_dir)
    carried = [] if dry_run else list(tracked(carry_out_deferred(), "deferred DELs"))
    collecting = collect(asked, known, dry=dry_run, path=":".join(folders(cni_path)))
    with state_files.only_looking() if dry_run else nullcontext():
        collected = list(tracked(collecting, "plugins asked", len(asked.plugins)))
    if as_json:
        print_json(collected)
    else:
        for one in collected:
            for line in one.lines(dry=dry_run):
                click.echo(printable(line))
    failed = [f"deferred DEL of {one.container}: {one.error}" for one in carried if one.error]
    failed += [f"{one.type}: {one.error}" for one in collected if one.error]
    for text in failed:
        click.echo(f"cni-py gc: {printable(text)}", err=True)
    sys.exit(1 if failed else 0)
