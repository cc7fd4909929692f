"""`cni-py lint`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from .completing import NET_DIR
from .networks import cni_path_option
from .output import json_option, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_py.lint import Finding

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command()
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option("--strict", is_flag=True, help="Warnings count as errors do.")
@click.option(
    "--offline",
    is_flag=True,
    help="Look at nothing of this host: no executables, interfaces, routes.",
)
@cni_path_option
@json_option
def lint(
    paths: Sequence[str],
    strict: bool,  # noqa: FBT001 - click passes options by name
    offline: bool,  # noqa: FBT001
    cni_path: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Find every mistake in networks' configurations, and say what would be right.

    FILE is a .conflist, .conf or .json, a folder of them, or - for standard input; without one
    it is /etc/cni/net.d. Each line of the answer is FILE:LINE:COLUMN, an error, a warning or an
    info, what is wrong, and what would be right. The other files of the same folder are compared
    with.

    Exit status: 0 there is no error; 1 there are errors, with --strict warnings too; 2 a file
    cannot be read.
    """
    from cni_py.lint import Host, Report, collect
    from cni_py.lint import lint as find

    given = list(paths or [NET_DIR])
    files, unreadable = collect(given)
    host = Host() if offline else Host.with_executables(cni_path).with_kernel()
    folders = [os.path.join(one, "") for one in given if one != "-" and os.path.isdir(one)]
    findings = find(files, host, folders)
    asked = tuple(one.name for one in files if one.is_asked)
    if as_json:
        print_json(Report(asked, tuple(findings), tuple(unreadable)))
    else:
        for one in findings:
            click.echo(_line(one))
    for text in unreadable:
        click.echo(printable(f"cni-py lint: {text}"), err=True)
    if not as_json and not unreadable:
        click.echo(_summary(findings, len(asked)), err=True)
    worst = {one.severity for one in findings}
    failed = "error" in worst or (strict and "warning" in worst)
    sys.exit(2 if unreadable else 1 if failed else 0)


def _line(one: Finding) -> str:
    """Coloured where a person reads it."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    if plain or not os.isatty(1):
        return printable(str(one))
    word = click.style(one.severity, fg=_COLOURS[one.severity], bold=True)
    return printable(str(one)).replace(f" {one.severity}: ", f" {word}: ", 1)


def _summary(findings: Sequence[Finding], files: int) -> str:
    counts = [
        (sum(one.severity == severity for one in findings), word)
        for severity, word in (("error", "errors"), ("warning", "warnings"))
    ]
    listed = ", ".join(f"{count} {word if count != 1 else word[:-1]}" for count, word in counts)
    return f"{files} {'files' if files != 1 else 'file'}: {listed}"
