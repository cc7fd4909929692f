"""Claiming a subnet for this node: by one transaction, and never somebody else's.

A node's own record is known by the node's identity and address; that of a flannel on this node by
the address alone. A record that has this address and another node's identity is either left over
from a host that had the address before, or there are two hosts with one address: the other one is
asked, with a key that it removes as long as it is alive.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

from . import free_subnets
from .claims import is_part
from .flannel import SUBNETS_KEY, FlannelError, NodeLease, Subnets, parse_subnets
from .owner import Owner, encode, lease_in, owner_of, shares_address
from .store import Absent, AtRevision, Put
from .store_errors import LeaseLost, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .flannel_network import Network
    from .store import Condition, Record, Store

CHALLENGES_KEY = "challenges/"
# Seconds that a living node has to answer in, and between two looks.
ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 0.25
NOTHING = Subnets()


class ClaimError(Exception):
    """No subnet can be had now; the text is one line and says why."""


class NotToldError(ClaimError):
    """Whoever gives this node its subnets does not say which: what it had before still holds."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A subnet that the store has for this node, and the lease that it is under."""

    subnets: Subnets
    lease: int
    how: str
    """In words, what was done."""


@dataclass(frozen=True, slots=True)
class Former:
    """What this node had before, as its own file says; the lease's number is 0 for none."""

    subnets: Subnets = NOTHING
    lease: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """A record with what is in it."""

    record: Record
    lease: NodeLease
    owner: Owner | None


