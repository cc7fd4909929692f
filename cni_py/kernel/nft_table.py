"""Our tables of nftables: the commands for what is in them, in libnftables' JSON form.

Whose an element is, its comment says.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import KernelError
from .netlink import Netlink, Request, attribute
from .nftables import COMMENT_BYTES

if TYPE_CHECKING:
    from cni_py.spec.attachment import Attachment

    from .nftables import Command, Nftables

_NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink.h and nf_tables.h
_GET_CHAIN = (10 << 8) | 4
_FAMILIES = {"inet": 1, "bridge": 7}
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_NFGENMSG = struct.Struct("=BBH")

PROTOCOL = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


class Table(NamedTuple):
    """A table by its family and name."""

    family: str
    name: str

    def __str__(self) -> str:
        """As nft(8) writes it."""
        return f"{self.family} {self.name}"

    def add(self) -> Command:
        """The command that makes the table, or finds that it is there."""
        return {"add": {"table": {"family": self.family, "name": self.name}}}

    def named(self, name: str) -> dict[str, Any]:
        """A chain, set or map of the table."""
        return {"family": self.family, "table": self.name, "name": name}

    def hook(self, name: str, kind: str, hook: str, priority: int) -> dict[str, Any]:
        """A chain that packets come to by themselves."""
        chain = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        return {**self.named(name), **chain}

    def rule(self, chain: str, *statements: dict[str, Any]) -> Command:
        """The command that adds a rule."""
        where = {"family": self.family, "table": self.name, "chain": chain}
        return {"add": {"rule": {**where, "expr": list(statements)}}}

    def element(self, verb: str, name: str, value: Any) -> Command:
        """The command for an element of a set or map: its key, or what `labelled` makes of it."""
        return {verb: {"element": {**self.named(name), "elem": [value]}}}

    def listing(self, nft: Nftables, name: str, key: str) -> str | None:
        """The listing of one element, whose key is as nft(8) writes it; None without one."""
        return nft.element(str(self), name, key)

    def elements(self, nft: Nftables, kind: str, name: str) -> list[tuple[Any, str]]:
        """The (key, comment) of each element of a `set` or `map` that has a comment's room."""
        listed = nft.listed(f"list the {kind} {name}", {"list": {kind: self.named(name)}}) or ()
        found = []
        for one in (one for item in listed for one in item.get(kind, {}).get("elem", ())):
            key = one[0] if kind == "map" else one
            if isinstance(key, dict) and "elem" in key:
                found.append((key["elem"]["val"], key["elem"].get("comment", "")))
            else:
                found.append((key, ""))
        return found

    def delete_element(self, nft: Nftables, what: str, name: str, key: Any) -> None:
        """Delete an element, unless another DEL was faster. Raises KernelError."""
        try:
            nft.apply(what, self.element("delete", name, key))
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise


INET, BRIDGE = Table("inet", "cni_py"), Table("bridge", "cni_py")


def has_chain(table: Table, chain: str) -> bool:
    """Whether the table is there and has the chain. Raises KernelError.

    The kernel itself is asked: libnftables reads all of a table first, with every container's
    elements.
    """
    message = _NFGENMSG.pack(_FAMILIES[table.family], 0, 0)
    for kind, name in ((_CHAIN_TABLE, table.name), (_CHAIN_NAME, chain)):
        message += attribute(kind, name.encode() + b"\0")
    what = f"look up chain {chain} of {table}"
    wanted = Request(what, _GET_CHAIN, message, tolerate=frozenset({errno.ENOENT}))
    with Netlink(protocol=_NETLINK_NETFILTER) as netlink:
        return netlink.get(wanted) is not None


def labelled(key: Any, owner: Attachment) -> dict[str, Any]:
    """An element's key with its owner as the comment."""
    return {"elem": {"val": key, "comment": owner.label(COMMENT_BYTES)}}


def is_of(listing: str | None, key: str) -> bool:
    """Whether a listing is of an element whose owner has the key."""
    return listing is not None and f'comment "{key}' in listing


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    """A comparison."""
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    """What the kernel knows beside the packet."""
    return {"meta": {"key": key}}


def field(version: int, name: str) -> dict[str, Any]:
    """A field of the IPv4 or IPv6 header."""
    return {"payload": {"protocol": PROTOCOL[version], "field": name}}
