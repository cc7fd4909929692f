"""How full host-local's ranges are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.inventory import pools
from cni_py.ipam import listing

from .finding import broken, fine, look, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.inventory.model import Pool

    from .examinations import Places
    from .finding import Finding

_NEARLY = 0.8


def examine(places: Places) -> Iterator[Finding]:
    """Look at each range of each network."""
    if os.geteuid() != 0:
        yield unseen("only root can read who has which address", "sudo cni-py doctor")
        return
    runs = pools.runs_of(places.configured)
    for network in listing.networks(places.data_dir):
        listed = listing.listing(places.data_dir, network)
        if listed is not None:
            yield from _pool(pools.pool(network, listed, runs.get(network, ()), {}))
            for one in listed.allocations:
                if one.problem:
                    text = f"{one.path} is damaged: {one.problem}"
                    yield look(text, f"cni-py ipam repair {network}")


def _pool(pool: Pool) -> Iterator[Finding]:
    remedy = f"cni-py ipam show {pool.network}; cni-py ipam repair {pool.network}"
    for one in pool.ranges:
        free = max(one.size - one.given, 0)
        text = f"{pool.network}: {one.given} addresses of {one.first}-{one.last} are given"
        if not free:
            yield broken(f"{text}, none is free: ADD fails", remedy)
        elif one.given > one.size * _NEARLY:
            yield look(f"{text}, {free} are free", remedy)
        else:
            yield fine(f"{text}, {free} are free")
