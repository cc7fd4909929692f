"""Port mappings in nftables: static chains, and per container only elements of maps.

    table inet cni_py {
      map port4 { type inet_proto . inet_service : ipv4_addr . inet_service }
                                                   # tcp . 8080 comment "<owner>" : 10.1.2.2 . 80
      map portat4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
      map portif4 { type inet_proto . inet_service : verdict }       # the same with conditions:
      map portifat4 { type ipv4_addr . inet_proto . inet_service : verdict }
                                                   # tcp . 8081 : jump port_<attachment>_4
      map portsnat4 { type ipv4_addr : verdict }   # 10.1.2.2 : goto portsnat_<hash>
      chain portprerouting {
        type nat hook prerouting priority dstnat + 10
        ip daddr 127.0.0.0/8 return
        fib daddr type local jump portlookup
      }
      chain portoutput {
        type nat hook output priority dstnat + 10
        ip6 daddr ::1 return
        fib daddr type local jump portlookup
      }
      chain portlookup {
        ip daddr . meta l4proto . th dport vmap @portifat4
        meta nfproto ipv4 meta l4proto . th dport vmap @portif4
        meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @portat4
        meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @port4
      }
      chain portpostrouting {
        type nat hook postrouting priority srcnat
        ct status dnat ip daddr vmap @portsnat4
      }
      chain portsnat_<hash> {                      # one for all containers of a subnet
        ip saddr { 10.1.2.0/24, 127.0.0.0/8 } masquerade
      }
    }

and likewise for IPv6. Ours come after other programs' chains of the usual priority, so that a
mapping never takes what a service of the cluster has (CVE-2019-9946). What comes in from elsewhere
for 127.0.0.1 is not led on: the kernel drops it only where it still has that address. ::1 is left
alone: the kernel takes no answer to it that comes in through an interface, and a client that is
refused at once goes on to 127.0.0.1.
"""

from __future__ import annotations

import errno
from hashlib import sha512
from typing import TYPE_CHECKING, Any

from cni_py.kernel.errors import KernelError
from cni_py.kernel.nft_table import (
    ADDRESS_TYPE,
    INET,
    PROTOCOL,
    field,
    is_of,
    labelled,
    match,
    meta,
)
from cni_py.kernel.nftables import Command, in_words, nftables
from cni_py.spec.errors import CniError, Code

from . import interface
from .port_mappings import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.kernel.nftables import Nftables
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.collection import Collection

    from .port_mappings import Record

_AFTER_DSTNAT, _SRCNAT, _RAW = -90, 100, -300
_LOOPBACK = {4: ("127.0.0.0", 8), 6: ("::1", 128)}
_DIGITS = 16
_VERSIONS = (4, 6)
_LOOKUPS = ("portifat", "portif", "portat", "port")
_MAPS = (*_LOOKUPS, "portsnat")
_GUARDED = "portlocalnet"
_WAS_OFF = "route_localnet was 0"
_REFERENCE_TABLE = "cni_hostport"
MAPPING_CHAIN = "portlookup"
REFERENCE_CHAIN = "hostports"
_REFERENCE_CHAINS = (REFERENCE_CHAIN, "hostip_hostports", "masquerading")

_NUMBER = meta("l4proto")
_PORT: dict[str, Any] = {"payload": {"protocol": "th", "field": "dport"}}


def set_up(record: Record, is_dead: Callable[[str], bool]) -> None:
    """Forward the record's ports. Raises CniError.

    The first attempt is all that happens once the chains are there. An element in the way of one
    who `is_dead` (asked with the owner's label) is replaced.
    """
    nft = nftables()
    what = f"map host ports of container {record.container_id}"
    own, shared = _condition_chains(record), _snat_chains(record)
    elements = [_element("create", record.attachment, *one) for one in _elements(record)]
    try:
        nft.apply(what, *own, *elements)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST):
            raise
    else:
        return
    nft.apply(what, *_base())
    stale = [one for one in _elements(record) if _is_in_the_way(nft, *one[:2], is_dead)]
    replaced = [INET.element("delete", *one[:2]) for one in stale]
    nft.apply(what, *_base(), *shared, *own, *replaced, *elements)


