"""What sbr has changed for an attachment, and undoing that (6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import addresses, kept_routes, links, routes, rules
from cni_py.spec.addresses import parse_cidr, parse_ip

from . import records, sbr_plan
from .chained import container_ips
from .teardown import Teardown

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.netns import Netns
    from cni_py.kernel.rules import Rule
    from cni_py.spec.addresses import IP
    from cni_py.spec.call import Call

# Those that every namespace has: default, main, local.
_SYSTEM_TABLES = {253, 254, 255}


class OwnRule(msgspec.Struct, frozen=True):
    """A rule that ADD has made: for what comes from `source`. `has_routes` tells whether the table
    is the attachment's too.
    """

    source: str
    table: int
    has_routes: bool


class Record(records.Record, frozen=True, kw_only=True):
    """What ADD has changed: its rules, the main table's routes as they were before (the kernel's
    messages), and the subnets whose routes it has replaced.
    """

    rules: tuple[OwnRule, ...]
    removed: tuple[bytes, ...]
    replaced: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ValueError: a record that cannot be undone is damaged."""
        for rule in self.rules:
            parse_ip(rule.source)
        for route in self.removed:
            kept_routes.read(route)
        for subnet in self.replaced:
            parse_cidr(subnet)


RECORDS = records.Records("/run/cni-py/sbr", Record)


def undo(inside: Netlink, record: Record) -> None:
    """Take away what the record says, as far as it is there, and forget it. Raises CniError."""
    teardown = Teardown()
    with teardown.step():
        own = {(parse_ip(one.source), one.table) for one in record.rules}
        inside.submit(*(rules.delete(one) for one in rules.dump(inside) if _is_of(one, own)))
    link = links.get_by_index(inside, record.sandbox.ifindex)
    if link is not None:
        with teardown.step():
            _restore_routes(inside, link, record)
    teardown.finish()
    RECORDS.drop(record.attachment)


def _is_of(rule: Rule, own: set[tuple[IP, int]]) -> bool:
    if not rule.is_plain or rule.source is None:
        return False
    is_one = rule.source.network.prefixlen == rule.source.max_prefixlen
    return is_one and (rule.source.ip, rule.table) in own


def _restore_routes(inside: Netlink, link: Link, record: Record) -> None:
    """The tables' routes go first: they are what else would answer for the gateways."""
    have = kept_routes.snapshot(inside, link.ifindex)
    tables = {one.table for one in record.rules if one.has_routes}
    former = [kept_routes.read(one) for one in record.removed]
    known = {one.body for one in former}
    replaced = {parse_cidr(one).network for one in record.replaced}
    gone = [one for one in have if one.table in tables]
    gone += [
        one
        for one in have
        if one.table == routes.MAIN_TABLE and one.destination in replaced and one.body not in known
    ]
    inside.submit(
        *(kept_routes.remove(one) for one in gone),
        *(kept_routes.put_back(one, where_possible=True) for one in kept_routes.in_order(former)),
    )


def delete_foreign(call: Call[Any], container: Netns, inside: Netlink) -> None:
    """What has no record of ours: the reference has made it, or nobody.

    Rules of the attachment's addresses to a table that only leads through its interface: another
    rule of the same source is somebody else's (W-SB4).
    """
    link = links.get(inside, call.ifname)
    sources = _sources(call, inside, link)
    wanted = call.config.table
    others = _foreign_tables(inside, link) if wanted is None else set()
    # Another attachment may have been given the address.
    recorded = {
        (one.source, one.table)
        for record in RECORDS.every()
        if record.sandbox.is_it(container)
        for one in record.rules
    }
    found = [
        one
        for one in rules.dump(inside)
        if one.is_plain
        and one.source is not None
        and one.source.ip in sources
        and (one.table == wanted if wanted is not None else _may_be_own(one.table, others))
        and (str(one.source.ip), one.table) not in recorded
    ]
    inside.submit(*(rules.delete(one) for one in found))


def _sources(call: Call[Any], inside: Netlink, link: Link | None) -> set[IP]:
    """The attachment's addresses: those of the interface, and those of the previous result."""
    found: set[IP] = set()
    if link is not None:
        found |= {one.address.ip for one in addresses.dump(inside, link.ifindex)}
    if call.prev_result is not None:
        found |= {one.address.ip for one in container_ips(call.prev_result, call.ifname)}
    return found


def _may_be_own(table: int, others: set[int]) -> bool:
    return table >= sbr_plan.FIRST_TABLE and table not in others


def _foreign_tables(inside: Netlink, link: Link | None) -> set[int]:
    """The tables that lead elsewhere than through the interface."""
    own = [] if link is None else kept_routes.snapshot(inside, link.ifindex)
    known = {one.body for one in own}
    return {one.table for one in kept_routes.dump(inside) if one.body not in known} | _SYSTEM_TABLES
