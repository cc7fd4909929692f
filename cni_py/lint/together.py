"""What files say of one another, and of the host: names, bridges, addresses."""

from __future__ import annotations

from itertools import combinations, islice
from typing import TYPE_CHECKING, NamedTuple

from cni_py.ipam import host_local
from cni_py.plugins import bridge_config, child_link
from cni_py.plugins.host_device_config import Config as HostDeviceConfig
from cni_py.spec.errors import CniError

from .finding import find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_py.ipam.ranges import Range
    from cni_py.spec.located import Node

    from .finding import Notes
    from .host import Host
    from .network import Network
    from .plugin import Checked

# Their networks are reached through the host, which has a way to them of its own.
_ROUTED = frozenset({"bridge", "ptp"})

# Each is compared with each.
_MOST_RANGES = 2000


class Looked(NamedTuple):
    """A file that has been looked at."""

    notes: Notes
    network: Network
    plugins: tuple[Checked, ...]


class _Given(NamedTuple):
    """A range that a network gives addresses of."""

    looked: Looked
    plugin: Checked
    run: Range
    node: Node

    @property
    def where(self) -> str:
        """As another file's findings name it."""
        return f"{self.looked.network.name} ({self.looked.network.file.name})"


def check(all_looked: Sequence[Looked], host: Host) -> None:
    """Note what does not go together."""
    _check_names(all_looked)
    every = (run for one in all_looked for run in _given(one))
    given = list(islice(every, _MOST_RANGES))
    _check_gateways(given)
    _check_overlaps(given)
    _check_bridges(all_looked, given)
    _check_routes(given, host)
    if host.interfaces:
        for one in all_looked:
            _check_parents(one, host)


def note_order(all_looked: Sequence[Looked], folders: Sequence[str]) -> None:
    """Note which file of a folder runtimes take that use the first one."""
    for folder in folders:
        inside = [one for one in all_looked if one.network.file.name.startswith(folder)]
        if len(inside) > 1:
            first = inside[0]
            name = first.network.name or first.network.file.name
            text = f"of {folder} runtimes with one network take this one: {name}"
            first.notes.add(first.network.root, "info", text, "the first by the file's name")


def _check_names(all_looked: Sequence[Looked]) -> None:
    files: dict[str, str] = {}
    for one in all_looked:
        name, file = one.network.name, one.network.file.name
        first = files.setdefault(name, file)
        if name and first != file:
            place = one.network.root.get("name") or one.network.root
            text = f'the network "{name}" is in {first} too'
            one.notes.warn(place, text, "runtimes take one of them: give each its own name")


def _given(looked: Looked) -> Iterator[_Given]:
    for plugin in looked.plugins:
        config = plugin.delegate
        if not isinstance(config, host_local.Config) or config.ipam is None:
            continue
        try:
            sets = host_local.sets_of(config, looked.network.version)
        except CniError:
            continue
        older = 1 if config.ipam.subnet is not None else 0
        for index, ranges in enumerate(sets):
            for position, run in enumerate(ranges):
                path = f"ipam.ranges[{index - older}][{position}].subnet"
                path = "ipam.subnet" if index < older else path
                yield _Given(looked, plugin, run, find(plugin.node, path))


def _check_gateways(given: Sequence[_Given]) -> None:
    for one in given:
        if one.run.gateway not in one.run.subnet:
            text = f"the gateway {one.run.gateway} is not in {one.run.subnet}"
            one.looked.notes.warn(one.node, text, "containers have no way to it")


def _check_overlaps(given: Sequence[_Given]) -> None:
    for one, other in combinations(given, 2):
        if one.looked is other.looked or one.looked.network.name == other.looked.network.name:
            continue
        if one.run.version != other.run.version or not one.run.subnet.overlaps(other.run.subnet):
            continue
        if max(one.run.first, other.run.first) <= min(one.run.last, other.run.last):
            text = f"{one.where} gives addresses of {one.run.subnet} too"
            hint = "one address may be given out twice: give each network its own range"
            other.looked.notes.warn(other.node, text, hint)
        elif _has_own_way(one) and _has_own_way(other) and _bridge(one) != _bridge(other):
            text = f"{one.where} has {one.run.subnet} behind another interface"
            hint = "the host has one way to an address: give each network its own subnet"
            other.looked.notes.warn(other.node, text, hint)


def _has_own_way(one: _Given) -> bool:
    config = one.plugin.typed
    if isinstance(config, bridge_config.Config):
        return config.is_gateway or config.is_default_gateway
    return one.plugin.type in _ROUTED


def _own_interfaces(one: _Given) -> tuple[str, ...]:
    config = one.plugin.typed
    if not isinstance(config, bridge_config.Config):
        return ()
    return (config.bridge, f"{config.bridge}.{config.vlan}")


def _bridge(one: _Given) -> str:
    config = one.plugin.typed
    return config.bridge if isinstance(config, bridge_config.Config) else ""


def _check_bridges(all_looked: Sequence[Looked], given: Sequence[_Given]) -> None:
    first_of: dict[tuple[str, int], tuple[Looked, bridge_config.Config]] = {}
    for looked in all_looked:
        for plugin in looked.plugins:
            config = plugin.typed
            if not isinstance(config, bridge_config.Config):
                continue
            first, its = first_of.setdefault((config.bridge, config.vlan), (looked, config))
            if first is looked:
                continue
            if config.mtu and its.mtu and config.mtu != its.mtu:
                text = f"{config.bridge} has MTU {its.mtu} in {first.network.file.name}"
                hint = "a bridge has one: that of the network that comes first"
                looked.notes.warn(find(plugin.node, "mtu"), text, hint)
            _check_bridge_gateways(first, looked, plugin, given)


def _check_bridge_gateways(
    first: Looked, looked: Looked, plugin: Checked, given: Sequence[_Given]
) -> None:
    config = plugin.typed
    assert isinstance(config, bridge_config.Config)
    if config.force_address or not (config.is_gateway or config.is_default_gateway):
        return
    for one in (each for each in given if each.looked is looked and each.plugin is plugin):
        for other in (each for each in given if each.looked is first and _has_own_way(each)):
            alike = _bridge(other) == config.bridge and other.run.version == one.run.version == 4
            if alike and other.run.gateway != one.run.gateway:
                text = f"{config.bridge} has the address {other.run.gateway} in {other.where}"
                hint = f"an ADD that wants {one.run.gateway} is refused: use a bridge of its own"
                looked.notes.warn(one.node, text, hint)


def _check_routes(given: Sequence[_Given], host: Host) -> None:
    for one in given:
        if not _has_own_way(one):
            continue
        for route in host.routes:
            same = route.destination.version == one.run.version
            if not same or route.interface in _own_interfaces(one):
                continue
            if route.destination.overlaps(one.run.subnet):
                text = f"the host reaches {route.destination} through {route.interface}"
                hint = f"{one.run.subnet} would hide it, or be hidden: use another subnet"
                one.looked.notes.warn(one.node, text, hint)


def _check_parents(looked: Looked, host: Host) -> None:
    for plugin in looked.plugins:
        config = plugin.typed
        key, name = "", ""
        if isinstance(config, child_link.Config) and not config.link_in_container:
            key, name = "master", config.master
        elif isinstance(config, HostDeviceConfig):
            key, name = "device", config.device
        if name and name not in host.interfaces:
            hint = f"there are {', '.join(sorted(host.interfaces)[:8])}"
            text = f"this host has no interface {name}"
            looked.notes.warn(find(plugin.node, key), text, hint)
