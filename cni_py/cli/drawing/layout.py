"""Where everything of the picture is drawn: four columns, uplinks to containers. Pure.

A row is an interface of a container: its host end is beside it, so that no text meets another. What
is too long for its place is cut, by the cells that a terminal would need for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .folding import groups
from .picture import title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .folding import Group
    from .picture import Box, Hub, Leg, Picture

# A cell of the monospaced face at 12 units.
CELL = 7.2
LINE = 17.0
_PAD = 10.0
_TOP, _MARGIN = 84.0, 24.0
_LEG, _HEAD, _PORTS = 22.0, 30.0, 20.0
_BOX_GAP, _GROUP_GAP = 10.0, 30.0
_GAUGE = 8.0
# (left, width) of each column.
COLUMNS = {
    "uplinks": (24.0, 190.0),
    "hubs": (300.0, 270.0),
    "ports": (660.0, 150.0),
    "boxes": (880.0, 420.0),
}
HEADINGS = (
    ("uplinks", "WAYS OUT"), ("hubs", "BRIDGES AND PARENTS"), ("ports", "HOST ENDS"),
    ("boxes", "CONTAINERS"),
)  # fmt: skip
WIDTH = 1324.0


class Written(NamedTuple):
    """A text: its left end, its base line, and the width that it takes."""

    x: float
    y: float
    width: float
    text: str
    style: str


class Framed(NamedTuple):
    """A rectangle. `full` is a gauge's share, 0 to 1, None for what is none."""

    x: float
    y: float
    width: float
    height: float
    style: str
    full: float | None = None


class Drawn(NamedTuple):
    """A curve from the right of one place to the left of another."""

    x1: float
    y1: float
    x2: float
    y2: float
    style: str


class Layout(NamedTuple):
    """All that is drawn."""

    width: float
    height: float
    frames: list[Framed]
    texts: list[Written]
    curves: list[Drawn]


def layout(picture: Picture, most: int) -> Layout:
    """Place the picture, with `most` containers of a hub at most."""
    return _Placing(picture).placed(list(groups(picture, most)))


