"""Each kind of registry in turn."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.consul import ConsulAgent
from fixtures.etcd import EtcdCluster

from .subjects import InConsul, InEtcd, InSqlite, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdCluster]:
    """An etcd for all tests that leave it running."""
    # A socket's path has 108 bytes at most.
    cluster = EtcdCluster(Path(tempfile.mkdtemp(prefix="cni-etcd-"))).start()
    yield cluster
    cluster.close()
    shutil.rmtree(cluster.folder)


@pytest.fixture
def consul() -> Iterator[ConsulAgent]:
    """What stands in for Consul's agent, which asks for a token."""
    agent = ConsulAgent(token="s3cret").start()
    yield agent
    agent.stop()


@pytest.fixture(params=["etcd", "sqlite", "consul"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Each kind of registry in turn."""
    if request.param == "etcd":
        return InEtcd(request.getfixturevalue("etcd"))
    if request.param == "consul":
        return InConsul(request.getfixturevalue("consul"))
    return InSqlite(tmp_path / "state")
