"""Port mappings in iptables: the reference's chains, rules, order and comments (plugins.md 6.1.3).

    -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT        and so in OUTPUT
    -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment <owner> -m multiport --dports 8080 -j CNI-DN-X
    -A CNI-DN-X -s 10.1.2.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
    -A CNI-DN-X -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
    -A CNI-DN-X -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.2.2:80
    -A CNI-HOSTPORT-SETMARK -m comment --comment ... -j MARK --set-xmark 0x2000/0x2000
    -I POSTROUTING 1 -m comment --comment ... -j CNI-HOSTPORT-MASQ
    -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE

An ADD or DEL is one `iptables-restore` an IP version. What all share is removed with the last.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from hashlib import sha512
from typing import TYPE_CHECKING

from cni_py.kernel import interruption, iptables, lock, markers
from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError

from . import interface
from .port_mappings import RECORDS, SET_MARK_CHAIN
from .records import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.collection import Collection

    from .port_mappings import Mapped, Record

_NAT, _RAW = "nat", "raw"
_DNAT, _MASQ = "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ"
_IN_USE = f"{RECORDS.folder}/iptables"
_CHAIN_BYTES = 28
_MULTIPORT_PORTS = 15
_COMMENT_BYTES = 255
_VERSIONS = (4, 6)
_ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_ENTRY = "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"
# Of a neighbour the kernel would drop it, were it still for 127.0.0.1 when it is routed.
_FROM_HOST = "-m addrtype --src-type LOCAL"
_MASQ_ENTRY = '-m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ'
_OWNER = re.compile(r'dnat name: \\"(?P<network>[^"\\]*)\\" id: \\"(?P<id>[^"\\]*)\\"')


def set_up(record: Record) -> None:
    """Forward the record's ports. Raises CniError.

    The first attempt is all that happens once the shared chains are there.
    """
    chain = chain_of(record.attachment)
    with sharing():
        markers.touch(_IN_USE)
    for version in _versions(record):
        what = f"map host ports of container {record.container_id}"
        marks, own = _mark_lines(record), [f"-N {chain}", *_lines(record, version)]
        try:
            iptables.restore(version, _NAT, [*marks, *own], what)
        except iptables.IptablesError:
            have = iptables.listing(version, _NAT)
            shared = _missing(have, with_marks=bool(marks))
            leftover = _removal(have, chain)
            iptables.restore(version, _NAT, [*shared, *leftover, *marks, *own], what)


def tear_down(record: Record) -> None:
    """Take away what `set_up` has added. Raises CniError."""
    chain = chain_of(record.attachment)
    for version in _versions(record):
        what = f"unmap host ports of container {record.container_id}"
        entries = [one.replace("-A ", "-D ", 1) for one in _entries(record, version)]
        try:
            iptables.restore(version, _NAT, [*entries, f"-F {chain}", f"-X {chain}"], what)
        except iptables.IptablesError:
            _forget(record.attachment, version)


def forget(attachment: Attachment) -> None:
    """Take away what has the attachment's chain name; the reference plugin's too."""
    for version in _VERSIONS:
        if iptables.available(version):
            _forget(attachment, version)


@contextmanager
def sharing() -> Iterator[None]:
    """Let what all share neither come nor go while the block runs. Raises CniError 11."""
    with lock.on_folder(RECORDS.folder):
        yield


def is_in_use() -> bool:
    """Whether `set_up` has been called since `remove_shared` ended."""
    return os.path.exists(_IN_USE)


def remove_shared() -> None:
    """Take away what all shared, where no container's rules are left in it (W-PM8).

    For `sharing`, when nobody holds a port.
    """
    for version in filter(iptables.available, _VERSIONS):
        rules = iptables.rules(version, _NAT, _DNAT)
        if rules is None or rules:
            continue
        have = iptables.listing(version, _NAT)
        lines = [
            line.replace("-A ", "-D ", 1)
            for line in have
            if line.startswith("-A ") and line.endswith((f"-j {_DNAT}", f"-j {_MASQ}"))
        ]
        for chain in (_MASQ, SET_MARK_CHAIN):
            lines += [f"-F {chain}", f"-X {chain}"] if f"-N {chain}" in have else []
        try:
            # Not flushed: if another container has come meanwhile, nothing of this is done.
            iptables.restore(version, _NAT, [*lines, f"-X {_DNAT}"], f"remove the chain {_DNAT}")
        except iptables.IptablesError:
            if not iptables.rules(version, _NAT, _DNAT):
                raise
    # Last: a call that is killed before leaves it to the next one.
    with suppress(FileNotFoundError):
        os.unlink(_IN_USE)


def maps_any(version: int) -> bool:
    """Whether any port of an IP version is mapped."""
    return iptables.available(version) and bool(iptables.rules(version, _NAT, _DNAT))


def collect(collection: Collection) -> None:
    """Take away the chains of the containers that the collection takes."""
    for version in _VERSIONS:
        if not iptables.available(version):
            continue
        for line in iptables.rules(version, _NAT, _DNAT) or ():
            owner = _OWNER.search(line)
            if owner is None or owner["network"] != collection.network:
                continue
            interruption.point()
            attachment = Attachment(collection.network, owner["id"], "")
            what = f"iptables chain {chain_of(attachment)}, IPv{version}"
            if collection.takes_of_container(what, owner["id"]):
                _forget(attachment, version)


def check(record: Record) -> None:
    """Whether all is there as ADD has set it. Raises CniError naming the first difference."""
    for version in _versions(record):
        _check(record, version, iptables.listing(version, _NAT))


def _check(record: Record, version: int, have: list[str]) -> None:
    chain = chain_of(record.attachment)
    rules = _rules(record, version)
    if record.sandbox is NOWHERE:
        # The reference's, which leads on what others send to 127.0.0.1 too.
        rules = [one.replace(f" {_FROM_HOST}", "") for one in rules]
    wanted = [*_shared_rules(with_marks=bool(_mark_lines(record))), *_mark_rules(record), *rules]
    for line in wanted:
        if line not in have:
            raise interface.differs(f"rules of iptables, IPv{version},", line, "no such rule")
    own = [line for line in have if line.startswith(f"-A {chain} ")]
    if own != rules:
        raise interface.differs(f"chain {chain}", "the container's rules", "; ".join(own))
    for ports, protocol in _blocks(record):
        if not any(
            line.startswith(f"-A {_DNAT} ")
            and f" -p {protocol} " in line
            and f" --dports {ports} " in line
            and line.endswith(f"-j {chain}")
            for line in have
        ):
            what = f"rules of the chain {_DNAT}"
            raise interface.differs(what, f"{protocol} {ports} to {chain}", "no such rule")


def _is_intact(record: Record, version: int, have: list[str]) -> bool:
    try:
        _check(record, version, have)
    except CniError:
        return False
    return True


def restored(records: Iterable[Record]) -> dict[tuple[int, str], list[str]]:
    """The lines by (IP version, table) that bring the records' rules back, whatever is left."""
    found: dict[tuple[int, str], list[str]] = {}
    have: dict[int, list[str]] = {}
    for record in records:
        chain = chain_of(record.attachment)
        for version in _versions(record):
            if version not in have:
                have[version] = iptables.listing(version, _NAT)
            if _is_intact(record, version, have[version]):
                continue
            lines = found.setdefault((version, _NAT), [])
            there = [
                *have[version],
                *(one.replace("-I POSTROUTING 1", "-A POSTROUTING") for one in lines),
            ]
            lines += _missing(there, with_marks=bool(_mark_lines(record)))
            lines += _removal(have[version], chain)
            lines += [*_mark_lines(record), f"-N {chain}", *_lines(record, version)]
    return found


