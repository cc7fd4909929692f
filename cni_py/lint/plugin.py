"""One plugin's configuration: its type, its keys, and what the plugin itself would refuse."""

from __future__ import annotations

from contextlib import ExitStack
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from cni_py.ipam.delegation import MODULES as IPAM
from cni_py.plugins import overlay_config
from cni_py.skel import EXECUTABLES
from cni_py.spec.call import Call, Request
from cni_py.spec.config import PluginConfig, decode_config, field_types, struct_type
from cni_py.spec.delegation import validate_plugin_name
from cni_py.spec.environment import Environment
from cni_py.spec.errors import CniError, refusals

from .finding import find
from .keys import check_names, check_object, check_value
from .network import require_type

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni_py.spec.call import Plugin
    from cni_py.spec.located import Node

    from .finding import Notes
    from .host import Host
    from .network import Network

# What the protocol knows beside a plugin's own keys.
_PROTOCOL = ("ipam", "args", "runtimeConfig", "prevResult")
_ALIKE = 0.8
_ADD = Environment("ADD", "", "", "", "", "", "")


class Checked(NamedTuple):
    """A plugin of a network; `typed` is None where it is not ours, or cannot be read.

    `delegate` is the IPAM plugin's configuration, where that is ours and can be read.
    """

    node: Node
    type: str
    typed: PluginConfig | None = None
    delegate: PluginConfig | None = None
    ipam: str = ""


def check(notes: Notes, network: Network, node: Node, host: Host) -> Checked:
    """Note what is wrong with one plugin."""
    kind = require_type(notes, node, "type", "a plugin")
    if not kind:
        return Checked(node, "")
    place = node.get("type") or node
    if not _is_executable(notes, place, kind, host):
        return Checked(node, kind)
    if kind in IPAM:
        text = f"{kind} gives out addresses for another plugin"
        notes.error(place, text, f'put it into that one\'s "ipam": {{"type": "{kind}", ...}}')
        return Checked(node, kind)
    _check_capabilities(notes, node, kind)
    if kind not in EXECUTABLES:
        return Checked(node, kind)
    _check_version(notes, network, place, kind)
    config = _module(kind).Config
    delegate = _delegate(notes, node, config, host)
    unfit = _check_keys(notes, node, config, kind, is_list=network.is_list)
    if issubclass(config, overlay_config.Config):
        _check_passed_on(notes, node)
    typed = _typed(notes, network, node, kind, unfit)
    given = None
    if delegate in IPAM:
        _check_version(notes, network, place, delegate)
        given = _check_delegate(notes, network, node, delegate)
    return Checked(node, kind, typed, given, delegate)


def _module(kind: str) -> Plugin:
    return cast("Plugin", import_module(EXECUTABLES[kind].module))


def _is_executable(notes: Notes, place: Node, kind: str, host: Host) -> bool:
    """Whether there is such a plugin, or may be."""
    for error in refusals("type", validate_plugin_name, kind):
        notes.error(place, error.msg, error.details)
        return False
    missing = host.has_executables and kind not in host.executables
    if kind in EXECUTABLES and not missing:
        return True
    known = {*EXECUTABLES, *host.executables}
    alike = get_close_matches(kind, sorted(known - {kind}), n=1, cutoff=_ALIKE)
    hint = f"did you mean {alike[0]}?" if alike else ""
    if missing and kind in EXECUTABLES:
        notes.error(place, f"{host.cni_path} has no executable {kind}", "cni-py install writes it")
        return True
    if missing:
        notes.error(place, f"{host.cni_path} has no executable {kind}", hint)
        return False
    if alike and not host.has_executables:
        notes.warn(place, f"{kind} is no plugin of ours", hint)
        return False
    return True


def _check_version(notes: Notes, network: Network, place: Node, kind: str) -> None:
    known = EXECUTABLES[kind].versions
    if network.version and network.version not in known:
        text = f"{kind} does not speak cniVersion {network.version}"
        notes.error(network.root.get("cniVersion") or place, text, f"it begins with {known[0]}")


def _delegate(notes: Notes, node: Node, config: type[PluginConfig], host: Host) -> str:
    """The IPAM plugin's type, `""` for none."""
    ipam = node.get("ipam")
    if ipam is None or "ipam" not in field_types(config) or ipam.kind != "object":
        return ""
    if issubclass(config, overlay_config.Config):
        # host-local's type and ranges come from the node's lease.
        return ""
    kind = ipam.get("type")
    if kind is None or kind.kind != "string" or not kind.value:
        if ipam.members and kind is None:
            notes.error(ipam, "`ipam` has no `type`", "it names the IPAM plugin: host-local, ...")
        return ""
    name = str(kind.value)
    if name in EXECUTABLES and name not in IPAM:
        notes.error(kind, f"{name} is no IPAM plugin", f"there are {', '.join(sorted(IPAM))}")
        return ""
    if name not in IPAM and not host.has_executables:
        alike = get_close_matches(name, sorted(IPAM), n=1, cutoff=_ALIKE)
        if alike:
            notes.warn(kind, f"{name} is no plugin of ours", f"did you mean {alike[0]}?")
        return name
    _is_executable(notes, kind, name, host)
    return name


