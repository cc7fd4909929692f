"""A node's part in a pool: it claims blocks ahead, gives back, lends, and takes over from the dead.

There is no lock over nodes and no leader: each change is one transaction of the store, and a node
that comes too late looks again. A node's blocks outlive its lease by the pool's grace time, which
the store itself counts: whoever notices that a node is missing puts a key under a lease of that
length, and only once that is gone may its blocks be taken. A node that comes back takes both keys
away in the transaction that says that it lives.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, contextmanager, suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from cni_py.kernel import state_files
from cni_py.kernel.lock import try_lock

from . import pool_file
from .pool_file import PoolFile
from .pools import (
    LEAST_BITS,
    PREFIX,
    Block,
    Net,
    Pool,
    PoolError,
    encode,
    is_within,
    pool_of,
    without,
)
from .store import Absent, AtRevision, Put, UnderLease
from .store_errors import Compacted, LeaseLost, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .store import Condition, Store

# Transactions of one turn: somebody else may always be faster.
_ATTEMPTS = 16
# Seconds between two looks at how many addresses are left, and between two at the store.
_LOOK = 1.0
_LIST = 30.0


class PoolKeeper:
    """Keeps one pool's blocks of one node. `turn` does what there is to do; `run` goes on.

    `lease` is the node's lease in the store, and `held_until` the seconds of CLOCK_BOOTTIME until
    which it is held for sure; both may change.
    """

    def __init__(
        self,
        store: Store,
        pool: str,
        node: str,
        lease: Callable[[], int],
        held_until: Callable[[], float],
        folder: str = pool_file.FOLDER,
    ) -> None:
        self._store = store
        self._pool = pool
        self._node = node
        self._lease = lease
        self._held_until = held_until
        self._prefix = f"{PREFIX}/{pool}/"
        self._folder = folder
        self._told: PoolFile | None = None
        # That under which the store has said since this keeper began that the node lives.
        self._alive_by = 0

    async def run(self) -> None:
        """Turns, as long as nobody cancels: at each change in the store, and as addresses go."""
        woken = asyncio.Event()
        watching = asyncio.create_task(self._watch(woken))
        loop = asyncio.get_running_loop()
        seen: object = None
        listed = float("-inf")
        try:
            while True:
                if self._told is not None and self._alive_by == self._lease():
                    self._write(replace(self._told, held_until=self._until()))
                look = self._look()
                if woken.is_set() or look != seen or loop.time() - listed >= _LIST:
                    woken.clear()
                    # A store that is out of reach is told by the agent, and tried again.
                    with suppress(StoreError):
                        await self.turn()
                        seen, listed = look, loop.time()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await woken.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def turn(self) -> None:
        """Everything that there is to do now. Raises StoreError."""
        try:
            pool = await self._list()
        except PoolError as error:
            self._tell_problem(str(error))
            return
        pool = await self._live(pool)
        pool = await self._take_back(pool)
        pool = await self._reclaim(pool)
        pool = await self._claim(pool)
        self._tell(pool)
        await self._lend(pool)
        await self._give_back(await self._list())
        self._tell(await self._list())

    async def _watch(self, woken: asyncio.Event) -> None:
        while True:
            try:
                after = (await self._store.list(self._prefix)).revision
                woken.set()
                async with aclosing(self._store.watch(self._prefix, after)) as batches:
                    async for batch in batches:
                        # A node's blocks are its own affair; what it wants, or its end, is not.
                        if any("/blocks/" not in one.key for one in batch.events):
                            woken.set()
            except Compacted:
                continue
            except StoreError:
                await asyncio.sleep(_LOOK)

    async def _list(self) -> Pool:
        snapshot = await self._store.list(self._prefix)
        return pool_of(snapshot.records, self._prefix)

    # Living and dying.

    def _alive(self) -> Condition:
        return UnderLease(f"{self._prefix}nodes/{self._node}", self._lease())

    async def _live(self, pool: Pool) -> Pool:
        """Say that this node lives, and that nobody may take its blocks."""
        key = f"{self._prefix}nodes/{self._node}"
        have, lease = await self._store.get(key), self._lease()
        marked = self._node in pool.missing or self._node in pool.grace
        if have is None or have.lease != lease or marked:
            gone = [f"{self._prefix}{kind}/{self._node}" for kind in ("missing", "grace")]
            await self._store.transact([], [Put(key, b"{}", lease)], gone)
            # Whatever was taken from the node before that is seen now.
            pool = await self._list()
        self._alive_by = lease
        return pool

    async def _reclaim(self, pool: Pool) -> Pool:
        """Mark who is missing; what has been marked for the grace time becomes free."""
        changed = False
        for node in sorted(pool.owners() - pool.nodes.keys() - {self._node, ""}):
            if node not in pool.missing:
                await self._mark(node, pool.config.grace)
            elif node not in pool.grace:
                await self._free(pool, node)
                changed = True
        return await self._list() if changed else pool

    async def _mark(self, node: str, grace: int) -> None:
        lease = await self._store.grant(grace)
        keys = [f"{self._prefix}{kind}/{node}" for kind in ("nodes", "missing", "grace")]
        outcome = await self._store.transact(
            [Absent(one) for one in keys], [Put(keys[1], b"{}"), Put(keys[2], b"{}", lease)]
        )
        if not outcome.done:
            await self._store.revoke(lease)

    async def _free(self, pool: Pool, node: str) -> None:
        missing = f"{self._prefix}missing/{node}"
        gone: list[Condition] = [
            Absent(f"{self._prefix}nodes/{node}"),
            Absent(f"{self._prefix}grace/{node}"),
            AtRevision(missing, pool.missing[node]),
        ]
        for block in pool.blocks.values():
            if block.of(node):
                await self._change(block, block.without(node), gone)
        left = await self._list()
        if node not in left.owners():
            await self._store.transact(gone, [], [missing])

    # Getting and giving.

    async def _claim(self, pool: Pool) -> Pool:
        """Claim ahead until a quarter of a block is left; where nothing is free, ask the others."""
        wants = f"{self._prefix}wants/{self._node}"
        for _ in range(_ATTEMPTS):
            if self._left(pool, self._own(pool)) >= self._low(pool):
                break
            found = pool.claimable(self._node)
            if found is None:
                if self._node not in pool.wants:
                    put = Put(wants, b"{}", self._lease())
                    await self._store.transact([self._alive()], [put])
                    return await self._list()
                return pool
            block, net = found
            await self._change(block, block.taking(net, self._node), self._mine(pool))
            pool = await self._list()
        if self._node in pool.wants:
            await self._store.transact([], [], [wants])
        return pool

    async def _take_back(self, pool: Pool) -> Pool:
        """Claim again what the store has forgotten, as after a backup, and containers have."""
        if self._told is None:
            try:
                self._told = pool_file.read(self._pool, self._folder)
            except Exception:  # noqa: BLE001 - what makes no sense says nothing
                return pool
        before = self._told.blocks if self._told else ()
        own = {str(one) for one in self._own(pool)}
        for text in before:
            net = ip_network(text)
            if text in own or not net.overlaps(pool.config.net) or not self._used(net):
                continue
            block = self._block_of(pool, net)
            if block is not None and any(is_within(net, one) for one in block.free()):
                await self._change(block, block.taking(net, self._node), self._mine(pool))
                pool = await self._list()
        return pool

    async def _give_back(self, pool: Pool) -> None:
        """Give up a part that nobody uses, as long as half a block is left in the others."""
        own = self._own(pool)
        for net in sorted(own, key=lambda one: one.prefixlen, reverse=True):
            others = [one for one in own if one != net]
            if self._used(net) or self._left(pool, others) < 2 * self._low(pool):
                continue
            with self._withdrawn(pool, net) as is_unused:
                if is_unused:
                    block = self._block_of(pool, net)
                    if block is not None:
                        await self._change(block, block.leaving(net, self._node), [])
            return

    async def _lend(self, pool: Pool) -> None:
        """Give half of what is left of this node's addresses to one that has none."""
        asking = sorted(pool.wants.keys() & pool.nodes.keys() - {self._node})
        if not asking or pool.claimable(asking[0]) is not None:
            return
        other = asking[0]
        spare = self._left(pool, self._own(pool)) - self._low(pool)
        fits = (one for one in self._unused(pool) if 0 < pool.config.usable(one)[2] <= spare)
        net = next(fits, None)
        if net is None:
            return
        with self._withdrawn(pool, net) as is_unused:
            block = self._block_of(pool, net)
            if not is_unused or block is None:
                return
            left = Block(block.net, block.leaving(net, self._node), block.modified)
            asked = f"{self._prefix}wants/{other}"
            conditions: list[Condition] = [
                AtRevision(asked, pool.wants[other]),
                AtRevision(f"{self._prefix}nodes/{other}", pool.nodes[other]),
            ]
            await self._change(left, left.taking(net, other), conditions, deletes=[asked])

    def _unused(self, pool: Pool) -> Iterator[Net]:
        """Parts of this node's that nobody uses, the largest first, of 4 addresses or more."""
        given = self._given()
        for net in sorted(self._own(pool), key=lambda one: one.prefixlen):
            smallest = max(net.max_prefixlen - LEAST_BITS, net.prefixlen)
            for length in range(net.prefixlen, smallest + 1):
                # The end of a block is given out last.
                parts: list[Net] = list(net.subnets(new_prefix=length))
                for one in reversed(parts):
                    if not _has(one, given):
                        yield one

    def _mine(self, pool: Pool) -> list[Condition]:
        """Who claims lives, and knows how large a block is."""
        return [self._alive(), AtRevision(f"{self._prefix}config", pool.config_modified)]

    async def _change(
        self,
        block: Block,
        parts: tuple[Any, ...],
        conditions: list[Condition],
        deletes: list[str] | None = None,
    ) -> bool:
        key = f"{self._prefix}{block.key}"
        at: Condition = AtRevision(key, block.modified) if block.modified else Absent(key)
        puts = [Put(key, encode(parts))] if parts else []
        gone = [*(deletes or ()), *(() if parts else (key,))]
        try:
            outcome = await self._store.transact([at, *conditions], puts, gone)
        except LeaseLost:
            return False
        return outcome.done

    # This node.

    def _own(self, pool: Pool) -> list[Net]:
        return [net for _, net in pool.of(self._node)]

    def _block_of(self, pool: Pool, net: Net) -> Block | None:
        """The block that the addresses are of, as the store has it."""
        whole = net.supernet(new_prefix=pool.config.length) if _fits(net, pool) else None
        return None if whole is None else pool.blocks.get(Block(whole).key, Block(whole))

    def _low(self, pool: Pool) -> int:
        return max(pool.config.size // 4, 1)

    def _look(self) -> object:
        """Something that changes when addresses are given or freed."""
        user = self._user()
        try:
            return os.stat(user).st_mtime_ns if user else None
        except OSError:
            return None

    def _user(self) -> str:
        found = pool_file.user(self._pool, self._folder)
        return "" if found is None else found.folder

    def _given(self) -> set[int]:
        folder = self._user()
        return pool_file.given(folder) if folder else set()

    def _used(self, net: Net) -> bool:
        return _has(net, self._given())

    def _left(self, pool: Pool, nets: list[Net]) -> int:
        """How many addresses can still be given out."""
        given = self._given()
        spans = [pool.config.usable(one) for one in nets]
        used = sum(1 for one in given if any(first <= one <= last for first, last, _ in spans))
        return sum(number for _, _, number in spans) - used

    @contextmanager
    def _withdrawn(self, pool: Pool, net: Net) -> Iterator[bool]:
        """Have the plugin give out nothing of `net`; whether nobody has anything of it then.

        ADD reads the file under the folder's lock. What the transaction in the block does is seen
        when the pool is listed again; a store that has not answered may have done it.
        """
        rest: list[Net] = []
        for one in self._own(pool):
            rest += without(one, net)
        self._tell(pool, rest)
        folder = self._user()
        if folder and not _passed(folder):
            yield False
            return
        yield not self._used(net)

    def _tell(self, pool: Pool, nets: list[Net] | None = None) -> None:
        config = pool.config
        own = self._own(pool) if nets is None else nets
        code, msg = (0, "")
        if pool.refused:
            code, msg = 51, f'something in pool "{self._pool}" makes no sense'
        self._write(PoolFile(
            pool=self._pool,
            network=config.network,
            gateway=config.gateway,
            range_start=config.range_start,
            range_end=config.range_end,
            blocks=tuple(str(one) for one in sorted(own, key=lambda one: int(one[0]))),
            held_until=self._until(),
            is_full=pool.claimable(self._node) is None,
            code=code,
            msg=msg,
            details="; ".join(pool.refused[:3]),
        ))  # fmt: skip

    def _until(self) -> float:
        """Until when the blocks are this node's for sure: it lives by the lease that it has now."""
        return self._held_until() if self._alive_by == self._lease() else 0.0

    def _tell_problem(self, why: str) -> None:
        """What the node has been told of its blocks stays, with what is wrong now."""
        if self._told is not None:
            msg = f'pool "{self._pool}" cannot be kept'
            changed = {"code": 51, "msg": msg, "details": why}
            self._write(replace(self._told, **changed))

    def _write(self, told: PoolFile) -> None:
        if told != self._told:
            pool_file.write(told, self._folder)
            self._told = told


def _has(net: Net, given: set[int]) -> bool:
    """Whether any address of it has been given out."""
    first, last = int(net[0]), int(net[-1])
    return any(first <= one <= last for one in given)


def _passed(folder: str) -> bool:
    """Whether every ADD that may have read the file before has ended: its lock is free."""
    try:
        fd = state_files.opened(f"{folder}/{pool_file.LOCK}", os.O_RDONLY)
    except FileNotFoundError:
        return True
    except (OSError, state_files.DamagedError):
        return False
    try:
        return try_lock(fd)
    finally:
        os.close(fd)


def _fits(net: Any, pool: Pool) -> bool:
    return is_within(net, pool.config.net) and bool(net.prefixlen >= pool.config.length)
