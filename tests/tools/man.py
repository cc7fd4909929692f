"""`make pages`: the manual pages in docs/man, from the command line's own help.

The wheel installs them into share/man/man1.
"""

from __future__ import annotations

import sys
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click_man.man import ManPage

from cni_py.cli import main as program
from fixtures.host import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / "docs" / "man"
# How click marks a paragraph whose lines stay as they are.
_VERBATIM = "\b"


def pages() -> dict[str, str]:
    """Each page by the name of its file."""
    found = {}
    for context in _contexts(click.Context(program, info_name="cni-py")):
        found[f"{context.command_path.replace(' ', '-')}.1"] = _page(context)
    return found


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            if not command.hidden:
                yield from _contexts(click.Context(command, info_name=name, parent=context))


def _page(context: click.Context) -> str:
    command = context.command
    page = ManPage(context.command_path)
    # The same page every day, and in every version.
    page.version = page.date = ""
    page.short_help = _escaped(command.get_short_help_str(limit=300))
    page.synopsis = " ".join(_escaped(one) for one in command.collect_usage_pieces(context))
    page.description = _description(command.help or "")
    page.options = [
        (record[0], _escaped(record[1]) or "See above.")
        for one in command.params
        if isinstance(one, click.Option) and (record := one.get_help_record(context)) is not None
    ]
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        commands = ((name, command.get_command(context, name)) for name in names)
        page.commands = [
            (_escaped(name), _escaped(one.get_short_help_str(limit=300)))
            for name, one in commands
            if one is not None and not one.hidden
        ]
    return str(page).replace('"1" "" ', '1 "" ') + _see_also(context)


def _description(text: str) -> str:
    """Paragraphs; those whose lines stay as they are between .nf and .fi."""
    paragraphs = []
    for one in cleandoc(text).split("\n\n"):
        lines = [_escaped(line) for line in one.split("\n") if line != _VERBATIM]
        if one.startswith(_VERBATIM):
            lines = [".nf", *lines, ".fi"]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _see_also(context: click.Context) -> str:
    if context.parent is None:
        return ""
    parent = _escaped(context.parent.command_path.replace(" ", "-"))
    return f".SH SEE ALSO\n.BR {parent} (1)\n"


def _escaped(text: str) -> str:
    """As roff prints it as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main(folder: Path) -> None:
    """Write the pages, and remove those of commands that are gone."""
    folder.mkdir(exist_ok=True)
    written = pages()
    for name, text in written.items():
        (folder / name).write_text(text)
    for path in folder.glob("*.1"):
        if path.name not in written:
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
