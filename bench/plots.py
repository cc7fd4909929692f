"""Charts as SVG: bars for single calls, lines over a count. Legible on light and dark pages."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rows import Results, Row

Series = dict[str, list[tuple[float, float]]]

_WIDTH, _HEIGHT = 680, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 44, 52
_BAR_LEFT, _BAR = 230, 13
_STYLE = """<style>
  svg { background: #ffffff; }
  text { fill: #24292f; font: 12px system-ui, sans-serif; }
  text.title { font-size: 14px; font-weight: 600; }
  .grid { stroke: #d0d7de; }
  .a { fill: #1f6fbf; stroke: #1f6fbf; } .b { fill: #d1622b; stroke: #d1622b; }
  .c { fill: #6ba6dd; stroke: #6ba6dd; } .d { fill: #e8a27f; stroke: #e8a27f; }
  polyline { fill: none !important; stroke-width: 2; }
  text.a, text.b, text.c, text.d { stroke: none; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; }
    .grid { stroke: #30363d; }
    .a { fill: #58a6ff; stroke: #58a6ff; } .b { fill: #f0883e; stroke: #f0883e; }
    .c { fill: #2f6cb3; stroke: #2f6cb3; } .d { fill: #a85f2c; stroke: #a85f2c; }
  }
</style>"""
_CLASSES = "abcd"
_LINE = 14


def draw_all(results: Results, folder: Path) -> None:
    """Write every chart into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    once = results.at_once
    charts = {
        "calls": bars("Single calls: median", "milliseconds", results.calls),
        "at-once": lines(
            "ADDs that start together: time to the last",
            "ADDs at once",
            {
                "cni-py": [(row.count, statistics.median(row.ours)) for row in once],
                "reference": [(row.count, statistics.median(row.reference)) for row in once],
            },
        ),
        "allocations": lines(
            "host-local in a pool that fills",
            "addresses allocated (none is drawn at 1)",
            _verbs(results.allocations),
        ),
        "containers": lines(
            "bridge with ipMasq on a host that fills", "containers", _verbs(results.containers)
        ),
    }
    for name, chart in charts.items():
        (folder / f"{name}.svg").write_text(chart)


def _verbs(rows: list[Row]) -> Series:
    """A line each for ADD and DEL of ours and of the reference's; 0 is drawn as 1."""
    series: Series = {}
    for verb in ("ADD", "DEL"):
        mine = [row for row in rows if row.work == verb]
        series[f"cni-py {verb}"] = [
            (max(row.count, 1), statistics.median(row.ours)) for row in mine
        ]
        series[f"reference {verb}"] = [
            (max(row.reference_count, 1), statistics.median(row.reference)) for row in mine
        ]
    return series


def lines(title: str, x_label: str, series: Series, unit: str = "ms") -> str:
    """Lines through (x, y) points with positive values; both axes are logarithmic."""
    points = [point for line in series.values() for point in line]
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = _range([y for _, y in points])
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / x_low) / math.log(x_high / x_low)
        up = math.log(y / y_low) / math.log(y_high / y_low)
        return _LEFT + across * (right - _LEFT), bottom - up * (bottom - _TOP)

    parts = []
    ticks = sorted({x for x, _ in points})
    for x in ticks:
        across, _ = place(x, y_low)
        parts.append(_line(across, across, _TOP, bottom))
        parts.append(_text(across, bottom + 18, f"{x:,g}", "middle"))
    for y in _ticks(y_low, y_high):
        _, down = place(x_low, y)
        parts.append(_line(_LEFT, right, down, down))
        parts.append(_text(_LEFT - 6, down + 4, f"{y:,g}", "end"))
    labels: list[float] = []
    for (name, line), look in zip(series.items(), _CLASSES, strict=False):
        placed = [place(x, y) for x, y in line]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="{look}" points="{joined}"/>')
        parts += [f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed]
        x, y = placed[-1]
        y = _clear_of(y, labels)
        labels.append(y)
        parts.append(_text(right + 8, y + 4, name, "start", look))
    middle = (_LEFT + right) / 2
    parts.append(_text(middle, _HEIGHT - 12, x_label, "middle"))
    parts.append(_text(_LEFT, _TOP - 8, unit, "end"))
    return _svg(title, _HEIGHT, parts)


def bars(title: str, x_label: str, rows: list[Row]) -> str:
    """Two bars a row, from zero, with the medians beside them."""
    shown = [row for row in rows if row.reference]
    longest = max(statistics.median(one) for row in shown for one in (row.ours, row.reference))
    height = _TOP + len(shown) * (2 * _BAR + 14) + 40
    scale = (_WIDTH - _BAR_LEFT - 70) / longest
    parts = []
    for number, row in enumerate(shown):
        top = _TOP + number * (2 * _BAR + 14)
        parts.append(_text(_BAR_LEFT - 8, top + _BAR + 4, row.work, "end"))
        for place, (values, look) in enumerate(((row.ours, "a"), (row.reference, "b"))):
            median = statistics.median(values)
            y = top + place * _BAR
            parts.append(
                f'<rect class="{look}" x="{_BAR_LEFT}" y="{y + 1}" '
                f'width="{median * scale:.1f}" height="{_BAR - 2}"/>'
            )
            parts.append(_text(_BAR_LEFT + median * scale + 6, y + 11, f"{median:.1f}", "start"))
    parts.append(_text(_BAR_LEFT, height - 14, x_label, "start"))
    parts.append(_text(_WIDTH - 170, height - 14, "cni-py", "start", "a"))
    parts.append(_text(_WIDTH - 110, height - 14, "reference", "start", "b"))
    return _svg(title, height, parts)


def _range(values: list[float]) -> tuple[float, float]:
    """The range of the axis, with some room above and below."""
    return min(values) * 0.8, max(values) * 1.25


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within the range; over three decades the powers alone."""
    digits = (1, 2, 5) if high / low < 1000 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    made = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    return [one for one in made if low <= one <= high]


def _clear_of(y: float, others: list[float]) -> float:
    """Moved down until no other label is in the way."""
    while any(abs(y - other) < _LINE for other in others):
        y += 2
    return y


def _line(x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, look: str = "") -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _svg(title: str, height: int, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">'
    )
    return "\n".join((head, _STYLE, _text(16, 22, title, "start", "title"), *parts, "</svg>", ""))
