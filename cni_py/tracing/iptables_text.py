"""Rules of iptables on a packet, from what `iptables -S` lists; pure.

The same for both variants: nftables' own listing does not say what a match of xtables looks for.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from .expressions import Unknown
from .nft import Chain
from .packet import Event, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .packet import Packet

# Of each table's base chains: hook, priority (linux/netfilter_ipv4.h), what it is for nftables.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT = {"PREROUTING": -100, "INPUT": 100, "OUTPUT": -100, "POSTROUTING": 100}
_HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
TABLES = ("raw", "mangle", "nat", "filter")
# Of iptables-nft in nftables' listing: this reads them.
NFT_TABLES = frozenset(
    (family, table) for family in ("ip", "ip6") for table in (*TABLES, "security")
)
_NO_EFFECT = frozenset(
    {"LOG", "NFLOG", "TRACE", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "CHECKSUM", "DSCP", "TOS",
     "CLASSIFY", "SET", "TTL", "HL", "CONNSECMARK", "AUDIT"}
)  # fmt: skip
_DECIDED = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject"}
_MOST_JUMPS = 64
_ECHO = {
    "new": ("8", "128", "echo-request"),
    "established": ("0", "129", "echo-reply", "pong"),
}


class Option(NamedTuple):
    """One condition: its name, whether it is negated, its values."""

    name: str
    negated: bool
    values: tuple[str, ...]


class Rule(NamedTuple):
    """One `-A` line."""

    text: str
    options: tuple[Option, ...]
    target: str = ""
    is_goto: bool = False
    arguments: tuple[Option, ...] = ()


class Table(NamedTuple):
    """One table: the policies of its base chains, and the rules of all chains, in order."""

    version: int
    name: str
    policies: dict[str, str]
    chains: dict[str, list[Rule]]


def parse(version: int, name: str, lines: Iterable[str]) -> Table:
    """A table from the lines of `iptables -S`."""
    table = Table(version, name, {}, {})
    for line in lines:
        words = _words(line)
        if len(words) < 2:
            continue
        table.chains.setdefault(words[1], [])
        if words[0] == "-P":
            table.policies[words[1]] = words[2].lower() if len(words) > 2 else "accept"
        elif words[0] == "-A":
            table.chains[words[1]].append(_rule(line, words[2:]))
    return table


def base_chains(table: Table) -> list[Chain]:
    """A table's base chains, in the place that nftables' would have."""
    found = []
    for name, hook in _HOOKS.items():
        if name in table.policies:
            priority = _NAT[name] if table.name == "nat" else _PRIORITIES.get(table.name, 0)
            if table.name == "mangle" and name == "OUTPUT":
                priority = -150
            family = "ip" if table.version == 4 else "ip6"
            kind = "nat" if table.name == "nat" else "filter"
            policy = table.policies[name]
            found.append(Chain(family, table.name, name, kind, hook, priority, policy))
    return found


def evaluate(
    table: Table, chain: Chain, packet: Packet, address_type: Callable[[str], str]
) -> Outcome:
    """What one base chain makes of a packet."""
    walk = _Walk(table, address_type)
    verdict, changed = walk.chain(chain.name, packet, 0)
    if verdict in ("", "return"):
        verdict = chain.policy
        if verdict == "drop":
            where = f"{walk.program} {table.name} {chain.name}"
            text = "its policy drops what no rule accepts"
            walk.events.append(Event("stop", where, f"-P {chain.name} DROP", text))
    return Outcome(verdict, changed, tuple(walk.events))


class _Walk:
    """One packet on its way through one base chain."""

    def __init__(self, table: Table, address_type: Callable[[str], str]) -> None:
        self._table, self._address_type = table, address_type
        self.program = "iptables" if table.version == 4 else "ip6tables"
        self.events: list[Event] = []

    def chain(self, name: str, packet: Packet, depth: int) -> tuple[str, Packet]:
        """The verdict, `""` at a chain's end, and what became of the packet."""
        if depth > _MOST_JUMPS:
            return "drop", packet
        for rule in self._table.chains.get(name, ()):
            verdict, packet = self._rule(name, rule, packet, depth)
            if verdict:
                return verdict, packet
        return "", packet

    def _rule(self, chain: str, rule: Rule, packet: Packet, depth: int) -> tuple[str, Packet]:
        doubts = []
        for option in rule.options:
            try:
                if _matches(option, packet, self._address_type) == option.negated:
                    return "", packet
            except Unknown as unknown:
                doubts.append(str(unknown))
            except (ValueError, IndexError):
                doubts.append(f"{option.name} {' '.join(option.values)}")
        if doubts:
            if rule.target and rule.target not in _NO_EFFECT:
                text = f"rule not understood: {', '.join(doubts)}; result uncertain"
                self._event("uncertain", chain, rule, text)
            return "", packet
        return self._target(chain, rule, packet, depth)

    def _target(self, chain: str, rule: Rule, packet: Packet, depth: int) -> tuple[str, Packet]:
        target = rule.target
        if not target or target in _NO_EFFECT:
            return "", packet
        if target in _DECIDED:
            verdict = _DECIDED[target]
            effect = "pass" if verdict == "accept" else "stop"
            said = {"accept": "accepts it", "drop": "drops it", "reject": "rejects it"}
            self._event(effect, chain, rule, said[verdict])
            return verdict, packet
        if target == "RETURN":
            return "return", packet
        if target in self._table.chains:
            verdict, changed = self.chain(target, packet, depth + 1)
            if rule.is_goto:
                return verdict or "return", changed
            return "" if verdict == "return" else verdict, changed
        try:
            return self._changed(chain, rule, packet)
        except (Unknown, ValueError) as error:
            text = f"rule not understood: {error}; result uncertain"
            self._event("uncertain", chain, rule, text)
            return "", packet

    def _changed(self, chain: str, rule: Rule, packet: Packet) -> tuple[str, Packet]:
        """By a target that changes the packet. Raises Unknown, ValueError."""
        given = {one.name: one.values for one in rule.arguments}
        if rule.target == "MARK":
            return "", packet._replace(mark=_marked(given, packet.mark))
        if rule.target == "MASQUERADE":
            self._event("pass", chain, rule, "masquerades it")
            return "accept", packet._replace(snat=True)
        if rule.target == "SNAT" and "--to-source" in given:
            address, _ = _address_and_port(given["--to-source"][0], packet.sport)
            self._event("pass", chain, rule, f"gives it the source {address}")
            return "accept", packet._replace(snat=True, source=ip_address(address))
        if rule.target == "DNAT" and "--to-destination" in given:
            address, port = _address_and_port(given["--to-destination"][0], packet.dport)
            to = ip_address(address)
            changed = packet._replace(dnat=True, destination=to, dport=port)
            self._event("pass", chain, rule, f"sends it on to {str(changed).partition(' -> ')[2]}")
            return "accept", changed
        raise Unknown(f"-j {rule.target}")

    def _event(self, effect: str, chain: str, rule: Rule, text: str) -> None:
        where = f"{self.program} {self._table.name} {chain}"
        self.events.append(Event(effect, where, rule.text, text))  # type: ignore[arg-type]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        # A comment with a line feed in it.
        return line.split()


