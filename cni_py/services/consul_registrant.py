"""A node's hand in a Consul: its instances as services of the agent, each with a TTL check.

A service is its node's: `cni-py-node` in its metadata says whose. Consul's agent has no conditions,
so it is looked up before each change; an agent belongs to one node, and two of ours that share one
do not have the same ids.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from cni_py.cluster.store_errors import StoreError, Unavailable

from .consul_access import target
from .consul_records import check_id, owner_of, registration
from .registry import Claimed
from .striving import Pause, Striving

if TYPE_CHECKING:
    from .consul_access import ConsulClient
    from .striving import Name

_AGENT = "/v1/agent/service"
_UPDATE = "/v1/agent/check/update"
_GONE = 404
# A check is renewed when this part of its time has gone, so two renewals may fail.
_PART = 1 / 3


class ConsulRegistrant(Striving):
    """The registrant of one node in a Consul; `run` renews its checks."""

    def __init__(self, client: ConsulClient, node: str, ttl: int, seconds: float) -> None:
        super().__init__(node)
        self._client = client
        self._ttl = ttl
        self._seconds = seconds
        # One change at a time of an instance: the agent takes them as they come.
        self._changing: WeakValueDictionary[Name, asyncio.Lock] = WeakValueDictionary()

    @property
    def problem(self) -> str:
        """See Registrant."""
        return self._trouble

    async def leave(self) -> None:
        """See Registrant."""
        names = [*self._wanted]
        self._wanted.clear()
        await asyncio.gather(*map(self._settle_now, names))

    async def run(self) -> None:
        """Renew all in time, and register what the agent has lost, as long as nobody cancels."""
        loop = asyncio.get_running_loop()
        pause = Pause()
        due = loop.time()
        while True:
            self._stirred.clear()
            is_done = True
            if loop.time() >= due:
                is_done = await self._renew()
                due = loop.time() + self._ttl * _PART
            is_done = await self._catch_up() and is_done
            if is_done:
                pause.again()
            else:
                due = min(due, loop.time() + pause.next())
            try:
                async with asyncio.timeout_at(due):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    async def _renew(self) -> bool:
        """Whether the agent could be asked about all."""
        names = list(self._wanted)
        answers = await asyncio.gather(*map(self._renew_one, names), return_exceptions=True)
        troubles = [one for one in answers if isinstance(one, BaseException)]
        for one in troubles:
            if not isinstance(one, StoreError):
                raise one
            self._trouble = str(one)
        return not troubles

    async def _renew_one(self, name: Name) -> None:
        body = {"Status": "passing"}
        # Not longer than until it would be renewed again.
        seconds = min(self._seconds, max(self._ttl * _PART, 0.5))
        try:
            check = target(_UPDATE, check_id(name[1]))
            answer = await self._client.ask("PUT", check, body=body, seconds=seconds)
        except Unavailable:
            # Some versions answer 500 for a check that they do not know.
            self._behind.add(name)
            raise
        if answer.status == _GONE:
            self._behind.add(name)

    async def _settle(self, name: Name) -> None:
        seconds = self._seconds
        changing = self._changing.get(name)
        if changing is None:
            changing = self._changing[name] = asyncio.Lock()
        async with changing:
            answer = await self._client.ask("GET", target(_AGENT, name[1]), seconds=seconds)
            service, owner = ("", "") if answer.status == _GONE else owner_of(answer.body)
            instance = self._wanted.get(name)
            if instance is None:
                if (service, owner) == (name[0], self._node):
                    gone = target(f"{_AGENT}/deregister", name[1])
                    await self._client.ask("PUT", gone, seconds=seconds)
                return
            if answer.status != _GONE and owner != self._node:
                whose = f"node {owner}'s" if owner else "not of cni-py's making"
                raise Claimed(f"service {name[0]}/{name[1]} is {whose}")
            body = registration(instance, self._ttl)
            register = target(f"{_AGENT}/register", **{"replace-existing-checks": "true"})
            await self._client.ask("PUT", register, body=body, seconds=seconds)
