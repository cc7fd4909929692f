"""A pool in the store, as values: its configuration, and whose the parts of its blocks are; pure.

Below `/cni-py/pools/NAME/`:

    config               the network, its gateway, and how large a block is
    nodes/NODE           under the node's lease: it lives
    wants/NODE           under the node's lease: it needs addresses, and no block is free
    missing/NODE         its lease has ended, which somebody has noticed
    grace/NODE           under a lease of its own, the length of the grace time: not yet
    blocks/ADDRESS-LEN   whose the parts of the block are; no key: the block is free

All blocks of a pool have one size, and each is one key, so that no two records can be about the
same address: a change of a block is a condition on its key alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import msgspec

from .pool_file import ends

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .store import Record

Net = IPv4Network | IPv6Network

PREFIX = "/cni-py/pools"
# A pool has at most 2**16 blocks, and a block 2**16 addresses: both are looked through.
_MOST_BITS = 16
# The smallest part that one node lends another: 4 addresses.
LEAST_BITS = 2
_MOST_GRACE = 366 * 24 * 3600


class PoolError(ValueError):
    """A key or value that makes no sense; the text is one line."""


class PoolConfig(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """A pool: `network` in the form 10.50.0.0/16, `blockLength` the prefix length of a block."""

    network: str
    gateway: str = ""
    range_start: str = ""
    range_end: str = ""
    block_length: int = 0
    """0: blocks of 64 addresses."""
    grace: int = 24 * 3600
    """Seconds after the end of a node's lease before its blocks are given to others."""

    def __post_init__(self) -> None:
        net = ip_network(self.network)
        for text in (self.gateway, self.range_start, self.range_end):
            if text and ip_address(text) not in net:
                raise ValueError(f"{text} is not in {net}")
        least = max(net.prefixlen, net.max_prefixlen - _MOST_BITS)
        if not least <= self.length <= net.max_prefixlen - LEAST_BITS:
            raise ValueError(f"blockLength {self.length} does not fit {net}")
        if self.length - net.prefixlen > _MOST_BITS:
            raise ValueError(f"{net} has more than {1 << _MOST_BITS} blocks of /{self.length}")
        if not 1 <= self.grace <= _MOST_GRACE:
            raise ValueError(f"grace is 1 to {_MOST_GRACE} seconds")

    @property
    def net(self) -> Net:
        """The network."""
        return ip_network(self.network)

    @property
    def length(self) -> int:
        """A block's prefix length."""
        net = self.net
        return self.block_length or max(net.prefixlen, net.max_prefixlen - 6)

    @property
    def size(self) -> int:
        """A block's addresses."""
        return 1 << (self.net.max_prefixlen - self.length)

    def usable(self, net: Net) -> tuple[int, int, int]:
        """The first and the last address of `net` that can be given out, and how many can be."""
        lowest, highest = ends(self.network, self.range_start, self.range_end)
        first, last = max(int(net[0]), lowest), min(int(net[-1]), highest)
        gateway = int(ip_address(self.gateway)) if self.gateway else -1
        return first, last, max(last - first + 1, 0) - (first <= gateway <= last)

    def blocks(self, node: str) -> Iterator[Net]:
        """Every block that has an address to give out, from one on that depends on the node."""
        net, size = self.net, self.size
        lowest = int(ip_address(self.range_start)) if self.range_start else int(net[0])
        highest = int(ip_address(self.range_end)) if self.range_end else int(net[-1])
        first = (lowest - int(net[0])) // size
        number = (highest - int(net[0])) // size - first + 1
        start = int.from_bytes(sha256(node.encode()).digest()[:8]) % number
        for step in range(number):
            at = int(net[0]) + (first + (start + step) % number) * size
            yield (
                ip_network((at, self.length))
                if net.version == 4
                else IPv6Network((at, self.length))
            )


class Part(msgspec.Struct, frozen=True, order=True):
    """A part of a block, and the node that has it."""

    prefix: str
    node: str

    @property
    def net(self) -> Net:
        """The part's addresses."""
        return ip_network(self.prefix)


