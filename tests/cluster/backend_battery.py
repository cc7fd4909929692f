"""What every backend is held to: cni_py/cluster/backend.py's contract, as tests.

A backend's test module makes a `Lab` of its world, and a class that inherits the battery:

    class TestMine(BackendBattery):
        @pytest.fixture
        def lab(self):
            with contextlib.closing(MyLab()) as lab:
                yield lab
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cni_py.cluster.backend import Node, View

if TYPE_CHECKING:
    from cni_py.cluster.backend import Backend

NETWORK, NETWORK6 = IPv4Network("10.244.0.0/16"), IPv6Network("fd00:244::/48")
_MOST_DATA_BYTES = 1024
_HOSTILE_DATA: tuple[Any, ...] = (
    None,
    [],
    "x",
    {},
    {"VNI": "x"},
    {"VtepMAC": 1, "PublicKey": 1},
    {"VNI": 1, "VtepMAC": "../../etc", "PublicKey": "$(id)"},
    {"VNI": 1, "VtepMAC": "ff:ff:ff:ff:ff:ff", "PublicKey": "AA=="},
    {"VNI": 2**70, "VtepMAC": "", "PublicKey": ""},
)


class Lab(ABC):
    """One node's world with a backend in it."""

    # Whether peers have any part in it: one that only sets the node's own route ignores them.
    peers_matter = True

    _made: tuple[Backend, ...] = ()

    @abstractmethod
    def make(self) -> Backend:
        """A new backend, which knows of no earlier one, with the settings of all others."""

    def backend(self) -> Backend:
        """The same, closed with the lab."""
        made = self.make()
        self._made += (made,)
        return made

    def close(self) -> None:
        """The end of the test."""
        for one in self._made:
            one.close()

    @abstractmethod
    def peer(self, number: int) -> Node:
        """Another node, 1 to 9, with subnets 10.244.NUMBER.0/24 and fd00:244:0:NUMBER::/64."""

    @abstractmethod
    def world(self) -> Any:
        """All that the backend could touch, of anybody, as a value to be compared."""

    @abstractmethod
    def furnish(self) -> None:
        """Put something of others beside it, also into the way of peer 9."""

    @abstractmethod
    def disturb(self, number: int) -> None:
        """Take away or change what belongs to a peer (or the own node, if peers do not matter)."""

    def view(self, *peers: Node) -> View:
        """How the cluster looks from here with these peers."""
        said = self.backend().announce()
        own = Node(said, *own_subnets(0))
        return View(own, peers, NETWORK, NETWORK6)


def own_subnets(number: int) -> tuple[IPv4Network, IPv6Network]:
    """The subnets of node NUMBER."""
    return IPv4Network(f"10.244.{number}.0/24"), IPv6Network(f"fd00:244:0:{number:x}::/64")


