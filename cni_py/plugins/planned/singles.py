"""The plans of the plugins whose result is one interface in the container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.kernel import addresses, links, routes
from cni_py.kernel.netlink import Netlink
from cni_py.plugins import child_link, host_device_config
from cni_py.plugins import dummy as dummy_plugin
from cni_py.plugins import ipvlan as ipvlan_plugin
from cni_py.plugins import macvlan as macvlan_plugin
from cni_py.plugins import tap as tap_plugin
from cni_py.plugins import vlan as vlan_plugin
from cni_py.spec.errors import CniError
from cni_py.spec.results import Interface, IPConfig, Result

from . import notes as shared

if TYPE_CHECKING:
    from cni_py.spec.call import Call

    from .notes import Notes


def macvlan(call: Call[Any], notes: Notes) -> Result:
    """macvlan's."""
    macvlan_plugin.child_of(call)
    return _child(call, notes, f"macvlan, mode {call.config.mode or 'bridge'}")


def ipvlan(call: Call[Any], notes: Notes) -> Result:
    """ipvlan's; in a chain it takes the parent and the addresses of the plugin before."""
    given = call.prev_result
    ipvlan_plugin.child_of(call, addressed=given is not None)
    kind = f"ipvlan, mode {call.config.mode or 'l2'}"
    if given is None or call.config.ipam.type:
        return _child(call, notes, kind)
    notes.step("interface", f"{call.ifname} ({kind}) with the addresses of the plugin before")
    return _alone(call, given)


def vlan(call: Call[Any], notes: Notes) -> Result:
    """vlan's."""
    vlan_plugin.child_of(call)
    return _child(call, notes, f"VLAN {call.config.vlan_id}")


def dummy(call: Call[Any], notes: Notes) -> Result:
    """dummy's."""
    dummy_plugin.checked(call)
    notes.step("interface", f"{call.ifname} (dummy) in {call.netns}")
    shared.new_interface(call, notes)
    return _addressed(call, notes)


def tap(call: Call[Any], notes: Notes) -> Result:
    """tap's."""
    tap_plugin.plan_of(call)
    into = f", port of {call.config.bridge}" if call.config.bridge else ""
    notes.step("interface", f"{call.ifname} (tap) in {call.netns}{into}")
    shared.new_interface(call, notes)
    return _addressed(call, notes)


def host_device(call: Call[Any], notes: Notes) -> Result:
    """host-device's."""
    selection = host_device_config.selection_of(call)
    if selection.is_dpdk:
        notes.step("interface", f"{selection.key} stays where it is: user space drives it")
        return _addressed(call, notes)
    with Netlink() as host:
        found = host_device_config.find(host, selection)
        if found is None:
            notes.conflict(f"the host has no {selection.key}")
        else:
            notes.step("interface", f"{found.name} moves to {call.netns} as {call.ifname}")
            _in_use(host, found.name, found.ifindex, notes)
    shared.new_interface(call, notes)
    return _addressed(call, notes)


def loopback(call: Call[Any], notes: Notes) -> Result:
    """loopback's."""
    have: list[Any] = []
    with shared.inside(call, notes) as inside:
        link = None if inside is None else links.get(inside, "lo")
        if inside is not None and link is not None:
            have = [one.address for one in addresses.dump(inside, link.ifindex)]
            state = "is up already" if link.up else "is set up"
            notes.step("interface", f"lo {state} in {call.netns}")
    for foreign in (one for one in have if not one.is_loopback):
        notes.conflict(f"lo has {foreign}, which is no loopback address")
    if call.prev_result is not None:
        return call.prev_result
    own = Interface("lo", "00:00:00:00:00:00", sandbox=call.netns)
    return Result((own,), tuple(IPConfig(one, None, 0) for one in have))


def _child(call: Call[Any], notes: Notes, kind: str) -> Result:
    where = "in the container" if call.config.link_in_container else "on the host"
    name = call.config.master or "the interface of the default route"
    notes.step("interface", f"{call.ifname} in {call.netns}, child of {name} {where} ({kind})")
    with notes.refusals():
        if not call.config.link_in_container:
            with Netlink() as host:
                child_link.find(host, call.config, call.config.master)
        else:
            with shared.inside(call, notes) as inside:
                if inside is not None:
                    child_link.find(inside, call.config, call.config.master)
    shared.new_interface(call, notes)
    return _addressed(call, notes)


def _in_use(host: Netlink, name: str, index: int, notes: Notes) -> None:
    """The host had better not need the device itself."""
    try:
        is_default = routes.default_link(host) == index
    except CniError:
        return
    if is_default:
        notes.conflict(f"{name} is the host's own way out: its default route leads through it")


def _addressed(call: Call[Any], notes: Notes) -> Result:
    given = shared.decided(call, notes)
    result = _alone(call, given)
    shared.routes(result, call.netns, notes)
    return result


def _alone(call: Call[Any], given: Result) -> Result:
    own = Interface(call.ifname, sandbox=call.netns)
    ips = tuple(IPConfig(one.address, one.gateway, 0) for one in given.ips)
    return Result((own,), ips, given.routes, call.config.dns or given.dns)
