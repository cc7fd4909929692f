"""The key `mtu`: a number, or `auto` for what the host's uplinks carry.

`auto` is the lowest MTU of the links and routes that the default routes use; `auto-50` leaves room
for an encapsulation of 50 bytes that is added later. A tunnel that is an uplink itself has taken
its own off already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec

from cni_py.kernel import links, routes
from cni_py.kernel.netlink import Netlink
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from cni_py.spec.call import Call

_AUTO = "auto"

Mtu: TypeAlias = int | Annotated[str, msgspec.Meta(pattern=r"^auto(-[0-9]{1,5})?$")]


def fixed(configured: Mtu) -> int:
    """The number that is configured, 0 if none is."""
    return configured if isinstance(configured, int) else 0


def of(call: Call[Any]) -> int:
    """What an ADD is to set, 0 for the kernel's default; with another verb than ADD and STATUS the
    configured number: uplinks change. Raises KernelError.
    """
    configured: Mtu = call.config.mtu
    if isinstance(configured, int) or call.verb not in ("ADD", "STATUS"):
        return fixed(configured)
    with Netlink() as host:
        lowest = _of_uplinks(host)
    room = configured.removeprefix(_AUTO).removeprefix("-")
    return max(lowest - int(room or "0"), 1) if lowest else 0


def require(mtu: int, lowest: int, highest: int) -> None:
    """Raises CniError 7 unless `mtu` is 0 or in the range."""
    if mtu and not lowest <= mtu <= highest:
        msg = f"invalid mtu {mtu}"
        details = f"mtu is 0 (the kernel's default) or {lowest} to {highest}"
        raise CniError(Code.INVALID_CONFIG, msg, details)


def _of_uplinks(host: Netlink) -> int:
    """The lowest MTU among the default routes of both IP versions; 0 without such a route."""
    found = []
    for hop in routes.default_hops(host):
        link = links.get_by_index(host, hop.link)
        if link is not None:
            found.append(min(link.mtu, hop.mtu or link.mtu))
    return min(found, default=0)