_SHORT = {
    "-s": "--source",
    "-d": "--destination",
    "-i": "--in-interface",
    "-o": "--out-interface",
    "-p": "--protocol",
    "-f": "--fragment",
}


def _rule(line: str, words: list[str]) -> Rule:
    options: list[Option] = []
    target, is_goto, in_target, negated = "", False, False, False
    arguments: list[Option] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "!":
            negated = True
            continue
        values = []
        while position < len(words) and not _is_option(words[position]):
            values.append(words[position])
            position += 1
        if word in ("-j", "-g") and values:
            target, is_goto, in_target = values[0], word == "-g", True
        elif in_target:
            arguments.append(Option(word, negated, tuple(values)))
        elif word != "-m":
            options.append(Option(_SHORT.get(word, word), negated, tuple(values)))
        elif values and values[0] not in _KNOWN_MATCHES:
            options.append(Option(f"-m {values[0]}", negated=False, values=()))
        negated = False
    return Rule(line, tuple(options), target, is_goto, tuple(arguments))


def _is_option(word: str) -> bool:
    return word == "!" or (word.startswith("-") and not word[1:2].isdigit() and len(word) > 1)


_KNOWN_MATCHES = frozenset(
    {"comment", "tcp", "udp", "sctp", "icmp", "icmp6", "conntrack", "state", "mark", "multiport",
     "addrtype", "limit", "hashlimit"}
)  # fmt: skip


def _matches(option: Option, packet: Packet, address_type: Callable[[str], str]) -> bool:
    """Whether a condition holds, before it is negated. Raises Unknown."""
    if option.name in _IGNORED:
        # A first packet is within every limit.
        return not option.negated
    if option.name in _TYPES:
        end = packet.source if option.name == "--src-type" else packet.destination
        return address_type(str(end)) in option.values[0].lower().split(",")
    reader = _READERS.get(option.name)
    if reader is None or not option.values:
        if option.name == "--syn":
            return packet.protocol == "tcp"
        raise Unknown(option.name)
    return reader(option.values, packet)


