"""The picture as a graph for Graphviz: `cni-py graph --format dot | dot -Tsvg`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .folding import groups
from .picture import title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .picture import Picture

_UPLINK = 'fillcolor="#e0e7ff" color="#4f46e5"'
_HUB = 'fillcolor="#ccfbf1" color="#0d9488"'
_PORT = 'fillcolor="#f1f5f9" color="#94a3b8"'
_UP = 'fillcolor="#ffffff" color="#64748b"'
_WRONG = 'fillcolor="#fee2e2" color="#dc2626"'
_MORE = 'fillcolor="#ffffff" color="#cbd5e1" style="rounded,dashed"'


def dot(picture: Picture, most: int) -> str:
    """The whole graph."""
    head = (
        "digraph {",
        f"  label={_quoted(picture.host)} labelloc=t",
        "  rankdir=LR nodesep=0.15 ranksep=0.8",
        '  node [shape=box style="rounded,filled" fontname="Helvetica" fontsize=10]',
        '  edge [dir=none color="#94a3b8" fontname="Helvetica" fontsize=9]',
    )
    return "\n".join((*head, *(f"  {line}" for line in _lines(picture, most)), "}", ""))


def _lines(picture: Picture, most: int) -> Iterator[str]:
    for uplink in picture.uplinks:
        yield _node(uplink.id, _UPLINK, f"uplink {uplink.name}", *uplink.addresses)
    for hub in picture.hubs:
        gauges = (one.text for one in hub.gauges)
        yield _node(hub.id, _HUB, f"{title(hub)} {hub.name}", *hub.addresses, *gauges)
        for uplink_id in hub.uplinks:
            routed = ' [style=dashed label="masqueraded"]' if hub.masqueraded else " [style=dashed]"
            style = "" if uplink_id in hub.joined else routed
            yield f"{_quoted(uplink_id)} -> {_quoted(hub.id)}{style}"
    for group in groups(picture, most):
        for box in group.boxes:
            good = box.state == "up" and not box.has_problems
            state = () if box.state == "up" else (box.state,)
            yield _node(box.id, _UP if good else _WRONG, box.short, *state, *box.ports)
            for number, leg in enumerate(box.legs):
                way = f" [label={_quoted(leg.ifname, *leg.addresses)}]"
                begin = leg.hub
                if leg.port:
                    begin = f"{box.id} {number}"
                    yield _node(begin, _PORT, leg.port)
                    yield f"{_quoted(leg.hub)} -> {_quoted(begin)}"
                yield f"{_quoted(begin)} -> {_quoted(box.id)}{way}"
        if group.folded:
            more = f"more {group.hub.id}"
            yield _node(more, _MORE, group.folded)
            yield f"{_quoted(group.hub.id)} -> {_quoted(more)} [style=dotted]"


def _node(name: str, style: str, *lines: str) -> str:
    return f"{_quoted(name)} [label={_quoted(*lines)} {style}]"


def _quoted(*lines: str) -> str:
    """A string of Graphviz': a backslash begins an escape there, and a quote ends it."""
    texts = (one.replace("\\", "\\\\").replace('"', '\\"') for one in lines)
    return '"' + "\\n".join(texts) + '"'
