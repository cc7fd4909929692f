"""Backends that have the network itself lead packets to nodes: a cloud's routers, an SDN.

Packets travel as they are, and a node's kernel has nothing of it: they leave by the default route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backend import Backend
from .kernel_backend import KernelBackend, Wanted
from .state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .backend import Announcement, Node, Report, View
    from .underlay import Underlay


class NetworkBackend(KernelBackend):
    """A subclass's `plan` begins with that of this class: what another type has left here goes."""

    def overhead(self, version: int) -> int:
        """None that the node adds."""
        del version
        return 0

    def announce(self) -> Announcement:
        """The node's addresses; others need nothing more."""
        return self.addresses()

    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """Nothing in the kernel."""
        del view, peers, under
        return Wanted(State(), {})

    def reconcile(self, view: View) -> Report:
        """See `Backend.reconcile`: the whole plan, which is not the kernel's alone."""
        return Backend.reconcile(self, view)

    def follow(self, before: View, after: View) -> Report | None:
        """What is outside is looked at each time."""
        del before, after
        return None
