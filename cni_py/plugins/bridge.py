"""bridge: give a container an interface on a Linux bridge (plugins.md 3.1)."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.ipam import delegation
from cni_py.kernel import addresses as kernel_addresses
from cni_py.kernel import links, sysctl
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.addresses import cidr, default_route, is_default
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Interface, IPConfig, Result, Route

from . import bridge_device, interface, masquerade, paired, routed_port, spoof_check, veth
from .bridge_config import Config, Plan, mistakes, plan_of
from .evidence import Evidence

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cni_py.kernel.links import Link
    from cni_py.spec.addresses import Cidr
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

    from .veth import Sides

__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]

_PORT_UP_SECONDS = 2.5
# The places of the entries in `interfaces`.
_BRIDGE, _HOST, _CONTAINER = range(3)
# What the label says of an attachment whose port is guarded.
_SPOOF_CHECK = "macspoofchk"


DelConfig = Config


def add(call: Call[Config]) -> Result:
    """Connect the container, address it, and make the host its gateway as configured."""
    config, attachment, scope = call.config, call.attachment, call.scope
    plan = plan_of(call)
    sides = interface.sides_of(call, scope)
    host, inside, _ = sides
    with step("bridge"):
        bridge = scope.enter_context(_bridge(host, config, plan.mtu))
    with step("veth"):
        routed = _create_pair(sides, bridge, call, plan)
    scope.enter_context(undone_on_failure(lambda: delete(call)))
    with step("port"):
        ends = _set_up_port(sides, bridge, call, plan, routed=routed)
    result = _l2_result(call, ends)
    if config.macspoofchk:
        with step("spoof check"):
            spoof_check.set_up(attachment, ends.eth.mac)
    if config.ipam.type:
        result = _configure(sides, ends, call, plan, result)
    elif not config.disable_container_interface:
        inside.submit(links.set_up(ends.eth.name))
        links.wait_until_up(host, ends.port.name, time.monotonic() + _PORT_UP_SECONDS)
    return result


def delete(call: Call[Config]) -> None:
    """Undo an ADD, as much of it as is there."""
    attachment = call.attachment

    def is_port(host: Netlink, link: Link) -> bool:
        master = links.get(host, call.config.bridge)
        return master is not None and link.master == master.ifindex

    def unguard(has: frozenset[str] | None) -> None:
        if has is None or _SPOOF_CHECK in has:
            with step("spoof check"):
                spoof_check.tear_down(attachment, certain=has is not None)

    def forget(has: frozenset[str] | None) -> None:
        if (has is None and call.config.overflow) or (has and routed_port.RECORD in has):
            with Netlink() as host:
                routed_port.forget_stale(host, call.config.bridge)

    paired.tear_down(call, _CONTAINER, is_of_network=is_port, also=(unguard, forget))


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config, attachment = call.config, call.attachment
    plan = plan_of(call)
    if config.ipam.type:
        delegation.ipam_check(call.request, config.ipam.type)
    result, index = interface.listed(call)
    with ExitStack() as stack:
        host, inside, _ = interface.sides_of(call, stack)
        bridge = _check_bridge(host, config, result)
        eth = interface.check_link(inside, result.interfaces[index], "veth")
        port = _check_port(host, bridge, eth, call, plan)
        if not config.disable_container_interface:
            interface.require_same(f"state of interface {eth.name}", "up", interface.state_of(eth))
        interface.check_addresses(inside, eth, result, index)
        interface.check_routes(inside, eth, result.routes)
        if plan.gateway and config.ipam.type:
            _check_gateways(host, bridge, config, result)
        if _is_routed(port):
            routed_port.check(host, bridge, port, result, index)
    if config.macspoofchk and port.name == attachment.host_ifname:
        spoof_check.check(attachment, eth.mac)
    if config.ip_masq and config.ipam.type:
        own = paired.addresses_of(result, _CONTAINER)
        masquerade.check(attachment, own, plan.backend, config.ip_masq_exclude)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says.

    Code 51 when the bridge has nearly all of its ports, and where containers are cut off.
    """
    config = call.config
    with unavailable():
        plan = plan_of(call)
        with Netlink() as host:
            have = links.get(host, config.bridge)
        if have is not None and have.kind != "bridge":
            msg = f'"{config.bridge}" already exists but is not a bridge'
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, f"it is of kind {have.kind}")
    if config.ipam.type:
        delegation.ipam_status(call.request, config.ipam.type)
    if have is not None:
        with Netlink() as host:
            if not config.overflow:
                routed_port.require_room(host, have)
            _require_connected(host, have, plan)
    if config.ip_masq and config.ipam.type:
        masquerade.require_rules(call.request.network, plan.backend)


def gc(call: Call[Config], collection: Collection) -> None:
    """Take away what the collection takes, and the bridge's answers for who is gone."""
    evidence = Evidence()

    def forget() -> None:
        with Netlink() as host:
            routed_port.forget_stale(host, call.config.bridge, collection)

    also = (lambda: spoof_check.collect(collection, evidence), forget)
    paired.collect(call, collection, evidence, also=also)


