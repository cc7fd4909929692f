"""Addresses as the protocol writes them, on the standard library's `ipaddress` types.

The texts are those of the Go library, on purpose narrower than `ipaddress` reads them: a CIDR needs
its `/`, netmasks and zones are refused, and an IPv4-mapped IPv6 address *is* the IPv4 address
(rules P-01, R-03; traps 8 and 9).
"""

from __future__ import annotations

from abc import ABC
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    IP = IPv4Address | IPv6Address
    Cidr = IPv4Interface | IPv6Interface
    Network = IPv4Network | IPv6Network
else:
    # msgspec takes at most one custom type in a union, and `IPv4Address | IPv6Address | None` has
    # two: an abstract class that both are registered with is one.
    class IP(ABC):
        """An address of either family."""

    class Cidr(ABC):
        """An address with its prefix length, host bits kept."""

    class Network(ABC):
        """A subnet: no host bits."""

    for _class in (IPv4Address, IPv6Address):
        IP.register(_class)
    for _class in (IPv4Interface, IPv6Interface):
        Cidr.register(_class)
    for _class in (IPv4Network, IPv6Network):
        Network.register(_class)

_MAPPED_BITS = 96


def parse_ip(text: str) -> IP:
    """Read one address. Raises ValueError `invalid IP address: <text>`."""
    # ipaddress takes zones, and int() inside it is not reached by anything else that Go refuses.
    if "%" in text or not text.isascii():
        raise ValueError(f"invalid IP address: {text}")
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"invalid IP address: {text}") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_cidr(text: str) -> Cidr:
    """Read `address/prefix-length`. Raises ValueError `invalid CIDR address: <text>`."""
    address, slash, length = text.partition("/")
    # A decimal of at most three digits: int() and ipaddress take more than that.
    if not slash or not (length.isascii() and length.isdigit()) or len(length) > len("128"):
        raise ValueError(f"invalid CIDR address: {text}")
    bits = int(length)
    try:
        ip = parse_ip(address)
        if ip.version == 4 and ":" in address:
            bits -= _MAPPED_BITS
        return ip_interface(f"{ip}/{bits}")
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None


def strip_prefix(text: str) -> IP:
    """Read `address` or `address/prefix-length` and return the address alone.

    Raises ValueError as `parse_ip` and `parse_cidr` do.
    """
    return parse_cidr(text).ip if "/" in text else parse_ip(text)


def cidr(address: IP, prefix_length: int) -> Cidr:
    """`address` with a prefix length."""
    return ip_interface((address, prefix_length))


def default_route(version: int) -> Cidr:
    """`0.0.0.0/0` or `::/0`."""
    return ip_interface("0.0.0.0/0" if version == 4 else "::/0")


def is_default(destination: Cidr) -> bool:
    """Whether a route's destination is everything of its family."""
    return destination.network.prefixlen == 0


def decode_hook(wanted: Any, value: object) -> Any:
    """msgspec's `dec_hook`: text to address. Its ValueError or TypeError gets a path by msgspec."""
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{json_type(value)}`")
    if wanted is IP:
        return parse_ip(value)
    if wanted is Cidr:
        return parse_cidr(value)
    raise NotImplementedError(wanted)


def encode_hook(value: object) -> str:
    """msgspec's `enc_hook`: the canonical text (RFC 5952)."""
    if isinstance(value, (IP, Cidr)):
        return str(value)
    raise NotImplementedError(type(value))


def json_type(value: object) -> str:
    """The JSON word for a decoded value's type, as msgspec's messages say it."""
    names = {bool: "bool", int: "int", float: "float", list: "array", dict: "object"}
    return "null" if value is None else names.get(type(value), "str")
