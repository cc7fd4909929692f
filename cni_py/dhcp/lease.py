"""A lease as a value: what the server has acknowledged, and until when it holds."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_interface

import msgspec

from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import DNS, IPConfig, Result, Route

from . import options

_DEFAULT_SECONDS = 3600
# RFC 2131, 4.4.5.
_T1, _T2 = 0.5, 0.875
_LEAST_MTU = 68
_MAC_BYTES = 6
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The options are the server's. `since`, when it was asked for, is of the boot's clock.

    `renew`, `rebind` and `expire` are seconds after that.
    """

    address: str
    server: str
    server_mac: bytes
    options: dict[int, bytes]
    since: float
    renew: float
    rebind: float
    expire: float

    def __post_init__(self) -> None:
        """Raises ValueError: a record with such a lease is damaged, as such an answer is."""
        IPv4Address(self.address)
        if self.server:
            IPv4Address(self.server)
        if len(self.server_mac) != _MAC_BYTES:
            raise ValueError("a hardware address has 6 bytes")
        options.require_codes(self.options)

    @property
    def ip(self) -> IPv4Address:
        """The address."""
        return IPv4Address(self.address)

    @property
    def mtu(self) -> int:
        """Option 26; 0 for none, or one that IPv4 does not allow."""
        mtu = options.number(self.options, options.INTERFACE_MTU, 2) or 0
        return mtu if mtu >= _LEAST_MTU else 0

    def is_over(self, now: float) -> bool:
        """Whether the address may not be used any more."""
        return now >= self.since + self.expire


def lease_of(
    address: IPv4Address, given: dict[int, bytes], server_mac: bytes, since: float
) -> Lease:
    """The lease that an ACK gives. Times that contradict each other are the defaults instead."""
    expire = options.number(given, options.LEASE_TIME, 4) or _DEFAULT_SECONDS
    renew = options.number(given, options.RENEWAL_TIME, 4) or expire * _T1
    rebind = options.number(given, options.REBINDING_TIME, 4) or expire * _T2
    if not renew <= rebind <= expire:
        renew, rebind = expire * _T1, expire * _T2
    servers = options.addresses(given, options.SERVER_ID)
    return Lease(
        address=str(address),
        server=str(servers[0]) if servers else "",
        server_mac=server_mac,
        options=given,
        since=since,
        renew=renew,
        rebind=rebind,
        expire=expire,
    )


def result_of(lease: Lease, priority: int) -> Result:
    """The IPAM result; `priority` other than 0 is every route's metric.

    Raises CniError for a lease without a usable subnet mask.
    """
    length = options.prefix_length(lease.options)
    if length is None:
        msg = "DHCP option Subnet Mask not found in DHCPACK"
        details = f"the server {lease.server} gave {lease.address} without option 1"
        raise CniError(Code.INTERNAL, msg, details)
    routers = options.addresses(lease.options, options.ROUTER)
    address = ip_interface(f"{lease.address}/{length}")
    ips = (IPConfig(address, routers[0] if routers else None),)
    return Result(ips=ips, routes=routes_of(lease, priority), dns=_dns(lease))


def routes_of(lease: Lease, priority: int) -> tuple[Route, ...]:
    """The lease's routes, with a metric unless `priority` is 0."""
    found = options.routes(lease.options)
    if not priority:
        return found
    return tuple(msgspec.structs.replace(one, priority=priority) for one in found)


def _dns(lease: Lease) -> DNS:
    """Names with other characters than a name has are left out: runtimes write them to files."""
    given = lease.options
    domains = options.text(given, options.DOMAIN_NAME).split()
    # Some servers send a search list in option 15.
    search = options.search_list(given) or tuple(domains[1:] and domains)
    domain = domains[0] if domains and _NAME.fullmatch(domains[0]) else ""
    return DNS(
        nameservers=tuple(map(str, options.addresses(given, options.NAME_SERVERS))),
        domain=domain,
        search=tuple(one for one in search if _NAME.fullmatch(one)),
    )
