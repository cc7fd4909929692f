"""A lease that is kept, and what can truly be said of it.

The time is counted on this machine's clock since its start (CLOCK_BOOTTIME: it also runs while the
machine sleeps, and nobody sets it), from before a renewal was asked for. So the store never ends
the lease earlier than is said here, however wrong the clocks of its members are.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING

from cni_py.kernel.boot_clock import now

from .store import DEADLINE
from .store_errors import LeaseLost, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .store import Store

# A lease is renewed when at most this part of its time has gone, so two renewals may fail.
_PART = 1 / 3
# Nodes that started together do not go on renewing together.
_SPREAD = 0.8, 1.0
# An attempt takes no longer than that part either, but has this many seconds.
_LEAST_PATIENCE = 0.5
# Seconds between attempts after one failed: at first, and at most.
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


class Holding(Enum):
    """Whether a lease is held."""

    HELD = "held"
    """The store has it for some time yet."""
    UNSURE = "unsure"
    """Its time has run out unconfirmed: it may be gone, or be held when the store is back."""
    LOST = "lost"
    """The store said that it is gone. That is final."""


class Kept:
    """One lease that is renewed as long as the block of `keeping` runs."""

    def __init__(self, store: Store, lease: int) -> None:
        self.lease = lease
        self.problem = ""
        """Why the last renewal failed; `""` if it did not."""
        self._store = store
        self._until = float("-inf")
        self._gone = False
        self._patience = DEADLINE
        self._stirred = asyncio.Event()

    @property
    def seconds_left(self) -> float:
        """How long the store has the lease for sure; 0 where that is not known."""
        return 0.0 if self._gone else max(self._until - now(), 0.0)

    @property
    def holding(self) -> Holding:
        """What is true now."""
        if self._gone:
            return Holding.LOST
        return Holding.HELD if self._until > now() else Holding.UNSURE

    async def changed(self, told: Holding) -> Holding:
        """Wait until something else is true than what was told last, and say what."""
        while (found := self.holding) == told:
            self._stirred.clear()
            left = self.seconds_left if found == Holding.HELD else None
            try:
                # A little later than the end, and not a little earlier.
                async with asyncio.timeout(None if left is None else left + 0.001):
                    await self._stirred.wait()
            except TimeoutError:
                continue
        return found

    async def renew(self) -> float:
        """Renew once, and say how many seconds the lease has then. Raises StoreError."""
        asked = now()
        try:
            ttl = await self._store.renew(self.lease, seconds=self._patience)
        except LeaseLost as error:
            self._gone, self.problem = True, str(error)
            raise
        except StoreError as error:
            self.problem = str(error)
            raise
        finally:
            self._stirred.set()
        self.problem = ""
        self._until = asked + ttl
        self._patience = min(max(ttl * _PART, _LEAST_PATIENCE), DEADLINE)
        return ttl

    async def renew_always(self, ttl: float) -> None:
        """Renew in time, until the lease is lost. `ttl` is what it had when it was renewed last."""
        pause = _until_next(ttl)
        failed = _FIRST_PAUSE
        while not self._gone:
            await asyncio.sleep(pause)
            try:
                pause = _until_next(await self.renew())
                failed = _FIRST_PAUSE
            except StoreError:
                # Not all at the same moment, when the store is back.
                pause = failed * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                failed = min(failed * 2, _LONGEST_PAUSE)


def _until_next(ttl: float) -> float:
    return ttl * _PART * random.uniform(*_SPREAD)  # noqa: S311 - no secret


@asynccontextmanager
async def keeping(store: Store, lease: int) -> AsyncGenerator[Kept, None]:
    """Renew a lease while the block runs; afterwards it ends by itself, unless it is revoked.

    Raises LeaseLost or another StoreError if it cannot be renewed at first.
    """
    kept = Kept(store, lease)
    task = asyncio.create_task(kept.renew_always(await kept.renew()))
    try:
        yield kept
    finally:
        task.cancel()
        await asyncio.wait({task})
