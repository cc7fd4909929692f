"""What every store does: each of these runs against etcd and SQLite."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from cni_py.cluster.keeping import Holding, keeping
from cni_py.cluster.store import (
    MOST_BYTES,
    MOST_STEPS,
    Absent,
    AtRevision,
    AtVersion,
    HasValue,
    Put,
    UnderLease,
)
from cni_py.cluster.store_errors import Compacted, LeaseLost, TooLarge, Unavailable

from .stories import Story, events_of


def test_a_record_has_a_history_in_numbers(subject):
    async def story():
        async with subject.open() as store:
            key = subject.prefix + "a"
            assert await store.get(key) is None
            made = await store.transact([], [Put(key, b"1")])
            changed = await store.transact([], [Put(key, b"2")])
            record = await store.get(key)
            assert (record.key, record.value, record.version, record.lease) == (key, b"2", 2, 0)
            assert (record.created, record.modified) == (made.revision, changed.revision)
            assert changed.revision == made.revision + 1
            gone = await store.transact([], deletes=[key])
            assert gone.revision == changed.revision + 1
            assert await store.get(key) is None
            # What is not there changes nothing by going.
            again = await store.transact([], deletes=[key])
            assert (again.done, again.revision) == (True, gone.revision)
            await store.transact([], [Put(key, b"3")])
            assert (await store.get(key)).version == 1

    subject.run(story)


def test_conditions_decide_about_all_changes(subject):
    async def story():
        async with subject.open() as store:
            there, gone, mark = (subject.prefix + one for one in ("there", "gone", "mark"))
            lease = await store.grant(60)
            await store.transact([], [Put(there, b"1")])
            await store.transact([], [Put(there, b"2", lease)])
            record = await store.get(there)
            holding = [
                Absent(gone), AtRevision(there, record.modified), AtVersion(there, 2),
                HasValue(there, b"2"), UnderLease(there, lease),
            ]  # fmt: skip
            failing = [
                Absent(there), AtRevision(there, record.created), AtVersion(there, 1),
                HasValue(there, b"1"), HasValue(gone, b""), HasValue(there, b""),
                UnderLease(there, 0), UnderLease(gone, 0), UnderLease(there, lease + 1),
            ]  # fmt: skip
            for one in holding:
                assert (await store.transact([one], [Put(mark, b"x")])).done, one
            assert (await store.transact(holding)).done
            before = await store.list(subject.prefix)
            for one in failing:
                outcome = await store.transact([*holding, one], [Put(mark, b"y")], [there])
                assert not outcome.done, one
                assert outcome.found == (record,), one
            assert await store.list(subject.prefix) == before

    subject.run(story)


def test_what_changes_together_has_one_revision(subject):
    async def story():
        async with subject.open() as store:
            keys = [f"{subject.prefix}{number}" for number in range(3)]
            await store.transact([], [Put(keys[0], b"old")])
            puts = [Put(key, b"new") for key in keys[1:]]
            outcome = await store.transact([], puts, [keys[0]])
            listed = await store.list(subject.prefix)
            assert [one.key for one in listed.records] == keys[1:]
            assert {one.modified for one in listed.records} == {outcome.revision}
            assert listed.revision == outcome.revision

    subject.run(story)


def test_a_list_has_what_begins_with_the_prefix_and_no_more(subject):
    async def story():
        async with subject.open() as store:
            prefix = subject.prefix
            inside = ["a", "a/", "a/b", "a~", "a\x7f", "aé", "a\udcff\udcff", "a\udcff"]
            outside = ["b", "A", "`"]
            await store.transact([], [Put(prefix + one, one[:1].encode()) for one in inside])
            await store.transact([], [Put(prefix + one, b"") for one in outside])
            listed = await store.list(prefix + "a")
            keys = [one.key.removeprefix(prefix) for one in listed.records]
            assert keys == sorted(inside, key=lambda one: one.encode("utf-8", "surrogateescape"))
            assert [one.key for one in (await store.list(prefix + "a\udcff")).records] == [
                prefix + "a\udcff", prefix + "a\udcff\udcff"]  # fmt: skip
            assert len((await store.list(prefix)).records) == len(inside) + len(outside)
            assert {one.key for one in listed.records} <= {
                one.key for one in (await store.list("")).records}  # fmt: skip

    subject.run(story)


def test_a_list_of_thousands(subject):
    async def story():
        async with subject.open() as store:
            keys = [f"{subject.prefix}{number:04}" for number in range(2_100)]
            for first in range(0, len(keys), MOST_STEPS):
                puts = [Put(key, b"x") for key in keys[first : first + MOST_STEPS]]
                await store.transact([], puts)
            listed = await store.list(subject.prefix)
            assert [one.key for one in listed.records] == keys

    subject.run(story)


def test_of_many_that_claim_a_key_one_gets_it(subject):
    async def story():
        async with subject.open() as first, subject.open() as second:
            key = subject.prefix + "claim"
            claims = [
                store.transact([Absent(key)], [Put(key, f"{number}".encode())], seconds=30)
                for number, store in enumerate([first, second] * 10)
            ]
            outcomes = await asyncio.gather(*claims)
            won = [number for number, outcome in enumerate(outcomes) if outcome.done]
            assert len(won) == 1
            record = await first.get(key)
            assert record.value == f"{won[0]}".encode()
            assert {one.found for one in outcomes if not one.done} == {(record,)}

    subject.run(story)


def test_clients_that_count_together(subject):
    async def count(store, key):
        for _ in range(10):
            while True:
                record = await store.get(key)
                condition = AtRevision(key, record.modified) if record else Absent(key)
                number = int(record.value) if record else 0
                put = Put(key, f"{number + 1}".encode())
                if (await store.transact([condition], [put], seconds=30)).done:
                    break

    async def story():
        key = subject.prefix + "count"
        async with subject.open() as one, subject.open() as two, subject.open() as three:
            await asyncio.gather(*(count(store, key) for store in (one, two, three)))
            record = await one.get(key)
            assert (record.value, record.version) == (b"30", 30)

    subject.run(story)


def test_nothing_above_the_limits_is_sent(subject):
    async def story():
        async with subject.open() as store:
            key = subject.prefix + "large"
            largest = b"x" * (MOST_BYTES - len(key))
            assert (await store.transact([], [Put(key, largest)])).done
            assert (await store.get(key)).value == largest
            with pytest.raises(TooLarge, match="bytes at once"):
                await store.transact([], [Put(key, largest + b"x")])
            many = [Put(f"{key}{number}", b"") for number in range(MOST_STEPS + 1)]
            assert (await store.transact([], many[1:])).done
            with pytest.raises(TooLarge, match="changes at once"):
                await store.transact([], many)
            for puts, deletes in (
                ([Put(key, b""), Put(key, b"")], []),
                ([Put(key, b"")], [key]),
                ([Put("", b"")], []),
                ([Put(key, b"", 1), Put(key + "2", b"", 2)], []),
            ):
                with pytest.raises(ValueError, match=r"twice|several"):
                    await store.transact([], puts, deletes)

    subject.run(story)


def test_a_lease_takes_its_keys_with_it(subject):
    async def story():
        async with subject.open() as store, subject.open() as other:
            listed = await store.list(subject.prefix)
            lease = await store.grant(60)
            assert 50 < await other.time_left(lease) <= 60
            assert await other.renew(lease) == 60
            one, two, three = (f"{subject.prefix}{number}" for number in range(3))
            await store.transact([], [Put(key, b"x", lease) for key in (one, two, three)])
            # A put without the lease has nothing to do with it any more.
            await store.transact([], [Put(three, b"y")])
            await other.revoke(lease)
            await other.revoke(lease)
            assert [record.key for record in (await store.list(subject.prefix)).records] == [three]
            for call in (store.renew(lease), store.time_left(lease)):
                with pytest.raises(LeaseLost, match=f"{lease:x}"):
                    await call
            with pytest.raises(LeaseLost):
                await store.transact([], [Put(one, b"x", lease)])
            async with Story(store, subject.prefix, listed) as watched:
                await watched.until(lambda: set(watched.records) == {three})
                last = watched.batches[-1].events
                assert {(event.key, event.record) for event in last} >= {(one, None), (two, None)}
                assert len({event.revision for event in last if event.record is None}) == 1

    subject.run(story)


def test_a_lease_that_nobody_renews_ends_by_itself(subject):
    async def story():
        async with subject.open() as store, subject.open() as other:
            listed = await store.list(subject.prefix)
            ended, kept = [await store.grant(subject.shortest_lease) for _ in range(2)]
            async with (
                keeping(store, kept) as keeper,
                Story(other, subject.prefix, listed) as watched,
            ):
                await store.transact([], [Put(subject.prefix + "ended", b"", ended)])
                await store.transact([], [Put(subject.prefix + "kept", b"", kept)])
                await watched.until(lambda: len(watched.records) == 2)
                await watched.until(lambda: len(watched.records) == 1)
                assert list(watched.records) == [subject.prefix + "kept"]
                with pytest.raises(LeaseLost):
                    await store.renew(ended)
                assert keeper.holding == Holding.HELD
                assert 0 < keeper.seconds_left <= subject.shortest_lease
                await other.revoke(kept)
                assert await keeper.changed(Holding.HELD) == Holding.LOST
                assert keeper.seconds_left == 0
                assert "no lease" in keeper.problem

    subject.run(story)


def test_keys_are_listed_without_values(subject):
    async def story():
        async with subject.open() as store:
            for name in ("a", "b"):
                await store.transact([], [Put(subject.prefix + name, b"value")])
            whole = await store.list(subject.prefix)
            keys = await store.list_keys(subject.prefix)
            assert [one.value for one in whole.records] == [b"value", b"value"]
            assert keys.records == tuple(replace(one, value=b"") for one in whole.records)
            assert keys.revision == whole.revision

    subject.run(story)


def test_a_lease_that_is_kept_is_renewed_once_at_first(subject, monkeypatch):
    async def story():
        async with subject.open() as store:
            renewed = []
            renew = store.renew

            async def counted(lease, **options):
                renewed.append(lease)
                return await renew(lease, **options)

            monkeypatch.setattr(store, "renew", counted)
            lease = await store.grant(3600)
            async with keeping(store, lease) as kept:
                assert kept.holding == Holding.HELD
                # Whatever its task does at once, it has done.
                await store.time_left(lease)
            assert renewed == [lease]

    subject.run(story)


def test_a_lease_that_never_was_cannot_be_kept(subject):
    async def story():
        async with subject.open() as store:
            with pytest.raises(LeaseLost):
                async with keeping(store, 12345):
                    raise AssertionError

    subject.run(story)


def test_a_watch_tells_every_change_once_and_in_order(subject):
    async def story():
        async with subject.open() as store, subject.open() as other:
            listed = await store.list(subject.prefix)
            async with (
                Story(store, subject.prefix, listed) as early,
                Story(other, subject.prefix, listed) as too,
            ):
                await early.until(lambda: early.batches)
                for number in range(50):
                    puts = [Put(f"{subject.prefix}{number % 7}", f"{number}".encode())]
                    gone = [f"{subject.prefix}{(number + 3) % 7}"]
                    client = (store, other)[number % 2]
                    await client.transact([], [*puts, Put(subject.prefix + "n", b"")], gone)
                    await client.transact([], [Put(f"{subject.prefix[:-1]}-other", b"")])
                truth = await store.list(subject.prefix)
                async with Story(store, subject.prefix, listed) as late:
                    for watched in (early, too, late):
                        await watched.reaches(truth.records[-1].modified)
                        assert tuple(watched.sorted()) == truth.records
                        told = [
                            (event.revision, event.key)
                            for batch in watched.batches for event in batch.events
                        ]  # fmt: skip
                        assert len(told) == len(set(told))
                        assert [revision for revision, _ in told] == sorted(
                            revision for revision, _ in told)  # fmt: skip
                        assert all(key.startswith(subject.prefix) for _, key in told)
                        assert not any(watched.torn())

    subject.run(story)


def test_a_large_revision_comes_whole(subject):
    async def story():
        async with subject.open() as store:
            listed = await store.list(subject.prefix)
            # etcd divides its answer within a revision: its pieces are of 2 MiB.
            value = b"x" * (MOST_BYTES // MOST_STEPS - 600)
            for _ in range(6):
                puts = [Put(f"{subject.prefix}{number}", value) for number in range(MOST_STEPS)]
                last = await store.transact([], puts)
            async with Story(store, subject.prefix, listed) as watched:
                await watched.reaches(last.revision)
                assert sum(len(batch.events) for batch in watched.batches) == 6 * MOST_STEPS
                assert not any(watched.torn())

    subject.run(story)


def test_a_watch_goes_on_where_another_ended(subject):
    async def story():
        async with subject.open() as store:
            listed = await store.list(subject.prefix)
            after = listed.revision
            told = []
            for number in range(5):
                await store.transact([], [Put(subject.prefix + "a", f"{number}".encode())])
                async with aclosing(store.watch(subject.prefix, after)) as batches:
                    async for batch in batches:
                        told += [event.record.value for event in batch.events]
                        after = batch.revision
                        if batch.events:
                            break
            assert told == [b"0", b"1", b"2", b"3", b"4"]

    subject.run(story)


def test_a_watch_says_that_its_past_is_gone(subject):
    async def story():
        async with subject.open() as store:
            old = await store.list(subject.prefix)
            for number in range(5):
                await store.transact([], [Put(subject.prefix + "a", f"{number}".encode())])
            new = await store.list(subject.prefix)
            await subject.compact(new.revision)
            async with aclosing(store.watch(subject.prefix, old.revision)) as batches:
                with pytest.raises(Compacted, match="history begins at") as caught:
                    await events_of(batches)
                assert caught.value.after == old.revision
            async with Story(store, subject.prefix, new) as watched:
                await store.transact([], [Put(subject.prefix + "b", b"")])
                await watched.until(lambda: len(watched.records) == 2)

    subject.run(story)


def test_a_watch_of_a_history_that_never_was(subject):
    async def story():
        async with subject.open() as store:
            snapshot = await store.list(subject.prefix)
            async with aclosing(store.watch(subject.prefix, snapshot.revision + 100)) as batches:
                with pytest.raises(Compacted, match="another history"):
                    await anext(batches)

    subject.run(story)


def test_a_watch_says_that_there_is_nothing(subject):
    async def story():
        async with subject.open(progress=0.2) as store:
            snapshot = await store.list(subject.prefix)
            async with aclosing(store.watch(subject.prefix, snapshot.revision)) as batches:
                for _ in range(4):
                    batch = await asyncio.wait_for(anext(batches), 20)
                    assert (batch.events, batch.lost) == ((), "")
                    assert batch.revision >= snapshot.revision

    subject.run(story)


def test_closing_ends_what_runs(subject):
    async def story():
        async with subject.open() as store:
            snapshot = await store.list(subject.prefix)
            batches = store.watch(subject.prefix, snapshot.revision)
            await anext(batches)
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            await store.close()
            with pytest.raises(Unavailable, match="closed"):
                await waiting
            with pytest.raises(Unavailable, match="closed"):
                await store.get(subject.prefix)
            await store.close()

    subject.run(story)


def test_what_is_cancelled_leaves_nothing(subject):
    async def story():
        async with subject.open() as store:
            snapshot = await store.list(subject.prefix)

            async def watch():
                async with aclosing(store.watch(subject.prefix, snapshot.revision)) as batches:
                    async for _ in batches:
                        began.set()

            began = asyncio.Event()
            task = asyncio.create_task(watch())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            began_at = time.monotonic()
            assert (await store.list(subject.prefix)).records == ()
            assert time.monotonic() - began_at < 30

    subject.run(story)
