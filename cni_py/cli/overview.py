"""The tables of `cni-py show`: a section for each kind of thing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from .columns import Cell, Column, Section
from .figures import bit_rate, byte_count, count, duration, share
from .naming import short_id
from .output import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from cni_py.inventory.model import (
        Allowed,
        Attached,
        Inventory,
        Masquerade,
        Problem,
        Published,
    )

STYLES = {"up": "green", "down": "yellow", "missing": "red", "gone": "red", "unknown": "magenta"}
_FEW_PROBLEMS = 20


SECTIONS = ("networks", "bridges", "containers", "addresses", "ports", "rules", "rates", "dns")


def sections(inventory: Inventory, *, shorten: bool) -> dict[str, Callable[[], Section]]:
    """What makes each of SECTIONS; ids are cut to twelve characters where they are `shorten`ed."""
    tables = _Tables(inventory, shorten=shorten)
    return {name: getattr(tables, name) for name in SECTIONS}


def _plain(*texts: str) -> list[Cell]:
    return [(printable(one), "") for one in texts]


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(map(printable, texts)) or "-"


class _Tables:
    """The sections' makers."""

    def __init__(self, inventory: Inventory, *, shorten: bool) -> None:
        self._inventory = inventory
        self._shorten = shorten
        self._now = time.time()

    def _id(self, container_id: str) -> str:
        return short_id(container_id) if self._shorten else printable(container_id)

    def _file(self, path: str) -> str:
        if not path:
            return "no configuration"
        return os.path.basename(path) if self._shorten else path

    def networks(self) -> Section:
        attached: dict[str, int] = {}
        for one in self._inventory.attachments:
            attached[one.network] = attached.get(one.network, 0) + 1
        rows = [
            [
                (printable(one.name), "bold"),
                *_plain(
                    " ".join(one.plugins) or "-",
                    one.ipam or "-",
                    one.bridge or one.parent or "-",
                    str(attached.get(one.name, 0)),
                    self._file(one.file),
                ),
            ]
            for one in self._inventory.networks
        ]
        columns = (
            Column("network"), Column("plugins", folds=True), Column("ipam"), Column("on"),
            Column("attached", right=True), Column("file", folds=True),
        )  # fmt: skip
        return Section("networks", columns, rows)

    def bridges(self) -> Section:
        rows = []
        for one in self._inventory.bridges:
            its = one.interface
            state = "up" if its.up and its.operstate != "DOWN" else "down"
            vlans = "filtered" if one.vlan_filtering else "-"
            rows.append(
                [
                    (printable(its.name), "bold"),
                    (state, STYLES[state]),
                    (_lines(its.addresses), ""),
                    *_plain(str(len(one.ports)), str(its.mtu), vlans),
                    (_lines(one.networks), ""),
                ]
            )
        columns = (
            Column("bridge"), Column("state"), Column("addresses", folds=True),
            Column("ports", right=True), Column("mtu", right=True), Column("vlans"),
            Column("networks", folds=True),
        )  # fmt: skip
        return Section("bridges", columns, rows)

    def containers(self) -> Section:
        rows = []
        for one in self._inventory.attachments:
            since = duration(self._now - one.since) if one.since else "-"
            where = one.host.name if one.host is not None else _on(one)
            rows.append(
                [
                    (one.state, STYLES[one.state]),
                    (self._id(one.container_id), "bold"),
                    *_plain(one.network, one.ifname, where),
                    (_lines(one.addresses), ""),
                    (since, ""),
                ]
            )
        columns = (
            Column("state"), Column("container", yields=True), Column("network", yields=True),
            Column("if"), Column("host end"), Column("addresses", folds=True),
            Column("since", right=True),
        )  # fmt: skip
        return Section("containers", columns, rows)

    def addresses(self) -> Section:
        rows = []
        for one in self._inventory.pools:
            gone = sum(it.state == "gone" for it in one.given)
            for run in one.ranges:
                full = run.given >= run.size
                used = (share(run.given, run.size), "red" if full else "")
                rows.append(
                    [
                        (printable(one.network), "bold"),
                        *_plain(run.subnet or "-", run.first, run.last),
                        *_plain(count(run.given), count(run.addresses)),
                        used,
                        (str(gone) if gone else "-", "red" if gone else ""),
                    ]
                )
            if not one.ranges:
                outside = _plain("-", "-", "-", count(len(one.given)), "-", "-")
                rows.append(
                    [
                        (printable(one.network), "bold"),
                        *outside,
                        (str(gone) if gone else "-", "red" if gone else ""),
                    ]
                )
        columns = (
            Column("network"), Column("subnet"), Column("first", folds=True),
            Column("last", folds=True), Column("given", right=True), Column("of", right=True),
            Column("used", right=True), Column("of gone", right=True),
        )  # fmt: skip
        return Section("addresses", columns, rows)

    def ports(self) -> Section:
        rows = []
        for one in sorted(self._inventory.ports, key=_order):
            host, _, to = str(one).partition(" -> ")
            to, _, protocol = to.rpartition("/")
            state = ("yes", "green") if one.active else ("flushed", "red")
            rows.append(
                [
                    (printable(host), "bold"),
                    *_plain(protocol, to, self._id(one.container_id) or "-", one.backend),
                    state,
                ]
            )
        columns = (
            Column("host", folds=True), Column("protocol"), Column("leads to", folds=True),
            Column("container", yields=True), Column("by"), Column("active"),
        )  # fmt: skip
        return Section("ports", columns, rows)

    def rules(self) -> Section:
        rows = [self._rule("masquerade", one) for one in self._inventory.masquerades]
        for one in self._inventory.allowed:
            on = f" on {one.bridge}" if one.bridge else ""
            rows.append(self._rule(f"let through, {one.policy}{on}", one))
        columns = (
            Column("rule", folds=True), Column("address", folds=True),
            Column("container", yields=True), Column("by"), Column("active"),
        )  # fmt: skip
        return Section("rules", columns, rows)

    def _rule(self, what: str, one: Masquerade | Allowed) -> list[Cell]:
        state = ("yes", "green") if one.active else ("flushed", "red")
        owner = self._id(one.container_id) or "-"
        return [*_plain(what, one.address, owner, one.backend), state]

    def rates(self) -> Section:
        rows = []
        for one in self._inventory.attachments:
            limits = {it.direction: bit_rate(it.bits) for it in one.rates}
            seen = one.inside
            if seen is None:
                continue
            counters = seen.counters
            received, sent = byte_count(counters.rx_bytes), byte_count(counters.tx_bytes)
            lost = sum(
                (counters.rx_errors, counters.tx_errors, counters.rx_dropped, counters.tx_dropped)
            )
            rows.append(
                [
                    (self._id(one.container_id), "bold"),
                    *_plain(one.ifname, received, sent),
                    (str(lost), "yellow" if lost else ""),
                    *_plain(limits.get("to", "-"), limits.get("from", "-")),
                ]
            )
        columns = (
            Column("container", yields=True), Column("if"), Column("received", right=True),
            Column("sent", right=True), Column("lost", right=True),
            Column("limit to", right=True), Column("limit from", right=True),
        )  # fmt: skip
        return Section("rates", columns, rows)

    def dns(self) -> Section:
        rows = [
            [
                (self._id(one.container_id), "bold"),
                *_plain(one.ifname),
                (_lines(one.names), ""),
                (_lines(one.dns.nameservers), ""),
                *_plain(one.dns.domain or "-"),
                (_lines(one.dns.search), ""),
            ]
            for one in self._inventory.attachments
            if one.dns or one.names
        ]
        columns = (
            Column("container", yields=True), Column("if"), Column("names", folds=True),
            Column("servers", folds=True),
            Column("domain", folds=True), Column("search", folds=True),
        )  # fmt: skip
        return Section("dns", columns, rows)


