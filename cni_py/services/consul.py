"""A registry that is a Consul: instances are services of its agent, by its HTTP API.

Each has a TTL check, which its registrant renews: one that is not renewed is critical, and so not
told of any more; a minute later Consul removes it. A node of Consul's that dies takes its own with
it. What is asked of an agent reaches Consul's servers, and so others, a moment later.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cni_py.cluster.store import DEADLINE, PROGRESS
from cni_py.cluster.store_errors import Denied, StoreError, Unavailable

from .consul_access import ConsulAccess, ConsulClient, target
from .consul_records import index_in, names_in, view_of
from .consul_registrant import ConsulRegistrant
from .instance import require_service
from .registry import DEFAULT_TTL, Registry, View
from .striving import Pause, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .registry import Registrant

T = TypeVar("T")

_SERVICE = "/v1/health/service"
_SERVICES = "/v1/catalog/services"
# Changes whenever any instance comes, goes, or changes its health.
_ANY = "/v1/health/state/any"
# Consul adds up to a sixteenth to what it is asked to wait.
_SLACK = 1 / 16
# Seconds between two questions of a watch: some changes are none of ours.
_LEAST_PAUSE = 0.05


class Consul(Registry):
    """The registry in a Consul; `seconds` is what a call may take."""

    def __init__(
        self,
        access: ConsulAccess,
        *,
        seconds: float = DEADLINE,
        progress: float = PROGRESS,
    ) -> None:
        self._client = ConsulClient(access)
        self._place = access.url
        self._seconds = seconds
        self._progress = progress

    async def list(self, service: str = "") -> View:
        """See Registry."""
        if service:
            require_service(service)
            names = [service]
        else:
            answer = await self._client.ask("GET", _SERVICES, seconds=self._seconds)
            names = self._read(lambda: names_in(answer.body))
        asked = [
            self._client.ask("GET", target(_SERVICE, one, passing="true"), seconds=self._seconds)
            for one in names
        ]
        answers = await asyncio.gather(*asked)
        return self._read(lambda: view_of([one.body for one in answers]))

    async def watch(self, service: str = "") -> AsyncGenerator[View, None]:
        """See Registry."""
        if service:
            require_service(service)
        told: View | None = None
        pause = Pause()
        index = 0
        # A question that waits for a change keeps a thread.
        with ThreadPoolExecutor(1, "cni-py consul watch") as thread:
            while True:
                try:
                    view, index = await self._next(service, index, thread)
                except Denied:
                    raise
                except StoreError as error:
                    if self._client.is_closed:
                        raise
                    # Whoever is there next may count from the beginning.
                    index = 0
                    left = told or View(())
                    view = View(left.instances, left.left_out, str(error))
                    seconds = pause.next()
                else:
                    pause.again()
                    seconds = _LEAST_PAUSE
                if view != told:
                    told = view
                    yield view
                await asyncio.sleep(seconds)

    async def _next(self, service: str, index: int, thread: ThreadPoolExecutor) -> tuple[View, int]:
        """What is there once something has changed since `index`, or after a while; 0: now."""
        waiting = {} if not index else {"index": str(index), "wait": f"{self._progress:g}s"}
        seconds = self._seconds + (self._progress * (1 + _SLACK) if index else 0)
        asked = (
            target(_SERVICE, service, passing="true", **waiting)
            if service
            else (target(_ANY, **waiting))
        )
        answer = await self._client.once("GET", asked, seconds=seconds, threads=thread)
        found = self._read(lambda: index_in(answer.headers))
        # One that has gone back counts anew: nobody may wait for what was.
        following = found if found >= index else 0
        if service:
            return self._read(lambda: view_of([answer.body])), following
        return await self.list(), following

    def _read(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise Unavailable(f"{self._place}: the answer is not Consul's: {error}") from None

    @asynccontextmanager
    async def registrant(
        self, node: str, ttl: int = DEFAULT_TTL
    ) -> AsyncGenerator[Registrant, None]:
        """See Registry."""
        registrant = ConsulRegistrant(self._client, node, ttl, self._seconds)
        async with running(registrant):
            yield registrant

    async def close(self) -> None:
        """See Registry."""
        self._client.close()
