"""ptp: connect a container to its host by a veth pair and routes (plugins.md 3.2)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from cni_py.ipam import delegation
from cni_py.kernel import addresses, links, sysctl
from cni_py.kernel.errors import unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.attachment import network_key
from cni_py.spec.errors import CniError, Code, refusals, require_none
from cni_py.spec.names import validate_new_ifname
from cni_py.spec.results import Interface, Result

from . import host_routes, interface, masquerade, paired, veth
from . import mtu as mtu_key
from .evidence import Evidence
from .hardware_address import mac_mistakes, requested_mac
from .paired import PairedConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

_UP_SECONDS = 2.5
# The places of the entries in `interfaces`.
_HOST, _CONTAINER = range(2)


class Config(PairedConfig, frozen=True, kw_only=True):
    """ptp's configuration; it needs an IPAM plugin that gives addresses with gateways."""


DelConfig = Config


def add(call: Call[Config]) -> Result:
    """Connect the container, address it, and route between its addresses and the host."""
    attachment, scope = call.attachment, call.scope
    plan = plan_of(call)
    sides = interface.sides_of(call, scope)
    host, inside, container = sides
    with step("veth"):
        veth.create(sides, attachment, mac=plan.mac, mtu=plan.mtu, stale=lambda: delete(call))
    scope.enter_context(undone_on_failure(lambda: delete(call)))
    with step("host end"):
        port = _prepare_port(host, attachment, plan)
        eth = interface.require_link(inside, call.ifname)
    result = _result(call, port, eth, interface.ipam_add(call))
    with step("addresses"):
        with container.entered():
            interface.prepare(call.ifname, result, detect_duplicates=False)
        first, last = host_routes.through_gateways(eth, result)
        interface.configure(sides, eth, result, _CONTAINER, first=first, last=last)
    with step("host routes"):
        # What is sent before that is dropped.
        links.wait_until_up(host, port.name, time.monotonic() + _UP_SECONDS)
        host_routes.lead_to_container(host, port, attachment, result)
    if plan.backend:
        with step("masquerade"):
            own = paired.addresses_of(result, _CONTAINER)
            masquerade.set_up(attachment, own, plan.backend, call.config.ip_masq_exclude)
    paired.enable_forwarding(_versions(result))
    with step("announce"):
        interface.announce(inside, eth)
    return result