def _order(one: Published) -> tuple[object, ...]:
    return one.host_port, one.protocol, one.version, one.host_ip


def _on(one: Attached) -> str:
    inside = one.inside
    if inside is None:
        return "-"
    kind = inside.kind or "device"
    return f"{kind} on {inside.parent}" if inside.parent else kind


def print_problems(console: Console, problems: Sequence[Problem], *, all_of_them: bool) -> None:
    """What does not fit."""
    from rich.text import Text

    if not problems:
        return
    shown = problems if all_of_them else problems[:_FEW_PROBLEMS]
    console.print(Text("PROBLEMS", style="bold red"))
    for one in shown:
        console.print(Text.assemble((printable(one.subject), "bold"), f": {printable(one.text)}"))
    if len(shown) < len(problems):
        more = len(problems) - len(shown)
        console.print(Text(f"and {more} more: cni-py show --section problems", style="dim"))
    console.print()


def headline(inventory: Inventory) -> Iterator[tuple[str, Any]]:
    """How many of what there are, in words."""
    states: dict[str, int] = {}
    for one in inventory.attachments:
        states[one.state] = states.get(one.state, 0) + 1
    containers = len({one.container_id for one in inventory.attachments})
    yield _counted(len(inventory.networks), "network"), ""
    yield _counted(len(inventory.bridges), "bridge"), ""
    yield _counted(containers, "container"), ""
    for state in ("down", "missing", "gone", "unknown"):
        if state in states:
            yield f"{states[state]} {state}", STYLES[state]
    yield _counted(len(inventory.ports), "port"), ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
