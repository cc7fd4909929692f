"""DHCP's options: their names, and what is read from them (RFC 2132, 3397, 3442)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_interface
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SUBNET_MASK = 1
ROUTER = 3
NAME_SERVERS = 6
DOMAIN_NAME = 15
INTERFACE_MTU = 26
STATIC_ROUTES = 33
REQUESTED_ADDRESS = 50
LEASE_TIME = 51
MESSAGE_TYPE = 53
SERVER_ID = 54
PARAMETERS = 55
ERROR_TEXT = 56
MAX_MESSAGE_BYTES = 57
RENEWAL_TIME = 58
REBINDING_TIME = 59
CLIENT_ID = 61
SEARCH_LIST = 119
CLASSLESS_ROUTES = 121

# The first six are the reference plugin's; any other option is named by its number.
_NAMES = {
    "dhcp-client-identifier": CLIENT_ID,
    "subnet-mask": SUBNET_MASK,
    "routers": ROUTER,
    "host-name": 12,
    "user-class": 77,
    "vendor-class-identifier": 60,
    "domain-name-servers": NAME_SERVERS,
    "domain-name": DOMAIN_NAME,
    "domain-search": SEARCH_LIST,
    "interface-mtu": INTERFACE_MTU,
    "static-routes": STATIC_ROUTES,
    "classless-static-routes": CLASSLESS_ROUTES,
}
_MOST = 254

_SCOPE_LINK = 253
_ADDRESS_BYTES = 4
_POINTER = 0xC0
_MOST_LABELS = 128


def code_of(name: str, key: str) -> int:
    """The number of an option, from its name or number. Raises CniError 7, naming `key`."""
    if name in _NAMES:
        return _NAMES[name]
    if name.isascii() and name.isdigit() and len(name) <= len(str(_MOST)):
        code = int(name)
        if 1 <= code <= _MOST:
            return code
    msg = f'Can not parse option "{name}"'
    known = ", ".join(_NAMES)
    raise CniError(Code.INVALID_CONFIG, msg, f"{key} is 1 to {_MOST}, or one of {known}", key=key)


def require_codes(options: Iterable[int]) -> None:
    """Raises ValueError for a number that no option has."""
    if not all(1 <= code <= _MOST for code in options):
        raise ValueError(f"an option's code is 1 to {_MOST}")


def addresses(options: Mapping[int, bytes], code: int) -> tuple[IPv4Address, ...]:
    """An option that is a list of addresses; what is over at its end is left out."""
    value = options.get(code, b"")
    whole = len(value) - len(value) % _ADDRESS_BYTES
    return tuple(IPv4Address(value[at : at + 4]) for at in range(0, whole, _ADDRESS_BYTES))


def number(options: Mapping[int, bytes], code: int, size: int) -> int | None:
    """An option that is a number of `size` bytes; None if it is missing or of another size."""
    value = options.get(code, b"")
    return int.from_bytes(value, "big") if len(value) == size else None


def text(options: Mapping[int, bytes], code: int) -> str:
    """An option that is text, without the NUL that some servers put at its end."""
    return options.get(code, b"").rstrip(b"\0").decode(errors="replace")


def prefix_length(options: Mapping[int, bytes]) -> int | None:
    """Of the subnet mask; None if there is none, or none that is one."""
    found = addresses(options, SUBNET_MASK)
    if not found:
        return None
    # ipaddress would take 0.0.0.1 for a wildcard of /31.
    bits = f"{int(found[0]):032b}"
    ones = bits.rstrip("0")
    return len(ones) if "0" not in ones else None


def routes(options: Mapping[int, bytes]) -> tuple[Route, ...]:
    """The classless routes; without them the static ones, and a default route (RFC 3442)."""
    if CLASSLESS_ROUTES in options:
        return tuple(_classless(options[CLASSLESS_ROUTES]))
    pairs = addresses(options, STATIC_ROUTES)
    found = [
        _route(destination, _class_length(destination), gateway)
        for destination, gateway in zip(pairs[::2], pairs[1::2], strict=False)
    ]
    routers = addresses(options, ROUTER)
    if routers:
        found.append(_route(IPv4Address(0), 0, routers[0]))
    return tuple(found)


def search_list(options: Mapping[int, bytes]) -> tuple[str, ...]:
    """The domains of option 119, as far as they can be read."""
    data = options.get(SEARCH_LIST, b"")
    found: list[str] = []
    at = 0
    while at < len(data):
        name, at = _domain(data, at)
        if not name:
            break
        found.append(name)
    return tuple(found)


def _route(destination: IPv4Address, length: int, gateway: IPv4Address) -> Route:
    network = IPv4Network((destination, length), strict=False)
    # A router of 0.0.0.0 says that the destination is on the link.
    scope = _SCOPE_LINK if gateway.is_unspecified else None
    return Route(ip_interface(network), gateway, scope=scope)


def _class_length(address: IPv4Address) -> int:
    """The prefix length of an address's class (RFC 791)."""
    first = address.packed[0]
    if first < 0x80:
        return 8
    return 16 if first < 0xC0 else 24


def _classless(data: bytes) -> Iterator[Route]:
    """The routes of option 121 up to the first that cannot be read."""
    at = 0
    while at < len(data) and data[at] <= IPv4Address(0).max_prefixlen:
        length = data[at]
        significant = (length + 7) // 8
        end = at + 1 + significant + _ADDRESS_BYTES
        if end > len(data):
            return
        destination = data[at + 1 : at + 1 + significant].ljust(_ADDRESS_BYTES, b"\0")
        gateway = data[at + 1 + significant : end]
        yield _route(IPv4Address(destination), length, IPv4Address(gateway))
        at = end


def _domain(data: bytes, at: int) -> tuple[str, int]:
    """One domain and where the next one begins; "" for what is none (RFC 1035, 4.1.4)."""
    labels: list[str] = []
    after = 0
    for _ in range(_MOST_LABELS):
        if at >= len(data):
            return "", len(data)
        length = data[at]
        if length == 0:
            return ".".join(labels), after or at + 1
        if length & _POINTER == _POINTER:
            if at + 1 >= len(data):
                return "", len(data)
            after = after or at + 2
            at = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            continue
        label = data[at + 1 : at + 1 + length]
        if length & _POINTER or len(label) < length:
            return "", len(data)
        labels.append(label.decode("ascii", errors="replace"))
        at += 1 + length
    return "", len(data)