def parse_conditions(record: Record) -> dict[int, list[dict[str, Any]]]:
    """The conditions as nftables itself writes them, which is also how they are set anew.

    They are tried in the container's own chain, which nothing leads to yet. Raises CniError 7.
    """
    nft = nftables()
    parsed = {}
    for version in record.versions:
        tokens = record.conditions.get(version)
        if not tokens:
            continue
        chain = _condition_chain(record.attachment, version)
        text = " ".join(tokens)
        lines = (
            f"add table {INET}",
            f"add chain {INET} {chain}",
            f"flush chain {INET} {chain}",
            f"add rule {INET} {chain} {text} accept",
        )
        try:
            nft.apply(f"read conditionsV{version}", in_words("\n".join(lines)))
        except KernelError as error:
            msg = f"conditionsV{version} is not understood by nftables: {text}"
            raise CniError(Code.INVALID_CONFIG, msg, error.details) from error
        rules = _rules(nft, chain)
        if len(rules) != 1 or rules[0][-1:] != [{"accept": None}]:
            msg = f"conditionsV{version} is more than the conditions of one rule: {text}"
            raise CniError(Code.INVALID_CONFIG, msg)
        parsed[version] = rules[0][:-1]
    return parsed


def tear_down(record: Record) -> None:
    """Take away what `set_up` has added; what is gone or another's is left. Raises CniError."""
    nft = nftables()
    attachment = record.attachment
    own = [one for one in _elements(record) if _is_own(nft, attachment, *one[:2])]
    chains = [
        _condition_chain(attachment, version)
        for version in record.versions
        if record.conditions.get(version)
    ]
    deletions = [INET.element("delete", *one[:2]) for one in own]
    try:
        what = f"unmap host ports of container {record.container_id}"
        nft.apply(what, *deletions, *_removal(chains))
    except KernelError as error:
        # A chain is gone, or an element that the record does not know leads to it.
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise
        forget(attachment)


def forget(attachment: Attachment) -> None:
    """Take away whatever has the attachment's label. Raises CniError."""
    _sweep(nftables(), lambda label, _: label.startswith(attachment.key))
    _remove_chains(lambda name: name.startswith(_chain_prefix(attachment)))


def collect(collection: Collection) -> None:
    """Take away what has the label of an attachment that the collection takes."""
    _sweep(nftables(), lambda label, what: collection.takes(what, label))
    _remove_chains(lambda name: collection.takes(f"nftables chain {name}", _key_of_chain(name)))


def check(record: Record) -> None:
    """Whether all is there as ADD has set it. Raises CniError naming the first difference."""
    nft = nftables()
    for name, key, value in _elements(record):
        listing = INET.listing(nft, name, _text(key))
        what = f"mapping {_text(key)} in the map {name}"
        if listing is None:
            raise interface.differs(what, _text(value), "nothing")
        if not is_of(listing, record.attachment.key):
            raise interface.differs(f"owner of the {what}", record.attachment.key, "another")
        if f": {_text(value)}" not in listing:
            found = listing.rpartition('" : ')[2].split("}")[0].strip()
            raise interface.differs(what, _text(value), found)
    _check_chains(nft, (*_base_rules(), *_snat_chains(record), *_condition_chains(record)))


def restored(records: Iterable[Record], guarded: dict[str, bool]) -> list[Command]:
    """The commands that bring the records' rules back, whatever is left of them.

    `guarded` are the interfaces to guard, each with what `guard` is told of it.
    """
    nft = nftables()
    commands = list(_base())
    have = {name: dict(_labelled(nft, name)) for name in _every_map()}
    for record in records:
        commands += [*_condition_chains(record), *_snat_chains(record)]
        for name, key, value in _elements(record):
            if _text(key) in have[name]:
                commands.append(INET.element("delete", name, key))
            commands.append(_element("add", record.attachment, name, key, value))
    return [*commands, *(_guarding(name, was_off=guarded[name]) for name in sorted(guarded))]


def guard(name: str, *, was_off: bool) -> None:
    """Drop what comes in through the interface from or to 127.0.0.0/8. Raises CniError.

    That `was_off`, which is route_localnet, is noted with it.
    """
    nft = nftables()
    what = f"keep packets to 127.0.0.0/8 out of {name}"
    try:
        nft.apply(what, _guarding(name, was_off=was_off))
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        nft.apply(what, *_base(), _guarding(name, was_off=was_off))


