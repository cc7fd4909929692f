"""ipvlan: give a container an interface with its parent's hardware address (plugins.md 3.4).

In a chain the parent and the addresses can be those of the previous result.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cni_py.kernel import child_links
from cni_py.kernel.child_links import IPVLAN_MODES, Child
from cni_py.spec.errors import CniError, Code, require_none
from cni_py.spec.names import validate_new_ifname

from . import child_link, interface, mtu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

_KIND = "ipvlan"
_DEFAULT_MODE = "l2"
_HINTS = {
    errno.EBUSY: "the parent is a port of a bridge or bond, or has children of another kind",
}

DelConfig = child_link.DelConfig


class Config(child_link.Config, frozen=True, kw_only=True):
    """ipvlan's configuration; without addresses from IPAM or the chain the interface has none."""

    mode: str = ""
    """`l2` (also when absent), `l3` or `l3s`: of all children of a parent."""


def add(call: Call[Config]) -> Result:
    """Create the interface in the container, and address it."""
    config = call.config
    given = None
    if not config.ipam.type and call.prev_result is not None and call.prev_result.ips:
        given = call.prev_result
    child = child_of(call, addressed=given is not None)
    master = config.master or _chained_master(call.prev_result)
    sides = interface.sides_of(call, call.scope)
    parent = child_link.parent_of(sides, config, master)
    return child_link.attach(call, sides, parent, child, given=given, hints=_HINTS)


def delete(call: Call[DelConfig]) -> None:
    """Undo an ADD, as much of it as is there. The address goes last: it may be given out again."""
    child_link.delete(call, _KIND)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference.

    The previous result is this plugin's: what the chain's parent was it does not say.
    """
    config = call.config
    child_of(call)
    child_link.check_ipam(call)
    with ExitStack() as stack:
        sides = interface.sides_of(call, stack)
        link = child_link.check(call, sides, _KIND, config.master)
    wanted, found = config.mode or _DEFAULT_MODE, child_links.ipvlan_mode(link)
    interface.require_same(f"mode of interface {link.name}", wanted, found)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says.

    Without `master` an ADD can have its parent from the chain, which STATUS does not know.
    """

    def require(host: Netlink | None) -> None:
        child_of(call)
        if host is not None and call.config.master:
            child_link.find(host, call.config, call.config.master)

    child_link.status(call, require)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Release the addresses of attachments that are gone; their interfaces went with them."""
    child_link.gc(call, collection)


def child_of(call: Call[Config], *, addressed: bool = False) -> Child:
    """What the configuration asks for, checked. Raises CniError 7, or 4 for CNI_IFNAME."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    require_none(mistakes(call, addressed=addressed))
    data = child_links.ipvlan_data(config.mode or _DEFAULT_MODE)
    return Child(_KIND, data, mtu=mtu.of(call))


def mistakes(call: Call[Config], *, addressed: bool = False) -> Iterator[CniError]:
    """What ADD refuses on every host; `addressed` where the chain brings addresses."""
    mode = call.config.mode
    yield from child_link.mistakes(call, addressed=addressed)
    if mode not in ("", *IPVLAN_MODES):
        msg, details = f'unknown ipvlan mode: "{mode}"', f"mode is one of {', '.join(IPVLAN_MODES)}"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="mode")


def _chained_master(previous: Result | None) -> str:
    """The one interface of the previous result; `""` where there is no chain. Raises CniError 7."""
    if previous is None:
        return ""
    names = [one.name for one in previous.interfaces if one.name]
    if len(names) != 1:
        msg = "chained master failure. PrevResult lacks a single named interface"
        found = ", ".join(names) or "none"
        details = f"it has {found}: name the parent in the key master"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    return names[0]
