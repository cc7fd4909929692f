"""A network: its configuration as plugins are called with it, parsed (spec.md 13).

`folders` finds configurations; here is what is in one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cni_py.spec import versions
from cni_py.spec.addresses import json_type
from cni_py.spec.config import decode_json
from cni_py.spec.delegation import validate_plugin_name
from cni_py.spec.errors import CniError, Code
from cni_py.spec.names import validate_network_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LIST, _SINGLE = "configuration list", "configuration"


@dataclass(frozen=True)
class Plugin:
    """One plugin of a network: its `type`, and its keys as they were written."""

    type: str
    config: Mapping[str, Any] = field(repr=False)

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that it declares with `true` (CP-01)."""
        declared = self.config.get("capabilities")
        if not isinstance(declared, dict):
            return frozenset()
        return frozenset(name for name, wanted in declared.items() if wanted is True)


@dataclass(frozen=True)
class Network:
    """A network's configuration.

    `version` is the protocol version that its plugins are called with, `versions` every one that
    the configuration allows. `source` is the file's content, which the result cache keeps; `path`
    is the file, `""` for one that came as bytes.
    """

    name: str
    version: str
    plugins: tuple[Plugin, ...]
    versions: tuple[str, ...] = ()
    disable_check: bool = False
    disable_gc: bool = False
    only_inlined: bool = False
    source: bytes = field(default=b"", repr=False)
    path: str = ""

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that any of its plugins declares."""
        return frozenset().union(*(one.capabilities for one in self.plugins))

    def in_version(self, version: str) -> Network:
        """The same network, its plugins called with another version."""
        return replace(self, version=version)


def parse_network(data: bytes, path: str = "") -> Network:
    """Read a configuration list, or the configuration of a single plugin as a list of one.

    A list without `plugins` has none yet: drop-in files may bring them. Raises CniError 6 for what
    is no JSON object, 7 for what a key must not be.
    """
    raw = _decoded(data, _LIST)
    if "plugins" not in raw and "type" in raw:
        return parse_single(data, path)
    name = raw.get("name")
    if not isinstance(name, str):
        problem = "no name" if name is None else f"invalid name type {json_type(name)}"
        raise _invalid(_LIST, problem)
    validate_network_name(name)
    version, allowed = _versions(raw)
    only_inlined = _flag(raw, "loadOnlyInlinedPlugins")
    return Network(
        name=name,
        version=version,
        plugins=_inlined(raw, only_inlined=only_inlined),
        versions=allowed,
        disable_check=_flag(raw, "disableCheck"),
        disable_gc=_flag(raw, "disableGC"),
        only_inlined=only_inlined,
        source=data,
        path=path,
    )


def parse_plugin(data: bytes) -> Plugin:
    """Read the configuration of one plugin. Raises CniError 6 and 7."""
    return _plugin(_decoded(data, _SINGLE))


def parse_single(data: bytes, path: str = "") -> Network:
    """The list of one plugin that a `.conf` stands for (L-31); the cache keeps the list.

    Raises CniError 6 and 7.
    """
    raw = _decoded(data, _SINGLE)
    try:
        plugin = _plugin(raw)
    except CniError as error:
        if "plugins" in raw and "type" not in raw:
            details = "a file with several plugins must be called .conflist"
            raise CniError(error.code, error.msg, details) from None
        raise
    name, version = raw.get("name"), raw.get("cniVersion", "")
    if not isinstance(name, str):
        raise _invalid(_SINGLE, "no name" if name is None else "the name is no text")
    validate_network_name(name)
    if not isinstance(version, str):
        raise _invalid(_SINGLE, f"invalid cniVersion type {json_type(version)}")
    listed = {"name": name, "cniVersion": version, "plugins": [raw]}
    source = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    allowed = (version,) if version else ()
    return Network(name, version, (plugin,), allowed, only_inlined=True, source=source, path=path)


def _decoded(data: bytes, what: str) -> dict[str, Any]:
    try:
        raw = decode_json(data)
    except ValueError as error:
        raise CniError(Code.DECODING_FAILURE, f"error parsing {what}: {error}") from None
    if not isinstance(raw, dict):
        msg = f"error parsing {what}: expected an object, got {json_type(raw)}"
        raise CniError(Code.DECODING_FAILURE, msg)
    return raw


def _inlined(raw: dict[str, Any], *, only_inlined: bool) -> tuple[Plugin, ...]:
    if "plugins" not in raw:
        if only_inlined:
            raise _invalid(_LIST, "loadOnlyInlinedPlugins is true, and there are no plugins")
        return ()
    plugins = raw["plugins"]
    if not isinstance(plugins, list):
        raise _invalid(_LIST, f"invalid plugins type {json_type(plugins)}")
    if not plugins:
        raise _invalid(_LIST, "no plugins in list")
    read = []
    for index, one in enumerate(plugins):
        try:
            read.append(_plugin(one))
        except CniError as error:
            msg = f"failed to parse plugin config {index}: {error.msg}"
            raise CniError(error.code, msg, error.details) from None
    return tuple(read)


def _plugin(raw: object) -> Plugin:
    if not isinstance(raw, dict):
        raise _invalid(_SINGLE, f"expected an object, got {json_type(raw)}")
    kind = raw.get("type")
    if not kind:
        raise _invalid(_SINGLE, "missing 'type'")
    if not isinstance(kind, str):
        raise _invalid(_SINGLE, f"invalid type: expected a string, got {json_type(kind)}")
    validate_plugin_name(kind)
    capabilities = raw.get("capabilities") or {}
    if not isinstance(capabilities, dict) or not all(
        isinstance(one, bool) for one in capabilities.values()
    ):
        raise _invalid(_SINGLE, f"capabilities of {kind} must map names to true or false")
    return Plugin(kind, raw)


def _versions(raw: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The version to use, and all that are allowed, lowest first (N-10 to N-13)."""
    version, listed = raw.get("cniVersion", ""), raw.get("cniVersions")
    if not isinstance(version, str):
        raise _invalid(_LIST, f"invalid cniVersion type {json_type(version)}")
    if "cniVersions" not in raw:
        return version, (version,) if version else ()
    if not isinstance(listed, list):
        raise _invalid(_LIST, f"invalid cniVersions type {json_type(listed)}")
    for index, one in enumerate(listed):
        if not isinstance(one, str):
            raise _invalid(_LIST, f"invalid type for cniVersions index {index}: {json_type(one)}")
        _require_version(one, f"invalid cniVersions entry {one} at index {index}")
    if version:
        _require_version(version, f"invalid cniVersion {version}")
    allowed = usable([*listed, version] if version else listed)
    return allowed[-1] if allowed else version, allowed


def usable(listed: Iterable[str]) -> tuple[str, ...]:
    """Those that are not newer than what is known here, the lowest first, each once."""
    newest = versions.parse(versions.NEWEST)
    known = {one for one in listed if versions.parse(one) <= newest}
    return tuple(sorted(known, key=versions.parse))


def _require_version(text: str, problem: str) -> None:
    try:
        versions.parse(text)
    except CniError as error:
        raise _invalid(_LIST, f"{problem}: {error.msg}") from None


def _flag(raw: dict[str, Any], key: str) -> bool:
    """A boolean, or text that says one in any case: 0.4.0 had text."""
    value = raw.get(key, False)
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise _invalid(_LIST, f"invalid type {json_type(value)} for {key}")
    if value.lower() not in ("true", "false"):
        raise _invalid(_LIST, f'invalid value "{value.lower()}" for {key}')
    return value.lower() == "true"


def _invalid(what: str, problem: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"error parsing {what}: {problem}")
