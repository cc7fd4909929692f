"""Who may change the folders that root's work depends on."""

from __future__ import annotations

import os
import shlex
import stat
from typing import TYPE_CHECKING

from cni_py.kernel.own_folders import STATE, not_own

from .finding import broken, fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding

_CNI = "/var/lib/cni"


def examine(places: Places) -> Iterator[Finding]:
    """Look at each folder, and those above it."""
    paths = (*STATE, _CNI, places.data_dir, str(places.folder), places.net_dir)
    wrong = False
    for path in dict.fromkeys(paths):
        for one in _folder(path):
            wrong = True
            yield one
    yield from _files(places)
    if not wrong:
        yield fine("nobody but root can change the folders of state, executables, configurations")


def _folder(path: str) -> Iterator[Finding]:
    if os.path.islink(path):
        text = f"{path} is a link to {os.path.realpath(path)}"
        if path in STATE:
            yield broken(f"{text}: calls refuse it", shlex.join(("rm", path)))
        else:
            yield note(text)
    problem = not_own(os.path.realpath(path))
    if problem:
        remedy = f"look at what is in it, then: {_taking(path)}"
        finding = broken if path in STATE else look
        yield finding(f"{path} {problem}", remedy)
    above = os.path.dirname(path)
    while above not in ("", "/"):
        if (problem := not_own(above)) and not _is_sticky(above):
            yield look(f"{above}, above {path}, {problem}", _taking(above))
        above = os.path.dirname(above)


def _taking(path: str) -> str:
    """The commands that make a folder root's alone; whoever could write there chose the names."""
    return f"{shlex.join(('chown', 'root:root', path))}; {shlex.join(('chmod', '755', path))}"


def _files(places: Places) -> Iterator[Finding]:
    """Executables and configurations: who writes them is root."""
    for folder in (str(places.folder), places.net_dir):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                mode = os.stat(path)
            except OSError:
                yield look(f"{path} leads nowhere", shlex.join(("rm", path)))
                continue
            if stat.S_ISREG(mode.st_mode) and mode.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
                shown = f"{stat.S_IMODE(mode.st_mode):04o}"
                text = f"{path} can be written by others: its mode is {shown}"
                yield look(text, shlex.join(("chmod", "go-w", path)))


def _is_sticky(path: str) -> bool:
    return bool(os.stat(path).st_mode & stat.S_ISVTX)
