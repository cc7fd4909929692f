"""sbr: route by source, what comes from the container's interface through it (6.5).

Each address gets a routing table of its own and a rule that leads to it; the interface's routes
leave the main table. What was changed is recorded, so that DEL undoes that and nothing else.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import kept_routes, links, routes, rules
from cni_py.kernel.errors import unavailable
from cni_py.kernel.lock import alone_in
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.addresses import parse_ip
from cni_py.spec.errors import CniError, Code

from . import interface, records, sandbox, sbr_plan
from .chained import container_ips
from .evidence import Evidence
from .sbr_plan import Config, DelConfig, mistakes
from .sbr_record import RECORDS, OwnRule, Record, delete_foreign, undo
from .teardown import Teardown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_py.kernel.kept_routes import KeptRoute
    from cni_py.kernel.links import Link
    from cni_py.kernel.netns import Netns
    from cni_py.kernel.rules import Rule
    from cni_py.spec.addresses import IP
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import IPConfig, Result

    from .sbr_plan import Plan

__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]


def add(call: Call[Config]) -> Result:
    """Make rules and tables; returns the previous result."""
    sbr_plan.gateways(call.config)
    result = interface.previous(call)
    ips = _addresses(call, result)
    container, inside = call.scope.enter_context(sandbox.opened(call))
    call.scope.enter_context(alone_in(container))
    with step("sbr"):
        link = links.get(inside, call.ifname)
        if link is None:
            msg = f"interface {call.ifname} is not in {call.netns}"
            raise CniError(Code.INTERNAL, msg, "the plugin before in the chain creates it")
        _undo_earlier(call.attachment, container, inside)
        planned = _plan(inside, link, ips, call.config)
        record = _record(call.attachment, container, inside, link, planned)
        call.scope.enter_context(undone_on_failure(lambda: undo(inside, record)))
        RECORDS.save(record)
        wanted = [rules.from_address(parse_ip(one.source), one.table) for one in record.rules]
        inside.submit(*wanted, *sbr_plan.additions(link, planned))
        inside.submit(*sbr_plan.hints(link, planned))
        inside.submit(*(kept_routes.remove(one) for one in planned.removed))
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Take away what ADD has made, and give the main table its routes back."""
    record = RECORDS.load(call.attachment)
    if record is None:
        container = open_netns(call.netns) if call.netns else None
    else:
        container = records.find(record.sandbox, call.netns)
    if container is not None:
        with _locked(container) as inside, step("sbr"):
            if record is None:
                delete_foreign(call, container, inside)
            else:
                undo(inside, record)
    RECORDS.drop(call.attachment)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    result = interface.previous(call)
    ips, record = _addresses(call, result), RECORDS.load(call.attachment)
    with sandbox.opened(call) as (container, inside):
        link = links.get(inside, call.ifname)
        if link is None:
            raise interface.differs(f"interface {call.ifname}", "present", "missing")
        if record is not None and not record.sandbox.is_it(container):
            record = None
        have, own = rules.dump(inside), kept_routes.snapshot(inside, link.ifindex)
        static = sbr_plan.gateways(call.config)
        for one in ips:
            table = _check_rule(one.address.ip, have, record, call.config.table)
            gateway = static.get(one.address.version, one.gateway)
            if call.config.table is None and gateway is not None:
                _check_default(link, table, gateway, own)
        if call.config.table is None:
            _check_main(call.config, link, ips, own)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed."""
    unsupported = "the kernel lacks policy routing (CONFIG_IP_MULTIPLE_TABLES)"
    with unavailable(unsupported):
        sbr_plan.gateways(call.config)
        with Netlink() as host:
            rules.dump(host)


def gc(call: Call[DelConfig], collection: Collection) -> None:  # noqa: ARG001 - a handler's form
    """Undo the routing of the attachments that the collection takes."""
    teardown = Teardown()
    for record in RECORDS.taken(collection, "routing by source", Evidence().against_record):
        with teardown.step():
            container = records.find(record.sandbox, "")
            if container is not None:
                with _locked(container) as inside:
                    undo(inside, record)
            RECORDS.drop(record.attachment)
    teardown.finish()


@contextmanager
def _locked(container: Netns) -> Iterator[Netlink]:
    """A socket in the namespace, which nobody else changes meanwhile; both are closed."""
    with container:
        with container.entered():
            inside = Netlink()
        with inside, alone_in(container):
            yield inside


def _addresses(call: Call[Any], result: Result) -> list[IPConfig]:
    ips = container_ips(result, call.ifname)
    if not ips:
        msg = f"No IP addresses supplied on interface: {call.ifname}"
        raise CniError(Code.INVALID_CONFIG, msg, "in prevResult")
    return ips


# ADD.


def _plan(inside: Netlink, link: Link, ips: Sequence[IPConfig], config: Config) -> Plan:
    """What to change, by what the namespace has now. Raises KernelError."""
    have = rules.dump(inside)
    everything = kept_routes.dump(inside)
    own = kept_routes.snapshot(inside, link.ifindex)
    return sbr_plan.plan(ips, config, everything, own, have)


def _record(
    attachment: Attachment, container: Netns, inside: Netlink, link: Link, planned: Plan
) -> Record:
    """What is going to be changed. A rule that is there already is somebody else's."""
    there = {
        (one.source.ip, one.table)
        for one in rules.dump(inside)
        if one.is_plain and one.source is not None
    }
    place = msgspec.structs.replace(records.sandbox_of(container), ifindex=link.ifindex)
    removed = list(planned.removed)
    if planned.hinted:
        subnets = {one.network for one in planned.hinted}
        own = kept_routes.snapshot(inside, link.ifindex)
        removed += [
            one
            for one in own
            if one.table == routes.MAIN_TABLE and one.destination in subnets and one not in removed
        ]
    return Record(
        attachment=attachment,
        sandbox=place,
        rules=tuple(
            OwnRule(str(one.address.ip), one.table, one.gateway is not None or bool(one.copies))
            for one in planned.sources
            if (one.address.ip, one.table) not in there
        ),
        removed=tuple(one.body for one in removed),
        replaced=tuple(str(one) for one in planned.hinted),
    )


