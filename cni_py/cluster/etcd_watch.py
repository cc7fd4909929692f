"""One stream of a watch: from its beginning to whatever ends it.

Events may come in several messages (`fragment`); a revision is held back until it is whole. etcd is
not asked for its progress: before 3.4.26 and 3.5.8 its answer may be ahead of events that are under
way (etcd issue 15220), and newer ones may give none (pull requests 17566, 20229). What it tells of
by itself, every ten minutes, is in order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aetcd import rpc
from grpc import aio

from .etcd_connection import ended
from .etcd_messages import event
from .key_range import key_bytes, range_end
from .store import DEADLINE, Batch
from .store_errors import Compacted, Denied, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .etcd_connection import Connection
    from .store import Event


class Stream:
    """A watch of a prefix on the member that is asked now."""

    def __init__(self, connection: Connection, prefix: str, after: int, progress: float) -> None:
        self._connection = connection
        self._member = connection.member
        self._prefix = key_bytes(prefix)
        self._after = after
        self._progress = progress
        # Events of a revision of which more may come.
        self._held: list[Event] = []
        self._reading: asyncio.Future[Any] | None = None

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """What the member tells. Raises Unavailable when it has stopped, Compacted, Denied."""
        channel = self._connection.channel(self._member)
        call = rpc.WatchStub(channel).Watch(metadata=self._connection.metadata())
        try:
            request = rpc.WatchCreateRequest(
                key=self._prefix or b"\0",
                range_end=range_end(self._prefix),
                start_revision=self._after + 1,
                progress_notify=True,
                fragment=True,
            )
            await call.write(rpc.WatchRequest(create_request=request))
            self._refuse(await self._next(call, DEADLINE))
            # Reached: nothing is new yet.
            yield Batch(self._after)
            while True:
                message = await self._next_or_nothing(call, channel)
                yield Batch(self._after) if message is None else self._batch(message)
        except aio.AioRpcError as error:
            self._connection.leave(self._member)
            raise Unavailable(f"{self._member}: {error.details()}") from None
        except (asyncio.CancelledError, aio.UsageError) as error:
            self._connection.refuse_closed(self._member)
            raise error from None
        finally:
            if self._reading:
                self._reading.cancel()
            await ended(call)

    async def _next_or_nothing(self, call: Any, channel: Any) -> Any:
        """The next message; None if there is none, and the member answers all the same."""
        self._reading = self._reading or asyncio.ensure_future(call.read())
        done, _ = await asyncio.wait({self._reading}, timeout=self._progress)
        if done:
            read, self._reading = self._reading, None
            return self._message(await read)
        # Of what the member itself has: that is no work for the others.
        request = rpc.RangeRequest(
            key=self._prefix or b"\0", range_end=range_end(self._prefix), limit=1,
            count_only=True, serializable=True,
        )  # fmt: skip
        metadata, seconds = self._connection.metadata(), min(self._progress, DEADLINE)
        await rpc.KVStub(channel).Range(request, metadata=metadata, timeout=seconds)
        return None

    async def _next(self, call: Any, seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return self._message(await call.read())
        except TimeoutError:
            self._connection.leave(self._member)
            raise Unavailable(f"{self._member}: no answer to a watch") from None

    def _message(self, read: Any) -> Any:
        """What was read, unless it is the end of the stream."""
        if not isinstance(read, rpc.WatchResponse):
            raise Unavailable(f"{self._member}: the stream ended")
        return read

    def _refuse(self, message: Any) -> None:
        if message.compact_revision:
            raise Compacted(self._after, f"history begins at {message.compact_revision}")
        if message.canceled:
            reason = f"{self._member}: {message.cancel_reason or 'the watch was ended'}"
            if "permission denied" in reason:
                raise Denied(reason)
            self._connection.leave(self._member)
            raise Unavailable(reason)

    def _batch(self, message: Any) -> Batch:
        self._refuse(message)
        # A member that lags behind may tell again what is known.
        new = [one for one in map(event, message.events) if one.revision > self._after]
        self._held += new
        if message.fragment:
            last = self._held[-1].revision if self._held else self._after
            whole = [one for one in self._held if one.revision < last]
        else:
            whole = self._held
        self._held = self._held[len(whole) :]
        if whole:
            self._after = whole[-1].revision
        elif not message.events and message.watch_id >= 0 and not self._held:
            self._after = max(self._after, message.header.revision)
        return Batch(self._after, tuple(whole))
