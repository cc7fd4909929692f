"""`cni-py`: the operator's command line."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import click

from . import __version__
from .install import install_executables
from .skel import EXECUTABLES
from .spec.schema import config_schema


@click.group()
@click.version_option(__version__, prog_name="cni-py")
def main() -> None:
    """Container networking for Linux: install and describe cni-py's CNI plugins."""


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def install(folder: Path) -> None:
    """Write one executable a plugin into FOLDER, such as /opt/cni/bin."""
    try:
        for path in install_executables(folder):
            click.echo(path)
    except (OSError, ValueError) as error:
        click.echo(f"cni-py install: {error}", err=True)
        sys.exit(1)


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schema(folder: Path) -> None:
    """Write the JSON Schema of every plugin's configuration into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, executable in EXECUTABLES.items():
        config = import_module(executable.module).Config
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config_schema(name, config), indent=2) + "\n")
        click.echo(path)
