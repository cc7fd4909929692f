"""The folder with what containers declare, as the keeper reads it: often, and nothing twice.

A change of the folder shows in its time, which is asked for at each look; a file is read again if
another one has come in its place. Nothing is changed here: the plugin sets aside what is damaged.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel import state_files, sysctl
from cni_py.kernel.errors import kernel_error

from .declaration import FOLDER, Written, mistakes

if TYPE_CHECKING:
    from .declaration import Declaration

_SUFFIX = ".json"
# A file system's clock moves by the kernel's ticks, of up to 10 ms: two changes in one look alike.
_SETTLED_NS = 50_000_000


class Declared(NamedTuple):
    """All declarations of this boot, and why a file was passed over, by its path."""

    declarations: tuple[Declaration, ...]
    problems: dict[str, str]


class _Seen(NamedTuple):
    """A file's identity, and what was in it."""

    identity: tuple[int, int, int]
    written: Written | None
    problem: str


class DeclarationFolder:
    """See the module."""

    def __init__(self, path: str = FOLDER) -> None:
        """Raises KernelError."""
        self._path = path
        self._boot = sysctl.boot_id()
        self._changed: int | None = None
        self._was_fresh = False
        self._files: dict[str, _Seen] = {}

    def has_changed(self) -> bool:
        """Whether there may be something new since `read`; always so at first."""
        return self._was_fresh or self._time() != self._changed

    def read(self) -> Declared:
        """What is there now, in the order of the names. Raises KernelError."""
        self._changed = self._time()
        self._was_fresh = abs(time.time_ns() - self._changed) < _SETTLED_NS
        files: dict[str, _Seen] = {}
        try:
            with os.scandir(self._path) as entries:
                names = sorted(one.name for one in entries if one.name.endswith(_SUFFIX))
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise kernel_error(f"list {self._path}", error) from error
        for name in names:
            found = self._look(name)
            if found is not None:
                files[name] = found
        self._files = files
        written = [one.written for one in files.values() if one.written is not None]
        return Declared(
            tuple(one.declaration for one in written if one.boot == self._boot),
            {f"{self._path}/{name}": one.problem for name, one in files.items() if one.problem},
        )

    def _time(self) -> int:
        try:
            return os.stat(self._path).st_mtime_ns
        except OSError:
            return 0

    def _look(self, name: str) -> _Seen | None:
        path = f"{self._path}/{name}"
        try:
            status = os.lstat(path)
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            before = self._files.get(name)
            if before is not None and before.identity == identity:
                return before
            return _Seen(identity, _read(path), "")
        except FileNotFoundError:
            return None
        except OSError as error:
            return _Seen((0, 0, 0), None, error.strerror or str(error))
        except (state_files.DamagedError, ValueError) as error:
            return _Seen(identity, None, str(error))


def _read(path: str) -> Written:
    """Raises ValueError or DamagedError for what no plugin has written, OSError."""
    written = msgspec.json.decode(state_files.content(path), type=Written)
    declaration = written.declaration
    if f"{declaration.attachment.key}{_SUFFIX}" != os.path.basename(path):
        raise ValueError("it is another attachment's")
    for error in mistakes(declaration.services, "services"):
        raise ValueError(str(error))
    declaration.require_instances()
    return written
