"""static: the addresses that the configuration or the runtime names (plugins.md 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cni_py.spec.addresses import IP, Cidr, parse_cidr, parse_ip
from cni_py.spec.args import load_args
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.results import DNS, IPConfig, Result, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

NAME = "static"


class _Address(msgspec.Struct, frozen=True, kw_only=True):
    address: Cidr
    """An address with its prefix length."""
    gateway: IP | None = None
    """The gateway of this address's subnet."""


class _Ipam(msgspec.Struct, frozen=True, kw_only=True):
    """The `ipam` key."""

    type: str = NAME
    """`static`."""
    addresses: tuple[_Address, ...] = ()
    """The addresses to have."""
    routes: tuple[Route, ...] = ()
    """Routes that become part of the result."""
    dns: DNS = DNS()
    """Name resolution that becomes part of the result."""


class _RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    ips: tuple[str, ...] = ()
    """The capability `ips`: addresses that replace all others."""


class _CniArgs(msgspec.Struct, frozen=True, kw_only=True):
    ips: tuple[str, ...] = ()
    """Addresses that replace those of `ipam.addresses` and CNI_ARGS."""


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    cni: _CniArgs = _CniArgs()
    """Arguments for CNI plugins."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """static's configuration."""

    ipam: _Ipam | None = None
    """The addresses to have."""
    runtime_config: _RuntimeConfig = msgspec.field(default=_RuntimeConfig(), name="runtimeConfig")
    """What the capabilities bring."""
    args: _Args = _Args()
    """What the runtime passes in `args.cni`."""


# DEL and GC read nothing.
DelConfig = PluginConfig


def add(call: Call[Config]) -> Result:
    """The addresses named, in the order of their source."""
    ipam = _ipam(call.config)
    return Result(ips=_addresses(call), routes=ipam.routes, dns=ipam.dns)


def delete(call: Call[PluginConfig]) -> None:
    """Nothing is kept."""


def check(call: Call[Config]) -> None:
    """Whether each address, with its gateway, stands in the previous result (W-ST1)."""
    expected = _addresses(call)
    if call.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing")
    listed = call.prev_result.ips
    for one in expected:
        same = [other for other in listed if other.address == one.address]
        if not same:
            msg = f"static: address {one.address} is not in prevResult"
            have = ", ".join(str(other.address) for other in listed) or "no address"
            raise CniError(Code.INTERNAL, msg, f"prevResult has {have}")
        if one.gateway is not None and all(other.gateway != one.gateway for other in same):
            msg = f"static: Failed to match addr {one.address}: its gateway differs"
            details = f"configured {one.gateway}, prevResult has {same[0].gateway or 'none'}"
            raise CniError(Code.INTERNAL, msg, details)


def status(call: Call[Config]) -> None:
    """Ready whenever the configuration can be read."""
    _ipam(call.config)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    return refusals("ipam.addresses", _addresses, call)


def gc(call: Call[PluginConfig], collection: Collection) -> None:
    """Nothing is kept."""


def _ipam(config: Config) -> _Ipam:
    if config.ipam is None:
        raise CniError(Code.INVALID_CONFIG, "IPAM config missing 'ipam' key", key="ipam")
    return config.ipam


def _addresses(call: Call[Config]) -> tuple[IPConfig, ...]:
    """`runtimeConfig.ips` replaces `args.cni.ips`, which replaces all else (plugins.md 5.2)."""
    config = call.config
    for source, texts in (
        ("runtimeConfig.ips", config.runtime_config.ips),
        ("args.cni.ips", config.args.cni.ips),
    ):
        if texts:
            msg = "an entry in the 'ips' field is NOT in CIDR notation, got: '{}'"
            found = tuple(IPConfig(_cidr(one, msg, source)) for one in texts)
            return _usable(found, call.request.cni_version)
    ipam = _ipam(config)
    for index, one in enumerate(ipam.addresses):
        if one.gateway is not None and one.gateway.version != one.address.version:
            msg = f"gateway {one.gateway} is not of the family of {one.address}"
            key = f"ipam.addresses[{index}].gateway"
            raise CniError(Code.INVALID_CONFIG, msg, key, key=key)
    named = tuple(IPConfig(one.address, one.gateway) for one in ipam.addresses)
    return _usable((*named, *_from_args(call.args)), call.request.cni_version)


def _from_args(text: str) -> tuple[IPConfig, ...]:
    """CNI_ARGS `IP` and `GATEWAY`: a gateway belongs to the addresses whose subnet it is in."""
    args = load_args(text, ("IP", "GATEWAY"))
    msg = "the 'ip' field is expected to be in CIDR notation, got: '{}'"
    given = [_cidr(one, msg, "CNI_ARGS IP") for one in _listed(args.get("IP", ""))]
    gateways = []
    for one in _listed(args.get("GATEWAY", "")):
        try:
            gateways.append(parse_ip(one))
        except ValueError:
            refused = f"invalid gateway address: {one}"
            raise CniError(Code.INVALID_CONFIG, refused, "in CNI_ARGS GATEWAY") from None
    return tuple(
        IPConfig(
            address, next((gateway for gateway in gateways if gateway in address.network), None)
        )
        for address in given
    )


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")] if text else []


def _cidr(text: str, msg: str, source: str) -> Cidr:
    try:
        return parse_cidr(text)
    except ValueError:
        raise CniError(Code.INVALID_CONFIG, msg.format(text), f"in {source}") from None


def _usable(ips: tuple[IPConfig, ...], cni_version: str) -> tuple[IPConfig, ...]:
    """The same addresses. Raises CniError 7 for what no interface has and no result can say."""
    seen = set()
    for one in (one.address.ip for one in ips):
        if one.is_unspecified or one.is_multicast:
            msg = f"address {one} is not one of an interface"
            raise CniError(Code.INVALID_CONFIG, msg, "it is unspecified or multicast")
        if one in seen:
            raise CniError(Code.INVALID_CONFIG, f"address {one} is given twice")
        seen.add(one)
    versions = [one.address.version for one in ips]
    if cni_version in ("0.1.0", "0.2.0") and len(versions) != len(set(versions)):
        msg = f"CNI version {cni_version} does not support more than 1 address per family"
        raise CniError(Code.INVALID_CONFIG, msg, "use cniVersion 0.3.0 or newer")
    return ips
