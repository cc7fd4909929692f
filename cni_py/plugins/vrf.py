"""vrf: put the container's interface into a VRF, which is made where it is missing (6.6)."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, kept_routes, links, routes, rules, vrf
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.lock import alone_in
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals, require_none
from cni_py.spec.names import validate_device_name

from . import interface, sandbox
from .teardown import Teardown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.kept_routes import KeptRoute
    from cni_py.kernel.links import Link
    from cni_py.kernel.netns import Netns
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

# Several attachments can be in it: its label names none of them.
_ALIAS = "cni-py: vrf"
# One that its maker has not labelled yet.
_UNFINISHED = 0x44767266
_SYSTEM_TABLES = (253, 254, 255)
_LAST_TABLE = 2**32 - 1
_SECONDS = 10.0


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know."""

    vrfname: str = ""
    """The VRF in the container; made where it is missing."""


class Config(DelConfig, frozen=True, kw_only=True):
    """vrf's configuration; table 0 stands for one that nothing uses."""

    table: int = 0
    """Its routing table, not 253 to 255; 0: a free one."""


def add(call: Call[Config]) -> Result:
    """Put the interface into the VRF with its addresses and routes; returns the previous result."""
    config = checked(call)
    result = interface.previous(call)
    container, inside = call.scope.enter_context(sandbox.opened(call))
    call.scope.enter_context(alone_in(container))
    with step("vrf"):
        link = links.get(inside, call.ifname)
        if link is None:
            msg = f"interface {call.ifname} is not in {call.netns}"
            raise CniError(Code.INTERNAL, msg, "the plugin before in the chain creates it")
        _require_free(inside, link)
        device = _existing(inside, config)
        call.scope.enter_context(
            undone_on_failure(lambda: _leave(container, inside, call.ifname, config.vrfname))
        )
        if device is None:
            device = _create(inside, config)
        _move(container, inside, link, device, into=True)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Take the interface out with its addresses and routes; a VRF of ours goes with its last."""
    container = open_netns(call.netns) if call.netns else None
    if container is None or not call.config.vrfname:
        if container is not None:
            container.close()
        return
    with container:
        with container.entered():
            inside = Netlink()
        with inside, alone_in(container), step("vrf"):
            _leave(container, inside, call.ifname, call.config.vrfname)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config = checked(call)
    result, index = interface.listed(call)
    with sandbox.opened(call) as (_, inside):
        device = _existing(inside, config)
        if device is None:
            raise interface.differs(f"vrf {config.vrfname}", "present", "missing")
        state = interface.state_of(device)
        interface.require_same(f"state of vrf {device.name}", "up", state)
        link = links.get(inside, call.ifname)
        if link is None:
            raise interface.differs(f"interface {call.ifname}", "present", "missing")
        if link.master != device.ifindex:
            found = _master_name(inside, link)
            raise interface.differs(f"vrf of interface {link.name}", device.name, found)
        interface.check_addresses(inside, link, result, index)
        table = vrf.table_of(device)
        moved = [
            msgspec.structs.replace(one, table=table)
            for one in result.routes
            if one.table in (None, 0, routes.MAIN_TABLE)
        ]
        interface.check_routes(inside, link, moved)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed."""
    unsupported = "the kernel lacks VRFs (CONFIG_NET_VRF), or the module vrf is not installed"
    with unavailable(unsupported):
        checked(call)
        with Netlink() as host:
            vrf.require_support(host)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """A namespace takes its VRFs with it."""


# ADD.


def checked(call: Call[Config]) -> Config:
    """Check what types cannot say. Raises CniError 7."""
    require_none(mistakes(call))
    return call.config


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    if not config.vrfname:
        msg = "configuration is expected to have a valid vrf name"
        details = "the key vrfname is missing or empty"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="vrfname")
    else:
        yield from refusals("vrfname", validate_device_name, config.vrfname, "vrfname")
        if config.vrfname == call.ifname:
            msg = f'vrfname "{config.vrfname}" is the name of the interface'
            details = "a VRF is an interface of its own"
            yield CniError(Code.INVALID_CONFIG, msg, details, key="vrfname")
    if not 0 <= config.table <= _LAST_TABLE or config.table in _SYSTEM_TABLES:
        msg = f"invalid table {config.table}"
        details = f"table is 0 (one that is free) or 1 to {_LAST_TABLE}, but not 253 to 255"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="table")


def _require_free(inside: Netlink, link: Link) -> None:
    if link.master:
        msg = f"interface {link.name} has already a master set: {_master_name(inside, link)}"
        raise CniError(Code.INTERNAL, msg, "an interface has one master: DEL comes before")


def _master_name(inside: Netlink, link: Link) -> str:
    if not link.master:
        return "none"
    master = links.get_by_index(inside, link.master)
    return str(link.master) if master is None else master.name


