"""What a VPC's route tables should have for this node, and what there is too much; pure.

A route has no tags, so whose it is follows from what it leads to (decision 47): ours lies inside
the cluster's network and leads to an interface with our tag, or to one that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni_py.spec.errors import CniError, Code

from .claims import is_part

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cni_py.spec.addresses import Network

TAG = "cni-py:overlay"
_CHECKED = "source-dest-check"


class Route(NamedTuple):
    """One of a table's. `target` is an interface, or whatever else AWS names; `""` for none."""

    table: str
    destination: Network
    target: str
    is_blackhole: bool = False

    @property
    def what(self) -> str:
        """In words."""
        return f"the route to {self.destination} in {self.table}"


@dataclass(frozen=True, slots=True)
class Mark:
    """The value of an interface's tag: whose networks lead to it, and whether its check was on."""

    networks: frozenset[Network]
    was_checked: bool

    def __str__(self) -> str:
        words = [str(one) for one in sorted(self.networks, key=lambda one: (one.version, one))]
        return " ".join([*words, _CHECKED] if self.was_checked else words)


def parse_mark(text: str) -> Mark:
    """Read a tag's value; what it has of other things is passed over."""
    networks = set()
    for word in text.split():
        try:
            networks.add(ip_network(word))
        except ValueError:
            continue
    return Mark(frozenset(networks), _CHECKED in text.split())


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of the VPC; `mark` is None without our tag."""

    name: str
    vpc: str
    subnet: str
    is_checked: bool
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Tables:
    """What there is: the tables' routes, our own interface, and the others with our tag.

    `gone` are the interfaces that routes lead to and that are no more.
    """

    tables: tuple[str, ...]
    routes: tuple[Route, ...]
    own: Interface
    marked: Mapping[str, Mark]
    gone: frozenset[str] = frozenset()

    def is_ours(self, route: Route, networks: Iterable[Network]) -> bool:
        """Whether some node's agent has made it. `networks` are the cluster's."""
        if route.target in self.gone:
            return route.is_blackhole and any(is_part(route.destination, one) for one in networks)
        mark = self.own.mark if route.target == self.own.name else self.marked.get(route.target)
        return mark is not None and any(is_part(route.destination, one) for one in mark.networks)


class Difference(NamedTuple):
    """What to do: routes to create, to replace, those of this node to delete.

    `stale` are those of nodes that the cluster does not have any more.
    """

    missing: tuple[Route, ...]
    wrong: tuple[Route, ...]
    former: tuple[Route, ...]
    stale: tuple[Route, ...]


def difference(
    there: Tables, own: Collection[Network], claimed: Collection[Network], networks: set[Network]
) -> Difference:
    """Compare. `own` are this node's subnets, `claimed` those of all peers, believed or not.

    Raises CniError 50 if somebody else has a route to one of this node's subnets.
    """
    at = {(one.table, one.destination): one for one in there.routes}
    missing, wrong = [], []
    for table in there.tables:
        for subnet in own:
            wanted, present = Route(table, subnet, there.own.name), at.get((table, subnet))
            if present is None:
                missing.append(wanted)
            elif present.target == there.own.name:
                # It leads where it should, whoever has made it.
                continue
            elif there.is_ours(present, networks):
                wrong.append(wanted)
            else:
                msg = f"somebody else has a route to {subnet} in {table}"
                details = f"it leads to {present.target or 'nowhere'}: remove that route"
                raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details)
    kept = {*own, *claimed}
    unwanted = [
        one
        for one in there.routes
        if one.destination not in own and there.is_ours(one, networks)
    ]  # fmt: skip
    former = tuple(one for one in unwanted if one.target == there.own.name)
    stale = tuple(
        one
        for one in unwanted
        if one.target != there.own.name
        and one.destination not in kept
        and any(is_part(one.destination, whole) for whole in networks)
    )
    return Difference(tuple(missing), tuple(wrong), former, stale)
