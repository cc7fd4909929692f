"""The picture as one SVG document, in light or dark as its reader has it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .layout import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .layout import Drawn, Framed, Written
    from .picture import Picture

_STYLE = """
svg { --paper: #f8fafc; --card: #fff; --ink: #0f172a; --soft: #64748b; --line: #94a3b8;
  --blue: #4f46e5; --blue-card: #eef2ff; --teal: #0d9488; --teal-card: #ecfdf9; --red: #dc2626;
  --red-card: #fef2f2; --green: #15803d; --pale: #e2e8f0 }
@media (prefers-color-scheme: dark) { svg { --paper: #0b1120; --card: #131c31; --ink: #e2e8f0;
  --soft: #94a3b8; --line: #475569; --blue: #818cf8; --blue-card: #1b1f45; --teal: #2dd4bf;
  --teal-card: #0c2b2e; --red: #f87171; --red-card: #2d1418; --green: #4ade80; --pale: #1e293b } }
.paper { fill: var(--paper) }
text { font: 12px "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--ink) }
.heading { fill: var(--soft); font-size: 12px }
.title { font: 600 20px system-ui, "DejaVu Sans", sans-serif }
.taken { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--soft) }
.name { font-weight: 700 } .kind, .detail { fill: var(--soft) } .state { fill: var(--red) }
.published { fill: var(--green) } .portname { fill: var(--soft) }
rect { stroke-width: 1.2 }
.uplink { fill: var(--blue-card); stroke: var(--blue) } .hub { fill: var(--teal-card);
  stroke: var(--teal) } .box { fill: var(--card); stroke: var(--line) } .port { fill: var(--pale);
  stroke: none } .more { fill: none; stroke: var(--line); stroke-dasharray: 4 4 }
.wrong { fill: var(--red-card); stroke: var(--red) }
.gauge { fill: var(--pale); stroke: none } .full { fill: var(--teal); stroke: none }
path { fill: none; stroke: var(--line); stroke-width: 1.4 } path.joined { stroke: var(--blue) }
path.routed { stroke: var(--blue); stroke-dasharray: 5 4 } path.leg { stroke: var(--teal) }
path.leg.wrong { stroke: var(--red); fill: none } path.folded { stroke-dasharray: 2 4 }
"""


def svg(picture: Picture, most: int) -> str:
    """The whole document."""
    drawn = layout(picture, most)
    size = f"{drawn.width:.0f} {drawn.height:.0f}"
    width, height = size.split()
    summary = f"{len(picture.boxes):,} containers, {len(picture.hubs):,} hubs"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{width}" '
        f'height="{height}" role="img" aria-label="Container networks of {_safe(picture.host)}">'
    )
    taken = (
        f'<text class="taken" x="{drawn.width - 24:.0f}" y="36" text-anchor="end">'
        f"{_safe(summary)}, {_safe(picture.taken)}</text>"
    )
    parts = [
        head,
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text class="title" x="24" y="36">{_safe(picture.host)}</text>',
        taken,
        *map(_curve, drawn.curves),
        *(part for frame in drawn.frames for part in _frame(frame)),
        *map(_text, drawn.texts),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _safe(text: str) -> str:
    return escape(text, {'"': "&quot;"})


def _curve(one: Drawn) -> str:
    bend = (one.x2 - one.x1) / 2
    ends = f"{one.x1 + bend:.1f},{one.y1:.1f} {one.x2 - bend:.1f},{one.y2:.1f}"
    place = f"M{one.x1:.1f},{one.y1:.1f} C{ends} {one.x2:.1f},{one.y2:.1f}"
    return f'<path class="{one.style}" d="{place}"/>'


def _frame(one: Framed) -> Iterator[str]:
    place = f'x="{one.x:.1f}" y="{one.y:.1f}" height="{one.height:.1f}"'
    round_ = min(8.0, one.height / 2)
    yield f'<rect class="{one.style}" {place} width="{one.width:.1f}" rx="{round_:.0f}"/>'
    if one.full is not None:
        # What is little, but not nothing, is seen.
        width = max(2.0, one.width * one.full) if one.full else 0.0
        yield f'<rect class="full" {place} width="{width:.1f}" rx="{round_:.0f}"/>'


def _text(one: Written) -> str:
    place = f'x="{one.x:.1f}" y="{one.y:.1f}" textLength="{one.width:.1f}"'
    fits = 'lengthAdjust="spacingAndGlyphs"'
    return f'<text class="{one.style}" {place} {fits}>{_safe(one.text)}</text>'
