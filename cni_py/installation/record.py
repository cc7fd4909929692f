"""What was installed: the record beside the executables, and the files that were replaced.

`FOLDER/.cni-py/record.json` is written before anything is changed, with what there may be from then
on, and once more when everything is there. So it tells what is ours after a kill at any moment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cni_py.ipam.delegation import is_ours
from cni_py.kernel import state_files

from . import writing

if TYPE_CHECKING:
    from .root import Root

# Beside the executables: the Python ones, the record, and what was replaced.
BESIDE = ".cni-py"
_RECORD = "record.json"
_REPLACED = "replaced"
_MODE = 0o644


class Entry(msgspec.Struct, omit_defaults=True):
    """A file: SHA-256 of each content that it may have from us, and of what was there before."""

    written: list[str]
    kept: str = ""


class Record(msgspec.Struct):
    """`files` have their paths inside; `folders` are those that were made, outermost first."""

    version: str = ""
    python: str = ""
    files: dict[str, Entry] = {}
    folders: list[str] = []


@dataclass(frozen=True)
class Place:
    """A folder of executables, as programs inside know it, in a root."""

    root: Root
    folder: str

    @property
    def outside(self) -> str:
        """The folder itself. Raises OSError."""
        return os.path.dirname(self.root.outside(f"{self.folder}/{BESIDE}"))

    @property
    def beside(self) -> str:
        """The folder that has what is not for runtimes."""
        return os.path.join(self.outside, BESIDE)

    @property
    def record_path(self) -> str:
        """The record's file."""
        return os.path.join(self.beside, _RECORD)

    @property
    def replaced(self) -> str:
        """The folder of what was replaced."""
        return os.path.join(self.beside, _REPLACED)

    def aside(self, path: str) -> str:
        """Where what was at `path` (inside) before is kept."""
        return os.path.join(self.replaced, path.replace("%", "%25").replace("/", "%2F"))

    def read(self) -> Record | None:
        """The record; None without one, or where it was damaged. Raises OSError."""
        return state_files.load(self.record_path, Record)

    def save(self, record: Record) -> None:
        """Write the record; it is on the disk then. Raises OSError."""
        writing.put(self.record_path, msgspec.json.format(msgspec.json.encode(record)), _MODE)


def owner(place: Place, record: Record | None, path: str) -> str:
    """Whose file is at `path` (inside): `""` nobody's, for there is none, `ours`, or `others`.

    An executable that has our mark is ours where no record knows better. Raises OSError.
    """
    there = place.root.outside(path)
    found = writing.digest(there)
    if not found:
        return ""
    entry = record.files.get(path) if record is not None else None
    if entry is not None:
        return "ours" if found in entry.written else "others"
    return "ours" if record is None and not os.path.islink(there) and is_ours(there) else "others"
