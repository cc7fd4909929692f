"""What a device was on the host before it was moved: kept on disk until it is that again.

A file an attachment, which only root reads. Each is of one boot: after the next one every device is
on the host, as the host has set it up anew.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.netns import cookie_inside
from cni_py.spec.attachment import Attachment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.netns import Netns

FOLDER = "/var/lib/cni/cni-py/host-device"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SUFFIX, _NEW = ".json", ".new"


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """Where the device was moved to; `ifindex` is 0 until it is known."""

    path: str
    cookie: int | None
    device: int
    inode: int
    ifindex: int = 0

    def is_it(self, container: Netns) -> bool:
        """Whether an open namespace is this one. Raises KernelError."""
        if self.cookie is not None:
            return cookie_inside(container) == self.cookie
        return container.identity == (self.device, self.inode)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the host had it. `kind` is empty for hardware, which outlives its namespace."""

    network: str
    container_id: str
    ifname: str
    boot: str
    name: str
    kind: str
    mac: str
    permanent_mac: str
    parent: str
    mtu: int
    alias: str
    up: bool
    addresses: tuple[bytes, ...]
    sandbox: Sandbox

    @property
    def attachment(self) -> Attachment:
        """Whose device it is."""
        return Attachment(self.network, self.container_id, self.ifname)

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


def of(host: Netlink, link: Link, attachment: Attachment, container: Netns) -> Record:
    """The device as it is now. Addresses that expire are somebody's who will renew them."""
    identity = container.identity
    return Record(
        network=attachment.network,
        container_id=attachment.container_id,
        ifname=attachment.ifname,
        boot=_boot_id(),
        name=link.name,
        kind=link.kind,
        mac=link.mac,
        permanent_mac=link.permanent_mac,
        parent=link.parent,
        mtu=link.mtu,
        alias=link.alias,
        up=link.up,
        addresses=tuple(addresses.snapshot(host, link.ifindex)),
        sandbox=Sandbox(
            path=container.path,
            cookie=cookie_inside(container),
            device=identity.device,
            inode=identity.inode,
        ),
    )


def save(record: Record) -> None:
    """Write the record; the file appears whole. Raises KernelError."""
    path = _path(record.attachment)
    try:
        os.makedirs(FOLDER, 0o700, exist_ok=True)
        fd = os.open(path + _NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(record))
        os.rename(path + _NEW, path)
    except OSError as error:
        raise kernel_error(f"write {path}", error) from error


def load(attachment: Attachment) -> Record | None:
    """The attachment's record, None without one, or with one of an earlier boot."""
    return _read(_path(attachment))


def drop(attachment: Attachment) -> None:
    """Forget the device. Raises KernelError."""
    path = _path(attachment)
    for one in (path, path + _NEW):
        try:
            os.unlink(one)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise kernel_error(f"remove {one}", error) from error


def every() -> Iterator[Record]:
    """All records of this boot; what is left of others, or of a crash, is removed."""
    try:
        names = sorted(os.listdir(FOLDER))
    except FileNotFoundError:
        return
    for name in names:
        path = f"{FOLDER}/{name}"
        record = _read(path) if name.endswith(_SUFFIX) else None
        if record is not None:
            yield record
        elif name.endswith(_SUFFIX):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _read(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:
            record = msgspec.json.decode(file.read(), type=Record)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    except msgspec.DecodeError:
        return None
    return record if record.boot == _boot_id() else None


def _path(attachment: Attachment) -> str:
    return f"{FOLDER}/{attachment.key}{_SUFFIX}"


def _boot_id() -> str:
    with open(_BOOT_ID) as file:
        return file.read().strip()
