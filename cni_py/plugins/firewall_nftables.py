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
from cni_py.kernel.nftables import COMMENT_BYTES, Command, nftables, nftables_if_installed
from cni_py.spec.attachment import network_key

from . import firewall_record
from .firewall_record import ISOLATED, OPEN, SAME_BRIDGE
from .interface import differs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_py.kernel.nftables import Nftables
    from cni_py.spec.attachment import Attachment

    from .firewall_record import Record

_NAME = "nftables"
_INET: dict[str, Any] = {"family": "inet", "table": "cni_py"}
_BRIDGE: dict[str, Any] = {"family": "bridge", "table": "cni_py"}
_BRIDGES, _PAIRS, _PORTS = "isolation_bridges", "isolation_pairs", "isolated"
_ADMIN, _FORWARD = "forward_admin", "forward"
_PROTOCOL = {4: "ip", 6: "ip6"}
_ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
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
    if record.port and _is_labelled(nft, _BRIDGE, _PORTS, record.port, key):
        commands.append(_element("delete", _BRIDGE, _PORTS, record.port))
    if commands:
        nft.apply(f"stop accepting traffic of container {record.container_id}", *commands)


def forget(key: str) -> None:
    """Take out what is labelled with a key, when no record says what there is."""
    _forget(lambda label: label.startswith(key))


def collect(network: str, valid: Iterable[Attachment]) -> None:
    """Take out what is labelled as the network's, and belongs to none of `valid`."""
    prefix, alive = f"{network_key(network)}-", tuple(one.key for one in valid)
    _forget(lambda label: label.startswith(prefix) and not label.startswith(alive))


def check(record: Record) -> None:
    """Whether all elements are there. Raises CniError naming the first that is not."""
    nft = nftables()
    for where, name, key in _keys(record):
        if nft.element(f"{where['family']} {where['table']}", name, _text(key)) is None:
            raise differs(f"set {name}", _text(key), "no such element")
    if record.isolation == _NAME:
        listing = _lookup(nft, _INET, _PAIRS, _pair(record.bridge)) or ""
        verdict = next(iter(_VERDICT[_policy(record)]))
        if f": {verdict}" not in listing:
            raise differs(f"verdict of {record.bridge} in {_PAIRS}", verdict, "another one")
    for where in [_INET, *([_BRIDGE] if record.port else [])]:
        command = {"list": {"chain": {**where, "name": _FORWARD}}}
        listed = nft.listed(f"list the chain {_FORWARD}", command) or ()
        have = sum("rule" in one for one in listed)
        wanted = sum("rule" in one.get("add", {}) for one in _chain_of(where))
        if have < wanted:
            name = f"chain {_FORWARD} of table {where['family']} {where['table']}"
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


def _keys(record: Record) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Table, set and key of each of the record's elements; the container's own have its label."""
    if record.isolation == _NAME:
        yield _INET, _BRIDGES, record.bridge
        yield _INET, _PAIRS, _pair(record.bridge)
    if record.port:
        yield _BRIDGE, _PORTS, record.port
    if record.backend == _NAME:
        for address in record.addresses:
            yield _INET, _set_of(address), address


def _elements(verb: str, listed: Sequence[Record]) -> list[Command]:
    """The commands that put the records' elements in, isolation first.

    A bridge's are those of all its containers: they are added, whoever was first.
    """
    policies: dict[str, str] = {}
    for record in listed:
        if record.isolation == _NAME and policies.get(record.bridge) != ISOLATED:
            policies[record.bridge] = _policy(record)
    commands = []
    for bridge, policy in policies.items():
        commands.append(_element("add", _INET, _BRIDGES, bridge))
        verdict = _VERDICT[policy]
        commands.append(_element("add", _INET, _PAIRS, [_pair(bridge), verdict]))
    owned = [(record, one) for record in listed for one in _keys(record)]
    owned = [(record, one) for record, one in owned if one[1] not in (_BRIDGES, _PAIRS)]
    owned.sort(key=lambda pair: pair[1][0] is not _BRIDGE)
    once: dict[str, Command] = {}
    for record, (where, name, key) in owned:
        labelled = {"elem": {"val": key, "comment": record.attachment.label(COMMENT_BYTES)}}
        once.setdefault(f"{name} {key}", _element(verb, where, name, labelled))
    return [*commands, *once.values()]


def _replaced(nft: Nftables, listed: Sequence[Record]) -> list[Command]:
    """The deletions of elements that stand in the way: another verdict, a holder that is gone."""
    commands: dict[str, Command] = {}
    for record in listed:
        for where, name, key in _keys(record):
            listing = _lookup(nft, where, name, key)
            if listing is None or name == _BRIDGES:
                continue
            if name == _PAIRS:
                stays = f": {next(iter(_VERDICT[_policy(record)]))}" in listing
            else:
                own = record.attachment.key
                stays = f'comment "{own}' in listing or (
                    where is _INET and _has_live_owner(listing, key, own)
                )
            if not stays:
                commands[f"{name} {key}"] = _element("delete", where, name, key)
    return list(commands.values())


def _has_live_owner(listing: str, address: str, besides: str) -> bool:
    other = firewall_record.live_holder(address, besides)
    return other is not None and f'comment "{other.attachment.key}' in listing


def _given_up(nft: Nftables, address: str, key: str) -> list[Command]:
    """Take an address out, or give its element to another living container that has it."""
    name = _set_of(address)
    if not _is_labelled(nft, _INET, name, address, key):
        return []
    commands = [_element("delete", _INET, name, address)]
    other = firewall_record.live_holder(address, key)
    if other is not None:
        label = other.attachment.label(COMMENT_BYTES)
        labelled = {"elem": {"val": address, "comment": label}}
        commands.append(_element("create", _INET, name, labelled))
    return commands


def _isolation_given_up(nft: Nftables, record: Record) -> list[Command]:
    """What of a bridge's isolation nobody else asks for."""
    still = firewall_record.bridge_policy(record.bridge, record.attachment.key)
    if still == record.policy or still == ISOLATED:
        return []
    pair = _pair(record.bridge)
    commands = []
    if _lookup(nft, _INET, _PAIRS, pair) is not None:
        commands.append(_element("delete", _INET, _PAIRS, pair))
    if still != OPEN:
        return [*commands, _element("add", _INET, _PAIRS, [pair, _VERDICT[still]])]
    if _lookup(nft, _INET, _BRIDGES, record.bridge) is not None:
        commands.append(_element("delete", _INET, _BRIDGES, record.bridge))
    return commands


