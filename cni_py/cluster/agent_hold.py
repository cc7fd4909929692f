"""Holding this node's lease: claim, renew, notice its loss, claim again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from .agent_context import FIRST_PAUSE, LONGEST_PAUSE, apart
from .agent_log import log
from .claiming import NOTHING, Claim, Claimer, ClaimError, Former, NotToldError, fixed_subnets
from .keeping import Holding, keeping
from .owner import encode, owner_of
from .store import Put, UnderLease
from .store_errors import StoreError

if TYPE_CHECKING:
    from .agent_context import Context
    from .keeping import Kept


class Holder:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self, former: Former) -> None:
        """Until it is cancelled. `former` is what the node had before."""
        while True:
            claim = await self._claim(former)
            try:
                async with keeping(self._context.store, claim.lease) as kept:
                    self._have(claim, kept, former)
                    why = await self._until_lost(kept, claim)
                    with suppress(StoreError):
                        await self._context.store.revoke(claim.lease)
            except StoreError as error:
                why = str(error)
            self._context.counters.add("leases_lost")
            log("lease lost", subnets=str(claim.subnets), why=why)
            self._context.state.loss = why
            self._context.publish()
            former = Former(claim.subnets, claim.lease)

    async def _claim(self, former: Former) -> Claim:
        """Claim until it is done, whatever is in the way."""
        state = self._context.state
        pause = FIRST_PAUSE
        told = ""
        while True:
            try:
                claimer = await self._claimer()
                claim = await claimer.claim(
                    self._context.network, self._context.lease(NOTHING), former
                )
            except (ClaimError, StoreError) as error:
                if str(error) != told:
                    log("no subnet", why=str(error))
                    told = str(error)
                if state.own is None:
                    msg = "this node has no subnet of the cluster's network yet"
                    away = isinstance(error, StoreError | NotToldError)
                    state.waits(msg, str(error), for_store=away)
                else:
                    state.loss = str(error)
                self._context.publish()
                await asyncio.sleep(apart(pause))
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return claim

    async def _claimer(self) -> Claimer:
        """For the subnets that this node may have. Raises ClaimError."""
        state, settings = self._context.state, self._context.state.settings
        texts, asked = settings.subnets, settings.assigned
        if asked is not None:
            texts = await asyncio.to_thread(asked)
        fixed = fixed_subnets(texts, self._context.network)
        return Claimer(
            self._context.store,
            settings.prefix,
            state.owner,
            settings.ttl,
            _note,
            fixed,
            is_assigned=asked is not None,
        )

    def _have(self, claim: Claim, kept: Kept, former: Former) -> None:
        state = self._context.state
        self._context.counters.add("claims")
        state.own, state.kept, state.loss = self._context.lease(claim.subnets), kept, ""
        state.heard()
        log("subnet", subnets=str(claim.subnets), how=claim.how, lease=f"{claim.lease:x}")
        if former.lease and former.subnets != claim.subnets:
            state.has_left(former.subnets)
            log("subnet changed", before=str(former.subnets), now=str(claim.subnets),
                means="containers with addresses of the former subnet are not reached from other"
                " nodes any more, and it may be given to another node: make them anew")  # fmt: skip
        self._context.claimed.set()
        self._context.own_stirred.set()
        self._context.dirty.set()
        self._context.publish()

    async def _until_lost(self, kept: Kept, claim: Claim) -> str:
        """Why the subnet is not this node's any more."""
        told = Holding.HELD
        lease = asyncio.ensure_future(kept.changed(told))
        record = asyncio.ensure_future(self._context.own_stirred.wait())
        try:
            while True:
                await asyncio.wait((lease, record), return_when=asyncio.FIRST_COMPLETED)
                if lease.done():
                    told = lease.result()
                    if told == Holding.LOST:
                        return kept.problem
                    log("lease " + told.value, problem=kept.problem)
                    self._context.publish()
                    lease = asyncio.ensure_future(kept.changed(told))
                if record.done():
                    self._context.own_stirred.clear()
                    if why := await self._own_problem(claim):
                        return why
                    record = asyncio.ensure_future(self._context.own_stirred.wait())
        finally:
            lease.cancel()
            record.cancel()
            await asyncio.wait((lease, record))

    async def _own_problem(self, claim: Claim) -> str:
        """Whether the store's record of this node is another's or gone; what it says is kept true.

        `""` where all is well, or the store is away: that is tried again when it is back.
        """
        key = self._context.key(claim.subnets.key)
        wanted = self._context.lease(claim.subnets)
        value = encode(wanted, self._context.state.owner)
        known = self._context.records.get(key)
        if known is not None and known.lease == claim.lease and known.value == value:
            return ""
        try:
            record = await self._context.store.get(key)
            if record is None:
                return f"the store has no {key} any more"
            if record.lease != claim.lease:
                return f"{key} is {owner_of(record.value) or 'a flannel node'}'s now"
            if record.value == value:
                return ""
            put = [Put(key, value, claim.lease)]
            done = await self._context.store.transact([UnderLease(key, claim.lease)], put)
        except StoreError as error:
            log("record not looked at", why=str(error))
            asyncio.get_running_loop().call_later(LONGEST_PAUSE, self._context.own_stirred.set)
            return ""
        if not done.done:
            return f"the store has no {key} under this node's lease any more"
        log("announced anew", addresses=[str(wanted.public_ip), str(wanted.public_ipv6)])
        self._context.state.own = wanted
        self._context.dirty.set()
        self._context.publish()
        return ""


def _note(text: str) -> None:
    log("claiming", note=text)
