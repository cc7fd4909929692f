"""tap: give a container a TAP device, for a virtual machine in it (plugins.md 3.9)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from cni_py.ipam import delegation
from cni_py.kernel import links
from cni_py.kernel import tap as kernel_tap
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.config import IpamType, PluginConfig
from cni_py.spec.errors import CniError, Code, refusals, require_none
from cni_py.spec.names import validate_device_name, validate_new_ifname
from cni_py.spec.results import Interface, Result

from . import interface, sandbox
from . import mtu as mtu_key
from .hardware_address import Args, Mac, mac_mistakes, requested_mac
from .mtu import Mtu
from .teardown import detaching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.netlink import Request as NetlinkRequest
    from cni_py.kernel.netns import Netns
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

# The highest number stands for no user and no group.
_Id = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFE)]


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know."""

    ipam: IpamType = IpamType()
    """Who gives out addresses: `ipam.type` names the IPAM plugin."""


class Config(DelConfig, frozen=True, kw_only=True):
    """tap's configuration; `bridge` is one in the container. Without an IPAM type: no address."""

    multi_queue: bool = False
    """The device can be opened once for each of several queues."""
    mtu: Mtu = 0
    """68 to 65521, or `auto`; 0: the kernel's."""
    mac: str = ""
    """The hardware address; none: random."""
    owner: _Id | None = None
    """The user that may open the device without CAP_NET_ADMIN; none: anybody."""
    group: _Id | None = None
    """The group that may open the device without CAP_NET_ADMIN; none: anybody."""
    selinux_context: str = ""
    """The device's SELinux label; without SELinux it means nothing."""
    bridge: str = ""
    """A bridge in the container that gets the device as a port."""
    args: Args = Args()
    """What the runtime passes in `args.cni`."""
    runtime_config: Mac = Mac()
    """What the capabilities bring."""


class Plan(NamedTuple):
    """What the configuration asks for, checked."""

    device: kernel_tap.Wanted
    mac: str
    mtu: int


def plan_of(call: Call[Config]) -> Plan:
    """Check what types cannot say. Raises CniError 7, or 4 for CNI_ARGS."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    require_none(mistakes(call))
    mtu = mtu_key.of(call)
    mtu_key.require(mtu, kernel_tap.MIN_MTU, kernel_tap.MAX_MTU)
    mac = requested_mac(config.runtime_config, config.args, call.args, config.mac)
    device = kernel_tap.Wanted(call.ifname, config.owner, config.group, config.multi_queue)
    return Plan(device, mac, mtu)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    if config.bridge:
        yield from refusals("bridge", validate_device_name, config.bridge, "bridge")
    limits = (kernel_tap.MIN_MTU, kernel_tap.MAX_MTU)
    yield from refusals("mtu", mtu_key.require, mtu_key.fixed(config.mtu), *limits)
    yield from refusals("ipam", interface.require_reportable, call)
    yield from mac_mistakes(call, config.mac)


def add(call: Call[Config]) -> Result:
    """Create the device in the container, set it up, and address it as configured.

    It lives with this process until all is done: one that is killed leaves nothing.
    """
    plan, scope = plan_of(call), call.scope
    container, inside = scope.enter_context(sandbox.opened(call))
    master = _bridge(inside, call.config)
    with step("tap"):
        fd = _create(call, container, plan)
        scope.enter_context(undone_on_failure(lambda: delete(call)))
        inside.submit(*_settings(call, plan, master))
        link = interface.require_link(inside, call.ifname)
    result = sandbox.decided(call, Interface(link.name, link.mac, sandbox=call.netns))
    with step("addresses"):
        if result.ips:
            with container.entered():
                interface.prepare(link.name, result, detect_duplicates=False)
        interface.set_up(inside, link, result, 0)
    kernel_tap.keep(fd, link.name)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Delete the device, then release the address."""
    with detaching(call) as teardown, teardown.step(), step("tap"):
        sandbox.delete(call, kernel_tap.KIND)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config, plan = call.config, plan_of(call)
    if config.ipam.type:
        delegation.ipam_check(call.request, config.ipam.type)
    result, index = interface.listed(call)
    with sandbox.opened(call) as (_, inside):
        link = interface.check_link(inside, result.interfaces[index], kernel_tap.KIND)
        name = f"of interface {link.name}"
        interface.require_same(f"state {name}", "up", "up" if link.up else "down")
        if plan.mac:
            interface.require_same(f"mac {name}", plan.mac, link.mac)
        interface.require_same(f"mtu {name}", plan.mtu or link.mtu, link.mtu)
        _check_device(inside, plan.device)
        if config.bridge:
            master = links.get_by_index(inside, link.master) if link.master else None
            have = "none" if master is None else master.name
            interface.require_same(f"bridge {name}", config.bridge, have)
        interface.check_addresses(inside, link, result, index)
        interface.check_routes(inside, link, result.routes)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says."""
    with unavailable():
        plan_of(call)
        kernel_tap.require_device()
    if call.config.ipam.type:
        delegation.ipam_status(call.request, call.config.ipam.type)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """A namespace takes its devices with it: there are addresses to release."""
    if call.config.ipam.type:
        delegation.ipam_gc(call.request, call.config.ipam.type, collection)


def _bridge(inside: Netlink, config: Config) -> Link | None:
    """The bridge in the container that is to have the device as a port. Raises CniError."""
    if not config.bridge:
        return None
    bridge = links.get(inside, config.bridge)
    if bridge is None:
        msg = f"failed to get bridge {config.bridge}"
        raise CniError(Code.INTERNAL, msg, "the container has no such interface (key bridge)")
    if bridge.kind != "bridge":
        msg = f'"{config.bridge}" already exists but is not a bridge'
        raise CniError(
            Code.INTERNAL, msg, f"in the container it is of kind {bridge.kind or 'none'}"
        )
    return bridge


def _create(call: Call[Config], container: Netns, plan: Plan) -> int:
    """Create the device; returns the descriptor that it lives by. Raises CniError."""
    device = kernel_tap.created(plan.device, call.config.selinux_context)
    try:
        with container.entered():
            return call.scope.enter_context(device)
    except KernelError as error:
        if error.errno == errno.EBUSY:
            raise sandbox.taken(container, call.ifname) from error
        raise


def _settings(call: Call[Config], plan: Plan, master: Link | None) -> list[NetlinkRequest]:
    """The requests that make the new device what the configuration says."""
    requests = sandbox.settings(call, plan.mac, plan.mtu)
    if master is not None:
        what = f"make {call.ifname} a port of bridge {master.name}"
        master_is = ("IFLA_MASTER", master.ifindex)
        requests.append(links.change(call.ifname, master_is, what=what))
    return requests


def _check_device(inside: Netlink, wanted: kernel_tap.Wanted) -> None:
    have = kernel_tap.state(inside, wanted.name)
    if have is None:
        raise interface.differs(f"interface {wanted.name}", "present", "missing")
    name = f"of interface {wanted.name}"
    interface.require_same(f"type {name}", "tap", "tap" if have.is_tap else "tun")
    interface.require_same(f"multiQueue {name}", wanted.multi_queue, have.multi_queue)
    if wanted.owner is not None:
        interface.require_same(f"owner {name}", wanted.owner, have.owner)
    if wanted.group is not None:
        interface.require_same(f"group {name}", wanted.group, have.group)
