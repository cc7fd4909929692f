"""`cni-py doctor`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cni_py.server.settings import DEFAULT_METRICS_SOCKET, DEFAULT_SOCKET

from .networks import net_dir_option
from .output import json_option, print_json, printable, tracked

if TYPE_CHECKING:
    from cni_py.doctor.finding import Finding

_MARKS = {"ok": "ok  ", "note": "note", "look": "LOOK", "broken": "BAD ", "unseen": "?   "}


@click.command()
@click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("/opt/cni/bin")
)
@click.option("--socket", "path", type=click.Path(path_type=Path), default=DEFAULT_SOCKET)
@click.option("--metrics-socket", type=click.Path(path_type=Path), default=DEFAULT_METRICS_SOCKET)
@net_dir_option
@click.option("--data-dir", default="/var/lib/cni/networks", show_default=True)
@click.option("--quiet", "-q", is_flag=True, help="Only what needs a look.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an archive for a bug report there, without secrets.",
)
@json_option
def doctor(
    folder: Path,
    path: Path,
    metrics_socket: Path,
    net_dir: str,
    data_dir: str,
    quiet: bool,  # noqa: FBT001 - click passes options by name
    bundle: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Say what keeps the plugins in FOLDER from working, or from working well.

    Nothing is changed. Without root some of it cannot be looked at, which is said. Exit status 1 if
    something needs a look.
    """
    from cni_py.doctor.examinations import EXAMINATIONS, Places, examine
    from cni_py.kernel import state_files

    places = Places(folder, path, metrics_socket, net_dir, data_dir)
    subjects = tracked(EXAMINATIONS, "examinations", len(EXAMINATIONS))
    with state_files.only_looking():
        findings = list(examine(places, subjects))
        if bundle is not None:
            from cni_py.doctor.bundle import write

            write(bundle, places, findings)
            click.echo(f"wrote {bundle}", err=True)
    if as_json:
        print_json(findings)
    else:
        _print(findings, quiet=quiet)
    sys.exit(1 if any(one.is_wrong for one in findings) else 0)


def _print(findings: list[Finding], *, quiet: bool) -> None:
    for one in findings:
        if quiet and not one.is_wrong:
            continue
        click.echo(f"{_MARKS[one.severity]} {printable(one.text)}")
        if one.remedy and one.severity != "ok":
            click.echo(f"     {printable(one.remedy)}")
    counted = Counter(one.severity for one in findings)
    wrong = counted["look"] + counted["broken"]
    needs = f"{wrong} need a look" if wrong else "nothing needs a look"
    unseen = f", {counted['unseen']} could not be looked at" if counted["unseen"] else ""
    if not quiet:
        click.echo(f"{len(findings)} findings: {needs}{unseen}")
