"""CNI_ARGS: the flat `K=V;K=V` hints of old (spec.md section 11.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Collection

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def load_args(text: str, known: Collection[str]) -> dict[str, str]:
    """The known pairs of CNI_ARGS; keys match exactly by case (CA-02, CA-03).

    An unknown pair is refused unless `IgnoreUnknown` is true, at any place (CA-08). Raises CniError
    4: the environment variable is what is wrong.
    """
    if not text:
        return {}
    loaded: dict[str, str] = {}
    unknown: list[str] = []
    ignore_unknown = False
    for pair in text.split(";"):
        parts = pair.split("=")
        if len(parts) != len(("key", "value")):
            raise _refusal(f'ARGS: invalid pair "{pair}"')
        key, value = parts
        if key == "IgnoreUnknown":
            ignore_unknown = _boolean(pair, value)
        elif key in known:
            loaded[key] = value
        else:
            unknown.append(pair)
    if unknown and not ignore_unknown:
        listed = " ".join(f'"{pair}"' for pair in unknown)
        raise _refusal(f"ARGS: unknown args [{listed}]", known)
    return loaded


def invalid_value(pair: str, cause: str) -> CniError:
    """The refusal of a known pair whose value cannot be read (CA-05)."""
    return _refusal(f'ARGS: error parsing value of pair "{pair}": {cause}')


def _boolean(pair: str, value: str) -> bool:
    """Read a boolean in any case (CA-04)."""
    lowered = value.lower()
    if lowered not in _BOOLEANS:
        raise invalid_value(pair, f"boolean unmarshal error: invalid input {lowered}")
    return _BOOLEANS[lowered]


def _refusal(msg: str, known: Collection[str] = ()) -> CniError:
    details = "CNI_ARGS has the form K=V;K2=V2"
    if known:
        details = (
            f"known keys: {', '.join(('IgnoreUnknown', *known))}; IgnoreUnknown=1 accepts others"
        )
    return CniError(Code.INVALID_ENVIRONMENT, msg, details)