def _require_connected(host: Netlink, bridge: Link, plan: Plan) -> None:
    """Raises CniError 51 where what is behind the bridge's ports is cut off."""
    if not bridge.up and (number := links.count_ports(host, bridge)):
        msg = f"bridge {bridge.name} is down: nothing gets through its {number} ports"
        details = f"`ip link set {bridge.name} up`, or the next ADD, sets it up"
        raise CniError(Code.LIMITED_CONNECTIVITY, msg, details)
    if plan.gateway:
        own = kernel_addresses.dump(host, bridge.ifindex)
        versions = {one.address.version for one in own if not one.address.is_link_local}
        whose = f"bridge {bridge.name}"
        paired.require_forwarding(versions, whose, lambda: links.count_ports(host, bridge) > 0)


# ADD.


def _bridge(host: Netlink, config: Config, mtu: int) -> AbstractContextManager[Link]:
    return bridge_device.ensured(
        host,
        config.bridge,
        mtu=mtu,
        vlan_filtering=bool(config.vlan) or config.vlan_trunk is not None,
        promiscuous=config.promisc_mode,
    )


class _Ends(NamedTuple):
    """The links of an attachment: the bridge, the host's end, the container's.

    `routed`: the host's end is no port of the bridge, which is full.
    """

    bridge: Link
    port: Link
    eth: Link
    routed: bool


def _create_pair(sides: Sides, bridge: Link, call: Call[Config], plan: Plan) -> bool:
    """Create the pair, on the bridge unless that is full; True if it is not on it."""
    create = partial(
        veth.create,
        sides,
        call.attachment,
        mac=plan.mac,
        mtu=plan.mtu,
        stale=lambda: delete(call),
    )
    try:
        create(master=bridge.ifindex)
    except KernelError as error:
        if error.errno != errno.EXFULL:
            raise
        if not call.config.overflow:
            raise routed_port.full(bridge.name) from error
        create()
        return True
    return False


def _set_up_port(
    sides: Sides, bridge: Link, call: Call[Config], plan: Plan, *, routed: bool
) -> _Ends:
    """Label the host's end, set its bridge port, and look both ends up."""
    config, name = call.config, call.attachment.host_ifname
    has = [plan.backend] if plan.backend else []
    has += [_SPOOF_CHECK] if config.macspoofchk else []
    has += [routed_port.RECORD] if routed else []
    label = veth.labelled(call.attachment, has)
    sysctl.write_if_present(f"net/ipv6/conf/{name}/accept_ra", "0")
    if routed:
        sysctl.write_if_present(f"net/ipv6/conf/{name}/accept_dad", "0")
        sides.host.submit(links.set_owner(name, label))
    else:
        hairpin, isolated = config.hairpin_mode, config.port_isolation
        sides.host.submit(links.set_port(name, label, hairpin=hairpin, isolated=isolated))
    port = interface.require_link(sides.host, name)
    if plan.tagged(config):
        keep = config.preserve_default_vlan
        bridge_device.tag_port(sides.host, port, config.vlan, plan.trunk, keep_default=keep)
    return _Ends(bridge, port, interface.require_link(sides.inside, call.ifname), routed)


def _l2_result(call: Call[Config], ends: _Ends) -> Result:
    interfaces = (
        Interface(ends.bridge.name, ends.bridge.mac),
        Interface(ends.port.name, ends.port.mac),
        Interface(ends.eth.name, ends.eth.mac, sandbox=call.netns),
    )
    return Result(interfaces=interfaces, dns=call.config.dns)


def _configure(sides: Sides, ends: _Ends, call: Call[Config], plan: Plan, l2: Result) -> Result:
    """Everything that has to do with addresses."""
    config, (bridge, port, eth, routed) = call.config, ends
    decided = interface.ipam_add(call)
    result = with_gateways(config, plan, l2, decided)
    with step("addresses"):
        with sides.container.entered():
            interface.prepare(call.ifname, result, detect_duplicates=config.enabledad)
        if routed:
            routed_port.configure(sides, eth, result, _CONTAINER)
        elif config.enabledad:
            interface.configure_detecting_duplicates(sides, eth, result, _CONTAINER)
        else:
            interface.configure(sides, eth, result, _CONTAINER)
    if plan.gateway:
        with step("gateway"):
            holder = _gateway_holder(sides.host, bridge, config)
            gateways = gateways_of(result)
            bridge_device.ensure_gateways(sides.host, holder, gateways, force=config.force_address)
        if holder.name != bridge.name:
            added = Interface(holder.name, holder.mac)
            result = msgspec.structs.replace(result, interfaces=(*result.interfaces, added))
    with step("port up"):
        links.wait_until_up(sides.host, port.name, time.monotonic() + _PORT_UP_SECONDS)
    if routed:
        with step("host routes"):
            routed_port.lead_to_container(sides.host, bridge, port, call.attachment, result)
    if plan.backend:
        with step("masquerade"):
            own = paired.addresses_of(result, _CONTAINER)
            masquerade.set_up(call.attachment, own, plan.backend, config.ip_masq_exclude)
    if plan.gateway:
        paired.enable_forwarding({one.version for one in gateways_of(result)})
    with step("announce"):
        interface.announce(sides.inside, eth)
    return result


