"""firewall's iptables backend: the reference plugin's chains, rules and order (plugins.md 6.3).

    FORWARD                 -j CNI-ISOLATION-STAGE-1, -j CNI-FORWARD
    CNI-FORWARD             -j CNI-ADMIN
                            -d 10.1.2.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
                            -s 10.1.2.2/32 -j ACCEPT
                            -d 10.1.2.2/32 -m conntrack --ctstate DNAT -j ACCEPT     # ours
    CNI-ISOLATION-STAGE-1   -m conntrack --ctstate DNAT -j RETURN                    # ours
                            -i cni0 -o cni0 -j DROP                                  # isolated
                            -i cni0 ! -o cni0 -j CNI-ISOLATION-STAGE-2
                            -j RETURN
    CNI-ISOLATION-STAGE-2   -o cni0 -j DROP
                            -j RETURN

What is ours lets published ports through, also where FORWARD drops by default.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from cni_py.kernel import iptables, links
from cni_py.kernel.netlink import Netlink
from cni_py.spec.errors import CniError, Code

from . import firewall_record
from .firewall_record import ISOLATED, OPEN, SAME_BRIDGE, policy_of_bridge
from .interface import differs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .firewall_record import Record

FORWARD = "CNI-FORWARD"
STAGE_1, STAGE_2 = "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2"
_NAME, _TABLE = "iptables", "filter"
_LENGTH = {4: 32, 6: 128}
_ATTEMPTS = 4
# As `iptables -S` prints them.
_COMMENT = '-m comment --comment "CNI firewall plugin {}"'
_JUMP = f"{_COMMENT.format('rules')} -j {FORWARD}"
_SHARED = _COMMENT.format("rules (ingressPolicy: same-bridge|isolated)")
_JUMP_STAGE_1 = f"{_SHARED} -j {STAGE_1}"
_RETURN = f"{_SHARED} -j RETURN"
# What leads to published ports, which the reference does not look after.
_TO_PUBLISHED = "-m conntrack --ctstate DNAT"
_PUBLISHED = f"{_TO_PUBLISHED} {_SHARED} -j RETURN"
# A `+` at the end would stand for any characters.
_PLAIN_IFNAME = re.compile(r"[A-Za-z0-9_.:@-]+")

_Chains = dict[str, list[str]]


def require(versions: Iterable[int]) -> None:
    """Raises CniError when the executables of an IP version are not installed."""
    for version in versions:
        if not iptables.available(version):
            name = "iptables" if version == 4 else "ip6tables"
            msg = f"{name} is not installed"
            raise CniError(Code.INTERNAL, msg, 'install it, or set backend to "nftables"')


def require_plain(ifname: str) -> None:
    """Raises CniError 7 for a name that would mean something else in a rule."""
    if not _PLAIN_IFNAME.fullmatch(ifname):
        msg = f'interface "{ifname}" cannot be named in an iptables rule'
        raise CniError(Code.INVALID_CONFIG, msg, 'rename it, or set backend to "nftables"')


def set_up(record: Record) -> None:
    """Accept the container's traffic, and isolate its bridge. Raises CniError."""
    what = f"accept traffic of container {record.container_id}"
    for version in record.versions:
        _append(version, record, what)


def tear_down(record: Record, addresses: Sequence[str]) -> None:
    """Remove the rules of `addresses`, and isolation that nobody asks for now. Raises CniError."""
    what = f"stop accepting traffic of container {record.container_id}"
    rules = [rule for one in addresses for rule in _of_address(one)]
    isolation = _left_over(record)
    for version in (4, 6):
        own = [one for one in rules if (":" in one) == (version == 6)]
        if not own and not (isolation and version in record.versions):
            continue
        wanted = {FORWARD: own, **(isolation if version in record.versions else {})}
        _changed(version, what, partial(_deletions, wanted))


def forget_addresses(addresses: Sequence[str], versions: Iterable[int]) -> None:
    """Remove the rules of addresses that another maker may have written. Raises CniError."""
    for version in versions:
        rules = [rule for one in addresses for rule in _of_address(one)]
        own = [one for one in rules if (":" in one) == (version == 6)]
        if not own or not iptables.available(version):
            continue
        if iptables.rules(version, _TABLE, FORWARD):
            what = f"stop accepting traffic of {', '.join(addresses)}"
            _changed(version, what, partial(_deletions, {FORWARD: own}))


