"""What is special about a store: it may be replaced by another, and people write into it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from cni_py.cluster.store import Put
from cni_py.cluster.store_errors import Denied
from cni_py.services.opening import open_registry
from cni_py.services.registry import Claimed
from fixtures import coredns
from fixtures.etcd import EtcdCluster

from .subjects import InEtcd, InSqlite, Story, eventually, instance


def test_another_file_is_filled_anew(tmp_path):
    subject = InSqlite(tmp_path / "state")

    async def story():
        async with subject.open() as registry, Story(registry) as watched:
            async with registry.registrant("n1", 1) as registrant:
                for number in (1, 2):
                    await registrant.register(instance(number))
                await watched.until(lambda: watched.ids == ["c1-1", "c2-1"])
                (tmp_path / "state").rename(tmp_path / "lost")
                # Nobody knows of it until the session is renewed.
                await eventually(lambda: _ids(registry), ["c1-1", "c2-1"])
                await registrant.withdraw(instance(1))
                await watched.until(lambda: watched.ids == ["c2-1"])

    subject.run(story)


async def _ids(registry) -> list[str]:
    return [one.id for one in (await registry.list()).instances]


def test_where_others_have_written_nothing_is_replaced(tmp_path):
    subject = InSqlite(tmp_path / "state")
    key = subject.layout.folder("web", "c1-1") + "1"

    async def story():
        async with subject.store() as store, subject.open() as registry:
            for value in (b"", b"{", b'{"host":"10.0.0.1"}'):
                await store.transact([], [Put(key, value)])
                async with registry.registrant("n1") as registrant:
                    with pytest.raises(Claimed, match="no record of a node"):
                        await registrant.register(instance(1))
                    await registrant.withdraw(instance(1))
                    await eventually(lambda: _problem(registrant), "")
                assert (await store.get(key)).value == value

    subject.run(story)


async def _problem(registrant) -> str:
    return registrant.problem


def test_the_rights_that_etcds_users_need():
    """As docs/discovery.md tells them."""
    folder = Path(tempfile.mkdtemp(prefix="cni-etcd-"))
    cluster = EtcdCluster(folder).start()
    cluster.leader()
    keys = "/skydns/internal/cluster/"
    for command in (
        "user add root:secret", "user grant-role root root", "role add agent", "role add reader",
        f"role grant-permission agent --prefix=true readwrite {keys}", "user add agent:word",
        f"role grant-permission reader --prefix=true read {keys}", "user add reader:word",
        "user grant-role agent agent", "user grant-role reader reader", "auth enable",
    ):  # fmt: skip
        cluster.ctl(*command.split())
    where = f"etcd:{','.join(one.endpoint for one in cluster.members)}"

    async def story():
        agent = open_registry(where, user="agent", password="word")
        reader = open_registry(where, user="reader", password="word")
        async with agent, reader, Story(reader) as watched:
            async with agent.registrant("n1") as registrant, reader.registrant("n1") as other:
                await registrant.register(instance(1))
                await watched.until(lambda: watched.ids == ["c1-1"])
                with pytest.raises(Denied):
                    await other.register(instance(2))
                assert "denied" in other.problem
                await registrant.withdraw(instance(1))
                await watched.until(lambda: watched.ids == [])
                await registrant.register(instance(3))
                await registrant.leave()
                await watched.until(lambda: watched.ids == [])

    try:
        asyncio.run(story())
    finally:
        cluster.close()
        shutil.rmtree(folder)


def test_coredns_reads_what_an_etcd_has(etcd):
    subject = InEtcd(etcd)
    zone = f"{subject.layout.domain}."

    async def story():
        async with subject.open() as registry, registry.registrant("n1") as registrant:
            await registrant.register(instance(1, addresses=("10.1.0.2", "fd00::2"), weight=3))
            await registrant.register(instance(2, addresses=("10.1.0.3",)))
            await registrant.register(instance(3, service="db", addresses=("10.1.0.4",)))
            # As etcd itself tells it.
            keys = {}
            lines = etcd.ctl("get", "--prefix", subject.layout.folder()).splitlines()
            for name, value in zip(lines[::2], lines[1::2], strict=True):
                keys[name] = value.encode()
            assert coredns.addresses(keys, f"web.{zone}", 4) == {"10.1.0.2", "10.1.0.3"}
            assert coredns.addresses(keys, f"web.{zone}", 6) == {"fd00::2"}
            assert coredns.addresses(keys, f"c2-1.web.{zone}", 4) == {"10.1.0.3"}
            answer = coredns.srv(keys, f"web.{zone}")
            assert [(one.target, one.port, one.weight) for one in answer] == [
                (f"1.c1-1.web.{zone}", 8080, 42),
                (f"2.c1-1.web.{zone}", 8080, 42),
                (f"1.c2-1.web.{zone}", 8080, 14),
            ]  # fmt: skip

    subject.run(story)