def _check_keys(
    notes: Notes, node: Node, config: type[PluginConfig], kind: str, *, is_list: bool
) -> set[str]:
    """Note keys that do not fit, and return those whose values do not; `ipam` is the delegate's."""
    fields = {one.encode_name: one for one in msgspec.structs.fields(config)}
    also = () if is_list else ("cniVersions", "disableCheck", "disableGC")
    check_names(notes, node, (*fields, *_PROTOCOL, *also), kind)
    unfit = set()
    for name, one in fields.items():
        value = node.get(name)
        if value is None:
            continue
        if name == "ipam":
            fits = value.kind == "object"
            if not fits:
                notes.error(value, "`ipam` has to be an object", '{"type": "host-local", ...}')
        elif name not in ("args", "runtimeConfig"):
            fits = check_value(notes, value, one.type, name)
        else:
            fits = value.kind == "object"
        if not fits:
            unfit.add(name.lower())
    return unfit


def _check_passed_on(notes: Notes, node: Node) -> None:
    """Note keys of overlay's `delegate` that the plugin it names has not, where it is ours."""
    given = node.get("delegate")
    if given is None or given.kind != "object":
        return
    kind = given.get("type")
    name = overlay_config.DEFAULT_DELEGATE if kind is None else kind.value
    if isinstance(name, str) and name in overlay_config.MODULES:
        fields = msgspec.structs.fields(_module(name).Config)
        check_names(notes, given, (*(one.encode_name for one in fields), *_PROTOCOL), name)


def _typed(
    notes: Notes, network: Network, node: Node, kind: str, unfit: Collection[str] = ()
) -> PluginConfig | None:
    """The configuration as the plugin reads it, without the keys that do not fit.

    What the plugin refuses is noted.
    """
    module = _module(kind)
    raw = {key: value for key, value in _raw(network, node).items() if key.lower() not in unfit}
    try:
        typed = decode_config(raw, module.Config)
    except (CniError, RecursionError) as error:
        if isinstance(error, CniError):
            notes.error(node, error.msg, error.details)
        return None
    request = Request(_ADD, {}, b"", raw, raw["name"], network.version)
    for refused in module.mistakes(Call(request, typed, None, ExitStack())):
        notes.refused(node, refused)
    return typed


def _raw(network: Network, node: Node) -> dict[str, Any]:
    """As runtimes call a plugin: with the network's name and version."""
    raw: dict[str, Any] = node.plain()
    raw = {key: raw[key] for key in raw if key.lower() not in ("name", "cniversion", "prevresult")}
    return raw | {"name": network.name or "network", "cniVersion": network.version}


def _check_delegate(notes: Notes, network: Network, node: Node, kind: str) -> PluginConfig | None:
    """Look at `ipam` as the delegate reads it."""
    wanted = field_types(_module(kind).Config)["ipam"]
    ipam, struct = node.get("ipam"), struct_type(wanted)
    assert ipam is not None
    assert struct is not None
    if not check_object(notes, ipam, struct, kind):
        return None
    return _typed(notes, network, node, kind)


def _check_capabilities(notes: Notes, node: Node, kind: str) -> None:
    declared = node.get("capabilities")
    if declared is None:
        return
    if declared.kind != "object":
        hint = 'it is an object: {"portMappings": true}'
        notes.error(declared, "`capabilities` has to be an object", hint)
        return
    known = _capabilities(node, kind)
    for one in declared.members:
        if known is None or one.key in known:
            continue
        folded = {name.lower(): name for name in known}
        alike = get_close_matches(one.key.lower(), folded, n=1, cutoff=0.75)
        if alike:
            hint = f"did you mean `{folded[alike[0]]}`?"
            notes.error(one.offset, f"{kind} has no capability `{one.key[:40]}`", hint)


def _capabilities(node: Node, kind: str) -> set[str] | None:
    """What a plugin and its delegate read of `runtimeConfig`; None where nobody knows."""
    ipam = find(node, "ipam.type").value
    kinds = [kind, ipam] if isinstance(ipam, str) else [kind]
    if any(one not in EXECUTABLES for one in kinds):
        return None
    found: set[str] = set()
    for one in kinds:
        struct = struct_type(field_types(_module(one).Config).get("runtime_config"))
        found |= set(struct.__struct_encode_fields__) if struct is not None else set()
    return found
