"""Nodes of a simulated cluster, many in one process: agents whose kernel is left out.

A *whole* node is the agent's own code from the store to the plan: it claims, renews, follows,
judges and plans; what would be done to a kernel is only planned. Nodes of one process share the
values that they have parsed, for they would not fit into one machine's memory otherwise. A *light*
node asks the store for all that an agent asks for, in the same order, and counts what it is told
without a look at it: many of these are as much work for the store, but not for this machine.

Commands are lines of JSON on stdin, answers on stdout; times are of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

from aetcd import rpc
from grpc import aio
from watch_sink import Sink

from cni_py.cluster import claiming, etcd, etcd_messages, peers
from cni_py.cluster.agent_backend import lease_of
from cni_py.cluster.agent_context import LONGEST_PAUSE, Context, apart
from cni_py.cluster.agent_follow import Follower
from cni_py.cluster.agent_hold import Holder
from cni_py.cluster.agent_report import Counters
from cni_py.cluster.agent_session import Session
from cni_py.cluster.agent_settings import AgentSettings
from cni_py.cluster.agent_state import AgentState
from cni_py.cluster.backend import Announcement
from cni_py.cluster.claiming import Former
from cni_py.cluster.etcd import Etcd
from cni_py.cluster.etcd_access import EtcdAccess
from cni_py.cluster.etcd_connection import Connection
from cni_py.cluster.flannel import PREFIX, SUBNETS_KEY, Subnets
from cni_py.cluster.flannel_network import parse_network
from cni_py.cluster.following import Followed
from cni_py.cluster.key_range import key_bytes, range_end
from cni_py.cluster.owner import Owner, encode
from cni_py.cluster.plan import operations
from cni_py.cluster.state import State
from cni_py.cluster.store import Absent, Put
from cni_py.cluster.store_errors import StoreError
from cni_py.cluster.underlay import Chosen, Underlay
from cni_py.cluster.vetting import vetted
from cni_py.cluster.vxlan import VxlanBackend, VxlanSettings

if TYPE_CHECKING:
    from cni_py.cluster.backend import View
    from cni_py.cluster.reconciler import Reconciler
    from cni_py.cluster.store import Record

CONFIG = b'{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}'
NETWORK = parse_network(CONFIG)
_FIRST_HOST = IPv4Address("172.16.0.1")
# Seconds that a light node waits for an answer: many of them share this process's time.
_PATIENCE = 120.0
# Records in an answer, as the agent asks for them.
_PAGE = 1000
_PREFIX = key_bytes(f"{PREFIX}/")


def address_of(number: int) -> IPv4Address:
    """The address of a node."""
    return _FIRST_HOST + number


def said_by(number: int) -> Announcement:
    """What a node announces."""
    mac = f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return Announcement("vxlan", address_of(number), None, {"VNI": 1, "VtepMAC": mac})


def owner_of(number: int) -> Owner:
    """A node's identity."""
    return Owner(f"00000000-0000-4000-8000-{number:012}", f"node-{number:05}.example.net")


def _share() -> None:
    """What nodes parse is the same for all of them."""
    known: dict[tuple[bytes, int, bool], Record] = {}
    decode = etcd_messages.record

    def record(found: Any) -> Record:
        key = found.key, found.mod_revision, not found.value
        if key not in known:
            known[key] = decode(found)
        return known[key]

    for module, name in ((etcd, "record"), (etcd_messages, "record")):
        setattr(module, name, record)
    for module, name in (
        (peers, "parse_lease"),
        (peers, "node_of"),
        (claiming, "lease_in"),
        (claiming, "owner_of"),
        (claiming, "parse_subnets"),
    ):
        setattr(module, name, lru_cache(maxsize=None)(getattr(module, name)))


