"""The veth pair of an attachment: the host's end carries its name and its owner's label.

The name is derived from (network, container id, ifname), so DEL needs no record of it, and creating
the pair is what claims the attachment.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import links
from cni_py.kernel.errors import KernelError
from cni_py.kernel.links import VethEnd
from cni_py.kernel.netlink import RTMGRP_LINK, Netlink
from cni_py.spec.attachment import network_key
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni_py.kernel.netns import Netns
    from cni_py.spec.attachment import Attachment

# IFALIASZ is 256, and the kernel wants one byte more than the end.
ALIAS_BYTES = 254

_VANISHING_SECONDS = 0.25


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
    master: int,
    stale: Callable[[], None],
) -> None:
    """Create the pair, the host's end up and enslaved to `master`, the container's end down.

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
    host = VethEnd(attachment.host_ifname, master=master, up=True)
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


def delete(host: Netlink, attachment: Attachment, container: Netns | None) -> bool:
    """Delete the pair by its host end's name; False if there was none of that name.

    Then a veth named CNI_IFNAME inside the container is deleted: the reference plugin gives the
    host's end a random name.
    """
    if links.delete_port(host, attachment.host_ifname):
        return True
    if container is not None:
        with container.entered():
            inside = Netlink()
        with inside:
            link = links.get(inside, attachment.ifname)
            if link is not None and link.kind == "veth" and not _is_labelled(host, link):
                links.delete(inside, link.name)
    return False


def _is_labelled(host: Netlink, inside: links.Link) -> bool:
    """Whether the host's end says whose it is: then it is another attachment's, of ours."""
    peer = links.get_by_index(host, inside.peer_index)
    return peer is not None and peer.peer_index == inside.ifindex and ", net: " in peer.alias


def labelled(attachment: Attachment) -> str:
    """The owner's label as it fits on a link."""
    return attachment.label(ALIAS_BYTES)


def of_network(host: Netlink, network: str) -> Iterator[links.Link]:
    """The host ends of a network's attachments, found by their labels; for GC."""
    prefix = f"{network_key(network)}-"
    return (one for one in links.dump(host, "veth") if one.alias.startswith(prefix))
