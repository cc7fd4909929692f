"""aws-vpc: the VPC's routers know each node's subnets, by routes that each node makes for itself.

Packets travel as they are, and a node's kernel has nothing of it: they leave by the default route.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from cni_py.kernel import links
from cni_py.spec.errors import CniError, Code, cni_error_of

from .aws_ec2 import Ec2
from .aws_metadata import instance
from .aws_routes import Mark, difference
from .backend import Plan, Report, Step
from .kernel_backend import halves
from .network_backend import NetworkBackend
from .settings import Settings
from .vetting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import Network

    from .aws_routes import Difference, Route, Tables
    from .backend import View
    from .underlay import Chosen

_TABLE = re.compile(r"rtb-[0-9a-f]{8,17}")
# A route whose node is not seen may be that of one whose lease has not been heard of yet.
_GRACE = 120.0


class AwsVpcSettings(Settings, frozen=True):
    """`RouteTableID`, flannel's key: a table, or several; without it that of the own subnet."""

    routetableid: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one in self.tables:
            if not _TABLE.fullmatch(one):
                raise ValueError(f"RouteTableID is {quoted(one)}, not one such as rtb-01234567")

    @property
    def tables(self) -> tuple[str, ...]:
        """Each once, in order."""
        given = self.routetableid
        named = (given,) if isinstance(given, str) else given
        return tuple(sorted({one for one in named if one}))


class AwsVpcBackend(NetworkBackend):
    """See the module.

    `grace` is for how many seconds a route of a node that the cluster does not have is left.
    """

    name: ClassVar[str] = "aws-vpc"

    def __init__(
        self,
        settings: AwsVpcSettings,
        chosen: Chosen,
        versions: frozenset[int],
        grace: float = _GRACE,
    ) -> None:
        super().__init__(chosen, versions)
        self._settings, self._grace = settings, grace
        # By the interface of the underlay, which can become another one.
        self._clients: dict[str, Ec2] = {}
        # Since when each is seen, by the monotonic clock.
        self._stale: dict[Route, float] = {}

    def close(self) -> None:
        """Close all connections."""
        for one in self._clients.values():
            one.close()
        super().close()

    def plan(self, view: View) -> Plan:
        """See `Backend.plan`."""
        kernel = super().plan(view)
        ec2 = self._ec2()
        there = ec2.look(self._settings.tables)
        found = self._difference(view, there)
        steps = [*_first(ec2, there, _networks(view), found), *_deletions(ec2, there, view, found)]
        # The way to others is there before one that another type has left goes.
        return Plan([*steps, *kernel.steps], kernel.refused)

    def tear_down(self) -> Report:
        """See `Backend.tear_down`: this node's routes and tag; the check is as it was before."""
        try:
            ec2 = self._ec2()
            there = ec2.look(self._settings.tables)
        except CniError as error:
            kernel = super().tear_down()
            return Report(kernel.done, [error, *kernel.failed])
        report = self.carried_out(Plan(list(_end(ec2, there))))
        kernel = super().tear_down()
        return Report([*report.done, *kernel.done], [*report.failed, *kernel.failed])

    def _ec2(self) -> Ec2:
        under = self.underlay()
        link = links.get_by_index(self._kernel.netlink, under.index)
        mac = link.mac if link is not None else ""
        if mac not in self._clients:
            self._clients[mac] = Ec2(instance(mac, under.link))
        return self._clients[mac]

    def _difference(self, view: View, there: Tables) -> Difference:
        own = [half.subnet for half in halves(view.own)]
        claimed = [half.subnet for peer in view.peers for half in halves(peer)]
        found = difference(there, own, claimed, _networks(view))
        now = time.monotonic()
        self._stale = {one: self._stale.get(one, now) for one in found.stale}
        due = tuple(one for one in found.stale if now - self._stale[one] >= self._grace)
        return found._replace(stale=due)


def _networks(view: View) -> set[Network]:
    return {one for one in (view.network, view.network6) if one is not None}


def _first(ec2: Ec2, there: Tables, networks: set[Network], found: Difference) -> Iterator[Step]:
    """The tag, by which a route is known as ours, comes before the first route."""
    own = there.own
    former = own.mark.networks if own.mark is not None and found.former else frozenset()
    mark = Mark(frozenset(networks) | former, _was_checked(there))
    if own.mark != mark:
        yield Step(f"tag {own.name}", partial(ec2.mark, own.name, mark))
    if own.is_checked:
        what = f"set the source/destination check of {own.name} off"
        yield Step(what, partial(ec2.set_check, own.name, on=False))
    for route in found.wrong:
        yield Step(f"replace {route.what}", partial(ec2.put, route, instead=True))
    for route in found.missing:
        yield Step(f"add {route.what}", partial(ec2.put, route, instead=False))


def _deletions(ec2: Ec2, there: Tables, view: View, found: Difference) -> Iterator[Step]:
    gone: list[Route] = []

    def delete(route: Route) -> None:
        ec2.delete(route)
        gone.append(route)

    def forget() -> None:
        if len(gone) < len(found.former):
            raise CniError(Code.TRY_AGAIN_LATER, "routes into a former network are still there")
        ec2.mark(there.own.name, Mark(frozenset(_networks(view)), _was_checked(there)))

    for route in found.former:
        yield Step(f"remove {route.what}", partial(delete, route))
    mark = there.own.mark
    if found.former and mark is not None and not mark.networks <= _networks(view):
        yield Step(f"tag {there.own.name} without its former networks", forget)
    for route in found.stale:
        yield Step(f"remove {route.what}", partial(ec2.delete, route))


def _end(ec2: Ec2, there: Tables) -> Iterator[Step]:
    own = there.own
    if own.mark is None:
        return
    failed: list[CniError] = []

    def delete(route: Route) -> None:
        try:
            ec2.delete(route)
        except (CniError, OSError) as error:
            failed.append(cni_error_of(error))
            raise

    def unmark() -> None:
        # Without its tag nobody would know a route that is left as ours.
        for error in failed:
            raise error
        ec2.unmark(own.name)

    for route in there.routes:
        if route.target == own.name and there.is_ours(route, ()):
            yield Step(f"remove {route.what}", partial(delete, route))
    if own.mark.was_checked and not own.is_checked:
        what = f"set the source/destination check of {own.name} on"
        yield Step(what, partial(ec2.set_check, own.name, on=True))
    yield Step(f"remove the tag of {own.name}", unmark)


def _was_checked(there: Tables) -> bool:
    mark = there.own.mark
    return there.own.is_checked if mark is None else mark.was_checked
