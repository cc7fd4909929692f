"""A client without asyncio: a thread of its own follows the registry."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import TracebackType

    from cni_py.services.instance import Instance

    from .choosing import By

T = TypeVar("T")


class Discovery:
    """The services of one registry. Use it in a `with` block; threads may share it.

    `where` is `etcd:URL,URL`, `sqlite:PATH` or `consul:URL`. `options` are those of
    `cni_py.services.opening.open_registry`: `domain`, `prefix`, `ca`, `certificate`, `key`, `user`,
    `password`, `token`, `seconds`. Raises ValueError for what cannot be.

    A service that was asked for once is followed from then on: later answers come at once, and are
    what was last known where the registry is out of reach. It does not live on in a forked child.
    """

    def __init__(self, where: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="cni-py discovery", daemon=True
        )
        self._thread.start()
        self._is_closed = False
        try:
            self._services = self._run(_opened(where, options))
        except BaseException:
            self._end()
            raise

    def resolve(self, service: str) -> tuple[Instance, ...]:
        """The healthy instances, sorted by id; none is no error.

        Raises StoreError where the registry has not answered yet, ValueError for no service's name.
        """
        return self._run(self._services.resolve(service))

    def watch(self, service: str) -> Iterator[tuple[Instance, ...]]:
        """The healthy instances, then at each change, without end. Raises as `resolve` does."""
        views = self._services.watch(service)
        try:
            while True:
                yield self._run(anext(views))
        finally:
            if not self._is_closed:
                self._run(views.aclose())

    def pick(self, service: str, *, by: By = "weight") -> Instance:
        """The one whose turn it is, of those that have not just failed; else the next that may.

        Raises NoInstanceError, and as `resolve` does.
        """
        return self._run(self._services.pick(service, by=by))

    def call(
        self,
        service: str,
        function: Callable[[Instance], T],
        *,
        by: By = "weight",
        seconds: float = 30.0,
        failures: tuple[type[Exception], ...] = (OSError,),
    ) -> T:
        """What `function(instance)` returns, of the first instance for which it does.

        Where it raises one of `failures`, the next instance is tried; that one is passed over for
        0.5 s, and for twice as long each further time, at most 30 s. So `function` may run several
        times, and after a failure its server may have done what it was asked for. Other exceptions
        go to the caller. Where all have failed, the first that may be tried again is waited for,
        and where there is none, one is.

        After `seconds` in all no further one is tried: it raises UnreachableError, or
        NoInstanceError; StoreError where the registry has not answered until then. How long one
        attempt takes is `function`'s own affair: give its connection a timeout.
        """
        attempts = self._run(self._begun(service, by, seconds))
        while True:
            instance = self._run(attempts.next())
            try:
                found = function(instance)
            except failures as error:
                self._run(_failed(attempts, error))
            else:
                self._loop.call_soon_threadsafe(attempts.worked)
                return found

    async def _begun(self, service: str, by: By, seconds: float) -> aio.Attempts:
        return self._services.attempts(service, by=by, seconds=seconds)

    def close(self) -> None:
        """End all that runs, and close the registry. A second time does nothing."""
        if not self._is_closed:
            self._run(self._services.close())
            self._end()

    def _end(self) -> None:
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._is_closed:
            work.close()
            raise RuntimeError("this Discovery was closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # An interrupt of the program, too.
            future.cancel()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


async def _opened(where: str, options: dict[str, Any]) -> aio.Discovery:
    return aio.Discovery(where, **options)


async def _failed(attempts: aio.Attempts, error: Exception) -> None:
    attempts.failed(error)
