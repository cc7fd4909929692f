"""Policy rules (rtnetlink(7), RTM_*RULE; linux/fib_rules.h)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import ip_interface
from typing import TYPE_CHECKING, NamedTuple

from .errors import KernelError
from .netlink import CREATE, Netlink, Request, attribute, attributes

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP, Cidr

RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34

_SRC, _PRIORITY, _TABLE = 2, 6, 15
# What says no more than that nothing is suppressed, how the table is found, and who made it.
_SUPPRESS_PREFIXLEN, _PROTOCOL = 14, 21
_PLAIN = frozenset({_SRC, _PRIORITY, _TABLE, _SUPPRESS_PREFIXLEN, _PROTOCOL})
_SUPPRESS_NOTHING = b"\xff\xff\xff\xff"

_TO_TABLE = 1
_ONE_BYTE_TABLES = 256
_NLMSG_BYTES = 16
# family, dst_len, src_len, tos, table, res1, res2, action, flags
_HEADER = struct.Struct("=BBBBBxxBI")
_INVERT = 0x2
_U32 = struct.Struct("=I")


class Rule(NamedTuple):
    """A rule; `source` is None for any. A plain one looks at nothing but the source."""

    version: int
    source: Cidr | None
    table: int
    priority: int
    is_plain: bool


def from_address(address: IP, table: int) -> Request:
    """The request that adds a rule: what comes from `address` is looked up in `table`.

    The kernel puts it before the rules that there are.
    """
    message = _message(address, table)
    return Request(f"add rule from {address} lookup {table}", RTM_NEWRULE, message, CREATE)


def delete(rule: Rule) -> Request:
    """The request that takes a plain rule away, which may be gone."""
    source = rule.source
    if source is None:
        raise ValueError(rule)
    message = _message(source.ip, rule.table) + attribute(_PRIORITY, _U32.pack(rule.priority))
    what = f"remove rule from {source.ip} lookup {rule.table}"
    return Request(what, RTM_DELRULE, message, tolerate=frozenset({errno.ENOENT}))


def dump(netlink: Netlink) -> list[Rule]:
    """The rules of both IP versions; IPv6 may be off.

    Raises KernelError, with EOPNOTSUPP in a kernel without rules.
    """
    found = []
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        message = _HEADER.pack(family, 0, 0, 0, 0, 0, 0)
        try:
            bodies = netlink.dump(Request("list the rules", RTM_GETRULE, message))
        except KernelError as error:
            if version == 6 and error.errno == errno.EAFNOSUPPORT:
                continue
            raise
        found += [_rule(version, body) for body in bodies]
    return found


def _rule(version: int, body: bytes) -> Rule:
    _, to, length, tos, table, action, flags = _HEADER.unpack_from(body, _NLMSG_BYTES)
    have = attributes(body, _NLMSG_BYTES + _HEADER.size)
    plain = action == _TO_TABLE and not (to or tos or flags & _INVERT) and _PLAIN.issuperset(have)
    suppressed = have.get(_SUPPRESS_PREFIXLEN, _SUPPRESS_NOTHING) != _SUPPRESS_NOTHING
    return Rule(
        version,
        ip_interface((have[_SRC], length)) if _SRC in have else None,
        _number(have.get(_TABLE)) or table,
        _number(have.get(_PRIORITY)),
        plain and not suppressed,
    )


def _message(source: IP, table: int) -> bytes:
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    short = table if table < _ONE_BYTE_TABLES else 0
    header = _HEADER.pack(family, 0, source.max_prefixlen, 0, short, _TO_TABLE, 0)
    return header + attribute(_SRC, source.packed) + attribute(_TABLE, _U32.pack(table))


def _number(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value, sys.byteorder)
