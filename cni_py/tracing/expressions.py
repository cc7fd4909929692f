"""Expressions of nftables (libnftables-json(5)) on a packet; pure.

What is not understood is Unknown: a comparison with it is neither true nor false.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .packet import Packet

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_ECHO = {"new": "echo-request", "established": "echo-reply"}
_BITS = ("&", "|", "^", "<<", ">>")
_TRANSPORTS = ("th", "tcp", "udp", "sctp")


class Unknown(Exception):  # noqa: N818 - it is no error, but an answer
    """What an expression is worth cannot be told: the text says why."""


class Absent(Exception):  # noqa: N818
    """The packet has no such thing: a rule that looks at it does not match."""


class Surroundings(NamedTuple):
    """What rules ask beside the packet.

    `address_type` is the kernel's for an address: local, unicast, broadcast, multicast...
    `sets` are the elements of a table's sets and maps by (family, table, name). `kinds` are the
    kinds of links by name.
    """

    address_type: Callable[[str], str]
    sets: Mapping[tuple[str, str, str], list[Any]]
    kinds: Mapping[str, str]


class Expressions:
    """Evaluates the expressions of one table's rules."""

    def __init__(self, family: str, table: str, around: Surroundings) -> None:
        self._family, self._table, self._around = family, table, around

    def matches(self, statement: dict[str, Any], packet: Packet) -> bool:
        """Whether a `match` holds. Raises Unknown."""
        op, right = statement["op"], statement["right"]
        try:
            left = self.value(statement["left"], packet)
        except Absent:
            return False
        if op == "in":
            return _has_flags(left, right)
        if op in ("==", "!="):
            return self._is_among(left, right) is (op == "==")
        return _compared(op, left, right)

    def looked_up(self, key: Any, data: Any, packet: Packet) -> Any:
        """What a map or verdict map has for a key; None without. Raises Unknown."""
        try:
            value = self.value(key, packet)
        except Absent:
            return None
        for one, its in self._elements(data):
            if self._is_among(value, one):
                return its
        return None

    def value(self, expression: Any, packet: Packet) -> Any:
        """An expression's value. Raises Unknown, Absent."""
        if not isinstance(expression, dict):
            return _plain(expression)
        (kind, what), *_ = expression.items()
        if kind in _BITS:
            return self._bits(kind, what, packet)
        readers: dict[str, Callable[[Any, Packet], Any]] = {
            "meta": self._meta,
            "payload": _payload,
            "ct": _tracked,
            "fib": self._fib,
            "concat": self._concatenated,
            "map": self._mapped,
        }
        if kind not in readers:
            raise Unknown(kind)
        return readers[kind](what, packet)

    def _concatenated(self, what: list[Any], packet: Packet) -> tuple[Any, ...]:
        return tuple(self.value(one, packet) for one in what)

    def _mapped(self, what: dict[str, Any], packet: Packet) -> Any:
        found = self.looked_up(what["key"], what["data"], packet)
        if found is None:
            raise Absent
        return _constant(found)

    def _meta(self, what: dict[str, Any], packet: Packet) -> Any:
        key = what["key"]
        values = {
            "iifname": packet.iif,
            "oifname": packet.oif,
            "iif": packet.iif,
            "oif": packet.oif,
            "l4proto": packet.protocol,
            "nfproto": f"ipv{packet.version}",
            "protocol": packet.family,
            "mark": packet.mark,
        }
        if key in ("iifkind", "oifkind"):
            name = packet.iif if key == "iifkind" else packet.oif
            return self._around.kinds.get(name, "")
        if key in ("iif", "oif") and not values[key]:
            raise Absent
        if key not in values:
            raise Unknown(f"meta {key}")
        return values[key]

    def _fib(self, what: dict[str, Any], packet: Packet) -> str:
        flags = what.get("flags")
        flags = [flags] if isinstance(flags, str) else flags or []
        if what.get("result") != "type" or set(flags) - {"daddr", "saddr"}:
            raise Unknown(f"fib {' . '.join(flags)} {what.get('result')}")
        return self._around.address_type(
            str(packet.destination if "daddr" in flags else packet.source)
        )

    def _bits(self, op: str, what: list[Any], packet: Packet) -> Any:
        if op == "|" and all(isinstance(one, str) for one in what):
            return frozenset(what)
        left, right = (self.value(one, packet) for one in what)
        if op == "&" and isinstance(left, frozenset):
            return left & frozenset([right] if isinstance(right, str) else right)
        if not isinstance(left, int) or not isinstance(right, int):
            raise Unknown(f"{op} of what are no numbers")
        results = {
            "&": left & right,
            "|": left | right,
            "^": left ^ right,
            "<<": left << min(right, 64),
            ">>": left >> min(right, 64),
        }
        return results[op]

    def _elements(self, data: Any) -> list[Any]:
        """The (key, data) pairs of a map."""
        if isinstance(data, str) and data.startswith("@"):
            return [(_bare(one[0]), one[1]) for one in self._set(data[1:])]
        if isinstance(data, dict) and "set" in data:
            return [(_bare(one[0]), one[1]) for one in data["set"]]
        raise Unknown(f"map {data}")

    def _set(self, name: str) -> list[Any]:
        try:
            return self._around.sets[self._family, self._table, name]
        except KeyError:
            raise Unknown(f"set {name}") from None

    def _is_among(self, value: Any, right: Any) -> bool:
        """Whether a value is what stands on the right: a constant, a range, or in a set."""
        if isinstance(right, str) and right.startswith("@"):
            return any(self._is_among(value, _bare(one)) for one in self._set(right[1:]))
        if isinstance(right, dict) and "set" in right:
            return any(self._is_among(value, _bare(one)) for one in right["set"])
        if isinstance(right, dict) and "concat" in right:
            parts = right["concat"]
            if not isinstance(value, tuple) or len(value) != len(parts):
                raise Unknown("concatenations of different lengths")
            return all(self._is_among(one, its) for one, its in zip(value, parts, strict=True))
        if isinstance(right, dict) and "range" in right:
            first, last = map(_constant, right["range"])
            return bool(_ordered(value, first) >= 0 and _ordered(value, last) <= 0)
        if isinstance(right, dict) and "prefix" in right:
            network = ip_network((right["prefix"]["addr"], right["prefix"]["len"]), strict=False)
            return _is_address(value) and value in network
        if isinstance(right, list):
            return any(self._is_among(value, one) for one in right)
        return _equal(value, _constant(right))


