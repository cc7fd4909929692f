"""webhook: an SDN's controller is told where nodes and subnets are, and the network forwards them.

What it is asked is conf/openapi/sdn-webhook.yaml. Packets travel as they are, and a node's kernel
has nothing of it: they leave by the default route.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import msgspec

from cni_py.spec.errors import CniError, Code

from .backend import Plan, Report, Step
from .exchange import parse_place
from .kernel_backend import halves
from .network_backend import NetworkBackend
from .settings import Settings
from .vetting import quoted, vetted
from .webhook_access import FOLDER, Access
from .webhook_client import Controller, Node, Patience, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.addresses import Network

    from . import backend
    from .backend import Announcement, View
    from .underlay import Chosen, Underlay
    from .webhook_client import Blocked

_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class WebhookSettings(Settings, frozen=True):
    """The keys `URL`, `Cluster`, `MTU` (in bytes) and `Timeout` (of one answer, in seconds)."""

    url: str
    cluster: str = "default"
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0

    def __post_init__(self) -> None:
        try:
            parse_place(self.url)
        except ValueError as error:
            raise ValueError(f"URL is {quoted(self.url)}: {error}") from None
        if not _CLUSTER.fullmatch(self.cluster):
            raise ValueError(
                f"Cluster is {quoted(self.cluster)}, no name of letters, digits, . _ -"
            )


class _Compared(NamedTuple):
    """What is to be done at the controller, whom it serves not and why; `wanted` is all routes."""

    name: str
    said: Node
    is_announced: bool
    wanted: frozenset[Route]
    present: frozenset[Route]
    refused: dict[str, str]


class WebhookBackend(NetworkBackend):
    """See the module. `folder` has the files of webhook_access."""

    name: ClassVar[str] = "webhook"

    def __init__(
        self,
        settings: WebhookSettings,
        chosen: Chosen,
        versions: frozenset[int],
        folder: str = FOLDER,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(chosen, versions)
        self._settings = settings
        place = parse_place(settings.url)
        patience = patience or Patience(settings.timeout, 3 * settings.timeout)
        self._controller = Controller(place, settings.cluster, Access(folder, place), patience)

    def underlay_mtu(self, under: Underlay) -> int:
        """The key `MTU` counts where it is there."""
        return self._settings.mtu or under.mtu

    def plan(self, view: View) -> Plan:
        """See `Backend.plan`."""
        kernel = super().plan(view)
        found = self._look(view)
        steps = []
        if not found.is_announced:
            what = f"announce {found.name} to the controller"
            steps.append(Step(what, partial(self._controller.announce, found.name, found.said)))
        if found.wanted != found.present:
            added, removed = found.wanted - found.present, found.present - found.wanted
            what = f"replace routes at the controller: {len(added)} more, {len(removed)} less"
            steps.append(
                Step(what, partial(self._controller.replace_routes, found.name, found.wanted))
            )
        return Plan([*steps, *kernel.steps], {**found.refused, **kernel.refused})

    def health(self) -> CniError | None:
        """See `Backend.health`: how the controller says it is."""
        said = self._controller.health()
        about = quoted(said.message) if said.message else ""
        if said.status == "down":
            return CniError(Code.PLUGIN_NOT_AVAILABLE, "the controller's network is down", about)
        if said.status == "degraded":
            msg = "the controller's network does not reach all nodes"
            return CniError(Code.LIMITED_CONNECTIVITY, msg, about)
        return None

    def tear_down(self) -> Report:
        """See `Backend.tear_down`: the controller forgets this node."""
        try:
            report = self.carried_out(Plan(list(self._end())))
        except CniError as error:
            report = Report(failed=[error])
        kernel = super().tear_down()
        return Report([*report.done, *kernel.done], [*report.failed, *kernel.failed])

    def _end(self) -> Iterator[Step]:
        name = _name(self.addresses())
        if self._controller.node(name) is not None:
            what = f"withdraw {name} from the controller"
            yield Step(what, partial(self._controller.withdraw, name))

    def _look(self, view: View) -> _Compared:
        own = view.own
        name = _name(own.said)
        said = Node(
            tuple(str(one) for one in (own.said.address, own.said.address6) if one is not None),
            tuple(str(half.subnet) for half in halves(own)),
        )
        present = self._controller.routes(name)
        is_announced = self._controller.node(name) == said
        blocked = _Blocked(present.blocked)
        for half in halves(own):
            if why := blocked.why(half.subnet):
                msg = f"the controller gives nobody {half.subnet}: {why}"
                raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "choose another network")
        peers, refused = vetted(view, self.name)
        wanted = set(_of_node(own))
        for peer in peers:
            routes = list(_of_node(peer))
            why = next(filter(None, (blocked.why(half.subnet) for half in halves(peer))), "")
            if why:
                refused[peer.name] = why
            elif len(routes) < len(list(halves(peer))):
                refused[peer.name] = "it has a subnet of a family that it has no address of"
            else:
                wanted.update(routes)
        return _Compared(
            name, said, is_announced, frozenset(wanted), frozenset(present.routes), refused
        )


def _name(said: Announcement) -> str:
    return str(said.address or said.address6)


def _of_node(node: backend.Node) -> Iterator[Route]:
    for half in halves(node):
        if half.address is not None:
            yield Route(str(half.subnet), str(half.address))


class _Blocked:
    """What a controller gives to no node. What is no network there blocks nothing."""

    def __init__(self, said: Iterable[Blocked]) -> None:
        self._why: dict[Network, str] = {}
        for one in said:
            try:
                self._why[ip_network(one.destination)] = one.reason
            except ValueError:
                continue
        self._starts = {
            version: sorted(int(one.network_address) for one in self._why if one.version == version)
            for version in (4, 6)
        }

    def why(self, subnet: Network) -> str:
        """Why nobody can have it; `""` if it is free."""
        starts = self._starts[subnet.version]
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        at = bisect_left(starts, first)
        if at < len(starts) and starts[at] <= last:
            return f"the controller has a part of {subnet} blocked"
        for length in range(subnet.prefixlen + 1):
            around = subnet.supernet(new_prefix=length)
            if around in self._why:
                reason = self._why[around]
                return f"the controller has {around} blocked" + (
                    f": {quoted(reason)}" if reason else ""
                )
        return ""