def check(record: Record, *, is_ours: bool) -> None:
    """Whether all rules are there. Raises CniError naming the first that is not.

    Of the reference's container there are none of those that only ours has.
    """
    for version in record.versions:
        have = iptables.chains(version, _TABLE)
        for chain, rules in _expected(record, version).items():
            for rule in rules if is_ours else filter(_is_the_references, rules):
                if rule not in have.get(chain, ()):
                    raise differs(f"chain {chain}", rule, "no such rule")
        jumps = have.get("FORWARD", [])
        both = record.backend == record.isolation == _NAME
        if both and jumps.index(_JUMP_STAGE_1) > jumps.index(_JUMP):
            raise differs("chain FORWARD", f"{STAGE_1} before {FORWARD}", "the other way round")


def _is_the_references(rule: str) -> bool:
    return _TO_PUBLISHED not in rule


def restoring(listed: Sequence[Record], version: int) -> list[str]:
    """The lines that give every record its rules again, isolation first. Raises CniError."""
    return _additions(listed, version, iptables.chains(version, _TABLE))


# Rules.


def _of_address(address: str) -> tuple[str, str, str]:
    full = f"{address}/{_LENGTH[6 if ':' in address else 4]}"
    return (
        f"-d {full} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-s {full} -j ACCEPT",
        f"-d {full} {_TO_PUBLISHED} -j ACCEPT",
    )


def _of_bridge(bridge: str, policy: str) -> _Chains:
    """The rules of a bridge in the two chains, in the order in which they stand."""
    comment = _COMMENT.format(f"rules (ingressPolicy: {policy})")
    if policy == OPEN:
        return {STAGE_1: [], STAGE_2: []}
    within = [f"-i {bridge} -o {bridge} {comment} -j DROP"] if policy == ISOLATED else []
    across = f"-i {bridge} ! -o {bridge} {comment} -j {STAGE_2}"
    return {STAGE_1: [*within, across], STAGE_2: [f"-o {bridge} {_SHARED} -j DROP"]}


def _admin_jump(admin_chain: str) -> str:
    return f"{_COMMENT.format('admin overrides')} -j {admin_chain}"


def _expected(record: Record, version: int) -> _Chains:
    """All rules that the record stands on, by chain."""
    expected: _Chains = {}
    if record.backend == _NAME:
        expected["FORWARD"] = [_JUMP]
        addresses = [rule for one in record.of_version(version) for rule in _of_address(one)]
        expected[FORWARD] = [_admin_jump(record.admin_chain), *addresses]
    if record.isolation == _NAME:
        expected["FORWARD"] = [_JUMP_STAGE_1, *expected.get("FORWARD", [])]
        expected |= _of_bridge(record.bridge, policy_of_bridge(record))
        expected[STAGE_1] = [_PUBLISHED, *expected[STAGE_1], _RETURN]
        expected[STAGE_2] = [*expected[STAGE_2], _RETURN]
    return expected


# Changes.


def _append(version: int, record: Record, what: str) -> None:
    """One run of iptables-restore, which looks whether all that the rules stand on is there."""
    expected = _expected(record, version)
    addresses = expected[FORWARD][1:] if record.backend == _NAME else []
    stands_on = [
        f"-C {chain} {rule}"
        for chain, rules in expected.items()
        for rule in rules
        if rule not in addresses
    ]
    key = record.attachment.key
    taken = [one for one in record.of_version(version) if firewall_record.is_held(one, key)]
    try:
        if taken:
            raise iptables.IptablesError(Code.INTERNAL, what, "rules may be there already")
        appended = [f"-A {FORWARD} {rule}" for rule in addresses]
        iptables.restore(version, _TABLE, [*stands_on, *appended], what)
    except iptables.IptablesError:
        _changed(version, what, partial(_additions, [record], version))


