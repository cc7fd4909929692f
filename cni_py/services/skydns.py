"""Instances as records of SkyDNS, which CoreDNS's plugin etcd serves; pure.

The name `web.cluster.internal` is looked for below `/skydns/internal/cluster/web/`, and whatever is
there answers it: A and AAAA with each `host`, SRV with each `port` and `weight`. A record has one
host, so an instance has a key for each of its addresses:

    /skydns/internal/cluster/SERVICE/ID/NUMBER
    {"host": "10.1.0.2", "port": 80, "priority": 10, "weight": 1, "ttl": 5, "CniPy": {...}}

CoreDNS (`plugin/etcd/msg/service.go`) does not look at keys that it does not know: what else there
is to say stands in `CniPy`. One record that it cannot read has it refuse the whole name, so each of
ours is exact; and what others wrote there is left out here with a reason, whatever it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from .instance import DNS_LABEL, Instance, Protocol
from .registry import LeftOut, View

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.cluster.store import Record

PREFIX = "/skydns"
DOMAIN = "cluster.internal"
# Seconds that a resolver may keep an answer. Without it CoreDNS takes the smaller half of the
# lease's number for one (`Etcd.TTL`), or 300.
TTL = 5
# What CoreDNS takes where there is none; said all the same, for whoever reads the record.
_PRIORITY = 10
_MOST_BYTES = 1 << 16
_MOST_REASON = 200
_MOST_NAME = 253
# One form for each: else two keys could be one.
_NUMBER = re.compile("[1-9][0-9]{0,5}")


class _Facts(msgspec.Struct, frozen=True):
    """What SkyDNS has no key for."""

    node: str
    network: str
    protocol: Protocol = "tcp"
    metadata: dict[str, str] = {}


class _Service(msgspec.Struct, frozen=True):
    """A record's value; the names are SkyDNS's."""

    host: str
    port: int
    priority: int = _PRIORITY
    weight: int = 1
    ttl: int = TTL
    facts: _Facts | None = msgspec.field(name="CniPy", default=None)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the records are: below `prefix`, for the names of `domain`. Raises ValueError."""

    prefix: str = PREFIX
    """CoreDNS's option `path`: `/` and one word, for it makes names of keys by the first `/`."""
    domain: str = DOMAIN
    """A zone of CoreDNS's plugin etcd, or a name in one."""

    def __post_init__(self) -> None:
        if not DNS_LABEL.fullmatch(self.prefix[1:]) or not self.prefix.startswith("/"):
            raise ValueError(f"{self.prefix!a} is not /skydns, or / and another word")
        labels = self.domain.split(".")
        if not all(map(DNS_LABEL.fullmatch, labels)) or len(self.domain) > _MOST_NAME // 2:
            raise ValueError(f"{self.domain!a} is no domain of DNS labels in lower case")

    def folder(self, service: str = "", instance: str = "") -> str:
        """What the keys of a domain, a service or an instance begin with."""
        labels = [*reversed(self.domain.split(".")), service, instance]
        return "/".join((self.prefix, *filter(None, labels), ""))

    def records(self, instance: Instance) -> dict[str, bytes]:
        """The records of an instance, by key."""
        folder = self.folder(instance.service, instance.id)
        facts = _Facts(instance.node, instance.network, instance.protocol, instance.metadata)
        return {
            f"{folder}{number}": msgspec.json.encode(
                _Service(host, instance.port, weight=instance.weight, facts=facts)
            )
            for number, host in enumerate(instance.addresses, 1)
        }


def owner_of(value: bytes) -> str:
    """The node that wrote a record; `""` where it is not of our making."""
    found = _decoded(value)
    return "" if isinstance(found, str) or found.facts is None else found.facts.node


@dataclass(slots=True)
class Gathered:
    """Records by key, as they come and go, and the instances that they make."""

    layout: Layout
    _groups: dict[tuple[str, str], dict[int, Record]] = field(default_factory=dict)
    _made: dict[tuple[str, str], _Made] = field(default_factory=dict)
    _strangers: dict[str, LeftOut] = field(default_factory=dict)

    def put(self, record: Record) -> None:
        """A record is there, or has changed."""
        place = self._place(record.key)
        if place is None:
            reason = "the key is not SERVICE/ID/NUMBER below the domain"
            self._strangers[record.key] = LeftOut(record.key, reason)
            return
        self._groups.setdefault(place[0], {})[place[1]] = record
        self._made.pop(place[0], None)

    def remove(self, key: str) -> None:
        """A record is gone."""
        self._strangers.pop(key, None)
        place = self._place(key)
        if place is not None:
            group = self._groups.get(place[0], {})
            group.pop(place[1], None)
            self._made.pop(place[0], None)
            if not group:
                self._groups.pop(place[0], None)

    def replace(self, records: Iterable[Record]) -> None:
        """These are all there are."""
        self._groups.clear()
        self._made.clear()
        self._strangers.clear()
        for one in records:
            self.put(one)

    def view(self, lost: str = "") -> View:
        """What there is now."""
        for one in self._groups.keys() - self._made.keys():
            self._made[one] = _made_of(*one, self._groups[one])
        made = [self._made[one] for one in sorted(self._groups)]
        left_out = [*self._strangers.values(), *(text for one in made for text in one.left_out)]
        instances = tuple(one.instance for one in made if one.instance is not None)
        return View(instances, tuple(sorted(left_out, key=lambda one: one.key)), lost)

    def _place(self, key: str) -> tuple[tuple[str, str], int] | None:
        match key.removeprefix(self.layout.folder()).split("/"):
            case [service, name, number] if _NUMBER.fullmatch(number):
                return (service, name), int(number)
        return None


@dataclass(frozen=True, slots=True)
class _Made:
    instance: Instance | None
    left_out: tuple[LeftOut, ...]


def _made_of(service: str, name: str, group: dict[int, Record]) -> _Made:
    """The instance of some records. What does not go with an older one is left out."""
    left_out: list[LeftOut] = []
    believed: dict[int, _Service] = {}
    instance: Instance | None = None
    for number in sorted(group, key=lambda one: (group[one].created, one)):
        record = group[number]
        one = _decoded(record.value)
        if isinstance(one, str):
            left_out.append(LeftOut(record.key, one))
            continue
        if believed and _said(one) != _said(next(iter(believed.values()))):
            left_out.append(LeftOut(record.key, "an older one of the instance says else"))
            continue
        try:
            together = believed | {number: one}
            instance = _instance(service, name, [together[one] for one in sorted(together)])
        except ValueError as error:
            left_out.append(LeftOut(record.key, _line(error)))
        else:
            believed = together
    return _Made(instance, tuple(left_out))


def _said(one: _Service) -> object:
    return one.facts, one.port, one.weight


def _instance(service: str, name: str, records: Iterable[_Service]) -> Instance:
    """Raises ValueError."""
    first, *more = records
    facts = first.facts
    if facts is None:
        raise ValueError("it has no CniPy: somebody else's record")
    return Instance(
        service=service,
        id=name,
        node=facts.node,
        network=facts.network,
        addresses=tuple(str(ip_address(one.host)) for one in (first, *more)),
        port=first.port,
        protocol=facts.protocol,
        weight=first.weight,
        metadata=facts.metadata,
    )


def _decoded(value: bytes) -> _Service | str:
    """A record's value, or why it is none."""
    if len(value) > _MOST_BYTES:
        return f"it has more than {_MOST_BYTES} bytes"
    try:
        return msgspec.json.decode(value, type=_Service)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        return _line(error)


def _line(error: Exception) -> str:
    return ascii(str(error))[1:-1][:_MOST_REASON]
