"""The plans of bridge and ptp: a veth pair, with a bridge or routes at the host's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.kernel import addresses, links
from cni_py.kernel.netlink import Netlink
from cni_py.plugins import bridge as bridge_plugin
from cni_py.plugins import bridge_config, bridge_device, host_routes, paired, routed_port
from cni_py.plugins import ptp as ptp_plugin
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Interface, Result

from . import notes as shared

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.spec.call import Call

    from .notes import Notes

_CONTAINER = {"bridge": 2, "ptp": 1}


def bridge(call: Call[bridge_config.Config], notes: Notes) -> Result:
    """bridge's."""
    config = call.config
    plan = bridge_config.plan_of(call)
    with Netlink() as host:
        have = links.get(host, config.bridge)
        _bridge(host, have, call, plan, notes)
        _pair(host, call, plan.mac, plan.mtu, notes, f"port of {config.bridge}")
    shared.new_interface(call, notes)
    _spoof_check(call, notes)
    l2 = Result(
        (
            Interface(config.bridge, "" if have is None else have.mac),
            Interface(call.attachment.host_ifname),
            Interface(call.ifname, plan.mac, sandbox=call.netns),
        ),
        dns=config.dns,
    )
    if not config.ipam.type:
        return l2
    result = bridge_plugin.with_gateways(config, plan, l2, _addressed(call, notes))
    if not result.ips:
        return result
    shared.routes(result, call.netns, notes)
    holder = config.bridge
    if plan.gateway:
        if config.vlan:
            holder = bridge_device.vlan_interface_name(config.bridge, config.vlan)
        _gateways(holder, config, result, notes)
    _reachable(call, result, plan.backend, {config.bridge, holder}, notes)
    return result


def ptp(call: Call[ptp_plugin.Config], notes: Notes) -> Result:
    """ptp's."""
    plan = ptp_plugin.plan_of(call)
    with Netlink() as host:
        _pair(host, call, plan.mac, plan.mtu, notes, "on no bridge")
    shared.new_interface(call, notes)
    interfaces = (
        Interface(call.attachment.host_ifname),
        Interface(call.ifname, plan.mac, sandbox=call.netns),
    )
    given = _addressed(call, notes)
    if not given.ips:
        return Result(interfaces, dns=call.config.dns)
    host_routes.require_gateways(given)
    ips = host_routes.of_interface(given, _CONTAINER["ptp"])
    result = Result(interfaces, ips, given.routes, call.config.dns or given.dns)
    shared.routes(result, call.netns, notes)
    for one in result.ips:
        notes.step("route", f"{one.address.ip} by {call.attachment.host_ifname}, on the host")
    _reachable(call, result, plan.backend, set(), notes)
    return result


def _bridge(
    host: Netlink,
    have: Link | None,
    call: Call[bridge_config.Config],
    plan: bridge_config.Plan,
    notes: Notes,
) -> None:
    config = call.config
    if have is None:
        filtering = " with VLAN filtering" if plan.tagged(config) else ""
        notes.step("bridge", f"{config.bridge} is made{filtering}")
    elif have.kind != "bridge":
        notes.conflict(f"{config.bridge} already exists but is not a bridge: it is {have.kind}")
    else:
        number = links.count_ports(host, have)
        notes.step("bridge", f"{config.bridge} is there, number of its ports: {number}")
        if number >= routed_port.MAX_PORTS and not config.overflow:
            notes.conflict(str(routed_port.full(config.bridge)))


def _pair(host: Netlink, call: Call[Any], mac: str, mtu: int, notes: Notes, where: str) -> None:
    name = call.attachment.host_ifname
    wanted = [f"MTU {mtu}"] if mtu else []
    wanted += [f"hardware address {mac}"] if mac else []
    extra = f", {', '.join(wanted)}" if wanted else ""
    notes.step("veth", f"{name} on the host ({where}) and {call.ifname} in {call.netns}{extra}")
    if links.get(host, name) is not None:
        with shared.inside(call, notes) as inside:
            if inside is not None and links.get(inside, call.ifname) is not None:
                notes.conflict(f"the container is attached already: {name} leads to it")
                return
        notes.step("veth", f"{name} is left over on the host and is replaced")


def _spoof_check(call: Call[bridge_config.Config], notes: Notes) -> None:
    if call.config.macspoofchk:
        notes.step("rule", "only the container's hardware address may send (nftables)")


def _addressed(call: Call[Any], notes: Notes) -> Result:
    given = shared.decided(call, notes)
    if not given.ips and not notes.unknown:
        raise CniError(Code.INTERNAL, "IPAM plugin returned missing IP config")
    return given


def _gateways(holder: str, config: bridge_config.Config, result: Result, notes: Notes) -> None:
    wanted = bridge_plugin.gateways_of(result)
    with Netlink() as host:
        link = links.get(host, holder)
        have = [] if link is None else [one.address for one in addresses.dump(host, link.ifindex)]
    for gateway in wanted:
        if gateway in have:
            notes.step("gateway", f"{holder} has {gateway}")
            continue
        others = bridge_device.in_the_way(gateway, wanted, have)
        if others and not config.force_address:
            notes.conflict(f"{holder} has {others[0]}, and not {gateway}: forceAddress replaces it")
        for other in others if config.force_address else ():
            notes.step("gateway", f"{other} is taken from {holder}")
        notes.step("gateway", f"{holder} gets {gateway}")
    shared.forwarding((one.version for one in wanted), notes)


def _reachable(call: Call[Any], result: Result, backend: str, own: set[str], notes: Notes) -> None:
    ips = paired.addresses_of(result, _CONTAINER[call.config.type])
    shared.overlaps(call, ips, own, notes)
    if call.config.type == "ptp":
        shared.forwarding((one.version for one in ips), notes)
    for one in ips if backend else ():
        notes.step("masquerade", f"what leaves {one.network} from {one.ip} ({backend})")
