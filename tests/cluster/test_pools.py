"""Many nodes on one pool: whatever they do, no two of them have the same address.

The nodes are keepers of one SQLite store, and in one test of an etcd. A node here gives out
addresses as the plugin does: out of the file that its keeper has written, as long as that says that
they are its own. The leases' time is the test's: a lease ends when the test says that so many
seconds have passed.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_py.cluster import pool_file
from cni_py.cluster.etcd import Etcd
from cni_py.cluster.pool_keeper import PoolKeeper
from cni_py.cluster.pools import PREFIX, Block, Part, PoolError, encode, pool_of
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import DEADLINE, Put, Record, Store
from cni_py.cluster.store_errors import LeaseLost, StoreError
from cni_py.kernel import boot_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cni_py.cluster.etcd_access import EtcdAccess
    from fixtures.etcd import EtcdCluster

TTL, GRACE = 100, 1000
CONFIG = {"network": "10.1.0.0/26", "gateway": "10.1.0.1", "blockLength": 29, "grace": GRACE}


class Ageing(Sqlite):
    """A store whose leases end when the test lets time pass."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.now = 0.0
        self.ends: dict[int, float] = {}

    async def grant(self, ttl: int, *, seconds: float = DEADLINE) -> int:
        lease = await super().grant(1_000_000, seconds=seconds)
        self.ends[lease] = self.now + ttl
        return lease

    async def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        for lease in [one for one, end in self.ends.items() if end <= self.now]:
            del self.ends[lease]
            await self.revoke(lease)


@dataclass
class Node:
    """A node: a keeper, and the containers that have addresses. `away` is cut off, not dead."""

    store: Ageing | Living
    name: str
    folder: Path
    lease: int = 0
    held_until: float = 0.0
    away: bool = False
    renewed: float = 0.0
    keeper: PoolKeeper | None = None
    given: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.addresses = self.folder / "addresses"
        self.addresses.mkdir(parents=True)
        (self.folder / "lan.user").write_text(
            json.dumps({"network": "net1", "folder": str(self.addresses)})
        )

    async def turn(self) -> None:
        """What its agent does: keep the lease, then the pool."""
        if self.away:
            return
        if self.lease not in self.store.ends:
            self.lease = await self.store.grant(TTL)
        self.store.ends[self.lease] = self.store.now + TTL
        self.renewed, self.held_until = self.store.now, self.store.now + TTL
        if self.keeper is None:
            self.keeper = PoolKeeper(
                self.store,
                "lan",
                self.name,
                lambda: self.lease,
                lambda: self.held_until,
                str(self.folder),
            )
        await self.keeper.turn()

    def add(self) -> str | None:
        """Give out an address, as the plugin does."""
        told = pool_file.read("lan", str(self.folder))
        if told is None or told.held_until <= self.store.now:
            return None
        for first, last in told.runs:
            for one in range(first, last + 1):
                address = str(ip_address(one))
                if address != told.gateway and not (self.addresses / address).exists():
                    (self.addresses / address).touch()
                    self.given.append(address)
                    return address
        return None

    def remove(self, address: str) -> None:
        """A container goes."""
        self.given.remove(address)
        (self.addresses / address).unlink()

    def die(self) -> None:
        """The machine is switched off: its containers are gone, and its files in /run."""
        for one in list(self.given):
            self.remove(one)
        self.keeper, self.away, self.lease = None, True, 0
        (self.folder / "lan.json").unlink(missing_ok=True)

    @property
    def is_late(self) -> bool:
        """Cut off for longer than anybody has to wait for it."""
        return self.store.now >= self.renewed + TTL + GRACE


async def begun(path: Path, number: int, **keys: Any) -> tuple[Ageing, list[Node]]:
    store = Ageing(str(path / "store"))
    value = json.dumps(CONFIG | keys).encode()
    await store.transact([], [Put(f"{PREFIX}/lan/config", value)])
    return store, [Node(store, f"n{one}", path / f"n{one}") for one in range(number)]


