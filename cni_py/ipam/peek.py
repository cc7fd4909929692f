"""host-local's allocations as they are, for who must change nothing: no lock, no index made.

It answers what `store.Allocations` answers. What others allocate meanwhile is not seen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import state_files
from cni_py.spec.addresses import IP, strip_prefix

from .index import (
    LAST_RESERVED,
    OWNERS,
    STATE,
    Entry,
    Owner,
    Sandbox,
    State,
    is_address,
    owner_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .ranges import Range


class Peek:
    """One network's allocations; `boot` is this boot's id."""

    def __init__(self, folder: str, index: str, boot: str) -> None:
        self._folder = folder
        self._owners = os.path.join(index, OWNERS)
        self._names: set[str] = set()
        state = _read(os.path.join(index, STATE), State) or State()
        # ADD frees what is of an earlier boot first, and looks for it when the machine has started.
        may_be_earlier = state.boot != boot
        try:
            changed = os.stat(folder).st_mtime_ns
            for name in filter(is_address, os.listdir(folder)):
                if not (may_be_earlier and self._is_of_earlier_boot(name)):
                    self._names.add(name)
        except (FileNotFoundError, NotADirectoryError):
            changed = 0
        self._is_known = (state.mtime, state.boot) == (changed, boot)

    def entry(self, owner: Owner) -> Entry | None:
        """What `owner` holds."""
        entry = _read(os.path.join(self._owners, owner.key), Entry)
        if entry is not None or self._is_known:
            return entry
        held = [name for name in self._names if self._owner(name) == owner]
        files = dict.fromkeys(held, (0, 0))
        return Entry(*owner, "", Sandbox(), files) if held else None

    def holder(self, address: IP) -> Owner | None:
        """Whom the address's file names."""
        return self._owner(str(address))

    def last_reserved(self, set_index: int) -> IP | None:
        """The address that was last given out of a range set; None if unknown."""
        data = _content(os.path.join(self._folder, f"{LAST_RESERVED}{set_index}"))
        try:
            return strip_prefix(data.decode())
        except ValueError:
            return None

    def free_positions(self, run: Range, start: int, end: int) -> Iterator[int]:
        """Positions of `run` in [start, end) that nobody holds, in order."""
        for position in range(start, end):
            if str(run.address(position)) not in self._names:
                yield position

    def recount(self, run: Range) -> None:
        """Nothing is behind the files here."""

    def claim(self, run: Range, address: IP) -> bool:  # noqa: ARG002 - as Allocations has it
        """Whether nobody holds it; the next claim sees it taken."""
        if str(address) in self._names:
            return False
        self._names.add(str(address))
        return True

    def release(self, owner: Owner) -> list[IP]:
        """See what `owner` holds as free."""
        entry = self.entry(owner)
        names = [] if entry is None else [one for one in entry.addresses if one in self._names]
        for name in names:
            self._names.discard(name)
        return [strip_prefix(one) for one in names]

    def _is_of_earlier_boot(self, name: str) -> bool:
        """One that is gone by now is nobody's either."""
        try:
            status = os.lstat(os.path.join(self._folder, name))
        except OSError:
            return True
        return state_files.is_of_earlier_boot(status.st_mtime_ns)

    def _owner(self, name: str) -> Owner | None:
        return owner_in(_content(os.path.join(self._folder, name)))


def _content(path: str) -> bytes:
    try:
        return state_files.content(path)
    except (OSError, state_files.DamagedError):
        return b""


def _read(path: str, kind: type[state_files.T]) -> state_files.T | None:
    try:
        return msgspec.json.decode(_content(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