def guard(name: str) -> None:
    """Drop what comes in through the interface from or to 127.0.0.0/8. Raises CniError."""
    missing = missing_guards(name)
    if missing:
        iptables.restore(4, _RAW, missing, f"keep packets to 127.0.0.0/8 out of {name}")


def missing_guards(name: str) -> list[str]:
    """The lines of `guard` that are not there."""
    have = iptables.rules(4, _RAW, "PREROUTING") or []
    return [line for line in _guard_lines(name) if line not in have]


def unguard(name: str) -> None:
    """The contrary. Raises CniError."""
    have = iptables.rules(4, _RAW, "PREROUTING") or []
    lines = [one.replace("-A", "-D", 1) for one in _guard_lines(name) if one in have]
    if lines:
        iptables.restore(4, _RAW, lines, f"let packets in through {name}")


def is_guarded(name: str) -> bool:
    """Whether `guard`'s rules are there."""
    return not missing_guards(name)


def _guard_lines(name: str) -> list[str]:
    """The rules of `guard`, as iptables lists them."""
    comment = f'-m comment --comment "cni-py: localhost through {name}" -j DROP'
    return [
        f"-A PREROUTING -d 127.0.0.0/8 -i {name} {comment}",
        f"-A PREROUTING -s 127.0.0.0/8 -i {name} {comment}",
    ]


def chain_of(attachment: Attachment) -> str:
    """The container's chain (H-02): its name has no interface in it."""
    text = f"{attachment.network}{attachment.container_id}"
    digest = sha512(text.encode(errors="surrogateescape")).hexdigest()
    return f"CNI-DN-{digest}"[:_CHAIN_BYTES]


def _shared_rules(*, with_marks: bool) -> list[str]:
    entries = [f"-A PREROUTING {_ENTRY}", f"-A OUTPUT {_ENTRY}"]
    return [*entries, f"-A POSTROUTING {_MASQ_ENTRY}"] if with_marks else entries


