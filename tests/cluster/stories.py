"""A watch that is followed beside a test, as an agent follows it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cni_py.cluster.store import Batch, Event, Record, Snapshot, Store

_SECONDS = 30


class Following(ABC):
    """Something that is followed beside a test."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    @abstractmethod
    async def _follow(self) -> None:
        """Follow it without end, and set `_news` whenever there is some."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def until(self, fits: Callable[[], object], seconds: float = _SECONDS) -> None:
        """Wait until something holds; raises what the watch raised."""
        async with asyncio.timeout(seconds):
            while not fits():
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({news, self._task}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if self._task.done():
                    self._task.result()
                self._news.clear()


class Story(Following):
    """Follows a watch from a snapshot on: the records are those that the events lead to."""

    def __init__(self, store: Store, prefix: str, snapshot: Snapshot) -> None:
        super().__init__()
        self.store = store
        self.prefix = prefix
        self.records: dict[str, Record] = {one.key: one for one in snapshot.records}
        self.revision = snapshot.revision
        self.batches: list[Batch] = []

    async def _follow(self) -> None:
        async with aclosing(self.store.watch(self.prefix, self.revision)) as batches:
            async for batch in batches:
                assert batch.revision >= self.revision
                self.batches.append(batch)
                self.revision = batch.revision
                for event in batch.events:
                    if event.record is None:
                        self.records.pop(event.key)
                    else:
                        self.records[event.key] = event.record
                self._news.set()

    async def reaches(self, revision: int) -> None:
        """Wait until all is told up to a revision."""
        await self.until(lambda: self.revision >= revision)

    def sorted(self) -> list[Record]:
        return [self.records[key] for key in sorted(self.records)]

    def torn(self) -> Iterator[int]:
        """Revisions whose events came in more than one batch."""
        counted = Counter(
            revision
            for batch in self.batches
            for revision in {one.revision for one in batch.events}
        )
        return (revision for revision, count in counted.items() if count > 1)


async def events_of(batches: AsyncIterator[Batch]) -> list[Event]:
    """All that a watch tells until it ends."""
    return [event async for batch in batches for event in batch.events]
