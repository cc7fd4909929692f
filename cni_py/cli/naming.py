"""Which containers, networks and bridges an argument of the command line names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from cni_py.spec.names import beginning_with

from .group import Failed, Unreadable
from .output import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni_py.inventory.model import Inventory

_LISTED = 8
# Ids that are hexadecimal are known by their beginning.
_SHORT = 12
_HEX = frozenset("0123456789abcdef")


def container_named(inventory: Inventory, name: str) -> str | None:
    """The container whose id is the name, or alone begins with it; None for none.

    Raises Unreadable where several begin with it: it lists them.
    """
    alike = beginning_with(name, (one.container_id for one in inventory.attachments))
    if len(alike) > 1:
        raise several(name, alike)
    return alike[0] if alike else None


def several(name: str, alike: Sequence[str]) -> Unreadable:
    """The refusal of a name with which several containers' ids begin."""
    more = f" and {len(alike) - _LISTED} more" if len(alike) > _LISTED else ""
    listed = ", ".join(alike[:_LISTED])
    return Unreadable(f"{len(alike)} containers begin with {name!r}: {listed}{more}")


def short_id(container_id: str) -> str:
    """A container's id as it is shown: the beginning of one that is hexadecimal."""
    text = printable(container_id)
    return text[:_SHORT] if len(text) > _SHORT and _HEX.issuperset(text) else text


def network_of_bridge(inventory: Inventory, name: str) -> frozenset[str]:
    """The networks of the bridge of that name; none without such a bridge."""
    found = (one.networks for one in inventory.bridges if one.interface.name == name)
    return frozenset(next(found, ()))


def require_networks(inventory: Inventory, names: Iterable[str]) -> frozenset[str]:
    """The names, if all are networks'. Raises Failed."""
    known = {one.name for one in inventory.networks}
    for name in names:
        if name not in known:
            raise Failed(f"no network is named {name!r}{_hint(name, known)}")
    return frozenset(names)


def meant(inventory: Inventory, names: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    """The networks and the containers that the names mean.

    A name is a container's id or its beginning, a network or a bridge; an exact one comes first.
    Raises Failed for one that is nothing, Unreadable for one that is several.
    """
    networks: set[str] = set()
    containers: dict[str, None] = {}
    ids = {one.container_id for one in inventory.attachments}
    known = {one.name for one in inventory.networks}
    for name in names:
        if name in known and name not in ids:
            networks.add(name)
        elif name not in ids and network_of_bridge(inventory, name):
            networks |= network_of_bridge(inventory, name)
        else:
            container = container_named(inventory, name)
            if container is None:
                bridges = {one.interface.name for one in inventory.bridges}
                what = f"no container, network or bridge is named {name!r}"
                raise Failed(what + _hint(name, ids | known | bridges))
            containers[container] = None
    return frozenset(networks), list(containers)


def _hint(name: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    alike = get_close_matches(name, listed, n=1, cutoff=0.5)
    if alike:
        return f": did you mean {printable(alike[0])}?"
    if not listed:
        return ": there is none on this host"
    return ": cni-py show lists what there is"
