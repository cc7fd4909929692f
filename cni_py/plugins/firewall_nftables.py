"""firewall's nftables backend: static chains, and per container only elements of sets.

    table inet cni_py {
      set forward4 { type ipv4_addr }              # 10.1.2.2 comment "<owner>"
      set forward6 { type ipv6_addr }
      set isolation_bridges { type ifname }        # "cni0"
      map isolation_pairs { type ifname . ifname : verdict }   # "cni0" . "cni0" : accept, or drop
      chain forward_admin { }                      # the operator's: never touched
      chain forward {
        type filter hook forward priority filter
        jump forward_admin
        ct state established,related accept
        ct status dnat accept
        iifname . oifname vmap @isolation_pairs
        iifname @isolation_bridges oifname @isolation_bridges drop
        ip saddr @forward4 accept
        ip daddr @forward4 accept
        (the same for IPv6)
      }
    }
    table bridge cni_py {
      set isolated { type ifname }                 # "veth1234" comment "<owner>"
      chain forward {
        type filter hook forward priority filter
        iifname @isolated drop
        oifname @isolated drop
      }
    }

Frames from port to port do not pass the first table, unless br_netfilter has them do so: then that
table knows which connections are published ports', and the second one is not needed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from cni_py.kernel import sysctl
from cni_py.kernel.errors import KernelError
from cni_py.kernel.nft_table import (
    ADDRESS_TYPE,
    BRIDGE,
    INET,
    PROTOCOL,
    field,
    is_of,
    labelled,
    match,
    meta,
)
from cni_py.kernel.nftables import Command, nftables, nftables_if_installed

from . import firewall_record, flushed
from .firewall_record import ISOLATED, OPEN, SAME_BRIDGE, policy_of_bridge
from .interface import differs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni_py.kernel.nft_table import Table
    from cni_py.kernel.nftables import Nftables
    from cni_py.spec.collection import Collection

    from .firewall_record import Record

_NAME = "nftables"
_BRIDGES, _PAIRS, _PORTS = "isolation_bridges", "isolation_pairs", "isolated"
_ADMIN, _FORWARD = "forward_admin", "forward"
_BRIDGE_PRIORITY = -200
_VERDICT: dict[str, dict[str, None]] = {SAME_BRIDGE: {"accept": None}, ISOLATED: {"drop": None}}
_CALLED_FOR = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
_BASE_MISSING_OR_TAKEN = frozenset({errno.ENOENT, errno.EEXIST, errno.EBUSY})


def set_up(record: Record) -> None:
    """Put the container's addresses and its bridge into the sets. Raises CniError."""
    nft = nftables()
    what = f"accept traffic of container {record.container_id}"
    commands = _elements("create", [record])
    if not commands:
        return
    try:
        nft.apply(what, *commands)
    except KernelError as error:
        if error.errno not in _BASE_MISSING_OR_TAKEN:
            raise
        nft.apply(what, *_base([record]))
        nft.apply(what, *_replaced(nft, [record]), *_elements("add", [record]))


def tear_down(record: Record) -> None:
    """Take them out again, but for what other containers share. Raises CniError."""
    nft = nftables()
    key = record.attachment.key
    commands: list[Command] = []
    if record.backend == _NAME:
        for address in record.addresses:
            commands += _given_up(nft, address, key)
    if record.isolation == _NAME:
        commands += _isolation_given_up(nft, record)
    if record.port and is_of(BRIDGE.listing(nft, _PORTS, _text(record.port)), key):
        commands.append(BRIDGE.element("delete", _PORTS, record.port))
    if commands:
        nft.apply(f"stop accepting traffic of container {record.container_id}", *commands)


def forget(key: str) -> None:
    """Take out what is labelled with a key, when no record says what there is."""
    _forget(lambda label, _: label.startswith(key))


def require_rules(network: str) -> None:
    """For STATUS: raises CniError 51 where nothing lets the network's containers through."""

    def number() -> int:
        def is_own(one: Record) -> bool:
            return one.backend == _NAME and one.network == network

        if not any(map(is_own, firewall_record.RECORDS.every())):
            return 0
        return sum(map(is_own, firewall_record.live_records()))

    flushed.require_chain(INET, _FORWARD, "the firewall", number)


def collect(collection: Collection) -> None:
    """Take out what has the label of an attachment that the collection takes."""
    _forget(lambda label, what: collection.takes(what, label))


