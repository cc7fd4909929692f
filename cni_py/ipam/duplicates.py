"""What host-local's folders have given twice, so that two containers share an address; pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_py.spec.addresses import IP

    from .index import Owner
    from .listing import Listing


class Duplicate(NamedTuple):
    """Something that is there twice: what, and the files that say so."""

    what: str
    where: tuple[str, ...]


def duplicates(listings: Mapping[str, Listing]) -> list[Duplicate]:
    """Addresses with two files, and owners with more addresses than there are range sets.

    `listings` are by network.
    """
    several: dict[IP, list[str]] = {}
    found = []
    for network, listed in listings.items():
        for one in listed.allocations:
            several.setdefault(one.address, []).append(one.path)
        sets = max((int(one) for one in listed.last_reserved if one.isdecimal()), default=0) + 1
        held: Counter[Owner] = Counter(
            one.owner for one in listed.allocations if one.owner is not None
        )
        for owner, number in held.items():
            if number > sets:
                what = f"{owner.container_id}/{owner.ifname} holds {number} addresses, and "
                files = (one.path for one in listed.allocations if one.owner == owner)
                found.append(Duplicate(f"{what}{network} gives {sets}", tuple(files)))
    twice = [
        Duplicate(f"{address} is given twice", tuple(paths))
        for address, paths in several.items()
        if len(paths) > 1
    ]
    return twice + found
