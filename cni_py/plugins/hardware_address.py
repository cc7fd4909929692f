"""Hardware addresses as configurations write them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.spec.args import load_args
from cni_py.spec.errors import CniError, Code, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call

_FORMS = ((":", 6, 2), ("-", 6, 2), (".", 3, 4))
_MULTICAST = 0x01


class Mac(msgspec.Struct, frozen=True, kw_only=True):
    """An object that may ask for a hardware address."""

    mac: str = ""
    """The hardware address to have, as `02:00:00:00:00:01`."""


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The `args` key, as far as it is about hardware addresses."""

    cni: Mac = Mac()
    """Arguments for CNI plugins."""


def requested_mac(runtime_config: Mac, args: Args, cni_args: str, configured: str = "") -> str:
    """The address asked for, `""` if none is. Raises CniError 7, or 4 for CNI_ARGS.

    The capability wins over `args.cni.mac`, which wins over CNI_ARGS (plugins.md 3.1.1), which wins
    over the key `mac` where a plugin has it.
    """
    asked = load_args(cni_args, ("MAC",))
    sources = (
        ("runtimeConfig.mac", runtime_config.mac),
        ("args.cni.mac", args.cni.mac),
        ("CNI_ARGS MAC", asked.get("MAC", "")),
        ("the key mac", configured),
    )
    return next((parse_mac(text, source) for source, text in sources if text), "")


def mac_mistakes(call: Call[Any], configured: str = "") -> Iterator[CniError]:
    """The refusal of the address asked for, if it is none; `configured` is the key `mac`."""
    config = call.config
    return refusals("mac", requested_mac, config.runtime_config, config.args, call.args, configured)


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
    msg = f'invalid mac "{text}": it {problem}'
    raise CniError(Code.INVALID_CONFIG, msg, f"in {source}", key=source.removeprefix("the key "))


def _digits(text: str) -> str:
    for separator, count, width in _FORMS:
        parts = text.split(separator)
        if len(parts) == count and all(
            len(part) == width and set(part) <= set(string.hexdigits) for part in parts
        ):
            return "".join(parts)
    return ""
