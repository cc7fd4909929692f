"""The JSON Schema of a whole `.conflist` or `.conf`, for editors: each plugin's by its `type`.

It is stricter than plugins are: a key that no plugin reads is a mistake, unless it looks like a
remark or another reader's key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import foreign_keys, versions
from .config import IpamType, field_types
from .schema import DIALECT, config_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .config import PluginConfig

_OF_THE_NETWORK = ("name", "cniVersion")
_PROTOCOL = ("ipam", "args", "runtimeConfig", "prevResult")
_TEXTS = {
    "cniVersions": "Every version of the protocol that the configuration allows.",
    "disableCheck": "Runtimes do without CHECK.",
    "disableGC": "Runtimes do without GC.",
    "loadOnlyInlinedPlugins": "Runtimes take no plugins from the folder beside the file.",
    "args": "A runtime's notes, such as podman's labels of the network; plugins do not get them.",
    "plugins": "The plugins, in the order in which ADD runs them.",
}


def list_schema(
    configs: Mapping[str, type[PluginConfig]], delegates: Iterable[str]
) -> dict[str, Any]:
    """The schema, in one document without references to others.

    `configs` has the type of each plugin's configuration by its name, `delegates` are the IPAM
    plugins among them: in a list they stand in `ipam`.
    """
    ipams = sorted(delegates)
    definitions: dict[str, Any] = {}
    for name, config in configs.items():
        definitions |= _definitions(name, config)
    interfaces = [name for name in configs if name not in ipams]
    for name in interfaces:
        _embed(definitions[f"{name}.{_root(configs[name])}"], configs[name])
    shared = definitions[f"{interfaces[0]}.{_root(configs[interfaces[0]])}"]["properties"]
    network = {key: shared[key] for key in _OF_THE_NETWORK}
    network["cniVersion"] = network["cniVersion"] | {"enum": list(versions.ALL)}
    network["cniVersion"].pop("default", None)
    definitions["plugin"] = _chosen(
        {name: f"{name}.{_root(configs[name])}" for name in interfaces}, shared["type"]
    )
    definitions["ipam"] = _chosen(
        {name: _ipam_of(definitions, name, configs[name]) for name in ipams},
        definitions[f"{_ipam_user(interfaces, configs)}.IpamType"]["properties"]["type"],
    )
    definitions["list"] = {
        "type": "object",
        "properties": network | _list_properties(),
        "required": ["name", "plugins"],
        "patternProperties": {foreign_keys.PATTERN: True},
        "additionalProperties": False,
    }
    definitions["single"] = {
        "allOf": [{"$ref": "#/$defs/plugin"}],
        "properties": network,
        "required": ["name", "type"],
    }
    return {
        "$schema": DIALECT,
        "title": "A network's configuration: .conflist or .conf",
        "type": "object",
        "if": {"required": ["type"]},
        "then": {"$ref": "#/$defs/single"},
        "else": {"$ref": "#/$defs/list"},
        "$defs": definitions,
    }


def _definitions(name: str, config: type[PluginConfig]) -> dict[str, Any]:
    """The definitions of a plugin's schema, with the plugin's name before theirs; closed."""
    text = json.dumps(config_schema(name, config)["$defs"])
    found = json.loads(text.replace("#/$defs/", f"#/$defs/{name}."))
    for one in found.values():
        one["patternProperties"] = {foreign_keys.PATTERN: True}
        one["additionalProperties"] = False
    return {f"{name}.{key}": one for key, one in found.items()}


def _root(config: type[PluginConfig]) -> str:
    return config.__name__


def _embed(definition: dict[str, Any], config: type[PluginConfig]) -> None:
    """Make it one of a plugin in a list: named by the list, with the delegate's own `ipam`."""
    properties = definition["properties"]
    definition["required"] = [one for one in definition["required"] if one != "name"]
    for key in _PROTOCOL:
        properties.setdefault(key, {"type": "object"})
    if field_types(config).get("ipam") is IpamType:
        text = properties["ipam"].get("description", "")
        properties["ipam"] = {"$ref": "#/$defs/ipam", "description": text}
    # What these have depends on the runtime, and on the delegate.
    for key in ("args", "runtimeConfig"):
        properties[key] = {"type": "object"}


def _chosen(definitions: Mapping[str, str], of_type: Mapping[str, Any]) -> dict[str, Any]:
    """An object whose `type` chooses its definition; any other type has any keys."""
    known = {"anyOf": [{"enum": list(definitions)}, {"type": "string", "minLength": 1}]}
    described = {"description": of_type["description"]}
    return {
        "type": "object",
        "properties": {"type": described | known},
        "required": ["type"],
        "allOf": [
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"$ref": f"#/$defs/{definition}"},
            }
            for name, definition in definitions.items()
        ],
    }


def _ipam_of(definitions: Mapping[str, Any], name: str, config: type[PluginConfig]) -> str:
    """The name of a delegate's definition of `ipam`."""
    ipam = definitions[f"{name}.{_root(config)}"]["properties"]["ipam"]
    refs = [one["$ref"] for one in (ipam, *ipam.get("anyOf", ())) if "$ref" in one]
    return str(refs[0]).removeprefix("#/$defs/")


def _ipam_user(names: Iterable[str], configs: Mapping[str, type[PluginConfig]]) -> str:
    """A plugin that has a delegate."""
    return next(one for one in names if field_types(configs[one]).get("ipam") is IpamType)


def _list_properties() -> dict[str, Any]:
    flag = {"type": "boolean", "default": False}
    types: dict[str, dict[str, Any]] = {
        "cniVersions": {"type": "array", "items": {"enum": list(versions.ALL)}},
        "disableCheck": flag,
        "disableGC": flag,
        "loadOnlyInlinedPlugins": flag,
        "args": {"type": "object"},
        "plugins": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/plugin"}},
    }
    return {key: one | {"description": _TEXTS[key]} for key, one in types.items()}
