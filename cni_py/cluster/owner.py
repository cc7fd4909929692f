"""Whose a lease is: a node's identity, beside flannel's own keys in the lease's value; pure.

flannel goes by the public address alone, so that two nodes with one address share a lease without
knowing. It ignores keys that it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .flannel import FlannelError, parse_lease

if TYPE_CHECKING:
    from .flannel import NodeLease
    from .store import Record

_KEY = "CniPy"
_MOST_LETTERS = 255


class Owner(msgspec.Struct, frozen=True):
    """A node: its identity, which is made once and kept, and its host's name for people."""

    node: str = msgspec.field(name="Node")
    host: str = msgspec.field(name="Host", default="")

    def __str__(self) -> str:
        return f"{ascii(self.host)[1:-1]} ({ascii(self.node)[1:-1]})"


def encode(lease: NodeLease, owner: Owner) -> bytes:
    """The value of a lease's key."""
    value = msgspec.json.decode(lease.encode())
    return msgspec.json.encode(value | {_KEY: owner})


def owner_of(value: bytes) -> Owner | None:
    """Who wrote a lease; None where flannel did, or it cannot be read."""
    try:
        found = msgspec.convert(msgspec.json.decode(value)[_KEY], Owner)
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError, ValueError):
        return None
    return found if 0 < len(found.node) <= _MOST_LETTERS >= len(found.host) else None


def lease_in(record: Record, prefix: str) -> NodeLease | None:
    """The lease in a record; None where there is no sense in it."""
    try:
        return parse_lease(record.key.removeprefix(f"{prefix}/"), record.value)
    except FlannelError:
        return None


def shares_address(one: NodeLease, other: NodeLease) -> bool:
    """Whether two leases have a public address in common."""
    mine = {one.public_ip, one.public_ipv6} - {None}
    return bool(mine & {other.public_ip, other.public_ipv6})
