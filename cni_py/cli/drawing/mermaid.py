"""The picture as a Mermaid flowchart, for Markdown that draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .folding import groups
from .picture import title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .picture import Picture

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ./:_,()+%-→!")
_CLASSES = (
    "classDef uplink fill:#e0e7ff,stroke:#4f46e5,color:#1e1b4b",
    "classDef hub fill:#ccfbf1,stroke:#0d9488,color:#042f2e",
    "classDef port fill:#f1f5f9,stroke:#94a3b8,color:#334155",
    "classDef up fill:#ffffff,stroke:#64748b,color:#0f172a",
    "classDef wrong fill:#fee2e2,stroke:#dc2626,color:#450a0a",
    "classDef more fill:#ffffff,stroke:#cbd5e1,stroke-dasharray:3,color:#475569",
)


def mermaid(picture: Picture, most: int) -> str:
    """The whole diagram."""
    return "\n".join(("flowchart LR", *(f"  {line}" for line in _lines(picture, most)), ""))


def _lines(picture: Picture, most: int) -> Iterator[str]:
    names: dict[str, str] = {}

    def name(key: str) -> str:
        return names.setdefault(key, f"n{len(names)}")

    for uplink in picture.uplinks:
        yield f"{name(uplink.id)}{_label('uplink ' + uplink.name, *uplink.addresses)}:::uplink"
    every = list(groups(picture, most))
    for hub in picture.hubs:
        lines = (f"{title(hub)} {hub.name}", *hub.addresses, *(one.text for one in hub.gauges))
        yield f"{name(hub.id)}{_label(*lines)}:::hub"
        for uplink_id in hub.uplinks:
            routed = " -.->|masqueraded| " if hub.masqueraded else " -.-> "
            arrow = " --- " if uplink_id in hub.joined else routed
            yield f"{name(hub.id)}{arrow}{name(uplink_id)}"
    for group in every:
        for box in group.boxes:
            style = "up" if box.state == "up" and not box.has_problems else "wrong"
            state = () if box.state == "up" else (box.state,)
            yield f"{name(box.id)}{_label(box.short, *state, *box.ports)}:::{style}"
            for number, leg in enumerate(box.legs):
                way = _label_of_edge(leg.ifname, *leg.addresses)
                if leg.port:
                    port = name(f"{box.id} {number}")
                    yield f"{port}{_label(leg.port)}:::port"
                    yield f"{name(leg.hub)} --- {port} ---{way}{name(box.id)}"
                else:
                    yield f"{name(leg.hub)} ---{way}{name(box.id)}"
        if group.folded:
            more = name(f"more {group.hub.id}")
            yield f"{more}{_label(group.folded)}:::more"
            yield f"{name(group.hub.id)} -.- {more}"
    yield from _CLASSES


def _label(*lines: str) -> str:
    return f'["{_text(*lines)}"]'


def _label_of_edge(*lines: str) -> str:
    return f'|"{_text(*lines)}"| '


def _text(*lines: str) -> str:
    """Text as Mermaid shows it: whatever could be markup of it or of HTML is a number."""
    return "<br/>".join(
        "".join(one if one in _PLAIN else f"#{ord(one)};" for one in line) for line in lines
    )
