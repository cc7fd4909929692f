"""What is known of one attachment, as a person reads it: pairs of a name and a text."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from .figures import bit_rate, byte_count, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cni_py.inventory.model import (
        Allowed,
        Attached,
        Interface,
        Inventory,
        Masquerade,
        Namespace,
        Published,
    )
    from cni_py.kernel.links import Counters

_MAIN_TABLE = 254
_FEW = 4
Fact = tuple[str, str]


class _Rules(NamedTuple):
    """The rules by the attachment's key."""

    ports: dict[str, list[Published]]
    masquerades: dict[str, list[Masquerade]]
    allowed: dict[str, list[Allowed]]


def facts(inventory: Inventory) -> Callable[[Attached], list[Fact]]:
    """What tells all of an attachment of the inventory; a text may have several lines.

    The texts are as they were found: what shows them has to make them harmless.
    """
    rules = _Rules(defaultdict(list), defaultdict(list), defaultdict(list))
    for port in inventory.ports:
        rules.ports[port.key].append(port)
    for masquerade in inventory.masquerades:
        rules.masquerades[masquerade.key].append(masquerade)
    for allowed in inventory.allowed:
        rules.allowed[allowed.key].append(allowed)
    return lambda one: list(_lines(one, rules))


def _lines(one: Attached, rules: _Rules) -> Iterator[Fact]:
    yield from _placing(one)
    yield from _reaching(one)
    yield from _ruled(one, rules)
    yield from _limited(one)
    yield from _knowing(one)


def _placing(one: Attached) -> Iterator[Fact]:
    yield "addresses", ", ".join(one.addresses) or "none"
    missing = [it for it in one.expected if one.inside is not None and not _has(one, it)]
    if missing:
        yield "was given", ", ".join(missing)
    if one.inside is not None:
        yield "interface", _link(one.inside)
    if one.host is not None:
        yield "host end", _link(one.host)
    if one.namespace is not None:
        yield "namespace", _namespace(one.namespace)


def _has(one: Attached, address: str) -> bool:
    plain = address.partition("/")[0]
    return any(it.partition("/")[0] == plain for it in one.addresses)


def _link(its: Interface) -> str:
    parts = [f"{its.name} ({its.kind or 'device'}, index {its.ifindex})", its.mac, f"MTU {its.mtu}"]
    parts.append(its.operstate.lower() if its.up else "down")
    parts += [f"on {its.master}"] if its.master else []
    parts += [f"parent {its.parent}"] if its.parent else []
    parts += ["hairpin"] if its.hairpin else []
    parts += ["isolated"] if its.isolated else []
    if its.vlans:
        ids = ", ".join(f"{vlan.id}{' (pvid)' if vlan.pvid else ''}" for vlan in its.vlans)
        parts.append(f"VLANs {ids}")
    return ", ".join(parts)


def _namespace(its: Namespace) -> str:
    parts = [its.path, f"inode {its.inode}"]
    if its.pids:
        more = f" and {len(its.pids) - _FEW} more" if len(its.pids) > _FEW else ""
        parts.append(f"processes {', '.join(map(str, its.pids[:_FEW]))}{more}")
    else:
        parts.append("no process in it")
    return ", ".join(parts)


def _reaching(one: Attached) -> Iterator[Fact]:
    if one.gateways:
        yield "gateway", ", ".join(one.gateways)
    routes = []
    for route in one.routes:
        if route.destination.startswith("fe80:"):
            continue
        via = f" via {route.gateway}" if route.gateway else ""
        table = f" table {route.table}" if route.table != _MAIN_TABLE else ""
        mtu = f" mtu {route.mtu}" if route.mtu else ""
        routes.append(f"{route.destination}{via}{table}{mtu}")
    if routes:
        yield "routes", "\n".join(routes)
    if one.names:
        yield "names", ", ".join(one.names)
    if one.dns:
        parts = [f"servers {', '.join(one.dns.nameservers)}"] if one.dns.nameservers else []
        parts += [f"domain {one.dns.domain}"] if one.dns.domain else []
        parts += [f"search {', '.join(one.dns.search)}"] if one.dns.search else []
        parts += [f"options {', '.join(one.dns.options)}"] if one.dns.options else []
        yield "DNS", "\n".join(parts)


def _ruled(one: Attached, rules: _Rules) -> Iterator[Fact]:
    ports = [
        f"{it} ({it.backend}{'' if it.active else ', flushed'})"
        for it in rules.ports.get(one.key, ())
    ]
    if ports:
        yield "ports", "\n".join(ports)
    masquerades = rules.masquerades.get(one.key, ())
    if masquerades:
        yield "masquerade", _by_backend([(it.address, it.backend, it.active) for it in masquerades])
    allowed = rules.allowed.get(one.key, ())
    if allowed:
        on = f" on {allowed[0].bridge}" if allowed[0].bridge else ""
        listed = _by_backend([(it.address, it.backend, it.active) for it in allowed])
        yield "firewall", f"lets through {listed}; policy {allowed[0].policy}{on}"


def _by_backend(rules: Sequence[tuple[str, str, bool]]) -> str:
    backends = dict.fromkeys(backend for _, backend, _ in rules)
    flushed = "" if all(active for _, _, active in rules) else ", flushed"
    return f"{', '.join(address for address, _, _ in rules)} ({', '.join(backends)}{flushed})"


def _limited(one: Attached) -> Iterator[Fact]:
    if one.rates:
        parts = [
            f"{it.direction} the container {bit_rate(it.bits)}, burst {byte_count(it.burst_bytes)} "
            f"({it.link})"
            for it in one.rates
        ]
        yield "limits", "\n".join(parts)
    if one.inside is not None:
        yield "traffic", _traffic(one.inside.counters)
    if one.sysctls:
        yield (
            "sysctls",
            "\n".join(
                f"{it.key.replace('/', '.')} = {it.wanted if it.live is None else it.live}"
                for it in one.sysctls
            ),
        )


def _traffic(counters: Counters) -> str:
    received = _direction(
        "received", counters.rx_bytes, counters.rx_packets, counters.rx_errors, counters.rx_dropped
    )
    sent = _direction(
        "sent", counters.tx_bytes, counters.tx_packets, counters.tx_errors, counters.tx_dropped
    )
    return f"{received}; {sent}"


def _direction(verb: str, size: int, packets: int, errors: int, dropped: int) -> str:
    lost = [f"{errors} errors"] if errors else []
    lost += [f"{dropped} dropped"] if dropped else []
    return ", ".join([f"{verb} {byte_count(size)} in {packets} packets", *lost])


def _knowing(one: Attached) -> Iterator[Fact]:
    if one.since:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.since))
        yield "since", f"{when} ({duration(max(0.0, time.time() - one.since))})"
    yield "made by", f"{one.maker}{': ' if one.plugins else ''}{', '.join(one.plugins)}"
    yield "known by", ", ".join(one.evidence)
    yield "key", one.key
    if one.files:
        yield "files", "\n".join(one.files)
