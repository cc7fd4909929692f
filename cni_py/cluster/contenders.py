"""Who claims what another one claims too: an index of subnets and of what only one host can have.

Asking it takes as long with thousands of claims as with ten, unless they are of one subnet.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.addresses import Network

# A version, a first address and a prefix length.
_Span = tuple[int, int, int]


class Contenders:
    """Claims by key, those that exclude each other too."""

    def __init__(self) -> None:
        self._ends: dict[str, set[str]] = defaultdict(set)
        self._whose: dict[_Span, set[str]] = defaultdict(set)
        self._spans: list[_Span] = []
        # How many spans there are of a version and length.
        self._lengths: Counter[tuple[int, int]] = Counter()

    def add(self, key: str, subnets: Iterable[Network], ends: Iterable[str]) -> None:
        """Enter a claim, whose key is not there."""
        for end in ends:
            self._ends[end].add(key)
        for span in map(_span, subnets):
            if span not in self._whose:
                insort(self._spans, span)
                self._lengths[span[0], span[2]] += 1
            self._whose[span].add(key)

    def remove(self, key: str, subnets: Iterable[Network], ends: Iterable[str]) -> None:
        """Take a claim out, which was entered so."""
        for end in ends:
            self._ends[end].discard(key)
            if not self._ends[end]:
                del self._ends[end]
        for span in map(_span, subnets):
            self._whose[span].discard(key)
            if not self._whose[span]:
                del self._whose[span]
                del self._spans[bisect_left(self._spans, span)]
                self._lengths[span[0], span[2]] -= 1

    def of(self, subnets: Iterable[Network], ends: Iterable[str]) -> set[str]:
        """The keys of the claims that have a part of a subnet, or an end, in common with these."""
        found: set[str] = set()
        for end in ends:
            found |= self._ends.get(end, set())
        for subnet in subnets:
            for span in self._overlapping(subnet):
                found |= self._whose[span]
        return found

    def _overlapping(self, subnet: Network) -> Iterator[_Span]:
        version, start, length = _span(subnet)
        # What is in it, itself included; then what it is in.
        last = int(subnet.broadcast_address)
        place = bisect_left(self._spans, (version, start, length))
        while place < len(self._spans) and self._spans[place][:2] <= (version, last):
            yield self._spans[place]
            place += 1
        bits = subnet.max_prefixlen
        for (one, shorter), count in self._lengths.items():
            if one == version and shorter < length and count:
                around = version, start >> (bits - shorter) << (bits - shorter), shorter
                if around in self._whose:
                    yield around


def _span(subnet: Network) -> _Span:
    return subnet.version, int(subnet.network_address), subnet.prefixlen