def unguard(name: str) -> None:
    """The contrary. Raises CniError."""
    try:
        nftables().apply(f"let packets in through {name}", INET.element("delete", _GUARDED, name))
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise


def is_guarded(name: str) -> bool:
    """Whether what comes in through the interface is looked at."""
    nft = nftables()
    return INET.listing(nft, _GUARDED, f'"{name}"') is not None


def guarded() -> list[tuple[str, bool]]:
    """The guarded interfaces, each with what `guard` was told of it."""
    found = INET.elements(nftables(), "set", _GUARDED)
    return [(name, comment == _WAS_OFF) for name, comment in found]


def maps_any(version: int) -> bool:
    """Whether any port of an IP version is mapped."""
    nft = nftables()
    return any(_labelled(nft, f"{name}{version}") for name in _LOOKUPS)


def chains_named(names: Iterable[str]) -> bool:
    """Whether one of the chains is there, in whatever table: of iptables too, over nf_tables."""
    wanted = set(names)
    listed = nftables().listed("list the chains", {"list": {"chains": None}}) or ()
    return any(one.get("chain", {}).get("name") in wanted for one in listed)


def delete_reference_rules(attachment: Attachment) -> None:
    """The reference plugin's own nftables rules: each has the container's id (plugins.md 6.1.4)."""
    nft = nftables()
    for family in PROTOCOL.values():
        where = {"family": family, "table": _REFERENCE_TABLE}
        commands: list[Command] = []
        for chain in _REFERENCE_CHAINS:
            listed = nft.listed("list a chain", {"list": {"chain": {**where, "name": chain}}})
            for item in listed or ():
                rule = item.get("rule", {})
                if rule.get("comment") == attachment.container_id:
                    handle = {**where, "chain": chain, "handle": rule["handle"]}
                    commands.append({"delete": {"rule": handle}})
        if commands:
            nft.apply("delete the reference plugin's rules", *commands)


# What there is for all.


def _base() -> list[Command]:
    """The table, maps, sets and chains; their rules are flushed and filled again at once."""
    words = [f"add table {INET}"]
    for version, address in ADDRESS_TYPE.items():
        port = "inet_proto . inet_service"
        to = f"{address} . inet_service"
        words += [
            f"add map {INET} port{version} {{ type {port} : {to} ; }}",
            f"add map {INET} portat{version} {{ type {address} . {port} : {to} ; }}",
            f"add map {INET} portif{version} {{ type {port} : verdict ; }}",
            f"add map {INET} portifat{version} {{ type {address} . {port} : verdict ; }}",
            f"add map {INET} portsnat{version} {{ type {address} : verdict ; }}",
        ]
    words.append(f"add set {INET} {_GUARDED} {{ type ifname ; }}")
    chains = (
        INET.hook("portprerouting", "nat", "prerouting", _AFTER_DSTNAT),
        INET.hook("portoutput", "nat", "output", _AFTER_DSTNAT),
        INET.hook("portpostrouting", "nat", "postrouting", _SRCNAT),
        INET.hook("portguard", "filter", "prerouting", _RAW),
        INET.named("portlookup"),
    )
    return [
        in_words("\n".join(words)),
        *({"add": {"chain": one}} for one in chains),
        *({"flush": {"chain": INET.named(one["name"])}} for one in chains),
        *_base_rules(),
    ]


def _base_rules() -> list[Command]:
    local = match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    look_up = (local, {"jump": {"target": "portlookup"}})
    rules = [
        INET.rule(
            "portprerouting", match(field(4, "daddr"), _prefix(*_LOOPBACK[4])), {"return": None}
        ),
        INET.rule("portprerouting", *look_up),
        INET.rule("portoutput", match(field(6, "daddr"), "::1"), {"return": None}),
        INET.rule("portoutput", *look_up),
    ]
    supported = match(_NUMBER, {"set": list(PROTOCOLS)})
    for version, protocol in PROTOCOL.items():
        own = match(meta("nfproto"), f"ipv{version}")
        port = {"concat": [_NUMBER, _PORT]}
        port_at = {"concat": [field(version, "daddr"), _NUMBER, _PORT]}
        for keys, name in ((port_at, "portifat"), (port, "portif")):
            verdict = {"vmap": {"key": keys, "data": f"@{name}{version}"}}
            rules.append(INET.rule("portlookup", *((own,) if keys is port else ()), verdict))
        for keys, name in ((port_at, "portat"), (port, "port")):
            to = {"map": {"key": keys, "data": f"@{name}{version}"}}
            dnat = {"dnat": {"family": protocol, "addr": to}}
            rules.append(INET.rule("portlookup", supported, dnat))
        translated = match({"ct": {"key": "status"}}, "dnat", "in")
        verdict = {"vmap": {"key": field(version, "daddr"), "data": f"@portsnat{version}"}}
        rules.append(INET.rule("portpostrouting", translated, verdict))
    return [*rules, *_guard_rules()]


