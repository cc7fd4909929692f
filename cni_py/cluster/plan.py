"""From what is there to what is wanted: a pure function of two states.

The order keeps what works working. New links come first, then who is behind them, then the routes
that lead there, replaced in one step where one is there; only then does what is too much go, routes
before what they rely on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from .state import Device, Forwarding, Keys, Neighbour, Route, State, Tunneled

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from cni_py.spec.addresses import Cidr

Thing = Route | Neighbour | Forwarding | Keys | Tunneled


class _Keyed(Protocol):
    @property
    def key(self) -> Hashable: ...


K = TypeVar("K", bound=_Keyed)

# In the order in which they are to be changed.
_WORDS = {"mtu": "the MTU", "mac": "the MAC address", "checksums": "who makes checksums", "up": ""}


@dataclass(frozen=True, slots=True)
class CreateDevice:
    """Make a link, with all that it has but addresses and `up`."""

    device: Device

    @property
    def what(self) -> str:
        """In words."""
        return f"create {self.device.kind} device {self.device.name}"


@dataclass(frozen=True, slots=True)
class DeleteDevice:
    """Take a link away, and with it the routes through it."""

    device: Device

    @property
    def what(self) -> str:
        """In words."""
        return f"delete {self.device.kind} device {self.device.name}"


@dataclass(frozen=True, slots=True)
class ChangeDevice:
    """Change what can be changed of a link; `changed` names fields of `Device`."""

    device: Device
    changed: tuple[str, ...]

    @property
    def what(self) -> str:
        """In words."""
        of_it = " and ".join(_WORDS[one] for one in self.changed if one != "up")
        parts = [f"set {of_it} of {self.device.name}"] if of_it else []
        if "up" in self.changed:
            parts.append(f"set {self.device.name} up")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Address:
    """Give a link an address, or take it away."""

    device: Device
    address: Cidr
    add: bool

    @property
    def what(self) -> str:
        """In words."""
        verb, where = ("add", "to") if self.add else ("remove", "of")
        return f"{verb} address {self.address} {where} {self.device.name}"


@dataclass(frozen=True, slots=True)
class Put:
    """Make a thing, or in one step put it in the place of another that has its key."""

    thing: Thing
    instead_of: Thing | None = None

    @property
    def what(self) -> str:
        """In words."""
        verb = "add" if self.instead_of is None else "replace"
        return f"{verb} {self.thing.what}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a thing away."""

    thing: Thing

    @property
    def what(self) -> str:
        """In words."""
        return f"remove {self.thing.what}"


Operation = CreateDevice | DeleteDevice | ChangeDevice | Address | Put | Remove


def operations(wanted: State, present: State) -> list[Operation]:
    """What leads from the one to the other, in the order in which it is to be done.

    Where a link has to be made anew, what was on it counts as gone with it.
    """
    again = {
        name
        for name, device in wanted.devices.items()
        if name in present.devices and not _is_same_link(device, present.devices[name])
    }
    doomed = again | (present.devices.keys() - wanted.devices.keys())
    there = _without_neighbours(_without(present, again), wanted)
    first: list[Operation] = [DeleteDevice(present.devices[name]) for name in sorted(again)]
    for name in sorted(wanted.devices):
        first += _device(wanted.devices[name], there.devices.get(name))
    last: list[Operation] = []
    # What goes with its link needs no removal of its own.
    left = _without(there, doomed - again)
    for mine, theirs, staying in (
        (wanted.keys, there.keys, left.keys),
        (wanted.tunneled, there.tunneled, left.tunneled),
        (wanted.neighbours, there.neighbours, left.neighbours),
        (wanted.forwardings, there.forwardings, left.forwardings),
        (wanted.routes, there.routes, left.routes),
    ):
        first += _puts(mine, theirs)
        last[:0] = _removals(mine, staying)
    last += [DeleteDevice(present.devices[name]) for name in sorted(doomed - again)]
    return first + last


def _is_same_link(wanted: Device, present: Device) -> bool:
    return (wanted.kind, wanted.shape) == (present.kind, present.shape)


def _without(state: State, names: Iterable[str]) -> State:
    """The state without these links and all that is on them."""
    gone = frozenset(names)
    if not gone:
        return state
    return State(
        {name: one for name, one in state.devices.items() if name not in gone},
        frozenset(one for one in state.routes if one.link not in gone),
        frozenset(one for one in state.neighbours if one.link not in gone),
        frozenset(one for one in state.forwardings if one.link not in gone),
        frozenset(one for one in state.keys if one.link not in gone),
        frozenset(one for one in state.tunneled if one.link not in gone),
    )


def _without_neighbours(present: State, wanted: State) -> State:
    """The kernel forgets the neighbours on a link whose MAC address changes, permanent ones too."""
    changing = {
        name
        for name, device in wanted.devices.items()
        if name in present.devices and present.devices[name].mac != device.mac
    }
    if not changing:
        return present
    left = frozenset(one for one in present.neighbours if one.link not in changing)
    return replace(present, neighbours=left)


def _device(wanted: Device, present: Device | None) -> Iterator[Operation]:
    """A link is as it should be before it is up, and has its new address before it loses the old.

    IPv6 lets go of addresses when a link's MTU is too small for it, so they come after the MTU.
    """
    if present is None:
        yield CreateDevice(wanted)
        present = replace(wanted, addresses=frozenset(), up=False)
    changed = tuple(one for one in _WORDS if getattr(wanted, one) != getattr(present, one))
    if changed:
        yield ChangeDevice(wanted, changed)
    for address in sorted(wanted.addresses - present.addresses, key=str):
        yield Address(wanted, address, add=True)
    for address in sorted(present.addresses - wanted.addresses, key=str):
        yield Address(wanted, address, add=False)


def _puts(wanted: frozenset[K], present: frozenset[K]) -> Iterator[Operation]:
    missing = wanted - present
    if not missing:
        return
    have = _by_key(present - wanted)
    for one in _sorted(missing):
        others = have.get(one.key, [])
        if not any(_is_enough(one, other) for other in others):
            yield Put(one, others[0] if others else None)  # type: ignore[arg-type]


def _removals(wanted: frozenset[K], present: frozenset[K]) -> Iterator[Operation]:
    """What has a key that is not wanted, and what more than one thing has of one that is."""
    extra = present - wanted
    if not extra:
        return
    missing = {one.key: one for one in wanted - present}
    for key, others in _by_key(extra).items():
        stays: K | None = None
        if key in missing:
            enough = [one for one in others if _is_enough(missing[key], one)]
            # One of those that are not is replaced.
            stays = (enough or others)[0]
        for one in others:
            if one is not stays:
                yield Remove(one)  # type: ignore[arg-type]


def _is_enough(wanted: object, present: object) -> bool:
    if isinstance(wanted, Tunneled) and isinstance(present, Tunneled):
        if present.settled:
            # It has moved, and proved that it is there: WireGuard's roaming.
            present = present._replace(host=wanted.host, port=wanted.port)
        return wanted == present._replace(settled=False)
    return wanted == present


def _by_key(things: Iterable[K]) -> Mapping[Hashable, list[K]]:
    found: dict[Hashable, list[K]] = {}
    for one in _sorted(things):
        found.setdefault(one.key, []).append(one)
    return found


def _sorted(things: Iterable[K]) -> list[K]:
    return sorted(things, key=lambda one: (str(type(one)), repr(one.key), repr(one)))
