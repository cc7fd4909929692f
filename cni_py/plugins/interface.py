"""The container's interface: give it what IPAM decided, and compare it with that again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.ipam import delegation
from cni_py.kernel import addresses, links, routes, sysctl
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.spec.addresses import is_default
from cni_py.spec.errors import CniError, Code
from cni_py.spec.versions import FAMILY_020

from .veth import Sides

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Request
    from cni_py.kernel.netns import Netns
    from cni_py.kernel.routes import KernelRoute
    from cni_py.spec.addresses import IP, Cidr
    from cni_py.spec.call import Call
    from cni_py.spec.results import Interface, Result, Route


_DAD_SECONDS = 10.0


def require_netns(call: Call[Any], opened: Netns | None) -> Netns:
    """The container's namespace, for the verbs that need one. Raises CniError 4."""
    if opened is None:
        msg = f'CNI_NETNS "{call.netns}" is not a network namespace'
        details = "the path does not exist, or nothing is mounted there"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, details)
    return opened


def sides_of(call: Call[Any], stack: ExitStack) -> Sides:
    """Open both sides until `stack` is left. Raises CniError 4, KernelError."""
    container = stack.enter_context(require_netns(call, open_netns(call.netns)))
    host = stack.enter_context(Netlink())
    with container.entered():
        inside = stack.enter_context(Netlink())
    return Sides(host, inside, container)


def require_link(netlink: Netlink, name: str) -> Link:
    """The link, which is being set up. Raises CniError 11 if it is gone."""
    link = links.get(netlink, name)
    if link is None:
        msg = f"interface {name} vanished while it was being set up"
        raise CniError(Code.TRY_AGAIN_LATER, msg)
    return link


def require_reportable(call: Call[Any], *, addressed: bool = False) -> None:
    """Raises CniError 7 where the result of an ADD without addresses has no form (W-G8).

    `addressed` says that addresses come from elsewhere than IPAM.
    """
    version = call.request.cni_version
    has_addresses = addressed or bool(call.config.ipam.type)
    if call.verb == "ADD" and version in FAMILY_020 and not has_addresses:
        msg = "cannot convert: no valid IP addresses"
        details = f"cniVersion {version} cannot report an interface without one"
        raise CniError(Code.INVALID_CONFIG, msg, details)


def ipam_add(call: Call[Any]) -> Result:
    """What the IPAM plugin decides: at least one address. Raises CniError."""
    ipam_type = call.config.ipam.type
    with step("ipam"):
        decided = delegation.ipam_add(call.request, ipam_type)
    if not decided.ips:
        msg = "IPAM plugin returned missing IP config"
        raise CniError(Code.INTERNAL, msg, f'ipam.type is "{ipam_type}"')
    return decided


def prepare(ifname: str, result: Result, *, detect_duplicates: bool) -> None:
    """Set the parameters of an interface that is not up yet; the thread is in its namespace.

    Router advertisements are not accepted: any neighbour can send them (CVE-2020-10749). Duplicate
    address detection would cost a second and find nothing that IPAM does not know.
    """
    enable_ipv6(ifname, result)
    sysctl.write_if_present(f"net/ipv6/conf/{ifname}/accept_ra", "0")
    detect = "1" if detect_duplicates else "0"
    if detect_duplicates:
        sysctl.write_if_present(f"net/ipv6/conf/{ifname}/enhanced_dad", "1")
    sysctl.write_if_present(f"net/ipv6/conf/{ifname}/accept_dad", detect)
    announce_when_up(ifname)


def enable_ipv6(ifname: str, result: Result) -> None:
    """Have IPv6 on an interface that is to get addresses of it; the thread is in its namespace."""
    if any(one.address.version == 6 for one in result.ips):
        for name in ("lo", ifname):
            sysctl.ensure(f"net/ipv6/conf/{name}/disable_ipv6", "0")
        sysctl.write(f"net/ipv6/conf/{ifname}/keep_addr_on_down", "1")


