"""overlay's configuration, and the delegate's that is made of it and the node's lease.

The keys are those of flannel's plugin, and so is what they become:

    {"name": "mesh", "type": "overlay", "delegate": {"isDefaultGateway": true}}

on a node with 10.5.34.0/24 of 10.5.0.0/16 and an MTU of 1450 is

    {"name": "mesh", "type": "bridge", "isDefaultGateway": true, "isGateway": true, "mtu": 1450,
     "ipMasq": true, "ipMasqExclude": ["10.5.0.0/16"],
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.34.0/24"}]],
              "routes": [{"dst": "10.5.0.0/16"}]}}
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec

from cni_py.cluster import lease_file, node_file
from cni_py.cluster.lease_file import Lease
from cni_py.ipam import host_local
from cni_py.ipam.delegation import Delegates
from cni_py.ipam.store import DEFAULT_DATA_DIR
from cni_py.spec.addresses import parse_cidr
from cni_py.spec.call import Call
from cni_py.spec.config import PluginConfig, decode_config, member
from cni_py.spec.delegation import validate_plugin_name
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.names import validate_network_name
from cni_py.spec.results import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Plugin, Request

MODULES = {"bridge": "cni_py.plugins.bridge", "ptp": "cni_py.plugins.ptp"}
DELEGATES = Delegates(MODULES)

_SHOWN_CHARACTERS = 80
# The key, at the root of a configuration, that a message of the decoder begins with.
_PATH = re.compile(r"\$\.(\w+)")
_SELF = ("overlay", "flannel")
DEFAULT_DELEGATE = "bridge"
# What the delegate gets as the runtime passed it.
_PASSED = (
    "args", "runtimeConfig", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments",
)  # fmt: skip
# What comes from elsewhere: who sets it in `delegate` expects something that does not happen.
_OURS = ("name", "ipam", "cniVersion")
# host-local's keys that say what the node's subnets say.
_NODES = frozenset({"type", "ranges", "subnet", "rangestart", "rangeend", "gateway"})
# A lease to try a configuration with where there is none.
_SOME = Lease((parse_cidr("198.18.0.0/16"),), (parse_cidr("198.18.1.0/24"),), 0, masquerades=False)


class _Ipam(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is passed on to host-local, beside the node's subnets."""

    type: str = host_local.NAME
    """`host-local`: it gives out the addresses of the node's subnets."""
    routes: tuple[Route, ...] = ()
    """Routes of containers, beside the one to the cluster's network."""
    data_dir: str = DEFAULT_DATA_DIR
    """Where allocations are kept: an absolute path."""
    resolv_conf: str = ""
    """A resolv.conf whose content becomes `dns`."""


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL and GC need, where there is no record."""

    cluster: str = node_file.DEFAULT_CLUSTER
    """Whose network it is: the name that `cni-py agent` runs with."""
    subnet_file: str = ""
    """The node's lease, as `cni-py agent` or flanneld writes it. None: the agent's; with the type
    `flannel`, flanneld's.
    """
    data_dir: str = "/var/lib/cni/flannel"
    """Where flannel's plugin kept what it delegated, for a DEL of its containers."""
    delegate: dict[str, Any] = msgspec.field(default_factory=dict)
    """The configuration of the plugin that makes the interface: `type` is `bridge` if not given."""

    @property
    def delegate_type(self) -> str:
        """Which plugin makes the interface."""
        return str(self.delegate.get("type", DEFAULT_DELEGATE))

    @property
    def path(self) -> str:
        """The file that has the node's lease."""
        if self.subnet_file:
            return self.subnet_file
        is_flannels = self.type == "flannel"
        return lease_file.FLANNEL_FILE if is_flannels else node_file.path_of(self.cluster)


class Config(DelConfig, frozen=True, kw_only=True):
    """overlay's configuration: the node's subnets come from its lease."""

    ipam: _Ipam = _Ipam()
    """What host-local gets beside the node's subnets."""
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    """What the runtime passes: the delegate gets it."""
    runtime_config: dict[str, Any] = msgspec.field(default_factory=dict)
    """What the capabilities bring: the delegate gets it."""


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    yield from refusals("cluster", _require_cluster, config.cluster)
    yield from refusals("subnetFile", _require_absolute, "subnetFile", config.subnet_file)
    yield from refusals("dataDir", _require_absolute, "dataDir", config.data_dir)
    if config.ipam.type != host_local.NAME:
        msg = f'ipam.type is "{config.ipam.type}", and the node\'s subnets need host-local'
        yield CniError(Code.INVALID_CONFIG, msg, "leave it out", key="ipam.type")
        return
    wrong = list(_delegate_mistakes(config))
    yield from wrong
    if wrong or config.delegate_type not in MODULES:
        return
    # What our own plugin says of what it would get.
    raw = document(call.request, config.delegate_type, config.delegate, _SOME)
    plugin = cast("Plugin", import_module(MODULES[config.delegate_type]))
    try:
        typed = decode_config(raw, plugin.Config)
    except CniError as error:
        msg = error.msg.removeprefix("invalid configuration: ")
        path = _PATH.match(msg)
        if path is not None and path[1] in config.delegate:
            msg = f"$.delegate{msg[1:]}"
        text = f"invalid configuration: delegate: {msg}"
        yield CniError(error.code, text, error.details, key="delegate")
        return
    request = call.request._replace(raw=raw)
    for one in plugin.mistakes(Call(request, typed, None, ExitStack())):
        yield CniError(one.code, f"delegate: {one.msg}", one.details, key="delegate")


