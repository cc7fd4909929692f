"""The registries that the battery is tried on, and what a client does not do to them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from cluster.stories import Following
from msgspec.structs import replace

from cni_py.cluster.etcd import Etcd
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import Put
from cni_py.services.consul import Consul
from cni_py.services.consul_access import ConsulAccess
from cni_py.services.instance import Instance
from cni_py.services.skydns import Layout
from cni_py.services.store_registry import StoreRegistry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cni_py.cluster.store import Store
    from cni_py.services.registry import Registry, View
    from fixtures.consul import ConsulAgent
    from fixtures.etcd import EtcdCluster

_SECONDS = 20
_count = itertools.count()


def instance(number: int = 1, **facts) -> Instance:
    """An instance of `web` on node n1; another for each number."""
    made = Instance(
        service="web",
        id=f"c{number}-1",
        node="n1",
        network="containers",
        addresses=(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",),
        port=8080,
    )
    return replace(made, **facts)


class Subject(ABC):
    """One kind of registry."""

    shortest_ttl: int
    # Seconds that a call may take; a story in which the registry is away has less.
    patience = 10.0
    many = 300

    @property
    @abstractmethod
    def where(self) -> tuple[str, dict[str, str]]:
        """Its name, and with which options it is opened by that."""

    @abstractmethod
    def open(self) -> Registry:
        """A client of its own."""

    @abstractmethod
    def stop(self) -> None:
        """It is out of reach from now on."""

    @abstractmethod
    def start(self) -> None:
        """It is back, with all it had."""

    @abstractmethod
    async def end_sessions(self) -> None:
        """It holds all for dead that is registered now."""

    @abstractmethod
    async def forget(self) -> None:
        """Somebody removes all that is registered now, behind its owners' backs."""

    @abstractmethod
    async def spoil(self, service: str) -> int:
        """Others write nonsense where the instances of a service are: how many records."""

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run a test's story, after which no task and no thread is left."""
        asyncio.run(_run(story))


async def _run(story: Callable[[], Awaitable[None]]) -> None:
    before = {asyncio.current_task()}
    threads = _threads()
    await story()

    async def left() -> object:
        return asyncio.all_tasks() - before, _threads() - threads

    # grpc ends some a little later.
    await eventually(left, (set(), set()))


def _threads() -> set[threading.Thread]:
    # grpc has one thread for all channels of a process; it begins with the first.
    # And what stands in for Consul has its own.
    others = ("_poll_wrapper", "serve_forever", "process_request")
    return {one for one in threading.enumerate() if not any(of in one.name for of in others)}


class _InStore(Subject):
    """What is the same of every store."""

    def __init__(self) -> None:
        # The store may be shared, so each test has its own domain.
        self.layout = Layout(domain=f"test{next(_count)}.internal")

    @abstractmethod
    def store(self) -> Store: ...

    def open(self) -> Registry:
        return StoreRegistry(self.store(), self.layout, seconds=self.patience)

    async def end_sessions(self) -> None:
        async with self.store() as store:
            records = (await store.list(self.layout.folder())).records
            for lease in {one.lease for one in records}:
                await store.revoke(lease)

    async def forget(self) -> None:
        async with self.store() as store:
            records = (await store.list(self.layout.folder())).records
            await store.transact([], [], [one.key for one in records])

    async def spoil(self, service: str) -> int:
        folder = self.layout.folder(service)
        good = b'{"host":"10.9.9.9","port":1,"CniPy":{"node":"n9","network":"n"}}'
        nonsense = {
            f"{folder}plain/1": b'{"host":"10.9.9.9"}',
            f"{folder}empty/1": b"",
            f"{folder}deep/1": b"[" * 100_000,
            f"{folder}large/1": good + b" " * 100_000,
            f"{folder}bytes/1": b"\xff\xfe",
            f"{folder}number/1": b'{"host":"10.9.9.9","port":1e999,"CniPy":{}}',
            f"{folder}Upper/1": good,
            f"{folder}zero/0": good,
            f"{folder}\udcff/1": good,
            f"{folder}a/b/c/1": good,
            folder: good,
        }
        async with self.store() as store:
            await store.transact([], [Put(key, value) for key, value in nonsense.items()])
        return len(nonsense)


