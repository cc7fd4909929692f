"""What the backends that need nothing but this node's kernel have in common."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel.marked_routes import DEFAULT_PRIORITY
from cni_py.spec.errors import CniError, Code

from . import underlay
from .backend import Announcement, Backend, Node, Plan, Step
from .following import Followed
from .overlay_kernel import PROTOCOL, OverlayKernel
from .own_removals import OwnRemovals
from .plan import Remove, operations
from .state import State
from .vetting import vetted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cni_py.kernel.changes import Change
    from cni_py.spec.addresses import IP, Network

    from .backend import Report, View
    from .overlay_kernel import Present
    from .plan import Operation
    from .underlay import Chosen, Underlay

_LEAST_MTU = {4: 576, 6: 1280}


class Wanted(NamedTuple):
    """The state that a view asks for, and which peers cannot be served, and why."""

    state: State
    refused: dict[str, str]


class Half(NamedTuple):
    """A node's part in one family: its subnet, its address of that family, its data."""

    version: int
    subnet: Network
    address: IP | None
    data: object


def halves(node: Node) -> Iterator[Half]:
    """The families that a node has a subnet of."""
    if node.subnet is not None:
        yield Half(4, node.subnet, node.said.address, node.said.data)
    if node.subnet6 is not None:
        yield Half(6, node.subnet6, node.said.address6, node.said.data6)