def _guarding(name: str, *, was_off: bool) -> Command:
    value = {"elem": {"val": name, "comment": _WAS_OFF}} if was_off else name
    return INET.element("add", _GUARDED, value)


def _guard_rules() -> list[Command]:
    through = match(meta("iifname"), f"@{_GUARDED}")
    loopback = _prefix(*_LOOPBACK[4])
    return [
        INET.rule("portguard", through, match(field(4, side), loopback), {"drop": None})
        for side in ("daddr", "saddr")
    ]


# What there is for a container.


def _elements(record: Record) -> list[tuple[str, Any, Any]]:
    """The (map, key, value) of each element."""
    found: list[tuple[str, Any, Any]] = []
    for one in record.mappings:
        port = [one.protocol, one.host_port]
        key = {"concat": [one.host_ip, *port] if one.host_ip else port}
        at = "at" if one.host_ip else ""
        if record.conditions.get(one.version):
            chain = _condition_chain(record.attachment, one.version)
            found.append((f"portif{at}{one.version}", key, {"jump": {"target": chain}}))
        else:
            to = {"concat": [one.address, one.container_port]}
            found.append((f"port{at}{one.version}", key, to))
    for version in record.versions if record.snat else ():
        verdict = {"goto": {"target": _snat_chain(record, version)}}
        found.append((f"portsnat{version}", str(record.address(version).ip), verdict))
    return found


def _condition_chains(record: Record) -> list[Command]:
    """The container's own chains, if it has conditions: what they do not fit goes on."""
    commands: list[Command] = []
    for version in record.versions:
        if not record.conditions.get(version):
            continue
        name = _condition_chain(record.attachment, version)
        commands += [{"add": {"chain": INET.named(name)}}, {"flush": {"chain": INET.named(name)}}]
        for one in record.of(version):
            at = [match(field(version, "daddr"), one.host_ip)] if one.host_ip else []
            ports = [match(_NUMBER, one.protocol), match(_PORT, one.host_port)]
            target = {"addr": one.address, "port": one.container_port}
            dnat = {"dnat": {"family": PROTOCOL[version], **target}}
            conditions = record.parsed.get(version, [])
            commands.append(INET.rule(name, *conditions, *at, *ports, dnat))
    return commands


def _snat_chains(record: Record) -> list[Command]:
    commands: list[Command] = []
    for version in record.versions if record.snat else ():
        name = _snat_chain(record, version)
        sources = {"set": [_prefix(*one) for one in _sources(record, version)]}
        only = [] if record.masq_all else [match(field(version, "saddr"), sources)]
        commands += [
            {"add": {"chain": INET.named(name)}},
            {"flush": {"chain": INET.named(name)}},
            INET.rule(name, *only, {"masquerade": None}),
        ]
    return commands


def _sources(record: Record, version: int) -> list[tuple[str, int]]:
    own = (one.partition("/") for one in record.sources)
    found = {(address, int(length)) for address, _, length in own
        if (":" in address) == (version == 6)}  # fmt: skip
    return sorted({*found, _LOOPBACK[version]})


def _snat_chain(record: Record, version: int) -> str:
    if record.masq_all:
        return f"portsnat_all{version}"
    text = str(_sources(record, version)).encode()
    return f"portsnat_{sha512(text).hexdigest()[:_DIGITS]}"


def _key_of_chain(name: str) -> str:
    return "-".join(name.split("_")[1:3])


def _chain_prefix(attachment: Attachment) -> str:
    return f"port_{attachment.key.replace('-', '_')}_"


