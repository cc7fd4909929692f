"""The leases on disk, a file each: a daemon that starts anew goes on with them.

They are of no use after a boot, as the containers are gone then. Files appear whole; nothing is
synchronised to the disk, for what a power failure loses is of an earlier boot.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import state_files, sysctl
from cni_py.spec.attachment import Attachment, network_key

from . import options as option_table
from .interface import Place
from .lease import Lease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.collection import Collection

FOLDER = "/var/lib/cni/cni-py/dhcp"
_SUFFIX = ".json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment's lease.

    `lease` is the last one, `applied` the one whose address the interface has. `socket` is where
    the daemon listens that keeps it, `boot` the boot that it is of.
    """

    attachment: Attachment
    socket: str
    boot: str
    place: Place
    options: dict[int, bytes]
    priority: int
    lease: Lease
    applied: Lease | None

    def __post_init__(self) -> None:
        """Raises ValueError: the record is damaged."""
        option_table.require_codes(self.options)


class Store:
    """The folder with the leases; only root can read it."""

    def __init__(self, folder: str = FOLDER) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Make the folder. Raises OSError."""
        os.makedirs(self._folder, 0o700, exist_ok=True)

    def save(self, record: Record) -> None:
        """Write the record. Raises KernelError."""
        data = msgspec.json.format(msgspec.json.encode(record), indent=1)
        state_files.save(self._path(record.attachment), data)

    def remove(self, attachment: Attachment) -> None:
        """Forget the record. Raises KernelError."""
        state_files.forget(self._path(attachment))

    def has(self, attachment: Attachment) -> bool:
        """Whether there is a record."""
        return os.path.exists(self._path(attachment))

    def has_network(self, network: str) -> bool:
        """Whether there is a record of any attachment to the network."""
        return any(name.startswith(f"{network_key(network)}-") for name in self._names())

    def records(self) -> Iterator[Record]:
        """All records of this boot. Others are removed, and damaged ones set aside."""
        boot = sysctl.boot_id()
        for name in self._names():
            path = os.path.join(self._folder, name)
            record = state_files.load(path, Record)
            if record is None:
                continue
            if self._path(record.attachment) != path:
                state_files.set_aside(path, f"it is of {record.attachment.container_id}")
            elif record.boot == boot:
                yield record
            else:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def taken_aside(self, collection: Collection) -> list[str]:
        """The paths of what was set aside of attachments that the collection takes.

        Raises KernelError.
        """
        return state_files.taken_aside(self._folder, "lease", collection)

    def _names(self) -> list[str]:
        try:
            return sorted(one for one in os.listdir(self._folder) if one.endswith(_SUFFIX))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _path(self, attachment: Attachment) -> str:
        return os.path.join(self._folder, attachment.key + _SUFFIX)
