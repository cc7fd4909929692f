"""A store in a file: other processes, reboots, backups, and what else happens to files."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import aclosing, closing

import pytest

from cni_py.cluster import sqlite_tables
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import Absent, Put
from cni_py.cluster.store_errors import Compacted, Denied, LeaseLost, StoreError, Unavailable

from .stories import Story, events_of

_PYTHON = (sys.executable, "-P", "-c")
# Counts up as fast as it can, until it is killed; says so at the first time.
_WRITER = """
import asyncio, sys
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import Put
async def main():
    async with Sqlite(sys.argv[1]) as store:
        number = 0
        while True:
            number += 1
            value = f"{number}".encode()
            await store.transact([], [Put("/a", value), Put("/b", value)])
            if number == 1:
                print("begun", flush=True)
asyncio.run(main())
"""

_COUNTER = """
import asyncio, sys
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import HasValue, Put
async def main():
    async with Sqlite(sys.argv[1]) as store:
        for _ in range(200):
            done = False
            while not done:
                value = (await store.get("/count")).value
                put = Put("/count", f"{int(value) + 1}".encode())
                done = (await store.transact([HasValue("/count", value)], [put], seconds=60)).done
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "state" / "store.db")


def test_the_file_is_its_owners(path):
    async def story():
        os.umask(0)
        async with Sqlite(path) as store:
            await store.transact([], [Put("/a", b"1")])
            folder = os.path.dirname(path)
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            assert sorted(os.listdir(folder)) == ["store.db", "store.db-shm", "store.db-wal"]
            for name in os.listdir(folder):
                assert stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) == 0o600

    before = os.umask(0)
    try:
        asyncio.run(story())
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda path: os.chmod(os.path.dirname(path), 0o777), Denied, "can be written by others"),
        (lambda path: os.chmod(path, 0o644), Denied, "its mode is not 0600"),
        (lambda path: (os.rename(path, path + "2"), os.symlink(path + "2", path)),
            Unavailable, "Too many levels of symbolic links"),
        (lambda path: (os.unlink(path), os.mkdir(path)), Unavailable, "Is a directory"),
        (lambda path: (os.unlink(path), os.mkfifo(path, 0o600)), Denied, "is no file"),
        (lambda path: _overwrite(path, b"x" * 5000), Unavailable, "file is not a database"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_the_store(path, spoil, kind, message):
    async def story():
        async with Sqlite(path) as store:
            await store.transact([], [Put("/a", b"1")])
        spoil(path)
        async with Sqlite(path) as store:
            with pytest.raises(kind, match=message) as caught:
                await store.get("/a")
            assert path in str(caught.value) or os.path.dirname(path) in str(caught.value)

    asyncio.run(story())


def _overwrite(path: str, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(data)


def test_a_process_that_is_killed_leaves_whole_transactions(path):
    async def story():
        async with Sqlite(path) as store:
            listed = await store.list("/")
            async with Story(store, "/", listed) as watched:
                for _ in range(3):
                    writer = subprocess.Popen([*_PYTHON, _WRITER, path], stdout=subprocess.PIPE)
                    try:
                        assert writer.stdout is not None
                        assert writer.stdout.readline() == b"begun\n"
                        goal = watched.revision + 20
                        await watched.until(lambda goal=goal: watched.revision > goal)
                    finally:
                        writer.send_signal(signal.SIGKILL)
                        writer.communicate()
                truth = await store.list("/")
                assert len({(one.value, one.modified) for one in truth.records}) == 1
                await watched.reaches(truth.revision)
                assert tuple(watched.sorted()) == truth.records
                assert not any(watched.torn())

    asyncio.run(story())


def test_processes_that_count_together(path):
    async def story():
        async with Sqlite(path) as store:
            await store.transact([], [Put("/count", b"0")])
            counters = [
                subprocess.Popen(
                    [sys.executable, "-P", "-c", _COUNTER, path], stderr=subprocess.PIPE
                )
                for _ in range(3)
            ]
            for one in counters:
                _, said = one.communicate(timeout=100)
                assert (one.returncode, said) == (0, b"")
            assert (await store.get("/count")).value == b"600"

    asyncio.run(story())


def test_a_reboot_ends_every_lease(path):
    async def story():
        async with Sqlite(path) as store:
            lease = await store.grant(3600)
            await store.transact([], [Put("/leased", b"", lease), Put("/kept", b"")])
        # As the file says it after a reboot.
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE leases SET boot = 'another'")
        async with Sqlite(path) as store:
            assert [one.key for one in (await store.list("/")).records] == ["/kept"]
            with pytest.raises(LeaseLost):
                await store.renew(lease)
            assert (await store.transact([Absent("/leased")])).done

    asyncio.run(story())


def test_who_holds_the_lock_too_long(path):
    async def story():
        async with Sqlite(path) as store:
            await store.transact([], [Put("/a", b"1")])
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(Unavailable, match="locked"):
                    await store.transact([], [Put("/a", b"2")], seconds=0.2)
                # Readers do not wait for writers.
                assert (await store.get("/a", seconds=0.2)).value == b"1"
            assert (await store.transact([], [Put("/a", b"3")])).done

    asyncio.run(story())


def test_another_file_at_the_path_is_another_history(path):
    async def story():
        async with Sqlite(path) as store:
            await store.transact([], [Put("/kept", b"")])
        shutil.copy(path, path + ".backup")
        async with Sqlite(path) as store:
            await store.transact([], [Put("/forgotten", b"")])
            listed = await store.list("/")
            async with aclosing(store.watch("/", listed.revision)) as batches:
                await anext(batches)
                os.rename(path + ".backup", path)
                for name in ("-wal", "-shm"):
                    os.unlink(path + name)
                async with Sqlite(path) as other:
                    for _ in range(3):
                        await other.transact([], [Put("/kept", b"")])
                with pytest.raises(Compacted, match="another file"):
                    await events_of(batches)
            again = await store.list("/")
            assert [one.key for one in again.records] == ["/kept"]
            async with Story(store, "/", again) as watched:
                await store.transact([], [Put("/new", b"")])
                await watched.until(lambda: "/new" in watched.records)

    asyncio.run(story())


def test_old_changes_are_forgotten_by_and_by(path, monkeypatch):
    monkeypatch.setattr(sqlite_tables, "_KEPT", 50)

    async def story():
        async with Sqlite(path) as store:
            old = (await store.list("/")).revision
            for number in range(160):
                await store.transact([], [Put("/a", f"{number}".encode())])
            async with aclosing(store.watch("/", old)) as batches:
                with pytest.raises(Compacted):
                    await anext(batches)
            new = (await store.list("/")).revision
            async with aclosing(store.watch("/", new - 50)) as batches:
                assert len((await anext(batches)).events) == 50
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT count(*) FROM changes").fetchone()[0] <= 101

    asyncio.run(story())


def test_a_folder_that_cannot_be_made(tmp_path):
    async def story():
        (tmp_path / "file").write_text("")
        async with Sqlite(str(tmp_path / "file" / "store.db")) as store:
            with pytest.raises(StoreError, match=r"Not a directory|File exists"):
                await store.get("/a")

    asyncio.run(story())