def announce_when_up(ifname: str) -> None:
    """Have the kernel tell the neighbours of addresses when the interface comes up."""
    sysctl.write_if_present(f"net/ipv4/conf/{ifname}/arp_notify", "1")
    sysctl.write_if_present(f"net/ipv6/conf/{ifname}/ndisc_notify", "1")


def configure(
    sides: Sides,
    link: Link,
    result: Result,
    index: int,
    *,
    first: Sequence[Request] = (),
    last: Sequence[Request] = (),
) -> None:
    """Addresses, up, routes, as one batch. Raises KernelError.

    `index` is the interface's place in `result.interfaces`: other entries' addresses are left.
    `first` goes before the result's routes, `last` after them.
    """
    requests = _requests(link, result, index, addresses.IFA_F_NODAD, first)
    sides.inside.submit(*requests, *last)


def set_up(inside: Netlink, link: Link, result: Result, index: int) -> None:
    """The same for a plugin that has no host's side. Raises KernelError."""
    inside.submit(*_requests(link, result, index, addresses.IFA_F_NODAD, ()))


def configure_detecting_duplicates(sides: Sides, link: Link, result: Result, index: int) -> None:
    """The same, and wait for the end of duplicate address detection. Raises KernelError."""
    with sides.container.entered():
        events = Netlink(addresses.RTMGRP_IPV6_IFADDR)
    with events:
        sides.inside.submit(*_requests(link, result, index, 0))
        deadline = time.monotonic() + _DAD_SECONDS
        addresses.wait_until_settled(sides.inside, events, link, deadline)


def _requests(
    link: Link, result: Result, index: int, ipv6_flags: int, first: Sequence[Request] = ()
) -> list[Request]:
    own = [one for one in result.ips if one.interface == index]
    gateways: dict[int, IP] = {}
    for one in own:
        if one.gateway is not None:
            gateways.setdefault(one.address.version, one.gateway)
    requests = []
    for one in own:
        flags = ipv6_flags if one.address.version == 6 else 0
        requests.append(addresses.add(link.ifindex, link.name, one.address, flags=flags))
    requests += [links.set_up(link.name), *first]
    for route in result.routes:
        gateway = route.gw or gateways.get(route.dst.version)
        requests.append(routes.add(link.ifindex, link.name, route, gateway))
    return requests


def announce(inside: Netlink, link: Link) -> None:
    """Have the kernel tell the neighbours of the interface's addresses. Raises KernelError.

    Setting the hardware address that it has already makes `arp_notify` and `ndisc_notify` send a
    gratuitous ARP request and an unsolicited neighbour advertisement for each. The kernel also does
    that when the link comes up, but then the bridge's port does not forward yet.
    """
    what = f"announce the addresses of {link.name}"
    inside.submit(links.change(link.name, ("IFLA_ADDRESS", link.mac), what=what))


class Held(NamedTuple):
    """The addresses in a container: of its interface, and of its other ones.

    `known`: they are those that ADD gave, and not what the container has made of them.
    """

    own: tuple[Cidr, ...] = ()
    others: tuple[Cidr, ...] = ()
    known: bool = False


def held_inside(container: Netns, ifname: str) -> Held:
    """What the container has now; link-local addresses are left out. Raises KernelError."""
    with container.entered():
        inside = Netlink()
    with inside:
        link = links.get(inside, ifname)
        index = 0 if link is None else link.ifindex
        have = [
            (holder, one.address)
            for holder, listed in addresses.dump_all(inside).items()
            for one in listed
            if not one.address.is_link_local
        ]
    return Held(
        tuple(address for holder, address in have if holder == index),
        tuple(address for holder, address in have if holder != index),
    )


def previous(call: Call[Any]) -> Result:
    """The previous result that CHECK compares with. Raises CniError 7."""
    if call.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing")
    return call.prev_result


