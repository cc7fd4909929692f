"""`cni-py install` and `uninstall`: the executables."""

from __future__ import annotations

from pathlib import Path

import click

from cni_py.installation import install_executables, uninstall_executables

from .group import Failed
from .output import json_option, print_paths


@click.command()
@click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("/opt/cni/bin")
)
@click.option(
    "--launcher-only",
    is_flag=True,
    help="No Python executables behind the launcher: the server is in a container.",
)
@json_option
def install(
    folder: Path,
    launcher_only: bool,  # noqa: FBT001 - click passes options by name
    as_json: bool,  # noqa: FBT001
) -> None:
    """Write one executable a plugin into FOLDER (/opt/cni/bin)."""
    try:
        paths = install_executables(folder, launcher_only=launcher_only)
        print_paths(paths, as_json=as_json)
    except ValueError as error:
        raise Failed(str(error)) from None


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def uninstall(folder: Path, as_json: bool) -> None:  # noqa: FBT001
    """Take away what install has written into FOLDER; executables of others stay.

    Containers keep their network, but nobody can take it down again: their runtime's DEL fails, or
    meets the plugins of others. So end them first, or put others' executables in place at once.
    """
    print_paths(uninstall_executables(folder), as_json=as_json)