def require_unique(nodes: list[Node]) -> None:
    """No address is a container's on two nodes, and nobody has the gateway's."""
    every = [one for node in nodes for one in node.given]
    assert len(every) == len(set(every)), {node.name: node.given for node in nodes}
    assert not {"10.1.0.0", "10.1.0.1"} & set(every)


OPERATIONS = ("turn", "turn", "turn", "add", "add", "add", "remove", "away", "back", "die", "time")


async def story(  # noqa: C901 - one branch an operation
    path: Path, steps: list[tuple[str, int, int]], number: int = 4
) -> None:
    # Fewer blocks than they want: they meet.
    store, nodes = await begun(path, number, network="10.1.0.0/27")
    async with store:
        for operation, index, choice in steps:
            node = nodes[index % number]
            if operation == "turn":
                # Some at once: their transactions meet.
                several = nodes if choice % 2 else [node]
                done = await asyncio.gather(
                    *(one.turn() for one in several), return_exceptions=True
                )
                for one in done:
                    assert one is None or isinstance(one, StoreError), one
            elif operation == "add":
                for _ in range(1 + choice % 5):
                    node.add()
            elif operation == "remove" and node.given:
                node.remove(node.given[choice % len(node.given)])
            elif operation == "away":
                node.away = True
            elif operation == "back":
                node.away = False
            elif operation == "die":
                node.die()
            elif operation == "time":
                await store.pass_by((10, TTL / 2, TTL, GRACE / 2, GRACE)[choice % 5])
                for one in nodes:
                    if one.is_late:
                        # An operator has to stop what was cut off for so long.
                        for address in list(one.given):
                            one.remove(address)
            require_unique(nodes)


@given(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3), st.integers(0, 29)),
        min_size=20,
        max_size=60,
    )
)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_never_one_address_at_two_nodes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    asyncio.run(story(tmp_path_factory.mktemp("pool"), steps))


def test_a_long_story(tmp_path: Path) -> None:
    """One of many steps, always the same."""
    random_steps = random.Random(7)
    steps = [
        (random_steps.choice(OPERATIONS), random_steps.randrange(4), random_steps.randrange(30))
        for _ in range(250)
    ]
    asyncio.run(story(tmp_path, steps))


def test_claims_ahead_and_gives_back(tmp_path: Path) -> None:
    async def told() -> None:
        store, (node,) = await begun(tmp_path, 1)
        async with store:
            await node.turn()
            assert len(blocks(node)) == 1
            while node.add():
                await node.turn()
            # All but the network's own address, the gateway's and the last.
            assert len(node.given) == 61
            for one in list(node.given):
                node.remove(one)
            for _ in range(10):
                await node.turn()
            assert sum(net.num_addresses for net in blocks(node)) <= 16

    asyncio.run(told())


def test_lends_when_all_blocks_are_taken(tmp_path: Path) -> None:
    """A node that comes when every block is some node's gets a part, and gives it back."""

    async def told() -> None:
        store, nodes = await begun(tmp_path, 9)
        async with store:
            for one in nodes:
                await one.turn()
            late = nodes[8]
            assert blocks(late) == []
            assert pool_file.read("lan", str(late.folder)).is_full  # type: ignore[union-attr]
            for one in nodes[:8]:
                await one.turn()
            await late.turn()
            assert [net.num_addresses for net in blocks(late)] == [4]
            assert late.add() is not None
            require_unique(nodes)

    asyncio.run(told())


def test_blocks_of_the_dead(tmp_path: Path) -> None:
    """They are taken once the lease has ended and the grace time has passed, and not before."""

    async def told() -> None:
        store, (one, other) = await begun(tmp_path, 2)
        async with store:
            await one.turn()
            before = blocks(one)
            one.away = True
            for seconds in (TTL, GRACE - 1):
                await store.pass_by(seconds)
                await other.turn()
                assert await owners(store) == {"n0", "n1"}
            await store.pass_by(1)
            await other.turn()
            assert await owners(store) == {"n1"}
            one.away = False
            assert one.add() is None
            await one.turn()
            assert blocks(one) == before

    asyncio.run(told())


