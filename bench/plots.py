"""Line charts as SVG: measured values over a count, both axes logarithmic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 40, 50
_COLOURS = ("#2a78c2", "#d1622b", "#4d9a4d")

Series = dict[str, list[tuple[float, float]]]


def draw(path: Path, title: str, x_label: str, y_label: str, series: Series) -> None:
    """Write the chart of `series`, each a list of (x, y) with positive values."""
    points = [point for line in series.values() for point in line]
    x_range = _decades([x for x, _ in points])
    y_range = _decades([y for _, y in points])
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{title}</text>',
        (
            f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" '
            f'text-anchor="middle">{x_label}</text>'
        ),
        (
            f'<text transform="translate(16 {_HEIGHT / 2}) rotate(-90)" '
            f'text-anchor="middle">{y_label}</text>'
        ),
    ]
    parts += _grid(x_range, y_range)
    for (name, line), colour in zip(series.items(), _COLOURS, strict=False):
        placed = [(_x(x, x_range), _y(y, y_range)) for x, y in line]
        path_text = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path_text}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = placed[-1]
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((*parts, "</svg>", "")))


def _decades(values: list[float]) -> tuple[float, float]:
    """The exponents of the powers of ten around the values."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    return low, max(math.ceil(math.log10(max(values)) - 1e-9), low + 1)


def _x(value: float, decades: tuple[float, float]) -> float:
    low, high = decades
    return _LEFT + (math.log10(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, decades: tuple[float, float]) -> float:
    low, high = decades
    return _HEIGHT - _BOTTOM - (math.log10(value) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    parts = []
    for exponent in range(int(x_range[0]), int(x_range[1]) + 1):
        x = _x(10**exponent, x_range)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#dddddd"/>'
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{10**exponent:,g}</text>"
        )
    for exponent in range(int(y_range[0]), int(y_range[1]) + 1):
        y = _y(10**exponent, y_range)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{10**exponent:,g}</text>'
        )
    return parts
