"""Figures for a person: times, bytes, rates, shares."""

from __future__ import annotations

from math import log2

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_BITS = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
_THOUSAND = 1000
_TIMES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_PERCENT = 100
_FULL_DIGITS = 10**9


def byte_count(number: int) -> str:
    """`512 B`, `3.9 kB`, `12 MB`: in thousands."""
    return _scaled(number, _BYTES)


def bit_rate(number: int) -> str:
    """`8 Mbit/s`."""
    return _scaled(number, _BITS)


def _scaled(number: int, units: tuple[str, ...]) -> str:
    value, unit = float(number), units[0]
    for unit in units:
        if abs(value) < _THOUSAND or unit == units[-1]:
            break
        value /= _THOUSAND
    digits = 0 if unit == units[0] or value >= 10 or value == int(value) else 1
    return f"{value:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `5 h`, `12 d`: the largest unit that there is one of."""
    for size, unit in _TIMES:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def count(number: int) -> str:
    """`65,533`; what has more than nine digits as about a power of two, `2^64`."""
    if number < _FULL_DIGITS:
        return f"{number:,}"
    return f"2^{round(log2(number))}"


def share(part: int, whole: int) -> str:
    """`12%`; what is little, but not nothing, is `<1%`."""
    if not whole:
        return ""
    percent = part * _PERCENT / whole
    return "<1%" if 0 < percent < 1 else f"{percent:.0f}%"
