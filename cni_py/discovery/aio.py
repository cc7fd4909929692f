"""The same for asyncio: `async with Discovery(...) as services`, and each call is awaited."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from cni_py.cluster.closing import Closing
from cni_py.cluster.store_errors import StoreError, Unavailable
from cni_py.services.instance import require_service
from cni_py.services.opening import open_registry
from cni_py.services.registry import Registry

from .choosing import By, Choice
from .errors import NoInstanceError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cni_py.services.instance import Instance

__all__ = ["Discovery"]

T = TypeVar("T")

Failures = tuple[type[Exception], ...]

# Seconds that a first answer of the registry may take.
_PATIENCE = 5.0
_CALL_SECONDS = 30.0
# Between two looks at a registry that has not answered yet.
_PAUSE = 0.1


class Discovery(Closing):
    """The services of one registry, within one event loop. Use it in an `async with` block.

    `where` is `etcd:URL,URL`, `sqlite:PATH` or `consul:URL`, or a registry that is open. `options`
    are those of `cni_py.services.opening.open_registry`: `domain`, `prefix`, `ca`, `certificate`,
    `key`, `user`, `password`, `token`, `seconds`. Raises ValueError for what cannot be.

    A service that was asked for once is followed from then on: later answers come at once, and are
    what was last known where the registry is out of reach.
    """

    def __init__(self, where: str | Registry, **options: Any) -> None:
        self._registry = where if isinstance(where, Registry) else open_registry(where, **options)
        self._followed: dict[str, _Followed] = {}

    async def resolve(self, service: str) -> tuple[Instance, ...]:
        """The healthy instances, sorted by id; none is no error.

        Raises StoreError where the registry has not answered yet, ValueError for no service's name.
        """
        return await self._follow(service).known()

    async def watch(self, service: str) -> AsyncGenerator[tuple[Instance, ...], None]:
        """The healthy instances, then at each change, without end. Raises as `resolve` does."""
        followed = self._follow(service)
        told = await followed.known()
        yield told
        while True:
            await followed.changed(told)
            told = await followed.known()
            yield told

    async def pick(self, service: str, *, by: By = "weight") -> Instance:
        """The one whose turn it is, of those that have not just failed; else the next that may.

        Raises NoInstanceError, and as `resolve` does.
        """
        followed = self._follow(service)
        instances = await followed.known()
        chosen = followed.choice.next(instances, by, _now())
        if chosen is not None:
            return chosen
        if not instances:
            raise NoInstanceError(service)
        return min(instances, key=lambda one: followed.choice.again([one]))

    async def call(
        self,
        service: str,
        function: Callable[[Instance], Awaitable[T]],
        *,
        by: By = "weight",
        seconds: float = _CALL_SECONDS,
        each: float | None = None,
        failures: Failures = (OSError,),
    ) -> T:
        """What `await function(instance)` returns, of the first instance for which it does.

        Where it raises one of `failures`, or takes more than `each` seconds, the next instance is
        tried; that one is passed over for 0.5 s, and for twice as long each further time, at most
        30 s. So `function` may run several times, and after a failure its server may have done what
        it was asked for. Other exceptions go to the caller. Where all have failed, the first that
        may be tried again is waited for, and where there is none, one is.

        After `seconds` in all it raises UnreachableError, or NoInstanceError; StoreError where the
        registry has not answered until then.
        """
        caught: Failures = (*failures, TimeoutError)
        attempts = self.attempts(service, by=by, seconds=seconds)
        while True:
            instance = await attempts.next()
            left = attempts.left()
            try:
                async with asyncio.timeout(left if each is None else min(left, each)):
                    found = await function(instance)
            except caught as error:
                attempts.failed(error)
            else:
                attempts.worked()
                return found

    def attempts(self, service: str, *, by: By = "weight", seconds: float) -> Attempts:
        """For a `call` of one's own making: what `call` goes by."""
        return Attempts(self._follow(service), by, seconds)

    def _follow(self, service: str) -> _Followed:
        require_service(service)
        followed = self._followed.get(service)
        if followed is None:
            followed = self._followed[service] = _Followed(self._registry, service)
        return followed

    async def close(self) -> None:
        """End all that runs, and close the registry."""
        for one in self._followed.values():
            await one.close()
        await self._registry.close()