@dataclass(frozen=True, slots=True)
class Block:
    """A block's record: `modified` is its revision in the store, 0 where there is none."""

    net: Net
    parts: tuple[Part, ...] = ()
    modified: int = 0

    @property
    def key(self) -> str:
        """The key below the pool's."""
        return f"blocks/{self.net.network_address}-{self.net.prefixlen}"

    def of(self, node: str) -> list[Net]:
        """The node's parts."""
        return [one.net for one in self.parts if one.node == node]

    def free(self) -> list[Net]:
        """What is nobody's, in as few prefixes as there can be; the largest first."""
        left: list[Net] = [self.net]
        for part in self.parts:
            left = [rest for one in left for rest in without(one, part.net)]
        return sorted(_collapsed(left), key=lambda one: one.prefixlen)

    def taking(self, net: Net, node: str) -> tuple[Part, ...]:
        """The parts once the node has `net`, which is nobody's."""
        return self._joined([*self.parts, Part(str(net), node)])

    def leaving(self, net: Net, node: str) -> tuple[Part, ...]:
        """The parts once the node has no address of `net`."""
        kept = [one for one in self.parts if one.node != node]
        for own in self.of(node):
            kept += [Part(str(rest), node) for rest in without(own, net)]
        return self._joined(kept)

    def without(self, node: str) -> tuple[Part, ...]:
        """The parts once the node has none."""
        return tuple(one for one in self.parts if one.node != node)

    def _joined(self, parts: Iterable[Part]) -> tuple[Part, ...]:
        of: dict[str, list[Net]] = {}
        for one in parts:
            of.setdefault(one.node, []).append(one.net)
        return tuple(sorted(
            Part(str(net), node) for node, nets in of.items() for net in _collapsed(nets)
        ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pool:
    """All of a pool at one revision. `nodes`, `wants`, `missing`, `grace`: revision by node."""

    config: PoolConfig
    config_modified: int
    blocks: Mapping[str, Block]
    nodes: Mapping[str, int]
    wants: Mapping[str, int]
    missing: Mapping[str, int]
    grace: Mapping[str, int]
    refused: tuple[str, ...] = ()
    """What makes no sense, a line each: such a block is nobody's to take."""

    def of(self, node: str) -> list[tuple[Block, Net]]:
        """The node's parts with their blocks."""
        return [(block, net) for block in self.blocks.values() for net in block.of(node)]

    def owners(self) -> set[str]:
        """The nodes that have a part."""
        return {part.node for block in self.blocks.values() for part in block.parts}

    def claimable(self, node: str) -> tuple[Block, Net] | None:
        """What the node can claim: a free block, else the largest free part; or None."""
        for net in self.config.blocks(node):
            block = Block(net)
            if block.key not in self.blocks:
                return block, net
        parts = [(block, net) for block in self.blocks.values() for net in block.free()[:1]]
        return min(parts, key=lambda one: one[1].prefixlen, default=None)


def encode(parts: tuple[Part, ...]) -> bytes:
    """A block's value."""
    return msgspec.json.encode({"parts": parts})


class _Value(msgspec.Struct, frozen=True):
    parts: tuple[Part, ...]


def pool_of(records: Iterable[Record], prefix: str) -> Pool:
    """The pool that the records below `prefix` say. Raises PoolError without a sound `config`."""
    config: PoolConfig | None = None
    modified = 0
    seen: list[tuple[str, Record]] = []
    by: dict[str, dict[str, int]] = {"nodes": {}, "wants": {}, "missing": {}, "grace": {}}
    for record in records:
        kind, _, rest = record.key.removeprefix(prefix).partition("/")
        if kind == "config" and not rest:
            config, modified = parse_config(record.value), record.modified
        elif kind == "blocks":
            seen.append((rest, record))
        elif kind in by and rest:
            by[kind][rest] = record.modified
    if config is None:
        raise PoolError("there is no such pool in the store")
    blocks: dict[str, Block] = {}
    refused = []
    for rest, record in seen:
        try:
            block = _block(config, rest, record)
        except (ValueError, RecursionError) as error:
            refused.append(f"{record.key}: {error}")
            # Nobody may take it, whatever it was to say.
            blocks[f"blocks/{rest}"] = Block(config.net, (Part(config.network, ""),))
        else:
            blocks[block.key] = block
    return Pool(config, modified, blocks, **by, refused=tuple(refused))


def parse_config(value: bytes) -> PoolConfig:
    """The value of a pool's `config`. Raises PoolError."""
    try:
        return msgspec.json.decode(value, type=PoolConfig)
    except (ValueError, RecursionError) as error:
        raise PoolError(f"its configuration makes no sense: {error}") from None


def _block(config: PoolConfig, rest: str, record: Record) -> Block:
    address, _, length = rest.rpartition("-")
    net: Any = ip_network(f"{address}/{length}")
    if net.prefixlen != config.length or not net.subnet_of(config.net):
        raise ValueError("it is no block of the pool")
    parts = msgspec.json.decode(record.value, type=_Value).parts
    left = [net]
    for one in parts:
        own = one.net
        if not one.node or not any(is_within(own, free) for free in left):
            raise ValueError(f"{one.prefix} is no part of it, or another's too")
        left = [more for free in left for more in without(free, own)]
    return Block(net, tuple(parts), record.modified)


def is_within(one: Any, other: Any) -> bool:
    """Whether a network is part of another, or all of it; of the other family it is none."""
    return one.version == other.version and bool(one.subnet_of(other))


def without(one: Any, other: Any) -> list[Net]:
    """What is left of a network that lacks another."""
    if not one.overlaps(other):
        return [one]
    if one.subnet_of(other):
        return []
    return list(one.address_exclude(other))


def _collapsed(nets: Iterable[Any]) -> list[Net]:
    return list(collapse_addresses(nets))
