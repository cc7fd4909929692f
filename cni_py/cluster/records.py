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
        self.revision = 0

    def listed(self, snapshot: Snapshot, now: float) -> None:
        """The store has exactly these."""
        present = {one.key: one for one in snapshot.records}
        for key, record in self._present.items():
            if key not in present:
                self._missing[key] = (record, now + self._grace)
        self._present, self.revision = present, snapshot.revision
        for key in present:
            self._missing.pop(key, None)

    def changed(self, batch: Batch) -> None:
        """What a watch has told."""
        for event in batch.events:
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
        for key, record in self._present.items():
            if key.startswith(prefix):
                yield record
        for key, (record, until) in self._missing.items():
            if key.startswith(prefix) and until > now:
                yield replace(record, created=_LATEST)

    def next_end(self, now: float) -> float | None:
        """Seconds until the next missing record is given up, which is forgotten then; or None."""
        for key in [key for key, (_, until) in self._missing.items() if until <= now]:
            del self._missing[key]
        ends = [until for _, until in self._missing.values()]
        return min(ends) - now if ends else None

    def missing(self, prefix: str) -> list[str]:
        """The keys of those that are kept for a while."""
        return sorted(key for key in self._missing if key.startswith(prefix))
