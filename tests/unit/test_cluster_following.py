"""Following a view comes to the same as comparing everything, or is not done."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.cluster.backend import Announcement, Node, View
from cni_py.cluster.following import Followed
from cni_py.cluster.plan import Put, Remove
from cni_py.cluster.state import State
from cni_py.cluster.underlay import Chosen, Underlay
from cni_py.cluster.vetting import vetted
from cni_py.cluster.vxlan import VxlanBackend, VxlanSettings

UNDER = Underlay("eth0", 2, 1500, IPv4Address("192.168.0.1"), None, (), "")


class Planner(VxlanBackend):
    """What it makes of a view, without a kernel."""

    def __init__(self) -> None:
        self._settings = VxlanSettings()
        self._chosen, self._versions = Chosen(), frozenset({4})


def node(place: int, length: int, host: int, mac: int, backend: str = "vxlan") -> Node:
    data = {"VNI": 1, "VtepMAC": f"02:00:00:00:00:{mac:02x}"}
    said = Announcement(backend, IPv4Address("192.168.0.0") + host, None, data)
    return Node(said, IPv4Network((0x0AF40000 | place << 8, length), strict=False))


OWN = node(255, 24, 1, 255)
# Few, which are the same objects whenever they are there.
NODES = [
    node(place, length, 10 + host, mac)
    for place in range(8)
    for length in (24, 24, 23)
    for host, mac in ((place, place), (8, place), (place, 9))
]


def view(*peers: Node) -> View:
    return View(OWN, peers, IPv4Network("10.244.0.0/16"))


def asked(of: View) -> tuple[State, dict[str, str]]:
    believed, refused = vetted(of, "vxlan")
    wanted = Planner().wanted(of, believed, UNDER)
    return wanted.state, refused | wanted.refused


def done(state: State, operations: list[Any]) -> State:
    kinds = {"Route": "routes", "Neighbour": "neighbours", "Forwarding": "forwardings"}
    for one in operations:
        assert isinstance(one, (Put, Remove)), one
        name = kinds[type(one.thing).__name__]
        have = getattr(state, name)
        if isinstance(one, Remove):
            assert one.thing in have
            have -= {one.thing}
        else:
            assert one.instead_of is None or one.instead_of in have
            have = have - {one.instead_of} | {one.thing}
        assert len({thing.key for thing in have}) == len(have)
        state = replace(state, **{name: have})
    return state


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(NODES), unique_by=id, max_size=6), max_size=8))
def test_it_comes_to_the_same_as_a_whole_comparison(all_peers):
    followed, state = None, State()
    for peers in all_peers:
        now = view(*peers)
        wanted, refused = asked(now)
        found = None if followed is None else followed.operations(now, "vxlan", Planner().wanted)
        if found is None:
            state = wanted
            followed = None if refused else Followed(now, UNDER, wanted)
        else:
            assert not refused
            state = done(state, found)
            assert state == wanted


def test_what_others_have_nothing_to_do_with_is_followed():
    many = [node(place, 24, 2 + place, place) for place in range(100)]
    first = view(*many)
    followed = Followed(first, UNDER, asked(first)[0])
    asked_of: list[int] = []

    def wanted(of: View, peers: Any, under: Underlay) -> Any:
        peers = list(peers)
        asked_of.append(len(peers))
        return Planner().wanted(of, peers, under)

    # One leaves, one comes, one has another address.
    moved = node(50, 24, 200, 50)
    second = view(*many[1:50], moved, *many[51:], node(120, 24, 122, 120))
    found = followed.operations(second, "vxlan", wanted)
    assert found is not None
    assert sorted(one.what for one in found) == [
        "add forwarding of 02:00:00:00:00:78 to 192.168.0.122 dev flannel.1",
        "add neighbour 10.244.120.0 at 02:00:00:00:00:78 dev flannel.1",
        "add route 10.244.120.0/24 via 10.244.120.0 dev flannel.1",
        "remove forwarding of 02:00:00:00:00:00 to 192.168.0.2 dev flannel.1",
        "remove neighbour 10.244.0.0 at 02:00:00:00:00:00 dev flannel.1",
        "remove route 10.244.0.0/24 via 10.244.0.0 dev flannel.1",
        "replace forwarding of 02:00:00:00:00:32 to 192.168.0.200 dev flannel.1",
    ]
    assert max(asked_of) == 2
    # Another node's MAC address, a part of its subnet, another network: that takes a comparison.
    for other in (
        view(*second.peers, node(130, 24, 132, 120)),
        view(*second.peers, node(120, 25, 133, 121)),
        view(*second.peers, node(140, 24, 134, 140, "host-gw")),
        replace(second, network=IPv4Network("10.244.0.0/15")),
    ):
        again = Followed(second, UNDER, asked(second)[0])
        assert again.operations(other, "vxlan", wanted) is None