def _undo_earlier(attachment: Attachment, container: Netns, inside: Netlink) -> None:
    """An ADD that is repeated begins anew (W-SB4)."""
    record = RECORDS.load(attachment)
    if record is not None and record.sandbox.is_it(container):
        undo(inside, record)


# CHECK.


def _check_rule(
    address: IP, have: Sequence[Rule], record: Record | None, wanted: int | None
) -> int:
    """The table of the address's rule, which must be the recorded one. Raises CniError."""
    recorded = () if record is None else record.rules
    table = next((one.table for one in recorded if one.source == str(address)), wanted)
    found = [
        one.table
        for one in have
        if one.is_plain and one.source is not None and one.source.ip == address
    ]
    if not found or table not in (None, *found):
        expected = "one" if table is None else f"lookup {table}"
        listed = ", ".join(f"lookup {one}" for one in found) or "none"
        raise interface.differs(f"rule from {address}", expected, listed)
    return found[0] if table is None else table


def _check_default(link: Link, table: int, gateway: IP, own: Sequence[KeptRoute]) -> None:
    defaults = [
        one
        for one in own
        if one.table == table
        and not one.destination.prefixlen
        and one.destination.version == gateway.version
    ]
    if not any(one.gateway == gateway for one in defaults):
        what = f"default route of interface {link.name} in table {table}"
        listed = ", ".join(f"via {one.gateway}" for one in defaults) or "none"
        raise interface.differs(what, f"via {gateway}", listed)


def _check_main(
    config: Config, link: Link, ips: Sequence[IPConfig], own: Sequence[KeptRoute]
) -> None:
    """Whether the interface's routes have left the main table."""
    hinted = [one.address for one in ips] if config.add_source_hints else []
    subnets = [one.network for one in hinted]
    main = [one for one in own if one.table == routes.MAIN_TABLE]
    for one in main:
        if not sbr_plan.stays(one, subnets):
            what = f"main table's route {one.destination} of interface {link.name}"
            raise interface.differs(what, "none", one.text)
    for address in hinted:
        is_subnet = address.network.prefixlen < address.max_prefixlen
        hints = [one for one in main if one.destination == address.network]
        if is_subnet and not any(one.source == address.ip for one in hints):
            what = f"main table's route {address.network} of interface {link.name}"
            listed = ", ".join(f"src {one.source}" for one in hints) or "none"
            raise interface.differs(what, f"src {address.ip}", listed)