def listed(call: Call[Any]) -> tuple[Result, int]:
    """The previous result, and the interface's place in it (X-03). Raises CniError."""
    result = previous(call)
    index = result.container_interface(call.ifname, call.netns)
    if index is None:
        msg = f"Sandbox in prevResult doesn't match configured netns: {call.netns}"
        raise CniError(Code.INTERNAL, msg, f"no interface {call.ifname} with that sandbox")
    return result, index


def check_link(netlink: Netlink, expected: Interface, kind: str) -> Link:
    """The link that a result's entry describes. Raises CniError naming what differs."""
    link = links.get(netlink, expected.name)
    where = expected.sandbox or "the host"
    if link is None:
        raise differs(f"interface {expected.name} in {where}", "present", "missing")
    require_same(f"kind of interface {expected.name}", kind, link.kind)
    if expected.mac:
        require_same(f"mac of interface {expected.name}", expected.mac.lower(), link.mac)
    return link


def state_of(link: Link) -> str:
    """A link's state in a word."""
    return "up" if link.up else "down"


def check_addresses(netlink: Netlink, link: Link, result: Result, index: int) -> None:
    """Whether the link has the result's addresses for it (W-G10, W-G21)."""
    have = {one.address for one in addresses.dump(netlink, link.ifindex)}
    for one in result.ips:
        if one.interface in (None, index) and one.address not in have:
            listed = ", ".join(sorted(str(other) for other in have)) or "none"
            raise differs(f"address of interface {link.name}", str(one.address), listed)


def check_routes(netlink: Netlink, link: Link, expected: Sequence[Route]) -> None:
    """Whether each route is there, with the metric, table and scope that were asked for (W-G9).

    A default route may have got another next hop from a later plugin of the chain (C-02); one that
    asks for no table may have got one, from sbr or vrf.
    """
    have = routes.dump(netlink, link.ifindex) if expected else []
    for route in expected:
        if not any(_fits(one, route) for one in have):
            same = [one for one in have if one.destination.network == route.dst.network]
            listed = "; ".join(map(_describe, same)) or "no such route"
            raise differs(f"route {route.dst} of interface {link.name}", _wanted(route), listed)


def differs(what: str, expected: str, found: str) -> CniError:
    """CHECK's answer: which field differs, and how."""
    return CniError(Code.INTERNAL, f"{what} differs", f"expected {expected}, found {found}")


def require_same(what: str, expected: object, found: object) -> None:
    """Raises CniError unless the two are equal."""
    if expected != found:
        raise differs(what, str(expected), str(found))


def _fits(have: KernelRoute, route: Route) -> bool:
    if have.destination.network != route.dst.network:
        return False
    # 0.0.0.0 stands for a destination on the link.
    wanted = None if route.gw is None or route.gw.is_unspecified else route.gw
    gateway = route.gw is None or is_default(route.dst) or have.gateway == wanted
    # The kernel takes table 0 (unspecified) for the main one.
    table = have.table == route.table if route.table else have.table != routes.LOCAL_TABLE
    scope = route.scope is None or route.dst.version == 6 or have.scope == route.scope
    priority = not route.priority or have.priority == route.priority
    mtu = not route.mtu or have.mtu == route.mtu
    advmss = not route.advmss or have.advmss == route.advmss
    return gateway and table and scope and priority and mtu and advmss


def _wanted(route: Route) -> str:
    parts = {
        "via": route.gw,
        "table": route.table,
        "metric": route.priority or None,
        "mtu": route.mtu or None,
        "advmss": route.advmss or None,
        "scope": route.scope,
    }
    return " ".join(f"{key} {value}" for key, value in parts.items() if value is not None) or "any"


def _describe(have: KernelRoute) -> str:
    via = "" if have.gateway is None else f"via {have.gateway} "
    return f"{via}table {have.table} metric {have.priority} scope {have.scope}"
