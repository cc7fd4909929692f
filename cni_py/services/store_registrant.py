"""A node's hand in a store: its instances, under a lease that it renews, and what is whose.

A record is its node's: `CniPy.node` in it says whose. Each change has the condition that the record
is as it was read, so that nobody's is ever overwritten or removed unseen. The node's next process
has another lease; it takes over what it wants and is still there, and leaves the rest to expire.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cni_py.cluster.keeping import Holding, Kept, keeping
from cni_py.cluster.store import Absent, AtRevision, Put
from cni_py.cluster.store_errors import LeaseLost, StoreError, Unavailable

from .registry import Claimed
from .skydns import owner_of
from .striving import Pause, Striving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_py.cluster.store import Condition, Record, Snapshot, Store

    from .skydns import Layout
    from .striving import Name

# Transactions of one change: somebody else may always be faster.
_ATTEMPTS = 16
# Seconds between two looks whether the store still has everything: it may have come back from a
# backup with the lease and without the records, and people remove keys.
_AUDIT = 30.0


class StoreRegistrant(Striving):
    """The registrant of one node in a store; `run` keeps its session."""

    def __init__(self, store: Store, layout: Layout, node: str, ttl: int, seconds: float) -> None:
        super().__init__(node)
        self._seconds = seconds
        self._store = store
        self._layout = layout
        self._ttl = ttl
        self._kept: Kept | None = None
        self._has_session = asyncio.Event()

    @property
    def problem(self) -> str:
        """See Registrant."""
        if self._kept is None:
            return self._trouble or "the session has not begun yet"
        return self._trouble or self._kept.problem

    async def leave(self) -> None:
        """See Registrant."""
        self._wanted.clear()
        self._behind.clear()
        kept = self._kept
        if kept is not None:
            await self._store.revoke(kept.lease, seconds=self._seconds)
            self._give_up(kept)

    async def run(self) -> None:
        """Have a session, as long as nobody cancels; after one that is lost, another."""
        pause = Pause()
        while True:
            try:
                lease = await self._store.grant(self._ttl, seconds=self._seconds)
                async with keeping(self._store, lease) as kept:
                    pause.again()
                    self._kept = kept
                    self._behind.update(self._wanted)
                    self._has_session.set()
                    await self._attend(kept)
            except StoreError as error:
                self._trouble = str(error)
                await asyncio.sleep(pause.next())
            finally:
                self._kept = None
                self._has_session.clear()

    async def _attend(self, kept: Kept) -> None:
        """Keep everything as it is wanted, until the session is lost."""
        loop = asyncio.get_running_loop()
        pause, audited = Pause(), loop.time()
        losing = asyncio.create_task(_lost(kept))
        try:
            while self._kept is kept and not losing.done():
                self._stirred.clear()
                seconds = _AUDIT
                try:
                    if loop.time() - audited >= _AUDIT:
                        await self._audit(kept)
                        audited = loop.time()
                    is_done = await self._catch_up()
                except StoreError as error:
                    self._trouble, is_done = str(error), False
                if is_done:
                    pause.again()
                else:
                    seconds = pause.next()
                await self._idle(losing, seconds)
        finally:
            losing.cancel()

    async def _idle(self, losing: asyncio.Task[None], seconds: float) -> None:
        """Until there is something to do, or to see that the session is lost."""
        stirring = asyncio.create_task(self._stirred.wait())
        both = {losing, stirring}
        try:
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stirring.cancel()

    async def _audit(self, kept: Kept) -> None:
        snapshot = await self._list()
        found = {one.key: (one.value, one.lease) for one in snapshot.records}
        for name, instance in self._wanted.items():
            records = self._layout.records(instance)
            if any(found.get(key) != (value, kept.lease) for key, value in records.items()):
                self._behind.add(name)

    async def _settle(self, name: Name) -> None:
        for _ in range(_ATTEMPTS):
            snapshot = await self._list(*name)
            if name not in self._wanted:
                if await self._remove(snapshot.records):
                    return
                continue
            kept = self._kept
            if kept is None:
                raise Unavailable(self.problem)
            try:
                if await self._put(name, snapshot.records, kept.lease):
                    return
            except LeaseLost:
                self._give_up(kept)
                raise
        raise Unavailable(f"instance {name[1]} of service {name[0]}: others keep changing it")

    async def _remove(self, records: tuple[Record, ...]) -> bool:
        mine = [one for one in records if owner_of(one.value) == self._node]
        if not mine:
            return True
        conditions = [AtRevision(one.key, one.modified) for one in mine]
        return await self._change(conditions, [], [one.key for one in mine])

    async def _put(self, name: Name, records: tuple[Record, ...], lease: int) -> bool:
        instance = self._wanted.get(name)
        if instance is None:
            return False
        wanted = self._layout.records(instance)
        mine: dict[str, Record] = {}
        for one in records:
            owner = owner_of(one.value)
            if owner == self._node:
                mine[one.key] = one
            elif one.key in wanted:
                whose = f"node {owner}'s" if owner else "no record of a node"
                raise Claimed(f"{one.key} is {whose}")
        have = {key: (one.value, one.lease) for key, one in mine.items()}
        if have == {key: (value, lease) for key, value in wanted.items()}:
            return True
        conditions: list[Condition] = [AtRevision(one.key, one.modified) for one in mine.values()]
        conditions += [Absent(key) for key in wanted if key not in mine]
        puts = [Put(key, value, lease) for key, value in wanted.items()]
        gone = [key for key in mine if key not in wanted]
        return await self._change(conditions, puts, gone)

    async def _list(self, service: str = "", instance: str = "") -> Snapshot:
        return await self._store.list(self._layout.folder(service, instance), seconds=self._seconds)

    async def _change(
        self, conditions: Sequence[Condition], puts: Sequence[Put], deletes: Sequence[str]
    ) -> bool:
        seconds = self._seconds
        return (await self._store.transact(conditions, puts, deletes, seconds=seconds)).done

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._has_session.wait()
        except TimeoutError:
            raise Unavailable(self.problem) from None

    def _give_up(self, kept: Kept) -> None:
        """The store has no such lease any more: `run` gets another."""
        if self._kept is kept:
            self._kept = None
            self._has_session.clear()
            self._stirred.set()


async def _lost(kept: Kept) -> None:
    told = kept.holding
    while told != Holding.LOST:
        told = await kept.changed(told)