def _condition_chain(attachment: Attachment, version: int) -> str:
    return f"{_chain_prefix(attachment)}{version}"


# Commands and listings.


def _prefix(address: str, length: int) -> Any:
    if length in (32, 128) and (":" in address) == (length == 128):
        return address
    return {"prefix": {"addr": address, "len": length}}


def _element(verb: str, owner: Attachment, name: str, key: Any, value: Any) -> Command:
    return INET.element(verb, name, [labelled(key, owner), value])


def _removal(chains: Iterable[str]) -> list[Command]:
    named = [{"chain": INET.named(one)} for one in chains]
    return [*({"flush": one} for one in named), *({"delete": one} for one in named)]


def _text(value: Any) -> str:
    """A key or value as nft(8) writes it."""
    if isinstance(value, dict):
        if "concat" in value:
            return " . ".join(map(str, value["concat"]))
        ((verdict, where),) = value.items()
        return f"{verdict} {where['target']}"
    return str(value)


def _is_own(nft: Nftables, attachment: Attachment, name: str, key: Any) -> bool:
    return is_of(INET.listing(nft, name, _text(key)), attachment.key)


def _is_in_the_way(nft: Nftables, name: str, key: Any, is_dead: Callable[[str], bool]) -> bool:
    """Whether there is an element of that key. Raises CniError if its owner lives."""
    listing = INET.listing(nft, name, _text(key))
    if listing is None:
        return False
    label = listing.partition('comment "')[2].partition('"')[0]
    if not is_dead(label):
        msg = f"{_text(key)} is already mapped"
        raise CniError(Code.INTERNAL, msg, f"to {label or 'somebody else'}")
    return True


def _every_map() -> list[str]:
    return [f"{name}{version}" for name in _MAPS for version in _VERSIONS]


def _labelled(nft: Nftables, name: str) -> list[tuple[str, str]]:
    """The (key, label) of every element of a map."""
    return [(_text(key), label) for key, label in INET.elements(nft, "map", name)]


def _sweep(nft: Nftables, is_unwanted: Callable[[str, str], bool]) -> None:
    for name in _every_map():
        for key, label in _labelled(nft, name):
            if is_unwanted(label, f"element {key} of the nftables map {name}"):
                value: Any = {"concat": key.split(" . ")} if " . " in key else key
                INET.delete_element(nft, f"delete {key} of the map {name}", name, value)


def _remove_chains(is_unwanted: Callable[[str], bool]) -> None:
    nft = nftables()
    listed = nft.listed("list the chains", {"list": {"chains": None}}) or ()
    chains = [one["chain"] for one in listed if "chain" in one]
    names = [
        one["name"]
        for one in chains
        if (one["family"], one["table"]) == INET
        and one["name"].startswith("port_")
        and is_unwanted(one["name"])
    ]
    if names:
        nft.apply("remove chains with conditions", *_removal(names))


def _rules(nft: Nftables, chain: str) -> list[list[dict[str, Any]]]:
    listed = nft.listed(f"list the chain {chain}", {"list": {"chain": INET.named(chain)}}) or ()
    return [one["rule"]["expr"] for one in listed if "rule" in one]


def _check_chains(nft: Nftables, commands: Iterable[Command]) -> None:
    expected: dict[str, list[Any]] = {}
    for command in commands:
        rule = command.get("add", {}).get("rule")
        if rule:
            expected.setdefault(rule["chain"], []).append(_essence(rule["expr"]))
    for chain, rules in expected.items():
        have = [_essence(one) for one in _rules(nft, chain)]
        if have != rules:
            shown, found = ("; ".join(" ".join(one) for one in both) for both in (rules, have))
            raise interface.differs(f"rules of the chain {chain}", shown, found or "none")


def _essence(value: Any) -> list[str]:
    """What a rule refers to and does: how the rest is written is up to libnftables' release."""
    if isinstance(value, str):
        return [value] if value.startswith("@") else []
    if isinstance(value, list):
        return [one for each in value for one in _essence(each)]
    if not isinstance(value, dict):
        return []
    found = []
    for key, inner in value.items():
        if key in ("masquerade", "drop", "return", "dnat"):
            found.append(key)
        if key in ("target", "addr", "port") and isinstance(inner, (str, int)):
            found.append(str(inner))
        else:
            found += _essence(inner)
    return found
