"""`cni-py ipam`: the addresses that host-local has given out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from .completing import container_ids, network_names
from .group import CommandGroup, Failed
from .networks import net_dir_option
from .output import json_option, need_root, new_table, print_json, print_table, printable

if TYPE_CHECKING:
    from .ipam_changes import Repaired, Shown
    from .ipam_ranges import Range

_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False),
    default="/var/lib/cni/networks",
    show_default=True,
    help="The folder of allocations, as `dataDir` in the configuration.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group(cls=CommandGroup)
def ipam() -> None:
    """The addresses that host-local has given out, ours or the reference plugin's."""


@ipam.command("list")
@_data_dir
@net_dir_option
@json_option
def list_pools(data_dir: str, net_dir: str, as_json: bool) -> None:  # noqa: FBT001
    """List each network's ranges, and how full they are."""
    from .ipam_ranges import ranges

    need_root("looking at allocations")
    listed, notes = ranges(data_dir, net_dir)
    if as_json:
        print_json(listed)
    else:
        _print_pools(listed, data_dir)
    for note in notes:
        click.echo(f"cni-py ipam list: {printable(note)}", err=True)
    sys.exit(1 if notes else 0)


@ipam.command()
@click.argument("network", shell_complete=network_names)
@_data_dir
@json_option
def show(network: str, data_dir: str, as_json: bool) -> None:  # noqa: FBT001
    """Show who holds each address of NETWORK, and whether that container is alive."""
    from .ipam_changes import require_network, shown

    need_root("looking at allocations")
    require_network(data_dir, network)
    rows = shown(data_dir, network)
    if as_json:
        print_json(rows)
    else:
        _print_addresses(rows, network)


@ipam.command()
@click.argument("wanted", metavar="ADDRESS|CONTAINER", shell_complete=container_ids)
@click.option("--network", default="", help="Only of this network.", shell_complete=network_names)
@click.option("--force", is_flag=True, help="Also what a living container holds.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_dry_run
@_data_dir
@json_option
def release(
    wanted: str,
    network: str,
    force: bool,  # noqa: FBT001 - click passes options by name
    yes: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    data_dir: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Free an address, or all that a container holds.

    A container is named by its id, or by a beginning of it that no other container has. What may be
    in use is refused without --force: whoever gets the address next would share it.
    """
    from .ipam_changes import found, release_all

    need_root("releasing addresses")
    rows = found(data_dir, wanted, network)
    living = [one for one in rows if one.state in ("alive", "unknown")]
    if living and not force:
        one = living[0]
        raise Failed(
            f"{one.address} of {one.network} may be in use by {one.container} ({one.why}): "
            "--force releases it all the same"
        )
    text = ", ".join(
        f"{one.address} of {one.container or 'nobody'} on {one.network}" for one in rows
    )
    if not dry_run and not yes and sys.stdin.isatty():
        _ask(f"release {printable(text)}?")
    done = rows if dry_run else release_all(data_dir, rows)
    if as_json:
        print_json(done)
        return
    for one in done:
        did = "would release" if dry_run else "released"
        whose = f"{one.container or 'nobody'} on {one.network}"
        click.echo(printable(f"{did} {one.address} of {whose}"))
    if len(done) < len(rows):
        raise Failed("the rest was released, or given to another, by somebody else meanwhile")


@ipam.command()
@click.argument("network", required=False, shell_complete=network_names)
@_dry_run
@_data_dir
@json_option
def repair(network: str | None, dry_run: bool, data_dir: str, as_json: bool) -> None:  # noqa: FBT001
    """Put the folders of NETWORK, or of all networks, in order.

    The index is made anew from the addresses' files; files that name nobody are taken away; what is
    of an earlier boot is freed. What is given twice is listed: there is no telling who is right.
    """
    from .ipam_changes import repair_all

    need_root("repairing allocations")
    repaired = repair_all(data_dir, network, dry=dry_run)
    if as_json:
        print_json(repaired)
    else:
        _print_repaired(repaired, dry=dry_run)
    sys.exit(1 if repaired.duplicates or (dry_run and repaired.changes) else 0)


def _ask(question: str) -> None:
    if not click.confirm(question, err=True):
        raise Failed("nothing was changed")


def _print_pools(listed: list[Range], data_dir: str) -> None:
    if not listed:
        click.echo(f"no addresses were ever given in {data_dir}")
        return
    table = new_table("NETWORK", "RANGE", "SUBNET", "GIVEN", "FREE", "RESERVED", "LAST")
    for one in listed:
        table.add_row(
            printable(one.network),
            f"{one.first}-{one.last}" if one.first else "outside the ranges",
            one.subnet or "?",
            str(one.given),
            str(one.free),
            str(one.reserved) if one.subnet else "?",
            one.last_reserved or "-",
        )
    print_table(table)


def _print_addresses(rows: list[Shown], network: str) -> None:
    if not rows:
        click.echo(f"{printable(network)} has given no address")
        return
    table = new_table("ADDRESS", "CONTAINER", "IFNAME", "SINCE", "STATE")
    for one in rows:
        state = one.state if one.state == "alive" else f"{one.state}: {one.why}"
        whose = (printable(one.container) or "-", printable(one.ifname) or "-")
        table.add_row(one.address, *whose, one.since, printable(state))
    print_table(table)


def _print_repaired(repaired: Repaired, *, dry: bool) -> None:
    for one in repaired.changes:
        did = f"{one.action} {one.address}".strip()
        would = "would " if dry else ""
        click.echo(printable(f"{one.network}: {would}{did}: {one.why}"))
    for two in repaired.duplicates:
        click.echo(printable(f"twice: {two.what} ({', '.join(two.where)})"))
    if not repaired.changes and not repaired.duplicates:
        names = printable(", ".join(repaired.networks)) or "no network"
        click.echo(f"{names}: nothing to repair")
