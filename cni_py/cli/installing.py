"""`cni-py install`: the executables."""

from __future__ import annotations

from pathlib import Path

import click

from cni_py.installation import install_executables

from .group import Failed


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def install(folder: Path) -> None:
    """Write one executable a plugin into FOLDER, such as /opt/cni/bin."""
    try:
        for path in install_executables(folder):
            click.echo(path)
    except ValueError as error:
        raise Failed(str(error)) from None
