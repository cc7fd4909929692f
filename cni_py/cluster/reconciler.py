"""Keeping a backend's part of the world as the view asks for: upon changes, and every so often.

A report of the kernel that concerns the backend and the end of an interval each lead to one whole
comparison; so does another view, unless the backend can follow it by itself (`Backend.follow`).
Where somebody else keeps undoing what is done, the pauses grow, so that
the two do not keep a processor busy.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_py.kernel.changes import Changes
from cni_py.spec.errors import CniError, cni_error_of

from .backend import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backend import Announcement, Backend, View


# That many pauses.
_SOON = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between comparisons without a reason, from a reason to its comparison, and after a
    failure, doubled for each further one up to `every`.
    """

    every: float = 30.0
    settle: float = 0.1
    retry: float = 0.5


@dataclass(frozen=True, slots=True)
class Round:
    """One comparison: what was done, what the node has to announce, its MTU; or what failed.

    Where a view was followed without a look, what the node announces and its MTU are left out, and
    its health is that of the last look.
    """

    report: Report
    said: Announcement | None = None
    mtu: int = 0
    error: CniError | None = None
    health: CniError | None = None

    @property
    def is_good(self) -> bool:
        """Whether all is as the view asks for."""
        return self.error is None and not self.report.failed


class Reconciler:
    """Made where the kernel's changes are to be heard: in the backend's namespace.

    `done` is called in the event loop after each round.
    """

    def __init__(self, backend: Backend, done: Callable[[Round], None], pace: Pace) -> None:
        """Raises KernelError."""
        self._backend, self._done, self._pace = backend, done, pace
        self._changes = Changes()
        self._view: View | None = None
        self._wanted, self._urgent = asyncio.Event(), asyncio.Event()
        # The backend's methods are called in this one thread.
        self._thread = ThreadPoolExecutor(1, "reconciler")
        self._pause = pace.settle
        # The view that all is as it should be for, unless the kernel has reported something since.
        self._good: View | None = None
        self._health: CniError | None = None
        # When everything is to be compared again, by the loop's clock.
        self._due = float("-inf")
        # When there was something to do, and when there was a reason to look, by the loop's clock.
        self._busy = self._reasoned = 0.0

    def show(self, view: View) -> None:
        """The cluster looks like this from now on."""
        if view != self._view:
            self._view = view
            self._pause = self._pace.settle
            self._wanted.set()
            self._urgent.set()

    async def run(self) -> None:
        """Until it is cancelled; what was made stays, the backend is left open."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._changes.fileno(), self._heard)
        try:
            while True:
                wait = self._pace.every
                if self._view is not None:
                    reasoned = self._reasoned
                    wait = self._next(await self._round(self._view), reasoned)
                    wait = min(wait, max(self._due - loop.time(), 0.0))
                await self._reason(wait)
        finally:
            loop.remove_reader(self._changes.fileno())
            self._changes.close()
            # A call that runs is waited for: nobody else may use the backend meanwhile.
            await asyncio.shield(loop.run_in_executor(None, self._thread.shutdown))

    async def _round(self, view: View) -> Round:
        self._wanted.clear()
        self._urgent.clear()
        loop = asyncio.get_running_loop()
        # A report that comes meanwhile has all compared again after this.
        good = self._good if loop.time() < self._due else None
        self._good = view
        done = None
        if good is not None:
            done = await loop.run_in_executor(self._thread, self._follow, good, view)
        if done is None:
            done = await loop.run_in_executor(self._thread, self._reconciled, view)
            self._due = loop.time() + self._pace.every
        if not done.is_good:
            self._good = None
        self._done(done)
        return done

    def _follow(self, before: View, after: View) -> Round | None:
        try:
            report = self._backend.follow(before, after)
        except (CniError, OSError) as error:
            return Round(Report(), error=cni_error_of(error))
        return None if report is None else Round(report, health=self._health)

    def _reconciled(self, view: View) -> Round:
        try:
            said = self._backend.announce()
            report = self._backend.reconcile(view)
            mtu = self._backend.mtu()
            self._health = None if report.failed else self._backend.health()
            return Round(report, said, mtu, health=self._health)
        except (CniError, OSError) as error:
            return Round(Report(), error=cni_error_of(error))

    def _next(self, done: Round, reasoned: float) -> float:
        """The longest that may pass until the next round, after one with a reason at that time."""
        pace = self._pace
        if done.is_good and not done.report.done:
            self._pause = pace.settle
            return pace.every
        # With a reason soon after the last time that there was something to do, somebody may be
        # undoing it.
        soon = reasoned - self._busy < _SOON * self._pause
        self._pause = min(self._pause * 2, pace.every) if soon else pace.settle
        self._busy = asyncio.get_running_loop().time()
        return pace.every if done.is_good else min(max(self._pause, pace.retry), pace.every)

    async def _reason(self, most: float) -> None:
        """Wait for a reason, and for what comes along with it; at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._wanted.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause):
                        await self._urgent.wait()

    def _heard(self) -> None:
        try:
            heard = self._changes.read()
        except CniError:
            # The next interval looks anyway, or the next view.
            self._good = None
            return
        # Each is asked about: it may be one that the backend waits for.
        concerning = [one for one in heard if self._backend.concerns(one)]
        if concerning:
            self._good = None
            self._reasoned = asyncio.get_running_loop().time()
            self._wanted.set()
