"""What `cni-py ipam` finds in host-local's folders, and what it changes there."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from cni_py.ipam.duplicates import duplicates
from cni_py.ipam.listing import Listing, listing, networks
from cni_py.ipam.store import Store
from cni_py.plugins.evidence import Evidence
from cni_py.spec.addresses import parse_ip
from cni_py.spec.attachment import Attachment
from cni_py.spec.names import beginning_with

from .group import Failed, Unreadable
from .naming import several
from .output import tracked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.ipam.listing import Allocation

# Seconds are what a person needs, and what the file's time can tell.
_TIME = "%Y-%m-%dT%H:%M:%S%z"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One address that was given.

    `since` is RFC 3339 in local time. `state` is alive, gone, unknown or damaged, `why` says from
    what that is known. `netns` is empty where nobody recorded the namespace.
    """

    network: str
    address: str
    container: str
    ifname: str
    since: str
    state: str
    why: str
    netns: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is put right in a network's folder.

    `action` is `make the index anew`, or with the file of an `address`: `free`, `mend` (its owner
    is written into it again) or `take away`.
    """

    network: str
    action: str
    address: str
    why: str

    def path(self, seen: Listing) -> str:
        """The address's file."""
        return os.path.join(seen.folder, self.address)


class Twice(msgspec.Struct, frozen=True, kw_only=True):
    """What is given twice, and the files that say so."""

    what: str
    where: tuple[str, ...]


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What `repair` has done, or would do."""

    networks: tuple[str, ...]
    changes: tuple[Change, ...]
    duplicates: tuple[Twice, ...]


def require_network(data_dir: str, network: str) -> None:
    """Raise Unreadable for a network that has no folder there."""
    have = networks(data_dir)
    if network not in have:
        there = f"there are {', '.join(have)}" if have else "there is none"
        raise Unreadable(f"{data_dir} has no network {network!r}: {there}")


def shown(data_dir: str, network: str) -> list[Shown]:
    """Every address of a network. Raises KernelError."""
    evidence = Evidence()
    return [_shown(network, one, evidence) for one in _looked_at(data_dir, network).allocations]


def _looked_at(data_dir: str, network: str) -> Listing:
    """A network's folder, with its lock held meanwhile. Raises CniError 11, KernelError."""
    with Store(data_dir, network).unchanged():
        found = listing(data_dir, network)
    return found or Listing("", (), {}, (), ())


def found(data_dir: str, wanted: str, network: str) -> list[Shown]:
    """What an address, a container's id or the beginning of one names.

    Raises Failed where there is nothing, or an address is given on several networks, Unreadable
    where several ids begin so.
    """
    if network:
        require_network(data_dir, network)
    rows = [
        one
        for name in ([network] if network else networks(data_dir))
        for one in shown(data_dir, name)
    ]
    try:
        address = str(parse_ip(wanted))
    except ValueError:
        return _of_container(rows, wanted)
    matching = [one for one in rows if one.address == address]
    if not matching:
        where = f"on {network}" if network else f"in {data_dir}"
        raise Failed(f"{address} is given to nobody {where}")
    if len(matching) > 1:
        names = ", ".join(one.network for one in matching)
        raise Failed(f"{address} is given on {names}: say which with --network")
    if matching[0].state == "damaged":
        raise Failed(f"the file of {address} is damaged ({matching[0].why}): cni-py ipam repair")
    return matching


def _of_container(rows: list[Shown], wanted: str) -> list[Shown]:
    ids = beginning_with(wanted, (one.container for one in rows))
    if not ids:
        raise Failed(f"{wanted} holds no address: it is no address, nor the beginning of an id")
    if len(ids) > 1:
        raise several(wanted, ids)
    return [one for one in rows if one.container in ids]


def release_all(data_dir: str, rows: Iterable[Shown]) -> list[Shown]:
    """Free each address that still is its owner's; returns those. Raises CniError 11."""
    done = []
    for one in rows:
        with Store(data_dir, one.network).locked() as allocations:
            owner = allocations.holder(parse_ip(one.address))
            same = owner is not None and (one.container, one.ifname) == owner
            if owner is not None and same and allocations.free(owner, parse_ip(one.address)):
                done.append(one)
    return done


def repair_all(data_dir: str, network: str | None, *, dry: bool) -> Repaired:
    """Put one network's folder in order, or all of them. Raises CniError, Unreadable."""
    if network is not None:
        require_network(data_dir, network)
    names = networks(data_dir) if network is None else [network]
    changes: list[Change] = []
    for name in tracked(names, "networks", len(names)):
        looked = _looked_at(data_dir, name)
        changes += _expected(name, looked) if dry else _repaired(data_dir, name, looked)
    everywhere = {one: _looked_at(data_dir, one) for one in networks(data_dir)}
    twice = duplicates(everywhere)
    if network is not None:
        folder = Store(data_dir, network).folder
        twice = [one for one in twice if any(path.startswith(f"{folder}/") for path in one.where)]
    listed = tuple(Twice(what=one.what, where=one.where) for one in twice)
    return Repaired(networks=tuple(names), changes=tuple(changes), duplicates=listed)


def _repaired(data_dir: str, network: str, before: Listing) -> list[Change]:
    with Store(data_dir, network).locked() as allocations:
        allocations.rebuild()
        allocations.settle()
        after = listing(data_dir, network) or before
    there = {one.path for one in after.allocations}
    right = {one.path for one in after.allocations if not one.problem}
    # What others did between the two looks is not ours to report.
    return [
        one
        for one in _expected(network, before)
        if not one.address or one.path(after) not in there or one.path(after) in right
    ]


def _expected(network: str, seen: Listing) -> list[Change]:
    changes = []
    if why := seen.behind:
        changes.append(Change(network=network, action="make the index anew", address="", why=why))
    for one in seen.allocations:
        if action := _remedy(one):
            why = one.problem or "it is of an earlier boot"
            name = os.path.basename(one.path)
            changes.append(Change(network=network, action=action, address=name, why=why))
    return changes


def _remedy(one: Allocation) -> str:
    if one.problem:
        # A living owner's file is written again; another is no one's.
        lives = one.known is not None and one.known.sandbox.is_there()
        return "mend" if lives and not one.is_of_earlier_boot else "take away"
    return "free" if one.is_of_earlier_boot else ""


def _shown(network: str, one: Allocation, evidence: Evidence) -> Shown:
    container, ifname = one.owner or ("", "")
    state, why = _state(network, one, evidence)
    return Shown(
        network=network,
        address=str(one.address),
        container=container,
        ifname=ifname,
        since=time.strftime(_TIME, time.localtime(one.since)),
        state=state,
        why=why,
        netns=one.sandbox.path if one.sandbox is not None else "",
    )


def _state(network: str, one: Allocation, evidence: Evidence) -> tuple[str, str]:
    """Whether the owner is alive, and how that is known."""
    if one.owner is None or one.problem:
        return "damaged", one.problem
    if one.is_of_earlier_boot:
        return "gone", "it is of an earlier boot"
    if evidence.has_pair(Attachment(network, *one.owner).key):
        return "alive", "its host end is there"
    if one.sandbox is None:
        return "unknown", "nobody recorded its namespace"
    if why := one.sandbox.why_gone():
        return "gone", why
    if one.sandbox.is_there():
        return "alive", f"its namespace {one.sandbox.path} is there"
    if one.sandbox.path:
        return "unknown", f"{one.sandbox.path} cannot be told from another namespace"
    return "unknown", "nobody recorded its namespace"
