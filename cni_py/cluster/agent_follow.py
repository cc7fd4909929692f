"""Following what the nodes say in the store: a list, then every change; again where that ends."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from cni_py.kernel.boot_clock import now
from cni_py.spec.errors import CniError

from . import agent_backend
from .agent_context import FIRST_PAUSE, LONGEST_PAUSE, apart
from .agent_log import log
from .claiming import CHALLENGES_KEY
from .flannel import CONFIG_KEY, SUBNETS_KEY, FlannelError
from .flannel_network import parse_network
from .keeping import Holding
from .store_errors import Compacted, StoreError

if TYPE_CHECKING:
    from .agent_context import Context
    from .flannel_network import Network
    from .store import Batch


class NetworkChanged(Exception):  # noqa: N818 - what it is
    """The store has another configuration of the network now."""

    def __init__(self, network: Network) -> None:
        super().__init__("the network's configuration has changed")
        self.network = network


class Follower:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._grace = context.state.settings.grace
        self._config = b""

    async def run(self) -> None:
        """Until it is cancelled. Raises NetworkChanged."""
        pause = FIRST_PAUSE
        while True:
            try:
                snapshot = await self._context.store.list(self._context.key(""))
                self._context.counters.add("lists")
                self._context.records.listed(snapshot, now())
                pause = FIRST_PAUSE
                if missing := self._context.records.missing(self._context.key(SUBNETS_KEY)):
                    log("records missing", keys=missing, kept_seconds=self._grace)
                await self._heard()
                await self._watch(snapshot.revision)
            except Compacted as error:
                log("listing again", why=str(error))
            except StoreError as error:
                self._away(str(error))
                await asyncio.sleep(apart(pause))
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _watch(self, revision: int) -> None:
        async with aclosing(self._context.store.watch(self._context.key(""), revision)) as batches:
            async for batch in batches:
                if batch.lost:
                    self._away(batch.lost)
                    continue
                self._context.records.changed(batch)
                await self._heard(batch)

    def _away(self, why: str) -> None:
        if not self._context.state.store_problem:
            log("store away", why=why)
        self._context.state.store_problem = why

    async def _heard(self, batch: Batch | None = None) -> None:
        state = self._context.state
        if state.store_problem:
            log("store back")
        state.heard()
        state.revision = self._context.records.revision
        self._look_at_config()
        if batch is None or batch.events:
            self._context.own_stirred.set()
            self._context.dirty.set()
        self._context.listed.set()
        await self._answer_challenge()

    def _look_at_config(self) -> None:
        record = self._context.records.get(self._context.key(CONFIG_KEY))
        if self._context.state.settings.network or record is None or record.value == self._config:
            return
        self._config = record.value
        try:
            found = parse_network(record.value)
            agent_backend.require_usable(found)
        except (FlannelError, CniError) as error:
            log("network configuration not used", why=str(error))
            return
        if found != self._context.network:
            raise NetworkChanged(found)

    async def _answer_challenge(self) -> None:
        """Another node has this one's address or subnet: tell it that this one is alive."""
        key = self._context.key(f"{CHALLENGES_KEY}{self._context.state.owner.node}")
        record = self._context.records.get(key)
        if record is None or self._context.state.holding != Holding.HELD:
            return
        host = ascii(record.value[:255].decode(errors="replace"))
        log("duplicate address", other=host, why="it asked for this node's subnet")
        self._context.counters.add("duplicates")
        with suppress(StoreError):
            await self._context.store.transact((), (), [key])
