"""What an installation or a removal does, file by file: a dry run shows it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from cni_py.ipam.delegation import is_ours

from . import executables, writing
from .asked import InstallationError, Wanted
from .record import Place, Record, owner

if TYPE_CHECKING:
    from .root import Root

# new: nothing is there. replaced: what is ours is. kept: what is another's is, and is kept for the
# removal. same: it is as it should be. restored: what was there before comes back. left: somebody
# else has changed it since.
Action = Literal["new", "replaced", "kept", "same", "removed", "restored", "left"]


class Step(msgspec.Struct, frozen=True):
    """What becomes of one file, by its path inside."""

    action: Action
    path: str
    note: str = ""


class Installation(NamedTuple):
    """What is asked for: files, for a folder of executables in a root.

    With `force` also configurations and units of others are replaced.
    """

    folder: str
    root: Root
    files: tuple[Wanted, ...]
    force: bool = False

    @property
    def place(self) -> Place:
        """Where the record is."""
        return Place(self.root, self.folder)


def plan_installation(asked: Installation) -> list[Step]:
    """A step for each file, in their order. Changes nothing.

    Raises InstallationError where a configuration is somebody else's, OSError.
    """
    record = asked.place.read()
    steps = [_putting(asked, record, one) for one in asked.files]
    return steps + _obsolete(asked, record)


def plan_removal(place: Place) -> list[Step]:
    """A step for each file that was installed, in the order in which they go. Raises OSError."""
    record = place.read()
    if record is None:
        paths = sorted(executables.names(place.folder), key=lambda one: _beside(place, one))
        return [step for one in paths for step in _unrecorded(place, one)]
    # What names executables goes before them, and those behind the launcher after it.
    paths = [one for one in record.files if not _is_executable(place, one)][::-1]
    paths += sorted(set(record.files) - set(paths), key=lambda one: (_beside(place, one), one))
    return [step for one in paths for step in _removal(place, record, one)]


def _putting(asked: Installation, record: Record | None, wanted: Wanted) -> Step:
    there = asked.root.outside(wanted.path)
    if os.path.isdir(there) and not os.path.islink(there):
        raise InstallationError(f"{wanted.path} is a folder: move it away")
    whose = owner(asked.place, record, wanted.path)
    if not whose:
        return Step("new", wanted.path)
    same = writing.digest(there) == wanted.digest
    if same and whose == "others" and wanted.kind != "executable":
        # It was there before, and stays when ours go.
        return Step("same", wanted.path)
    if same and os.lstat(there).st_mode & 0o7777 == wanted.mode:
        return Step("same", wanted.path)
    if whose == "ours" or same:
        return Step("replaced", wanted.path)
    if wanted.kind == "executable":
        if os.path.islink(there) or not is_ours(there):
            return Step("kept", wanted.path)
        return Step("replaced", wanted.path, "it was changed after it had been installed")
    if not asked.force:
        raise InstallationError(
            f"{wanted.path} is there, differs, and is not what cni-py install has written: move it "
            "away, or have it replaced with --force"
        )
    return Step("kept", wanted.path)


def _obsolete(asked: Installation, record: Record | None) -> list[Step]:
    """Executables of another installation in the folder that this one does not have."""
    wanted = {one.path for one in asked.files}
    if not any(one.kind == "executable" for one in asked.files):
        return []
    if record is None:
        surplus = sorted(executables.names(asked.folder) - wanted)
        return [step for one in surplus for step in _unrecorded(asked.place, one)]
    surplus = [
        one for one in record.files if one not in wanted and _is_executable(asked.place, one)
    ]
    return [step for one in surplus for step in _removal(asked.place, record, one)]


def _unrecorded(place: Place, path: str) -> list[Step]:
    """Of an executable, where the record is lost or none was written."""
    whose = owner(place, None, path)
    if whose != "others" and os.path.lexists(place.aside(path)):
        return [Step("restored", path)]
    return [Step("removed", path)] if whose == "ours" else []


def _removal(place: Place, record: Record, path: str) -> list[Step]:
    whose = owner(place, record, path)
    entry = record.files[path]
    is_kept = bool(entry.kept) and os.path.lexists(place.aside(path))
    if whose == "others":
        if entry.kept and writing.digest(place.root.outside(path)) == entry.kept:
            # An installation or a removal that was killed: it is there already.
            return []
        return [Step("left", path, "somebody else has changed it since")]
    if is_kept:
        return [Step("restored", path)]
    return [Step("removed", path)] if whose else []


def _is_executable(place: Place, path: str) -> bool:
    return path.startswith(f"{place.folder}/")


def _beside(place: Place, path: str) -> bool:
    return os.path.dirname(path) != place.folder
