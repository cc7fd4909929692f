"""An instance: one container's port that serves one service, as every registry has it; pure.

Its limits are those that all registries share, so that what one takes the others take too: DNS
(RFC 1123) says what a name is, Consul how large metadata is.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import ip_address
from typing import Literal

import msgspec

Protocol = Literal["tcp", "udp", "sctp"]

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

MOST_ADDRESSES = 8
MOST_METADATA = 32
"""Pairs. Consul takes 64, of which some are ours."""
METADATA_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_RESERVED_KEYS = ("consul-", "cni-py-")
_MOST_VALUE_BYTES = 512
_MOST_NAME_LETTERS = 255
_DIGEST_LETTERS = 16
_ID_LETTERS = 12
# CoreDNS takes these labels for a wildcard.
_WILDCARDS = ("any",)


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service can be had. Making one raises ValueError for what no registry takes."""

    service: str
    """The service's name: a DNS label in lower case."""
    id: str
    """The instance's name, a DNS label that no other instance of the cluster has: `instance_id`."""
    node: str
    """The node that it is on: its name in the cluster. Only that node changes or withdraws it."""
    network: str
    """The network that the addresses are of, by its name in the configuration."""
    addresses: tuple[str, ...]
    """IPv4 and IPv6 addresses in their usual form, each once."""
    port: int
    """1 to 65535."""
    protocol: Protocol = "tcp"
    weight: int = 1
    """How much of the work it gets, beside the weights of the service's others: 1 to 65535."""
    metadata: dict[str, str] = {}
    """What its owner says of it. Keys are of letters, digits, `-` and `_`."""

    def __post_init__(self) -> None:
        require_service(self.service)
        _require_label("id", self.id)
        for name, text in (("node", self.node), ("network", self.network)):
            if not (0 < len(text) <= _MOST_NAME_LETTERS and text.isascii() and text.isprintable()):
                raise ValueError(f"{name} {_shown(text)} is no name of 1 to 255 ASCII letters")
        _require_addresses(self.addresses)
        for name, number in (("port", self.port), ("weight", self.weight)):
            if not 0 < number <= 0xFFFF:
                raise ValueError(f"{name} {number} is not between 1 and 65535")
        _require_metadata(self.metadata)


def instance_id(
    node: str, container_id: str, ifname: str, service: str, port: int, protocol: str
) -> str:
    """The id of what a container's interface serves at a port; the same each time.

    It begins with the container's id for people, and ends with a digest of all: runtimes name
    containers apart within a node alone.
    """
    whole = "/".join((node, container_id, ifname, service, str(port), protocol))
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
    shown = re.sub("[^a-z0-9]", "", container_id.lower())[:_ID_LETTERS]
    return f"{shown}-{digest[:_DIGEST_LETTERS]}".lstrip("-")


def require_service(name: str) -> None:
    """Raises ValueError where no service can be called so."""
    _require_label("service", name)
    if name in _WILDCARDS:
        raise ValueError(f'service "{name}" would mean every service in DNS')


def _require_label(name: str, label: str) -> None:
    if not DNS_LABEL.fullmatch(label):
        raise ValueError(f"{name} {_shown(label)} is no DNS label in lower case")


def _require_addresses(addresses: tuple[str, ...]) -> None:
    if not 0 < len(addresses) <= MOST_ADDRESSES:
        raise ValueError(f"there are {len(addresses)} addresses: 1 to {MOST_ADDRESSES} can be")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"an address is there twice: {', '.join(map(_shown, addresses))}")
    for text in addresses:
        try:
            is_usual = str(ip_address(text)) == text and "%" not in text
        except ValueError:
            is_usual = False
        if not is_usual:
            raise ValueError(f"{_shown(text)} is no IP address in its usual form")


def _require_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MOST_METADATA:
        raise ValueError(f"metadata has {len(metadata)} pairs: at most {MOST_METADATA} can be")
    for key, value in metadata.items():
        if not METADATA_KEY.fullmatch(key) or key.lower().startswith(_RESERVED_KEYS):
            raise ValueError(
                f"metadata's key {_shown(key)} is not of 1 to 128 letters, digits, - and _,"
                " or begins with consul- or cni-py-"
            )
        if "\0" in value or not value.isprintable() or not _fits(value):
            raise ValueError(
                f"metadata's {key} is not one line of at most {_MOST_VALUE_BYTES} bytes"
            )


def _fits(value: str) -> bool:
    # A surrogate that stands alone is not printable.
    return len(value.encode()) <= _MOST_VALUE_BYTES


def _shown(text: str) -> str:
    return f'"{ascii(text[:100])[1:-1]}"'