def delete(call: Call[Config]) -> None:
    """Undo an ADD, as much of it as is there; the host's addresses and routes go with the pair."""
    paired.tear_down(call, _CONTAINER, is_of_network=_is_of_reference)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config = call.config
    plan = plan_of(call)
    delegation.ipam_check(call.request, config.ipam.type)
    result, index = interface.listed(call)
    with ExitStack() as stack:
        host, inside, _ = interface.sides_of(call, stack)
        eth = interface.check_link(inside, result.interfaces[index], "veth")
        port = _check_port(host, eth, result)
        for link in (eth, port):
            interface.require_same(
                f"state of interface {link.name}", "up", interface.state_of(link)
            )
            mtu = plan.mtu or link.mtu
            interface.require_same(f"mtu of interface {link.name}", mtu, link.mtu)
        own = [one for one in result.ips if one.interface in (None, index)]
        interface.check_addresses(inside, eth, result, index)
        interface.check_routes(inside, eth, [*host_routes.inside(own), *result.routes])
        host_routes.check(host, port, own)
    for version in _versions(result):
        key = paired.FORWARDING[version]
        interface.require_same(key.replace("/", "."), "1", sysctl.read(key))
    if plan.backend:
        own_addresses = paired.addresses_of(result, index)
        excluded = config.ip_masq_exclude
        masquerade.check(call.attachment, own_addresses, plan.backend, excluded)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says.

    Code 51 where containers are cut off.
    """
    with unavailable():
        plan = plan_of(call)
    network = call.request.network
    delegation.ipam_status(call.request, call.config.ipam.type)
    # IPv6 is mostly off because nobody has it: to find out who does would take a listing each time.
    paired.require_forwarding((4,), f"network {network}", lambda: _has_ipv4(network))
    if plan.backend:
        masquerade.require_rules(network, plan.backend)


def gc(call: Call[Config], collection: Collection) -> None:
    """Remove what belongs to the network and to none of the attachments that live."""
    paired.collect(call, collection, Evidence())


def _has_ipv4(network: str) -> bool:
    """Whether a pair of the network is there whose container has an IPv4 address."""
    begin = f"{network_key(network)}-"
    with Netlink() as host:
        own = [one.ifindex for one in links.dump(host, "veth") if one.alias.startswith(begin)]
        have = addresses.dump_all(host, version=4) if own else {}
    return any(index in have for index in own)


class Plan(NamedTuple):
    """What the configuration asks for, checked."""

    mac: str
    mtu: int
    backend: str


def plan_of(call: Call[Config]) -> Plan:
    """Check what types cannot say. Raises CniError 7, or 4 for the environment."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    require_none(mistakes(call))
    mtu = mtu_key.of(call)
    paired.require_mtu(mtu)
    mac = requested_mac(config.runtime_config, config.args, call.args)
    return Plan(mac, mtu, paired.backend_of(config))


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    if not config.ipam.type:
        msg = "ptp needs an IPAM plugin: ipam.type is missing"
        yield CniError(Code.INVALID_CONFIG, msg, 'for instance "host-local"', key="ipam")
    yield from refusals("mtu", paired.require_mtu, mtu_key.fixed(config.mtu))
    yield from mac_mistakes(call)
    yield from paired.masquerade_mistakes(config)


# ADD.


def _prepare_port(host: Netlink, attachment: Attachment, plan: Plan) -> Link:
    """Label the host's end, and set its parameters while it has no carrier yet.

    Router advertisements are not accepted (CVE-2020-10749). Its link-local address is not checked
    for duplicates: the host asks with it who has the address of a packet that it forwards, and
    would drop that for as long as the check takes.
    """
    name = attachment.host_ifname
    for key in ("accept_ra", "accept_dad"):
        sysctl.write_if_present(f"net/ipv6/conf/{name}/{key}", "0")
    has = [plan.backend] if plan.backend else []
    host.submit(links.set_owner(name, veth.labelled(attachment, has)))
    return interface.require_link(host, name)


def _result(call: Call[Config], port: Link, eth: Link, decided: Result) -> Result:
    host_routes.require_gateways(decided)
    interfaces = (
        Interface(port.name, port.mac),
        Interface(eth.name, eth.mac, sandbox=call.netns),
    )
    return Result(
        interfaces,
        host_routes.of_interface(decided, _CONTAINER),
        decided.routes,
        call.config.dns or decided.dns,
    )


def _versions(result: Result) -> list[int]:
    return sorted({one.address.version for one in result.ips})


# DEL.


def _is_of_reference(host: Netlink, port: Link) -> bool:
    """Whether a host end is like the reference's: on no bridge, with the gateway's address."""
    return not port.master and any(
        one.address.network.num_addresses == 1 and not one.address.is_link_local
        for one in addresses.dump(host, port.ifindex)
    )


# CHECK.


def _check_port(host: Netlink, eth: Link, result: Result) -> Link:
    port = links.get_by_index(host, eth.peer_index)
    if port is None or port.peer_index != eth.ifindex or port.kind != "veth":
        raise interface.differs(f"host end of interface {eth.name}", "a veth", "none")
    entry = next(
        (one for one in result.interfaces if one.name == port.name and not one.sandbox), None
    )
    if entry is None:
        names = ", ".join(one.name for one in result.interfaces if not one.sandbox) or "none"
        raise interface.differs(f"host end of interface {eth.name}", names, port.name)
    return interface.check_link(host, entry, "veth")
