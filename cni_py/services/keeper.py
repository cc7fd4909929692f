"""The keeper of a node's services: what its containers declare is checked, registered and named.

Four tasks run beside one another: one looks at the declarations and at the networks with names, one
tells the registry of this node's instances, one follows what the registry says of others, and the
checks, a task each. Names of this host's own services need no registry: while that is away they
follow the checks, and others' stay as they were last known.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from cni_py.cluster import node_file
from cni_py.cluster.agent_log import log
from cni_py.cluster.agent_report import Gauge
from cni_py.cluster.store_errors import StoreError
from cni_py.kernel import state_files
from cni_py.spec.errors import CniError

from .checking import Checking
from .declaration import KEEPER
from .folder import DeclarationFolder
from .local import Local, entries, named
from .naming import ELSEWHERE, HERE, Naming
from .registry import DEFAULT_TTL, Claimed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from .instance import Instance
    from .registry import LeftOut, Registrant, Registry

# Seconds between two looks at the folder: stat(2) of it, and no more where nothing has changed.
_LOOK = 0.1
# That many looks between two at which networks have names.
_LOOKS_AT_NETWORKS = 10
# And between two at each file: what is written over in its place does not change the folder.
_LOOKS_AT_FILES = 30
# How much longer than publishing the pause after it is.
_PAUSE_TIMES = 4
_AGAIN = 2.0
_RELEASE_SECONDS = 5.0
# Calls to the registry at once: one that is away lets each wait.
_AT_ONCE = 16
_HEALTHY = f"{KEEPER}.healthy"


class Keeper:
    """See the module. It is one of the agent's companions."""

    name = "services"

    def __init__(
        self,
        opened: Callable[[], AbstractAsyncContextManager[Registry]],
        node: str,
        ttl: int = DEFAULT_TTL,
    ) -> None:
        """`opened` opens the registry while `run` runs; `node` is the node's own name in the
        cluster, `ttl` the seconds that its entries last without it.
        """
        self._opened, self._node, self._ttl = opened, node, ttl
        self._local = Local(node, ())
        self._naming = Naming()
        self._unpublished, self._unregistered = asyncio.Event(), asyncio.Event()
        self._elsewhere: tuple[Instance, ...] | None = None
        self._registrant: Registrant | None = None
        self._checking: Checking | None = None
        self._lost = self._state = ""

    def told(self) -> str:
        """For `cni-py agent status`: how many there are, and what is wrong."""
        if self._registrant is None or self._checking is None:
            return self._state
        healthy = self._local.healthy(self._checking.healthy)
        others = "none known" if self._elsewhere is None else f"{len(self._elsewhere)}"
        text = f"{len(healthy)} of {len(self._local)} here answer, on other nodes {others}"
        problem = self._registrant.problem or self._lost
        return f"{text}; {problem}" if problem else text

    def gauges(self) -> tuple[Gauge, ...]:
        """For metrics: those of this node, those that answer, those of others; and all is well."""
        keys = () if self._checking is None else self._checking.healthy
        registrant = self._registrant
        is_registered = registrant is not None and not (registrant.problem or self._lost)
        return (
            Gauge(
                name="services_declared",
                text="Services that containers of this host declare.",
                value=len(self._local),
            ),
            Gauge(
                name="services_healthy",
                text="Of these, how many answer.",
                value=len(self._local.healthy(keys)),
            ),
            Gauge(
                name="services_elsewhere",
                text="Instances that the registry has of other nodes.",
                value=len(self._elsewhere or ()),
            ),
            Gauge(
                name="services_registered",
                text="Whether the registry is within reach, and has what answers here.",
                value=int(is_registered),
            ),
        )

    async def run(self, leaving: Callable[[], bool]) -> None:
        """Until it is cancelled; then, if it is `leaving`, take everything back.

        Raises CniError, StoreError: begin again after a while.
        """
        async with (
            self._alone(),
            self._opened() as registry,
            registry.registrant(self._node, self._ttl) as registrant,
        ):
            folder = DeclarationFolder()
            self._checking = Checking(self._tell, _inherited())
            self._registrant = registrant
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._look(folder, self._checking))
                    group.create_task(self._register(registrant, self._checking))
                    group.create_task(self._follow(registry))
            except BaseExceptionGroup as several:
                raise several.exceptions[0] from None
            finally:
                self._registrant = None
                await self._checking.close()
                if leaving():
                    await self._leave(registrant)

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None, None]:
        """Hold the lock that says that services are kept, once no other agent does."""
        while (lock := node_file.take(KEEPER)) is None:
            if not self._state:
                log("services are kept by another agent of this host")
            self._state = "another agent of this host keeps them"
            await asyncio.sleep(_AGAIN)
        self._state = ""
        try:
            yield
        finally:
            os.close(lock)

    # Here.

    async def _look(self, folder: DeclarationFolder, checking: Checking) -> None:
        """Follow the declarations; publish what has changed, and what new networks do not have."""
        told: dict[str, str] = {}
        remembered: frozenset[str] | None = None
        loop, looks = asyncio.get_running_loop(), 0
        while True:
            if folder.has_changed() or looks % _LOOKS_AT_FILES == 0:
                told = self._read(folder, checking, told)
            looks += 1
            if self._unpublished.is_set() or looks % _LOOKS_AT_NETWORKS == 0:
                self._unpublished.clear()
                began = loop.time()
                self._publish(checking)
                if checking.healthy != remembered:
                    remembered = checking.healthy
                    _remember(remembered)
                # Of thousands many change at once: what comes meanwhile is published together.
                await asyncio.sleep((loop.time() - began) * _PAUSE_TIMES)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._unpublished.wait()

    def _read(
        self, folder: DeclarationFolder, checking: Checking, told: Mapping[str, str]
    ) -> dict[str, str]:
        """What is declared now; returns why files were passed over, which is logged once."""
        declared = folder.read()
        for path, why in declared.problems.items():
            if told.get(path) != why:
                log("declaration passed over", path=path, why=why)
        before, self._local = len(self._local), Local(self._node, declared.declarations)
        if len(self._local) != before:
            log("services declared", number=len(self._local))
        checking.want(self._local.targets())
        self._stir()
        return declared.problems

    def _publish(self, checking: Checking) -> None:
        here = self._local.healthy(checking.healthy)
        self._naming.publish(HERE, entries(here.values()))
        # Before anything is known of others, what a former agent has published is the best.
        if self._elsewhere is not None:
            self._naming.publish(ELSEWHERE, entries(self._elsewhere))

    def _tell(self, key: str, healthy: bool, why: str) -> None:  # noqa: FBT001 - Checking's way
        instance, address = named(key)
        if healthy:
            log("service answers", instance=instance, address=address)
        else:
            log("service does not answer", instance=instance, address=address, why=why)
        self._stir()

    def _stir(self) -> None:
        self._unpublished.set()
        self._unregistered.set()

    # The registry.

    async def _register(self, registrant: Registrant, checking: Checking) -> None:
        """Have the registry know this node's instances that answer, and no others of it."""
        asked: dict[str, Instance] = {}
        told = ""
        while True:
            self._unregistered.clear()
            wanted = self._local.healthy(checking.healthy)
            gone = [one for name, one in asked.items() if name not in wanted]
            new = [one for name, one in wanted.items() if asked.get(name) != one]
            # The registrant itself sees to what the registry has not taken yet, but for what it
            # refuses: that is asked for again.
            refused = await self._change(registrant, gone, new)
            asked = {name: one for name, one in wanted.items() if name not in refused}
            problem = next(iter(refused.values()), registrant.problem)
            if problem != told:
                log("registry", problem=problem)
                told = problem
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN):
                    await self._unregistered.wait()

    async def _change(
        self, registrant: Registrant, gone: Sequence[Instance], new: Sequence[Instance]
    ) -> dict[str, str]:
        """Withdraw and register; returns why some were refused, by their ids."""
        room = asyncio.Semaphore(_AT_ONCE)
        refused: dict[str, str] = {}

        async def change(call: Callable[[Instance], Awaitable[None]], one: Instance) -> None:
            async with room:
                try:
                    await call(one)
                except Claimed as error:
                    refused[one.id] = str(error)
                except StoreError:
                    return

        async with asyncio.TaskGroup() as group:
            for one in gone:
                group.create_task(change(registrant.withdraw, one))
            for one in new:
                group.create_task(change(registrant.register, one))
        return refused

    async def _follow(self, registry: Registry) -> None:
        """Follow the instances of other nodes."""
        passed_over: tuple[LeftOut, ...] = ()
        while True:
            try:
                async with aclosing(registry.watch()) as views:
                    async for view in views:
                        if view.lost != self._lost:
                            log("registry", away=view.lost)
                        self._lost = view.lost
                        if view.lost:
                            continue
                        if view.left_out != passed_over:
                            passed_over = view.left_out
                            log("records passed over", keys=[one.key for one in passed_over])
                        self._elsewhere = tuple(
                            one for one in view.instances if one.node != self._node
                        )
                        self._unpublished.set()
            except StoreError as error:
                if str(error) != self._lost:
                    log("registry", away=str(error))
                self._lost = str(error)
                await asyncio.sleep(_AGAIN)

    async def _leave(self, registrant: Registrant) -> None:
        """Take back what was registered and published."""
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await registrant.leave()
        except (StoreError, TimeoutError) as error:
            log("services not withdrawn", why=str(error), end="by themselves")
        for source in (HERE, ELSEWHERE):
            self._naming.publish(source, {})
        with suppress(CniError):
            state_files.forget(_HEALTHY)


def _inherited() -> frozenset[str]:
    """What answered when a former agent of this boot ended."""
    try:
        found = state_files.load(_HEALTHY, tuple[str, ...])
    except OSError:
        return frozenset()
    return frozenset(found or ())


def _remember(keys: frozenset[str]) -> None:
    try:
        state_files.save(_HEALTHY, msgspec.json.encode(sorted(keys)))
    except CniError as error:
        log("file not written", error=str(error))