def check(record: Record) -> None:
    """Whether all elements are there. Raises CniError naming the first that is not."""
    nft = nftables()
    for where, name, key in _keys(record):
        if where.listing(nft, name, _text(key)) is None:
            raise differs(f"set {name}", _text(key), "no such element")
    if record.isolation == _NAME:
        listing = INET.listing(nft, _PAIRS, _text(_pair(record.bridge))) or ""
        verdict = next(iter(_VERDICT[policy_of_bridge(record)]))
        if f": {verdict}" not in listing:
            raise differs(f"verdict of {record.bridge} in {_PAIRS}", verdict, "another one")
    for where in [INET, *([BRIDGE] if record.port else [])]:
        command = {"list": {"chain": where.named(_FORWARD)}}
        listed = nft.listed(f"list the chain {_FORWARD}", command) or ()
        have = sum("rule" in one for one in listed)
        wanted = sum("rule" in one.get("add", {}) for one in _chain_of(where))
        if have < wanted:
            name = f"chain {_FORWARD} of table {where}"
            raise differs(name, f"{wanted} rules", str(have))


def restoring(listed: Sequence[Record]) -> list[Command]:
    """The commands that give every record its elements again, isolation first."""
    wanted = [one for one in listed if _NAME in (one.backend, one.isolation) or one.port]
    if not wanted:
        return []
    nft = nftables()
    return [*_base(wanted), *_replaced(nft, wanted), *_elements("add", wanted)]


def sees_bridged(versions: Iterable[int]) -> bool:
    """Whether br_netfilter has frames from port to port pass the IP rules."""
    try:
        return all(sysctl.read(_CALLED_FOR[version]) == "1" for version in versions)
    except KernelError:
        return False


# Elements.


def _keys(record: Record) -> Iterator[tuple[Table, str, Any]]:
    """Table, set and key of each of the record's elements; the container's own have its label."""
    if record.isolation == _NAME:
        yield INET, _BRIDGES, record.bridge
        yield INET, _PAIRS, _pair(record.bridge)
    if record.port:
        yield BRIDGE, _PORTS, record.port
    if record.backend == _NAME:
        for address in record.addresses:
            yield INET, _set_of(address), address


def _elements(verb: str, listed: Sequence[Record]) -> list[Command]:
    """The commands that put the records' elements in, isolation first.

    A bridge's are those of all its containers: they are added, whoever was first.
    """
    policies: dict[str, str] = {}
    for record in listed:
        if record.isolation == _NAME and policies.get(record.bridge) != ISOLATED:
            policies[record.bridge] = policy_of_bridge(record)
    commands = []
    for bridge, policy in policies.items():
        commands.append(INET.element("add", _BRIDGES, bridge))
        verdict = _VERDICT[policy]
        commands.append(INET.element("add", _PAIRS, [_pair(bridge), verdict]))
    owned = [(record, one) for record in listed for one in _keys(record)]
    owned = [(record, one) for record, one in owned if one[1] not in (_BRIDGES, _PAIRS)]
    owned.sort(key=lambda pair: pair[1][0] is not BRIDGE)
    once: dict[str, Command] = {}
    for record, (where, name, key) in owned:
        value = labelled(key, record.attachment)
        once.setdefault(f"{name} {key}", where.element(verb, name, value))
    return [*commands, *once.values()]


def _replaced(nft: Nftables, listed: Sequence[Record]) -> list[Command]:
    """The deletions of elements that stand in the way: another verdict, a holder that is gone."""
    commands: dict[str, Command] = {}
    for record in listed:
        for where, name, key in _keys(record):
            listing = where.listing(nft, name, _text(key))
            if listing is None or name == _BRIDGES:
                continue
            if name == _PAIRS:
                stays = f": {next(iter(_VERDICT[policy_of_bridge(record)]))}" in listing
            else:
                own = record.attachment.key
                stays = is_of(listing, own) or (
                    where is INET and _has_live_owner(listing, key, own)
                )
            if not stays:
                commands[f"{name} {key}"] = where.element("delete", name, key)
    return list(commands.values())


def _has_live_owner(listing: str, address: str, besides: str) -> bool:
    other = firewall_record.live_holder(address, besides)
    return other is not None and is_of(listing, other.attachment.key)


def _given_up(nft: Nftables, address: str, key: str) -> list[Command]:
    """Take an address out, or give its element to another living container that has it."""
    name = _set_of(address)
    if not is_of(INET.listing(nft, name, _text(address)), key):
        return []
    commands = [INET.element("delete", name, address)]
    other = firewall_record.live_holder(address, key)
    if other is not None:
        commands.append(INET.element("create", name, labelled(address, other.attachment)))
    return commands


