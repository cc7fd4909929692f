"""A ruleset of nftables on a packet, as libnftables lists it; pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from .expressions import Absent, Expressions, Surroundings, Unknown
from .packet import Event, Outcome
from .wording import rule_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .packet import Packet

_NO_EFFECT = frozenset(
    {"counter", "log", "limit", "quota", "flow", "set", "notrack", "comment", "last", "ct timeout",
     "ct helper", "meter", "map"}
)  # fmt: skip
_VERDICTS = frozenset({"accept", "drop", "return", "continue", "jump", "goto", "queue"})
_MOST_JUMPS = 16


class Chain(NamedTuple):
    """A base chain."""

    family: str
    table: str
    name: str
    type: str
    hook: str
    priority: int
    policy: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class _Ended(NamedTuple):
    """How a chain ended: a verdict that is final for the base chain, or "" for its end."""

    verdict: str
    packet: Packet


class Ruleset:
    """The tables of a namespace; `without` are (family, table) that something else evaluates."""

    def __init__(
        self,
        objects: list[dict[str, Any]],
        address_type: Callable[[str], str],
        kinds: Mapping[str, str],
        without: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self._rules: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        self.base: list[Chain] = []
        sets: dict[tuple[str, str, str], list[Any]] = {}
        for one in objects:
            (kind, value), *_ = one.items()
            place = (value.get("family"), value.get("table"))
            if place in without:
                continue
            if kind == "chain" and "hook" in value:
                self.base.append(_chain(value))
            elif kind == "rule":
                self._rules.setdefault((*place, value["chain"]), []).append(value)
            elif kind in ("set", "map"):
                sets[(*place, value["name"])] = value.get("elem", [])
        self.base.sort(key=lambda one: one.priority)
        self._around = Surroundings(address_type, sets, kinds)

    def chains(self, hook: str, family: str) -> list[Chain]:
        """The base chains that an `ip` or `ip6` packet meets at a hook, in order."""
        return [one for one in self.base if one.hook == hook and one.family in (family, "inet")]

    def bridge_chains(self, hook: str) -> list[Chain]:
        """Those that a bridged frame meets."""
        return [one for one in self.base if one.hook == hook and one.family == "bridge"]

    def evaluate(self, chain: Chain, packet: Packet) -> Outcome:
        """What one base chain makes of a packet."""
        walk = _Walk(self._rules, Expressions(chain.family, chain.table, self._around), chain)
        ended = walk.chain(chain.name, packet, 0)
        verdict = ended.verdict
        if verdict in ("", "return"):
            verdict = chain.policy
            if verdict == "drop":
                text = "its policy drops what no rule accepts"
                walk.events.append(Event("stop", str(chain), "policy drop", text))
        return Outcome(verdict, ended.packet, tuple(walk.events))


class _Walk:
    """One packet on its way through one base chain."""

    def __init__(
        self,
        rules: Mapping[tuple[str, str, str], list[dict[str, Any]]],
        expressions: Expressions,
        base: Chain,
    ) -> None:
        self._rules, self._expressions, self._base = rules, expressions, base
        self.events: list[Event] = []

    def chain(self, name: str, packet: Packet, depth: int) -> _Ended:
        """Follow a chain to its end."""
        if depth > _MOST_JUMPS:
            return _Ended("drop", packet)
        for rule in self._rules.get((self._base.family, self._base.table, name), ()):
            ended = self._rule(rule, packet, depth)
            packet = ended.packet
            if ended.verdict:
                return ended
        return _Ended("", packet)

    def _rule(self, rule: dict[str, Any], packet: Packet, depth: int) -> _Ended:
        doubts: list[str] = []
        for statement in rule.get("expr", ()):
            (kind, what), *_ = statement.items()
            if doubts and kind != "match":
                # What it would do, it may not do.
                continue
            try:
                ended = self._step(rule, kind, what, packet, depth)
            except Unknown as unknown:
                doubts.append(str(unknown))
                continue
            except (KeyError, TypeError, AttributeError, ValueError):
                # A form that this library's documentation does not have.
                doubts.append(str(kind))
                continue
            if ended is None:
                return _Ended("", packet)
            packet = ended.packet
            if ended.verdict:
                return ended
        if doubts and any(map(_matters, rule.get("expr", ()))):
            text = f"rule not understood: {', '.join(doubts)}; result uncertain"
            self._event("uncertain", rule, text)
        return _Ended("", packet)

    def _step(
        self, rule: dict[str, Any], kind: str, what: Any, packet: Packet, depth: int
    ) -> _Ended | None:
        """One statement; None where the rule is not for the packet. Raises Unknown."""
        if kind in _NO_EFFECT:
            return None if _is_of_excess(kind, what) else _Ended("", packet)
        try:
            if kind == "match":
                return _Ended("", packet) if self._expressions.matches(what, packet) else None
            return self._statement(rule, kind, what, packet, depth)
        except Absent:
            return None

    def _statement(
        self, rule: dict[str, Any], kind: str, what: Any, packet: Packet, depth: int
    ) -> _Ended | None:
        """What one statement does; None where nothing is found."""
        if kind == "vmap":
            verdict = self._expressions.looked_up(what["key"], what["data"], packet)
            if verdict is None:
                return None
            ((kind, what),) = verdict.items()
        if kind in _VERDICTS:
            return self._verdict(rule, kind, what, packet, depth)
        if kind == "reject":
            self._event("stop", rule, "rejects it")
            return _Ended("reject", packet)
        if kind in ("dnat", "snat", "masquerade", "redirect"):
            return self._translated(rule, kind, what or {}, packet)
        if kind == "mangle":
            return _Ended("", self._mangled(what, packet))
        raise Unknown(kind)

    def _verdict(
        self, rule: dict[str, Any], kind: str, what: Any, packet: Packet, depth: int
    ) -> _Ended:
        if kind in ("jump", "goto"):
            ended = self.chain(what["target"], packet, depth + 1)
            if kind == "goto" and ended.verdict in ("", "return"):
                # Whoever jumped here goes on; this chain does not.
                return _Ended("return", ended.packet)
            return _Ended("" if ended.verdict == "return" else ended.verdict, ended.packet)
        if kind == "accept":
            self._event("pass", rule, "accepts it")
        elif kind == "drop":
            self._event("stop", rule, "drops it")
        elif kind == "queue":
            self._event("uncertain", rule, "hands it to a program, which decides")
            return _Ended("accept", packet)
        return _Ended("" if kind == "continue" else kind, packet)

    def _translated(
        self, rule: dict[str, Any], kind: str, what: dict[str, Any], packet: Packet
    ) -> _Ended:
        """Address and port are given as they are, or by a map."""
        if what.get("family") not in (None, packet.family):
            return _Ended("", packet)
        address, port = None, None
        if "addr" in what:
            value = self._expressions.value(what["addr"], packet)
            address, port = value if isinstance(value, tuple) else (value, None)
        if "port" in what:
            port = self._expressions.value(what["port"], packet)
        if not isinstance(port, int | None):
            raise Unknown("a range of ports")
        if kind in ("dnat", "redirect"):
            changed = packet._replace(dnat=True, dport=packet.dport if port is None else port)
            if kind == "dnat" and address is not None:
                changed = changed._replace(destination=ip_address(str(address)))
            if kind == "redirect":
                raise Unknown("redirect")
            self._event("pass", rule, f"sends it on to {_end(changed)}")
        else:
            # masquerade: the address is known once it is known where it leaves.
            changed = packet._replace(snat=True)
            if address is not None:
                changed = changed._replace(source=ip_address(str(address)))
            named = "masquerades it" if address is None else f"gives it the source {address}"
            self._event("pass", rule, named)
        return _Ended("accept", changed)

    def _mangled(self, what: dict[str, Any], packet: Packet) -> Packet:
        key, value = what["key"], self._expressions.value(what["value"], packet)
        if key == {"meta": {"key": "mark"}}:
            return packet._replace(mark=value)
        if key == {"ct": {"key": "mark"}}:
            return packet._replace(ct_mark=value)
        if key == {"meta": {"key": "nftrace"}}:
            return packet
        raise Unknown(f"a change of {key}")

    def _event(self, effect: Any, rule: dict[str, Any], text: str) -> None:
        base = self._base
        where = f"{base.family} {base.table} {rule['chain']} handle {rule.get('handle', '?')}"
        self.events.append(Event(effect, where, rule_text(rule), text))


def _chain(value: dict[str, Any]) -> Chain:
    return Chain(
        value["family"],
        value["table"],
        value["name"],
        value.get("type", "filter"),
        value["hook"],
        value.get("prio", 0),
        value.get("policy", "accept"),
    )


def _matters(statement: dict[str, Any]) -> bool:
    """Whether it decides or changes something."""
    return next(iter(statement)) not in _NO_EFFECT | {"match", "xt"}


def _end(packet: Packet) -> str:
    return str(packet).partition(" -> ")[2]


def all_rules(objects: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, str, int], str]]:
    """((family, table, handle), text) of every rule."""
    for rule in (one["rule"] for one in objects if "rule" in one):
        yield (rule["family"], rule["table"], rule["handle"]), rule_text(rule)


def _is_of_excess(kind: str, what: Any) -> bool:
    """Whether a statement holds only for what is over a limit, as a first packet never is.

    Raises Unknown: how much of a quota is used up is not looked at.
    """
    if not isinstance(what, dict):
        return False
    if kind == "quota" and what.get("inv"):
        raise Unknown("quota over")
    if kind == "limit":
        return bool(what.get("inv"))
    own = what.get("stmt", ())
    # Of each element of a set.
    statements = [own] if isinstance(own, dict) else own
    return any(_is_of_excess(*next(iter(one.items()))) for one in statements)
