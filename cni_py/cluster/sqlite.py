"""A store that is a file of SQLite, for the processes of one machine."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .sqlite_tables import Tables
from .store import DEADLINE, PROGRESS, Batch, Outcome, Snapshot, Store
from .store_errors import Compacted, Unavailable, Unsure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from .store import Condition, Event, Put, Record

T = TypeVar("T")

# How often a watch looks for what other processes have changed, in seconds.
_POLL = 0.1
# What a call may take beyond its deadline before it is left to itself: the disk hangs.
_GRACE = 1.0


class Sqlite(Store):
    """A store in one file, of mode 0600, in a folder that is made with mode 0700.

    Other processes of the machine may use it too, if they are the same user's and share the file
    system and clock: it is no store for several machines. Without `create` a file that is not
    there is a store that is out of reach.
    """

    def __init__(self, path: str, *, progress: float = PROGRESS, create: bool = True) -> None:
        self._path = os.path.abspath(path)
        self._tables = Tables(self._path, create=create)
        # SQLite waits for locks and the disk: not in the loop.
        self._thread = ThreadPoolExecutor(1, "cni-py store")
        self._progress = progress
        self._last_listed = 0
        self._closed = False
        # Set, and made anew, at each change by this process.
        self._changed = asyncio.Event()

    async def get(self, key: str, *, seconds: float = DEADLINE) -> Record | None:
        """See Store."""
        return await self._read(lambda: self._tables.get(key), seconds)

    async def list(self, prefix: str, *, seconds: float = DEADLINE) -> Snapshot:
        """See Store."""
        found, number = await self._read(
            lambda: (self._tables.listing(prefix), self._tables.number), seconds
        )
        self._last_listed = number
        return Snapshot(tuple(found[0]), found[1])

    async def _transact(
        self,
        conditions: Sequence[Condition],
        puts: Sequence[Put],
        deletes: Sequence[str],
        seconds: float,
    ) -> Outcome:
        return await self._write(lambda: self._tables.transact(conditions, puts, deletes), seconds)

    async def grant(self, ttl: int, *, seconds: float = DEADLINE) -> int:
        """See Store."""
        return await self._write(lambda: self._tables.grant(ttl), seconds)

    async def renew(self, lease: int, *, seconds: float = DEADLINE) -> float:
        """See Store."""
        return await self._write(lambda: self._tables.renew(lease), seconds)

    async def time_left(self, lease: int, *, seconds: float = DEADLINE) -> float:
        """See Store."""
        return await self._read(lambda: self._tables.time_left(lease), seconds)

    async def revoke(self, lease: int, *, seconds: float = DEADLINE) -> None:
        """See Store."""
        await self._write(lambda: self._tables.revoke(lease), seconds)

    async def compact(self, revision: int, *, seconds: float = DEADLINE) -> None:
        """Forget what was changed before a revision; otherwise the store does that by itself."""
        await self._write(lambda: self._tables.compact(revision), seconds)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """See Store."""
        number = self._last_listed
        lost = ""
        # By the loop's clock, when the last batch was.
        told = float("-inf")
        while True:
            changed = self._changed
            try:
                events, upto, now = await self._changes(prefix, after)
            except Unavailable as error:
                self._refuse_closed()
                if not lost:
                    lost = str(error)
                    yield Batch(after, lost=lost)
            else:
                if now != number:
                    raise Compacted(after, "there is another file: was a backup restored?")
                after = upto
                if events or lost or _now() - told >= self._progress:
                    lost, told = "", _now()
                    yield Batch(after, tuple(events))
                    continue
            try:
                async with asyncio.timeout(_POLL):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _changes(self, prefix: str, after: int) -> tuple[Sequence[Event], int, int]:
        def changes() -> tuple[Sequence[Event], int, int]:
            return *self._tables.changes(prefix, after), self._tables.number

        return await self._read(changes, DEADLINE)

    async def _read(self, function: Callable[[], T], seconds: float) -> T:
        def run(left: float) -> T:
            with self._tables.reading(left):
                return function()

        return await self._run(run, seconds)

    async def _write(self, function: Callable[[], T], seconds: float) -> T:
        def run(left: float) -> T:
            with self._tables.writing(left):
                return function()

        found = await self._run(run, seconds)
        self._changed.set()
        self._changed = asyncio.Event()
        return found

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable(f"{self._path}: the store was closed")

    async def _run(self, function: Callable[[float], T], seconds: float) -> T:
        self._refuse_closed()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds

        def run() -> T:
            left = deadline - loop.time()
            if left <= 0:
                raise Unavailable(f"{self._path}: no time")
            return function(left)

        try:
            async with asyncio.timeout(seconds + _GRACE):
                return await loop.run_in_executor(self._thread, run)
        except TimeoutError:
            raise Unsure(f"{self._path}: the disk does not answer in time") from None
        except asyncio.CancelledError:
            # `close` drops what waits for the thread.
            task = asyncio.current_task()
            if not (task and task.cancelling()):
                self._refuse_closed()
            raise

    async def close(self) -> None:
        """See Store."""
        if not self._closed:
            self._closed = True
            self._changed.set()
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._tables.close)
            await asyncio.shield(closing)
            self._thread.shutdown(cancel_futures=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
