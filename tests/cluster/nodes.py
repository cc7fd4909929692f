"""Backends on several hosts that know of one another, without an agent or a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.cluster.backend import Node, View
from fixtures.underlay import NETWORK, NETWORK6, entered, reaches, transfers

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.cluster.backend import Backend, Report
    from fixtures.underlay import Underlay


class Nodes:
    """A backend and a container each host, and what each host has announced."""

    def __init__(self, underlay: Underlay, make: Callable[[], Backend], mtu: int = 1430) -> None:
        self.underlay, self._mtu = underlay, mtu
        self.backends: dict[int, Backend] = {}
        self.known: dict[int, Node] = {}
        self._made: list[Backend] = []
        self.start(make)
        for member in underlay.members.values():
            member.container(mtu=mtu)

    def start(self, make: Callable[[], Backend], *numbers: int) -> None:
        """New backends, of all hosts or some, as agents that start again."""
        for number in numbers or self.underlay.members:
            member = self.underlay.members[number]
            with entered(member.host):
                self.backends[number] = make()
            self._made.append(self.backends[number])
            said = self.backends[number].announce()
            self.known[number] = Node(said, member.subnet, member.subnet6)

    def view(self, number: int) -> View:
        """What host NUMBER sees."""
        peers = [one for other, one in self.known.items() if other != number]
        return View(self.known[number], peers, NETWORK, NETWORK6)

    def reconcile(self, *numbers: int) -> dict[int, Report]:
        """All hosts or some do; no step fails."""
        reports = {}
        for number in numbers or self.backends:
            reports[number] = self.backends[number].reconcile(self.view(number))
            failed = [str(one) for one in reports[number].failed]
            assert not failed, (number, failed)
        return reports

    def cross(self, one: int, other: int, size: int = 0) -> None:
        """Packets of that size (the containers' MTU) and streams get from one to the other."""
        source, target = self.underlay.members[one], self.underlay.members[other]
        for version in (4, 6):
            assert reaches(source, target, version, size or self._mtu), (one, other, version)
            assert transfers(target, source, version), (one, other, version)

    def are_apart(self, one: int, other: int) -> None:
        """Nothing gets there: the way is asked once, with a short patience."""
        source, target = self.underlay.members[one], self.underlay.members[other]
        for version in (4, 6):
            assert not reaches(source, target, version, seconds=0.3), (one, other, version)

    def close(self) -> None:
        for one in self._made:
            one.close()