class InEtcd(_InStore):
    """An etcd of one member."""

    shortest_ttl = 2

    def __init__(self, cluster: EtcdCluster) -> None:
        super().__init__()
        self._member = cluster.members[0]
        self._access = cluster.access()

    def store(self) -> Store:
        return Etcd(self._access, progress=0.5)

    @property
    def where(self) -> tuple[str, dict[str, str]]:
        return f"etcd:{','.join(self._access.endpoints)}", {"domain": self.layout.domain}

    def stop(self) -> None:
        self._member.kill()

    def start(self) -> None:
        self._member.start()


class InSqlite(_InStore):
    """A file in a folder."""

    shortest_ttl = 1

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._away = folder, folder.with_name("away")

    def store(self) -> Store:
        return Sqlite(str(self._folder / "store.db"), progress=0.5)

    @property
    def where(self) -> tuple[str, dict[str, str]]:
        return f"sqlite:{self._folder}/store.db", {"domain": self.layout.domain}

    def stop(self) -> None:
        self._folder.rename(self._away)
        self._folder.write_text("no folder")

    def start(self) -> None:
        self._folder.unlink()
        self._away.rename(self._folder)


class InConsul(Subject):
    """What stands in for Consul's agent."""

    shortest_ttl = 1
    many = 40

    def __init__(self, agent: ConsulAgent) -> None:
        self._agent = agent

    def open(self) -> Registry:
        access = ConsulAccess(self._agent.url, self._agent.token)
        return Consul(access, seconds=self.patience, progress=0.5)

    @property
    def where(self) -> tuple[str, dict[str, str]]:
        return f"consul:{self._agent.url}", {"token": self._agent.token}

    def stop(self) -> None:
        self._agent.stop()

    def start(self) -> None:
        self._agent.start()

    async def end_sessions(self) -> None:
        self._agent.fail_all()

    async def forget(self) -> None:
        self._agent.forget()

    async def spoil(self, service: str) -> int:
        good = {
            "Name": service, "Address": "10.9.9.9", "Port": 1, "Tags": ["cni-py"],
            "Weights": {"Passing": 1, "Warning": 1},
            "Meta": {"cni-py-node": "n9", "cni-py-network": "n", "cni-py-protocol": "tcp",
                     "cni-py-addresses": "10.9.9.9"},
        }  # fmt: skip
        meta = good["Meta"]
        nonsense: list[dict[str, Any]] = [
            {"ID": "plain", "Meta": {}},
            {"ID": "none", "Meta": None},
            {"ID": "port", "Port": 0},
            {"ID": "typed", "Port": "80"},
            {"ID": "weight", "Weights": {"Passing": 0}},
            {"ID": "Upper"},
            {"ID": "line\n"},
            {"ID": "address", "Meta": meta | {"cni-py-addresses": "nowhere"}},
            {"ID": "protocol", "Meta": meta | {"cni-py-protocol": "icmp"}},
            {"ID": "node", "Meta": meta | {"cni-py-node": "x" * 300}},
            {"ID": "key", "Meta": meta | {"a b": "c"}},
        ]
        for one in nonsense:
            self._agent.put(good | one)
        return len(nonsense)


class Story(Following):
    """Follows a registry's watch beside a test."""

    def __init__(self, registry: Registry, service: str = "") -> None:
        super().__init__()
        self.views: list[View] = []
        self._registry, self._service = registry, service

    async def _follow(self) -> None:
        async with aclosing(self._registry.watch(self._service)) as views:
            async for view in views:
                self.views.append(view)
                self._news.set()

    @property
    def ids(self) -> list[str]:
        """Those of the instances that were told last."""
        return [one.id for one in self.views[-1].instances] if self.views else []

    @property
    def lost(self) -> str:
        return self.views[-1].lost if self.views else ""


async def eventually(found: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is what it has to be."""
    try:
        async with asyncio.timeout(_SECONDS):
            while (last := await found()) != wanted:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{last!r} is not {wanted!r}") from None
