"""The stores that the battery is tried on, and hosts on an underlay."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_py.cluster.etcd import Etcd
from cni_py.cluster.sqlite import Sqlite
from fixtures.etcd import EtcdCluster
from fixtures.host import Host
from fixtures.underlay import Underlay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cni_py.cluster.store import Store

_count = itertools.count()


@dataclass
class Subject:
    """One kind of store, and what a client does not do itself."""

    open: Callable[..., Store]
    compact: Callable[[int], Awaitable[None]]
    shortest_lease: int

    def __post_init__(self) -> None:
        # The store may be shared, so each test has its own keys.
        self.prefix = f"/test{next(_count)}/"

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run a test's story, after which no task and no thread is left."""
        asyncio.run(_run(story))


async def _run(story: Callable[[], Awaitable[None]]) -> None:
    before = {asyncio.current_task()}
    threads = _threads()
    await story()
    async with asyncio.timeout(10):
        # grpc ends some a little later.
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)
    assert _threads() == threads


def _threads() -> set[str]:
    # grpc has one thread for all channels of a process; it begins with the first.
    return {one.name for one in threading.enumerate() if "_poll_wrapper" not in one.name}


@pytest.fixture(scope="session")
def shared_etcd() -> Iterator[EtcdCluster]:
    """An etcd for all tests that leave it running."""
    cluster = EtcdCluster(_short_folder()).start()
    yield cluster
    cluster.close()
    shutil.rmtree(cluster.folder)


@pytest.fixture
def clusters() -> Iterator[Callable[..., EtcdCluster]]:
    """Makes etcds for one test alone."""
    made = []

    def make(size: int = 1, **options) -> EtcdCluster:
        made.append(EtcdCluster(_short_folder(), size, **options).start())
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
        shutil.rmtree(cluster.folder)


def _short_folder() -> Path:
    # A socket's path has 108 bytes at most.
    return Path(tempfile.mkdtemp(prefix="cni-etcd-"))


@pytest.fixture(params=["etcd", "sqlite"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Each kind of store in turn."""
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("shared_etcd")

        async def compact(revision: int) -> None:
            cluster.compact(revision)

        return Subject(lambda **options: Etcd(cluster.access(), **options), compact, 2)
    path = str(tmp_path / "state" / "store.db")

    async def compact_file(revision: int) -> None:
        async with Sqlite(path) as store:
            await store.compact(revision)

    return Subject(lambda **options: Sqlite(path, **options), compact_file, 1)


@pytest.fixture(scope="module")
def quiet_host() -> Iterator[Host]:
    """A host for all tests of a module that leave its kernel as it was."""
    with closing(Host.start()) as host:
        yield host


@pytest.fixture
def underlay(request: pytest.FixtureRequest) -> Iterator[Underlay]:
    """Hosts 1 and 2 on one link and 3 behind a router, or on the links that a parameter says."""
    underlay = Underlay.start(getattr(request, "param", (1, 1, 2)))
    try:
        yield underlay
    finally:
        underlay.close()
