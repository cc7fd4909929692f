"""The agent: one process a node that claims a subnet for it, and keeps it joined to the others.

It is the only one that talks to the store; the plugins read the file that it writes.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cni_py.kernel import state_files
from cni_py.kernel.errors import KernelError
from cni_py.spec.errors import CniError, Code

from . import agent_backend, node_file
from .agent_context import Context
from .agent_follow import NetworkChanged
from .agent_log import log
from .agent_report import Counters
from .agent_session import Session
from .agent_socket import Answers, answering
from .agent_state import AgentState
from .claiming import Former
from .companion import accompanied
from .flannel import CONFIG_KEY, FlannelError, Subnets
from .flannel_network import parse_network
from .identity import identity
from .store_errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from .agent_report import AgentStatus
    from .agent_settings import AgentSettings
    from .companion import Companion
    from .flannel_network import Network
    from .node_file import NodeFile
    from .store import Store

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
# How often the file is compared with what is true, at least: leases are renewed silently.
_PUBLISH_SECONDS = 10.0


class Agent:
    """See the module. `open_store` is called in the event loop."""

    def __init__(
        self,
        settings: AgentSettings,
        open_store: Callable[[], Store],
        companions: Sequence[Callable[[Store, str], Companion]] = (),
    ) -> None:
        """Raises KernelError. `companions` are made with the store and the node's own name."""
        self._settings, self._open_store = settings, open_store
        self._state = AgentState(settings, identity(settings.identity_file, settings.host))
        self._counters = Counters()
        self._make = companions
        self._companions: list[Companion] = []
        self._stop = asyncio.Event()
        self._written: NodeFile | None = None
        self._environment = ""
        self._write_failed = ""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until it is asked to release. Raises CniError, OSError."""
        settings = self._settings
        lock = node_file.take(settings.file)
        if lock is None:
            msg = f"another agent runs for {settings.file}"
            raise CniError(Code.INVALID_ENVIRONMENT, msg, "cni-py agent status shows it")
        former = self._former()
        answers = Answers(self._status, self._counters, self._ask_release)
        try:
            async with (
                answering(settings.socket, settings.health_address, answers),
                self._open_store() as store,
                self._stopping(),
            ):
                log("started", node=self._state.owner.node, host=self._state.owner.host)
                self._companions = [make(store, self._state.owner.node) for make in self._make]
                await self._until_stopped(store, former)
        finally:
            os.close(lock)
        log("stopped", released=self._state.releasing)

    async def _until_stopped(self, store: Store, former: Former) -> None:
        serving = asyncio.create_task(self._serve(store, former))
        publishing = asyncio.create_task(self._publish_always())
        stop = asyncio.create_task(self._stop.wait())
        others = [
            asyncio.create_task(accompanied(one, lambda: self._state.releasing))
            for one in self._companions
        ]
        tasks = (serving, publishing, stop, *others)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.wait(tasks)
        for one in (serving, publishing, *others):
            if not one.cancelled() and (error := one.exception()):
                raise error
        if self._state.releasing:
            self._remove_files()

    @asynccontextmanager
    async def _stopping(self) -> AsyncGenerator[None, None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._stop.set)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _status(self) -> AgentStatus:
        companions = {one.name: one.told() for one in self._companions}
        gauges = tuple(gauge for one in self._companions for gauge in one.gauges())
        return replace(self._state.status(), companions=companions, gauges=gauges)

    def _ask_release(self) -> None:
        self._state.releasing = True
        self._stop.set()

    async def _serve(self, store: Store, former: Former) -> None:
        """One session after another: a changed network begins a new one."""
        if not self._settings.joins:
            await self._stop.wait()
            return
        network = await self._network(store)
        while True:
            context = Context(store, network, self._state, self._counters, self._publish)
            try:
                await Session(context).run(former)
            except CniError as error:
                if error.code != Code.INVALID_CONFIG:
                    raise
                # The host has not what the configuration names.
                network = await self._other_network(store, network, error)
            except NetworkChanged as changed:
                log("network changed", backend=changed.network.backend_type)
                network = changed.network
                own, kept = self._state.own, self._state.kept
                if own is not None and kept is not None:
                    former = Former(own.subnets, kept.lease)

    async def _network(self, store: Store) -> Network:
        """The network's configuration, from the file or once the store has one that can be used."""
        if self._settings.network:
            return parse_network(self._settings.network)
        key = f"{self._settings.prefix}/{CONFIG_KEY}"
        pause, told = _FIRST_PAUSE, ""
        while True:
            try:
                record = await store.get(key)
                self._state.heard()
                if record is not None:
                    found = parse_network(record.value)
                    agent_backend.require_usable(found)
                    return found
                why = f"the store has no {key}: cni-py agent config set writes one"
            except (StoreError, FlannelError, CniError) as error:
                why = str(error)
                if isinstance(error, StoreError):
                    self._state.store_problem = why
            if why != told:
                log("no network", why=why)
                told = why
            self._state.waits("the cluster's network is not known", why, for_store=True)
            self._publish()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _other_network(self, store: Store, network: Network, error: CniError) -> Network:
        """Wait for a configuration that this host can use. Raises the error where none can come."""
        if self._settings.network:
            raise error
        log("network configuration not used", why=str(error))
        self._state.waits(error.msg, error.details)
        self._publish()
        while (found := await self._network(store)) == network:
            await asyncio.sleep(_LONGEST_PAUSE)
        return found

    # Files.

    def _former(self) -> Former:
        """What an earlier agent has claimed, as far as it has written it."""
        told = node_file.read(self._settings.file)
        if told is None:
            return Former()
        try:
            v4 = IPv4Network(told.ipv4_subnet) if told.ipv4_subnet else None
            v6 = IPv6Network(told.ipv6_subnet) if told.ipv6_subnet else None
        except ValueError:
            return Former()
        self._state.former = told.former
        if v4 or v6:
            self._state.inherited = self._written = told
        return Former(Subnets(v4, v6), told.lease_number)

    async def _publish_always(self) -> None:
        while True:
            await asyncio.sleep(min(_PUBLISH_SECONDS, max(self._settings.ttl / 6, 0.5)))
            if self._state.own is not None:
                self._publish()

    def _publish(self) -> None:
        """Write the files, if there is something new."""
        state, settings = self._state, self._settings
        told = state.node_file()
        environment = state.subnet_environment() if settings.subnet_file and state.own else ""
        try:
            if told != self._written:
                node_file.write(settings.file, told)
                self._written = told
            if environment and environment != self._environment:
                _write_for_all(settings.subnet_file, environment)
                self._environment = environment
        except KernelError as error:
            if str(error) != self._write_failed:
                log("file not written", error=str(error))
            self._write_failed = str(error)
        else:
            self._write_failed = ""

    def _remove_files(self) -> None:
        for path in filter(None, (self._settings.file, self._settings.subnet_file)):
            with suppress(KernelError):
                state_files.discard(path)


def _write_for_all(path: str, text: str) -> None:
    """A file of mode 0644 that appears whole, for other programs. Raises KernelError."""
    state_files.save(path, text.encode())
    with suppress(OSError):
        os.chmod(path, 0o644)
