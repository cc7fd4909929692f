"""Names of DNS as files and answers may have them (RFC 1123, with the `_` of container names)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .addresses import Network

MOST_NAME_LETTERS = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_SHOWN_LETTERS = 80
# Every host says what this is; in a network's names it could only be a trap.
_TAKEN = frozenset({"localhost"})
_BITS_OF_ZONES = {4: 8, 6: 4}


def dns_name(text: str) -> str:
    """The name in lower case. Raises ValueError, which says what is wrong with it.

    One or more labels with dots between them, each 1 to 63 of `a-z`, `0-9`, `_` and, not at its
    ends, `-`; 253 letters in all. The last label is no number: that would be an address.
    """
    name = text.lower()
    shown = ascii(text[:_SHOWN_LETTERS])[1:-1]
    if not text.isascii():
        raise ValueError(f'"{shown}" has letters beyond ASCII')
    if len(name) > MOST_NAME_LETTERS:
        raise ValueError(f'"{shown}..." has {len(name)} letters, more than {MOST_NAME_LETTERS}')
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f'"{shown}" is no name of DNS')
    if labels[-1].isdigit() and len(labels) > 1:
        raise ValueError(f'"{shown}" looks like an address')
    if labels[-1] in _TAKEN:
        raise ValueError(f'"{shown}" means the host itself everywhere')
    return name


def forms(name: str, domain: str) -> tuple[str, ...]:
    """How a name is asked for: in the domain, which comes first, and as it is."""
    if name == domain or name.endswith(f".{domain}"):
        return (name,)
    if len(name) + 1 + len(domain) > MOST_NAME_LETTERS:
        return (name,)
    return (f"{name}.{domain}", name)


def reverse_zones(network: Network) -> list[str]:
    """The zones of reverse names that make up a subnet: `0.9.10.in-addr.arpa` of 10.9.0.0/24.

    A subnet that does not end at a label's end takes several, or part of one, which counts whole.
    """
    bits = _BITS_OF_ZONES[network.version]
    length = -(-network.prefixlen // bits) * bits or bits
    subnets = network.subnets(new_prefix=length) if length > network.prefixlen else (network,)
    labels = (network.max_prefixlen - length) // bits
    return [one.network_address.reverse_pointer.split(".", labels)[-1] for one in subnets]
