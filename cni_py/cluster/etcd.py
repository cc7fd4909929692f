"""A store that is an etcd: one or several members, version 3.4 or newer."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aetcd import rpc

from .etcd_connection import Connection, RefusedError, ended
from .etcd_history import History
from .etcd_messages import below, record, transaction
from .etcd_watch import Stream
from .key_range import key_bytes
from .store import DEADLINE, PROGRESS, Batch, Outcome, Snapshot, Store
from .store_errors import Compacted, LeaseLost, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from .etcd_access import EtcdAccess
    from .store import Condition, Put, Record

# Records in one answer to a list.
_PAGE = 1000
_LARGEST_ID = (1 << 62) - 1
_GONE = "requested lease not found"
_COMPACTED = "required revision has been compacted"
# Seconds between attempts of a watch to go on: at first, and at most.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class Etcd(Store):
    """The members of an etcd, used as one store."""

    def __init__(self, access: EtcdAccess, *, progress: float = PROGRESS) -> None:
        self._connection = Connection(access)
        self._history = History()
        self._progress = progress

    async def get(self, key: str, *, seconds: float = DEADLINE) -> Record | None:
        """See Store."""
        found = await self._read(rpc.RangeRequest(key=key_bytes(key)), seconds)
        return record(found.kvs[0]) if found.kvs else None

    async def list(self, prefix: str, *, seconds: float = DEADLINE) -> Snapshot:
        """See Store."""
        return await self._whole_list(prefix, seconds)

    async def list_keys(self, prefix: str, *, seconds: float = DEADLINE) -> Snapshot:
        """See Store."""
        return await self._whole_list(prefix, seconds, keys_only=True)

    async def _whole_list(self, prefix: str, seconds: float, **options: Any) -> Snapshot:
        while True:
            try:
                return await self._listed(prefix, seconds, **options)
            except RefusedError as error:
                # Between two pages: what was begun is too old now.
                if _COMPACTED not in error.text:
                    raise

    async def _listed(self, prefix: str, seconds: float, **options: Any) -> Snapshot:
        """Each page has the whole time: where all nodes list at once, the first took its part."""
        first = await self._read(below(prefix, limit=_PAGE, **options), seconds)
        if not options:
            self._history.listed()
        revision = first.header.revision
        records = [*map(record, first.kvs)]
        more = first.more
        while more:
            behind = key_bytes(records[-1].key) + b"\0"
            request = below(prefix, limit=_PAGE, revision=revision, **options)
            request.key = behind
            page = await self._read(request, seconds)
            records += map(record, page.kvs)
            more = page.more
        return Snapshot(tuple(records), revision)

    async def _read(self, request: Any, seconds: float) -> Any:
        """A read of the newest state (a majority is asked)."""
        floor = self._history.floor
        found = await self._ask("KV", "Range", request, seconds)
        self._history.note(floor, found.header)
        return found

    async def _transact(
        self,
        conditions: Sequence[Condition],
        puts: Sequence[Put],
        deletes: Sequence[str],
        seconds: float,
    ) -> Outcome:
        request = transaction(conditions, puts, deletes)
        try:
            answer = await self._ask("KV", "Txn", request, seconds, repeatable=False)
        except RefusedError as error:
            if _GONE in error.text:
                raise LeaseLost(max(put.lease for put in puts)) from None
            raise
        found: list[Record] = []
        if not answer.succeeded:
            for one in answer.responses:
                found += map(record, one.response_range.kvs)
        return Outcome(answer.succeeded, answer.header.revision, tuple(found))

    async def grant(self, ttl: int, *, seconds: float = DEADLINE) -> int:
        """See Store."""
        # Chosen here, so that asking twice makes one lease.
        lease = random.randint(1, _LARGEST_ID)  # noqa: S311 - no secret
        request = rpc.LeaseGrantRequest(ID=lease, TTL=ttl)
        try:
            await self._ask("Lease", "LeaseGrant", request, seconds)
        except RefusedError as error:
            if "lease already exists" not in error.text:
                raise
        return lease

    async def renew(self, lease: int, *, seconds: float = DEADLINE) -> float:
        """See Store."""

        async def ask(channel: Any, options: dict[str, Any]) -> Any:
            call = rpc.LeaseStub(channel).LeaseKeepAlive(**options)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
                answer = await call.read()
                if not hasattr(answer, "TTL"):
                    raise Unavailable("the stream ended")
                return answer
            finally:
                await ended(call)

        answer = await self._connection.call(ask, seconds)
        if answer.TTL <= 0:
            raise LeaseLost(lease)
        return float(answer.TTL)

    async def time_left(self, lease: int, *, seconds: float = DEADLINE) -> float:
        """See Store."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        try:
            answer = await self._ask("Lease", "LeaseTimeToLive", request, seconds)
        except RefusedError as error:
            if _GONE in error.text:
                raise LeaseLost(lease) from None
            raise
        if answer.TTL < 0:
            raise LeaseLost(lease)
        return float(answer.TTL)

    async def revoke(self, lease: int, *, seconds: float = DEADLINE) -> None:
        """See Store."""
        try:
            await self._ask("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease), seconds)
        except RefusedError as error:
            if _GONE not in error.text:
                raise

    async def _ask(
        self, service: str, method: str, request: Any, seconds: float, *, repeatable: bool = True
    ) -> Any:
        stub: Callable[[Any], Any] = getattr(rpc, f"{service}Stub")

        def ask(channel: Any, options: dict[str, Any]) -> Any:
            return getattr(stub(channel), method)(request, **options)

        return await self._connection.call(ask, seconds, repeatable=repeatable)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """See Store."""
        number = self._history.last_listed
        lost = ""
        pause = _FIRST_PAUSE
        while True:
            try:
                # The newest revision there is: it also has the token renewed.
                head = await self._read(below(prefix, limit=1, count_only=True), DEADLINE)
                if self._history.number != number or head.header.revision < after:
                    raise Compacted(after, "the store has another history: was a backup restored?")
                stream = Stream(self._connection, prefix, after, self._progress)
                async with aclosing(stream.batches()) as batches:
                    async for batch in batches:
                        lost, pause = "", _FIRST_PAUSE
                        after = batch.revision
                        yield batch
            except Unavailable as error:
                if self._connection.closed:
                    raise
                if not lost:
                    lost = str(error)
                    yield Batch(after, lost=lost)
            # Not all at the same moment, when a member has gone.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def close(self) -> None:
        """See Store."""
        await self._connection.close()