def _missing(have: list[str], *, with_marks: bool) -> list[str]:
    """What makes the shared chains, and the jumps to them, as far as they are not there."""
    chains = [SET_MARK_CHAIN, _MASQ, _DNAT] if with_marks else [_DNAT]
    lines = [f"-N {one}" for one in chains if f"-N {one}" not in have]
    rules = [one for one in _shared_rules(with_marks=with_marks) if one not in have]
    return [*lines, *(one.replace("-A POSTROUTING", "-I POSTROUTING 1") for one in rules)]


def _mark_rules(record: Record) -> list[str]:
    if not record.snat or record.mark_chain != SET_MARK_CHAIN:
        return []
    mark = f"{1 << record.mark_bit:#x}"
    comment = '-m comment --comment "CNI portfwd masquerade mark"'
    return [
        f"-A {SET_MARK_CHAIN} {comment} -j MARK --set-xmark {mark}/{mark}",
        f"-A {_MASQ} -m mark --mark {mark}/{mark} -j MASQUERADE",
    ]


def _mark_lines(record: Record) -> list[str]:
    """The mark's rules, in place of what there was: a changed bit holds for all at once (W-PM8)."""
    rules = _mark_rules(record)
    return [f"-F {SET_MARK_CHAIN}", f"-F {_MASQ}", *rules] if rules else []


def _lines(record: Record, version: int) -> list[str]:
    return [*_rules(record, version), *_entries(record, version)]


def _rules(record: Record, version: int) -> list[str]:
    """The container's chain, in the form in which iptables lists it."""
    chain, lines = chain_of(record.attachment), []
    subnet = _ANYWHERE[version] if record.masq_all else str(record.address(version).network)
    for one in record.of(version):
        ports = f"-p {one.protocol} -m {one.protocol} --dport {one.host_port}"
        destination = f"-d {one.host_ip}/{_bits(version)} " if one.host_ip else ""
        if record.snat:
            source = "" if record.masq_all else f"-s {subnet} "
            lines.append(f"-A {chain} {source}{destination}{ports} -j {record.mark_chain}")
        if record.snat and version == 4 and not record.masq_all:
            local = f"-s 127.0.0.1/32 {destination}{ports}"
            lines.append(f"-A {chain} {local} -j {record.mark_chain}")
        own = f" {_FROM_HOST}" if one.host_ip.startswith("127.") else ""
        dnat = f"{destination}{ports}{own} -j DNAT --to-destination {_target(one)}"
        lines.append(f"-A {chain} {dnat}")
    return lines


def _entries(record: Record, version: int) -> list[str]:
    comment = iptables.quoted(_comment(record.attachment))
    conditions = "".join(f" {iptables.quoted(one)}" for one in record.conditions.get(version, ()))
    return [
        f"-A {_DNAT} -m comment --comment {comment} -m multiport -p {protocol}"
        f" --destination-ports {ports}{conditions} -j {chain_of(record.attachment)}"
        for ports, protocol in _blocks(record)
    ]


def _versions(record: Record) -> list[int]:
    """The IP versions with a chain: those of the container, whatever they are mapped for."""
    return sorted({4 if "." in one else 6 for one in record.addresses})


def _blocks(record: Record) -> list[tuple[str, str]]:
    """At most 15 ports of one protocol a rule, protocols sorted, ports in the order given.

    Those of the other IP version too, as the reference has them: it would not know its own rules.
    """
    by_protocol: dict[str, dict[int, None]] = {}
    for one in record.mappings:
        by_protocol.setdefault(one.protocol, {})[one.host_port] = None
    found = []
    for protocol, numbers in sorted(by_protocol.items()):
        ports = list(map(str, numbers))
        firsts = range(0, len(ports), _MULTIPORT_PORTS)
        found += [(",".join(ports[one : one + _MULTIPORT_PORTS]), protocol) for one in firsts]
    return found


def _comment(attachment: Attachment) -> str:
    text = f'dnat name: "{attachment.network}" id: "{attachment.container_id}"'
    return text if len(text) <= _COMMENT_BYTES else f"{text[: _COMMENT_BYTES - 3]}..."


def _target(one: Mapped) -> str:
    address = f"[{one.address}]" if one.version == 6 else one.address
    return f"{address}:{one.container_port}"


def _bits(version: int) -> int:
    return 32 if version == 4 else 128


def _removal(have: list[str], chain: str) -> list[str]:
    """What takes a container's chain away, and the rules that lead to it."""
    if f"-N {chain}" not in have:
        return []
    jumps = [line for line in have if line.startswith("-A ") and line.endswith(f"-j {chain}")]
    deletions = [line.replace("-A ", "-D ", 1) for line in jumps]
    return [*deletions, f"-F {chain}", f"-X {chain}"]


def _forget(attachment: Attachment, version: int) -> None:
    chain = chain_of(attachment)
    if iptables.rules(version, _NAT, chain) is None:
        return
    have = [f"-N {chain}", *(iptables.rules(version, _NAT, _DNAT) or ())]
    what = f"unmap host ports of container {attachment.container_id}"
    iptables.restore(version, _NAT, _removal(have, chain), what)
