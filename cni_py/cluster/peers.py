"""Which of the leases in the store this node believes; pure.

Anybody who may write below the prefix can say anything, so what would break this node, or take
another's traffic, is left out and told. Of two that claim the same, the one that was there first
keeps it: a newcomer takes nothing away.

A record that changes has those judged again that claim what it claims, and those that claim what
these do, and so on: usually itself alone, whatever the size of the cluster.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .backend import Announcement, Node
from .claims import Taken, is_no_hosts, is_part
from .contenders import Contenders
from .flannel import FlannelError, NodeLease, Vxlan, WireGuard, parse_lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from .flannel_network import Network
    from .store import Record

    Subnet = IPv4Network | IPv6Network

# The lowest bit of a MAC address's first byte: it is a group's.
_GROUP = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that is not believed, and why: one line."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Peers:
    """The other nodes, oldest first, as leases and as backends take them, and the records that are
    not believed.
    """

    leases: tuple[NodeLease, ...]
    nodes: tuple[Node, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A record that could be believed, if nobody else claimed the same."""

    place: tuple[int, str]
    """By age: the revision that made it, and its key."""
    lease: NodeLease
    node: Node
    ends: tuple[str, ...]


class Judge:
    """Judges the records below `PREFIX/subnets/`, one after another; this node's own is left out.

    What it finds follows from the records that there are, not from the order in which they came.
    """

    def __init__(self, prefix: str, network: Network, own: NodeLease) -> None:
        """`own` is this node's lease: whatever changes of it takes another judge."""
        self.own = own
        self._prefix, self._network = prefix, network
        self._own_ends = _ends(own)
        self._addresses = {own.public_ip, own.public_ipv6} - {None}
        self._claims: dict[str, _Claim] = {}
        self._contenders = Contenders()
        self._believed: dict[tuple[int, str], _Claim] = {}
        self._order: list[tuple[int, str]] = []
        self._refused: dict[tuple[int, str], str] = {}
        # Where those are that have no claim, which nothing of others can change.
        self._hopeless: dict[str, tuple[int, str]] = {}
        self._stirred: set[str] = set()

    def put(self, record: Record) -> None:
        """There is this record now, in the place of what was at its key."""
        self.drop(record.key)
        key = record.key.removeprefix(f"{self._prefix}/")
        if key == self.own.subnets.key:
            return
        place = record.created, record.key
        try:
            lease = parse_lease(key, record.value)
            _judge(lease, self._network, self.own)
            if shared := self._addresses & {lease.public_ip, lease.public_ipv6}:
                raise FlannelError(f"its public address {shared.pop()} is this node's")
            claim = _Claim(place, lease, node_of(lease), _ends(lease))
        except FlannelError as error:
            self._hopeless[record.key] = place
            self._refused[place] = str(error)
            return
        self._claims[record.key] = claim
        self._contenders.add(record.key, _subnets(lease), claim.ends)
        self._stirred.add(record.key)

    def drop(self, key: str) -> None:
        """There is no such record any more."""
        if key in self._hopeless:
            del self._refused[self._hopeless.pop(key)]
        claim = self._claims.pop(key, None)
        if claim is None:
            return
        self._contenders.remove(key, _subnets(claim.lease), claim.ends)
        self._forget(claim)
        self._stirred.discard(key)
        self._stirred |= self._contenders.of(_subnets(claim.lease), claim.ends)

    def peers(self) -> Peers:
        """What is believed of what there is, and what is not."""
        while self._stirred:
            self._judge_together(self._together(self._stirred.pop()))
        believed = [self._believed[place] for place in self._order]
        return Peers(
            tuple([one.lease for one in believed]),
            tuple([one.node for one in believed]),
            tuple(Refusal(place[1], why) for place, why in sorted(self._refused.items())),
        )

    def _together(self, first: str) -> list[_Claim]:
        """That claim and all that it is bound up with, oldest first."""
        found = {first}
        left = [first]
        while left:
            claim = self._claims[left.pop()]
            new = self._contenders.of(_subnets(claim.lease), claim.ends) - found
            found |= new
            left += new
        self._stirred -= found
        return sorted((self._claims[key] for key in found), key=lambda one: one.place)

    def _judge_together(self, claims: list[_Claim]) -> None:
        taken = _Taken()
        taken.enter(self.own, self._own_ends, "this node")
        for claim in claims:
            self._forget(claim)
            try:
                taken.enter(claim.lease, claim.ends, claim.lease.subnets.key)
            except FlannelError as error:
                self._refused[claim.place] = str(error)
            else:
                self._believed[claim.place] = claim
                insort(self._order, claim.place)

    def _forget(self, claim: _Claim) -> None:
        """How the claim was judged before."""
        self._refused.pop(claim.place, None)
        if self._believed.pop(claim.place, None) is not None:
            del self._order[bisect_left(self._order, claim.place)]


