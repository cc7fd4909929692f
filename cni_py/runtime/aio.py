"""The same for asyncio: each call in a thread of its own, ended when its task is cancelled.

There is one way to run a chain, the one of `cni_py.runtime`; docs/decisions/0041 has the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import runtime
from .runtime import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.spec.attachment import Attachment

    from .networks import Network
    from .requests import Parameters
    from .runtime import Attached

T = TypeVar("T")

_MOST_AT_ONCE = 64


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_AT_ONCE, "cni")


@dataclass(frozen=True)
class Runtime:
    """`cni_py.runtime.Runtime` with methods to be awaited; `sync` is that one.

    When a task is cancelled its call is given up: the plugin that runs is ended, with `undo` the
    DELs run, and only then is CancelledError raised. `asyncio.timeout` is the limit for one call.
    64 calls run at a time, further ones wait. What only reads files is not here: use `sync`.
    """

    sync: runtime.Runtime = field(default_factory=runtime.Runtime)
    _executor: ThreadPoolExecutor = field(default_factory=_threads, repr=False, compare=False)

    async def add(
        self, network: Network, parameters: Parameters, *, undo: bool = False
    ) -> Attached:
        """`Runtime.add`."""
        return await self._called(partial(self.sync.add, network, parameters, undo=undo))

    async def check(self, network: Network, parameters: Parameters) -> None:
        """`Runtime.check`."""
        await self._called(partial(self.sync.check, network, parameters))

    async def delete(self, network: Network, parameters: Parameters) -> None:
        """`Runtime.delete`."""
        await self._called(partial(self.sync.delete, network, parameters))

    async def gc(
        self, network: Network, valid: Iterable[tuple[str, str]] | None = None
    ) -> tuple[Attachment, ...]:
        """`Runtime.gc`."""
        return await self._called(partial(self.sync.gc, network, valid))

    async def status(self, network: Network) -> None:
        """`Runtime.status`."""
        await self._called(partial(self.sync.status, network))

    async def validate(self, network: Network, capabilities: Iterable[str] = ()) -> frozenset[str]:
        """`Runtime.validate`."""
        return await self._called(partial(self.sync.validate, network, capabilities))

    async def supported(self, type_: str) -> tuple[str, ...]:
        """`Runtime.supported`."""
        return await self._called(partial(self.sync.supported, type_))

    async def negotiated(self, network: Network) -> Network:
        """`Runtime.negotiated`."""
        return await self._called(partial(self.sync.negotiated, network))

    async def _called(self, method: Callable[..., T]) -> T:
        """Run the method in a thread; leave no earlier than it does."""
        cancellation = Cancellation()
        loop = asyncio.get_running_loop()
        call: asyncio.Future[Any] = loop.run_in_executor(
            self._executor, partial(method, cancel=cancellation)
        )
        try:
            await asyncio.wait({call})
        except asyncio.CancelledError:
            cancellation.cancel()
            while not call.done():
                # Cancelled again: what is being ended or undone is waited for all the same.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({call})
            # Whatever came of it, nobody asks any more.
            call.exception()
            raise
        return call.result()  # type: ignore[no-any-return]