def test_one_that_returns_in_time_keeps_its_blocks(tmp_path: Path) -> None:
    async def told() -> None:
        store, (one, other) = await begun(tmp_path, 2)
        async with store:
            await one.turn()
            before = blocks(one)
            await store.pass_by(TTL)
            await other.turn()
            await store.pass_by(GRACE - 1)
            await one.turn()
            await store.pass_by(TTL - 1)
            await other.turn()
            await one.turn()
            assert blocks(one) == before

    asyncio.run(told())


def test_what_the_store_forgot_is_claimed_again(tmp_path: Path) -> None:
    """A backup was restored from before the node had its block, which containers use."""

    async def told() -> None:
        store, (one, other) = await begun(tmp_path, 2)
        async with store:
            await one.turn()
            address = one.add()
            assert address is not None
            found = await store.list(f"{PREFIX}/lan/blocks/")
            await store.transact([], [], [record.key for record in found.records])
            await one.turn()
            await other.turn()
            assert any(ip_address(address) in net for net in blocks(one))
            assert not any(ip_address(address) in net for net in blocks(other))

    asyncio.run(told())


def test_a_lease_that_was_lost_claims_nothing(tmp_path: Path) -> None:
    async def told() -> None:
        store, (one, other) = await begun(tmp_path, 2)
        async with store:
            await other.turn()
            one.lease = await store.grant(TTL)
            keeper = PoolKeeper(
                store, "lan", "n0", lambda: one.lease, lambda: 1e12, str(one.folder)
            )
            await store.revoke(one.lease)
            with pytest.raises(LeaseLost):
                await keeper.turn()
            assert await owners(store) == {"n1"}
            assert one.add() is None

    asyncio.run(told())


def test_a_claim_that_comes_too_late(tmp_path: Path) -> None:
    """What was free when a node looked is another's by now."""

    async def told() -> None:
        store, (one, other) = await begun(tmp_path, 2, network="10.1.0.0/29")
        async with store:
            await one.turn()
            await other.turn()
            assert other.keeper is not None
            pool = pool_of((await store.list(f"{PREFIX}/lan/")).records, f"{PREFIX}/lan/")
            await other.keeper._claim(replace(pool, blocks={}))
            assert await owners(store) == {"n0"}

    asyncio.run(told())


def test_it_goes_on_by_itself(tmp_path: Path) -> None:
    """`run` claims as addresses go, and ends when it is cancelled."""

    async def told() -> None:
        store, (node,) = await begun(tmp_path, 1)
        async with store:
            node.lease, node.held_until = await store.grant(TTL), 1e12
            keeper = PoolKeeper(
                store, "lan", "n0", lambda: node.lease, lambda: 1e12, str(node.folder)
            )
            running = asyncio.create_task(keeper.run())
            async with asyncio.timeout(10):
                while len(node.given) < 12:
                    if node.add() is None:
                        await asyncio.sleep(0.05)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    asyncio.run(told())


