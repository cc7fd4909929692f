"""What registrants share: they remember what is wanted, and go on until the registry has it."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cni_py.cluster.store_errors import LeaseLost, StoreError

from .registry import Claimed, Registrant

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .instance import Instance

# Seconds between attempts after one failed: at first, and at most.
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0

# An instance's service and id.
Name = tuple[str, str]


class Pause:
    """Longer after each failure, and not the same for all who wait for one registry."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE

    def again(self) -> None:
        """Something went well."""
        self._seconds = _FIRST_PAUSE

    def next(self) -> float:
        """How many seconds to wait now."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, _LONGEST_PAUSE)
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Striving(Registrant):
    """A registrant for which `_settle` brings one instance to what is wanted of it.

    `_settle` reads `_wanted` after whatever it reads of the registry, and changes that only as it
    was read: so several that run at once end with what was wanted last.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._wanted: dict[Name, Instance] = {}
        # What the registry may not have as it is wanted.
        self._behind: set[Name] = set()
        self._stirred = asyncio.Event()
        self._trouble = ""

    @abstractmethod
    async def run(self) -> None:
        """Keep the session, and all as it is wanted, as long as nobody cancels."""

    @abstractmethod
    async def _settle(self, name: Name) -> None:
        """Put the instance in as `_wanted` has it, or take it out. Raises StoreError."""

    async def _ready(self) -> None:
        """Wait for a session, as long as a call may take. Raises Unavailable."""
        return

    async def register(self, instance: Instance) -> None:
        """See Registrant."""
        if instance.node != self._node:
            raise ValueError(f"the instance is node {instance.node}'s, and this is {self._node}")
        name = (instance.service, instance.id)
        self._wanted[name] = instance
        try:
            await self._settle_now(name)
        except Claimed:
            if self._wanted.get(name) is instance:
                del self._wanted[name]
            raise

    async def withdraw(self, instance: Instance) -> None:
        """See Registrant."""
        name = (instance.service, instance.id)
        self._wanted.pop(name, None)
        await self._settle_now(name)

    async def _settle_now(self, name: Name) -> None:
        self._behind.add(name)
        try:
            try:
                await self._ready()
                await self._settle(name)
            except LeaseLost:
                # There will be another session.
                await self._ready()
                await self._settle(name)
        except StoreError as error:
            self._trouble = str(error)
            self._stirred.set()
            raise
        self._behind.discard(name)

    async def _catch_up(self) -> bool:
        """Settle what is behind: whether nothing is left that could be done."""
        claimed = ""
        for name in sorted(self._behind):
            try:
                await self._settle(name)
            except Claimed as error:
                claimed = str(error)
            except StoreError as error:
                self._trouble = str(error)
                return False
            else:
                self._behind.discard(name)
        self._trouble = claimed
        return not claimed


@asynccontextmanager
async def running(registrant: Striving) -> AsyncGenerator[None, None]:
    """Run a registrant while the block runs."""
    task = asyncio.create_task(registrant.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
