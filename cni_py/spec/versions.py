"""Protocol versions: the list, their order, and what a text means (spec.md sections 1 and 7)."""

from __future__ import annotations

from .errors import CniError, Code

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = ALL[-1]
WHEN_MISSING = "0.1.0"

FAMILY_020 = ("", "0.1.0", "0.2.0")
FAMILY_040 = ("0.3.0", "0.3.1", "0.4.0")
FAMILY_100 = ("1.0.0", "1.1.0")

CHECK_SINCE = "0.4.0"
GC_SINCE = "1.1.0"
STATUS_SINCE = "1.1.0"

_PART_NAMES = ("major", "minor", "micro")
_INT64_DIGITS = 18

Version = tuple[int, int, int]


def starting_from(version: str) -> tuple[str, ...]:
    """The known versions from `version` on. Raises ValueError if it is not one (V-03)."""
    return ALL[ALL.index(version) :]


def parse(text: str) -> Version:
    """Split a version into numbers; `""` is 0.1.0, missing parts are 0 (VS-01, VS-02).

    Raises CniError 6 with the reference's text.
    """
    if not text:
        return parse(WHEN_MISSING)
    parts = text.split(".")
    if len(parts) > len(_PART_NAMES):
        raise CniError(Code.DECODING_FAILURE, f'invalid version "{text}": too many parts')
    numbers = [_decimal(part, name) for part, name in zip(parts, _PART_NAMES, strict=False)]
    major, minor, micro = (*numbers, 0, 0)[:3]
    return major, minor, micro


def _decimal(part: str, name: str) -> int:
    """Read one part as Go's Atoi does: a sign and ASCII digits, nothing else."""
    digits = part[1:] if part[:1] in ("+", "-") else part
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _INT64_DIGITS:
        msg = f'failed to convert {name} version part "{part}": invalid syntax'
        raise CniError(Code.DECODING_FAILURE, msg)
    return int(part)


def require_exact(version: str, supported: tuple[str, ...]) -> None:
    """The version gate: plain membership, no ranges (2.3, VS-05). Raises CniError 1."""
    if version not in supported:
        listed = " ".join(f'"{one}"' for one in supported)
        details = f'config is "{version}", plugin supports [{listed}]'
        raise CniError(Code.INCOMPATIBLE_VERSION, "incompatible CNI versions", details)


def require_verb(verb: str, since: str, version: str, supported: tuple[str, ...]) -> None:
    """The gate of CHECK, GC and STATUS (2.3, D-02, D-03). Raises CniError 1 or 6."""
    wanted = parse(version)
    if wanted < parse(since):
        msg = f"config version does not allow {verb}"
        raise CniError(
            Code.INCOMPATIBLE_VERSION, msg, f'config is "{version}", {verb} exists since {since}'
        )
    for candidate in supported:
        if parse(candidate) >= wanted:
            require_exact(version, supported)
            return
    raise CniError(Code.INCOMPATIBLE_VERSION, f"plugin version does not allow {verb}")
