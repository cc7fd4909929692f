"""Which of the leases in the store this node believes; pure.

Anybody who may write below the prefix can say anything, so what would break this node, or take
another's traffic, is left out and told. Of two that claim the same, the one that was there first
keeps it: a newcomer takes nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .claims import Taken, is_no_hosts, is_part
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
    """The other nodes, oldest first, and the records that are not believed."""

    leases: tuple[NodeLease, ...]
    refused: tuple[Refusal, ...]


def peers(records: Iterable[Record], prefix: str, network: Network, own: NodeLease) -> Peers:
    """Judge all records below `PREFIX/subnets/`. This node's own is in neither part."""
    claims = _Claims()
    claims.enter(own, _ends(own), "this node")
    own_addresses = {own.public_ip, own.public_ipv6} - {None}
    believed = []
    refused = []
    for record in sorted(records, key=lambda one: (one.created, one.key)):
        key = record.key.removeprefix(f"{prefix}/")
        if key == own.subnets.key:
            continue
        try:
            lease = parse_lease(key, record.value)
            _judge(lease, network, own)
            if shared := own_addresses & {lease.public_ip, lease.public_ipv6}:
                raise FlannelError(f"its public address {shared.pop()} is this node's")
            claims.enter(lease, _ends(lease), key)
        except FlannelError as error:
            refused.append(Refusal(record.key, str(error)))
        else:
            believed.append(lease)
    return Peers(tuple(believed), tuple(refused))


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


class _Claims:
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
        subnets = [one for one in (lease.subnets.v4, lease.subnets.v6) if one is not None]
        for subnet in subnets:
            if owner := self._subnets[subnet.version].by(subnet):
                raise FlannelError(f"{subnet} overlaps a subnet of {owner}")
        for subnet in subnets:
            self._subnets[subnet.version].add(subnet, name)
        for end in ends:
            self._ends.setdefault(end, (name, lease))


def _ends(lease: NodeLease) -> set[str]:
    """What only one host can have: MACs of tunnels, or a public key. Raises FlannelError."""
    read = _READERS.get(lease.backend_type)
    return {read(data) for data in (lease.data, lease.data_v6) if data and read}


def _vtep(data: bytes) -> str:
    mac = Vxlan.of(data).mac
    if int(mac[:2], 16) & _GROUP or not int(mac.replace(":", ""), 16):
        raise FlannelError(f"VtepMAC {mac} is no interface's")
    return f"VtepMAC {mac}"


def _public_key(data: bytes) -> str:
    return f"PublicKey {WireGuard.of(data).public_key}"


_READERS: dict[str, Callable[[bytes], str]] = {"vxlan": _vtep, "wireguard": _public_key}
