"""The intermediate functional block (IFB) through which a container's packets leave.

A link's own queue holds back what goes out through it. What a container sends comes in through its
host end, so that it is led through a block, whose queue holds it back (decision 25).
"""

from __future__ import annotations

import errno
from functools import partial
from hashlib import sha512
from typing import TYPE_CHECKING

from cni_py.kernel import links, new_links, tc
from cni_py.kernel.errors import KernelError
from cni_py.spec.attachment import network_key
from cni_py.spec.errors import CniError, Code

from .veth import ALIAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink, Request
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

KIND = "ifb"
_PREFIX, _NAME_BYTES = "bwp", 15
_UNFINISHED_GROUPS = 0x45000000
_GROUP_DIGITS = 6


def names(attachment: Attachment) -> tuple[str, str]:
    """The reference's name, one for all interfaces of a container (H-04), and one of its own.

    The latter ends as the host end's name does.
    """
    text = attachment.network + attachment.container_id
    shared = (_PREFIX + sha512(text.encode(errors="surrogateescape")).hexdigest())[:_NAME_BYTES]
    return shared, _PREFIX + attachment.host_ifname.removeprefix("veth")


def create(host: Netlink, attachment: Attachment, mtu: int) -> str:
    """Create the attachment's block, down and without a label; returns its name.

    There must be none that works for the attachment: one of its is left over, and replaced. The
    reference's name is taken where it is free. Raises CniError, then nothing has been created.
    """
    shared, own = names(attachment)
    for name in (shared, shared, own, own):
        try:
            host.submit(new_links.create_ifb(name, mtu=mtu, group=_unfinished(attachment.network)))
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            have = links.get(host, name)
            if have is not None and _is_its(have, attachment, certain=name == own):
                links.delete(host, name)
        else:
            return name
    msg = f"interface {own} exists already"
    details = "its label, if it has one, is not that of a block of this attachment"
    raise CniError(Code.INTERNAL, msg, details)


def finish(block: Link, attachment: Attachment) -> Request:
    """The request that labels the block with its owner, and sets it up."""
    return links.finish(block, attachment.label(ALIAS_BYTES))


def of_attachment(host: Netlink, attachment: Attachment, listed: Result | None) -> Iterator[Link]:
    """The attachment's block, also one of the reference, which has no label. Raises KernelError.

    An unlabelled one that is not in the attachment's result, where that names a block at all, is of
    another interface of the container.
    """
    shared, own = names(attachment)
    listing = {one.name for one in listed.interfaces} if listed else set()
    for name in (shared, own):
        have = links.get(host, name)
        certain = name == own or shared in listing or own not in listing
        if have is not None and _is_its(have, attachment, certain=certain):
            yield have


def delete(host: Netlink, attachment: Attachment, listed: Result | None) -> None:
    """Delete the attachment's block. Raises KernelError."""
    for one in of_attachment(host, attachment, listed):
        links.delete(host, one.name)


def taken(host: Netlink, collection: Collection) -> Iterator[str]:
    """The blocks that the collection takes.

    Among them those that a crash has left unlabelled. One of the reference tells no network.
    """
    kept = {name for one in collection.valid or () for name in names(one)}
    unfinished = _unfinished(collection.network)

    def evidence(block: Link) -> str:
        is_used = any(
            one.redirect == block.ifindex
            for port in links.dump(host)
            for one in tc.filters(host, (port.ifindex, port.name), tc.INGRESS_HANDLE)
        )
        return "" if is_used else "nothing is led through it"

    for one in links.dump(host, KIND):
        owner = one.alias
        if one.group == unfinished and not owner and one.name not in kept:
            owner = collection.prefix
        if collection.takes(f"block {one.name}", owner, partial(evidence, one)):
            yield one.name


def _is_its(have: Link, attachment: Attachment, *, certain: bool) -> bool:
    """Whether a link of one of the names is the attachment's block.

    `certain` is the answer for one without a label.
    """
    if have.kind != KIND:
        return False
    return have.alias.startswith(f"{attachment.key},") if have.alias else certain


def _unfinished(network: str) -> int:
    """The group of a network's blocks from their creation until they are labelled."""
    return _UNFINISHED_GROUPS | int(network_key(network)[:_GROUP_DIGITS], 16)
