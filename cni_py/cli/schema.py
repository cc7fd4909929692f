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

from .output import json_option, print_paths


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@json_option
def schema(folder: Path, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Write JSON Schemas into FOLDER: of every plugin's configuration, and of a whole network's.

    conflist.json is for editors: it is the schema of a .conflist or .conf with all plugins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs = {name: import_module(its.module).Config for name, its in EXECUTABLES.items()}
    schemas = {name: config_schema(name, config) for name, config in configs.items()}
    schemas["conflist"] = list_schema(configs, MODULES)
    written = []
    for name, one in schemas.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(one, indent=2) + "\n")
        written.append(path)
    # Behind the last one: who reads only the first line gets all files.
    print_paths(written, as_json=as_json)
