"""Carrying a plan out: a call meanwhile finds the old file or the new one, and never half of one.

Everything is written and on the disk before the first file gets its name, so a disk that is full
changes nothing. There is one installation or removal of a folder at a time.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import cni_py
from cni_py.kernel import state_files
from cni_py.kernel.lock import is_at, take_lock

from . import writing
from .executables import interpreter
from .planning import Installation, Step, plan_installation, plan_removal
from .record import Entry, Place, Record
from .refusals import explaining

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WRITTEN = frozenset({"new", "replaced", "kept"})
_TAKEN_AWAY = frozenset({"removed", "restored"})


def install(asked: Installation) -> list[Step]:
    """Install, and tell what was done. Raises InstallationError, CniError 11."""
    made: list[str] = []
    with explaining(asked.folder):
        try:
            with _alone(asked.place, made):
                return _install(asked, made)
        except BaseException:
            writing.drop_folders(made)
            raise


def uninstall(place: Place) -> list[Step]:
    """Take away what was installed, and tell what was done. Raises InstallationError, CniError 11.

    What was replaced is put back; what somebody else has changed since stays.
    """
    with explaining(place.folder), _alone(place) as is_there:
        if not is_there:
            return []
        steps = plan_removal(place)
        record = place.read() or Record()
        _take_away(place, record, steps)
        _forget(place, record)
        return steps


def _install(asked: Installation, made: list[str]) -> list[Step]:
    place = asked.place
    former = place.read()
    steps = plan_installation(asked)
    record = _afterwards(asked, former, steps)
    if record == former and not any(one.action in _WRITTEN for one in steps):
        return steps
    folders = [os.path.dirname(asked.root.outside(one.path)) for one in asked.files]
    try:
        for one in dict.fromkeys([place.beside, *folders]):
            made += writing.make_folders(one)
        known = [*(former.folders if former else ()), *map(asked.root.inside, made)]
        record.folders = list(dict.fromkeys(known))
        place.save(_meanwhile(asked, former, record, steps))
        _prepare(asked, steps)
    except BaseException:
        _give_up(asked, former, made)
        raise
    _write(asked, steps)
    _take_away(place, record, [one for one in steps if one.action in _TAKEN_AWAY])
    place.save(record)
    return steps


def _afterwards(asked: Installation, former: Record | None, steps: Iterable[Step]) -> Record:
    """What the record has to say when everything is done."""
    python = interpreter(asked.root) if _has_python(asked) else ""
    record = Record(cni_py.__version__, python, dict(former.files) if former else {})
    if former is not None:
        record.folders = former.folders
    wanted = {one.path: one for one in asked.files}
    for step in steps:
        before = record.files.get(step.path, Entry([]))
        if step.path not in wanted:
            record.files.pop(step.path, None)
        elif step.action != "same" or before.written or wanted[step.path].kind == "executable":
            kept = before.kept
            if step.action == "kept":
                kept = writing.digest(asked.root.outside(step.path))
            record.files[step.path] = Entry([wanted[step.path].digest], kept)
    return record


def _has_python(asked: Installation) -> bool:
    executables = [one.path for one in asked.files if one.kind == "executable"]
    return any(os.path.dirname(one) != asked.folder for one in executables)


def _meanwhile(
    asked: Installation, former: Record | None, record: Record, steps: Iterable[Step]
) -> Record:
    """What it has to say while each file may be the former one or the new one."""
    files = dict(former.files) if former else {}
    for path, entry in record.files.items():
        before = files.get(path, Entry([]))
        files[path] = Entry(list(dict.fromkeys(before.written + entry.written)), entry.kept)
    for step in steps:
        there = asked.root.outside(step.path)
        if step.action in ("replaced", "same") and (found := writing.digest(there)):
            written = files[step.path].written if step.path in files else []
            if found not in written and step.path in files:
                files[step.path].written.insert(0, found)
    return Record(record.version, record.python, files, record.folders)


def _prepare(asked: Installation, steps: list[Step]) -> None:
    actions = {one.path: one.action for one in steps}
    for one in asked.files:
        if actions[one.path] in _WRITTEN:
            writing.prepare(asked.root.outside(one.path), one.content, one.mode)


def _give_up(asked: Installation, former: Record | None, made: list[str]) -> None:
    """Nothing has been replaced yet: have it as it was before, as far as the disk lets us."""
    for one in asked.files:
        with suppress(OSError):
            state_files.remove(writing.unfinished(asked.root.outside(one.path)))
    with suppress(OSError):
        if former is not None:
            asked.place.save(former)
        else:
            state_files.remove(asked.place.record_path)
            state_files.remove(writing.unfinished(asked.place.record_path))
    writing.drop_folders(made)


def _write(asked: Installation, steps: Iterable[Step]) -> None:
    folder = ""
    for step in steps:
        if step.action not in _WRITTEN:
            continue
        there = asked.root.outside(step.path)
        # What is in one folder is on the disk before that in the next one, which may name it.
        if folder and os.path.dirname(there) != folder:
            writing.sync(folder)
        folder = os.path.dirname(there)
        if step.action == "kept":
            writing.keep(there, asked.place.aside(step.path))
        writing.finish(there)
    if folder:
        writing.sync(folder)


def _take_away(place: Place, record: Record, steps: Iterable[Step]) -> None:
    folders = {}
    for step in steps:
        there = place.root.outside(step.path)
        if step.action == "restored":
            writing.put_back(place.aside(step.path), there)
        elif step.action == "removed":
            state_files.remove(there)
        else:
            continue
        folders[os.path.dirname(there)] = True
    for one in folders:
        writing.sync(one)
    for path in record.files:
        state_files.remove(writing.unfinished(place.root.outside(path)))


def _forget(place: Place, record: Record) -> None:
    """Remove what is beside the executables, and the folders that were made for all of it."""
    if os.path.isdir(place.replaced):
        for name in os.listdir(place.replaced):
            state_files.remove(os.path.join(place.replaced, name))
        os.rmdir(place.replaced)
    inner = [place.outside, place.beside]
    made = [place.root.outside(one) for one in record.folders]
    writing.drop_folders([one for one in made if one not in inner])
    state_files.forget(place.record_path)
    state_files.remove(writing.unfinished(place.record_path))
    writing.drop_folders([*[one for one in made if one != place.beside], place.beside])


@contextmanager
def _alone(place: Place, made: list[str] | None = None) -> Iterator[bool]:
    """Hold the folder's lock, which the kernel gives back when this process ends.

    The folder is made if need be, and what was made told in `made`; without that, whether it is
    there. Raises CniError 11 where somebody else has the lock for 30 s, OSError.
    """
    while True:
        if made is not None:
            made += writing.make_folders(place.outside)
        try:
            fd = os.open(place.outside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if made is None:
                yield False
                return
            continue
        try:
            take_lock(fd, place.folder)
            # A removal that was faster has taken the folder away.
            if is_at(place.outside, fd):
                yield True
                return
        finally:
            os.close(fd)
