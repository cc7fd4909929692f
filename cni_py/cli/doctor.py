"""`cni-py doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cni_py.server.settings import DEFAULT_SOCKET

from .examination import examine


@click.command()
@click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("/opt/cni/bin")
)
@click.option("--socket", "path", type=click.Path(path_type=Path), default=DEFAULT_SOCKET)
def doctor(folder: Path, path: Path) -> None:
    """Say what keeps the plugins in FOLDER from working, or from working well."""
    findings = list(examine(folder, path))
    for one in findings:
        click.echo(f"{'ok  ' if one.good else 'LOOK'} {one.text}")
        if one.advice:
            click.echo(f"     {one.advice}")
    sys.exit(0 if all(one.good for one in findings) else 1)
