"""`cni-py schema`: JSON Schemas of the configurations."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import click

from cni_py.skel import EXECUTABLES
from cni_py.spec.schema import config_schema


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schema(folder: Path) -> None:
    """Write the JSON Schema of every plugin's configuration into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, executable in EXECUTABLES.items():
        config = import_module(executable.module).Config
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config_schema(name, config), indent=2) + "\n")
        click.echo(path)
