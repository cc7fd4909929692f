"""What a plugin must know again of an attachment: a file each, which only root reads.

For what the kernel cannot say: how a thing was before ADD, or what rules there were before somebody
flushed them. Each record is of one boot, since no container outlives it. One that is damaged is set
aside (decision 30): what it said is looked for by the labels that the attachment's key leads to.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from cni_py.kernel import state_files, sysctl
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.netns import cookie_inside, is_there, open_netns, why_gone
from cni_py.spec.attachment import Attachment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni_py.kernel.netns import Netns
    from cni_py.spec.collection import Collection

# What rmdir(2) says of a folder that somebody else still uses.
NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})

_SUFFIX = ".json"


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """The container's namespace, so that another one at its path is told from it.

    `ifindex` is that of the container's interface; 0 until it is known.
    """

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

    def is_alive(self) -> bool:
        """Whether the namespace is still at its path."""
        return is_there(self.path, self.is_it)

    def why_gone(self) -> str:
        """Why nobody can be in the namespace at its path; `""` where somebody may be."""
        return why_gone(self.path, self.is_it)


# That of a record that is not known.
NOWHERE = Sandbox(path="", cookie=None, device=0, inode=0)


def find(sandbox: Sandbox, netns: str) -> Netns | None:
    """The recorded namespace, open: at the path `netns`, or where it was. None if it is gone.

    Raises KernelError.
    """
    for path in dict.fromkeys((netns, sandbox.path)):
        container = open_netns(path) if path else None
        if container is None:
            continue
        if sandbox.is_it(container):
            return container
        container.close()
    return None


# Asked for each of a thousand records.
boot_id = cache(sysctl.boot_id)


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """Whose it is, and of which boot."""

    attachment: Attachment
    boot: str = msgspec.field(default_factory=boot_id)

    @property
    def network(self) -> str:
        """The attachment's network."""
        return self.attachment.network

    @property
    def container_id(self) -> str:
        """The attachment's container."""
        return self.attachment.container_id

    @property
    def ifname(self) -> str:
        """The attachment's interface."""
        return self.attachment.ifname


class Record(Owned, frozen=True, kw_only=True):
    """With the container's namespace. A plugin's own record adds what it keeps."""

    sandbox: Sandbox

    def why_gone(self) -> str:
        """Why nobody can be in the container's namespace; `""` where somebody may be."""
        if self.boot != boot_id():
            return "it is of an earlier boot"
        return self.sandbox.why_gone()


R = TypeVar("R", bound=Owned)


class Records(Generic[R]):
    """A plugin's records, in its folder."""

    def __init__(self, folder: str, kind: type[R]) -> None:
        self.folder = folder
        self._kind = kind

    def save(self, record: R) -> None:
        """Write the record. Raises KernelError."""
        state_files.save(self._path(record.attachment.key), msgspec.json.encode(record))

    def load(self, attachment: Attachment) -> R | None:
        """The attachment's record, None without one, or with one of an earlier boot."""
        return self._read(self._path(attachment.key))

    def by_key(self, key: str) -> R | None:
        """The same by the attachment's key."""
        return self._read(self._path(key))

    def is_damaged(self, key: str) -> bool:
        """Whether the attachment had a record that was damaged: it may live, and have anything."""
        return state_files.was_set_aside(self._path(key))

    def drop(self, attachment: Attachment) -> None:
        """Forget the attachment. Raises KernelError."""
        state_files.forget(self._path(attachment.key))

    def collect(self, collection: Collection, evidence: Callable[[str], str]) -> None:
        """Forget the attachments that the collection takes, by the names of the files.

        Among them what was set aside. `evidence` is given an attachment's key. Raises KernelError.
        """
        self._set_aside()
        for path in self._paths() + state_files.all_aside(self.folder):
            key = state_files.key_of(path)
            if collection.takes(f"record {path}", key, partial(evidence, key)):
                state_files.discard(path)

    def every(self) -> Iterator[R]:
        """All records of this boot; those of others are removed, and damaged ones set aside."""
        for path in self._paths():
            record = self._of_any_boot(path) if path.endswith(_SUFFIX) else None
            if record is None:
                continue
            if record.boot == boot_id():
                yield record
            else:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def seen(self) -> tuple[list[R], list[str]]:
        """The records of this boot, and the paths of what cannot be read: nothing is changed.

        Raises KernelError where the folder cannot be listed.
        """
        records, damaged = [], []
        for path in self._paths():
            if not path.endswith(_SUFFIX):
                continue
            try:
                record = msgspec.json.decode(state_files.content(path), type=self._kind)
            except FileNotFoundError:
                continue
            except (OSError, state_files.DamagedError, msgspec.DecodeError, UnicodeDecodeError):
                damaged.append(path)
                continue
            if self._path(record.attachment.key) != path:
                damaged.append(path)
            elif record.boot == boot_id():
                records.append(record)
        return records, damaged

    def taken(self, collection: Collection, what: str, evidence: Callable[[R], str]) -> list[R]:
        """The records of the attachments that the collection takes; `what` they stand for.

        What was set aside of others is removed here. Raises KernelError.
        """
        # First: it sets aside what is damaged.
        records = list(self.every())
        for path in self._taken_aside(collection):
            state_files.discard(path)
        return [
            one for one in records if collection.takes(what, one.attachment, partial(evidence, one))
        ]

    def taken_damaged(self, collection: Collection) -> list[str]:
        """The paths of what is set aside, now or before, of those that the collection takes.

        Raises KernelError.
        """
        self._set_aside()
        return self._taken_aside(collection)

    def _taken_aside(self, collection: Collection) -> list[str]:
        return state_files.taken_aside(self.folder, "record", collection)

    def _set_aside(self) -> None:
        """Set aside what is damaged."""
        for _ in self.every():
            continue

    def _paths(self) -> list[str]:
        try:
            return [f"{self.folder}/{name}" for name in sorted(os.listdir(self.folder))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise kernel_error(f"list {self.folder}", error) from error

    def _read(self, path: str) -> R | None:
        record = self._of_any_boot(path)
        return record if record is not None and record.boot == boot_id() else None

    def _of_any_boot(self, path: str) -> R | None:
        try:
            record = state_files.load(path, self._kind)
        except OSError as error:
            raise kernel_error(f"read {path}", error) from error
        if record is not None and self._path(record.attachment.key) != path:
            state_files.set_aside(path, f"it is of {record.container_id}, {record.ifname}")
            return None
        return record

    def _path(self, key: str) -> str:
        return f"{self.folder}/{key}{_SUFFIX}"


def sandbox_of(container: Netns) -> Sandbox:
    """What tells the namespace from others. Raises KernelError."""
    identity = container.identity
    return Sandbox(
        path=container.path,
        cookie=cookie_inside(container),
        device=identity.device,
        inode=identity.inode,
    )
