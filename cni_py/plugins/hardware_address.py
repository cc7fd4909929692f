"""Hardware addresses as configurations write them."""

from __future__ import annotations

import string

from cni_py.spec.errors import CniError, Code

_FORMS = ((":", 6, 2), ("-", 6, 2), (".", 3, 4))
_MULTICAST = 0x01


def parse_mac(text: str, source: str) -> str:
    """`aa:bb:...`, `aa-bb-...` or `aabb.ccdd.eeff` as lower-case text with colons (J-06).

    Raises CniError 7 naming `source` for anything else, and for what no interface can have.
    """
    digits = _digits(text)
    problem = "is not a MAC address"
    if digits:
        packed = bytes.fromhex(digits)
        if not packed[0] & _MULTICAST and any(packed):
            return packed.hex(":")
        problem = "is no address of one interface (multicast or zero)"
    raise CniError(Code.INVALID_CONFIG, f'invalid mac "{text}": it {problem}', f"in {source}")


def _digits(text: str) -> str:
    for separator, count, width in _FORMS:
        parts = text.split(separator)
        if len(parts) == count and all(
            len(part) == width and set(part) <= set(string.hexdigits) for part in parts
        ):
            return "".join(parts)
    return ""
