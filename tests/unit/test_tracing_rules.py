"""The evaluators of nftables' and iptables' rules: one test a kind of expression."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.tracing import iptables_text
from cni_py.tracing.nft import Ruleset
from cni_py.tracing.packet import EPHEMERAL_PORT, Outcome, Packet

SYN = Packet(
    ip_address("10.1.2.2"),
    ip_address("10.9.0.2"),
    "tcp",
    EPHEMERAL_PORT,
    80,
    iif="cni0",
    oif="eth1",
)
SIX = SYN._replace(source=ip_address("fd00:1::2"), destination=ip_address("fd00:9::2"))
ECHO = SYN._replace(protocol="icmp", sport=0, dport=0)
TABLE = {"family": "inet", "table": "t"}


def local(address: str) -> str:
    return "local" if address in ("10.9.0.1", "127.0.0.1") else "unicast"


def chain(policy: str = "accept", hook: str = "forward", kind: str = "filter") -> dict[str, Any]:
    base = {"name": "c", "type": kind, "hook": hook, "prio": 0, "policy": policy}
    return {"chain": TABLE | base}


def rule(*statements: dict[str, Any], chain: str = "c", handle: int = 1) -> dict[str, Any]:
    return {"rule": TABLE | {"chain": chain, "handle": handle, "expr": list(statements)}}


def named(kind: str, name: str, elements: list[Any]) -> dict[str, Any]:
    return {kind: TABLE | {"name": name, "elem": elements}}


def judge(packet: Packet, *objects: dict[str, Any]) -> Outcome:
    base = () if "chain" in objects[0] else (chain(),)
    ruleset = Ruleset([*base, *objects], local, {"cni0": "bridge"})
    (first,) = ruleset.base
    return ruleset.evaluate(first, packet)


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def ct(key: str) -> dict[str, Any]:
    return {"ct": {"key": key}}


MAC = "02:00:00:00:00:01"
DROP: dict[str, Any] = {"drop": None}
DPORT, SADDR, DADDR = payload("tcp", "dport"), payload("ip", "saddr"), payload("ip", "daddr")
FLAGS = payload("tcp", "flags")
PREFIX = {"prefix": {"addr": "10.0.0.0", "len": 8}}
CONCAT = {"concat": [SADDR, DPORT]}
ANSWER = SYN.answer()


@pytest.mark.parametrize(
    ("packet", "expression", "matches"),
    [
        (SYN, match(meta("iifname"), "cni0"), True),
        (SYN, match(meta("iifname"), "cni*"), True),
        (SYN, match(meta("iif"), "cni1"), False),
        (SYN, match(meta("oifname"), {"set": ["eth0", "eth1"]}), True),
        (SYN, match(meta("oifname"), "eth1", "!="), False),
        (SYN, match(meta("l4proto"), {"set": ["udp", "tcp"]}), True),
        (SYN, match(meta("l4proto"), 6), True),
        (SIX, match(meta("nfproto"), "ipv4"), False),
        (SIX, match(meta("protocol"), "ip6"), True),
        (SYN._replace(mark=0x2001), match({"&": [meta("mark"), 0x2000]}, 0x2000), True),
        (SYN, match(meta("mark"), 0, "!="), False),
        (SYN, match(meta("iifkind"), "bridge"), True),
        (SYN, match(SADDR, PREFIX), True),
        (SIX, match(SADDR, PREFIX), False),
        (SIX, match(SADDR, PREFIX, "!="), False),
        (SYN, match(DADDR, {"range": ["10.9.0.0", "10.9.0.1"]}), False),
        (SIX, match(payload("ip6", "daddr"), "fd00:9::2"), True),
        (SYN, match(payload("ip", "protocol"), "udp"), False),
        (SYN, match(DPORT, {"set": [22, {"range": [80, 90]}]}), True),
        (SYN, match(DPORT, 1024, "<"), True),
        (SYN._replace(protocol="udp"), match(DPORT, 80), False),
        (SYN._replace(protocol="udp"), match(payload("th", "dport"), 80), True),
        (ECHO, match(payload("th", "dport"), 0), False),
        (SYN, match(payload("tcp", "sport"), {"range": [1024, 65535]}), True),
        (ECHO, match(payload("icmp", "type"), "echo-request"), True),
        (SYN, match(ct("state"), ["established", "related"], "in"), False),
        (ANSWER, match(ct("state"), ["established", "related"], "in"), True),
        (SYN, match(ct("state"), "new", "in"), True),
        (SYN, match(ct("state"), {"set": ["new", "untracked"]}), True),
        (SYN, match(ct("status"), "dnat", "in"), False),
        (SYN._replace(dnat=True), match(ct("status"), "dnat", "in"), True),
        (ANSWER, match(ct("direction"), "reply"), True),
        (SYN, match(FLAGS, "syn", "in"), True),
        (SYN, match({"&": [FLAGS, {"|": ["fin", "syn", "rst", "ack"]}]}, "syn"), True),
        (ANSWER, match({"&": [FLAGS, {"|": ["fin", "syn", "rst", "ack"]}]}, "syn"), False),
        (SYN, match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), False),
        (
            SYN._replace(destination=ip_address("10.9.0.1")),
            match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
            True,
        ),
        (SYN, match(CONCAT, {"set": [{"concat": ["10.1.2.2", 80]}]}), True),
        (SYN, match(CONCAT, {"set": [{"concat": [PREFIX, {"range": [81, 90]}]}]}), False),
        (SYN._replace(mac=MAC), match(payload("ether", "saddr"), MAC), True),
    ],
)  # fmt: skip
def test_matches(packet: Packet, expression: dict[str, Any], matches: bool) -> None:
    outcome = judge(packet, rule(expression, DROP))
    assert outcome.passes != matches
    assert [one.effect for one in outcome.events] == (["stop"] if matches else [])


@pytest.mark.parametrize(
    "expression",
    [
        match(payload("ip", "ttl"), 1),
        match(meta("cgroup"), 1),
        match({"socket": {"key": "mark"}}, 1),
        match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False),
        match(DPORT, "@nowhere"),
        match({"payload": {"base": "ll", "offset": 0, "len": 8}}, 1),
        {"xt": {"type": "match", "name": "conntrack"}},
    ],
)
def test_what_is_not_understood(expression: dict[str, Any]) -> None:
    """It is said, and decides nothing; unless the rule is not for the packet anyhow."""
    outcome = judge(SYN, rule(expression, DROP))
    assert outcome.passes
    (event,) = outcome.events
    assert event.effect == "uncertain"
    assert event.text.startswith("rule not understood: ")
    assert event.where == "inet t c handle 1"
    for order in ((expression, match(DPORT, 22)), (match(DPORT, 22), expression)):
        assert judge(SYN, rule(*order, DROP)).events == ()
    assert judge(SYN, rule(expression, {"counter": {"packets": 1, "bytes": 2}})).events == ()


OVER = {"limit": {"rate": 10, "burst": 5, "per": "second", "inv": True}}
UPDATE = {"op": "add", "elem": SADDR, "set": "@s"}


@pytest.mark.parametrize(
    ("statement", "verdict", "effects"),
    [
        (OVER, "accept", []),
        ({"limit": {"rate": 10, "burst": 5, "per": "second"}}, "drop", ["stop"]),
        ({"set": {**UPDATE, "stmt": [OVER]}}, "accept", []),
        ({"set": UPDATE}, "drop", ["stop"]),
        ({"quota": {"val": 10, "val_unit": "mbytes", "inv": True}}, "accept", ["uncertain"]),
    ],
)
def test_limits(statement: dict[str, Any], verdict: str, effects: list[str]) -> None:
    """A first packet is within every limit: what is for those over it is not for this one."""
    outcome = judge(SYN, rule(statement, DROP))
    assert (outcome.verdict, [one.effect for one in outcome.events]) == (verdict, effects)


def test_sets_and_maps() -> None:
    commented = {"elem": {"val": "10.1.2.2", "comment": "x", "timeout": 9}}
    assert not judge(SYN, named("set", "s", [commented]), rule(match(SADDR, "@s"), DROP)).passes
    assert judge(SIX, named("set", "s", [commented]), rule(match(SADDR, "@s"), DROP)).passes
    verdicts = named("map", "v", [[{"concat": ["10.1.2.2", 80]}, DROP]])
    assert not judge(SYN, verdicts, rule({"vmap": {"key": CONCAT, "data": "@v"}})).passes
    other = SYN._replace(dport=81)
    assert judge(other, verdicts, rule({"vmap": {"key": CONCAT, "data": "@v"}})).passes


def test_chains() -> None:
    """jump comes back, goto does not, return ends a chain; accept ends the base chain alone."""
    after = rule(DROP, handle=9)
    empty = {"chain": TABLE | {"name": "x"}}
    jump = rule({"jump": {"target": "x"}})
    goto = rule({"goto": {"target": "x"}})
    back = rule({"return": None}, chain="x", handle=2)
    accepts = rule({"accept": None}, chain="x", handle=3)
    assert not judge(SYN, jump, empty, after).passes
    assert judge(SYN, goto, empty, after).passes
    assert not judge(SYN, jump, back, accepts, after).passes
    assert judge(SYN, jump, accepts, after).passes
    assert not judge(SYN, chain("drop"), goto, back).passes
    assert judge(SYN, goto, back, after).passes
    assert judge(SYN, chain("drop"), rule({"return": None})).verdict == "drop"
    round_and_round = rule({"jump": {"target": "c"}})
    assert judge(SYN, round_and_round).verdict == "drop"


def test_policy_and_reject() -> None:
    outcome = judge(SYN, chain("drop"))
    assert (outcome.verdict, outcome.events[0].rule) == ("drop", "policy drop")
    assert judge(SYN, rule({"reject": {"type": "tcp reset"}})).verdict == "reject"
    assert judge(SYN, rule({"queue": {"num": 1}})).events[0].effect == "uncertain"


def test_translation() -> None:
    ports = named("map", "p", [[{"concat": ["tcp", 80]}, {"concat": ["10.1.2.9", 8080]}]])
    key = {"concat": [meta("l4proto"), payload("th", "dport")]}
    to = {"dnat": {"family": "ip", "addr": {"map": {"key": key, "data": "@p"}}}}
    outcome = judge(SYN, ports, rule(to))
    changed = outcome.packet
    assert (str(changed.destination), changed.dport, changed.dnat) == ("10.1.2.9", 8080, True)
    assert judge(SYN._replace(dport=81), ports, rule(to)).packet.dnat is False
    assert judge(SIX, ports, rule(to)).packet == SIX
    plain = judge(SYN, rule({"dnat": {"addr": "10.1.2.7", "port": 1}})).packet
    assert (str(plain.destination), plain.dport) == ("10.1.2.7", 1)
    assert judge(SYN, rule({"masquerade": None})).packet.snat
    assert str(judge(SYN, rule({"snat": {"addr": "192.0.2.1"}})).packet.source) == "192.0.2.1"


def test_marks() -> None:
    mark = {"mangle": {"key": meta("mark"), "value": {"|": [meta("mark"), 4]}}}
    assert not judge(SYN._replace(mark=1), rule(mark), rule(match(meta("mark"), 5), DROP)).passes
    saved = {"mangle": {"key": ct("mark"), "value": meta("mark")}}
    assert judge(SYN._replace(mark=7), rule(saved)).packet.ct_mark == 7


def test_tables_that_something_else_reads() -> None:
    ruleset = Ruleset([chain("drop")], local, {}, frozenset({("inet", "t")}))
    assert ruleset.chains("forward", "ip") == []


def test_order_of_chains() -> None:
    late = {"chain": TABLE | {"name": "l", "type": "filter", "hook": "forward", "prio": 10}}
    six = {"chain": {"family": "ip6", "table": "s", "name": "x", "hook": "forward", "prio": 5}}
    ruleset = Ruleset([late, six, chain()], local, {})
    assert [one.name for one in ruleset.chains("forward", "ip6")] == ["c", "x", "l"]
    assert [one.name for one in ruleset.chains("forward", "ip")] == ["c", "l"]


ADDRESSES = st.ip_addresses(v=4)


@given(ADDRESSES, ADDRESSES, st.integers(0, 32))
def test_prefixes_are_those_of_the_standard_library(
    source: IPv4Address, other: IPv4Address, length: int
) -> None:
    network = ip_network((other, length), strict=False)
    prefix = {"prefix": {"addr": str(network.network_address), "len": length}}
    dropped = not judge(SYN._replace(source=source), rule(match(SADDR, prefix), DROP)).passes
    assert dropped == (source in network)
    said = legacy(SYN._replace(source=source), f"-A FORWARD -s {network} -j DROP")
    assert said.passes != dropped


# iptables.


def legacy(packet: Packet, *lines: str, policy: str = "ACCEPT", table: str = "filter") -> Outcome:
    names = {"filter": "FORWARD", "nat": "PREROUTING", "mangle": "FORWARD"}
    parsed = iptables_text.parse(4, table, [f"-P {names[table]} {policy}", *lines])
    (base,) = iptables_text.base_chains(parsed)
    return iptables_text.evaluate(parsed, base, packet, local)


@pytest.mark.parametrize(
    ("packet", "conditions", "matches"),
    [
        (SYN, "-i cni0 -o eth+", True),
        (SYN, "! -i cni0", False),
        (SYN, "-s 10.1.2.0/24 ! -d 10.8.0.0/16", True),
        (SYN, "-p tcp -m tcp --dport 80:90", True),
        (SYN, "-p tcp -m tcp ! --dport 80", False),
        (SYN, "-p udp -m udp --dport 80", False),
        (SYN, "-p tcp -m multiport --dports 22,79:81", True),
        (SYN, "-p tcp -m tcp --sport 1024:65535", True),
        (SYN, "-m conntrack --ctstate RELATED,ESTABLISHED", False),
        (ANSWER, "-m conntrack --ctstate RELATED,ESTABLISHED", True),
        (SYN, "-m state --state NEW", True),
        (SYN._replace(dnat=True), "-m conntrack --ctstate DNAT", True),
        (SYN, "-m conntrack --ctstate DNAT", False),
        (SYN._replace(mark=0x2000), "-m mark --mark 0x2000/0x2000", True),
        (SYN, "-m mark ! --mark 0x2000/0x2000", True),
        (SYN, "-m addrtype --dst-type LOCAL", False),
        (SYN._replace(destination=ip_address("10.9.0.1")), "-m addrtype --dst-type LOCAL", True),
        (SYN, '-m comment --comment "two words - j"', True),
        (SYN, "-m limit --limit 5/sec", True),
        (SYN, "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", True),
        (ANSWER, "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", False),
        (ECHO, "-p icmp -m icmp --icmp-type 8", True),
        (ECHO, "-p icmp -m icmp --icmp-type 3", False),
    ],
)
def test_conditions_of_iptables(packet: Packet, conditions: str, matches: bool) -> None:
    outcome = legacy(packet, f"-A FORWARD {conditions} -j DROP")
    assert outcome.passes != matches
    assert not [one for one in outcome.events if one.effect == "uncertain"]


def test_chains_of_iptables() -> None:
    chains = ("-N X", "-A X -s 10.1.2.2/32 -j RETURN", "-A X -j ACCEPT")
    assert not legacy(SYN, *chains, "-A FORWARD -j X", "-A FORWARD -j DROP").passes
    assert legacy(SYN, *chains, "-A FORWARD -g X", "-A FORWARD -j DROP").passes
    other = SYN._replace(source=ip_address("10.1.2.3"))
    assert legacy(other, *chains, "-A FORWARD -j X", "-A FORWARD -j DROP").passes
    policy = legacy(SYN, policy="DROP")
    assert policy.events[0].where == "iptables filter FORWARD"
    assert legacy(SYN, "-A FORWARD -j REJECT").verdict == "reject"


def test_targets_of_iptables() -> None:
    mark = ("-A FORWARD -j MARK --set-xmark 0x4/0x4", "-A FORWARD -m mark --mark 0x5 -j DROP")
    assert not legacy(SYN._replace(mark=1), *mark).passes
    line = "-A PREROUTING -p tcp -j DNAT --to-destination 10.1.2.9:81"
    to = legacy(SYN, line, table="nat").packet
    assert (str(to.destination), to.dport, to.dnat) == ("10.1.2.9", 81, True)
    odd = legacy(SYN, "-A FORWARD -j TPROXY --on-port 1")
    assert odd.events[0].effect == "uncertain"


@pytest.mark.parametrize("match_of", ["set --match-set x src", "ttl --ttl-eq 1", "recent --rcheck"])
def test_matches_of_iptables_that_are_not_understood(match_of: str) -> None:
    outcome = legacy(SYN, f"-A FORWARD -m {match_of} -j DROP")
    assert outcome.passes
    assert outcome.events[0].text.startswith("rule not understood: ")
    assert legacy(SYN, f"-A FORWARD -o lo -m {match_of} -j DROP").events == ()


OPTIONS = ("-s", "--dport", "--tcp-flags", "--mark", "--ctstate", "--dst-type", "-p", "-j", "!")


@given(st.lists(st.sampled_from(OPTIONS) | st.text(max_size=4), max_size=6))
def test_any_line_of_iptables(words: list[str]) -> None:
    """One that makes no sense is not understood, and never a traceback."""
    legacy(SYN, f"-A FORWARD {' '.join(words)} -j DROP")


@pytest.mark.parametrize(
    "statement",
    [{"match": {}}, {"match": {"op": "==", "left": {"ct": 1}, "right": 1}}, {"vmap": None}],
)
def test_any_listing_of_nftables(statement: dict[str, Any]) -> None:
    """What a newer library may list is not understood, and never a traceback."""
    (event,) = judge(SYN, rule(statement, DROP)).events
    assert event.effect == "uncertain"