def _payload(what: dict[str, Any], packet: Packet) -> Any:
    protocol, field = what.get("protocol"), what.get("field")
    fields: dict[str, Any] = {}
    if protocol in ("ip", "ip6"):
        if protocol != packet.family:
            raise Absent
        fields = {
            "saddr": packet.source,
            "daddr": packet.destination,
            "protocol": packet.protocol,
            "nexthdr": packet.protocol,
            "version": packet.version,
        }
    elif protocol in _TRANSPORTS:
        if not packet.has_ports or protocol not in ("th", packet.protocol):
            raise Absent
        flags = {"syn"} if packet.state == "new" else {"syn", "ack"}
        fields = {"sport": packet.sport, "dport": packet.dport, "flags": frozenset(flags)}
    elif protocol == "ether":
        fields = {"saddr": packet.mac} if packet.mac else {}
    elif protocol in ("icmp", "icmpv6"):
        if protocol != packet.protocol:
            raise Absent
        fields = {"type": _ECHO[packet.state], "code": 0}
    if field not in fields:
        raise Unknown(f"{protocol} {field}")
    return fields[str(field)]


def _tracked(what: dict[str, Any], packet: Packet) -> Any:
    """Of a connection that has just begun."""
    key = what.get("key")
    if key == "state":
        return packet.state
    if key == "status":
        flags = {"dnat": packet.dnat, "snat": packet.snat}
        return frozenset(name for name, is_set in flags.items() if is_set)
    if key == "mark":
        return packet.ct_mark
    if key == "direction":
        return "original" if packet.state == "new" else "reply"
    raise Unknown(f"ct {key}")


def _has_flags(left: Any, right: Any) -> bool:
    wanted = right if isinstance(right, list) else [right]
    if isinstance(left, frozenset):
        return any(one in left for one in wanted)
    if isinstance(left, str):
        return left in wanted
    raise Unknown(f"in {right}")


def _compared(op: str, left: Any, right: Any) -> bool:
    order = _ordered(left, _constant(right))
    results = {"<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}
    if op not in results:
        raise Unknown(f"the operator {op}")
    return results[op]


def _ordered(left: Any, right: Any) -> int:
    """Below, at or above 0, as `left` is below, at or above `right`."""
    if _is_address(left) and _is_address(right) and left.version == right.version:
        return int(left) - int(right)
    if isinstance(left, int) and isinstance(right, int):
        return left - right
    if _is_address(left) and _is_address(right):
        return -1
    raise Unknown("an order of what has none")


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, frozenset):
        return left == frozenset({right} if isinstance(right, str) else right)
    if isinstance(left, tuple) != isinstance(right, tuple):
        raise Unknown(f"a comparison with {right}")
    if isinstance(left, str) and isinstance(right, str) and right.endswith("*"):
        return left.startswith(right[:-1])
    if isinstance(left, str) and isinstance(right, int):
        return left == _PROTOCOLS.get(right, right)
    if isinstance(left, str) and right == "ipv6-icmp":
        return left == "icmpv6"
    return bool(left == right)


def _bare(element: Any) -> Any:
    """An element without its comment, timeout and counter."""
    if isinstance(element, dict) and "elem" in element:
        return element["elem"]["val"]
    return element


def _constant(value: Any) -> Any:
    value = _bare(value)
    if isinstance(value, dict):
        if "concat" in value:
            return tuple(_constant(one) for one in value["concat"])
        raise Unknown(next(iter(value)))
    if isinstance(value, list):
        return [_constant(one) for one in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    """A constant: an address where it is written as one."""
    if isinstance(value, str):
        try:
            return ip_address(value)
        except ValueError:
            return value
    return value


def _is_address(value: Any) -> bool:
    return isinstance(value, (IPv4Address, IPv6Address))
