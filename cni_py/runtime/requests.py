"""What a plugin is called with: its configuration and its environment (spec.md 10, 11, 12.2)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.spec import names, versions
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .networks import Network, Plugin

# What a runtime sets, and nobody who writes a configuration (RC-03, RC-04, RC-06).
_NOT_FOR_PLUGINS = ("capabilities", "prevResult")
_VALID = ("cni.dev/valid-attachments", "cni.dev/attachments")
_TRACE = ("TRACEPARENT", "TRACESTATE", "BAGGAGE")
# For plugins so old that they check the environment first.
_PROBE = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}


@dataclass(frozen=True)
class Parameters:
    """An attachment's parameters: which container gets which interface, and what was asked for.

    `netns` is the path of the container's network namespace. `args` are the pairs of CNI_ARGS in
    order. `capabilities` has JSON values by name (`portMappings`, `ips`, `mac`...): each plugin
    gets those that it declares.
    """

    container_id: str
    netns: str
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Raises CniError 3 or 4 for an id or an interface name that cannot be one."""
        names.validate_container_id(self.container_id)
        names.validate_ifname(self.ifname)
        for pair in self.args:
            if any("\0" in one for one in pair) or "\0" in self.netns:
                raise CniError(Code.INVALID_ENVIRONMENT, "a NUL cannot be in the environment")


NOBODY = Parameters("", "", "")


def attachment_config(
    network: Network,
    plugin: Plugin,
    capabilities: Mapping[str, Any],
    previous: Mapping[str, Any] | None,
) -> bytes:
    """For ADD, CHECK and DEL; `previous` becomes prevResult."""
    config = _config(network, plugin)
    wanted = {name: capabilities[name] for name in capabilities if name in plugin.capabilities}
    if wanted:
        config["runtimeConfig"] = wanted
    if previous is not None:
        config["prevResult"] = previous
    return msgspec.json.encode(config)


def network_config(network: Network, plugin: Plugin) -> bytes:
    """For STATUS."""
    return msgspec.json.encode(_config(network, plugin))


def collection_config(network: Network, plugin: Plugin, valid: Iterable[tuple[str, str]]) -> bytes:
    """For GC, with the attachments that live under the newer and the older key (G-08)."""
    listed = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
    return msgspec.json.encode(_config(network, plugin) | dict.fromkeys(_VALID, listed))


def version_config() -> bytes:
    """For VERSION."""
    return msgspec.json.encode({"cniVersion": versions.NEWEST})


def environment(
    verb: str, parameters: Parameters, path: str, extra: Mapping[str, str]
) -> dict[str, str]:
    """What this process has, with `extra` and the six variables of the protocol (X-01)."""
    environ = {**os.environ, **extra}
    if extra.get("TRACEPARENT"):
        # What was inherited belongs to another trace (OT-03).
        for name in _TRACE:
            if name not in extra:
                environ.pop(name, None)
    return environ | {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": parameters.container_id,
        "CNI_NETNS": parameters.netns,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in parameters.args),
        "CNI_IFNAME": parameters.ifname,
        "CNI_PATH": path,
    }


def probing_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The same for VERSION."""
    return environment("VERSION", NOBODY, "", extra) | _PROBE


def _config(network: Network, plugin: Plugin) -> dict[str, Any]:
    config = {key: value for key, value in plugin.config.items() if key not in _NOT_FOR_PLUGINS}
    return config | {"cniVersion": network.version, "name": network.name}
