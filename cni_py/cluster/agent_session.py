"""The agent while the network's configuration stays the same: one backend, one subnet at a time.

Four tasks run beside one another: one follows the store, one holds the lease, one shows the backend
what the cluster looks like, and one has the backend keep the kernel so. None of them changes the
data path because the store is away.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from cni_py.kernel.boot_clock import now
from cni_py.spec.errors import CniError

from . import agent_backend
from .agent_context import FIRST_PAUSE, LONGEST_PAUSE
from .agent_follow import Follower
from .agent_hold import Holder
from .agent_log import log
from .backend import View
from .flannel import SUBNETS_KEY
from .peers import Judge, node_of
from .reconciler import Reconciler
from .store_errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent_context import Context
    from .backend import Backend
    from .claiming import Former
    from .flannel import NodeLease
    from .reconciler import Round

_T = TypeVar("_T")

# Seconds that changes of other nodes are waited for together.
_TOGETHER = 0.02
# Of that: how many times as long as the last computation took.
_TOGETHER_TIMES = 5
_RELEASE_SECONDS = 5.0


class Session:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told_refused: dict[str, str] = {}
        self._judge: Judge | None = None

    async def run(self, former: Former) -> None:
        """Until it is cancelled. Raises NetworkChanged, CniError 7."""
        state = self._context.state
        state.network, state.round = self._context.network, None
        state.choice = await self._patient(lambda: agent_backend.choose(state.settings.interfaces))
        log("interface", link=state.choice.link, why=state.choice.why)
        backend = agent_backend.make(self._context.network, state.choice.chosen)
        try:
            self._context.said = await self._patient(backend.announce)
            state.mtu = await self._patient(backend.mtu)
            await self._run(backend, former)
        finally:
            if state.releasing:
                await self._release(backend)
            backend.close()

    async def _run(self, backend: Backend, former: Former) -> None:
        reconciler = Reconciler(backend, self._done, self._context.state.settings.pace)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(reconciler.run())
                group.create_task(Follower(self._context).run())
                group.create_task(Holder(self._context).run(former))
                group.create_task(self.show_always(reconciler))
                for pool in self._context.state.settings.pools:
                    group.create_task(self._keep(pool))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _keep(self, pool: str) -> None:
        """Keep this node's part of a pool; its blocks are its own as long as its lease lasts."""
        from .pool_keeper import PoolKeeper

        state = self._context.state
        await self._context.claimed.wait()

        def lease() -> int:
            return 0 if state.kept is None else state.kept.lease

        def held_until() -> float:
            return 0.0 if state.kept is None else now() + state.kept.seconds_left

        await PoolKeeper(self._context.store, pool, state.owner.node, lease, held_until).run()

    async def show_always(self, reconciler: Reconciler) -> None:
        """Give the backend a view whenever something in it may have changed."""
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            self._context.dirty.clear()
            began = loop.time()
            view = self._view()
            if view is not None:
                reconciler.show(view)
            took = loop.time() - began
            with suppress(TimeoutError):
                async with asyncio.timeout(self._context.records.next_end(now())):
                    await self._context.dirty.wait()
            await asyncio.sleep(_TOGETHER + took * _TOGETHER_TIMES)

    def _view(self) -> View | None:
        state, network = self._context.state, self._context.network
        # Before the first list nobody is known: that is no reason to take anything away.
        if state.own is None or not self._context.listed.is_set():
            return None
        below = self._context.key(SUBNETS_KEY)
        found = self._judged(state.own, below).peers()
        state.peers, state.missing = found.leases, tuple(self._context.records.missing(below))
        state.refused = {one.key: one.why for one in found.refused}
        self._tell_refused()
        return View(
            node_of(state.own),
            found.nodes,
            network.v4.network if network.v4 else None,
            network.v6.network if network.v6 else None,
        )

    def _judged(self, own: NodeLease, below: str) -> Judge:
        """The judge, who has heard of every record; only of what is new, unless this node is."""
        stirred = self._context.records.stirred(now())
        if self._judge is None or self._judge.own != own:
            prefix, network = self._context.state.settings.prefix, self._context.network
            self._judge = Judge(prefix, network, own)
            stirred = [(one.key, one) for one in self._context.records.below(below, now())]
        for key, record in stirred:
            if record is None:
                self._judge.drop(key)
            elif key.startswith(below):
                self._judge.put(record)
        return self._judge

    def _tell_refused(self) -> None:
        refused = self._context.state.all_refused()
        for key, why in refused.items():
            if self._told_refused.get(key) != why:
                log("peer refused", peer=key, why=why)
        for key in self._told_refused.keys() - refused.keys():
            log("peer no longer refused", peer=key)
        self._told_refused = refused

    # The kernel.

    def _done(self, done: Round) -> None:
        """A comparison has ended."""
        state = self._context.state
        before, state.round = state.round, done
        self._context.counters.add("rounds")
        self._context.counters.add("changes", len(done.report.done))
        if done.report.done:
            log("changed", steps=list(done.report.done))
        if not done.is_good:
            self._context.counters.add("round_failures")
            failed = [str(one) for one in done.report.failed]
            if before is None or before.is_good:
                log("failed", steps=failed, error=str(done.error or ""))
        elif before is not None and not before.is_good:
            log("recovered")
        if done.mtu and done.mtu != state.mtu:
            log("mtu", mtu=done.mtu, before=state.mtu)
            state.mtu = done.mtu
        if done.said is not None and done.said != self._context.said:
            self._context.said = done.said
            self._context.own_stirred.set()
        self._tell_refused()
        self._context.publish()

    async def _release(self, backend: Backend) -> None:
        """The lease first, so that nobody sends any more, then what was made here."""
        kept = self._context.state.kept
        if kept is not None:
            try:
                await self._context.store.revoke(kept.lease, seconds=_RELEASE_SECONDS)
            except StoreError as error:
                log("lease not given back", why=str(error), ends="by itself")
        try:
            report = await asyncio.to_thread(backend.tear_down)
        except CniError as error:
            log("not taken down", error=str(error))
        else:
            log("taken down", steps=list(report.done), failed=list(map(str, report.failed)))

    async def _patient(self, call: Callable[[], _T]) -> _T:
        """Try until it can be done: an interface may come yet."""
        told = ""
        pause = FIRST_PAUSE
        while True:
            try:
                return await asyncio.to_thread(call)
            except CniError as error:
                if str(error) != told:
                    log("waiting", why=str(error))
                    told = str(error)
                self._context.state.waits(error.msg, error.details)
                self._context.publish()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE / 5)