class BackendBattery:
    """The contract."""

    def test_it_says_the_same_of_itself_each_time(self, lab: Lab) -> None:
        said = lab.backend().announce()
        assert said == lab.backend().announce()
        assert said.backend == lab.backend().name
        assert said.address is not None or said.address6 is not None
        for data in (said.data, said.data6):
            assert data is None or isinstance(data, dict)
            assert len(msgspec.json.encode(data)) <= _MOST_DATA_BYTES

    def test_what_it_says_does_not_change_with_what_it_did(self, lab: Lab) -> None:
        view = lab.view(lab.peer(1))
        reconciled(lab, view)
        assert lab.backend().announce() == view.own.said

    def test_a_plan_changes_nothing(self, lab: Lab) -> None:
        view = lab.view(lab.peer(1), lab.peer(2))
        before = lab.world()
        assert lab.backend().plan(view).steps
        assert lab.world() == before

    def test_after_a_reconciliation_there_is_nothing_to_do(self, lab: Lab) -> None:
        view = lab.view(lab.peer(1), lab.peer(2))
        backend = lab.backend()
        assert not backend.reconcile(view).failed
        assert steps(backend, view) == []
        assert steps(lab.backend(), view) == []

    def test_a_peer_that_leaves_takes_its_things_along(self, lab: Lab) -> None:
        _require_peers(lab)
        reconciled(lab, lab.view(lab.peer(1)))
        one = lab.world()
        reconciled(lab, lab.view(lab.peer(1), lab.peer(2)))
        assert lab.world() != one
        reconciled(lab, lab.view(lab.peer(1)))
        assert lab.world() == one

    def test_a_peer_with_another_address_is_followed(self, lab: Lab) -> None:
        _require_peers(lab)
        reconciled(lab, lab.view(lab.peer(1), _with_subnets(lab.peer(2), 3)))
        reconciled(lab, lab.view(lab.peer(1), _with_subnets(lab.peer(4), 3)))
        changed = lab.world()
        lab.backend().tear_down()
        reconciled(lab, lab.view(lab.peer(1), _with_subnets(lab.peer(4), 3)))
        assert lab.world() == changed

    def test_what_is_disturbed_is_put_right(self, lab: Lab) -> None:
        view = lab.view(lab.peer(1), lab.peer(2))
        reconciled(lab, view)
        right = lab.world()
        lab.disturb(1)
        assert lab.world() != right
        assert steps(lab.backend(), view)
        reconciled(lab, view)
        assert lab.world() == right

    def test_what_others_made_stays(self, lab: Lab) -> None:
        lab.furnish()
        before = lab.world()
        view = lab.view(lab.peer(1), lab.peer(9))
        report = lab.backend().reconcile(view)
        assert not report.failed
        if lab.peers_matter:
            assert lab.peer(9).name in report.refused
            assert lab.peer(1).name not in report.refused
        lab.backend().tear_down()
        assert lab.world() == before

    def test_tearing_down_twice_is_as_once(self, lab: Lab) -> None:
        before = lab.world()
        reconciled(lab, lab.view(lab.peer(1), lab.peer(2)))
        report = lab.backend().tear_down()
        assert report.done
        assert not report.failed
        assert lab.world() == before
        again = lab.backend().tear_down()
        assert not again.done
        assert not again.failed

    def test_a_peer_that_cannot_be_is_refused(self, lab: Lab) -> None:
        _require_peers(lab)
        good = lab.peer(1)
        view = lab.view(good)
        reconciled(lab, view)
        before = lab.world()
        for what, bad in _hostile(lab.peer(2), view).items():
            report = lab.backend().reconcile(replace(view, peers=(good, bad)))
            assert list(report.refused) == [bad.name], what
            assert report.refused[bad.name], what
            assert not report.failed, what
            assert lab.world() == before, what

    def test_a_peer_with_any_data_is_refused_or_served(self, lab: Lab) -> None:
        good, peer = lab.peer(1), lab.peer(2)
        backend = lab.backend()
        for data in _HOSTILE_DATA:
            bad = replace(peer, said=replace(peer.said, data=data, data6=data))
            view = lab.view(good, bad)
            report = backend.reconcile(view)
            assert not report.failed, data
            assert set(report.refused) <= {bad.name}, data
            assert steps(backend, view) == [], data

    def test_it_is_healthy_and_knows_its_mtu(self, lab: Lab) -> None:
        view = lab.view(lab.peer(1))
        backend = lab.backend()
        assert not backend.reconcile(view).failed
        assert backend.health() is None
        assert 1280 <= backend.mtu() <= 65535


def reconciled(lab: Lab, view: View) -> None:
    """A new backend brings the world to what the view asks for; nothing fails or is refused."""
    report = lab.backend().reconcile(view)
    assert not report.failed
    assert not report.refused


def steps(backend: Backend, view: View) -> list[str]:
    """What it would do."""
    return [one.what for one in backend.plan(view).steps]


def _require_peers(lab: Lab) -> None:
    if not lab.peers_matter:
        pytest.skip("peers have no part in it")


def _with_subnets(node: Node, number: int) -> Node:
    return Node(node.said, *own_subnets(number))


def _hostile(peer: Node, view: View) -> dict[str, Node]:
    """The peer, made impossible in many ways."""
    own, older, said = view.own, view.peers[0], peer.said
    elsewhere = IPv6Network("fd00:244:0:2::/64")

    def at(address: str) -> Node:
        return replace(peer, said=replace(said, address=IPv4Address(address), address6=None))

    return {
        "another backend": replace(peer, said=replace(said, backend="udp")),
        "no address": replace(peer, said=replace(said, address=None, address6=None)),
        "the own address": replace(
            peer, said=replace(said, address=own.said.address, address6=own.said.address6)
        ),
        "multicast": at("224.0.0.1"),
        "loopback": at("127.0.0.1"),
        "no one's": at("0.0.0.0"),
        "the own subnet": Node(said, own.subnet, own.subnet6),
        "outside the network": Node(
            said, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/64")
        ),
        "an older peer's subnet": Node(said, older.subnet, elsewhere),
        "an older peer's half": Node(said, IPv4Network("10.244.1.128/25"), elsewhere),
        "all of the network": Node(said, NETWORK, NETWORK6),
        "no subnet": Node(said),
    }
