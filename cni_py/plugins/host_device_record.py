"""What a device was on the host before it was moved: kept on disk until it is that again.

Each record is of one boot: after the next one every device is on the host, as the host has set it
up anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import addresses

from . import records

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.netns import Netns
    from cni_py.spec.attachment import Attachment


class Record(records.Record, frozen=True, kw_only=True):
    """A device as the host had it. `kind` is empty for hardware, which outlives its namespace."""

    name: str
    kind: str
    mac: str
    permanent_mac: str
    parent: str
    mtu: int
    alias: str
    up: bool
    addresses: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Raises ValueError: a record with such addresses is damaged."""
        for one in self.addresses:
            addresses.require_message(one)

    @property
    def is_hardware(self) -> bool:
        """Whether the kernel returns the device when its namespace ends."""
        return not self.kind

    def is_same(self, link: Link) -> bool:
        """Whether a link is the device, wherever it is and whatever it is called.

        Hardware is known by what cannot be changed. A virtual device has no such thing, and only
        one that still looks as it did is taken for it.
        """
        if self.kind != link.kind:
            return False
        if self.is_hardware and (self.parent or self.permanent_mac):
            return (self.parent, self.permanent_mac) == (link.parent, link.permanent_mac)
        return self.mac == link.mac and self.name in (link.name, link.alias)


def record_of(host: Netlink, link: Link, attachment: Attachment, container: Netns) -> Record:
    """The device as it is now. Addresses that expire are somebody's who will renew them."""
    return Record(
        attachment=attachment,
        name=link.name,
        kind=link.kind,
        mac=link.mac,
        permanent_mac=link.permanent_mac,
        parent=link.parent,
        mtu=link.mtu,
        alias=link.alias,
        up=link.up,
        addresses=tuple(addresses.snapshot(host, link.ifindex)),
        sandbox=records.sandbox_of(container),
    )


RECORDS = records.Records("/var/lib/cni/cni-py/host-device", Record)