_IGNORED = frozenset(
    {"--comment", "--limit", "--limit-burst", "--hashlimit-upto", "--hashlimit-burst",
     "--hashlimit-mode", "--hashlimit-name", "--hashlimit-srcmask"}
)  # fmt: skip
_TYPES = frozenset({"--src-type", "--dst-type"})


def _within(text: str, packet: Packet, *, source: bool) -> bool:
    address = packet.source if source else packet.destination
    network = ip_network(text, strict=False)
    return address.version == network.version and address in network


def _named(pattern: str, name: str) -> bool:
    if pattern.endswith("+"):
        return name.startswith(pattern[:-1])
    return name == pattern


def _is_protocol(values: tuple[str, ...], packet: Packet) -> bool:
    alike = {"ipv6-icmp": "icmpv6", "1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}
    alike |= {"132": "sctp", "icmp6": "icmpv6"}
    return alike.get(values[0], values[0]) in (packet.protocol, "all")


def _port(values: tuple[str, ...], number: int) -> bool:
    """One of `80`, `80:90`, `80,443`."""
    for part in values[0].split(","):
        first, colon, last = part.partition(":")
        low = int(first or 0)
        high = int(last or 65535) if colon else low
        if low <= number <= high:
            return True
    return False


def _has_mark(values: tuple[str, ...], mark: int) -> bool:
    value, _, mask = values[0].partition("/")
    return mark & int(mask or "0xffffffff", 0) == int(value, 0)


def _has_state(values: tuple[str, ...], packet: Packet) -> bool:
    states = {packet.state.upper(), *(["DNAT"] * packet.dnat), *(["SNAT"] * packet.snat)}
    return not states.isdisjoint(values[0].split(","))


def _has_flags(values: tuple[str, ...], packet: Packet) -> bool:
    """Of a SYN, or of the SYN and ACK that answer it."""
    has = {"SYN"} if packet.state == "new" else {"SYN", "ACK"}
    mask, wanted = (set(one.split(",")) - {"NONE"} for one in values[:2])
    return packet.protocol == "tcp" and (has if "ALL" in mask else has & mask) == wanted


def _is_echo(protocol: str, values: tuple[str, ...], packet: Packet) -> bool:
    kind = values[0].partition("/")[0]
    return packet.protocol == protocol and kind in (*_ECHO[packet.state], "any")


_READERS: Mapping[str, Callable[[tuple[str, ...], Packet], bool]] = {
    "--source": lambda values, packet: _within(values[0], packet, source=True),
    "--destination": lambda values, packet: _within(values[0], packet, source=False),
    "--in-interface": lambda values, packet: _named(values[0], packet.iif),
    "--out-interface": lambda values, packet: _named(values[0], packet.oif),
    "--protocol": _is_protocol,
    "--dport": lambda values, packet: _port(values, packet.dport),
    "--destination-port": lambda values, packet: _port(values, packet.dport),
    "--dports": lambda values, packet: _port(values, packet.dport),
    "--sport": lambda values, packet: _port(values, packet.sport),
    "--source-port": lambda values, packet: _port(values, packet.sport),
    "--sports": lambda values, packet: _port(values, packet.sport),
    "--mark": lambda values, packet: _has_mark(values, packet.mark),
    "--ctstate": _has_state,
    "--state": _has_state,
    "--tcp-flags": _has_flags,
    "--icmp-type": lambda values, packet: _is_echo("icmp", values, packet),
    "--icmpv6-type": lambda values, packet: _is_echo("icmpv6", values, packet),
}


def _marked(given: Mapping[str, tuple[str, ...]], mark: int) -> int:
    for name, values in given.items():
        value, _, mask = values[0].partition("/")
        number, bits = int(value, 0), int(mask or "0xffffffff", 0)
        if name == "--set-xmark":
            return (mark & ~bits & 0xFFFFFFFF) ^ number
        if name == "--set-mark":
            return (mark & ~bits & 0xFFFFFFFF) | number
        if name == "--or-mark":
            return mark | number
    raise Unknown("MARK")


def _address_and_port(text: str, port: int) -> tuple[str, int]:
    """Of `10.1.2.2:80`, `[fd00::2]:80`, or an address alone. Raises ValueError."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, int(rest.removeprefix(":") or port)
    if text.count(":") == 1:
        address, _, rest = text.partition(":")
        return address, int(rest)
    return text, port
