"""From stdin's bytes to typed configuration.

Three steps: decode the JSON, bring keys to their declared spelling (the Go library matches keys
without regard to case and lets `null` stand for absent; rules J-01, J-02, P-05), convert strictly.
A refusal names the JSON path and the value that stands there.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_type_hints

import msgspec

from .addresses import IP, decode_hook
from .errors import CniError, Code
from .results import DNS

T = TypeVar("T")

_SHOWN_VALUE_CHARACTERS = 80


class PluginConfig(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """The keys that every plugin's configuration shares (RC-07, RC-08).

    `args` is metadata from the runtime (AR-01), `runtime_config` what the declared capabilities
    brought (CP-01); a plugin that reads one of them declares its own shape for it.
    """

    name: str
    """The network's name: letters, digits, `_`, `.` and `-`. In a list it stands once, beside
    `plugins`.
    """
    cni_version: str = ""
    """The protocol's version. Absent means 0.1.0. In a list it stands once, beside `plugins`."""
    type: str = ""
    """Which plugin this is for: the name of an executable in CNI_PATH."""
    capabilities: dict[str, bool] = {}
    """What the runtime may pass in `runtimeConfig`, each with true: `portMappings`, `mac`, ..."""
    dns: DNS = DNS()
    """Name resolution that becomes part of the result."""


class IpamType(msgspec.Struct, kw_only=True, frozen=True):
    """What an interface plugin reads of `ipam`: the rest belongs to the delegate."""

    type: str = ""
    """The IPAM plugin: `host-local`, `static`, `dhcp`, or any executable in CNI_PATH."""


class CniArgs(msgspec.Struct, kw_only=True, frozen=True):
    """The `args` key where nothing of it is read: any object (AR-01)."""


def decode_json(data: bytes) -> object:
    """Decode one JSON document: UTF-8, no BOM, no NaN, nothing after it (trap 5).

    Raises ValueError with the parser's words.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def convert(raw: object, wanted: type[T]) -> T:
    """Convert decoded JSON to `wanted`. Raises msgspec.ValidationError, or RecursionError."""
    return msgspec.convert(fold_keys(raw, wanted), wanted, dec_hook=decode_hook)


def decode_config(raw: object, wanted: type[T]) -> T:
    """Convert a plugin's decoded configuration. Raises CniError 7 with path and value."""
    try:
        return convert(raw, wanted)
    except msgspec.ValidationError as error:
        msg, details = explain(error, raw, wanted)
        raise CniError(Code.INVALID_CONFIG, f"invalid configuration: {msg}", details) from None


def explain(error: msgspec.ValidationError, raw: object, wanted: Any) -> tuple[str, str]:
    """Split a validation error into `<path>: <what is wrong>` and `got <value>`."""
    what, _, path = str(error).rpartition(" - at `")
    path = path.rstrip("`")
    if not what:
        return str(error), ""
    if path.startswith("key in "):
        return f"{path}: {what}", ""
    value = msgspec.json.encode(value_at(fold_keys(raw, wanted), path)).decode()
    if len(value) > _SHOWN_VALUE_CHARACTERS:
        value = value[:_SHOWN_VALUE_CHARACTERS] + "..."
    return f"{path}: {what}", f"got {value}"


def value_at(raw: object, path: str) -> object:
    """The value at a msgspec path such as `$.ipam.ranges[0][1].subnet`.

    `[...]` stands for some element, which msgspec does not tell: the container is returned.
    """
    steps = path.lstrip("$").replace("[", ".[").split(".")
    for step in steps:
        if not step:
            continue
        if step.startswith("["):
            index = step[1:-1]
            if not isinstance(raw, list) or not index.isdigit() or int(index) >= len(raw):
                return raw
            raw = raw[int(index)]
        elif isinstance(raw, dict) and step in raw:
            raw = raw[step]
        else:
            return raw
    return raw


def fold_keys(raw: object, wanted: Any) -> object:
    """Give the members of every struct in `wanted` their declared spelling and drop what is unset.

    Unset are null and, for an address, `""` (J-02, J-04). An exact key beats a variant of it;
    free-form maps keep their keys. Values that do not fit the type are left as they are: the
    conversion reports them.
    """
    if isinstance(raw, list):
        element = element_type(wanted)
        return raw if element is None else [fold_keys(item, element) for item in raw]
    if not isinstance(raw, dict):
        return raw
    struct = struct_type(wanted)
    if struct is None:
        return raw
    names: dict[str, str] = dict(
        zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True)
    )
    folded = {name.lower(): name for name in names}
    hints = field_types(struct)
    members: dict[str, object] = {}
    for key, value in raw.items():
        name = str(key) if key in names else folded.get(str(key).lower(), str(key))
        if value is None or (name != key and raw.get(name) is not None):
            continue
        if name not in names:
            members[name] = value
        elif value != "" or IP not in alternatives(hints[names[name]]):
            members[name] = fold_keys(value, hints[names[name]])
    return members


def member(raw: dict[str, Any], name: str) -> object:
    """The member that `fold_keys` gives the name `name`; None when absent or null."""
    if raw.get(name) is not None:
        return raw[name]
    folded = name.lower()
    variants = (key for key in reversed(raw) if key.lower() == folded)
    return next((raw[key] for key in variants if raw[key] is not None), None)


_hints_of: dict[type, dict[str, Any]] = {}


def field_types(struct: type) -> dict[str, Any]:
    """The field types of a struct, evaluated once."""
    if struct not in _hints_of:
        _hints_of[struct] = get_type_hints(struct)
    return _hints_of[struct]


def alternatives(wanted: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    is_union = isinstance(wanted, UnionType) or getattr(wanted, "__origin__", None) is Union
    return get_args(wanted) if is_union else (wanted,)


def struct_type(wanted: Any) -> type[msgspec.Struct] | None:
    """The struct that an object is read into, looking through `| None`."""
    for candidate in alternatives(wanted):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def element_type(wanted: Any) -> Any:
    """The type of a list's elements: `tuple[X, ...]`, `list[X]`, also inside `| None`."""
    for candidate in alternatives(wanted):
        if getattr(candidate, "__origin__", None) in (tuple, list):
            return get_args(candidate)[0]
    return None
