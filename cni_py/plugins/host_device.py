"""host-device: move a device of the host into a container (plugins.md 3.6)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import msgspec

from cni_py.ipam import delegation
from cni_py.kernel import links
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Interface, Result

from . import host_device_return as returning
from . import interface, sandbox
from .host_device_config import Config, DelConfig, find, mistakes, not_found, selection_of
from .host_device_record import RECORDS, Record, record_of
from .teardown import Teardown, detaching

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.kernel.netns import Netns
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

    from .host_device_config import Selection


__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]


def add(call: Call[Config]) -> Result:
    """Move the device into the container, set it up, and address it as configured."""
    selection, scope = selection_of(call), call.scope
    container, inside = scope.enter_context(sandbox.opened(call))
    if selection.is_dpdk:
        # Nothing tells a second ADD, whose undoing would release the first one's address.
        result = sandbox.decided(call, Interface(call.ifname, sandbox=call.netns))
        scope.enter_context(undone_on_failure(lambda: delete(call)))
        return result
    host = scope.enter_context(Netlink())
    sandbox.require_free(inside, container, call.ifname)
    _require_detached(host, container, inside, call)
    device = _find(host, inside, selection)
    with step("move"):
        record = record_of(host, device, call.attachment, container)
        scope.enter_context(undone_on_failure(lambda: delete(call)))
        link = _move_in(host, inside, container, device, record)
    result = sandbox.decided(call, Interface(link.name, link.mac, sandbox=call.netns))
    with step("addresses"):
        if result.ips:
            with container.entered():
                interface.enable_ipv6(link.name, result)
                interface.announce_when_up(link.name)
        interface.set_up(inside, link, result, 0)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Give the device back as it was, then release the address."""
    with detaching(call) as teardown, teardown.step(), step("device"), Netlink() as host:
        record = RECORDS.load(call.attachment)
        if record is not None:
            returning.restore(host, record, call.netns)
        else:
            RECORDS.drop(call.attachment)
            _delete_foreign(host, call)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config = call.config
    if config.ipam.type:
        delegation.ipam_check(call.request, config.ipam.type)
    result, index = interface.listed(call)
    expected = result.interfaces[index]
    if not expected.mac:
        # There is no interface: a program in user space drives the device.
        return
    record = RECORDS.load(call.attachment)
    with sandbox.opened(call) as (_, inside):
        # Of any kind, as the host has them.
        there = links.get(inside, expected.name)
        link = interface.check_link(inside, expected, "" if there is None else there.kind)
        name = f"of interface {link.name}"
        interface.require_same(f"state {name}", "up", "up" if link.up else "down")
        if record is not None:
            interface.require_same(f"device {name}", record.sandbox.ifindex, link.ifindex)
            interface.require_same(f"alias {name}", record.name, link.alias)
        interface.check_addresses(inside, link, result, index)
        interface.check_routes(inside, link, result.routes)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says."""
    config = call.config
    with unavailable():
        comes_later = config.capabilities.get("deviceID", False)
        named = config.device or config.hwaddr or config.kernelpath or config.pci_bus_id
        if named or config.runtime_config.device_id or not comes_later:
            _require_ready(selection_of(call))
    if config.ipam.type:
        delegation.ipam_status(call.request, config.ipam.type)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Give back the devices of the attachments that the collection takes."""
    teardown = Teardown()
    with Netlink() as host:
        for record in RECORDS.taken(collection, "device", Record.why_gone):
            with teardown.step():
                returning.restore(host, record, "")
    if call.config.ipam.type:
        with teardown.step():
            delegation.ipam_gc(call.request, call.config.ipam.type, collection)
    teardown.finish()


# ADD.


def _require_detached(host: Netlink, container: Netns, inside: Netlink, call: Call[Config]) -> None:
    """Raise if the attachment has its device; give back one of a container that is gone (W-G20)."""
    record = RECORDS.load(call.attachment)
    if record is None:
        return
    if record.sandbox.is_it(container):
        link = returning.is_inside(inside, record)
        if link is not None:
            msg = f"container {call.container_id} already has device {record.name}"
            details = f"as {link.name}: DEL comes before the next ADD"
            raise CniError(Code.INTERNAL, msg, details)
    returning.restore(host, record, "")


def _find(host: Netlink, inside: Netlink, selection: Selection) -> Link:
    device = find(host, selection)
    if device is None and selection.name:
        device = returning.reclaim(host, selection.name)
    if device is not None:
        return device
    there = [one for one in links.dump(inside) if selection.name and one.alias == selection.name]
    details = f"the container has it as {there[0].name}" if there else "the host does not have it"
    raise not_found(selection, details)


def _move_in(
    host: Netlink, inside: Netlink, container: Netns, device: Link, record: Record
) -> Link:
    """Record the device and move it; returns it as the container has it. Raises CniError."""
    RECORDS.save(record)
    try:
        host.submit(links.move(device, container.fd, record.ifname, record.name))
    except KernelError as error:
        here = links.get_by_index(host, device.ifindex)
        # Another call was faster, or the kernel refuses: it is not this attachment's.
        if error.errno == errno.ENODEV or (here is not None and here.name == device.name):
            RECORDS.drop(record.attachment)
        raise
    link = links.get(inside, record.ifname)
    if link is None:
        msg = f"device {record.name} vanished while it was moved"
        raise CniError(Code.TRY_AGAIN_LATER, msg)
    moved = msgspec.structs.replace(record.sandbox, ifindex=link.ifindex)
    RECORDS.save(msgspec.structs.replace(record, sandbox=moved))
    for other in list(RECORDS.every()):
        # It was on the host: nobody else has it any more.
        if other.is_same(device) and other.attachment != record.attachment:
            RECORDS.drop(other.attachment)
    return link


# DEL and STATUS.


def _delete_foreign(host: Netlink, call: Call[Config] | Call[DelConfig]) -> None:
    """What has no record of ours: the reference has moved it, or nobody."""
    container = open_netns(call.netns) if call.netns and call.verb == "DEL" else None
    if container is None:
        return
    prev = call.prev_result
    index = None if prev is None else prev.container_interface(call.ifname, call.netns)
    mac = "" if prev is None or index is None else prev.interfaces[index].mac
    with container:
        returning.restore_foreign(host, container, call.ifname, call.config.device, mac)


def _require_ready(selection: Selection) -> None:
    if selection.is_dpdk:
        return
    with Netlink() as host:
        if find(host, selection) is None:
            raise not_found(selection, "the host does not have it: a container may")
