"""Which subnets a node can claim; pure but for the dice."""

from __future__ import annotations

import random
from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, TypeVar

from .flannel import Subnets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .flannel_network import Network, Pool

N = TypeVar("N", IPv4Network, IPv6Network)

# Throws before all that is free is listed, and the largest pool for which that is done.
_THROWS = 64
_MOST_LISTED = 1 << 20


class Taken:
    """Subnets that others have, of any length."""

    def __init__(self, leased: Iterable[Subnets]) -> None:
        spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for subnets in leased:
            for one in (subnets.v4, subnets.v6):
                if one is not None:
                    span = (int(one.network_address), int(one.broadcast_address))
                    spans[one.version].append(span)
        self._spans = {version: _merged(found) for version, found in spans.items()}

    def has(self, subnet: IPv4Network | IPv6Network) -> bool:
        """Whether anybody has a part of it."""
        spans = self._spans[subnet.version]
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        place = bisect_right(spans, (last, 1 << 130))
        return place > 0 and spans[place - 1][1] >= first

    def has_any(self, subnets: Subnets) -> bool:
        """Whether anybody has a part of one of them."""
        return any(one is not None and self.has(one) for one in (subnets.v4, subnets.v6))


def choose(network: Network, taken: Taken) -> Subnets | None:
    """A free subnet of each family that the network has, by chance; None if one is all taken."""
    v4 = None if network.v4 is None else _free(network.v4, taken)
    v6 = None if network.v6 is None else _free(network.v6, taken)
    if (v4 is None) != (network.v4 is None) or (v6 is None) != (network.v6 is None):
        return None
    return Subnets(v4, v6)


def _free(pool: Pool[N], taken: Taken) -> N | None:
    count = pool.count
    for _ in range(_THROWS):
        found = pool.at(random.randrange(count))  # noqa: S311 - no secret
        if not taken.has(found):
            return found
    if count > _MOST_LISTED:
        return None
    left = [index for index in range(count) if not taken.has(pool.at(index))]
    return pool.at(random.choice(left)) if left else None  # noqa: S311 - no secret


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same, sorted and without overlaps."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
