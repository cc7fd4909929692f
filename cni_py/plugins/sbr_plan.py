"""What sbr is to change: decided from the addresses and from what the kernel has (6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import kept_routes, routes
from cni_py.spec.addresses import cidr, default_route, parse_ip
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.results import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_py.kernel.kept_routes import KeptRoute
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Request
    from cni_py.kernel.rules import Rule
    from cni_py.spec.addresses import IP, Cidr, Network
    from cni_py.spec.call import Call
    from cni_py.spec.results import IPConfig

# The first table that is given out, as the reference's.
FIRST_TABLE = 100
_LAST_TABLE = 2**32 - 1
_VERSIONS = 2


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know; it helps where there is no record."""

    table: int | None = None
    """Only add rules to this table, which somebody else fills; none: a table of its own for each
    address.
    """


class Config(DelConfig, frozen=True, kw_only=True):
    """sbr's configuration: without a table, one is made for each address."""

    gateways: tuple[str, ...] = ()
    """One gateway a family, instead of IPAM's."""
    add_source_hints: bool = False
    """Leave the subnets in the main table, with the address to send from."""


class Source(NamedTuple):
    """An address, the table for what it sends, and the gateway of that table if it has one.

    `copies` are routes of the main table that the table gets too.
    """

    address: Cidr
    table: int
    gateway: IP | None
    copies: tuple[KeptRoute, ...]


class Plan(NamedTuple):
    """The tables to make, what leaves the main one, and the subnets that get a preferred source."""

    sources: tuple[Source, ...]
    removed: tuple[KeptRoute, ...] = ()
    hinted: tuple[Cidr, ...] = ()


def gateways(config: Config) -> dict[int, IP]:
    """The configured gateways by IP version. Raises CniError 7."""
    table = config.table
    if table is not None and not 1 <= table <= _LAST_TABLE:
        msg, details = f"invalid table {table}", f"table is 1 to {_LAST_TABLE}, or absent"
        raise CniError(Code.INVALID_CONFIG, msg, details, key="table")
    if len(config.gateways) > _VERSIONS:
        msg = "gateways list cannot contain more than 2 entries (one IPv4, one IPv6)"
        raise CniError(Code.INVALID_CONFIG, msg, f"got {len(config.gateways)}")
    found: dict[int, IP] = {}
    for text in config.gateways:
        try:
            gateway = parse_ip(text)
        except ValueError as error:
            msg = f"invalid static gateway IP address: {text}"
            raise CniError(Code.INVALID_CONFIG, msg, "in gateways") from error
        if gateway.is_unspecified or gateway.is_multicast or gateway.is_loopback:
            msg = f"static gateway IP address {text} is not one of a neighbour"
            raise CniError(Code.INVALID_CONFIG, msg, "in gateways")
        if gateway.version in found:
            msg = f"gateways list contains multiple IPv{gateway.version} addresses"
            details = f"{found[gateway.version]} and {gateway}"
            raise CniError(Code.INVALID_CONFIG, msg, details)
        found[gateway.version] = gateway
    return found


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    return refusals("gateways", gateways, call.config)


def plan(
    ips: Sequence[IPConfig],
    config: Config,
    everything: Sequence[KeptRoute],
    own: Sequence[KeptRoute],
    rules: Sequence[Rule],
) -> Plan:
    """What to change. `everything` are all routes, `own` those of the interface."""
    static = gateways(config)
    if config.table is not None:
        return Plan(tuple(Source(one.address, config.table, None, ()) for one in ips))
    free = free_tables(everything, rules)
    main = [one for one in own if one.table == routes.MAIN_TABLE]
    sources = []
    for one in ips:
        fixed = static.get(one.address.version)
        copies = [route for route in main if _is_for(route, one.address)]
        if fixed is not None:
            # A default route among them would take the place of the one through this gateway.
            copies = [route for route in copies if route.destination.prefixlen]
        gateway = fixed or one.gateway
        sources.append(Source(one.address, next(free), gateway, tuple(copies)))
    global_routes = [one for one in main if not _is_link_local(one.destination)]
    if not config.add_source_hints:
        return Plan(tuple(sources), tuple(global_routes))
    # An IPv6 route has no scope: one that the address brought along is replaced.
    removed = [one for one in global_routes if one.scope != routes.SCOPE_LINK]
    addresses = [one.address for one in ips]
    with_subnet = [one for one in addresses if one.network.prefixlen < one.max_prefixlen]
    return Plan(tuple(sources), tuple(removed), tuple(with_subnet))


def free_tables(everything: Iterable[KeptRoute], rules: Iterable[Rule]) -> Iterator[int]:
    """The tables from the first on that neither a rule nor a route of any table uses (W-SB2)."""
    used = {one.table for one in everything} | {one.table for one in rules}
    return (number for number in range(FIRST_TABLE, _LAST_TABLE) if number not in used)


def additions(link: Link, planned: Plan) -> list[Request]:
    """The routes of the new tables; a copied default route may replace the one that is made."""
    requests = []
    for one in planned.sources:
        near = [route for route in one.copies if route.gateway is None]
        far = [route for route in one.copies if route.gateway is not None]
        requests += [kept_routes.put(route, one.table) for route in near]
        if one.gateway is not None:
            default, flags = default_of(one), routes.REPLACE
            requests.append(routes.add(link.ifindex, link.name, default, one.gateway, flags=flags))
        requests += [kept_routes.put(route, one.table) for route in far]
    return requests


def default_of(source: Source) -> Route:
    """The default route of an address's table."""
    return Route(default_route(source.address.version), source.gateway, table=source.table)


def hints(link: Link, planned: Plan) -> list[Request]:
    """The routes to the subnets that name the address to send from."""
    requests = []
    for address in planned.hinted:
        route = hint_of(address)
        requests.append(
            routes.add(
                link.ifindex, link.name, route, None, source=address.ip, flags=routes.REPLACE
            )
        )
    return requests


def hint_of(address: Cidr) -> Route:
    """The main table's route to an address's subnet."""
    subnet = address.network
    return Route(cidr(subnet.network_address, subnet.prefixlen), scope=routes.SCOPE_LINK)


def stays(route: KeptRoute, hinted: Iterable[Network]) -> bool:
    """Whether a route of the interface may be in the main table after ADD."""
    if _is_link_local(route.destination):
        return True
    return route.destination in set(hinted) or (bool(hinted) and route.scope == routes.SCOPE_LINK)


def _is_for(route: KeptRoute, address: Cidr) -> bool:
    """Whether the table of an address gets the route: it is of its subnet, or of none (6.5)."""
    if route.destination.version != address.version:
        return False
    subnet = address.network
    if route.source is None and route.gateway is None:
        return True
    return any(one is not None and one in subnet for one in (route.source, route.gateway))


def _is_link_local(destination: Network) -> bool:
    """IPv6's own routes of a link, without which it does not work on it."""
    return destination.version == 6 and destination.is_link_local