def node_of(lease: NodeLease) -> Node:
    """A lease as backends take it."""
    data, data6 = (json.loads(one) if one else None for one in (lease.data, lease.data_v6))
    said = Announcement(lease.backend_type, lease.public_ip, lease.public_ipv6, data, data6)
    return Node(said, lease.subnets.v4, lease.subnets.v6)


def _judge(lease: NodeLease, network: Network, own: NodeLease) -> None:
    """Whether the lease can be true of any other node. Raises FlannelError."""
    if lease.backend_type != own.backend_type:
        raise FlannelError(f"its backend is {lease.backend_type!r}, not {own.backend_type!r}")
    for subnet, pool in ((lease.subnets.v4, network.v4), (lease.subnets.v6, network.v6)):
        if subnet is not None:
            _require_part(subnet, None if pool is None else pool.network)
    addresses = [one for one in (lease.public_ip, lease.public_ipv6) if one]
    if not addresses:
        raise FlannelError("it has no public address")
    for address in addresses:
        _require_reachable(address, network)


def _require_part(subnet: Subnet, whole: Subnet | None) -> None:
    if whole is None:
        raise FlannelError(f"the network has no IPv{subnet.version}")
    if not is_part(subnet, whole):
        raise FlannelError(f"{subnet} is no part of {whole}")


def _require_reachable(address: IPv4Address | IPv6Address, network: Network) -> None:
    """A public address is a host's, and not inside the network that goes through it."""
    if is_no_hosts(address):
        raise FlannelError(f"its public address {address} is no host's")
    for pool in (network.v4, network.v6):
        if pool is not None and address in pool.network:
            raise FlannelError(f"its public address {address} is inside {pool.network}")


class _Taken:
    """What is taken, and by whom."""

    def __init__(self) -> None:
        self._subnets = {4: Taken(), 6: Taken()}
        self._ends: dict[str, tuple[str, NodeLease]] = {}

    def enter(self, lease: NodeLease, ends: Iterable[str], name: str) -> None:
        """Take what the lease has, all or nothing. Raises FlannelError if something is taken."""
        for end in ends:
            owner, theirs = self._ends.get(end, (name, lease))
            # A node that has moved to another subnet has two leases until the older one ends.
            if (theirs.public_ip, theirs.public_ipv6) != (lease.public_ip, lease.public_ipv6):
                raise FlannelError(f"its {end} is that of {owner}")
        subnets = _subnets(lease)
        for subnet in subnets:
            if owner := self._subnets[subnet.version].by(subnet):
                raise FlannelError(f"{subnet} overlaps a subnet of {owner}")
        for subnet in subnets:
            self._subnets[subnet.version].add(subnet, name)
        for end in ends:
            self._ends.setdefault(end, (name, lease))


def _subnets(lease: NodeLease) -> list[Subnet]:
    return [one for one in (lease.subnets.v4, lease.subnets.v6) if one is not None]


def _ends(lease: NodeLease) -> tuple[str, ...]:
    """What only one host can have: MACs of tunnels, or a public key. Raises FlannelError."""
    read = _READERS.get(lease.backend_type)
    found = dict.fromkeys(read(data) for data in (lease.data, lease.data_v6) if data and read)
    return tuple(found)


def _vtep(data: bytes) -> str:
    mac = Vxlan.of(data).mac
    if int(mac[:2], 16) & _GROUP or not int(mac.replace(":", ""), 16):
        raise FlannelError(f"VtepMAC {mac} is no interface's")
    return f"VtepMAC {mac}"


def _public_key(data: bytes) -> str:
    return f"PublicKey {WireGuard.of(data).public_key}"


_READERS: dict[str, Callable[[bytes], str]] = {"vxlan": _vtep, "wireguard": _public_key}