def _isolation_given_up(nft: Nftables, record: Record) -> list[Command]:
    """What of a bridge's isolation nobody else asks for."""
    still = firewall_record.bridge_policy(record.bridge, record.attachment.key)
    if still == record.policy or still == ISOLATED:
        return []
    pair = _pair(record.bridge)
    commands = []
    if INET.listing(nft, _PAIRS, _text(pair)) is not None:
        commands.append(INET.element("delete", _PAIRS, pair))
    if still != OPEN:
        return [*commands, INET.element("add", _PAIRS, [pair, _VERDICT[still]])]
    if INET.listing(nft, _BRIDGES, _text(record.bridge)) is not None:
        commands.append(INET.element("delete", _BRIDGES, record.bridge))
    return commands


def _forget(is_unwanted: Callable[[str, str], bool]) -> None:
    nft = nftables_if_installed()
    if nft is None:
        return
    for where, name in ((INET, "forward4"), (INET, "forward6"), (BRIDGE, _PORTS)):
        for key, label in where.elements(nft, "set", name):
            if is_unwanted(label, f"element {key} of the nftables set {name}"):
                where.delete_element(nft, f"remove {key} of the set {name}", name, key)


def _pair(bridge: str) -> dict[str, list[str]]:
    return {"concat": [bridge, bridge]}


def _text(key: Any) -> str:
    """A key as `get element` reads it. Addresses stand bare, names in quotes."""
    if isinstance(key, dict):
        return " . ".join(map(_text, key["concat"]))
    return key if _is_address(key) else f'"{key}"'


def _is_address(key: str) -> bool:
    # No interface's name has a colon, or is an IPv4 address that a container has.
    return ":" in key or key.replace(".", "").isdigit()


def _set_of(address: str) -> str:
    return "forward6" if ":" in address else "forward4"


# What they stand on.


def _base(listed: Sequence[Record]) -> list[Command]:
    """The tables, sets and chains; the administrator's chain is made, and left alone."""
    commands = _chain_of(INET)
    if any(record.port for record in listed):
        commands += _chain_of(BRIDGE)
    return commands


def _chain_of(where: Table) -> list[Command]:
    bridged = where is BRIDGE
    chain = where.hook(_FORWARD, "filter", "forward", _BRIDGE_PRIORITY if bridged else 0)
    return [
        where.add(),
        *(_sets_of_ports() if bridged else _sets()),
        {"add": {"chain": chain}},
        # Flushed and filled again in the same transaction: adding alone would double the rules.
        {"flush": {"chain": where.named(_FORWARD)}},
        *(where.rule(_FORWARD, *rule) for rule in (_port_rules() if bridged else _rules())),
    ]


def _sets() -> list[Command]:
    sets: dict[str, Any] = {f"forward{version}": of for version, of in ADDRESS_TYPE.items()}
    sets[_BRIDGES] = "ifname"
    commands = [{"add": {"set": {**INET.named(name), "type": of}}} for name, of in sets.items()]
    pairs = {**INET.named(_PAIRS), "type": ["ifname", "ifname"], "map": "verdict"}
    return [
        *commands,
        {"add": {"map": pairs}},
        {"add": {"chain": INET.named(_ADMIN)}},
    ]


def _sets_of_ports() -> list[Command]:
    return [{"add": {"set": {**BRIDGE.named(_PORTS), "type": "ifname"}}}]


def _rules() -> list[list[dict[str, Any]]]:
    accept: dict[str, Any] = {"accept": None}
    names = {"concat": [meta("iifname"), meta("oifname")]}
    state = match({"ct": {"key": "state"}}, ["established", "related"], "in")
    isolated = [match(meta(one), f"@{_BRIDGES}") for one in ("iifname", "oifname")]
    containers = [
        [match(field(version, side), f"@forward{version}"), accept]
        for version in PROTOCOL
        for side in ("saddr", "daddr")
    ]
    return [
        [{"jump": {"target": _ADMIN}}],
        [state, accept],
        [match({"ct": {"key": "status"}}, "dnat", "in"), accept],
        [{"vmap": {"key": names, "data": f"@{_PAIRS}"}}],
        [*isolated, {"drop": None}],
        *containers,
    ]


def _port_rules() -> list[list[dict[str, Any]]]:
    return [[match(meta(one), f"@{_PORTS}"), {"drop": None}] for one in ("iifname", "oifname")]