def _existing(inside: Netlink, config: Config) -> Link | None:
    """The VRF of that name. Raises CniError for one of another kind or table."""
    device = links.get(inside, config.vrfname)
    if device is None:
        return None
    if device.kind != vrf.KIND:
        msg = f"Netlink {config.vrfname} is not a VRF"
        raise CniError(Code.INTERNAL, msg, f"its kind is {device.kind or 'none'}")
    table = vrf.table_of(device)
    if config.table and config.table != table:
        msg = f"VRF {config.vrfname} already exist with different routing table {table}"
        raise CniError(Code.INTERNAL, msg, f"table {config.table} is configured")
    return device


def _create(inside: Netlink, config: Config) -> Link:
    devices = links.dump(inside, vrf.KIND)
    holders = {vrf.table_of(one): one.name for one in devices}
    if config.table in holders:
        msg = f"table {config.table} is the one of VRF {holders[config.table]}"
        raise CniError(Code.INTERNAL, msg, f'vrfname is "{config.vrfname}"')
    table = config.table or _free_table(inside, set(holders))
    name = config.vrfname
    inside.submit(vrf.create(name, table, _UNFINISHED), links.set_owner(name, _ALIAS))
    return interface.require_link(inside, name)


def _free_table(inside: Netlink, used: set[int]) -> int:
    """The lowest that no VRF, rule or route uses (W-VR3)."""
    used |= {one.table for one in rules.dump(inside)}
    used |= {one.table for one in kept_routes.dump(inside)}
    return next(number for number in range(1, _LAST_TABLE) if number not in used)


# Both.


def _move(container: Netns, inside: Netlink, link: Link, device: Link, *, into: bool) -> None:
    """Put the interface into the VRF, or take it out, and give it back what it loses by that.

    The kernel takes it down and up again: its IPv6 addresses may go, and all routes do that are
    not the addresses' own.
    """
    kept = addresses.snapshot(inside, link.ifindex)
    before = kept_routes.snapshot(inside, link.ifindex)
    table = vrf.table_of(device)
    source, target = (routes.MAIN_TABLE, table) if into else (table, routes.MAIN_TABLE)
    moved = [one for one in before if not one.is_made_by_itself]
    with container.entered():
        events = Netlink(kept_routes.RTMGRP_IPV6_ROUTE)
    with events:
        what = f"put {link.name} {'into' if into else 'out of'} vrf {device.name}"
        master = device.ifindex if into else 0
        inside.submit(links.change(link.name, ("IFLA_MASTER", master), what=what))
        flags = addresses.IFA_F_NODAD
        inside.submit(
            *(addresses.put_back(link.ifindex, link.name, one, flags=flags) for one in kept)
        )
        _wait_for_local_routes(inside, events, link, before, table if into else 255)
    inside.submit(
        *(
            kept_routes.put_back(
                one, target if one.table == source else one.table, where_possible=not into
            )
            for one in kept_routes.in_order(moved)
        )
    )


def _wait_for_local_routes(
    inside: Netlink, events: Netlink, link: Link, before: list[KeptRoute], table: int
) -> None:
    """Wait until the kernel has the routes to the interface's own IPv6 addresses again.

    It adds them later than the addresses, and until then nothing reaches them. Raises KernelError
    ETIMEDOUT. Those that there were not before, say of a link without carrier, are not waited for,
    and neither are link-local ones, which the kernel may look for duplicates of.
    """
    wanted = {
        one.destination
        for one in before
        if one.is_local and one.destination.version == 6 and not one.destination.is_link_local
    }
    reports = events.events(time.monotonic() + _SECONDS)
    while True:
        have = kept_routes.snapshot(inside, link.ifindex)
        missing = wanted - {one.destination for one in have if one.table == table and one.is_local}
        if not missing:
            return
        if next(reports, None) is None:
            listed = ", ".join(str(one.network_address) for one in sorted(missing, key=str))
            what = f"failed getting local/host addresses for {listed} of {link.name}"
            raise KernelError(what, errno.ETIMEDOUT)


def _leave(container: Netns, inside: Netlink, ifname: str, vrfname: str) -> None:
    """Take the interface out of the VRF, and delete that if it is ours and empty.

    All of that may be gone (W-VR1); a VRF that others have made stays (W-VR2). Raises CniError.
    """
    device = links.get(inside, vrfname)
    if device is None or device.kind != vrf.KIND:
        return
    teardown = Teardown()
    link = links.get(inside, ifname)
    if link is not None and link.master == device.ifindex:
        with teardown.step():
            _move(container, inside, link, device, into=False)
    with teardown.step():
        is_ours = device.alias == _ALIAS or device.group == _UNFINISHED
        if is_ours and not links.count_ports(inside, device):
            links.delete(inside, vrfname)
    teardown.finish()
