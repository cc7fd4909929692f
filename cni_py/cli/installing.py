"""`cni-py install` and `uninstall`."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from cni_py.installation import (
    Installation,
    InstallationError,
    Root,
    Wanted,
    executables,
    plan_installation,
    plan_removal,
    systemd,
)
from cni_py.installation import install as install_files
from cni_py.installation import uninstall as uninstall_files
from cni_py.installation.configurations import NET_DIR, configuration, source
from cni_py.installation.record import Place
from cni_py.installation.refusals import explaining
from cni_py.installation.units import has_agent, units
from cni_py.kernel import state_files

from .group import Failed, Unreadable
from .output import json_option, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_py.installation import Step

_FOLDER = "/opt/cni/bin"

_root_option = click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    default="/",
    help="The root of an image: paths are as they are called inside.",
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Only tell what would be done.")


@click.command()
@click.argument("folder", default=_FOLDER)
@click.option(
    "--launcher-only",
    is_flag=True,
    help="No Python executables behind the launcher: the server is in a container.",
)
@click.option(
    "--systemd",
    "with_systemd",
    is_flag=True,
    help="Also the units of the server and the DHCP daemon; enabled where systemd runs.",
)
@click.option(
    "--agent",
    "with_agent",
    is_flag=True,
    help="With --systemd, also the unit of `cni-py agent`; it stays until uninstall.",
)
@click.option(
    "--conf",
    "confs",
    metavar="NAME|FILE",
    multiple=True,
    help=f"Also a network for {NET_DIR}, last of all: an example, or a .conflist of your own.",
)
@click.option("--force", is_flag=True, help="Replace configurations and units of others too.")
@_root_option
@_dry_run_option
@json_option
def install(
    folder: str,
    confs: Sequence[str],
    root: str,
    *,
    launcher_only: bool,
    with_systemd: bool,
    with_agent: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write one executable a plugin into FOLDER (/opt/cni/bin).

    Calls meanwhile find the old executable or the new one. What is replaced is kept for uninstall.
    A line each: new, replaced, kept (somebody else's is, and was put aside), same, removed.
    """
    place = Place(Root.at(root), _absolute(folder, root))
    if launcher_only and with_systemd:
        raise click.UsageError("--systemd needs the server here, and --launcher-only has none")
    if with_agent and not with_systemd:
        raise click.UsageError("--agent is a unit of systemd: give --systemd too")
    try:
        files = executables(place.folder, place.root, launcher_only=launcher_only)
        if with_systemd:
            files += _units(place, with_agent=with_agent)
        files += [_linted(one, place.root) for one in confs]
        asked = Installation(place.folder, place.root, tuple(files), force)
        steps = _planned(asked) if dry_run else install_files(asked)
    except InstallationError as error:
        raise Failed(str(error)) from None
    _print(steps, as_json=as_json)
    if with_systemd:
        _take_up(place.root, steps, dry_run=dry_run)


@click.command()
@click.argument("folder", default=_FOLDER)
@_root_option
@_dry_run_option
@json_option
def uninstall(folder: str, root: str, *, dry_run: bool, as_json: bool) -> None:
    """Take away what install has written for FOLDER (/opt/cni/bin), and put back what was there.

    A line each: removed, restored, left (somebody else has changed it since).

    Containers keep their network, but nobody can take it down again: their runtime's DEL fails, or
    meets the plugins of others. So end them first, or have others' executables put back.
    """
    place = Place(Root.at(root), _absolute(folder, root))
    if not os.path.isdir(place.outside):
        raise Unreadable(f"{place.outside!r} does not exist")
    manages = systemd.runs(place.root)
    try:
        with state_files.only_looking():
            steps = plan_removal(place)
        problems = systemd.let_go(steps) if manages and not dry_run else []
        if not dry_run:
            steps = uninstall_files(place)
    except InstallationError as error:
        raise Failed(str(error)) from None
    _print(steps, as_json=as_json)
    if manages and not dry_run:
        problems += systemd.forget(steps)
    _tell(problems)


def _absolute(folder: str, root: str) -> str:
    if Root.at(root).is_own:
        return os.path.abspath(folder)
    if not folder.startswith("/"):
        raise click.UsageError("with --root, FOLDER is an absolute path inside")
    return os.path.normpath(folder)


def _command() -> str:
    """The `cni-py` that runs now: a link to it stays one, for it may lead to the newest."""
    name = os.path.abspath(sys.argv[0])
    if os.path.basename(name) == "cni-py" and os.access(name, os.X_OK):
        return name
    found = shutil.which("cni-py")
    if found is None:
        raise InstallationError("there is no cni-py in PATH that a unit could start")
    return os.path.abspath(found)


def _units(place: Place, *, with_agent: bool) -> list[Wanted]:
    """The units; the agent's if it is asked for, or is there. Raises InstallationError."""
    if with_agent and find_spec("aetcd") is None:
        msg = "the agent needs the client of etcd, which is not installed"
        raise InstallationError(f"{msg}: pip install 'cni-py[etcd]'")
    record = place.read()
    agent = with_agent or (record is not None and has_agent(record.files))
    return units(place.root.inside(_command()), place.folder, agent=agent)


def _planned(asked: Installation) -> list[Step]:
    with explaining(asked.folder), state_files.only_looking():
        return plan_installation(asked)


def _linted(given: str, root: Root) -> Wanted:
    """The network's file, if nothing is wrong with it beside those that are there.

    Raises InstallationError, OSError.
    """
    from cni_py.lint import Host, collect, lint, read_file

    path = source(given)
    wanted = configuration(path)
    beside, _ = collect([root.outside(NET_DIR)])
    files = [read_file(path)]
    name = os.path.basename(path)
    files += [one._replace(is_asked=False) for one in beside if os.path.basename(one.name) != name]
    findings = lint(files, Host().with_kernel() if root.is_own else Host())
    errors = [str(one) for one in findings if one.severity == "error"]
    if errors:
        more = f" ({len(errors)} errors: `cni-py lint {path}`)" if len(errors) > 1 else ""
        raise InstallationError(f"{errors[0]}{more}")
    for one in findings:
        if one.severity == "warning":
            click.echo(printable(str(one)), err=True)
    return wanted


def _print(steps: Sequence[Step], *, as_json: bool) -> None:
    if as_json:
        print_json(steps)
        return
    for one in steps:
        note = f" ({one.note})" if one.note else ""
        click.echo(printable(f"{one.action:9}{one.path}{note}"))


def _take_up(root: Root, steps: Sequence[Step], *, dry_run: bool) -> None:
    if not systemd.runs(root):
        where = "does not run here" if root.is_own else "runs elsewhere"
        click.echo(f"systemd {where}: later, {systemd.by_hand(root, steps)}", err=True)
    elif not dry_run:
        _tell(systemd.take_up(steps))


def _tell(problems: Sequence[str]) -> None:
    if problems:
        raise Failed(f"the files are in place, but: {'; '.join(problems)}")
