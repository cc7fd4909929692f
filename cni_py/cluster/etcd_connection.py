"""Calls of etcd's members: another one when one fails, within a deadline, and as the user."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from aetcd import rpc
from grpc import aio

from .store_errors import Denied, Full, StoreError, TooLarge, Unavailable, Unsure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .etcd_access import EtcdAccess

# A member without a leader says so, rather than wait for one.
_REQUIRE_LEADER = ("hasleader", "true")
# The least that a member gets to answer, and the pause before all are tried again, in seconds.
_LEAST_ATTEMPT = 1.0
_PAUSE = 0.1

# etcd's words (api/v3rpc/rpctypes) where a member has refused before it did anything.
_NOT_DONE = (
    "failed to connect to all addresses",
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
    "etcdserver: rpc not supported for learner",
)
_NEW_TOKEN = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
_REFUSALS: tuple[tuple[str, type[StoreError]], ...] = (
    ("etcdserver: mvcc: database space exceeded", Full),
    ("etcdserver: request is too large", TooLarge),
    ("etcdserver: too many operations", TooLarge),
    ("etcdserver: permission denied", Denied),
    ("etcdserver: user name is empty", Denied),
    ("etcdserver: authentication failed", Denied),
    ("etcdserver: invalid auth token", Denied),
)
_NO_USERS = "authentication is not enabled"
# What a lost answer looks like; everything else that etcd says is a refusal.
_LOST = frozenset({
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
})  # fmt: skip


class RefusedError(StoreError):
    """A member's answer is an error that only the caller can judge: `text` is etcd's."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Connection:
    """The members of one etcd, and which of them is asked."""

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._channels: dict[str, Any] = {}
        # Each client begins with another member, and stays with one that works.
        self._order = random.sample(access.endpoints, len(access.endpoints))
        self._token = ""
        self._authenticating = asyncio.Lock()
        self.closed = False

    @property
    def member(self) -> str:
        """The endpoint that is asked next."""
        return self._order[0]

    def leave(self, member: str) -> None:
        """Ask another member next, if that one was to be asked."""
        if member == self.member:
            self._order.append(self._order.pop(0))

    async def call(
        self,
        ask: Callable[[Any, dict[str, Any]], Awaitable[Any]],
        seconds: float,
        *,
        repeatable: bool = True,
    ) -> Any:
        """What a member answers to `ask(channel, options)`.

        Only what is `repeatable` is asked again where it is not known whether it was done. Raises
        RefusedError with etcd's words for what is not a matter of reaching it, and StoreError.
        """
        deadline = _now() + seconds
        problem = "no time"
        tries = 0
        while (left := deadline - _now()) > 0:
            member = self.member
            share = left if not repeatable else max(left / len(self._order), _LEAST_ATTEMPT)
            try:
                return await self._ask(member, ask, min(left, share))
            except Unsure as error:
                self.leave(member)
                if not repeatable or self.closed:
                    raise
                problem = str(error)
            except Unavailable as error:
                if self.closed:
                    raise
                self.leave(member)
                problem = str(error)
            tries += 1
            if tries % len(self._order) == 0:
                await asyncio.sleep(min(_PAUSE, max(deadline - _now(), 0)))
        raise Unavailable(problem)

    async def _ask(
        self, member: str, ask: Callable[[Any, dict[str, Any]], Awaitable[Any]], seconds: float
    ) -> Any:
        until = _now() + seconds
        for again in (False, True):
            channel = await self._connected(member, until)
            if self._access.user and not self._token:
                await self._authenticate(member, channel, until)
            token = self._token
            options = {"metadata": _metadata(token), "timeout": max(until - _now(), 0.001)}
            try:
                return await self._answer(member, ask(channel, options))
            except RefusedError as error:
                if not any(one in error.text for one in _NEW_TOKEN):
                    raise
                if again or not self._access.user:
                    raise Denied(f"{member}: {error.text}") from None
                # Tokens end some minutes after their last use, and with the member's process.
                if self._token == token:
                    self._token = ""
        raise AssertionError

    async def _answer(self, member: str, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except aio.AioRpcError as error:
            raise _judged(member, error) from None
        except (asyncio.CancelledError, aio.UsageError) as error:
            self.refuse_closed(member)
            raise error from None

    def refuse_closed(self, member: str) -> None:
        """Raises Unsure if a call was cancelled because of `close`, not with its task."""
        task = asyncio.current_task()
        if self.closed and not (task and task.cancelling()):
            raise Unsure(f"{member}: the connection was closed")

    async def _connected(self, member: str, until: float) -> Any:
        """The member's channel, connected; one that cannot be says so when it is used."""
        channel = self.channel(member)
        state = channel.get_state(try_to_connect=True)
        while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
            try:
                async with asyncio.timeout_at(until):
                    await channel.wait_for_state_change(state)
            except TimeoutError:
                raise Unavailable(f"{member}: no connection in time") from None
            state = channel.get_state(try_to_connect=True)
        return channel

    def channel(self, member: str) -> Any:
        """The member's channel. Raises Unavailable after `close`."""
        if self.closed:
            raise Unavailable(f"{member}: the connection was closed")
        if member not in self._channels:
            self._channels[member] = self._access.channel(member)
        return self._channels[member]

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with a stream: after a `call`, it has a token that is good."""
        return _metadata(self._token)

    async def _authenticate(self, member: str, channel: Any, until: float) -> None:
        async with self._authenticating:
            if self._token:
                # Another call has got one meanwhile.
                return
            name, password = self._access.user, self._access.password
            request = rpc.AuthenticateRequest(name=name, password=password)
            asked = rpc.AuthStub(channel).Authenticate(request, timeout=max(until - _now(), 0.001))
            try:
                self._token = (await self._answer(member, asked)).token
            except Unsure as error:
                raise Unavailable(str(error)) from None
            except RefusedError as error:
                # Without users, everybody may do everything.
                if _NO_USERS not in error.text:
                    raise Denied(f"{member}: {error.text}") from None

    async def close(self) -> None:
        """End every call and connection."""
        self.closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()


async def ended(call: Any) -> None:
    """Cancel a stream, and wait until grpc has cleaned up."""
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call.code()


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (_REQUIRE_LEADER, ("token", token)) if token else (_REQUIRE_LEADER,)


def _judged(member: str, error: Any) -> StoreError:
    text = str(error.details() or error.code().name)
    said = f"{member}: {text}"
    if any(one in text for one in _NOT_DONE):
        return Unavailable(said)
    for words, kind in _REFUSALS:
        if words in text and not any(one in text for one in _NEW_TOKEN):
            return kind(said)
    if error.code() in _LOST:
        return Unsure(said)
    return RefusedError(text)


def _now() -> float:
    return asyncio.get_running_loop().time()
