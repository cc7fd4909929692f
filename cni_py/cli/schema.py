"""`cni-py schema`: JSON Schemas of the configurations."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import click

from cni_py.ipam.delegation import MODULES
from cni_py.skel import EXECUTABLES
from cni_py.spec.list_schema import list_schema
from cni_py.spec.schema import config_schema


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schema(folder: Path) -> None:
    """Write JSON Schemas into FOLDER: of every plugin's configuration, and of a whole network's.

    conflist.json is for editors: it is the schema of a .conflist or .conf with all plugins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs = {name: import_module(one.module).Config for name, one in EXECUTABLES.items()}
    schemas = {name: config_schema(name, config) for name, config in configs.items()}
    schemas["conflist"] = list_schema(configs, MODULES)
    paths = []
    for name, written in schemas.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(written, indent=2) + "\n")
    # Behind the last one: who reads only the first line gets all files.
    for path in paths:
        click.echo(path)
