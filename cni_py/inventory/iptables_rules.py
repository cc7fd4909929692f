"""Containers' rules in iptables: our backend writes what the reference does (plugins.md 6.1.3).

So a rule's maker is told by our records alone.
"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import iptables
from cni_py.spec.errors import CniError

from .model import REFERENCE, Allowed, Masquerade, Problem, Published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BACKEND = "iptables"
_TABLES = frozenset({"nat", "filter"})
_FAMILY = {4: "ip", 6: "ip6"}
_DNAT, _CHAIN = "CNI-HOSTPORT-DNAT", "CNI-DN-"
_FORWARD = "CNI-FORWARD"
_PORT_OWNER = re.compile(r'dnat name: "(?P<network>[^"]*)" id: "(?P<id>[^"]*)"')
_OWNER = re.compile(r'name: "(?P<network>[^"]*)" id: "(?P<id>[^"]*)"')
_TO = re.compile(r"\[?(?P<address>[0-9a-f.:]+?)\]?:(?P<port>\d+)")


class IptablesRules(NamedTuple):
    """What there is of both IP versions."""

    ports: tuple[Published, ...] = ()
    masquerades: tuple[Masquerade, ...] = ()
    allowed: tuple[Allowed, ...] = ()


def iptables_rules(nft_tables: frozenset[str], problems: list[Problem]) -> IptablesRules:
    """The rules, from tables that are there: to list others would make them."""
    found = IptablesRules()
    for version in (4, 6):
        lines: list[str] = []
        try:
            for table in sorted(_listable(version, nft_tables)):
                lines += iptables.listing(version, table)
        except CniError as error:
            problems.append(Problem(subject=BACKEND, text=str(error)))
        own = rules_in(lines, version)
        found = IptablesRules(
            found.ports + own.ports,
            found.masquerades + own.masquerades,
            found.allowed + own.allowed,
        )
    return found


def rules_in(lines: Iterable[str], version: int) -> IptablesRules:
    """The rules of containers among the lines of `iptables -S`."""
    rules = [_options(one) for one in lines]
    ports = tuple(_ports(rules, version))
    return IptablesRules(ports, tuple(_masquerades(rules)), tuple(_allowed(rules)))


def _listable(version: int, nft_tables: frozenset[str]) -> frozenset[str]:
    """The tables of iptables that exist; none where its executables do not show them."""
    nft = frozenset(one for one in _TABLES if f"{_FAMILY[version]} {one}" in nft_tables)
    return _TABLES & iptables.listable(version, nft).shown


def _options(line: str) -> dict[str, str]:
    """A rule's options with their last values; what is no rule gives none."""
    try:
        words = shlex.split(line)
    except ValueError:
        return {}
    if words[:1] != ["-A"]:
        return {}
    return dict(pairwise(words))


def _ports(rules: Sequence[dict[str, str]], version: int) -> Iterator[Published]:
    owners: dict[str, re.Match[str]] = {}
    for one in rules:
        found = _PORT_OWNER.search(one.get("--comment", ""))
        if one.get("-A") == _DNAT and found is not None:
            owners[one.get("-j", "")] = found
    for one in rules:
        to = _TO.fullmatch(one.get("--to-destination", ""))
        if one.get("-j") != "DNAT" or to is None or not one["-A"].startswith(_CHAIN):
            continue
        owner = owners.get(one["-A"])
        yield Published(
            version=version,
            protocol=one.get("-p", ""),
            host_ip=one.get("-d", "").partition("/")[0],
            host_port=_first_number(one.get("--dport", "")),
            address=to["address"],
            container_port=int(to["port"]),
            backend=BACKEND,
            maker=REFERENCE,
            container_id="" if owner is None else owner["id"],
            network="" if owner is None else owner["network"],
        )


def _first_number(text: str) -> int:
    """The number that a text begins with, as of `8080:8090`; 0 where it does not."""
    digits = re.match(r"[0-9]{1,5}", text)
    return int(digits[0]) if digits else 0


def _masquerades(rules: Iterable[dict[str, str]]) -> Iterator[Masquerade]:
    for one in rules:
        found = _OWNER.fullmatch(one.get("--comment", ""))
        if one.get("-A") == "POSTROUTING" and "-s" in one and found is not None:
            yield Masquerade(
                address=one["-s"].partition("/")[0],
                backend=BACKEND,
                maker=REFERENCE,
                container_id=found["id"],
                network=found["network"],
            )


def _allowed(rules: Iterable[dict[str, str]]) -> Iterator[Allowed]:
    for one in rules:
        if one.get("-A") == _FORWARD and one.get("-j") == "ACCEPT" and "-d" in one:
            yield Allowed(address=one["-d"].partition("/")[0], backend=BACKEND)
