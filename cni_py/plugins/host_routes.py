"""ptp's addresses and routes (plugins.md 3.2), of a container with 10.1.2.2/24 behind 10.1.2.1:

    in the container   10.1.2.1 dev eth0 scope link src 10.1.2.2
                       10.1.2.0/24 via 10.1.2.1 dev eth0 src 10.1.2.2
    on the host        10.1.2.1/32 on the pair's host end, in every pair again
                       10.1.2.2 dev veth... scope host

So the container's neighbours in the subnet are reached through the host too.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import addresses, links, routes
from cni_py.kernel.errors import KernelError
from cni_py.spec.addresses import cidr
from cni_py.spec.attachment import network_key
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import IPConfig, Route

from . import interface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink, Request
    from cni_py.kernel.routes import KernelRoute
    from cni_py.spec.addresses import IP, Cidr
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.results import Result

_REFERENCE_NAME = re.compile(r"veth[0-9a-f]{8}")


class _Hop(NamedTuple):
    """An address and the gateway that it is used with."""

    address: Cidr
    gateway: IP


def require_gateways(decided: Result) -> None:
    """Raises CniError unless every address has a gateway that can be its neighbour (W-P4)."""
    for one in decided.ips:
        problem = ""
        if one.gateway is None:
            problem = "without a gateway"
        elif one.gateway.version != one.address.version:
            problem = f"with gateway {one.gateway}, which is of the other IP version"
        elif one.gateway == one.address.ip:
            problem = "with itself as the gateway"
        if problem:
            msg = f"IPAM plugin returned address {one.address} {problem}"
            raise CniError(Code.INTERNAL, msg, "the host gets the gateway's address: set another")


def of_interface(decided: Result, index: int) -> tuple[IPConfig, ...]:
    """The addresses, all of them the interface's at that place of the result."""
    return tuple(IPConfig(one.address, one.gateway, index) for one in decided.ips)


def through_gateways(eth: Link, result: Result) -> tuple[list[Request], list[Request]]:
    """The container's requests that go before and after the result's own routes.

    First the ways to the gateways, which a /32 needs too (W-P5). The subnets' own routes, which the
    kernel has made of the addresses, go last: a configured next hop may be a neighbour.
    """
    gateways, subnets = _hops(result.ips)
    first = [
        routes.add(eth.ifindex, eth.name, _to_gateway(hop), None, source=hop.address.ip)
        for hop in gateways
    ]
    last = []
    for hop in subnets:
        last += [
            routes.delete_connected(eth.ifindex, eth.name, hop.address.network),
            routes.add(eth.ifindex, eth.name, _to_subnet(hop), hop.gateway, source=hop.address.ip),
        ]
    return first, last


def inside(ips: Iterable[IPConfig]) -> list[Route]:
    """The routes that a container has of ours."""
    gateways, subnets = _hops(ips)
    return [*map(_to_gateway, gateways), *map(_to_subnet, subnets)]


def lead_to_container(host: Netlink, port: Link, attachment: Attachment, result: Result) -> None:
    """Give the host's end the gateways' addresses, and route the container's through it.

    A route that is left over from an earlier holder of the address is replaced (W-P8, decision 19).
    Raises CniError when somebody else's is in the way.
    """
    host.submit(*(_gateway_request(port, one) for one in _gateway_addresses(result.ips)))
    own = [_single(one.address.ip) for one in result.ips]
    try:
        host.submit(*(_route_request(port, one, routes.EXCLUSIVE) for one in own))
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        for one in own:
            _require_stale(host, port, attachment, one)
        host.submit(*(_route_request(port, one, routes.REPLACE) for one in own))


def check(host: Netlink, port: Link, ips: Iterable[IPConfig]) -> None:
    """Whether the host's end has the gateways and the routes. Raises CniError."""
    own = list(ips)
    have = {one.address for one in addresses.dump(host, port.ifindex)}
    for gateway in _gateway_addresses(own):
        if gateway not in have:
            listed = ", ".join(sorted(map(str, have))) or "none"
            raise interface.differs(f"gateway address of {port.name}", str(gateway), listed)
    wanted = [Route(_single(one.address.ip), scope=routes.SCOPE_HOST) for one in own]
    interface.check_routes(host, port, wanted)


def _require_stale(host: Netlink, port: Link, attachment: Attachment, address: Cidr) -> None:
    """Raises CniError for a route to the address that is somebody else's.

    A network gives an address once, so that its earlier holder is gone, whatever is left of it. The
    reference's pairs have no label; of them the IPAM plugin's word counts.
    """
    for route in routes.dump_to(host, address):
        link = links.get_by_index(host, route.link) if route.link else None
        if route.link == port.ifindex or _is_left_over(link, route, attachment.network):
            continue
        way = f"through {link.name}" if link is not None else "otherwise"
        msg = f"{address.ip} is already routed {way}"
        details = "no two networks of one host can have the same addresses"
        if link is not None and link.alias:
            details = f"{link.alias}: {details}"
        raise CniError(Code.INTERNAL, msg, details)


def _is_left_over(link: Link | None, route: KernelRoute, network: str) -> bool:
    if link is None:
        # Gone meanwhile, and its routes with it; or a route without a link, which is not ours.
        return route.link != 0
    is_of_reference = not link.alias and _REFERENCE_NAME.fullmatch(link.name) is not None
    is_ours = link.alias.startswith(f"{network_key(network)}-")
    return link.kind == "veth" and (is_ours or is_of_reference)


def _hops(ips: Iterable[IPConfig]) -> tuple[list[_Hop], list[_Hop]]:
    """One hop a gateway, and one a subnet: several addresses can share either."""
    gateways: dict[IP, _Hop] = {}
    subnets: dict[object, _Hop] = {}
    for one in ips:
        if one.gateway is not None:
            hop = _Hop(one.address, one.gateway)
            gateways.setdefault(hop.gateway, hop)
            subnets.setdefault(hop.address.network, hop)
    return list(gateways.values()), list(subnets.values())


def _to_gateway(hop: _Hop) -> Route:
    return Route(_single(hop.gateway), scope=routes.SCOPE_LINK)


def _to_subnet(hop: _Hop) -> Route:
    return Route(hop.address, hop.gateway)


def _gateway_addresses(ips: Iterable[IPConfig]) -> list[Cidr]:
    return [_single(hop.gateway) for hop in _hops(ips)[0]]


def _gateway_request(port: Link, gateway: Cidr) -> Request:
    flags = addresses.IFA_F_NODAD if gateway.version == 6 else 0
    return addresses.add(port.ifindex, port.name, gateway, flags=flags)


def _route_request(port: Link, address: Cidr, flags: int) -> Request:
    route = Route(address, scope=routes.SCOPE_HOST)
    return routes.add(port.ifindex, port.name, route, None, flags=flags)


def _single(address: IP) -> Cidr:
    return cidr(address, address.max_prefixlen)
