"""Results in each version of the protocol, written and read (spec.md section 8).

Three families of shapes cover seven versions. Writing turns the newest form into the family of the
configuration's version; reading brings any version up to the newest form.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import versions
from .addresses import IP, Cidr, encode_hook, json_type
from .config import convert, explain, member
from .errors import CniError, Code
from .results import DNS, Interface, IPConfig, Result, Route

_V4, _V6 = 4, 6


class _Family020IP(msgspec.Struct, frozen=True):
    """`ip4` and `ip6` of 0.1.0 and 0.2.0."""

    ip: Cidr
    gateway: IP | None = None
    routes: tuple[Route, ...] = ()


class _Family020(msgspec.Struct, frozen=True):
    """A result of 0.1.0 and 0.2.0."""

    ip4: _Family020IP | None = None
    ip6: _Family020IP | None = None
    dns: DNS = DNS()


def to_wire(result: Result, version: str) -> dict[str, Any]:
    """The JSON object for `result` in `version`; `""` is 0.1.0 (conv:56).

    Raises CniError 999 `cannot convert: no valid IP addresses` (D2) or `no converter for ...`, and
    for values that no runtime could read.
    """
    version = version or versions.WHEN_MISSING
    _refuse_negative(result)
    if version in versions.FAMILY_100:
        return _write_100(result, version)
    if version in versions.FAMILY_040:
        return _write_040(result, version)
    if version in versions.FAMILY_020:
        return _write_020(result, version)
    msg = f"no converter for CNI result version {versions.NEWEST} to {version}"
    raise CniError(Code.INTERNAL, msg)


def from_wire(raw: object, fallback: str) -> Result:
    """Read a result; a missing or empty `cniVersion` is `fallback` (PR-05, X-31).

    Raises ValueError with the reference's words for versions, with path and value for fields.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"expected a result object, got {json_type(raw)}")
    version = embedded_version(raw) or fallback or versions.WHEN_MISSING
    try:
        if version in versions.FAMILY_020:
            return _read_020(convert(raw, _Family020))
        if version in versions.FAMILY_040 or version in versions.FAMILY_100:
            # A surplus `ips[].version` is ignored: the family of the address says it (8.2).
            return convert(raw, Result)
    except msgspec.ValidationError as error:
        wanted = _Family020 if version in versions.FAMILY_020 else Result
        msg, details = explain(error, raw, wanted)
        raise ValueError(f"{msg}, {details}" if details else msg) from None
    raise ValueError(f'unsupported CNI result version "{version}"')


def embedded_version(raw: dict[str, object]) -> str:
    """The result's own `cniVersion`, in any spelling of the key; `""` if absent or not text."""
    value = member(raw, "cniVersion")
    return value if isinstance(value, str) else ""


def require_family(raw: dict[str, object], config_version: str) -> None:
    """Refuse a prevResult from another family than the configuration's (PR-04, P-06).

    Raises ValueError with the reference's text.
    """
    embedded = embedded_version(raw)
    if not embedded:
        return
    for family in (versions.FAMILY_020, versions.FAMILY_040, versions.FAMILY_100):
        if config_version in family and embedded not in family:
            listed = " ".join(family)
            msg = f'result type supports [{listed}] but unmarshalled CNIVersion is "{embedded}"'
            raise ValueError(msg)


def _refuse_negative(result: Result) -> None:
    """The specification's numbers are unsigned; what came in negative does not go out (19.23)."""
    for interface in result.interfaces:
        if interface.mtu < 0:
            raise CniError(Code.INTERNAL, f"interface {interface.name} has mtu {interface.mtu}")
    for route in result.routes:
        numbers = (route.mtu, route.advmss, route.priority, route.table or 0, route.scope or 0)
        if min(numbers) < 0:
            raise CniError(Code.INTERNAL, f"route {route.dst} has a negative number")


