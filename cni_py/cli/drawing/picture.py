"""What every format draws: ways out of the host, hubs, and containers with their interfaces.

    uplink - hub (bridge, parent, or routes of the host) - host end - interface in a container

All texts are as a person may see them; none of them is trusted to be free of markup.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from cni_py.cli.facts import facts
from cni_py.cli.figures import count, share
from cni_py.cli.naming import short_id
from cni_py.cli.output import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_py.inventory.model import Attached, Bridge, HostLink, Inventory, Pool

Fact = tuple[str, str]
HubKind = Literal["bridge", "parent", "routed", "inside", "gone"]

# Python makes no number of thousands of digits.
_MOST_DIGITS = 20
_ORDER: dict[str, int] = {"bridge": 0, "parent": 1, "routed": 2, "inside": 3, "gone": 4}
_TITLES = {
    "routed": "host's routes",
    "inside": "no way to the host",
    "gone": "gone",
}


class Gauge(msgspec.Struct, frozen=True):
    """How full a range of host-local is."""

    subnet: str
    given: int
    size: int
    text: str


class Uplink(msgspec.Struct, frozen=True):
    """A link that a default route of the host leads through."""

    id: str
    name: str
    addresses: tuple[str, ...]
    up: bool
    facts: tuple[Fact, ...]


class Hub(msgspec.Struct, frozen=True):
    """What containers come together on. `uplinks` are ids, `masqueraded` says how they get out.

    `joined` are those uplinks that are on it themselves, so that no route is needed.
    """

    id: str
    kind: HubKind
    name: str
    addresses: tuple[str, ...] = ()
    up: bool = True
    networks: tuple[str, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    uplinks: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    masqueraded: bool = False
    facts: tuple[Fact, ...] = ()


class Leg(msgspec.Struct, frozen=True):
    """An interface of a container. `port` is its host end's name, `""` where it has none."""

    hub: str
    network: str
    ifname: str
    kind: str
    state: str
    port: str
    addresses: tuple[str, ...]
    facts: tuple[Fact, ...]
    problems: tuple[str, ...]


class Box(msgspec.Struct, frozen=True):
    """A container. `short` is what it is called, `ports` are those it publishes, as `8080→80`."""

    id: str
    container: str
    short: str
    state: str
    namespace: str
    legs: tuple[Leg, ...]
    ports: tuple[str, ...]
    maker: str

    @property
    def hub(self) -> str:
        """The hub that it is drawn at."""
        return self.legs[0].hub

    @property
    def has_problems(self) -> bool:
        """Whether anything of it does not fit."""
        return any(one.problems for one in self.legs)


class Picture(msgspec.Struct, frozen=True):
    """Everything. Containers are in order of their hubs, those with problems first."""

    host: str
    taken: str
    uplinks: tuple[Uplink, ...]
    hubs: tuple[Hub, ...]
    boxes: tuple[Box, ...]
    problems: tuple[Fact, ...]

    def of_hub(self, hub: str) -> list[Box]:
        """The containers that are drawn at a hub."""
        return [one for one in self.boxes if one.hub == hub]


def picture(inventory: Inventory, host: str, taken: str) -> Picture:
    """What there is to draw."""
    uplinks = tuple(_uplink(one) for one in inventory.links if one.role == "uplink")
    hubs = _hubs(inventory, uplinks)
    order = {one.id: number for number, one in enumerate(hubs)}
    boxes = sorted(
        _boxes(inventory, order),
        key=lambda one: (order[one.hub], not one.has_problems, _natural(one.short)),
    )
    problems = tuple((printable(one.subject), printable(one.text)) for one in inventory.problems)
    return Picture(printable(host), taken, uplinks, hubs, tuple(boxes), problems)


def _natural(text: str) -> list[tuple[int, str]]:
    """Names in the order that a person would give them: `web2` before `web10`."""
    parts = re.split(r"([0-9]+)", text)
    return [
        (int(one[:_MOST_DIGITS]), "") if number % 2 else (0, one)
        for number, one in enumerate(parts)
    ]


def _uplink(one: HostLink) -> Uplink:
    its = one.interface
    told = (
        ("link", f"{printable(its.name)}, {its.kind or 'device'}, index {its.ifindex}"),
        ("addresses", ", ".join(its.addresses) or "none"),
        ("hardware address", its.mac),
        ("MTU", str(its.mtu)),
        ("state", its.operstate.lower()),
        ("on", printable(its.master)),
    )
    return Uplink(_up(its.name), printable(its.name), its.addresses, its.up, _told(told))


def _told(facts_of: Iterable[Fact]) -> tuple[Fact, ...]:
    return tuple(one for one in facts_of if one[1])


# Hubs.


def hub_of(one: Attached) -> tuple[HubKind, str]:
    """What an interface is on: its kind and name."""
    if one.host is not None and one.host.master:
        return "bridge", one.host.master
    if one.host is not None:
        return "routed", one.network
    if one.inside is not None and one.inside.parent:
        return "parent", one.inside.parent
    return ("inside", one.network) if one.inside is not None else ("gone", one.network)


def _up(name: str) -> str:
    return f"u:{printable(name)}"


def _id(kind: str, name: str) -> str:
    return f"h:{kind}:{printable(name)}"


