"""What macvlan, ipvlan and vlan share: a link in the container on top of a parent.

The parent is on the host, or in the container with `linkInContainer`. The child is created in the
container's namespace under its final name and vanishes with it; the host has nothing of it. So DEL
needs no parent, and GC has no more to do than its IPAM plugin: a child whose namespace lives, while
its attachment is valid no longer, can only be reached by a DEL with the namespace's path.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.ipam import delegation
from cni_py.kernel import child_links, links, routes
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.config import IpamType, PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.names import MAX_IFNAME_BYTES, validate_device_name
from cni_py.spec.results import Interface, IPConfig, Result

from . import interface
from . import mtu as mtu_key
from .mtu import Mtu
from .teardown import detaching
from .veth import ALIAS_BYTES, Sides

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cni_py.kernel.child_links import Child
    from cni_py.kernel.links import Link
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

_MIN_MTU = 68
_MAX_ALT_IFNAME_BYTES = 127
# Of a result that has one interface.
_CHILD = 0
_INDEX_BASE, _INDEX_BYTES = 1 << 16, 3
_CREATE_ATTEMPTS = 4
# How `Attachment.label` begins.
_LABEL = re.compile("[0-9a-f]{16}-[0-9a-f]{16}, ")


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL and GC read: nothing of the parent."""

    ipam: IpamType = IpamType()
    """Who gives out addresses: `ipam.type` names the IPAM plugin."""


class Config(DelConfig, frozen=True, kw_only=True):
    """The keys that the three share; without an IPAM type the interface has no address."""

    master: str = ""
    """The parent's name, or an alternative one; none: the interface of the default route."""
    mtu: Mtu = 0
    """68 to the parent's, or `auto`; 0: the parent's."""
    link_in_container: bool = False
    """The parent is in the container, not on the host."""


class Parent(NamedTuple):
    """A parent's link, and the socket that sees it."""

    link: Link
    side: Netlink
    inside: bool


def mistakes(call: Call[Any], *, addressed: bool = False) -> Iterator[CniError]:
    """What an ADD of each of the three refuses on every host.

    `addressed` says that addresses come from elsewhere than IPAM.
    """
    config = call.config
    if config.master:
        yield from refusals("master", _validate_master, config.master)
    if mtu_key.fixed(config.mtu) < 0:
        msg = f"invalid MTU {config.mtu}"
        details = "mtu is 0 (the parent's) or more"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="mtu")
    yield from refusals("ipam", interface.require_reportable, call, addressed=addressed)


def parent_of(sides: Sides, config: Config, master: str) -> Parent:
    """The parent `master`, or the one of the default route. Raises CniError if it does not fit."""
    inside = config.link_in_container
    side = sides.inside if inside else sides.host
    return Parent(find(side, config, master), side, inside)


def find(side: Netlink, config: Config, master: str) -> Link:
    """Look the parent up and compare the MTU with its own (W-MV2). Raises CniError."""
    if not master:
        index = routes.default_link(side)
        link = None if index is None else links.get_by_index(side, index)
        if link is None:
            details = "without the key master the parent is the interface of the default route"
            raise CniError(Code.INTERNAL, "no default route interface found", details)
    else:
        link = links.get(side, master)
        if link is None:
            where = "the container" if config.link_in_container else "the host"
            msg = f'failed to lookup master "{master}": Link not found'
            raise CniError(Code.INTERNAL, msg, f"{where} has no such interface")
    mtu = mtu_key.fixed(config.mtu)
    if mtu and not _MIN_MTU <= mtu <= link.mtu:
        msg = f"invalid MTU {mtu}, must be [0, master MTU({link.mtu})]"
        details = f"mtu is 0 (that of {link.name}) or {_MIN_MTU} to {link.mtu}"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    return link


def attach(
    call: Call[Any],
    sides: Sides,
    parent: Parent,
    child: Child,
    *,
    given: Result | None = None,
    hints: Mapping[int, str],
) -> Result:
    """Create the child and configure it: the rest of an ADD.

    `given` has the addresses where no IPAM plugin decides them; `hints` say what an errno means
    where the kernel says no more. Raises CniError, and then leaves nothing.
    """
    config = call.config
    if isinstance(config.mtu, str):
        # No child carries more than its parent.
        child = child._replace(mtu=min(child.mtu, parent.link.mtu))
    with step("link"):
        _create(call, sides, parent, child, hints)
    call.scope.enter_context(undone_on_failure(lambda: delete(call, child.kind)))
    sides.inside.submit(_label(call))
    link = interface.require_link(sides.inside, call.ifname)
    entry = Interface(link.name, link.mac, sandbox=call.netns)
    if config.ipam.type:
        given = interface.ipam_add(call)
    elif given is None:
        sides.inside.submit(links.set_up(call.ifname))
        return Result(interfaces=(entry,), dns=config.dns)
    ips = tuple(IPConfig(one.address, one.gateway, _CHILD) for one in given.ips)
    result = Result((entry,), ips, given.routes, config.dns or given.dns)
    with step("addresses"):
        with sides.container.entered():
            interface.enable_ipv6(call.ifname, result)
            interface.announce_when_up(call.ifname)
        interface.configure(sides, link, result, _CHILD)
    return result


def delete(call: Call[Any], kind: str) -> None:
    """Undo an ADD, as much of it as is there, the address last (W-G3)."""
    with detaching(call) as teardown, teardown.step(), step("link"):
        container = open_netns(call.netns) if call.netns else None
        if container is not None:
            with container:
                with container.entered():
                    inside = Netlink()
                with inside:
                    _delete_link(inside, call.attachment, kind)