def _policy(record: Record) -> str:
    """What the bridge gets: the strictest that any of its containers asks for."""
    asked = firewall_record.bridge_policy(record.bridge)
    return record.policy if asked == OPEN or record.policy == ISOLATED else asked


def _forget(fits: Any) -> None:
    nft = nftables_if_installed()
    if nft is None:
        return
    for where, name in ((_INET, "forward4"), (_INET, "forward6"), (_BRIDGE, _PORTS)):
        command = {"list": {"set": {**where, "name": name}}}
        for item in nft.listed(f"list the set {name}", command) or ():
            for one in item.get("set", {}).get("elem", ()):
                element = one.get("elem", {}) if isinstance(one, dict) else {}
                if fits(element.get("comment", "")):
                    _delete(nft, where, name, element["val"])


def _delete(nft: Nftables, where: dict[str, Any], name: str, key: Any) -> None:
    try:
        nft.apply(f"remove {key} of the set {name}", _element("delete", where, name, key))
    except KernelError as error:
        # Another DEL was faster.
        if error.errno != errno.ENOENT:
            raise


def _lookup(nft: Nftables, where: dict[str, Any], name: str, key: Any) -> str | None:
    return nft.element(f"{where['family']} {where['table']}", name, _text(key))


def _is_labelled(nft: Nftables, where: dict[str, Any], name: str, key: Any, owner: str) -> bool:
    listing = _lookup(nft, where, name, key)
    return listing is not None and f'comment "{owner}' in listing


def _element(verb: str, where: dict[str, Any], name: str, value: Any) -> Command:
    return {verb: {"element": {**where, "name": name, "elem": [value]}}}


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
    commands = _chain_of(_INET)
    if any(record.port for record in listed):
        commands += _chain_of(_BRIDGE)
    return commands


def _chain_of(where: dict[str, Any]) -> list[Command]:
    bridged = where is _BRIDGE
    chain = {"name": _FORWARD, "type": "filter", "hook": "forward", "policy": "accept"}
    chain["prio"] = _BRIDGE_PRIORITY if bridged else 0  # type: ignore[assignment]
    return [
        {"add": {"table": {"family": where["family"], "name": where["table"]}}},
        *(_sets_of_ports() if bridged else _sets()),
        {"add": {"chain": {**where, **chain}}},
        # Flushed and filled again in the same transaction: adding alone would double the rules.
        {"flush": {"chain": {**where, "name": _FORWARD}}},
        *(
            {"add": {"rule": {**where, "chain": _FORWARD, "expr": rule}}}
            for rule in (_port_rules() if bridged else _rules())
        ),
    ]


def _sets() -> list[Command]:
    sets: dict[str, Any] = {f"forward{version}": of for version, of in _ADDRESS_TYPE.items()}
    sets[_BRIDGES] = "ifname"
    commands = [{"add": {"set": {**_INET, "name": name, "type": of}}} for name, of in sets.items()]
    pairs = {**_INET, "name": _PAIRS, "type": ["ifname", "ifname"], "map": "verdict"}
    return [
        *commands,
        {"add": {"map": pairs}},
        {"add": {"chain": {**_INET, "name": _ADMIN}}},
    ]


def _sets_of_ports() -> list[Command]:
    return [{"add": {"set": {**_BRIDGE, "name": _PORTS, "type": "ifname"}}}]


def _rules() -> list[list[dict[str, Any]]]:
    accept: dict[str, Any] = {"accept": None}
    names = {"concat": [_meta("iifname"), _meta("oifname")]}
    state = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
    isolated = [_match(_meta(one), f"@{_BRIDGES}") for one in ("iifname", "oifname")]
    containers = [
        [_match({"payload": {"protocol": protocol, "field": field}}, f"@forward{version}"), accept]
        for version, protocol in _PROTOCOL.items()
        for field in ("saddr", "daddr")
    ]
    return [
        [{"jump": {"target": _ADMIN}}],
        [state, accept],
        [_match({"ct": {"key": "status"}}, "dnat", "in"), accept],
        [{"vmap": {"key": names, "data": f"@{_PAIRS}"}}],
        [*isolated, {"drop": None}],
        *containers,
    ]


def _port_rules() -> list[list[dict[str, Any]]]:
    return [[_match(_meta(one), f"@{_PORTS}"), {"drop": None}] for one in ("iifname", "oifname")]


def _meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def _match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}
