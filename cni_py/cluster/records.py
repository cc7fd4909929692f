"""What the store has below the prefix, as the agent knows it; pure.

A record that was taken away by a change that was told is gone. One that is missing from a list,
after a time of which nothing is known, is kept for a while: a store that comes back from a backup,
or empty, has lost records of nodes that live, and they write them again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .store import Batch, Record, Snapshot

# After all that the store has: a record that it has wins against one that is missing.
_LATEST = 1 << 62


class Records:
    """The records by key. `grace` is for how many seconds a missing one is kept."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._present: dict[str, Record] = {}
        self._missing: dict[str, tuple[Record, float]] = {}
        # What is another one than when it was asked last.
        self._stirred: set[str] = set()
        self.revision = 0

    def listed(self, snapshot: Snapshot, now: float) -> None:
        """The store has exactly these."""
        present = {one.key: one for one in snapshot.records}
        for key, record in self._present.items():
            if key not in present:
                self._missing[key] = (record, now + self._grace)
                self._stirred.add(key)
        for key, record in present.items():
            if self._present.get(key) != record:
                self._stirred.add(key)
        self._present, self.revision = present, snapshot.revision
        for key in self._missing.keys() & present.keys():
            del self._missing[key]

    def changed(self, batch: Batch) -> None:
        """What a watch has told."""
        for event in batch.events:
            self._stirred.add(event.key)
            self._missing.pop(event.key, None)
            if event.record is None:
                self._present.pop(event.key, None)
            else:
                self._present[event.key] = event.record
        self.revision = batch.revision

    def get(self, key: str) -> Record | None:
        """The record that the store has."""
        return self._present.get(key)

    def below(self, prefix: str, now: float) -> Iterable[Record]:
        """Those whose keys begin so, with those that are missing for a short time."""
        for key in (*self._present, *self._missing):
            if key.startswith(prefix) and (record := self._known(key, now)) is not None:
                yield record

    def stirred(self, now: float) -> list[tuple[str, Record | None]]:
        """The keys that something has happened to since this was asked last, and what of `below`
        is there; None where there is nothing any more.
        """
        self._end(now)
        stirred, self._stirred = self._stirred, set()
        return [(key, self._known(key, now)) for key in stirred]

    def _known(self, key: str, now: float) -> Record | None:
        if key in self._present:
            return self._present[key]
        record, until = self._missing.get(key, (None, 0.0))
        return replace(record, created=_LATEST) if record and until > now else None

    def _end(self, now: float) -> bool:
        """Forget the missing whose time is over; whether there were any."""
        ended = [key for key, (_, until) in self._missing.items() if until <= now]
        for key in ended:
            del self._missing[key]
        self._stirred.update(ended)
        return bool(ended)

    def next_end(self, now: float) -> float | None:
        """Seconds until the next missing record is forgotten, 0 if one was just now; or None."""
        if self._end(now):
            return 0.0
        ends = [until for _, until in self._missing.values()]
        return min(ends) - now if ends else None

    def missing(self, prefix: str) -> list[str]:
        """The keys of those that are kept for a while."""
        return sorted(key for key in self._missing if key.startswith(prefix))
