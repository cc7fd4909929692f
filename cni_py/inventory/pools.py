"""host-local's pools: the addresses of each network, given and free."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni_py.ipam import listing
from cni_py.ipam.store import DEFAULT_DATA_DIR
from cni_py.spec.addresses import cidr

from .model import MOST_COUNTED, Given, Pool, PoolRange, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cni_py.ipam.listing import Listing
    from cni_py.ipam.ranges import Range

    from .configurations import Configured
    from .model import State

Runs = tuple[tuple[int, "Range"], ...]


def listings(configurations: Iterable[Configured]) -> dict[tuple[str, str], Listing]:
    """What is allocated, by network and folder: of the default folder and those configured."""
    places = [(DEFAULT_DATA_DIR, name) for name in listing.networks(DEFAULT_DATA_DIR)]
    for one in configurations:
        folder = one.data_dir()
        if folder and folder != DEFAULT_DATA_DIR:
            places.append((folder, one.network.name))
    found = {}
    for folder, name in dict.fromkeys(places):
        listed = listing.listing(folder, name)
        if listed is not None:
            found[name, folder] = listed
    return found


def runs_of(configurations: Iterable[Configured]) -> dict[str, Runs]:
    """Each network's ranges with their set's number, each range once.

    Configurations that are first in the order win; those that runtimes brought come with caches.
    """
    found: dict[str, dict[tuple[int, int, int], tuple[int, Range]]] = {}
    for one in configurations:
        own = found.setdefault(one.network.name, {})
        for number, ranges in enumerate(one.ranges()):
            for run in ranges:
                own.setdefault((run.version, run.first, run.last), (number, run))
    return {name: tuple(own.values()) for name, own in found.items() if own}


def pool(
    network: str, listed: Listing, runs: Runs, states: Mapping[tuple[str, str], State]
) -> Pool:
    """A network's pool; `states` are those of the owners, by container and interface."""
    ranges = tuple(_range(run, number, listed) for number, run in runs)
    if not ranges:
        ranges = tuple(_unconfigured(one, listed) for one in listed.runs)
    given = []
    for one in listed.allocations:
        owner = ("", "") if one.owner is None else (one.owner.container_id, one.owner.ifname)
        inside = [run for _, run in runs if run.position(one.address) is not None]
        given.append(
            Given(
                address=str(one.address),
                container_id=owner[0],
                ifname=owner[1],
                since=one.since,
                path=one.path,
                state=states.get(owner, "unknown"),
                outside=bool(runs) and not inside,
            )
        )
    return Pool(
        network=network,
        folder=listed.folder,
        ranges=ranges,
        given=tuple(given),
        last_reserved=listed.last_reserved,
        damaged=listed.damaged,
    )


def _range(run: Range, number: int, listed: Listing) -> PoolRange:
    has_gateway = run.position(run.gateway) is not None
    return PoolRange(
        subnet=str(run.subnet),
        first=str(run.address(0)),
        last=str(run.address(run.size - 1)),
        gateway=str(run.gateway),
        size=min(run.size - has_gateway, MOST_COUNTED),
        given=sum(run.position(one.address) is not None for one in listed.allocations),
        set=number,
    )


def _unconfigured(run: tuple[int, int, int], listed: Listing) -> PoolRange:
    first, last, version = run
    held = sum(
        one.address.version == version and first <= int(one.address) <= last
        for one in listed.allocations
    )
    # An integer alone would be IPv4 where it is small.
    ends = (ip_address(one.to_bytes(4 if version == 4 else 16)) for one in (first, last))
    start, end = map(str, ends)
    size = min(last - first + 1, MOST_COUNTED)
    return PoolRange(subnet="", first=start, last=end, gateway="", size=size, given=held)


def with_prefix(address: str, runs: Runs) -> str:
    """An allocated address with its subnet's prefix length, as far as a configuration tells it."""
    own = ip_address(address)
    for _, run in runs:
        if own in run.subnet:
            return str(cidr(own, run.subnet.prefixlen))
    return address


def damage(pools: Iterable[Pool]) -> Iterator[Problem]:
    """What is damaged in the pools, and what holds addresses though it is gone."""
    for one in pools:
        for path in one.damaged:
            yield Problem(
                subject=path, text="is damaged: its address is put right by the next call"
            )
        full = [run for run in one.ranges if run.given >= run.size]
        for run in full:
            text = f"range {run.first}-{run.last} has no address left"
            yield Problem(subject=one.network, text=text)
