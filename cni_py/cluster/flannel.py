"""flannel's keys and values in etcd as typed values; pure.

`PREFIX/config` says what the network is, `PREFIX/subnets/10.5.34.0-24` which node has a subnet.
The facts are from flannel's source: pkg/subnet, pkg/lease, pkg/backend. Whatever is read here was
written by somebody else: what cannot be is a FlannelError of one line, and what a node may say of
itself is judged by `peers`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

import msgspec

from cni_py.spec.addresses import IP, encode_hook
from cni_py.spec.config import convert, decode_json, explain

PREFIX = "/coreos.com/network"
CONFIG_KEY = "config"
SUBNETS_KEY = "subnets/"

# flannel reads a subnet's key with this form, so a network of IPv6 alone has the IPv4 part too.
_SUBNET = re.compile(r"([0-9.]{7,15})-([0-9]{1,2})(?:&([0-9a-f:]{2,39})-([0-9]{1,3}))?")
_NO_IPV4 = IPv4Network("0.0.0.0/0")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
# 32 bytes in base64.
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")

T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", IPv4Network, IPv6Network)


class FlannelError(ValueError):
    """A key or value that is not what flannel writes; the text is one line and says where."""


@dataclass(frozen=True, slots=True)
class Subnets:
    """What one node leases: a subnet of each family that the network has."""

    v4: IPv4Network | None = None
    v6: IPv6Network | None = None

    @property
    def key(self) -> str:
        """The lease's key below `PREFIX/`."""
        v4 = self.v4 or _NO_IPV4
        ending = f"&{self.v6.network_address}-{self.v6.prefixlen}" if self.v6 else ""
        return f"{SUBNETS_KEY}{v4.network_address}-{v4.prefixlen}{ending}"

    def __str__(self) -> str:
        return " and ".join(str(one) for one in (self.v4, self.v6) if one)


@dataclass(frozen=True, slots=True)
class NodeLease:
    """What a node says of itself: its subnets, and how they are reached.

    `data` and `data_v6` are the backend's own, as JSON; `b""` for none (`Vxlan`, `WireGuard`).
    """

    subnets: Subnets
    public_ip: IPv4Address | None = None
    public_ipv6: IPv6Address | None = None
    backend_type: str = ""
    data: bytes = b""
    data_v6: bytes = b""

    def encode(self) -> bytes:
        """The value of the lease's key, as flannel writes it."""
        return _encoded(_Attributes(
            public_ip=self.public_ip or IPv4Address(0),
            public_ipv6=self.public_ipv6,
            backend_type=self.backend_type or msgspec.UNSET,
            data=msgspec.Raw(self.data) if self.data else msgspec.UNSET,
            data_v6=msgspec.Raw(self.data_v6) if self.data_v6 else msgspec.UNSET,
        ))  # fmt: skip


class Vxlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a node of a VXLAN says of its end of the tunnel."""

    mac: str = msgspec.field(name="VtepMAC")

    def __post_init__(self) -> None:
        if not _MAC.fullmatch(self.mac.lower()):
            raise ValueError("VtepMAC is no MAC address")

    @classmethod
    def of(cls, data: bytes) -> Vxlan:
        """Read a lease's `data`; the MAC in lower case. Raises FlannelError."""
        found = _decoded(data, cls, "BackendData")
        return Vxlan(mac=found.mac.lower())


class WireGuard(msgspec.Struct, frozen=True, kw_only=True):
    """What a node of a WireGuard network says of itself."""

    public_key: str = msgspec.field(name="PublicKey")

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.public_key):
            raise ValueError("PublicKey is no WireGuard key")

    @classmethod
    def of(cls, data: bytes) -> WireGuard:
        """Read a lease's `data`. Raises FlannelError."""
        return _decoded(data, cls, "BackendData")


class _Attributes(msgspec.Struct, kw_only=True):
    """A lease's value; in flannel's order, and with its idea of what is left out."""

    public_ip: IP | None = msgspec.field(name="PublicIP", default=None)
    public_ipv6: IP | None = msgspec.field(name="PublicIPv6", default=None)
    backend_type: str | msgspec.UnsetType = msgspec.field(name="BackendType", default=msgspec.UNSET)
    data: Any = msgspec.field(name="BackendData", default=msgspec.UNSET)
    data_v6: Any = msgspec.field(name="BackendV6Data", default=msgspec.UNSET)


def parse_subnets(key: str) -> Subnets:
    """The subnets that a key below `PREFIX/` names. Raises FlannelError."""
    found = _SUBNET.fullmatch(key.removeprefix(SUBNETS_KEY))
    if not found or not key.startswith(SUBNETS_KEY):
        raise FlannelError(f"{key!r} is not the key of a subnet")
    try:
        v4 = IPv4Network((found[1], int(found[2])))
        v6 = IPv6Network((found[3], int(found[4]))) if found[3] else None
    except ValueError as error:
        raise FlannelError(f"{key!r} is not the key of a subnet: {error}") from None
    return Subnets(None if v4 == _NO_IPV4 and v6 else v4, v6)


def parse_lease(key: str, value: bytes) -> NodeLease:
    """The lease at a key below `PREFIX/`. Raises FlannelError."""
    subnets = parse_subnets(key)
    found = _decoded(value, _Attributes, key)
    v4, v6 = found.public_ip, found.public_ipv6
    if isinstance(v4, IPv6Address) or isinstance(v6, IPv4Address):
        raise FlannelError(f"{key}: a public address is of the wrong family")
    return NodeLease(
        subnets,
        v4 or None if v4 != IPv4Address(0) else None,
        v6 if v6 != IPv6Address(0) else None,
        found.backend_type or "",
        _data(found.data),
        _data(found.data_v6),
    )


def _data(found: Any) -> bytes:
    return b"" if found is msgspec.UNSET or found is None else msgspec.json.encode(found)


def _encoded(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value, enc_hook=encode_hook)


def _decoded(data: bytes, wanted: type[T], where: str) -> T:
    """The JSON as Go would read it: keys of any case, null for what is absent."""
    try:
        raw = decode_json(data)
    except ValueError as error:
        raise FlannelError(f"{where}: {error}") from None
    return decoded_value(raw, wanted, where)


def decoded_value(raw: object, wanted: type[T], where: str) -> T:
    """JSON that has been decoded, as `wanted`. Raises FlannelError."""
    try:
        return convert(raw, wanted)
    except msgspec.ValidationError as error:
        raise FlannelError(f"{where}: {' '.join(explain(error, raw, wanted))}") from None
    except RecursionError:
        raise FlannelError(f"{where}: JSON is nested too deeply") from None
