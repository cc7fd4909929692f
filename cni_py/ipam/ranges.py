"""Ranges and range sets of host-local: canonical form and validation, pure (plugins.md 5.1.2)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.spec.addresses import IP, Cidr
from cni_py.spec.errors import CniError, Code, refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_py.spec.addresses import Network

_MIN_HOST_BITS = 2
_SET_PER_FAMILY_SINCE = "0.3.0"


class RangeConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One range as configured; what is left out follows from the subnet."""

    subnet: Cidr
    """A prefix with at least two host bits, and none of them set."""
    range_start: IP | None = None
    """The first address to give out; none: the subnet's first."""
    range_end: IP | None = None
    """The last address to give out; none: the subnet's last."""
    gateway: IP | None = None
    """Never given out; none: the subnet's first address."""


class Range(NamedTuple):
    """A run of addresses of one subnet, `first` and `last` as integers, both included."""

    subnet: Network
    first: int
    last: int
    gateway: IP

    @property
    def size(self) -> int:
        """How many addresses the run has, the gateway among them."""
        return self.last - self.first + 1

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.subnet.version

    def address(self, position: int) -> IP:
        """The address at `position`, from 0."""
        return type(self.gateway)(self.first + position)

    def position(self, address: IP) -> int | None:
        """Where `address` is in the run; None if it is not in it."""
        if address.version != self.version or not self.first <= int(address) <= self.last:
            return None
        return int(address) - self.first

    def __str__(self) -> str:
        return f"{self.address(0)}-{self.address(self.size - 1)}"


RangeSet = tuple[Range, ...]


def range_sets(
    configured: Sequence[tuple[Sequence[RangeConfig], str]], cni_version: str
) -> tuple[RangeSet, ...]:
    """The range sets in canonical form; each comes with the JSON path it was written at.

    Raises CniError 7 for what contradicts itself.
    """
    if not configured:
        raise _refusal("no IP ranges specified", "ipam.ranges has at least one range set")
    sets = tuple(
        _range_set(ranges, path, f"invalid range set {index}: ")
        for index, (ranges, path) in enumerate(configured)
    )
    _require_one_per_family(sets, cni_version)
    both = _overlapping((one, index) for index, ranges in enumerate(sets) for one in ranges)
    if both is not None:
        index, other_index = sorted(number for _, number in both)
        path = f"{configured[index][1]} and {configured[other_index][1]}"
        msg = f"range set {index} overlaps with {other_index}"
        raise _refusal(msg, path, configured[other_index][1])
    return sets


def range_mistakes(
    configured: Sequence[tuple[Sequence[RangeConfig], str]], cni_version: str
) -> Iterator[CniError]:
    """What is wrong with each range; with none, what is wrong with them together."""
    wrong = [
        error
        for index, (ranges, path) in enumerate(configured)
        for one, at in _placed(ranges, path)
        for error in refusals(at, _range, one, at, f"invalid range set {index}: ")
    ]
    yield from wrong or refusals("ipam", range_sets, configured, cni_version)


def describe(ranges: Iterable[Range]) -> str:
    """A range set as its runs, joined by commas."""
    return ",".join(str(one) for one in ranges)


def _range_set(ranges: Sequence[RangeConfig], path: str, prefix: str) -> RangeSet:
    if not ranges:
        raise _refusal(f"{prefix}empty range set", f"{path} has at least one range", path)
    canonical = tuple(_range(one, at, prefix) for one, at in _placed(ranges, path))
    if len({one.version for one in canonical}) > 1:
        msg = f"{prefix}mixed address families"
        raise _refusal(msg, f"{path} has IPv4 and IPv6 subnets: give each its own range set", path)
    both = _overlapping((one, index) for index, one in enumerate(canonical))
    if both is not None:
        first, second = (one for one, _ in sorted(both, key=lambda pair: pair[1]))
        raise _refusal(f"{prefix}subnets {first} and {second} overlap", path, path)
    return canonical


def _placed(ranges: Sequence[RangeConfig], path: str) -> Iterator[tuple[RangeConfig, str]]:
    """Each range with its own path."""
    # The older form of one range stands in `ipam` itself, not in a list.
    in_list = path.endswith("]")
    for index, one in enumerate(ranges):
        yield one, f"{path}[{index}]" if in_list else path


def _range(config: RangeConfig, path: str, prefix: str) -> Range:
    subnet = config.subnet.network
    host_bits = subnet.max_prefixlen - subnet.prefixlen
    if host_bits < _MIN_HOST_BITS:
        msg = f"{prefix}Network {config.subnet} too small to allocate from"
        raise _refusal(
            msg, f"{path}.subnet needs at least {_MIN_HOST_BITS} host bits", f"{path}.subnet"
        )
    if config.subnet.ip != subnet.network_address:
        msg = (
            f"{prefix}Network has host bits set. For a subnet mask of length "
            f"{subnet.prefixlen} the network address is {subnet.network_address}"
        )
        raise _refusal(msg, f"{path}.subnet is {config.subnet}", f"{path}.subnet")
    for address, key in ((config.range_start, "RangeStart"), (config.range_end, "RangeEnd")):
        if address is not None and address not in subnet:
            name = key[0].lower() + key[1:]
            msg = f"{prefix}{key} {address} not in network {subnet}"
            raise _refusal(msg, f"{path}.{name}", f"{path}.{name}")
    first, last = _ends(config)
    if first > last:
        # The reference blames the start where it is given.
        which = "RangeEnd" if config.range_start is None else "RangeStart"
        value = config.range_start or config.range_end
        msg = f"{prefix}{which} {value} not in network {subnet}"
        key = f"{path}.{which[0].lower()}{which[1:]}"
        raise _refusal(msg, f"{path} ends before it starts", key)
    gateway = config.gateway or subnet.network_address + 1
    if gateway.version != subnet.version:
        msg = f"{prefix}gateway {gateway} is not of the family of {subnet}"
        raise _refusal(msg, f"{path}.gateway", f"{path}.gateway")
    return Range(subnet, first, last, gateway)


def _ends(config: RangeConfig) -> tuple[int, int]:
    """The first and the last address as integers."""
    subnet = config.subnet.network
    # The last address of an IPv4 subnet is its broadcast address; IPv6 has none.
    highest = int(subnet.broadcast_address) - (1 if subnet.version == 4 else 0)
    first = int(subnet.network_address) + 1
    return (
        first if config.range_start is None else int(config.range_start),
        highest if config.range_end is None else int(config.range_end),
    )


def _overlapping(numbered: Iterable[tuple[Range, int]]) -> tuple[tuple[Range, int], ...] | None:
    """Two of the ranges that overlap. Those that do not are in order once they are sorted."""
    ordered = sorted(numbered, key=lambda pair: (pair[0].version, pair[0].first))
    for before, after in pairwise(ordered):
        if before[0].version == after[0].version and after[0].first <= before[0].last:
            return before, after
    return None


def _require_one_per_family(sets: Iterable[RangeSet], cni_version: str) -> None:
    """Results before 0.3.0 have room for one address of each family."""
    versions = [one[0].version for one in sets]
    if cni_version in ("0.1.0", "0.2.0") and len(versions) != len(set(versions)):
        msg = f"CNI version {cni_version} does not support more than 1 address per family"
        raise _refusal(msg, f"use cniVersion {_SET_PER_FAMILY_SINCE} or newer")


def _refusal(msg: str, details: str, key: str = "") -> CniError:
    return CniError(Code.INVALID_CONFIG, msg, details, key=key)