class Claimer:
    """Claims for one node. `fixed` are the only subnets that it may have, where it has no choice.

    With `is_assigned` they come from somebody who gives each subnet to one node, and to another
    when that has gone: then a record of a node that is not alive does not stand in the way.
    `note` is told what is remarkable, in one line.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        owner: Owner,
        ttl: int,
        note: Callable[[str], None],
        fixed: Subnets | None = None,
        *,
        is_assigned: bool = False,
    ) -> None:
        self._store, self._prefix, self._owner = store, prefix, owner
        self._ttl, self._note, self._fixed = ttl, note, fixed
        self._is_assigned = is_assigned

    async def claim(self, network: Network, said: NodeLease, former: Former) -> Claim:
        """Claim until it is done. `said` is what the node announces; its subnets do not count.

        Raises ClaimError, StoreError.
        """
        lease = 0
        try:
            while True:
                try:
                    lease = lease or await self._store.grant(self._ttl)
                    claimed = await self._attempt(network, said, former, lease)
                except LeaseLost:
                    lease = 0
                    continue
                if claimed is not None:
                    return claimed
        except (StoreError, ClaimError, asyncio.CancelledError):
            # It has no key of use, and would stay for its whole time.
            if lease:
                with suppress(StoreError):
                    await self._store.revoke(lease, seconds=1.0)
            raise

    async def _attempt(
        self, network: Network, said: NodeLease, former: Former, lease: int
    ) -> Claim | None:
        """One transaction; None where the store has changed meanwhile."""
        found = await self._found()
        mine = [one for one in found if self._is_mine(one, said, former)]
        others = [one for one in found if one not in mine]
        for one in others:
            if one.owner is not None and (why := self._in_the_way(one.lease, said)):
                await self._require_dead(one, one.owner, lease, why)
                mine.append(one)
        others = [one for one in others if one not in mine]
        wanted, how = self._wanted(network, mine, others, former.subnets)
        key = self._key(wanted)
        conditions: list[Condition] = [
            AtRevision(one.record.key, one.record.modified) for one in mine
        ]
        if all(one.record.key != key for one in mine):
            conditions.append(Absent(key))
        value = encode(replace(said, subnets=wanted), self._owner)
        given_up = [one.record.key for one in mine if one.record.key != key]
        outcome = await self._store.transact(conditions, [Put(key, value, lease)], given_up)
        if not outcome.done or not await self._is_first(wanted, key, outcome.revision):
            return None
        for one_key in given_up:
            self._note(f"{one_key} was given up")
        return Claim(wanted, lease, how)

    async def _found(self) -> list[_Found]:
        """Every record below `PREFIX/subnets/` whose key makes sense.

        Where the value makes none, the subnet is taken all the same.
        """
        snapshot = await self._store.list(f"{self._prefix}/{SUBNETS_KEY}")
        found = []
        for record in snapshot.records:
            lease = lease_in(record, self._prefix)
            owner = None if lease is None else owner_of(record.value)
            with suppress(FlannelError):
                taken = parse_subnets(record.key.removeprefix(f"{self._prefix}/"))
                found.append(_Found(record, lease or NodeLease(taken), owner))
        return found

    def _is_mine(self, one: _Found, said: NodeLease, former: Former) -> bool:
        """A copy of this machine has its identity too, but neither its address nor its lease."""
        same = shares_address(one.lease, said)
        if one.owner is None:
            return same
        known = bool(former.lease) and one.record.lease == former.lease
        return one.owner.node == self._owner.node and (same or known)

    def _in_the_way(self, one: NodeLease, said: NodeLease) -> str:
        """Why another node's record must be a dead node's; `""` where both can be."""
        if shares_address(one, said):
            return "has this node's public address"
        fixed = self._fixed if self._is_assigned else None
        if fixed is not None and free_subnets.Taken([one.subnets]).has_any(fixed):
            return f"has a part of {fixed}, which was given to this node"
        return ""

    def _wanted(
        self, network: Network, mine: list[_Found], others: list[_Found], former: Subnets
    ) -> tuple[Subnets, str]:
        taken = free_subnets.Taken(one.lease.subnets for one in others)
        if self._fixed is not None:
            for one in others:
                if free_subnets.Taken([one.lease.subnets]).has_any(self._fixed):
                    raise ClaimError(f"{self._fixed} is to be this node's, but {one.record.key} is"
                                     f" {one.owner or 'a flannel node'}'s")  # fmt: skip
            return self._fixed, "as it was given"
        own = sorted(mine, key=lambda one: one.lease.subnets != former)
        for one in own:
            if network.offers(one.lease.subnets) and not taken.has_any(one.lease.subnets):
                return one.lease.subnets, "kept: the store has it for this node"
        if network.offers(former) and not taken.has_any(former):
            return former, "kept: it is free"
        chosen = free_subnets.choose(network, taken)
        if chosen is None:
            whole = " and ".join(str(one.network) for one in (network.v4, network.v6) if one)
            raise ClaimError(f"all subnets of {whole} are leased: {len(others)} records")
        return chosen, "chosen"

    async def _is_first(self, wanted: Subnets, key: str, modified: int) -> bool:
        """Whether nobody claimed a part of it earlier under another key; else it is given back."""
        snapshot = await self._store.list_keys(f"{self._prefix}/{SUBNETS_KEY}")
        own = next((one for one in snapshot.records if one.key == key), None)
        if own is None or own.modified != modified:
            return False
        earlier = []
        for one in snapshot.records:
            if (one.created, one.key) < (own.created, key):
                with suppress(FlannelError):
                    earlier.append(parse_subnets(one.key.removeprefix(f"{self._prefix}/")))
        if not free_subnets.Taken(earlier).has_any(wanted):
            return True
        await self._store.transact([AtRevision(key, modified)], (), [key])
        return False

    async def _require_dead(self, one: _Found, other: Owner, lease: int, why: str) -> None:
        """Ask the node that has what is this one's whether it is there. Raises ClaimError."""
        key = f"{self._prefix}/{CHALLENGES_KEY}{other.node}"
        self._note(f"{one.record.key} {why} and is {other}'s: it is asked")
        await self._store.transact((), [Put(key, self._owner.host.encode(), lease)])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_SECONDS
        while loop.time() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            if await self._store.get(key) is None:
                raise ClaimError(f"node {other} {why}, and is alive, with {one.lease.subnets}:"
                                 " give one of the two another")  # fmt: skip
        await self._store.transact((), (), [key])
        self._note(f"{other} did not answer: its subnet is taken over")

    def _key(self, subnets: Subnets) -> str:
        return f"{self._prefix}/{subnets.key}"


def fixed_subnets(texts: tuple[str, ...], network: Network) -> Subnets | None:
    """The subnets that a node was given, such as Kubernetes' podCIDRs; None without any.

    Raises ClaimError where they are no parts of the network, a family of it is missing, or one is
    there twice.
    """
    if not texts:
        return None
    v4 = v6 = None
    for text in texts:
        try:
            subnet = ip_network(text)
        except ValueError as error:
            raise ClaimError(f"{text!r} is no subnet: {error}") from None
        pool = network.v4 if subnet.version == 4 else network.v6
        whole = None if pool is None else pool.network
        if whole is None or not is_part(subnet, whole):
            raise ClaimError(f"{subnet} is no part of the cluster's network")
        if (v4 if subnet.version == 4 else v6) is not None:
            raise ClaimError(f"two subnets of IPv{subnet.version} are given: {' '.join(texts)}")
        if isinstance(subnet, IPv4Network):
            v4 = subnet
        else:
            v6 = subnet
    for pool, subnet_of_it in ((network.v4, v4), (network.v6, v6)):
        if pool is not None and subnet_of_it is None:
            raise ClaimError(f"no subnet of {pool.network} is given")
    return Subnets(v4, v6)
