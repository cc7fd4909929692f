"""macvlan: give a container an interface with its own address on a parent (plugins.md 3.3)."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cni_py.kernel import child_links
from cni_py.kernel.child_links import MACVLAN_MODES, Child
from cni_py.spec.errors import CniError, Code, require_none
from cni_py.spec.names import validate_new_ifname

from . import child_link, interface, mtu
from .hardware_address import Args, Mac, mac_mistakes, requested_mac

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

_KIND = "macvlan"
_DEFAULT_MODE = "bridge"
_MAX_QUEUE_LENGTH = 2**32 - 1
_HINTS = {
    errno.EBUSY: "the parent is a port of a bridge or bond, or has children of another kind",
    errno.EINVAL: "a parent with a child in mode passthru has no other child",
}

DelConfig = child_link.DelConfig


class Config(child_link.Config, frozen=True, kw_only=True):
    """macvlan's configuration; without an IPAM type the interface has no address."""

    mode: str = ""
    """`bridge` (also when absent), `private`, `vepa` or `passthru`."""
    mac: str = ""
    """The hardware address; not in mode `passthru`. None: the kernel's choice."""
    bcqueuelen: int = 0
    """The parent's queue for broadcasts, in frames; 0: the kernel's."""
    args: Args = Args()
    """What the runtime passes in `args.cni`."""
    runtime_config: Mac = Mac()
    """What the capabilities bring."""


def add(call: Call[Config]) -> Result:
    """Create the interface in the container, and address it."""
    child = child_of(call)
    sides = interface.sides_of(call, call.scope)
    parent = child_link.parent_of(sides, call.config, call.config.master)
    return child_link.attach(call, sides, parent, child, hints=_HINTS)


def delete(call: Call[DelConfig]) -> None:
    """Undo an ADD, as much of it as is there. The address goes last: it may be given out again."""
    child_link.delete(call, _KIND)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config, child = call.config, child_of(call)
    child_link.check_ipam(call)
    with ExitStack() as stack:
        sides = interface.sides_of(call, stack)
        link = child_link.check(call, sides, _KIND, config.master)
    what = f"of interface {link.name}"
    found = child_links.macvlan_mode(link)
    interface.require_same(f"mode {what}", config.mode or _DEFAULT_MODE, found)
    length = child_links.macvlan_queue_length(link)
    if config.bcqueuelen and length is not None:
        interface.require_same(f"bcqueuelen {what}", config.bcqueuelen, length)
    if child.mac and found != "passthru":
        interface.require_same(f"mac {what}", child.mac, link.mac)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says."""

    def require(host: Netlink | None) -> None:
        child_of(call)
        if host is not None:
            child_link.find(host, call.config, call.config.master)

    child_link.status(call, require)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Release the addresses of attachments that are gone; their interfaces went with them."""
    child_link.gc(call, collection)


def child_of(call: Call[Config]) -> Child:
    """What the configuration asks for, checked. Raises CniError 7, or 4 for CNI_ARGS."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    require_none(mistakes(call))
    data = child_links.macvlan_data(config.mode or _DEFAULT_MODE, config.bcqueuelen)
    mac = requested_mac(config.runtime_config, config.args, call.args, config.mac)
    return Child(_KIND, data, mac, mtu.of(call))


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    yield from child_link.mistakes(call)
    if config.mode not in ("", *MACVLAN_MODES):
        msg, details = (
            f'unknown macvlan mode: "{config.mode}"',
            f"mode is one of {', '.join(MACVLAN_MODES)}",
        )
        yield CniError(Code.INVALID_CONFIG, msg, details, key="mode")
    if not 0 <= config.bcqueuelen <= _MAX_QUEUE_LENGTH:
        msg, details = f"invalid bcqueuelen {config.bcqueuelen}", f"it is 0 to {_MAX_QUEUE_LENGTH}"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="bcqueuelen")
    yield from mac_mistakes(call, config.mac)
