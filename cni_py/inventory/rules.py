"""Published ports, masquerading and the firewall: what the kernel has, beside what records say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from .iptables_rules import IptablesRules, iptables_rules
from .model import CNI_PY, Allowed, Masquerade, Problem, Published
from .nft_rules import BACKEND, NftRules, nft_rules, ports_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_py.plugins import firewall_record, masquerade, port_mappings
    from cni_py.spec.attachment import Attachment

_FLUSHED = "the kernel does not have its {} any more: cni-py firewall restore brings it back"


class Rules(NamedTuple):
    """What there is, and what was noticed."""

    ports: tuple[Published, ...]
    masquerades: tuple[Masquerade, ...]
    allowed: tuple[Allowed, ...]


class RuleRecords(NamedTuple):
    """The records of rules."""

    ports: Sequence[port_mappings.Record]
    masquerades: Sequence[masquerade.Record]
    allowed: Sequence[firewall_record.Record]


def read_rules(records: RuleRecords, problems: list[Problem]) -> Rules:
    """Read everything; what records say and the kernel has not is noted."""
    nft = nft_rules(problems)
    old = iptables_rules(nft.tables, problems)
    found = Rules(
        tuple(_ports(nft, old, records.ports)),
        tuple(_masquerades(nft, old, records.masquerades)),
        tuple(_allowed(nft, old, records.allowed)),
    )
    problems += _flushed(found)
    return found


def _flushed(rules: Rules) -> Iterator[Problem]:
    for one in rules.ports:
        if not one.active:
            text = f"port {one}: {_FLUSHED.format('rule')}"
            yield Problem(subject=one.container_id, text=text, key=one.key)
    for what, listed in (("masquerading", rules.masquerades), ("firewall", rules.allowed)):
        for rule in listed:
            if not rule.active:
                text = f"{what} of {rule.address}: {_FLUSHED.format('rule')}"
                yield Problem(subject=rule.container_id, text=text, key=rule.key)


def _owner(attachment: Attachment | None, key: str) -> dict[str, Any]:
    if attachment is None:
        return {"key": key}
    own = {"container_id": attachment.container_id, "network": attachment.network}
    return {**own, "key": attachment.key}


def _ports(
    nft: NftRules, old: IptablesRules, records: Sequence[port_mappings.Record]
) -> Iterator[Published]:
    have = {_place(one): one for one in (*ports_in(nft.elements), *nft.reference_ports, *old.ports)}
    conditional = {
        one.owner_key for name in ("portif", "portifat") for version in (4, 6)
        for one in nft.named(f"{name}{version}")
    }  # fmt: skip
    # A verdict's element has no comment of the port's own: its chain has the owner's key.
    for record in records:
        for one in record.mappings:
            known = Published(
                version=one.version,
                protocol=one.protocol,
                host_ip=one.host_ip,
                host_port=one.host_port,
                address=one.address,
                container_port=one.container_port,
                backend=record.backend,
                maker=CNI_PY,
                known=True,
                **_owner(record.attachment, ""),
            )
            seen = have.pop(_place(known), None)
            active = seen is not None and (seen.address, seen.container_port) == (
                one.address,
                one.container_port,
            )
            active = active or (
                bool(record.conditions.get(one.version)) and record.attachment.key in conditional
            )
            yield replace(known, active=active)
    yield from have.values()


def _place(one: Published) -> tuple[object, ...]:
    return one.backend, one.version, one.protocol, one.host_ip, one.host_port


def _masquerades(
    nft: NftRules, old: IptablesRules, records: Sequence[masquerade.Record]
) -> Iterator[Masquerade]:
    have = {
        (BACKEND, str(one.key)): Masquerade(
            address=str(one.key), backend=BACKEND, maker=CNI_PY, **_owner(one.owner, one.owner_key)
        )
        for version in (4, 6)
        for one in nft.named(f"masq{version}")
    }
    have |= {(one.backend, one.address): one for one in old.masquerades}
    for record in records:
        for address in (one.partition("/")[0] for one in record.addresses):
            seen = have.pop((record.backend, address), None)
            yield Masquerade(
                address=address,
                backend=record.backend,
                maker=CNI_PY,
                active=seen is not None,
                **_owner(record.attachment, ""),
            )
    yield from have.values()


def _allowed(
    nft: NftRules, old: IptablesRules, records: Sequence[firewall_record.Record]
) -> Iterator[Allowed]:
    have = {
        (BACKEND, str(one.key)): Allowed(
            address=str(one.key), backend=BACKEND, **_owner(one.owner, one.owner_key)
        )
        for version in (4, 6)
        for one in nft.named(f"forward{version}")
    }
    have |= {(one.backend, one.address): one for one in old.allowed}
    seen = set(have)
    for record in records:
        for address in (one.partition("/")[0] for one in record.addresses):
            place = (record.backend, address)
            have.pop(place, None)
            yield Allowed(
                address=address,
                backend=record.backend,
                policy=record.policy,
                bridge=record.bridge,
                # firewalld's zones are its own: nothing of ours says whether they are there.
                active=place in seen or record.backend == "firewalld",
                **_owner(record.attachment, ""),
            )
    yield from have.values()
