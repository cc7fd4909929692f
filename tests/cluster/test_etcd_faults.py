"""An etcd whose members die, hang, vote, forget, and come back."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing

import pytest

from cni_py.cluster.etcd import Etcd
from cni_py.cluster.etcd_access import EtcdAccess
from cni_py.cluster.keeping import Holding, keeping
from cni_py.cluster.store import Absent, AtRevision, Put
from cni_py.cluster.store_errors import Compacted, Denied, Full, Unavailable, Unsure
from fixtures.certificates import Authority

from .stories import Story, events_of


async def _put(store, key, value=b"", seconds=20.0):
    return await store.transact([], [Put(key, value)], seconds=seconds)


async def _fill(store):
    # etcd looks at its size when it commits a batch, which may be many writes later.
    for number in range(256):
        await _put(store, f"/{number}", b"x" * 1_000_000)


async def _count(store, key, times):
    """Count up by reading and comparing, as careful as a client must be; how often was unsure."""
    unsure = 0
    for _ in range(times):
        while True:
            try:
                record = await store.get(key, seconds=10)
                number = int(record.value) if record else 0
                condition = AtRevision(key, record.modified) if record else Absent(key)
                value = f"{number + 1}".encode()
                outcome = await store.transact([condition], [Put(key, value)], seconds=2)
            except Unsure:
                unsure += 1
                now = await store.get(key, seconds=10)
                if now is not None and now.value == value:
                    break
            else:
                if outcome.done:
                    break
    return unsure


@pytest.mark.slow
def test_members_that_die_and_a_leader_that_hangs(clusters):
    async def story():
        cluster = clusters(3)
        async with Etcd(cluster.access(), progress=0.5) as store:
            listed = await store.list("/a/", seconds=20)
            lease = await store.grant(20)
            async with Story(store, "/a/", listed) as watched, keeping(store, lease) as kept:
                await _put(store, "/a/lease", b"x")
                await store.transact([], [Put("/a/held", b"", lease)], seconds=20)
                for member in cluster.members:
                    # Its clients notice at once; the others elect a leader if it was that.
                    member.kill()
                    await _count(store, "/a/n", 3)
                    newest = await store.get("/a/n", seconds=10)
                    await watched.reaches(newest.modified)
                    assert watched.records["/a/n"] == newest
                    member.start()
                    cluster.leader()
                leader = cluster.leader()
                leader.stop()
                await _count(store, "/a/n", 3)
                truth = await store.list("/a/", seconds=20)
                await watched.reaches(truth.records[-1].modified)
                leader.go_on()
                assert tuple(watched.sorted()) == truth.records
                assert watched.records["/a/n"].value == b"12"
                told = [one.revision for batch in watched.batches for one in batch.events]
                assert told == sorted(set(told))
                await kept.renew()
                assert kept.holding == Holding.HELD

    asyncio.run(story())


def test_without_a_majority_nothing_is_done_and_nothing_waits(clusters):
    async def story():
        cluster = clusters(3)
        async with Etcd(cluster.access(), progress=0.5) as store:
            await _put(store, "/a")
            listed = await store.list("/")
            async with Story(store, "/", listed) as watched:
                await watched.until(lambda: watched.batches)
                for member in cluster.members[:2]:
                    member.kill()
                began = time.monotonic()
                for call in (
                    store.get("/a", seconds=1),
                    _put(store, "/a", b"x", 1),
                    store.grant(9, seconds=1),
                    store.list("/", seconds=1),
                ):
                    with pytest.raises(Unavailable):
                        await call
                assert time.monotonic() - began < 60
                await watched.until(lambda: watched.batches[-1].lost)
                for member in cluster.members[:2]:
                    member.start()
                cluster.leader()
                await _put(store, "/b")
                await watched.until(lambda: "/b" in watched.records)
                assert not watched.batches[-1].lost

    asyncio.run(story())


def test_a_restart_of_all_loses_and_doubles_nothing(clusters):
    async def story():
        cluster = clusters()
        [member] = cluster.members
        async with Etcd(cluster.access(), progress=0.5) as store:
            await _put(store, "/a")
            listed = await store.list("/")
            lease = await store.grant(2)
            async with Story(store, "/", listed) as watched, keeping(store, lease) as kept:
                await store.transact([], [Put("/held", b"", lease)])
                await watched.until(lambda: "/held" in watched.records)
                member.kill()
                # As long as the lease has time, it is there; afterwards nobody knows.
                assert await kept.changed(Holding.HELD) == Holding.UNSURE
                assert kept.seconds_left == 0
                assert "connect" in kept.problem
                await watched.until(lambda: watched.batches[-1].lost)
                member.start()
                async with Etcd(cluster.access()) as other:
                    await _put(other, "/b")
                assert await kept.changed(Holding.UNSURE) == Holding.HELD
                await watched.until(lambda: "/b" in watched.records)
                assert [event.key for batch in watched.batches for event in batch.events] == [
                    "/held", "/b"]  # fmt: skip

    asyncio.run(story())


def test_an_answer_that_is_lost_is_told_as_that(clusters):
    async def story():
        cluster = clusters()
        [member] = cluster.members
        async with Etcd(cluster.access()) as store:
            await _put(store, "/a")
            member.stop()
            began = time.monotonic()
            with pytest.raises(Unsure, match="Deadline"):
                await _put(store, "/a", b"unsure", 0.5)
            with pytest.raises(Unavailable) as caught:
                await store.get("/a", seconds=0.5)
            assert not isinstance(caught.value, Unsure)
            assert time.monotonic() - began < 30
            member.go_on()
            assert (await store.get("/a", seconds=20)).value in (b"unsure", b"")
            member.kill()
            with pytest.raises(Unavailable):
                await store.get("/a", seconds=1)
            # From here on it is known that nothing can be sent.
            with pytest.raises(
                Unavailable, match=r"failed to connect|no connection in time"
            ) as caught:
                await _put(store, "/a", b"never", 1)
            assert not isinstance(caught.value, Unsure)

    asyncio.run(story())


def test_a_watch_that_comes_back_behind_a_compaction_says_so(clusters):
    async def story():
        cluster = clusters(3)
        follower = next(one for one in cluster.members if one is not cluster.leader())
        others = [one.endpoint for one in cluster.members if one is not follower]
        async with (
            Etcd(EtcdAccess((follower.endpoint,)), progress=0.5) as store,
            Etcd(EtcdAccess(tuple(others))) as other,
        ):
            await _put(store, "/a")
            listed = await store.list("/")
            async with aclosing(store.watch("/", listed.revision)) as batches:
                await anext(batches)
                follower.kill()
                for number in range(5):
                    await _put(other, "/a", f"{number}".encode())
                revision = (await other.list("/")).revision
                running = [one for one in cluster.members if one is not follower]
                cluster.ctl("compact", str(revision), members=running)
                follower.start()
                with pytest.raises(Compacted, match="history begins at"):
                    await events_of(batches)
            # From a new list on, nothing is missing.
            listed = await store.list("/", seconds=20)
            async with Story(store, "/", listed) as watched:
                await _put(other, "/b")
                await watched.until(lambda: "/b" in watched.records)

    asyncio.run(story())


def test_a_restored_backup_is_another_history(clusters):
    async def story():
        cluster = clusters(3)
        async with Etcd(cluster.access(), progress=0.5) as store:
            await _put(store, "/kept")
            backup = cluster.backup()
            for number in range(3):
                await _put(store, f"/forgotten{number}")
            listed = await store.list("/")
            async with aclosing(store.watch("/", listed.revision)) as batches:
                await anext(batches)
                cluster.restore(backup)
                with pytest.raises(Compacted, match="another history"):
                    await events_of(batches)
            with pytest.raises(Compacted, match="another history"):
                async with aclosing(store.watch("/", listed.revision)) as batches:
                    await anext(batches)
            again = await store.list("/", seconds=20)
            assert [one.key for one in again.records] == ["/kept"]
            async with Story(store, "/", again) as watched:
                await _put(store, "/new")
                await watched.until(lambda: "/new" in watched.records)

    asyncio.run(story())


def test_a_restored_backup_that_was_written_to_is_another_history_too(clusters):
    async def story():
        cluster = clusters()
        [member] = cluster.members
        for _ in range(2):
            # Each election is a new term.
            cluster.leader()
            member.kill()
            member.start()
        async with Etcd(cluster.access()) as store, Etcd(cluster.access()) as other:
            await _put(store, "/kept")
            backup = cluster.backup()
            await _put(store, "/forgotten")
            listed = await store.list("/")
            async with aclosing(store.watch("/", listed.revision)) as batches:
                await anext(batches)
                cluster.restore(backup)
                for number in range(3):
                    await _put(other, f"/new{number}")
                with pytest.raises(Compacted, match="another history"):
                    await events_of(batches)

    asyncio.run(story())


def test_a_full_store_says_so(clusters):
    async def story():
        cluster = clusters(options=["--quota-backend-bytes=8388608"])
        async with Etcd(cluster.access()) as store:
            with pytest.raises(Full, match="space exceeded"):
                await _fill(store)
            assert (await store.get("/0")).version == 1

    asyncio.run(story())


def test_only_with_the_right_certificates(clusters, tmp_path):
    authority, stranger = Authority.made(tmp_path / "ca"), Authority.made(tmp_path / "other")
    certificate, key = authority.sign("member")
    options = [f"--cert-file={certificate}", f"--key-file={key}", "--client-cert-auth",
        f"--trusted-ca-file={authority.ca}"]  # fmt: skip
    cluster = clusters(options=options, secure=True)
    certificate, key = authority.sign("node")
    mine = {"certificate": certificate, "key": key}
    wrong, wrong_key = stranger.sign("node")

    async def story():
        async with Etcd(cluster.access(ca=authority.ca, **mine)) as store:
            await _put(store, "/a", b"secret")
            assert (await store.get("/a")).value == b"secret"
        for options, kind, text in (
            ({"ca": authority.ca}, Unavailable, "localhost:1: "),
            ({"ca": stranger.ca, **mine}, Unavailable, "(?i)certificate"),
            ({"ca": authority.ca, "certificate": wrong, "key": wrong_key}, Unavailable, "local"),
            ({"ca": str(tmp_path / "none"), **mine}, Denied, "none: No such file"),
        ):
            async with Etcd(cluster.access(**options)) as store:
                with pytest.raises(kind, match=text):
                    await store.get("/a", seconds=1)

    asyncio.run(story())


def test_as_a_user_whose_token_ends(clusters):
    cluster = clusters()
    cluster.leader()
    for command in (
        "user add root:secret", "user grant-role root root", "role add node",
        "role grant-permission node --prefix=true readwrite /a/", "user add node:word",
        "user grant-role node node", "auth enable",
    ):  # fmt: skip
        cluster.ctl(*command.split())

    async def story():
        access = cluster.access(user="node", password="word")
        async with Etcd(access, progress=0.5) as store:
            await _put(store, "/a/1")
            listed = await store.list("/a/")
            async with Story(store, "/a/", listed) as watched:
                await watched.until(lambda: watched.batches)
                for call in (store.get("/b"), store.list("/"), _put(store, "/b")):
                    with pytest.raises(Denied, match="permission denied"):
                        await call
                with pytest.raises(Denied):
                    async with aclosing(store.watch("/b", listed.revision)) as batches:
                        await anext(batches)
                # The user's tokens end when the password is set, though it is the same.
                password = ("user", "passwd", "node", "--interactive=false")
                cluster.ctl("--user=root:secret", *password, stdin="word")
                await _put(store, "/a/2")
                await watched.until(lambda: "/a/2" in watched.records)
                lease = await store.grant(20)
                assert await store.renew(lease) == 20
        async with Etcd(cluster.access(user="node", password="wrong")) as store:
            with pytest.raises(Denied, match="invalid user ID or password"):
                await store.get("/a/1")
        async with Etcd(cluster.access()) as store:
            with pytest.raises(Denied, match="user name is empty"):
                await store.get("/a/1")

    asyncio.run(story())


def test_a_user_where_there_are_none(clusters):
    async def story():
        async with Etcd(clusters().access(user="node", password="word")) as store:
            await _put(store, "/a")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoints": ()}, "no endpoint"),
        ({"endpoints": ("127.0.0.1:2379",)}, "127.0.0.1:2379 is no endpoint"),
        ({"endpoints": ("ftp://host:1",)}, "is no endpoint"),
        ({"endpoints": ("http://",)}, "is no endpoint"),
        ({"certificate": "x"}, "needs its key"),
        ({"user": "x"}, "needs a password"),
    ],
)
def test_an_access_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        EtcdAccess(**options)


def test_who_can_read_what_is_said():
    assert not EtcdAccess(("https://10.0.0.1:2379", "http://127.0.0.1:2379")).is_readable
    assert not EtcdAccess(("http://[::1]:2379", "unix:///run/etcd:1")).is_readable
    assert EtcdAccess(("https://10.0.0.1:2379", "http://10.0.0.2:2379")).is_readable
    access = EtcdAccess(user="node", password="word", certificate="a", key="b.key")
    assert "word" not in repr(access)


def test_an_endpoint_that_swallows_everything():
    async def story():
        # Connections are taken by the kernel, and nobody ever answers.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            async with Etcd(EtcdAccess((f"http://127.0.0.1:{port}",))) as store:
                began = time.monotonic()
                with pytest.raises(Unavailable, match="no connection in time"):
                    await store.get("/a", seconds=1)
                assert time.monotonic() - began < 30

    asyncio.run(story())
