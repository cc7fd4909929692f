"""A registry that is a store of the cluster, an etcd or a file of SQLite, in SkyDNS's layout."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from cni_py.cluster.store import DEADLINE
from cni_py.cluster.store_errors import Compacted, Denied, StoreError, Unavailable

from .instance import require_service
from .registry import DEFAULT_TTL, Registry, View
from .skydns import Gathered, Layout
from .store_registrant import StoreRegistrant
from .striving import Pause, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cni_py.cluster.store import Batch, Store

    from .registry import Registrant

_DEFAULT_LAYOUT = Layout()


class StoreRegistry(Registry):
    """The registry in a store; `seconds` is what a call may take.

    `close` closes the store too: whoever shares one closes it himself.
    """

    def __init__(
        self, store: Store, layout: Layout = _DEFAULT_LAYOUT, *, seconds: float = DEADLINE
    ) -> None:
        self._seconds = seconds
        self._store = store
        self._layout = layout
        self._closed = False

    async def list(self, service: str = "") -> View:
        """See Registry."""
        if service:
            require_service(service)
        snapshot = await self._store.list(self._layout.folder(service), seconds=self._seconds)
        gathered = Gathered(self._layout)
        gathered.replace(snapshot.records)
        return gathered.view()

    async def watch(self, service: str = "") -> AsyncGenerator[View, None]:
        """See Registry."""
        if service:
            require_service(service)
        gathered = Gathered(self._layout)
        told: View | None = None
        pause = Pause()
        async with aclosing(self._batches(service, gathered, pause)) as lost:
            async for why in lost:
                view = gathered.view(why)
                if view != told:
                    told = view
                    yield view

    async def _batches(
        self, service: str, gathered: Gathered, pause: Pause
    ) -> AsyncGenerator[str, None]:
        """Keep `gathered` as the store is; yield after each step why the store is away, or `""`."""
        folder = self._layout.folder(service)
        while True:
            try:
                snapshot = await self._store.list(folder, seconds=self._seconds)
                gathered.replace(snapshot.records)
                pause.again()
                yield ""
                async with aclosing(self._store.watch(folder, snapshot.revision)) as batches:
                    async for batch in batches:
                        _take(gathered, batch)
                        yield batch.lost
            except Compacted:
                continue
            except Denied:
                raise
            except StoreError as error:
                if self._closed:
                    raise Unavailable("the registry was closed") from None
                yield str(error)
                await asyncio.sleep(pause.next())

    @asynccontextmanager
    async def registrant(
        self, node: str, ttl: int = DEFAULT_TTL
    ) -> AsyncGenerator[Registrant, None]:
        """See Registry."""
        registrant = StoreRegistrant(self._store, self._layout, node, ttl, self._seconds)
        async with running(registrant):
            yield registrant

    async def close(self) -> None:
        """See Registry."""
        self._closed = True
        await self._store.close()


def _take(gathered: Gathered, batch: Batch) -> None:
    for event in batch.events:
        if event.record is None:
            gathered.remove(event.key)
        else:
            gathered.put(event.record)