def check(call: Call[Any], sides: Sides, kind: str, master: str) -> Link:
    """Compare all that the three set; what the kind has of its own is left. Raises CniError.

    Without `master` the parent is whatever it was at ADD (W-MV3, W-IV4).
    """
    result, index = interface.listed(call)
    link = interface.check_link(sides.inside, result.interfaces[index], kind)
    interface.require_same(f"state of interface {link.name}", "up", "up" if link.up else "down")
    mtu = mtu_key.fixed(call.config.mtu) or link.mtu
    interface.require_same(f"mtu of interface {link.name}", mtu, link.mtu)
    if master:
        _check_parent(sides, call.config, link, master)
    interface.check_addresses(sides.inside, link, result, index)
    interface.check_routes(sides.inside, link, result.routes)
    return link


def check_ipam(call: Call[Any]) -> None:
    """The IPAM plugin's CHECK. Raises its CniError."""
    if call.config.ipam.type:
        delegation.ipam_check(call.request, call.config.ipam.type)


def status(call: Call[Any], require: Callable[[Netlink | None], object]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says.

    `require` raises what ADD would; it gets the parent's side, None for that of a container, which
    is not there yet.
    """
    with unavailable():
        if call.config.link_in_container:
            require(None)
        else:
            with Netlink() as host:
                require(host)
    if call.config.ipam.type:
        delegation.ipam_status(call.request, call.config.ipam.type)


def gc(call: Call[Any], collection: Collection) -> None:
    """Release the addresses of attachments that are gone; their interfaces went with them."""
    if call.config.ipam.type:
        delegation.ipam_gc(call.request, call.config.ipam.type, collection)


def _validate_master(name: str) -> None:
    size = len(os.fsencode(name))
    if size <= MAX_IFNAME_BYTES:
        validate_device_name(name, "master")
    elif size > _MAX_ALT_IFNAME_BYTES or "\0" in name:
        details = f"a name has at most {MAX_IFNAME_BYTES} bytes, an alternative one 127"
        raise CniError(Code.INVALID_CONFIG, f'master "{name}" is not the name of a device', details)


def _create(
    call: Call[Any], sides: Sides, parent: Parent, child: Child, hints: Mapping[int, str]
) -> None:
    """One request creates it where it belongs. Raises CniError, and then there is no child.

    Where a link of the host has the child's name, kernels before 6.15 need to be given an index
    that none of the host's links has.
    """
    fd = None if parent.inside else sides.container.fd
    index = 0
    for attempt in range(1, _CREATE_ATTEMPTS + 1):
        request = child_links.create(call.ifname, child, parent.link, netns_fd=fd, index=index)
        try:
            parent.side.submit(request)
        except KernelError as error:
            if error.errno == errno.EEXIST:
                _refuse_existing(call, sides, error)
                if attempt < _CREATE_ATTEMPTS and fd is not None:
                    index = _INDEX_BASE + int.from_bytes(os.urandom(_INDEX_BYTES), "big")
                    continue
            details = "; ".join(filter(None, (error.details, hints.get(error.errno))))
            raise CniError(error.code, error.msg, details) from error
        else:
            return


def _refuse_existing(call: Call[Any], sides: Sides, error: KernelError) -> None:
    """Raise if the container has an interface of the child's name."""
    link = links.get(sides.inside, call.ifname)
    if link is None:
        return
    if link.alias.startswith(call.attachment.key):
        msg = f"container {call.container_id} is already attached as {call.ifname}"
        details = f"in {call.netns}: DEL comes before the next ADD"
    else:
        msg = f"interface {call.ifname} already exists in {call.netns}"
        details = "choose another CNI_IFNAME, or detach the interface first"
    raise CniError(Code.INTERNAL, msg, details) from error


def _label(call: Call[Any]) -> Any:
    label = call.attachment.label(ALIAS_BYTES)
    return links.change(call.ifname, ("IFLA_IFALIAS", label), what=f"label {call.ifname}")


def _delete_link(inside: Netlink, attachment: Attachment, kind: str) -> None:
    """Delete the child, unless what has its name is somebody else's.

    The path can lead to another container's namespace by now. What has no label is the reference
    plugin's, or of an ADD that a crash has cut short.
    """
    link = links.get(inside, attachment.ifname)
    if link is None or link.kind != kind:
        return
    if _LABEL.match(link.alias) and not link.alias.startswith(attachment.key):
        return
    links.delete(inside, link.name)


def _check_parent(sides: Sides, config: Config, link: Link, master: str) -> None:
    inside = config.link_in_container
    side = sides.inside if inside else sides.host
    where = "the container" if inside else "the host"
    parent = links.get(side, master)
    if parent is None:
        raise interface.differs(f"parent {master} in {where}", "present", "missing")
    index, abroad = parent.ifindex, not inside
    if parent.kind == link.kind != "vlan":
        # The kernel puts a child of a child beside it, on the same parent.
        index, abroad = parent.peer_index, abroad or parent.peer_netnsid is not None
    if (index, abroad) != (link.peer_index, link.peer_netnsid is not None):
        found = _describe_parent(sides, link)
        raise interface.differs(f"parent of interface {link.name}", f"{master} in {where}", found)


def _describe_parent(sides: Sides, link: Link) -> str:
    found = links.get_by_index(sides.inside, link.peer_index, link.peer_netnsid)
    name = f"link {link.peer_index}" if found is None else found.name
    return f"{name} in {'the container' if link.peer_netnsid is None else 'another namespace'}"