class Attempts:
    """The instances that are tried one after another, until one works or the time is over."""

    def __init__(self, followed: _Followed, by: By, seconds: float) -> None:
        self._followed, self._by, self._seconds = followed, by, seconds
        self._deadline = _now() + seconds
        self._instance: Instance | None = None
        self._tried = 0
        self._last: Exception | None = None

    def left(self) -> float:
        """The seconds until the time is over."""
        return max(self._deadline - _now(), 0.0)

    async def next(self) -> Instance:
        """Whom to try now. Raises UnreachableError, NoInstanceError, StoreError."""
        choice = self._followed.choice
        instances: tuple[Instance, ...] | None = None
        while left := self.left():
            try:
                async with asyncio.timeout(left):
                    instances = await self._known()
            except TimeoutError:
                continue
            self._instance = choice.next(instances, self._by, _now())
            if self._instance is not None:
                return self._instance
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(choice.again(instances), self._deadline)):
                    await self._followed.changed(instances)
        if self._last is not None:
            said = f"{type(self._last).__name__}: {self._last}"
            service, seconds = self._followed.service, self._seconds
            raise UnreachableError(service, self._tried, seconds, said) from self._last
        if instances is None:
            raise Unavailable(self._followed.problem)
        raise NoInstanceError(self._followed.service)

    async def _known(self) -> tuple[Instance, ...]:
        while True:
            try:
                return await self._followed.known()
            except Unavailable:
                await asyncio.sleep(_PAUSE)

    def worked(self) -> None:
        """The last one has answered."""
        if self._instance is not None:
            self._followed.choice.worked(self._instance)

    def failed(self, error: Exception) -> None:
        """The last one has not."""
        self._tried += 1
        self._last = error
        if self._instance is not None:
            self._followed.choice.failed(self._instance, _now())


class _Followed:
    """One service, as the registry has it."""

    def __init__(self, registry: Registry, service: str) -> None:
        self.service = service
        self.choice = Choice()
        self.problem = f'service "{service}": the registry does not answer'
        self._registry = registry
        # What was last known; None before the registry has answered.
        self._instances: tuple[Instance, ...] | None = None
        self._error: StoreError | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def known(self) -> tuple[Instance, ...]:
        """What is known. Raises StoreError where that is nothing yet, and cannot be."""
        if self._task is None or self._task.done():
            if self._task is not None and not self._task.cancelled():
                # Nothing, or a defect.
                self._task.result()
            self._error = None
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(_PATIENCE):
                while self._instances is None and self._error is None:
                    await self._news.wait()
        except TimeoutError:
            raise Unavailable(self.problem) from None
        if self._instances is None:
            assert self._error is not None
            raise self._error
        return self._instances

    async def changed(self, told: tuple[Instance, ...]) -> None:
        """Wait until something else is known. Raises StoreError once there will be nothing."""
        while self._instances == told:
            if self._task is None or self._task.done():
                raise self._error or Unavailable(self.problem)
            await self._news.wait()

    async def _run(self) -> None:
        try:
            async with aclosing(self._registry.watch(self.service)) as views:
                async for view in views:
                    if not view.lost:
                        self._instances, self._error = view.instances, None
                    elif self._instances is None:
                        self.problem = view.lost
                        self._error = Unavailable(view.lost)
                    self._tell()
        except StoreError as error:
            self.problem, self._error = str(error), error
        finally:
            # Whoever waits sees that this has ended.
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


def _now() -> float:
    return asyncio.get_running_loop().time()
