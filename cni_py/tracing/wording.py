"""Rules of nftables in nft(8)'s words, from libnftables' JSON; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = {"accept", "drop", "return", "continue", "masquerade", "notrack"}


def rule_text(rule: dict[str, Any]) -> str:
    """A rule as nft(8) lists it, nearly; with its comment."""
    text = " ".join(filter(None, map(_said, rule.get("expr", ()))))
    comment = rule.get("comment")
    return f'{text} comment "{comment}"' if comment else text


def _said(statement: dict[str, Any]) -> str:
    try:
        return _statement(statement)
    except (KeyError, TypeError, AttributeError, ValueError):
        # A form that is new: its kind is all that is known.
        return str(next(iter(statement), ""))


def _statement(statement: dict[str, Any]) -> str:
    (kind, what), *_ = statement.items()
    if kind == "match":
        op = {"==": "", "in": ""}.get(what["op"], what["op"])
        return " ".join(filter(None, (_value(what["left"]), op, _value(what["right"]))))
    if kind in _PLAIN:
        return str(kind)
    if kind in ("jump", "goto"):
        return f"{kind} {what['target']}"
    if kind in ("vmap", "map"):
        return f"{_value(what['key'])} {kind} {_value(what['data'])}"
    if kind in ("dnat", "snat", "redirect"):
        return _translation(kind, what or {})
    if kind == "mangle":
        return f"{_value(what['key'])} set {_value(what['value'])}"
    if kind in ("counter", "comment"):
        return str(kind) if kind == "counter" else ""
    if kind == "xt":
        return f"xt {what.get('type')} {what.get('name')}" if isinstance(what, dict) else "xt"
    return str(kind)


def _translation(kind: str, what: dict[str, Any]) -> str:
    family = f" {what['family']}" if "family" in what else ""
    address = f" to {_value(what['addr'])}" if "addr" in what else ""
    port = f":{_value(what['port'])}" if "port" in what else ""
    return f"{kind}{family}{address}{port}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if not isinstance(value, dict):
        return str(value)
    (kind, what), *_ = value.items()
    if kind in ("&", "|", "^", "<<", ">>"):
        return f" {kind} ".join(map(_value, what))
    return _WORDS[kind](what) if kind in _WORDS else _statement(value)


def _meta(what: dict[str, Any]) -> str:
    key = str(what["key"])
    return key if key in ("iif", "oif", "iifname", "oifname") else f"meta {key}"


def _fib(what: dict[str, Any]) -> str:
    flags = what["flags"] if isinstance(what["flags"], list) else [what["flags"]]
    return f"fib {' . '.join(flags)} {what['result']}"


_WORDS: dict[str, Callable[[Any], str]] = {
    "meta": _meta,
    "payload": lambda what: f"{what.get('protocol', 'raw')} {what.get('field', '')}",
    "ct": lambda what: f"ct {what['key']}",
    "fib": _fib,
    "concat": lambda what: " . ".join(map(_value, what)),
    "set": lambda what: "{ " + ", ".join(map(_element, what)) + " }",
    "prefix": lambda what: f"{what['addr']}/{what['len']}",
    "range": lambda what: "-".join(map(_value, what)),
    "map": lambda what: f"{_value(what['key'])} map {_value(what['data'])}",
    "elem": lambda what: _value(what["val"]),
}


def _element(one: Any) -> str:
    if isinstance(one, list):
        return " : ".join(map(_value, one))
    return _value(one)
