"""Health checks of many services at once: a task each, and as many connections as there is room.

None waits for another, but for room: the limit keeps thousands that hang from using up what files
the process may have open. What has just begun is checked at once; what a former agent has seen
healthy stays so until `fall` checks say the contrary.
"""

from __future__ import annotations

import asyncio
import random
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .health import Health
from .probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .declaration import Check

# Of the files that the process may have open.
_SHARE = 4
_MOST_AT_ONCE = 1024
# How much sooner than its interval a check may come, so that many do not go on together.
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Target:
    """What is checked: a port of an address, as one service of it declares; `None`: not at all."""

    address: str
    port: int
    check: Check | None


class Checking:
    """Call `want` from an event loop, and `close` at the end.

    `changed` is called with a target's key whenever it has become healthy or stopped being so, and
    why. `inherited` are the keys that were healthy before.
    """

    def __init__(
        self,
        changed: Callable[[str, bool, str], None],
        inherited: frozenset[str] = frozenset(),
        most_at_once: int = 0,
    ) -> None:
        self._changed, self._inherited = changed, set(inherited)
        self._room = asyncio.Semaphore(most_at_once or _room())
        self._targets: dict[str, Target] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._healthy: set[str] = set()

    @property
    def healthy(self) -> frozenset[str]:
        """The keys of the targets that are healthy."""
        return frozenset(self._healthy)

    def want(self, targets: Mapping[str, Target]) -> None:
        """Check these, and no others any more; what was checked the same way goes on."""
        for key in self._targets.keys() - targets.keys():
            self._end(key)
            self._healthy.discard(key)
        for key, target in targets.items():
            if self._targets.get(key) != target:
                self._end(key)
                self._begin(key, target)
        self._targets = dict(targets)
        # Whatever else was inherited is gone.
        self._inherited.clear()

    async def close(self) -> None:
        """Check nothing any more; what was healthy is remembered."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: str, target: Target) -> None:
        if target.check is None:
            self._healthy.add(key)
            return
        was_healthy = key in self._healthy or key in self._inherited
        if was_healthy:
            self._healthy.add(key)
        self._tasks[key] = asyncio.create_task(self._watch(key, target, target.check, was_healthy))

    def _end(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def _watch(self, key: str, target: Target, check: Check, was_healthy: bool) -> None:  # noqa: FBT001
        health = Health(rise=check.rise, fall=check.fall, healthy=was_healthy)
        loop = asyncio.get_running_loop()
        if was_healthy:
            await asyncio.sleep(random.uniform(0, check.interval_seconds))  # noqa: S311
        while True:
            began = loop.time()
            async with self._room:
                problem = await probe(check, target.address, target.port)
            before, health = health, health.after(answered=not problem)
            if health.healthy != before.healthy:
                (self._healthy.add if health.healthy else self._healthy.discard)(key)
                self._changed(key, health.healthy, problem)
            pause = check.interval_seconds * random.uniform(1 - _JITTER, 1)  # noqa: S311
            await asyncio.sleep(began + pause - loop.time())


def _room() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_MOST_AT_ONCE, files // _SHARE))
