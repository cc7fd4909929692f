"""vlan: give a container a VLAN of a parent (plugins.md 3.5)."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cni_py.kernel import child_links
from cni_py.kernel.child_links import Child
from cni_py.spec.errors import CniError, Code, require_none
from cni_py.spec.names import validate_new_ifname

from . import child_link, interface, mtu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

_KIND = "vlan"
_MAX_VLAN = 4094
_HINTS = {errno.EEXIST: "a parent has each VLAN once, be it on the host or in a container"}

DelConfig = child_link.DelConfig


class Config(child_link.Config, frozen=True, kw_only=True):
    """vlan's configuration; without an IPAM type the interface has no address."""

    vlan_id: int = 0
    """The VLAN (802.1Q), to 4094; 0 carries a priority alone."""


def add(call: Call[Config]) -> Result:
    """Create the interface in the container, and address it."""
    child = child_of(call)
    sides = interface.sides_of(call, call.scope)
    parent = child_link.parent_of(sides, call.config, call.config.master)
    _require_up(parent.link)
    return child_link.attach(call, sides, parent, child, hints=_HINTS)


def delete(call: Call[DelConfig]) -> None:
    """Undo an ADD, as much of it as is there. The address goes last: it may be given out again."""
    child_link.delete(call, _KIND)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config = call.config
    child_of(call)
    child_link.check_ipam(call)
    with ExitStack() as stack:
        sides = interface.sides_of(call, stack)
        link = child_link.check(call, sides, _KIND, config.master)
    found = child_links.vlan_id(link)
    interface.require_same(f"vlanId of interface {link.name}", config.vlan_id, found)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says."""

    def require(host: Netlink | None) -> None:
        child_of(call)
        if host is not None:
            _require_up(child_link.find(host, call.config, call.config.master))

    child_link.status(call, require)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Release the addresses of attachments that are gone; their interfaces went with them."""
    child_link.gc(call, collection)


def child_of(call: Call[Config]) -> Child:
    """What the configuration asks for, checked. Raises CniError 7, or 4 for CNI_IFNAME."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    require_none(mistakes(call))
    return Child(_KIND, child_links.vlan_data(config.vlan_id), mtu=mtu.of(call))


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    if not config.master:
        msg = (
            '"master" field is required. '
            "It specifies the host interface name to create the VLAN for"
        )
        details = "the key master is missing or empty"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="master")
    yield from child_link.mistakes(call)
    if not 0 <= config.vlan_id <= _MAX_VLAN:
        msg = f"invalid VLAN ID {config.vlan_id} (must be between 0 and {_MAX_VLAN})"
        yield CniError(Code.INVALID_CONFIG, msg, "in the key vlanId", key="vlanId")


def _require_up(parent: Link) -> None:
    """The kernel sets no VLAN up on a parent that is down. Raises CniError."""
    if not parent.up:
        msg = f"master {parent.name} is down"
        raise CniError(Code.INTERNAL, msg, "its VLANs cannot be set up before it is up itself")