def _changed(version: int, what: str, lines: Callable[[_Chains], list[str]]) -> None:
    """Apply what `lines` makes of the table as it is; again where another call was faster."""
    for attempt in range(_ATTEMPTS):
        wanted = lines(iptables.chains(version, _TABLE))
        try:
            if wanted:
                iptables.restore(version, _TABLE, wanted, what)
        except iptables.IptablesError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _additions(listed: Sequence[Record], version: int, have: _Chains) -> list[str]:
    """What is missing of the records' rules, isolation first."""
    isolated = [one for one in listed if one.isolation == _NAME]
    accepted = [one for one in listed if one.backend == _NAME]
    lines: list[str] = []
    if isolated:
        lines += [f"-N {chain}" for chain in (STAGE_1, STAGE_2) if chain not in have]
        lines += _isolation(have, isolated)
    if accepted:
        admins = dict.fromkeys(one.admin_chain for one in accepted)
        lines += [f"-N {chain}" for chain in (FORWARD, *admins) if chain not in have]
        present = have.get(FORWARD, [])
        lines += [
            f"-I {FORWARD} 1 {_admin_jump(one)}"
            for one in admins
            if _admin_jump(one) not in present
        ]
        rules = [
            rule
            for record in accepted
            for one in record.of_version(version)
            for rule in _of_address(one)
        ]
        lines += [f"-A {FORWARD} {rule}" for rule in dict.fromkeys(rules) if rule not in present]
    lines += _jumps(have.get("FORWARD", []), accept=bool(accepted), isolate=bool(isolated))
    return lines


def _jumps(present: Sequence[str], *, accept: bool, isolate: bool) -> list[str]:
    """FORWARD's jumps: isolation stands before what accepts.

    A jump that is there stays where it is: an operator may have put rules before it.
    """
    lines = []
    add = accept and _JUMP not in present
    if add:
        lines.append(f"-I FORWARD 1 {_JUMP}")
    there = _JUMP_STAGE_1 in present
    wrong = there and (
        add or (_JUMP in present and present.index(_JUMP) < present.index(_JUMP_STAGE_1))
    )
    if wrong:
        lines.append(f"-D FORWARD {_JUMP_STAGE_1}")
    if wrong or (isolate and not there):
        lines.append(f"-I FORWARD 1 {_JUMP_STAGE_1}")
    return lines


def _isolation(have: _Chains, isolated: Sequence[Record]) -> list[str]:
    first, second = have.get(STAGE_1, []), have.get(STAGE_2, [])
    lines = []
    if first[:1] != [_PUBLISHED]:
        lines += [f"-D {STAGE_1} {_PUBLISHED}"] * first.count(_PUBLISHED)
        lines.append(f"-I {STAGE_1} 1 {_PUBLISHED}")
    for bridge in dict.fromkeys(one.bridge for one in isolated):
        policies = {policy_of_bridge(one) for one in isolated if one.bridge == bridge}
        policy = ISOLATED if ISOLATED in policies else SAME_BRIDGE
        rules = _of_bridge(bridge, policy)
        # Each goes in before those that are there: the last is inserted first.
        lines += [
            f"-I {STAGE_1} 2 {rule}" for rule in reversed(rules[STAGE_1]) if rule not in first
        ]
        lines += [f"-I {STAGE_2} 1 {rule}" for rule in rules[STAGE_2] if rule not in second]
    lines += [
        f"-A {chain} {_RETURN}"
        for chain, rules_there in ((STAGE_1, first), (STAGE_2, second))
        if _RETURN not in rules_there
    ]
    return lines


def _deletions(rules: _Chains, have: _Chains) -> list[str]:
    """Every copy of the rules that is there."""
    return [
        f"-D {chain} {rule}"
        for chain, listed in rules.items()
        for rule in listed
        for _ in range(have.get(chain, []).count(rule))
    ]


def _left_over(record: Record) -> _Chains:
    """The isolation of the record's bridge that no other container asks for."""
    if record.isolation != _NAME:
        return {}
    still = firewall_record.bridge_policy(record.bridge, record.attachment.key)
    if still == OPEN and _has_foreign_ports(record):
        return {}
    kept = _of_bridge(record.bridge, still)
    found: _Chains = {STAGE_1: [], STAGE_2: []}
    for policy in (SAME_BRIDGE, ISOLATED):
        for chain, rules in _of_bridge(record.bridge, policy).items():
            found[chain] += [
                one for one in rules if one not in kept[chain] and one not in found[chain]
            ]
    return found


def _has_foreign_ports(record: Record) -> bool:
    """Whether the bridge has containers of the reference plugin, which may rely on the rules."""
    with Netlink() as host:
        bridge = links.get(host, record.bridge)
        if bridge is None:
            return False
        return any(
            one.master == bridge.ifindex and ", net: " not in one.alias
            for one in links.dump(host, "veth")
        )