@pytest.mark.parametrize(
    "config",
    [
        {"network": "10.1.0.0/26", "blockLength": 25},
        {"network": "10.1.0.0/26", "blockLength": 31},
        {"network": "10.1.0.0/8", "blockLength": 28},
        {"network": "10.1.0.1/24"},
        {"network": "10.1.0.0/24", "gateway": "10.2.0.1"},
        {"network": "10.1.0.0/24", "grace": 0},
        {"network": "10.1.0.0/24", "unknown": 1},
        [],
    ],
)
def test_a_configuration_without_sense(config: Any) -> None:
    record = Record(f"{PREFIX}/lan/config", json.dumps(config).encode(), 1, 1, 1)
    with pytest.raises(PoolError):
        pool_of([record], f"{PREFIX}/lan/")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("10.1.0.0-28", b'{"parts": []}'),
        ("10.9.0.0-29", b'{"parts": []}'),
        ("10.1.0.0-29", b"x"),
        ("10.1.0.0-29", b'{"parts": [{"prefix": "10.1.0.8/29", "node": "a"}]}'),
        ("10.1.0.0-29", encode((Part("10.1.0.0/30", "a"), Part("10.1.0.0/29", "b")))),
        ("10.1.0.0-29", b'{"parts": [{"prefix": "10.1.0.0/29", "node": ""}]}'),
        ("10.1.0.0-29", b'{"x": ' + b"[" * 100_000),
    ],
)
def test_a_block_without_sense_is_left_alone(key: str, value: bytes) -> None:
    records = [
        Record(f"{PREFIX}/lan/config", json.dumps(CONFIG).encode(), 1, 1, 1),
        Record(f"{PREFIX}/lan/blocks/{key}", value, 2, 2, 1),
    ]
    pool = pool_of(records, f"{PREFIX}/lan/")
    assert len(pool.refused) == 1
    assert pool.owners() == {""}
    if key == "10.1.0.0-29":
        taken = {str(net) for net in [pool.claimable(f"n{one}")[1] for one in range(50)]}  # type: ignore[index]
        assert "10.1.0.0/29" not in taken


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from("abc")), max_size=8))
def test_parts_of_a_block(taken: list[tuple[int, str]]) -> None:
    """What nobody has, and what the nodes have, are the block, without an overlap."""
    block = Block(ip_network("10.1.0.0/29"))
    for number, node in taken:
        net = ip_network(f"10.1.0.{number}/32")
        if any(net.subnet_of(one) for one in block.free()):  # type: ignore[arg-type]
            block = Block(block.net, block.taking(net, node))
    nets = [*block.free(), *(one.net for one in block.parts)]
    assert sorted(int(one) for net in nets for one in net) == sorted(map(int, block.net))


def blocks(node: Node) -> list[Any]:
    told = pool_file.read("lan", str(node.folder))
    return [] if told is None else [ip_network(one) for one in told.blocks]


async def owners(store: Store) -> set[str]:
    found = await store.list(f"{PREFIX}/lan/")
    return pool_of(found.records, f"{PREFIX}/lan/").owners()


class Living(Etcd):
    """An etcd; its leases end when the test revokes them."""

    def __init__(self, access: EtcdAccess) -> None:
        super().__init__(access)
        self.ends: dict[int, float] = {}

    @property
    def now(self) -> float:
        return boot_clock.now()

    async def grant(self, ttl: int, *, seconds: float = DEADLINE) -> int:
        lease = await super().grant(ttl, seconds=seconds)
        self.ends[lease] = self.now + ttl
        return lease


def test_on_a_real_etcd(shared_etcd: EtcdCluster, tmp_path: Path) -> None:
    """A client each, at once: they meet in transactions, and the grace time is etcd's."""

    async def together(nodes: list[Node], ready: Callable[[], Awaitable[bool]]) -> None:
        """Turns of all at once, until it is so; each time some more addresses are given out."""
        async with asyncio.timeout(60):
            while not await ready():
                await asyncio.gather(*(one.turn() for one in nodes))
                for one in nodes:
                    one.add()
                require_unique(nodes)

    async def told() -> None:
        async with AsyncExitStack() as stack:
            clients = [Living(shared_etcd.access()) for _ in range(4)]
            for one in clients:
                await stack.enter_async_context(one)
            nodes = [Node(one, f"n{n}", tmp_path / f"n{n}") for n, one in enumerate(clients)]
            store = clients[0]
            config = json.dumps(CONFIG | {"network": "10.1.0.0/27", "grace": 2}).encode()
            await store.transact([], [Put(f"{PREFIX}/lan/config", config)])

            async def all_given() -> bool:
                # All but the network's own address, the gateway's and the last.
                return sum(len(one.given) for one in nodes) == 29

            await together(nodes, all_given)
            dead, *others = nodes
            assert dead.given
            await store.revoke(dead.lease)
            dead.die()

            async def taken_over() -> bool:
                return "n0" not in await owners(store)

            await together(others, taken_over)
            await together(others, all_given)
            # Back, it begins without anything.
            dead.away = False
            await dead.turn()
            assert dead.add() is None

    asyncio.run(told())
