"""What overlay would do: what its delegate would, with the node's subnets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.cluster import lease_file
from cni_py.plugins.overlay_config import DELEGATES, as_request, document, mistakes
from cni_py.spec.call import typed_call
from cni_py.spec.errors import require_none
from cni_py.spec.results import Result

from . import pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.plugins.overlay_config import Config
    from cni_py.spec.call import Call

    from .notes import Notes

_PLANS: dict[str, Callable[[Call[Any], Notes], Result]] = {"bridge": pairs.bridge, "ptp": pairs.ptp}


def overlay(call: Call[Config], notes: Notes) -> Result:
    """overlay's, and flannel's."""
    config = call.config
    require_none(mistakes(call))
    lease = lease_file.read(config.path)
    subnets = " and ".join(str(one.network) for one in lease.subnets)
    kind = config.delegate_type
    notes.step("lease", f"{subnets} of this node, by {config.path}, for {kind}")
    request = as_request(call.request, document(call.request, kind, config.delegate, lease))
    plugin, path = DELEGATES.find(request, kind)
    if plugin is None:
        notes.step("interface", f"asks {path}, of which nothing is known")
        notes.unknown.append(f"what {kind} makes")
        return Result()
    return _PLANS[kind](typed_call(request, plugin.Config), notes)
