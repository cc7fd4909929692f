"""The rules of containers in nftables: our table's elements, and the reference plugin's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.kernel.nft_table import BRIDGE, INET
from cni_py.kernel.nftables import nftables_if_installed
from cni_py.spec.attachment import Attachment, key_in, read_label
from cni_py.spec.errors import CniError

from .model import CNI_PY, REFERENCE, Problem, Published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.kernel.nftables import Nftables

BACKEND = "nftables"
_FAMILIES = {"ip": 4, "ip6": 6}
_PORT_MAPS = {f"{name}{version}": version for name in ("port", "portat") for version in (4, 6)}
_REFERENCE_TABLE = "cni_hostport"
_REFERENCE_CHAINS = ("hostports", "hostip_hostports")


class Element(NamedTuple):
    """An element of a set or map of ours: `name` is the set's, `key` what is in it."""

    name: str
    key: Any
    value: Any
    comment: str

    @property
    def owner_key(self) -> str:
        """The attachment's key, `""` where the comment has none."""
        return key_in(self.comment)

    @property
    def owner(self) -> Attachment | None:
        """The attachment, None where the comment was cut off."""
        return read_label(self.comment)


class NftRules(NamedTuple):
    """What there is. `tables` are all tables, as `ip nat`."""

    tables: frozenset[str] = frozenset()
    elements: tuple[Element, ...] = ()
    isolated_ports: tuple[Element, ...] = ()
    reference_ports: tuple[Published, ...] = ()

    def named(self, name: str) -> Iterator[Element]:
        """The elements of one set or map."""
        return (one for one in self.elements if one.name == name)


def nft_rules(problems: list[Problem]) -> NftRules:
    """Everything, in as many queries as there are tables of ours; refusals are noted."""
    nft = nftables_if_installed()
    if nft is None:
        return NftRules()
    try:
        return _read(nft)
    except CniError as error:
        problems.append(Problem(subject=BACKEND, text=str(error)))
        return NftRules()


def _read(nft: Nftables) -> NftRules:
    listed = nft.listed("list the tables", {"list": {"tables": None}}) or ()
    tables = frozenset(
        f"{one['table']['family']} {one['table']['name']}" for one in listed if "table" in one
    )
    elements, isolated = (
        tuple(_elements(nft, one.family, one.name)) if str(one) in tables else ()
        for one in (INET, BRIDGE)
    )
    reference = [
        one
        for family in _FAMILIES
        if f"{family} {_REFERENCE_TABLE}" in tables
        for one in _reference_ports(nft, family)
    ]
    return NftRules(tables, elements, isolated, tuple(reference))


def _elements(nft: Nftables, family: str, name: str) -> Iterator[Element]:
    command = {"list": {"table": {"family": family, "name": name}}}
    for item in nft.listed(f"list the table {family} {name}", command) or ():
        for kind in ("set", "map"):
            for one in item.get(kind, {}).get("elem", ()):
                key, value = one if kind == "map" else (one, None)
                comment = ""
                if isinstance(key, dict) and "elem" in key:
                    key, comment = key["elem"]["val"], key["elem"].get("comment", "")
                yield Element(item[kind]["name"], key, value, comment)


def ports_in(elements: Iterable[Element]) -> Iterator[Published]:
    """The ports that our maps publish; those with conditions are told by records alone."""
    for one in elements:
        version = _PORT_MAPS.get(one.name)
        published = None if version is None else _published(one, version)
        if published is not None:
            yield published


def _published(one: Element, version: int) -> Published | None:
    try:
        *address, protocol, port = one.key["concat"]
        to, container_port = one.value["concat"]
        ports = int(port), int(container_port)
    except (TypeError, KeyError, ValueError):
        # Somebody else's element: a range, or a name.
        return None
    owner = one.owner
    return Published(
        version=version,
        protocol=str(protocol),
        host_ip=str(address[0]) if address else "",
        host_port=ports[0],
        address=str(to),
        container_port=ports[1],
        backend=BACKEND,
        maker=CNI_PY,
        container_id="" if owner is None else owner.container_id,
        network="" if owner is None else owner.network,
        key=one.owner_key,
    )


def _reference_ports(nft: Nftables, family: str) -> Iterator[Published]:
    """The reference plugin's rules have the container's id as their comment (plugins.md 6.1.4)."""
    for chain in _REFERENCE_CHAINS:
        where = {"family": family, "table": _REFERENCE_TABLE, "name": chain}
        for item in nft.listed(f"list the chain {chain}", {"list": {"chain": where}}) or ():
            rule = item.get("rule", {})
            published = reference_port(rule, _FAMILIES[family])
            if published is not None:
                yield published


def reference_port(rule: dict[str, Any], version: int) -> Published | None:
    """The port that a rule of the reference plugin's publishes, None for another rule."""
    fields: dict[str, tuple[str, Any]] = {}
    to: Any = None
    for one in rule.get("expr", ()):
        left = one.get("match", {}).get("left")
        payload = left.get("payload", {}) if isinstance(left, dict) else {}
        if "field" in payload:
            fields[payload["field"]] = (str(payload.get("protocol")), one["match"]["right"])
        to = one.get("dnat", to)
    protocol, port = fields.get("dport", ("", None))
    if not isinstance(to, dict) or not isinstance(port, int):
        return None
    container_port = to.get("port", port)
    return Published(
        version=version,
        protocol=protocol,
        host_ip=str(fields["daddr"][1]) if "daddr" in fields else "",
        host_port=port,
        address=str(to.get("addr", "")),
        container_port=container_port if isinstance(container_port, int) else port,
        backend=BACKEND,
        maker=REFERENCE,
        container_id=str(rule.get("comment", "")),
    )
