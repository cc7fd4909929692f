"""Hardware addresses as configurations write them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.spec.args import load_args
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from cni_py.spec.call import Call

_FORMS = ((":", 6, 2), ("-", 6, 2), (".", 3, 4))
_MULTICAST = 0x01


class Mac(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of `runtimeConfig`, and of `args.cni`."""

    mac: str = ""


class MacArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of `args`."""

    cni: Mac = Mac()


def asked_mac(call: Call[Any], configured: str = "") -> str:
    """The capability, else `args.cni.mac`, else CNI_ARGS, else the key `mac`; `""` for none.

    The configuration has `runtime_config` and `args` as declared here. Raises CniError 7, or 4 for
    CNI_ARGS.
    """
    asked = load_args(call.args, ("MAC",))
    sources = (
        ("runtimeConfig.mac", call.config.runtime_config.mac),
        ("args.cni.mac", call.config.args.cni.mac),
        ("CNI_ARGS MAC", asked.get("MAC", "")),
        ("the key mac", configured),
    )
    return next((parse_mac(text, source) for source, text in sources if text), "")


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
