"""Claims of subnets: each node gets one, and no two nodes the same."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cni_py.cluster import claiming
from cni_py.cluster.agent_context import apart
from cni_py.cluster.claiming import Claimer, ClaimError, Former, fixed_subnets
from cni_py.cluster.flannel import NodeLease, Subnets, parse_lease
from cni_py.cluster.flannel_network import parse_network
from cni_py.cluster.owner import Owner, encode, owner_of
from cni_py.cluster.records import Records
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import Batch, Event, Put, Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

PREFIX = "/net"
NETWORK = parse_network(
    b'{"Network": "10.1.0.0/16", "SubnetLen": 20, "Backend": {"Type": "host-gw"}}'
)
BOTH = parse_network(
    b'{"Network": "10.1.0.0/16", "EnableIPv6": true, "IPv6Network": "fd01::/48",'
    b' "Backend": {"Type": "host-gw"}}'
)


def said(number: int) -> NodeLease:
    """What node NUMBER announces."""
    return NodeLease(Subnets(), IPv4Address(f"192.0.2.{number}"), None, "host-gw")


def subnets(text: str) -> Subnets:
    return Subnets(IPv4Network(text))


class Nodes:
    """Nodes that claim in one store."""

    def __init__(self, store: Sqlite) -> None:
        self.store = store
        self.notes: list[str] = []

    def claimer(self, number: int, fixed: Subnets | None = None, **more: Any) -> Claimer:
        owner = Owner(f"node{number}", f"host{number}")
        return Claimer(self.store, PREFIX, owner, 60, self.notes.append, fixed, **more)

    async def claim(self, number: int, former: str = "", **more: Any) -> claiming.Claim:
        hint = Former(subnets(former)) if former else Former()
        network = more.pop("network", NETWORK)
        return await self.claimer(number, **more).claim(network, said(number), hint)

    async def put(self, key: str, value: bytes) -> None:
        await self.store.transact((), [Put(f"{PREFIX}/{key}", value)])

    async def keys(self) -> list[str]:
        found = (await self.store.list(f"{PREFIX}/")).records
        return [one.key.removeprefix(f"{PREFIX}/") for one in found]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Nodes], Awaitable[None]]], None]:
    """Run a story with a fresh store."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Nodes]:
        async with Sqlite(str(tmp_path / "store.db")) as store:
            yield Nodes(store)

    def run(story: Callable[[Nodes], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with opened() as nodes:
                await story(nodes)

        asyncio.run(whole())

    return run


def test_many_at_once_get_all_that_there_is_and_no_more(run) -> None:
    async def story(nodes: Nodes) -> None:
        claims = await asyncio.gather(*(nodes.claim(n) for n in range(1, 16)))
        assert len({one.subnets for one in claims}) == 15
        with pytest.raises(ClaimError, match=r"all subnets of 10\.1\.0\.0/16 are leased"):
            await nodes.claim(16)
        assert len(await nodes.keys()) == 15

    run(story)


def test_both_families_are_nobody_elses_each(run) -> None:
    async def story(nodes: Nodes) -> None:
        claims = await asyncio.gather(*(nodes.claim(n, network=BOTH) for n in range(1, 9)))
        assert len({one.subnets.v4 for one in claims}) == 8
        assert len({one.subnets.v6 for one in claims}) == 8

    run(story)


def test_an_overlap_under_another_key_is_given_back(run) -> None:
    # Two that look at the same time do not see each other: a transaction knows only its own key.
    async def story(nodes: Nodes) -> None:
        first = Subnets(IPv4Network("10.1.16.0/20"), IPv6Network("fd01:0:0:1::/64"))
        other = Subnets(IPv4Network("10.1.16.0/20"), IPv6Network("fd01:0:0:2::/64"))
        claimers = [nodes.claimer(1, first), nodes.claimer(2, other)]
        found = await asyncio.gather(
            *(one.claim(BOTH, said(n), Former()) for n, one in enumerate(claimers, 1)),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in found) == ["Claim", "ClaimError"]
        assert len(await nodes.keys()) == 1

    run(story)


def test_a_node_keeps_its_own_and_takes_what_it_had_if_that_is_free(run) -> None:
    async def story(nodes: Nodes) -> None:
        first = await nodes.claim(1)
        again = await nodes.claim(1)
        assert (again.subnets, again.lease != first.lease) == (first.subnets, True)
        # Only the newest lease has the record.
        await nodes.store.revoke(first.lease)
        assert await nodes.keys() == [first.subnets.key]
        await nodes.store.revoke(again.lease)
        assert (await nodes.claim(1, former="10.1.32.0/20")).subnets == subnets("10.1.32.0/20")
        # What another has is not taken, whatever the node had.
        assert (await nodes.claim(2, former="10.1.32.0/20")).subnets != subnets("10.1.32.0/20")

    run(story)


def test_a_node_moves_within_one_transaction(run) -> None:
    async def story(nodes: Nodes) -> None:
        await nodes.claim(1, former="10.1.32.0/20")
        moved = await nodes.claim(1, fixed=subnets("10.1.48.0/20"))
        assert moved.subnets == subnets("10.1.48.0/20")
        assert await nodes.keys() == [moved.subnets.key]
        with pytest.raises(ClaimError, match=r"10\.1\.48\.0/24 is to be this node's, but .*host1"):
            await nodes.claim(2, fixed=subnets("10.1.48.0/24"))
        # Nothing is left of the claim that failed.
        assert await nodes.keys() == [moved.subnets.key]

    run(story)


def test_a_flannel_on_this_host_hands_over_and_others_do_not(run) -> None:
    async def story(nodes: Nodes) -> None:
        for number, place in ((1, 16), (2, 32)):
            lease = NodeLease(subnets(f"10.1.{place}.0/20"), said(number).public_ip, None, "vxlan")
            await nodes.put(lease.subnets.key, lease.encode())
        claim = await nodes.claim(1)
        assert claim.subnets == subnets("10.1.16.0/20")
        assert len(await nodes.keys()) == 2

    run(story)


def test_a_copy_of_a_node_with_another_address_is_another_node(run) -> None:
    async def story(nodes: Nodes) -> None:
        first = await nodes.claim(1)
        copy = await nodes.claimer(1).claim(NETWORK, said(9), Former())
        assert copy.subnets != first.subnets
        # The node itself, whose address has changed, is known by its lease.
        moved = await nodes.claimer(1).claim(NETWORK, said(8), Former(Subnets(), first.lease))
        assert moved.subnets == first.subnets

    run(story)


@pytest.mark.parametrize("alive", [True, False])
def test_a_node_with_this_ones_address_is_asked(run, monkeypatch, alive: bool) -> None:
    monkeypatch.setattr(claiming, "ANSWER_SECONDS", 0.6)

    async def story(nodes: Nodes) -> None:
        first = await nodes.claim(1)
        other = Claimer(nodes.store, PREFIX, Owner("node2", "host2"), 60, nodes.notes.append, None)
        task = asyncio.ensure_future(other.claim(NETWORK, said(1), Former()))
        key = f"{PREFIX}/challenges/node1"
        if not alive:
            assert (await task).subnets == first.subnets
            assert await nodes.keys() == [first.subnets.key]
            return
        async with asyncio.timeout(5):
            while await nodes.store.get(key) is None:
                await asyncio.sleep(0.01)
        await nodes.store.transact((), (), [key])
        with pytest.raises(ClaimError, match=r"host1 \(node1\) has this node's public address"):
            await task
        record = await nodes.store.get(f"{PREFIX}/{first.subnets.key}")
        assert record is not None
        assert owner_of(record.value) == Owner("node1", "host1")

    run(story)


@pytest.mark.parametrize("alive", [True, False])
def test_an_assigned_subnet_is_a_dead_nodes_no_more(run, monkeypatch, alive: bool) -> None:
    """Kubernetes gives a podCIDR again once its node has gone, long before the lease ends."""
    monkeypatch.setattr(claiming, "ANSWER_SECONDS", 0.6)

    async def story(nodes: Nodes) -> None:
        first = await nodes.claim(1, fixed=subnets("10.1.48.0/20"))
        fixed = subnets("10.1.48.0/24")
        task = asyncio.ensure_future(nodes.claim(2, fixed=fixed, is_assigned=True))
        if not alive:
            assert (await task).subnets == fixed
            assert await nodes.keys() == [fixed.key]
            assert "did not answer" in nodes.notes[1]
            return
        key = f"{PREFIX}/challenges/node1"
        async with asyncio.timeout(5):
            while await nodes.store.get(key) is None:
                await asyncio.sleep(0.01)
        await nodes.store.transact((), (), [key])
        wrong = r"host1 \(node1\) has a part of 10\.1\.48\.0/24, which was given .* is alive"
        with pytest.raises(ClaimError, match=wrong):
            await task
        assert await nodes.keys() == [first.subnets.key]

    run(story)


def test_a_network_that_has_changed_gives_another_subnet(run) -> None:
    async def story(nodes: Nodes) -> None:
        first = await nodes.claim(1)
        other = parse_network(b'{"Network": "10.9.0.0/16", "Backend": {"Type": "host-gw"}}')
        moved = await nodes.claim(1, network=other)
        assert str(moved.subnets).startswith("10.9.")
        assert await nodes.keys() == [moved.subnets.key]
        assert first.subnets != moved.subnets

    run(story)


def test_hostile_records_stop_nobody(run) -> None:
    async def story(nodes: Nodes) -> None:
        for value in (b"", b"{", b"[" * 50_000, b'{"PublicIP": 7}', b'{"CniPy": 3}', b"\xff"):
            await nodes.put("subnets/10.1.16.0-20", value)
            await nodes.put("subnets/../../x", value)
            claim = await nodes.claim(1, former="10.1.16.0/20")
            assert claim.subnets != subnets("10.1.16.0/20")
            await nodes.store.revoke(claim.lease)

    run(story)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (("10.1.16.0/20", "10.1.32.0/20"), "two subnets of IPv4"),
        (("10.2.16.0/20",), "no part of"),
        (("10.1.0.0/16",), "no part of"),
        (("fd01::/64",), "no part of"),
        (("10.1.16.1/20",), "host bits set"),
        (("rubbish",), "no subnet"),
    ],
)
def test_a_subnet_that_was_given_is_examined(given: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(ClaimError, match=wrong):
        fixed_subnets(given, NETWORK)


def test_given_subnets_need_not_be_those_that_flannel_would_choose() -> None:
    # As Kubernetes gives them: the first one of the network, and of any length.
    assert fixed_subnets(("10.1.0.0/24",), NETWORK) == subnets("10.1.0.0/24")
    with pytest.raises(ClaimError, match="no subnet of fd01::/48 is given"):
        fixed_subnets(("10.1.0.0/24",), BOTH)
    assert fixed_subnets((), NETWORK) is None


def test_a_value_has_flannels_keys_and_the_owner() -> None:
    owner = Owner("node1", "host1")
    lease = NodeLease(subnets("10.1.16.0/20"), IPv4Address("192.0.2.1"), None, "host-gw")
    value = encode(lease, owner)
    assert parse_lease(lease.subnets.key, value) == lease
    assert owner_of(value) == owner
    assert owner_of(lease.encode()) is None
    assert list(msgspec.json.decode(value)) == ["PublicIP", "PublicIPv6", "BackendType", "CniPy"]


def test_nodes_try_again_apart() -> None:
    pauses = [apart(2.0) for _ in range(50)]
    assert all(1 <= one <= 2 for one in pauses)
    assert len(set(pauses)) > 1


# What the store has, as the agent knows it.


def record(key: str, revision: int = 1) -> Record:
    return Record(key, b"", revision, revision, 1)


def test_what_is_missing_from_a_list_stays_for_a_while() -> None:
    known = Records(grace=60)
    known.listed(Snapshot((record("a"), record("b"), record("c")), 5), now=0)
    known.changed(Batch(6, (Event("c", None, 6),)))
    assert [one.key for one in known.below("", 0)] == ["a", "b"]
    # A store that comes back from a backup has lost `b`; `c` was taken away, and is gone.
    known.listed(Snapshot((record("a"),), 3), now=10)
    assert [one.key for one in known.below("", 11)] == ["a", "b"]
    assert (known.missing(""), known.next_end(11)) == (["b"], 59)
    # What the store has wins against what it has lost.
    assert max(known.below("", 11), key=lambda one: one.created).key == "b"
    known.changed(Batch(4, (Event("b", record("b", 4), 4),)))
    assert known.missing("") == []
    known.listed(Snapshot((), 9), now=20)
    assert [one.key for one in known.below("", 79)] == ["a", "b"]
    assert [one.key for one in known.below("", 81)] == []
    assert (known.next_end(81), known.next_end(81)) == (0, None)


def test_what_has_stirred_is_told_once() -> None:
    known = Records(grace=60)
    known.listed(Snapshot((record("a"), record("b"), record("c")), 5), now=0)
    assert sorted(known.stirred(0)) == [(one, record(one)) for one in "abc"]
    assert known.stirred(0) == []
    known.changed(Batch(6, (Event("c", None, 6), Event("d", record("d", 6), 6))))
    assert sorted(known.stirred(1)) == [("c", None), ("d", record("d", 6))]
    # A list that says what is known is nothing new; what it lacks is missing, and gone later.
    known.listed(Snapshot((record("a"), record("d", 6)), 7), now=10)
    ((key, missing),) = known.stirred(11)
    assert (key, missing and missing.key) == ("b", "b")
    assert (known.stirred(69), known.stirred(71)) == ([], [("b", None)])