def _hubs(inventory: Inventory, uplinks: Sequence[Uplink]) -> tuple[Hub, ...]:
    networks: dict[tuple[HubKind, str], set[str]] = defaultdict(set)
    for one in inventory.attachments:
        networks[hub_of(one)].add(one.network)
    for bridge in inventory.bridges:
        networks["bridge", bridge.interface.name].update(bridge.networks)
    masqueraded = {one.key for one in inventory.masquerades}
    behind: dict[tuple[HubKind, str], bool] = defaultdict(bool)
    for one in inventory.attachments:
        behind[hub_of(one)] |= one.key in masqueraded
    pools = {one.network: one for one in inventory.pools}
    found = []
    for (kind, name), names in networks.items():
        gauges = [it for network in sorted(names) for it in _gauges(pools.get(network))]
        hub = Hub(
            id=_id(kind, name),
            kind=kind,
            name=printable(name),
            networks=tuple(map(printable, sorted(names))),
            gauges=tuple(gauges) if kind != "gone" else (),
            masqueraded=behind[kind, name] and kind != "gone",
        )
        found.append(_linked(hub, name, uplinks, inventory))
    return tuple(sorted(found, key=lambda one: (_ORDER[one.kind], one.name)))


def _linked(hub: Hub, name: str, uplinks: Sequence[Uplink], inventory: Inventory) -> Hub:
    """The hub with what its link is, and the ways out."""
    every = tuple(one.id for one in uplinks)
    if hub.kind == "bridge":
        bridge = next((one for one in inventory.bridges if one.interface.name == name), None)
        joined = [
            it for it in inventory.links if it.role == "uplink" and it.interface.master == name
        ]
        ids = tuple(_up(one.interface.name) for one in joined)
        return hub if bridge is None else _bridged(hub, bridge, ids, every)
    if hub.kind == "parent":
        own = tuple(one for one in every if one == _up(name))
        link = next((it.interface for it in inventory.links if it.interface.name == name), None)
        told = () if link is None else (("parent", hub.name), ("MTU", str(link.mtu)))
        up = link is None or link.up
        return replace(hub, uplinks=own, joined=own, up=up, facts=told)
    return replace(hub, uplinks=every) if hub.kind == "routed" else hub


def _bridged(hub: Hub, bridge: Bridge, joined: tuple[str, ...], every: tuple[str, ...]) -> Hub:
    its = bridge.interface
    told = (
        ("bridge", f"{hub.name}, index {its.ifindex}"),
        ("addresses", ", ".join(its.addresses) or "none"),
        ("hardware address", its.mac),
        ("MTU", str(its.mtu)),
        ("state", its.operstate.lower() if its.up else "down"),
        ("ports", str(len(bridge.ports))),
        ("VLANs", "filtered" if bridge.vlan_filtering else ""),
    )
    return replace(
        hub,
        addresses=its.addresses,
        up=its.up and its.operstate != "DOWN",
        uplinks=joined or (every if its.addresses else ()),
        joined=joined,
        facts=_told(told),
    )


def title(hub: Hub) -> str:
    """What a hub is, in a word or two."""
    return _TITLES.get(hub.kind, hub.kind)


def _gauges(pool: Pool | None) -> Iterator[Gauge]:
    for run in () if pool is None else pool.ranges:
        text = f"{count(run.given)} of {count(run.addresses)} given, {share(run.given, run.size)}"
        yield Gauge(run.subnet or f"{run.first}-{run.last}", run.given, run.size, text)


# Containers.


def _boxes(inventory: Inventory, order: dict[str, int]) -> Iterator[Box]:
    """One for each container: an id, or a namespace that several of one pod's ids share."""
    together: dict[str, list[Attached]] = defaultdict(list)
    for one in inventory.attachments:
        together[one.container_id].append(one)
    problems: dict[str, list[str]] = defaultdict(list)
    for it in inventory.problems:
        problems[it.key].append(printable(it.text))
    ports: dict[str, list[str]] = defaultdict(list)
    for port in inventory.ports:
        host = f"{port.host_ip}:" if port.host_ip else ""
        text = f"{host}{port.host_port}→{port.container_port}/{port.protocol}"
        if text not in ports[port.container_id]:
            ports[port.container_id].append(text)
    told = facts(inventory)
    for container, several in together.items():
        legs = [_leg(one, told(one), problems[one.key]) for one in several]
        legs.sort(key=lambda one: (one.state == "gone", one.ifname, order[one.hub]))
        states = {one.state for one in several}
        worst = next((one for one in _WORST if one in states), "unknown")
        namespace = next((one.namespace for one in several if one.namespace is not None), None)
        yield Box(
            id=f"c:{printable(container)}",
            container=printable(container),
            short=short_id(container),
            state=worst,
            namespace="" if namespace is None else printable(namespace.path),
            legs=tuple(legs),
            ports=tuple(ports[container]),
            maker=several[0].maker,
        )


_WORST = ("gone", "missing", "unknown", "down", "up")


def _leg(one: Attached, told: Sequence[Fact], problems: Sequence[str]) -> Leg:
    kind, name = hub_of(one)
    return Leg(
        hub=_id(kind, name),
        network=printable(one.network),
        ifname=printable(one.ifname),
        kind=one.kind,
        state=one.state,
        port="" if one.host is None else printable(one.host.name),
        addresses=one.addresses,
        facts=tuple((key, printable_lines(text)) for key, text in told),
        problems=tuple(problems),
    )
