"""The ranges of host-local's networks, and how full they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from cni_py.inventory import pools
from cni_py.inventory.configurations import configured
from cni_py.ipam import listing
from cni_py.ipam.store import DEFAULT_DATA_DIR
from cni_py.spec.addresses import parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.inventory.model import Pool, PoolRange, Problem

# The number of a range that no configuration has.
_NO_SET = -1


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """One range of a network.

    `subnet` is empty and `range_set` -1 where no configuration is known: then nor is what is
    reserved, which is the gateway if it is among the `size` addresses. `free` are those that are
    left, `last_reserved` is the range set's. A row without `first` counts what is in no range.
    """

    network: str
    range_set: int
    first: str
    last: str
    subnet: str
    size: int
    given: int
    reserved: int
    free: int
    last_reserved: str = ""


def ranges(data_dir: str, conf_dir: str) -> tuple[list[Range], list[str]]:
    """Every network's ranges, and what of the configurations could not be read."""
    problems: list[Problem] = []
    files = configured(problems, conf_dir)
    own = [one for one in files if _same(one.data_dir() or DEFAULT_DATA_DIR, data_dir)]
    runs = pools.runs_of(own)
    rows: list[Range] = []
    for network in listing.networks(data_dir):
        listed = listing.listing(data_dir, network)
        if listed is not None:
            rows += _rows(pools.pool(network, listed, runs.get(network, ()), {}))
    return rows, [f"{one.subject}: {one.text}" for one in problems]


def _rows(pool: Pool) -> Iterator[Range]:
    for one in pool.ranges:
        yield _row(pool, one)
    inside = sum(one.given for one in pool.ranges)
    if outside := len(pool.given) - inside:
        yield Range(
            network=pool.network,
            range_set=_NO_SET,
            first="",
            last="",
            subnet="",
            size=0,
            given=outside,
            reserved=0,
            free=0,
        )


def _row(pool: Pool, one: PoolRange) -> Range:
    # The pool's sizes are without the gateway.
    first, last = (int(parse_ip(end)) for end in (one.first, one.last))
    reserved = max(last - first + 1 - one.size, 0) if one.subnet else 0
    return Range(
        network=pool.network,
        range_set=one.set if one.subnet else _NO_SET,
        first=one.first,
        last=one.last,
        subnet=one.subnet,
        size=one.size + min(reserved, 1),
        given=one.given,
        reserved=min(reserved, 1),
        free=max(one.size - one.given, 0),
        last_reserved=pool.last_reserved.get(str(one.set), ""),
    )


def _same(one: str, other: str) -> bool:
    return os.path.normpath(one) == os.path.normpath(other)
