"""The plans of the plugins that come after another one and take its result on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import links, sysctl
from cni_py.names import dnsmasq
from cni_py.plugins import (
    bandwidth_config,
    dns_config,
    interface,
    port_claims,
    port_mappings,
    sbr_plan,
    tuning_config,
)
from cni_py.plugins import firewall as firewall_plugin
from cni_py.plugins import services as services_plugin
from cni_py.plugins import vrf as vrf_plugin
from cni_py.plugins.chained import container_ips
from cni_py.spec.errors import CniError, require_none
from cni_py.spec.results import DNS

from . import notes as shared

if TYPE_CHECKING:
    from cni_py.spec.call import Call
    from cni_py.spec.results import Result

    from .notes import Notes

_BITS = 8
_BLOCK = "an IFB device on the host"


def portmap(call: Call[port_mappings.Config], notes: Notes) -> Result:
    """portmap's."""
    result = interface.previous(call)
    require_none(port_mappings.mistakes(call))
    if not call.config.runtime_config.port_mappings:
        notes.step("port", "none is asked for")
        return result
    mappings, _ = port_mappings.mapped(call.config, result, call.ifname)
    backend = port_mappings.backend_of(call.config)
    port_mappings.require_backend(backend, sorted({one.version for one in mappings}))
    wanted = port_claims.without_own(call.attachment, mappings)
    for one in wanted:
        to = f"[{one.address}]" if one.version == 6 else one.address
        notes.step("port", f"{one} leads to {to}:{one.container_port} ({backend})")
        with notes.refusals():
            port_claims.require_free(call.attachment, [one])
    return result


def firewall(call: Call[firewall_plugin.Config], notes: Notes) -> Result:
    """firewall's."""
    result = interface.previous(call)
    backend = firewall_plugin.checked(call)
    ips = ", ".join(str(one.address.ip) for one in container_ips(result, call.ifname))
    notes.step("rule", f"what {ips or 'no address'} sends and gets is accepted ({backend})")
    policy = call.config.ingress_policy
    if policy not in ("", "open"):
        notes.step("rule", f"new connections from other networks are not: ingressPolicy {policy}")
    return result


def bandwidth(call: Call[bandwidth_config.Config], notes: Notes) -> Result:
    """bandwidth's."""
    result = interface.previous(call)
    plan = bandwidth_config.plan_of(call.config)
    if not plan.limits:
        notes.step("limit", "none is asked for")
    if plan.ingress is not None:
        notes.step("limit", f"{plan.ingress.rate * _BITS} bit/s to the container")
    if plan.egress is not None:
        notes.step("limit", f"{plan.egress.rate * _BITS} bit/s from the container, by {_BLOCK}")
    return result


def tuning(call: Call[tuning_config.Config], notes: Notes) -> Result:
    """tuning's."""
    wanted = tuning_config.wanted(call)
    result = interface.previous(call)
    for one in wanted.sysctls:
        notes.step("sysctl", f"{'.'.join(one.parts)} = {one.value}, {_now(call, one.path, notes)}")
    settings = {
        "hardware address": wanted.mac,
        "MTU": wanted.mtu,
        "promisc": "on" if wanted.promisc else "",
        "allmulti": wanted.allmulti,
        "queue length": wanted.queue_length,
    }
    for name, value in settings.items():
        if value not in ("", 0, None) or value is False:
            notes.step("interface", f"{call.ifname}: {name} {value}")
    return _with_mac(call, result, wanted.mac) if wanted.mac else result


def sbr(call: Call[Any], notes: Notes) -> Result:
    """sbr's."""
    sbr_plan.gateways(call.config)
    result = interface.previous(call)
    for one in container_ips(result, call.ifname):
        text = f"what comes from {one.address.ip} leaves by {call.ifname}: a rule and a table"
        notes.step("route", f"{text} in {call.netns}")
    return result


def services(call: Call[services_plugin.Config], notes: Notes) -> Result:
    """services'."""
    result = interface.previous(call)
    wanted = services_plugin.wanted(call)
    for one in wanted:
        check = "not checked" if one.check is None else f"checked by {one.check.type}"
        notes.step("service", f"{one.name}, port {one.port}/{one.protocol}, is declared: {check}")
    if not wanted:
        notes.step("service", "none is declared")
    return result


def vrf(call: Call[vrf_plugin.Config], notes: Notes) -> Result:
    """vrf's."""
    config = vrf_plugin.checked(call)
    result = interface.previous(call)
    table = f"table {config.table}" if config.table else "a table that nothing uses"
    with shared.inside(call, notes) as inside:
        have = None if inside is None else links.get(inside, config.vrfname)
    if have is not None and have.kind != "vrf":
        notes.conflict(f"{config.vrfname} in {call.netns} is no VRF: it is {have.kind}")
    made = "is made with " + table if have is None else "is there"
    notes.step("interface", f"{call.ifname} joins the VRF {config.vrfname}, which {made}")
    return result


def dns(call: Call[dns_config.Config], notes: Notes) -> Result:
    """dns's."""
    require_none(dns_config.mistakes(call))
    result = interface.previous(call)
    ips = container_ips(result, call.ifname)
    names, domain = dns_config.names_of(call), call.config.domain
    shown = ", ".join(names) or "no name"
    for one in ips:
        notes.step("name", f"{shown}: {one.address.ip}, also in {domain}")
    servers = tuple(dict.fromkeys(str(one.gateway) for one in ips if one.gateway is not None))
    if not servers:
        notes.conflict(f"network {call.request.network} has no gateway to answer names at")
    with notes.refusals():
        dnsmasq.program()
    search = tuple(dict.fromkeys((domain, *result.dns.search)))
    found = DNS(servers, domain, search, result.dns.options)
    return msgspec.structs.replace(result, dns=found)


def _now(call: Call[Any], path: str, notes: Notes) -> str:
    """What a sysctl is in the container; the interface itself is not there yet."""
    from cni_py.kernel.netns import open_netns

    with notes.refusals():
        container = open_netns(call.netns)
        if container is not None:
            with container, container.entered():
                try:
                    return f"now {sysctl.read(path)}"
                except CniError:
                    return "of the new interface" if call.ifname in path else "not there now"
    return "in no namespace"


def _with_mac(call: Call[Any], result: Result, mac: str) -> Result:
    interfaces = [
        msgspec.structs.replace(one, mac=mac) if one.name == call.ifname and one.sandbox else one
        for one in result.interfaces
    ]
    return msgspec.structs.replace(result, interfaces=tuple(interfaces))