class Access(EtcdAccess):
    """With connections of its own: nodes are different machines."""

    def channel(self, endpoint: str) -> Any:
        """See EtcdAccess."""
        options = [
            ("grpc.default_authority", "localhost"),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return aio.insecure_channel(f"unix:{endpoint.removeprefix('unix://')}", options=options)


class Planner(VxlanBackend):
    """What a node's kernel would be asked for."""

    def __init__(self, number: int) -> None:
        self._settings = VxlanSettings()
        self._chosen, self._versions = Chosen(), frozenset({4})
        self._under = Underlay("eth0", 2, 1500, address_of(number), None, (), "")
        self._view: View | None = None
        self._known: Followed | None = None
        self.count, self.stirred = 0, 0.0

    def show(self, view: View) -> None:
        """Plan for it, as a backend does that has a kernel."""
        if view == self._view:
            return
        self._view, known = view, self._known
        if known is None or known.operations(view, self.name, self.wanted) is None:
            believed, refused = vetted(view, self.name)
            wanted = self.wanted(view, believed, self._under)
            operations(wanted.state, State())
            self._known = None if refused else Followed(view, self._under, wanted.state)
        if self.count != len(view.peers) + 1:
            self.count, self.stirred = len(view.peers) + 1, time.monotonic()


class Whole:
    """See the module."""

    def __init__(self, endpoint: str, number: int, ttl: int) -> None:
        self._number = number
        self._store = Etcd(Access((endpoint,)))
        settings = AgentSettings(host=owner_of(number).host, ttl=ttl)
        self._state = AgentState(settings, owner_of(number))
        self._planner = Planner(number)

    @property
    def count(self) -> int:
        """How many nodes it knows."""
        return self._planner.count

    @property
    def stirred(self) -> float:
        """When that changed last."""
        return self._planner.stirred

    async def run(self) -> None:
        """Until it is cancelled."""
        context = Context(self._store, NETWORK, self._state, Counters(), lambda: None)
        context.said = said_by(self._number)
        self._state.network = NETWORK
        session = Session(context)
        async with asyncio.TaskGroup() as group:
            group.create_task(Follower(context).run())
            group.create_task(Holder(context).run(Former()))
            group.create_task(session.show_always(cast("Reconciler", self._planner)))

    async def leave(self) -> None:
        """Give the lease back, as at the end of a node."""
        if self._state.kept is not None:
            await self._store.revoke(self._state.kept.lease)

    async def close(self) -> None:
        """End the connection."""
        await self._store.close()


class Light:
    """See the module."""

    def __init__(
        self, endpoint: str, number: int, ttl: int, store: Etcd, connection: Connection
    ) -> None:
        self._path, self._number, self._ttl = endpoint.removeprefix("unix://"), number, ttl
        self._store, self._connection = store, connection
        self._sink: Sink | None = None
        self._lease, self._claimed = 0, False
        self._subnets: Subnets | None = None

    @property
    def count(self) -> int:
        """How many nodes it knows."""
        return 0 if self._sink is None else self._sink.count

    @property
    def stirred(self) -> float:
        """When that changed last."""
        return 0.0 if self._sink is None else self._sink.stirred

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                count, revision = await self._begin()
                break
            except StoreError:
                await asyncio.sleep(apart(LONGEST_PAUSE))
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._sink = Sink(self._path, count, lambda why: ended.done() or ended.set_result(why))
        self._sink.begin(_PREFIX, range_end(_PREFIX), revision)
        try:
            while True:
                ttl = await self._store.renew(self._lease, seconds=_PATIENCE)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ttl / 3):
                        raise RuntimeError(await asyncio.shield(ended))
        finally:
            self._sink.close()

    async def _begin(self) -> tuple[int, int]:
        """What an agent asks for until it watches; how many nodes there are, at which revision."""
        self._lease = self._lease or await self._store.grant(self._ttl, seconds=_PATIENCE)
        await self._skim(f"{PREFIX}/{SUBNETS_KEY}")
        while not self._claimed:
            if self._subnets is None:
                assert NETWORK.v4 is not None
                self._subnets = Subnets(NETWORK.v4.at(random.randrange(NETWORK.v4.count)))
            value = encode(lease_of(said_by(self._number), self._subnets), owner_of(self._number))
            key = f"{PREFIX}/{self._subnets.key}"
            put = [Put(key, value, self._lease)]
            outcome = await self._store.transact([Absent(key)], put, seconds=_PATIENCE)
            # It is there already where only the answer to an earlier attempt was lost.
            self._claimed = outcome.done or outcome.found[0].lease == self._lease
            if not self._claimed:
                self._subnets = None
        await self._skim(f"{PREFIX}/{SUBNETS_KEY}", keys_only=True)
        count, revision = await self._skim(f"{PREFIX}/")
        # The network's configuration is no node.
        return count - 1, revision

    async def _skim(self, prefix: str, **options: Any) -> tuple[int, int]:
        """All pages of a list, unread."""
        request = etcd_messages.below(prefix, limit=_PAGE, **options)
        count = revision = 0
        while True:

            def ask(channel: Any, how: dict[str, Any], request: Any = request) -> Any:
                return rpc.KVStub(channel).Range(request, **how)

            page = await self._connection.call(ask, _PATIENCE)
            count, revision = count + len(page.kvs), revision or page.header.revision
            if not page.more:
                return count, revision
            request = etcd_messages.below(prefix, limit=_PAGE, revision=revision, **options)
            request.key = page.kvs[-1].key + b"\0"

    async def leave(self) -> None:
        """Give the lease back."""
        await self._store.revoke(self._lease)

    async def close(self) -> None:
        """The connection is others' too."""


class Nodes:
    """Those of this process, by number."""

    def __init__(self, endpoint: str, ttl: int) -> None:
        self._endpoint, self._ttl = endpoint, ttl
        self._shared = Etcd(Access((endpoint,))), Connection(Access((endpoint,)))
        self._nodes: dict[int, Whole | Light] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._failures: list[str] = []

    async def do(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        if asked["do"] == "start":
            began = time.monotonic()
            for number in asked["whole"]:
                self._start(number, Whole(self._endpoint, number, self._ttl))
            for number in asked["light"]:
                self._start(number, Light(self._endpoint, number, self._ttl, *self._shared))
            return {"at": began}
        if asked["do"] == "leave":
            number = asked["number"]
            node, task = self._nodes.pop(number), self._tasks.pop(number)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            began = time.monotonic()
            await node.leave()
            await node.close()
            return {"at": began}
        return await self._until(asked["count"], asked["seconds"])

    def _start(self, number: int, node: Whole | Light) -> None:
        self._nodes[number] = node
        self._tasks[number] = asyncio.create_task(self._run(node))

    async def _run(self, node: Whole | Light) -> None:
        try:
            await node.run()
        except Exception as error:  # noqa: BLE001 - it is told
            self._failures.append(f"{type(node).__name__}: {error!r}")

    async def _until(self, count: int, seconds: float) -> dict[str, Any]:
        """When each node knew so many nodes, itself included."""
        deadline = time.monotonic() + seconds
        while True:
            left = [one for one in self._nodes.values() if one.count != count]
            if not left or self._failures or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        found: dict[str, Any] = {"left": len(left), "failures": self._failures[:3]}
        if left:
            found["counts"] = sorted(one.count for one in left)[:: max(1, len(left) // 5)]
        for kind in (Whole, Light):
            found[kind.__name__.lower()] = [
                one.stirred for one in self._nodes.values() if isinstance(one, kind)
            ]
        return found


async def main() -> None:
    """Until stdin ends."""
    _share()
    nodes = Nodes(sys.argv[1], int(sys.argv[2]))
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await nodes.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
