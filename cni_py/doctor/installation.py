"""The executables, the launcher in them, and what the record of their installation says."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from cni_py import __version__
from cni_py.installation import Root, launcher_program
from cni_py.installation.record import Place, Record, owner
from cni_py.ipam.delegation import is_ours
from cni_py.kernel import state_files
from cni_py.skel import EXECUTABLES

from .finding import broken, fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding


def examine(places: Places) -> Iterator[Finding]:
    """Look at each executable of the folder, and at the record."""
    folder = places.folder
    again = shlex.join(("cni-py", "install", str(folder)))
    installed = False
    for name in EXECUTABLES:
        path = folder / name
        if not path.exists():
            yield look(f"{path} is missing", again)
        elif not is_ours(str(path)):
            yield look(f"{path} is not cni-py's", again)
        elif not os.access(path, os.X_OK):
            yield broken(f"{path} is not executable", f"chmod 755 {path}")
        else:
            installed = True
            yield fine(f"{path} is cni-py's")
    if installed:
        yield from _recorded(Place(Root(), str(folder.absolute())), again)
    if launcher_program() is not None:
        yield fine("the launcher is compiled")
    else:
        remedy = "install a C compiler and cni-py again: without a launcher calls cannot use "
        yield look("the package was built without the launcher", f"{remedy}the server")


def _recorded(place: Place, again: str) -> Iterator[Finding]:
    with state_files.only_looking():
        record = place.read()
    if record is None:
        yield note(f"{place.folder} has no record of its installation", again)
        return
    plugins = {f"{place.folder}/{name}" for name in EXECUTABLES}
    for path in record.files:
        whose = owner(place, record, path)
        if whose == "others" and not (path in plugins and not is_ours(path)):
            yield look(
                f"{path} was changed after it had been installed", f"look at it, then {again}"
            )
        elif not whose and path not in plugins:
            yield look(f"{path} was installed and is missing", again)
    if any(len(entry.written) > 1 for entry in record.files.values()):
        yield look(f"an installation into {place.folder} was not finished", again)
    yield from _version(place, record, again)


def _version(place: Place, record: Record, again: str) -> Iterator[Finding]:
    if record.python and not os.access(record.python, os.X_OK):
        yield broken(f"{record.python}, which {place.folder} was installed from, is gone", again)
    if record.version != __version__:
        text = f"{place.folder} was installed by cni-py {record.version}, and this is {__version__}"
        yield look(text, again)
    else:
        yield fine(f"{place.folder} was installed by cni-py {record.version}")
