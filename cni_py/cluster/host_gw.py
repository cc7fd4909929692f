"""host-gw: the peer itself is the gateway to its containers, on a link that all nodes are on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .kernel_backend import KernelBackend, Wanted, halves
from .state import Route, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .backend import Announcement, Node, View
    from .underlay import Underlay


class HostGatewayBackend(KernelBackend):
    """See the module. It has no settings."""

    name: ClassVar[str] = "host-gw"

    def overhead(self, version: int) -> int:
        """None: packets travel as they are."""
        del version
        return 0

    def announce(self) -> Announcement:
        """The node's addresses say all."""
        return self.addresses()

    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """A route for each peer."""
        versions = {half.version for half in halves(view.own)}
        routes: set[Route] = set()
        refused: dict[str, str] = {}
        for peer in peers:
            theirs = {}
            for half in halves(peer):
                if half.version not in versions:
                    continue
                if half.address is None:
                    refused[peer.name] = f"it has no IPv{half.version} address"
                elif not under.reaches_directly(half.address):
                    refused[peer.name] = (
                        f"{half.address} is not on the link {under.link}, as host-gw needs it; "
                        "vxlan reaches beyond a router"
                    )
                else:
                    theirs[half.version] = Route(half.subnet, under.link, half.address)
            if peer.name not in refused:
                routes.update(theirs.values())
        return Wanted(State(routes=frozenset(routes)), refused)