class KernelBackend(Backend):
    """A backend in the namespace that it is made in.

    `versions` are the IP versions of the cluster's networks.
    """

    def __init__(self, chosen: Chosen, versions: frozenset[int]) -> None:
        """Raises KernelError."""
        self._chosen = chosen
        self._versions = versions
        self._kernel = OverlayKernel()
        self._watched: frozenset[int] = frozenset()
        self._networks: tuple[Network, ...] = ()
        self._followed: Followed | None = None
        self._removals = OwnRemovals()

    @abstractmethod
    def wanted(self, view: View, peers: Iterable[Node], under: Underlay) -> Wanted:
        """What the kernel should have of ours: a pure function. `peers` are believed."""

    @abstractmethod
    def overhead(self, version: int) -> int:
        """The bytes that a packet of that family grows by on its way."""

    def close(self) -> None:
        """Close the sockets."""
        self._kernel.close()

    def mtu(self) -> int:
        """Of all families, since a container's interface has one."""
        under = self.underlay()
        return min(self.mtu_of(under, version) for version in self._versions)

    def mtu_of(self, under: Underlay, version: int) -> int:
        """The MTU of what carries a family. Raises CniError 50 where nothing would fit."""
        mtu = self.underlay_mtu(under) - self.overhead(version)
        if mtu < _LEAST_MTU[version]:
            msg = (
                f"the MTU of {under.link} is {under.mtu}: too small for IPv{version} in {self.name}"
            )
            least = _LEAST_MTU[version] + self.overhead(version)
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, f"it needs {least} bytes")
        return mtu

    def underlay_mtu(self, under: Underlay) -> int:
        """The underlay's MTU, unless the settings say otherwise."""
        return under.mtu

    def underlay(self) -> Underlay:
        """As it is now. Raises CniError 50, KernelError."""
        return underlay.find(self._kernel.netlink, self._chosen)

    def announced(self, under: Underlay, version: int) -> IP:
        """The address at which others reach this node. Raises CniError 50 without one."""
        chosen = self._chosen.public if version == 4 else self._chosen.public6
        found: IP | None = chosen or (under.address if version == 4 else under.address6)
        if found is None:
            msg = f"{under.link} has no IPv{version} address at which other nodes reach this one"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, f"{under.link} was chosen: {under.why}")
        return found

    def addresses(self) -> Announcement:
        """What a node says that needs nothing but its addresses. Raises CniError 50 without one."""
        under = self.underlay()
        for version in self._versions:
            self.announced(under, version)
        public, public6 = self._chosen.public, self._chosen.public6
        return Announcement(self.name, public or under.address, public6 or under.address6)

    def plan(self, view: View) -> Plan:
        """See `Backend.plan`."""
        found, wanted = self._compared(view, self.underlay())
        return self._plan(found, wanted.refused)

    def _plan(self, found: Iterable[Operation], refused: Mapping[str, str]) -> Plan:
        return Plan([Step(one.what, partial(self._carry_out, one)) for one in found], refused)

    def _carry_out(self, operation: Operation) -> None:
        if isinstance(operation, Remove):
            link = self._kernel.index_of(operation.thing.link)
            self._removals.expect(operation.thing, link)
        self._kernel.carry_out(operation)

    def reconcile(self, view: View) -> Report:
        """See `Backend.reconcile`."""
        followed, self._followed = self._followed, None
        self._removals.forget()
        under = self.underlay()
        found, wanted = self._compared(view, under)
        report = self.carried_out(self._plan(found, wanted.refused))
        if not report.failed and not report.refused:
            same = followed is not None and followed.view is view and followed.under == under
            self._followed = followed if same else Followed(view, under, wanted.state)
        return report

    def follow(self, before: View, after: View) -> Report | None:
        """See `Backend.follow`."""
        followed, self._followed = self._followed, None
        self._removals.forget()
        if followed is None or followed.view is not before:
            return None
        found = followed.operations(after, self.name, self.wanted)
        if found is None:
            return None
        report = self.carried_out(self._plan(found, {}))
        if not report.failed:
            self._followed = followed
        return report

    def _compared(self, view: View, under: Underlay) -> tuple[list[Operation], Wanted]:
        present = self._kernel.look()
        self._watch(view, under, present)
        peers, refused = vetted(view, self.name)
        wanted = self.wanted(view, peers, under)
        blocked = self._blocked(wanted.state, present)
        if blocked:
            peers, more = _unblocked(peers, blocked)
            wanted = self.wanted(view, peers, under)
            refused |= more
        self._require_names(wanted.state, present)
        found = operations(wanted.state, present.state)
        return found, Wanted(wanted.state, refused | wanted.refused)

    def _blocked(self, wanted: State, present: Present) -> Mapping[Network, str]:
        """The destinations that somebody else has a route to, which ours cannot stand beside."""
        wanting = wanted.routes - present.state.routes
        missing = {one.destination for one in wanting if one.link}
        if not missing:
            return {}
        return {
            one.destination: f"somebody else has a route to {one.destination}"
            for one in self._kernel.routes_of_others()
            if one.destination in missing
            and one.priority <= DEFAULT_PRIORITY[one.destination.version]
        }

    def _require_names(self, wanted: State, present: Present) -> None:
        for name in wanted.devices:
            if name in present.others:
                msg = f"there is a link {name} that is not cni-py's"
                details = f"{self.name} needs the name: end what made it, then: ip link del {name}"
                raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details) from None

    def tear_down(self) -> Report:
        """See `Backend.tear_down`: all that is ours, also of another kernel backend."""
        self._followed = None
        found = operations(State(), self._kernel.look().state)
        return self.carried_out(self._plan(found, {}))

    def _watch(self, view: View, under: Underlay, present: Present) -> None:
        indices = {self._kernel.index_of(name) for name in present.state.devices}
        self._watched = frozenset(indices | {under.index})
        self._networks = tuple(one for one in (view.network, view.network6) if one is not None)

    def concerns(self, change: Change) -> bool:
        """What is on our links and on the underlay, our routes that go, others' in our networks."""
        if change.kind == "lost":
            return True
        if self._removals.has(change):
            return False
        if change.kind in ("link", "address"):
            return change.link in self._watched
        if change.kind == "neighbour":
            # On the underlay they come and go.
            return change.gone and change.link in self._watched
        if change.protocol == PROTOCOL:
            return change.gone
        destination = change.destination
        return destination is not None and any(
            destination.version == one.version and destination.network_address in one
            for one in self._networks
        )


def _unblocked(
    peers: list[Node], blocked: Mapping[Network, str]
) -> tuple[list[Node], dict[str, str]]:
    """The peers that nobody is in the way of. Raises CniError 50 where it is not about a peer."""
    refused: dict[str, str] = {}
    left = []
    found = set()
    for peer in peers:
        theirs = [half.subnet for half in halves(peer) if half.subnet in blocked]
        found.update(theirs)
        if theirs:
            refused[peer.name] = blocked[theirs[0]]
        else:
            left.append(peer)
    for destination in blocked.keys() - found:
        msg = f"somebody else has a route to {destination}"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "remove that route")
    return left, refused
