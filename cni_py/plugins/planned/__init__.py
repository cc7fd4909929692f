"""What an ADD would do, said and not done: `cni-py plan`.

A handler a plugin, which no call loads. It takes a call as ADD does, has
the plugin's own checks and choices made, notes what would be set and what is in the way, and gives
the result that ADD would, without hardware addresses that the kernel picks. It changes nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .notes import Notes, Step

if TYPE_CHECKING:
    from cni_py.spec.call import Call
    from cni_py.spec.results import Result

__all__ = ["HANDLERS", "Notes", "Step", "plan"]

# The module and function of each plugin's handler.
HANDLERS = {
    "bandwidth": "chained:bandwidth",
    "bridge": "pairs:bridge",
    "dns": "chained:dns",
    "dnsname": "chained:dns",
    "dummy": "singles:dummy",
    "flannel": "delegating:overlay",
    "firewall": "chained:firewall",
    "host-device": "singles:host_device",
    "ipvlan": "singles:ipvlan",
    "loopback": "singles:loopback",
    "macvlan": "singles:macvlan",
    "overlay": "delegating:overlay",
    "portmap": "chained:portmap",
    "ptp": "pairs:ptp",
    "sbr": "chained:sbr",
    "services": "chained:services",
    "tap": "singles:tap",
    "tuning": "chained:tuning",
    "vlan": "singles:vlan",
    "vrf": "chained:vrf",
}


def plan(name: str, call: Call[Any], notes: Notes) -> Result:
    """The result that the plugin's ADD would give. Raises the CniError that ADD would."""
    module, _, function = HANDLERS[name].partition(":")
    result: Result = getattr(import_module(f"{__name__}.{module}"), function)(call, notes)
    return result
