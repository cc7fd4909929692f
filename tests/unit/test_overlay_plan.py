"""The planner: any state becomes any other, and what works meanwhile goes on working."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_interface
from itertools import product
from typing import Any

from cni_py.cluster.plan import (
    Address,
    ChangeDevice,
    CreateDevice,
    DeleteDevice,
    Put,
    Remove,
    operations,
)
from cni_py.cluster.state import (
    Device,
    Forwarding,
    Keys,
    Neighbour,
    Route,
    State,
    Tunneled,
    Unfinished,
    Vxlan,
)

_LINKS = ("flannel.1", "flannel.2")
_ADDRESSES = [IPv4Address(f"192.0.2.{number}") for number in range(1, 4)]
_NETWORKS = [IPv4Network(f"10.244.{number}.0/24") for number in range(1, 4)]
_MACS = [f"02:00:00:00:00:0{number}" for number in range(1, 4)]


def _state(seed: int) -> State:
    """A state of few names, so that two of them have much in common."""
    chance = random.Random(seed)

    def some(values: Any, most: int = 2) -> list[Any]:
        values = list(values)
        return chance.sample(values, min(len(values), chance.randint(0, most)))

    devices = {}
    for name in some(_LINKS):
        shape = Vxlan(chance.choice([1, 2]), 8472, chance.choice(_ADDRESSES))
        devices[name] = Device(
            name,
            "vxlan",
            chance.choice([shape, shape, Unfinished()]),
            chance.choice([1450, 1400]),
            chance.choice(_MACS),
            frozenset(some(ip_interface(f"10.1.1.{number}/32") for number in (1, 2))),
            chance.random() < 0.7,
            chance.random() < 0.5,
        )
    own = list(devices)

    def each(kind: Any, links: list[str], keys: Any, *parts: Any) -> frozenset[Any]:
        pairs = some(product(links, keys), most=5)
        made = (kind(link, key, *(chance.choice(part) for part in parts)) for link, key in pairs)
        return frozenset({one.key: one for one in made}.values())

    return State(
        devices,
        each(lambda link, to, via: Route(to, link, via), [*own, "eth0"], _NETWORKS, _ADDRESSES),
        each(Neighbour, own, _ADDRESSES, _MACS),
        each(Forwarding, own, _MACS, _ADDRESSES),
        each(Keys, own, [b"a", b"b"], [1]),
        each(Tunneled, own, [b"c", b"d"], _ADDRESSES, [1], [frozenset(_NETWORKS[:1])], [b""], [0]),
    )


class _Kernel:
    """A model of what operations do."""

    def __init__(self, state: State) -> None:
        self.devices = dict(state.devices)
        self.things: set[Any] = set()
        for those in (
            state.routes, state.neighbours, state.forwardings, state.keys, state.tunneled
        ):  # fmt: skip
            self.things |= those

    def do(self, operation: Any) -> None:
        if isinstance(operation, CreateDevice):
            device = operation.device
            assert device.name not in self.devices
            self.devices[device.name] = _changed(device, up=False, addresses=frozenset())
        elif isinstance(operation, DeleteDevice):
            del self.devices[operation.device.name]
            self.things = {one for one in self.things if one.link != operation.device.name}
        elif isinstance(operation, ChangeDevice):
            before = self.devices[operation.device.name]
            assert before.shape == operation.device.shape
            if operation.device.mac != before.mac:
                self.things = {
                    one
                    for one in self.things
                    if not (isinstance(one, Neighbour) and one.link == before.name)
                }
            changed = _changed(operation.device, addresses=before.addresses)
            self.devices[operation.device.name] = changed
        elif isinstance(operation, Address):
            before = self.devices[operation.device.name]
            assert (operation.address in before.addresses) is not operation.add
            addresses = before.addresses ^ {operation.address}
            self.devices[before.name] = _changed(before, addresses=addresses)
        elif isinstance(operation, Put):
            assert operation.thing.link in {*self.devices, "eth0"}
            there = {one for one in self.things if _key(one) == _key(operation.thing)}
            assert there == ({operation.instead_of} if operation.instead_of else set())
            self.things = (self.things - there) | {operation.thing}
        else:
            assert isinstance(operation, Remove)
            self.things.remove(operation.thing)


def test_any_state_becomes_any_other() -> None:
    """And on the way, what is there and wanted is never away, nor is a way to a destination that
    has one; and a new route finds all that it relies on.
    """
    for seed in range(400):
        present, wanted = _state(seed), _state(-seed - 1)
        again = _made_again(wanted, present)
        kernel, goal = _Kernel(present), _Kernel(wanted)
        both = {one for one in kernel.things & goal.things if one.link not in again}
        both -= {one for one in both if isinstance(one, Neighbour)}
        ways = {one.destination for one in present.routes if one.link not in again}
        ways &= {one.destination for one in wanted.routes}
        for one in operations(wanted, present):
            kernel.do(one)
            assert both <= kernel.things, seed
            assert ways <= {one.destination for one in kernel.things if isinstance(one, Route)}
            if isinstance(one, Put) and isinstance(one.thing, Route):
                assert goal.things - wanted.routes <= kernel.things, seed
                assert wanted.devices.items() <= kernel.devices.items(), seed
        assert kernel.devices == dict(wanted.devices), seed
        assert kernel.things == goal.things, seed


def test_there_is_nothing_to_do_where_all_is_as_wanted() -> None:
    assert all(operations(_state(seed), _state(seed)) == [] for seed in range(200))


def _made_again(wanted: State, present: State) -> set[str]:
    return {
        name
        for name, one in wanted.devices.items()
        if name in present.devices and present.devices[name].shape != one.shape
    }


def test_a_link_that_goes_takes_its_routes_and_needs_no_other_removal() -> None:
    device = Device("flannel.1", "vxlan", Vxlan(1, 8472, _ADDRESSES[0]), 1450)
    route = Route(_NETWORKS[0], "flannel.1", _ADDRESSES[1])
    state = State({"flannel.1": device}, frozenset({route}))
    assert operations(State(), state) == [DeleteDevice(device)]


def test_a_route_moves_to_another_device_before_the_old_one_goes() -> None:
    old = Device("flannel.1", "vxlan", Vxlan(1, 8472, _ADDRESSES[0]), 1450)
    new = Device("flannel.2", "vxlan", Vxlan(2, 8472, _ADDRESSES[0]), 1450)
    one, other = (Route(_NETWORKS[0], name, _ADDRESSES[1]) for name in ("flannel.1", "flannel.2"))
    done = operations(
        State({"flannel.2": new}, frozenset({other})), State({"flannel.1": old}, frozenset({one}))
    )
    assert done[0] == CreateDevice(new)
    assert done[-2:] == [Put(other, instead_of=one), DeleteDevice(old)]


def test_a_peer_that_has_moved_and_proved_itself_is_let_be() -> None:
    wanted = Tunneled("wg", b"k", _ADDRESSES[0], 51820, frozenset(_NETWORKS[:1]), b"", 0)
    moved = wanted._replace(host=_ADDRESSES[1], port=4000)
    for settled in (True, False):
        there = State(tunneled=frozenset({moved._replace(settled=settled)}))
        done = operations(State(tunneled=frozenset({wanted})), there)
        assert bool(done) is not settled
    foreign = moved._replace(settled=True, allowed=frozenset(_NETWORKS))
    assert operations(State(tunneled=frozenset({wanted})), State(tunneled=frozenset({foreign})))


def _changed(device: Device, **changes: Any) -> Device:
    return replace(device, **changes)


def _key(thing: Any) -> Any:
    return type(thing), thing.key
