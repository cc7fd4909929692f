"""flannel's description of the network (`PREFIX/config`): which subnets nodes lease; pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from cni_py.spec.addresses import IP, Cidr
from cni_py.spec.config import decode_json, member

from .flannel import FlannelError, decoded_value

if TYPE_CHECKING:
    from .flannel import Subnets

N = TypeVar("N", IPv4Network, IPv6Network)

# The shortest prefix of a node's subnet that flannel takes without being told.
_USUAL = {4: 24, 6: 64}
# flannel's own least: a network has at least four subnets, and a subnet two addresses for nodes.
_SPLIT_BITS = 2


@dataclass(frozen=True, slots=True)
class Pool(Generic[N]):
    """The subnets of one family that nodes may lease: from `first` to `last`, each of `length`."""

    network: N
    length: int
    """The prefix length of each node's subnet."""
    first: N
    last: N

    @property
    def count(self) -> int:
        """How many there are: more than len() could say of IPv6."""
        return self._number(self.last) - self._number(self.first) + 1

    def at(self, index: int) -> N:
        """The subnet at a place, from 0 to below `count`."""
        address = (self._number(self.first) + index) << (self.network.max_prefixlen - self.length)
        return type(self.network)((address, self.length))

    def offers(self, subnet: N) -> bool:
        """Whether a node may claim this one."""
        return subnet.prefixlen == self.length and (
            self.first.network_address <= subnet.network_address <= self.last.network_address
        )

    def _number(self, subnet: N) -> int:
        return int(subnet.network_address) >> (subnet.max_prefixlen - self.length)


@dataclass(frozen=True, slots=True)
class Network:
    """The whole network: a pool of each family it has, and the backend that joins its nodes."""

    v4: Pool[IPv4Network] | None
    v6: Pool[IPv6Network] | None
    backend_type: str
    backend: bytes
    """The backend's configuration as JSON, an object."""

    def offers(self, subnets: Subnets) -> bool:
        """Whether a node may claim these: a subnet of each family that the network has."""
        v4, v6 = subnets.v4, subnets.v6
        if (v4 is None) != (self.v4 is None) or (v6 is None) != (self.v6 is None):
            return False
        v4_fits = v4 is None or self.v4 is None or self.v4.offers(v4)
        return v4_fits and (v6 is None or self.v6 is None or self.v6.offers(v6))


class _Config(msgspec.Struct, kw_only=True):
    enable_v4: bool = msgspec.field(name="EnableIPv4", default=True)
    enable_v6: bool = msgspec.field(name="EnableIPv6", default=False)
    network: Cidr | None = msgspec.field(name="Network", default=None)
    network_v6: Cidr | None = msgspec.field(name="IPv6Network", default=None)
    first: IP | None = msgspec.field(name="SubnetMin", default=None)
    last: IP | None = msgspec.field(name="SubnetMax", default=None)
    first_v6: IP | None = msgspec.field(name="IPv6SubnetMin", default=None)
    last_v6: IP | None = msgspec.field(name="IPv6SubnetMax", default=None)
    length: int = msgspec.field(name="SubnetLen", default=0)
    length_v6: int = msgspec.field(name="IPv6SubnetLen", default=0)
    backend: dict[str, Any] = msgspec.field(name="Backend", default_factory=dict)


def parse_network(value: bytes) -> Network:
    """Read the value of `PREFIX/config`. Raises FlannelError, which names the key that is wrong."""
    try:
        raw = decode_json(value)
    except ValueError as error:
        raise FlannelError(f"config: {error}") from None
    found = decoded_value(raw, _Config, "config")
    if not found.enable_v4 and not found.enable_v6:
        raise FlannelError("config: neither EnableIPv4 nor EnableIPv6")
    v4 = v6 = None
    if found.enable_v4:
        v4 = _pool("", found.network, found.length, found.first, found.last, IPv4Network)
    if found.enable_v6:
        arguments = (found.network_v6, found.length_v6, found.first_v6, found.last_v6)
        v6 = _pool("IPv6", *arguments, IPv6Network)
    # What flannel does without a backend: packets through a program of its own.
    backend_type = member(found.backend, "Type") if found.backend else "udp"
    if not isinstance(backend_type, str) or not backend_type:
        raise FlannelError("config: Backend has no Type")
    return Network(v4, v6, backend_type, msgspec.json.encode(found.backend))


def _pool(
    family: str, network: Cidr | None, length: int, first: IP | None, last: IP | None, kind: type[N]
) -> Pool[N]:
    key = f"config: {family}Network"
    if network is None:
        raise FlannelError(f"{key} is missing")
    whole = network.network
    if not isinstance(whole, kind):
        raise FlannelError(f"{key}: {whole} is of the other family")
    length = _length(f"config: {family}SubnetLen", whole, length)
    size = 1 << (whole.max_prefixlen - length)
    # The first subnet is left out: its first address is that of the network.
    lowest = _subnet(f"config: {family}SubnetMin", whole, length, first, size)
    highest = _subnet(f"config: {family}SubnetMax", whole, length, last, whole.num_addresses - size)
    if highest < lowest:
        raise FlannelError(f"config: {family}SubnetMax is below {family}SubnetMin")
    return Pool(whole, length, lowest, highest)


def _length(key: str, network: IPv4Network | IPv6Network, length: int) -> int:
    bits = network.max_prefixlen
    if not length:
        length = max(_USUAL[network.version], network.prefixlen + _SPLIT_BITS)
    if length > bits - _SPLIT_BITS:
        raise FlannelError(
            f"{key} is {length}, at most {bits - _SPLIT_BITS} leaves a node addresses"
        )
    if length < network.prefixlen + _SPLIT_BITS:
        raise FlannelError(f"{key} is {length}: {network} has no four subnets of that")
    return length


def _subnet(key: str, network: N, length: int, address: IP | None, offset: int) -> N:
    """The subnet at an address, or without one at an offset into the network."""
    kind = type(network)
    if address is None or not int(address):
        return kind((int(network.network_address) + offset, length))
    if address not in network:
        raise FlannelError(f"{key} {address} is not in {network}")
    try:
        return kind((cast("Any", address), length))
    except ValueError:
        raise FlannelError(f"{key} {address} is not where a subnet of /{length} begins") from None
