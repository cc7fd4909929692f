"""The veth pair of an attachment: the host's end carries its name and its owner's label.

The name is derived from (network, container id, ifname), so DEL needs no record of it, and creating
the pair is what claims the attachment.
"""

from __future__ import annotations

import errno
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import links
from cni_py.kernel.errors import KernelError
from cni_py.kernel.links import VethEnd
from cni_py.kernel.netlink import RTMGRP_LINK, Netlink
from cni_py.spec.attachment import network_key
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni_py.kernel.netns import Netns
    from cni_py.spec.attachment import Attachment

# IFALIASZ is 256, and the kernel wants one byte more than the end.
ALIAS_BYTES = 254

_VANISHING_SECONDS = 0.25
_UNFINISHED_GROUPS = 0x44000000
_GROUP_DIGITS = 6
_NOTE = re.compile(r"^[0-9a-f]{16}-[0-9a-f]{16}, has: ([a-z ]*), net: ")


class Sides(NamedTuple):
    """Netlink sockets of both sides, and the container's namespace."""

    host: Netlink
    inside: Netlink
    container: Netns


def create(
    sides: Sides,
    attachment: Attachment,
    *,
    mac: str,
    mtu: int,
    master: int = 0,
    stale: Callable[[], None],
) -> None:
    """Create the pair, the host's end up and a port of `master`, the container's end down.

    A pair of that name whose container is gone is left over: `stale` takes it down. Raises CniError
    when the attachment exists or the container has such an interface, and then changes nothing.
    """
    for attempt in range(2):
        try:
            _create(sides, attachment, mac=mac, mtu=mtu, master=master)
        except KernelError as error:
            if error.errno != errno.EEXIST or attempt:
                raise
            _require_stale(sides, attachment, error)
            stale()
        else:
            return


def _create(sides: Sides, attachment: Attachment, *, mac: str, mtu: int, master: int) -> None:
    group = _unfinished(attachment.network)
    host = VethEnd(attachment.host_ifname, master=master, up=True, group=group)
    inside = VethEnd(attachment.ifname, mac, netns_fd=sides.container.fd)
    sides.host.submit(links.create_veth(host, inside, mtu=mtu))


def _require_stale(sides: Sides, attachment: Attachment, error: KernelError) -> None:
    """Raise unless what is in the way is our own pair without a living container (W-G20)."""
    ifname = attachment.ifname
    host = links.get(sides.host, attachment.host_ifname)
    inside = links.get(sides.inside, ifname)
    if host is not None:
        here = inside is not None and inside.peer_index == host.ifindex
        if not here and _vanishes(sides.host, host):
            return
        msg = f"container {attachment.container_id} is already attached as {ifname}"
        details = f"interface {host.name} leads to it: DEL comes before the next ADD"
        raise CniError(Code.INTERNAL, msg, details) from error
    if inside is not None:
        msg = f"interface {ifname} already exists in {sides.container.path}"
        details = "choose another CNI_IFNAME, or detach the interface first"
        raise CniError(Code.INTERNAL, msg, details) from error


def _vanishes(netlink: Netlink, host: links.Link) -> bool:
    """Whether the pair's other end is gone, or goes now.

    The kernel keeps a namespace for some milliseconds after its last user has closed it.
    """
    with Netlink(RTMGRP_LINK) as events:
        reports = events.events(time.monotonic() + _VANISHING_SECONDS)
        while True:
            peer = links.get_by_index(netlink, host.peer_index, host.peer_netnsid)
            paired = peer is not None and peer.peer_index == host.ifindex
            if not paired or links.get(netlink, host.name) is None:
                return True
            if next(reports, None) is None:
                return False


def delete(host: Netlink, attachment: Attachment) -> bool:
    """Delete the pair by its host end's name; False if there was none of that name."""
    return links.delete_port(host, attachment.host_ifname)


def delete_foreign(
    host: Netlink, container: Netns, ifname: str, is_of_network: Callable[[links.Link], bool]
) -> None:
    """Delete the pair of another maker: the reference plugin gives the host's end a random name.

    It is known by its end in the container, a veth named CNI_IFNAME, and by the other end, which
    `is_of_network`. Anything else of that name is somebody else's: a path can lead to another
    container's namespace by now.
    """
    with container.entered():
        inside = Netlink()
    with inside:
        link = links.get(inside, ifname)
        if link is None or link.kind != "veth":
            return
        port = links.get_by_index(host, link.peer_index)
        if port is None or port.peer_index != link.ifindex or recorded(port) is not None:
            return
        if is_of_network(port):
            links.delete(inside, link.name)


def labelled(attachment: Attachment, has: Iterable[str]) -> str:
    """The owner's label as it fits on a link, with what else ADD sets for it.

    DEL takes away that, whatever the configuration says by then.
    """
    return attachment.label(ALIAS_BYTES, f"has: {' '.join(sorted(has))}, ")


def recorded(link: links.Link | None) -> frozenset[str] | None:
    """What `labelled` has noted; None where the link is not there, or has no such label."""
    found = None if link is None else _NOTE.search(link.alias)
    return None if found is None else frozenset(found[1].split())


def of_network(host: Netlink, network: str) -> Iterator[links.Link]:
    """The host ends of a network's attachments, found by their labels; for GC.

    Among them those that a crash has left unlabelled.
    """
    prefix, unfinished = f"{network_key(network)}-", _unfinished(network)
    for one in links.dump(host, "veth"):
        if one.alias.startswith(prefix) or (one.group == unfinished and not one.alias):
            yield one


def is_attached(host: Netlink, key: str) -> bool:
    """Whether there is a host end whose label begins with the key of an attachment."""
    return key in attached(host)


def attached(host: Netlink) -> frozenset[str]:
    """The keys of all attachments that have a labelled host end."""
    return frozenset(one.alias.split(",")[0] for one in links.dump(host, "veth"))


def _unfinished(network: str) -> int:
    """The group of a network's pairs from their creation until they are labelled."""
    return _UNFINISHED_GROUPS | int(network_key(network)[:_GROUP_DIGITS], 16)
