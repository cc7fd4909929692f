"""Where a plugin's addresses come from: host-local's ranges, the node's lease, or its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.cluster import lease_file, pool_file
from cni_py.ipam import cluster, host_local
from cni_py.plugins import overlay_config
from cni_py.spec.config import decode_config
from cni_py.spec.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_py.ipam.ranges import RangeSet

# Both keep a file an address in `dataDir`.
_KINDS = (host_local.NAME, cluster.NAME)
_OVERLAYS = ("overlay", "flannel")


def delegating(plugin: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the plugin that makes the interface: for overlay, what it delegates.

    As the node's lease is now; without one there are no ranges.
    """
    if plugin.get("type") not in _OVERLAYS:
        return plugin
    try:
        config = decode_config({"name": "network", **plugin}, overlay_config.Config)
    except CniError:
        return plugin
    made = {**config.delegate, "type": config.delegate_type}
    given = plugin.get("ipam")
    ipam = {**given} if isinstance(given, dict) else {}
    ipam["type"] = host_local.NAME
    try:
        lease = lease_file.read(config.path)
    except CniError:
        ipam.pop("ranges", None)
    else:
        ipam["ranges"] = [[{"subnet": str(one.network)}] for one in lease.subnets]
    return made | {"ipam": ipam}


def sets_of(plugin: Mapping[str, Any], network: str, version: str) -> tuple[RangeSet, ...]:
    """The range sets of a plugin that makes an interface.

    None where another plugin gives addresses, they are wrong, or the node has none yet.
    """
    kind = _ipam(plugin).get("type")
    raw = {**plugin, "name": network}
    try:
        if kind == host_local.NAME:
            return host_local.sets_of(decode_config(raw, host_local.Config), version)
        if kind == cluster.NAME:
            pools = map(pool_file.read, decode_config(raw, cluster.Config).ipam.pools)
            return tuple(cluster.set_of(one) for one in pools if one is not None)
    except CniError:
        pass
    return ()


def folder_of(plugin: Mapping[str, Any]) -> str:
    """The configured folder of allocations; `""` where there is none."""
    ipam = _ipam(plugin)
    folder = ipam.get("dataDir") if ipam.get("type") in _KINDS else ""
    return folder if isinstance(folder, str) else ""


def _ipam(plugin: Mapping[str, Any]) -> dict[str, Any]:
    found = plugin.get("ipam")
    return found if isinstance(found, dict) else {}