def _write_100(result: Result, version: str) -> dict[str, Any]:
    """1.0.0 and 1.1.0: everything, also what 1.0.0 does not name (8.1)."""
    wire: dict[str, Any] = {"cniVersion": version}
    if result.dns:
        wire["dns"] = _write_dns(result.dns)
    if result.interfaces:
        wire["interfaces"] = [_write_interface(one) for one in result.interfaces]
    if result.ips:
        wire["ips"] = [_write_ip(one) for one in result.ips]
    if result.routes:
        wire["routes"] = [_write_route(one) for one in result.routes]
    return wire


def _write_040(result: Result, version: str) -> dict[str, Any]:
    """0.3.0 to 0.4.0 (D1): the family of each address is spelt out, `dns` is always there."""
    wire: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        wire["interfaces"] = [
            _without_empty({"name": one.name}, mac=one.mac, sandbox=one.sandbox)
            for one in result.interfaces
        ]
    if result.ips:
        wire["ips"] = [
            {"version": str(one.address.version), **_write_ip(one)} for one in result.ips
        ]
    if result.routes:
        wire["routes"] = [_write_route(one) for one in result.routes]
    wire["dns"] = _write_dns(result.dns)
    return wire


def _write_020(result: Result, version: str) -> dict[str, Any]:
    """0.1.0 and 0.2.0 (D2): the first address of each family, and the routes of that family."""
    wire: dict[str, Any] = {"cniVersion": version}
    for family in (_V4, _V6):
        first = next((one for one in result.ips if one.address.version == family), None)
        if first is None:
            continue
        part: dict[str, Any] = {"ip": encode_hook(first.address)}
        if first.gateway is not None:
            part["gateway"] = encode_hook(first.gateway)
        own = [one for one in result.routes if one.dst.version == family]
        if own:
            part["routes"] = [_write_route(Route(one.dst, one.gw)) for one in own]
        wire[f"ip{family}"] = part
    if not result.ips:
        msg = "cannot convert: no valid IP addresses"
        details = (
            f"a result of version {version} must have an address: use cniVersion 0.3.0 or newer"
        )
        raise CniError(Code.INTERNAL, msg, details)
    wire["dns"] = _write_dns(result.dns)
    return wire


def _read_020(old: _Family020) -> Result:
    """U1 and U2: IPv4 first, routes joined, no interfaces."""
    parts = [part for part in (old.ip4, old.ip6) if part is not None]
    return Result(
        ips=tuple(IPConfig(part.ip, part.gateway) for part in parts),
        routes=tuple(route for part in parts for route in part.routes),
        dns=old.dns,
    )


def _write_interface(interface: Interface) -> dict[str, Any]:
    return _without_empty(
        {"name": interface.name},
        mac=interface.mac,
        mtu=interface.mtu,
        sandbox=interface.sandbox,
        socketPath=interface.socket_path,
        pciID=interface.pci_id,
    )


def _write_ip(ip: IPConfig) -> dict[str, Any]:
    """An index below zero, with which some plugins say "none", is left out (19.23, PR-09)."""
    wire: dict[str, Any] = {}
    if ip.interface is not None and ip.interface >= 0:
        wire["interface"] = ip.interface
    wire["address"] = encode_hook(ip.address)
    if ip.gateway is not None:
        wire["gateway"] = encode_hook(ip.gateway)
    return wire


def _write_route(route: Route) -> dict[str, Any]:
    """Zero is left out for mtu, advmss and priority, and kept for table and scope (trap 11)."""
    wire: dict[str, Any] = {"dst": encode_hook(route.dst)}
    if route.gw is not None:
        wire["gw"] = encode_hook(route.gw)
    _without_empty(wire, mtu=route.mtu, advmss=route.advmss, priority=route.priority)
    if route.table is not None:
        wire["table"] = route.table
    if route.scope is not None:
        wire["scope"] = route.scope
    return wire


def _write_dns(dns: DNS) -> dict[str, Any]:
    return _without_empty(
        {},
        nameservers=list(dns.nameservers),
        domain=dns.domain,
        search=list(dns.search),
        options=list(dns.options),
    )


def _without_empty(wire: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Add the members that are not empty to `wire`, in the order given."""
    wire.update((key, value) for key, value in members.items() if value)
    return wire