def fitting(text: str, width: float) -> tuple[str, float]:
    """As much of the text as has room, with a mark where it is cut, and the width of that."""
    from rich.cells import cell_len, set_cell_size

    room = int(width // CELL)
    if cell_len(text) > room:
        text = set_cell_size(text, room - 1).rstrip() + "…"
    return text, cell_len(text) * CELL


class _Placing:
    """One layout being made, from top to bottom."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._frames: list[Framed] = []
        self._texts: list[Written] = []
        self._curves: list[Drawn] = []
        # Right ends of uplinks and hubs, and their middles.
        self._ends: dict[str, tuple[float, float]] = {}

    def placed(self, every: Sequence[Group]) -> Layout:
        """The layout."""
        y = _TOP
        legs: list[tuple[str, float, float, str]] = []
        for group in every:
            y = self._group(group, y, legs) + _GROUP_GAP
        bottom = max(self._uplinks(), y)
        for hub in self._picture.hubs:
            self._ways_out(hub)
        for name, x, middle, style in legs:
            right, from_y = self._ends[name]
            self._curves.append(Drawn(right, from_y, x, middle, style))
        for column, text in HEADINGS:
            self._write(*COLUMNS[column], 64.0, text, "heading")
        return Layout(WIDTH, bottom + _MARGIN, self._frames, self._texts, self._curves)

    def _write(self, x: float, room: float, y: float, text: str, style: str) -> float:
        """Write, cut to the room; returns the width."""
        text, width = fitting(text, room)
        if text:
            self._texts.append(Written(x, y, width, text, style))
        return width

    def _uplinks(self) -> float:
        left, width = COLUMNS["uplinks"]
        y = _TOP
        for one in self._picture.uplinks:
            lines = [*one.addresses, *(() if one.up else ("down",))]
            height = _HEAD + len(lines) * LINE + (_PAD if lines else 0)
            self._frames.append(Framed(left, y, width, height, "uplink"))
            self._write(left + _PAD, width - 2 * _PAD, y + 20, one.name, "name")
            for number, line in enumerate(lines):
                base = y + _HEAD + number * LINE + 11
                self._write(left + _PAD, width - 2 * _PAD, base, line, "detail")
            self._ends[one.id] = (left + width, y + height / 2)
            y += height + _BOX_GAP
        return y

    def _group(self, group: Group, top: float, legs: list[tuple[str, float, float, str]]) -> float:
        y = top
        for box in group.boxes:
            y = self._box(box, y, legs) + _BOX_GAP
        if group.folded:
            left, width = COLUMNS["boxes"]
            self._frames.append(Framed(left, y, width, _HEAD, "more"))
            self._write(left + _PAD, width - 2 * _PAD, y + 19, group.folded, "detail")
            legs.append((group.hub.id, left, y + _HEAD / 2, "folded"))
            y += _HEAD + _BOX_GAP
        height = self._hub_height(group.hub)
        bottom = max(y - _BOX_GAP, top + height)
        self._hub(group.hub, top + (bottom - top - height) / 2, height)
        return bottom

    @staticmethod
    def _hub_height(hub: Hub) -> float:
        gauges = len(hub.gauges) * (2 * LINE + _GAUGE)
        return _HEAD + LINE * (len(hub.addresses) + 1) + gauges + _PAD

    def _hub(self, hub: Hub, top: float, height: float) -> None:
        left, width = COLUMNS["hubs"]
        room = width - 2 * _PAD
        style = "hub" if hub.up else "hub wrong"
        self._frames.append(Framed(left, top, width, height, style))
        used = self._write(left + _PAD, room - 12 * CELL, top + 20, hub.name, "name")
        kind = title(hub) if hub.up else f"{title(hub)}, down"
        self._write(left + _PAD + used + CELL, room - used - CELL, top + 20, kind, "kind")
        y = top + _HEAD + 11
        for line in (*hub.addresses, f"network {', '.join(hub.networks)}"):
            self._write(left + _PAD, room, y, line, "detail")
            y += LINE
        for gauge in hub.gauges:
            self._write(left + _PAD, room, y, gauge.subnet, "detail")
            self._write(left + _PAD, room, y + LINE, gauge.text, "kind")
            full = min(1.0, gauge.given / gauge.size) if gauge.size else 1.0
            self._frames.append(Framed(left + _PAD, y + LINE + 5, room, 4.0, "gauge", full))
            y += 2 * LINE + _GAUGE
        self._ends[hub.id] = (left + width, top + height / 2)

    def _ways_out(self, hub: Hub) -> None:
        left, _ = COLUMNS["hubs"]
        _, middle = self._ends[hub.id]
        for name in hub.uplinks:
            right, y = self._ends[name]
            style = "joined" if name in hub.joined else "routed"
            self._curves.append(Drawn(right, y, left, middle, style))

    def _box(self, box: Box, top: float, legs: list[tuple[str, float, float, str]]) -> float:
        left, width = COLUMNS["boxes"]
        room = width - 2 * _PAD
        good = box.state == "up" and not box.has_problems
        height = _HEAD + _LEG * len(box.legs) + (_PORTS if box.ports else 0) + 4
        self._frames.append(Framed(left, top, width, height, "box" if good else "box wrong"))
        used = self._write(left + _PAD, room - 12 * CELL, top + 20, box.short, "name")
        if box.state != "up":
            x = left + _PAD + used + CELL
            self._write(x, room - used - CELL, top + 20, box.state, "state")
        for number, leg in enumerate(box.legs):
            self._leg(leg, top + _HEAD + number * _LEG, legs)
        if box.ports:
            base = top + _HEAD + len(box.legs) * _LEG + 14
            self._write(left + _PAD, room, base, ", ".join(box.ports), "published")
        return top + height

    def _leg(self, leg: Leg, top: float, legs: list[tuple[str, float, float, str]]) -> None:
        left, width = COLUMNS["boxes"]
        middle = top + _LEG / 2
        style = "leg" if leg.state == "up" else "leg wrong"
        used = self._write(left + _PAD, 16 * CELL, top + 15, leg.ifname, "ifname")
        room = width - 2 * _PAD - used - CELL
        self._write(left + _PAD + used + CELL, room, top + 15, ", ".join(leg.addresses), "detail")
        if not leg.port:
            legs.append((leg.hub, left, middle, style))
            return
        x, port_width = COLUMNS["ports"]
        self._frames.append(Framed(x, middle - 9, port_width, 18.0, "port"))
        self._write(x + 6, port_width - 12, middle + 4, leg.port, "portname")
        legs.append((leg.hub, x, middle, style))
        self._curves.append(Drawn(x + port_width, middle, left, middle, style))
