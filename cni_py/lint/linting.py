"""All of it: from files to findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.spec.config import decode_json

from . import chain, network, plugin, together
from .finding import Finding, Notes
from .together import Looked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .files import File
    from .host import Host


def lint(files: Sequence[File], host: Host, folders: Sequence[str] = ()) -> list[Finding]:
    """What is to be said of the files, by their place.

    Of files that are not asked for nothing is said but what others have to do with them. `folders`
    end in a slash: of each it is said which network comes first.
    """
    every, looked = [], []
    for file in files:
        notes = Notes(file.name, file.parsed)
        every.append((file, notes))
        one = _look(notes, file, host)
        if one is not None:
            looked.append(one)
    # A finding is put on the later one of two files: the one that is asked for.
    together.check(sorted(looked, key=lambda one: one.network.file.is_asked), host)
    together.note_order(looked, folders)
    return sorted(one for file, notes in every if file.is_asked for one in notes.found)


def _look(notes: Notes, file: File, host: Host) -> Looked | None:
    notes.mistakes(file.parsed.mistakes)
    found = network.read(notes, file)
    if found is None:
        return None
    if not file.parsed.mistakes:
        _check_reader(notes, file)
    plugins = tuple(plugin.check(notes, found, one, host) for one in found.plugins)
    chain.check(notes, plugins)
    return Looked(notes, found, plugins)


def _check_reader(notes: Notes, file: File) -> None:
    """Note what plugins' own reader refuses, should ours have seen nothing."""
    try:
        decode_json(file.parsed.text.text.encode(errors="surrogatepass"))
    except (ValueError, RecursionError) as error:
        notes.error(0, f"plugins cannot read this JSON: {error}")
