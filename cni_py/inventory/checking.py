"""What does not fit of what was found: as CHECK would see it, without running a plugin."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from .model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .model import Attached, Interface, Inventory, PoolRange


def problems_of(inventory: Inventory) -> list[Problem]:
    """The problems of all attachments, and addresses that two of them have."""
    bridges = {one.interface.name: one.interface for one in inventory.bridges}
    ranges = {one.network: one.ranges for one in inventory.pools}
    given = {(one.network, it.address) for one in inventory.pools for it in one.given}
    found = []
    for one in inventory.attachments:
        texts = [*_of_state(one), *_of_ends(one, bridges), *_of_inside(one)]
        if one.state != "gone":
            texts += _of_allocation(one, ranges.get(one.network, ()), given)
        found += [Problem(subject=one.container_id, text=text, key=one.key) for text in texts]
    return [*found, *_shared(inventory)]


def _of_state(one: Attached) -> Iterator[str]:
    if one.state == "gone":
        keeps = f" and it still has {', '.join(one.addresses)}" if one.addresses else ""
        yield f"{one.why}{keeps}: cni-py gc takes away what is left of it"
    elif one.state in ("down", "missing"):
        yield one.why
    elif one.namespace is not None and one.namespace.why:
        yield f"cannot be looked into: {one.namespace.why}"


def _of_ends(one: Attached, bridges: dict[str, Interface]) -> Iterator[str]:
    port, inside = one.host, one.inside
    if port is None:
        return
    if inside is not None and inside.mtu != port.mtu:
        yield f"MTU {inside.mtu} of {inside.name}, but {port.mtu} of its host end {port.name}"
    if inside is not None and inside.up and not port.up:
        yield f"its host end {port.name} is down"
    bridge = bridges.get(port.master)
    if bridge is not None and not bridge.up:
        yield f"its bridge {bridge.name} is down"
    if not port.master and one.plugins[:1] == ("bridge",):
        yield f"its host end {port.name} is on no bridge any more"


def _of_inside(one: Attached) -> Iterator[str]:
    inside = one.inside
    if inside is None:
        return
    have = {address.partition("/")[0] for address in inside.addresses}
    for address in one.expected:
        if address.partition("/")[0] not in have:
            yield f"{one.ifname} does not have its address {address}"
    if one.expected_mac and one.expected_mac.lower() != inside.mac:
        yield f"{one.ifname} has the hardware address {inside.mac}, not {one.expected_mac}"
    reached = {(route.destination, route.table) for route in one.routes}
    for route in one.expected_routes:
        if (route.destination, route.table) not in reached and inside.up:
            yield f"{one.ifname} does not have its route to {route.destination}"
    for it in one.sysctls:
        if it.live is not None and it.live.split() != it.wanted.split():
            yield f"{it.key.replace('/', '.')} is {it.live}, tuning has set {it.wanted}"


def _of_allocation(
    one: Attached, ranges: Sequence[PoolRange], given: set[tuple[str, str]]
) -> Iterator[str]:
    for address in one.expected:
        plain = address.partition("/")[0]
        if (one.network, plain) not in given and any(_is_in(plain, run) for run in ranges):
            yield f"host-local has no file of {plain}: it may give the address to another container"


def _is_in(address: str, run: PoolRange) -> bool:
    first, own, last = map(ip_address, (run.first, address, run.last))
    return own.version == first.version and int(first) <= int(own) <= int(last)


def _shared(inventory: Inventory) -> Iterator[Problem]:
    """An address that two containers of a network have: one of them is not reached."""
    holders: dict[tuple[str, str], list[Attached]] = defaultdict(list)
    for one in inventory.attachments:
        if one.inside is not None:
            for address in one.inside.addresses:
                holders[one.network, address.partition("/")[0]].append(one)
    for (_, address), several in holders.items():
        for one in several[1:]:
            text = f"{address} is also that of {several[0].container_id} ({several[0].ifname})"
            yield Problem(subject=one.container_id, text=text, key=one.key)