def with_gateways(config: Config, plan: Plan, l2: Result, decided: Result) -> Result:
    """IPAM's result with the container's interface, the gateways, and the default routes."""
    ips = []
    routes = list(decided.routes)
    for one in decided.ips:
        gateway = one.gateway
        if gateway is None and plan.gateway:
            gateway = one.address.network.network_address + 1
        ips.append(IPConfig(one.address, gateway, _CONTAINER))
        has_default = any(
            route.gw is not None
            and is_default(route.dst)
            and route.dst.version == one.address.version
            for route in routes
        )
        if config.is_default_gateway and not has_default:
            routes.append(Route(default_route(one.address.version), gateway))
    dns = config.dns or decided.dns
    return Result(l2.interfaces, tuple(ips), tuple(routes), dns)


def _gateway_holder(host: Netlink, bridge: Link, config: Config) -> Link:
    if not config.vlan:
        return bridge
    keep = config.preserve_default_vlan
    return bridge_device.ensure_vlan_interface(host, bridge, config.vlan, keep_default=keep)


def gateways_of(result: Result) -> list[Cidr]:
    """The gateways with their subnets' prefixes, IPv4 first, each once."""
    found: dict[Cidr, None] = {}
    for version in (4, 6):
        for one in result.ips:
            if one.gateway is not None and one.address.version == version:
                found[cidr(one.gateway, one.address.network.prefixlen)] = None
    return list(found)


# CHECK.


def _check_bridge(host: Netlink, config: Config, result: Result) -> Link:
    entry = next(
        (one for one in result.interfaces if one.name == config.bridge and not one.sandbox), None
    )
    if entry is None:
        names = ", ".join(one.name for one in result.interfaces) or "no interface"
        msg = f"bridge {config.bridge} is not in prevResult"
        raise CniError(Code.INTERNAL, msg, f"prevResult has {names}")
    bridge = interface.check_link(host, entry, "bridge")
    interface.require_same(f"state of bridge {bridge.name}", "up", interface.state_of(bridge))
    if config.promisc_mode and not bridge.promiscuity:
        raise interface.differs(f"promiscMode of bridge {bridge.name}", "true", "false")
    if (config.vlan or config.vlan_trunk is not None) and not bridge.vlan_filtering:
        raise interface.differs(f"VLAN filtering of bridge {bridge.name}", "on", "off")
    return bridge


def _is_routed(port: Link) -> bool:
    return routed_port.RECORD in (veth.recorded(port) or ())


def _check_port(host: Netlink, bridge: Link, eth: Link, call: Call[Config], plan: Plan) -> Link:
    config = call.config
    port = links.get_by_index(host, eth.peer_index)
    if port is None or port.peer_index != eth.ifindex or port.kind != "veth":
        raise interface.differs(f"host end of interface {eth.name}", "a veth", "none")
    name = f"host end {port.name}"
    if not _is_routed(port):
        interface.require_same(f"bridge of {name}", bridge.ifindex, port.master)
        interface.require_same(f"hairpinMode of {name}", config.hairpin_mode, port.hairpin)
        interface.require_same(f"portIsolation of {name}", config.port_isolation, port.isolated)
    # Without the key the container's end may have got one since, of a DHCP server for instance.
    if plan.mtu:
        interface.require_same(f"mtu of interface {eth.name}", plan.mtu, eth.mtu)
        interface.require_same(f"mtu of {name}", plan.mtu, port.mtu)
    if plan.tagged(config):
        have = {vid for vid, _ in links.bridge_vlans(host, port.ifindex)}
        wanted = {vid for first, last in plan.trunk for vid in range(first, last + 1)}
        wanted.add(config.vlan or 1)
        if not wanted <= have:
            missing = ", ".join(map(str, sorted(wanted - have)))
            raise interface.differs(f"VLANs of {name}", f"also {missing}", f"{sorted(have)}")
    return port


def _check_gateways(host: Netlink, bridge: Link, config: Config, result: Result) -> None:
    name = bridge.name
    if config.vlan:
        name = bridge_device.vlan_interface_name(bridge.name, config.vlan)
    holder = links.get(host, name)
    if holder is None:
        raise interface.differs(f"interface {name} of the gateway", "present", "missing")
    have = {one.address for one in kernel_addresses.dump(host, holder.ifindex)}
    for gateway in gateways_of(result):
        if gateway not in have:
            listed = ", ".join(sorted(map(str, have))) or "none"
            raise interface.differs(f"gateway address of {name}", str(gateway), listed)