def document(
    request: Request, kind: str, delegate: dict[str, Any], lease: Lease | None
) -> dict[str, Any]:
    """The delegate's configuration; without a lease it is what a DEL of ours needs."""
    raw = request.raw
    made: dict[str, Any] = {**delegate}
    made |= {"name": request.network, "type": kind}
    if request.cni_version:
        made["cniVersion"] = request.cni_version
    if (dns := member(raw, "dns")) is not None:
        made.setdefault("dns", dns)
    given = member(raw, "ipam")
    own = given.items() if isinstance(given, dict) else ()
    ipam: dict[str, Any] = {key: value for key, value in own if key.lower() not in _NODES}
    ipam["type"] = host_local.NAME
    if lease is not None:
        _use(lease, made, ipam)
    return passed_on(made | {"ipam": ipam}, request)


def passed_on(made: dict[str, Any], request: Request) -> dict[str, Any]:
    """A delegate's configuration, with what the runtime passes in this call."""
    found = {key: member(request.raw, key) for key in _PASSED}
    return made | {key: value for key, value in found.items() if value is not None}


def kept(made: dict[str, Any]) -> dict[str, Any]:
    """A delegate's configuration without what the runtime passes anew in each call."""
    return {key: value for key, value in made.items() if key not in _PASSED}


def as_request(request: Request, made: dict[str, Any]) -> Request:
    """The call as the delegate sees it."""
    return request._replace(raw=made, stdin=msgspec.json.encode(made))


def _use(lease: Lease, made: dict[str, Any], ipam: dict[str, Any]) -> None:
    networks = [str(one.network) for one in lease.networks]
    ipam["ranges"] = [[{"subnet": str(one.network)}] for one in lease.subnets]
    routes = ipam.get("routes") or []
    there = {one.get("dst") for one in routes if isinstance(one, dict)}
    versions = {one.version for one in lease.subnets}
    cluster = [one.network for one in lease.networks if one.version in versions]
    added = [{"dst": str(one)} for one in cluster if str(one) not in there]
    ipam["routes"] = [*added, *routes]
    if lease.mtu:
        made.setdefault("mtu", lease.mtu)
    if made["type"] == "bridge":
        made.setdefault("isGateway", True)
    if made["type"] in MODULES:
        made.setdefault("ipMasq", not lease.masquerades)
        given = made.get("ipMasqExclude", [])
        # What is no list is refused by the delegate.
        made["ipMasqExclude"] = [*given, *networks] if isinstance(given, list) else given


def _delegate_mistakes(config: Config) -> Iterator[CniError]:
    delegate = config.delegate
    for key in _OURS:
        if key in delegate:
            msg = f"'delegate' dictionary must not have '{key}' field"
            details = (
                "it is that of the network" if key != "ipam" else "it stands beside `delegate`"
            )
            yield CniError(Code.INVALID_CONFIG, msg, details, key=f"delegate.{key}")
    kind = delegate.get("type", DEFAULT_DELEGATE)
    if not isinstance(kind, str):
        msg = "'delegate' dictionary, if present, must have (string) 'type' field"
        shown = msgspec.json.encode(kind).decode()[:_SHOWN_CHARACTERS]
        details = f'$.delegate.type is {shown}; a name is for instance "bridge"'
        yield CniError(Code.INVALID_CONFIG, msg, details, key="delegate.type")
        return
    yield from refusals("delegate.type", validate_plugin_name, kind)
    if kind in _SELF:
        msg = f'delegate.type is "{kind}", which makes no interface'
        yield CniError(Code.INVALID_CONFIG, msg, 'for instance "bridge"', key="delegate.type")


def _require_cluster(name: str) -> None:
    try:
        validate_network_name(name)
    except CniError:
        msg = f'"{name}" is no name of a cluster'
        details = "a letter or digit, then any of those and `_`, `.`, `-`"
        raise CniError(Code.INVALID_CONFIG, msg, details) from None


def _require_absolute(key: str, path: str) -> None:
    if path and (not os.path.isabs(path) or "\0" in path):
        raise CniError(Code.INVALID_CONFIG, f'{key} "{path}" is not an absolute path')
