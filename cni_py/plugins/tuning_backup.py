"""How an interface was before tuning changed it: a file an attachment, in the reference's form.

The reference reads and removes what it knows, and does not mind our own key beside it: either can
undo what the other has set (decision 26).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, kept_routes, state_files
from cni_py.kernel.errors import kernel_error

from . import records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.netns import Netns
    from cni_py.spec.attachment import Attachment

    from .records import Sandbox

_SUFFIX = ".json"


class SysctlValue(msgspec.Struct, frozen=True, kw_only=True):
    """A sysctl's value before, None where it cannot be read, and as it read once it was set."""

    before: str | None
    after: str | None


class Own(records.Record, frozen=True, kw_only=True):
    """What the reference's file has no key for: whose it is, sysctls by path in order, and what
    the kernel forgets while IPv6 is off: the interface's addresses and routes, as its messages.
    """

    sysctls: dict[str, SysctlValue] = msgspec.field(default_factory=dict)
    addresses: tuple[bytes, ...] = ()
    routes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError: a file with such addresses or routes is damaged."""
        for one in self.addresses:
            addresses.require_message(one)
        for one in self.routes:
            kept_routes.read(one)


class Backup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The former values of what was changed; `own` is missing in the reference's files."""

    mac: str = ""
    promisc: bool | None = None
    mtu: int = 0
    allmulti: bool | None = None
    tx_queue_length: int | None = msgspec.field(default=None, name="txQLen")
    own: Own | None = msgspec.field(default=None, name="cni-py")


def path_of(folder: str, attachment: Attachment) -> str:
    """Where the reference has the file too: the network's name is not in it."""
    return f"{folder}/{_name_of(attachment)}"


def _name_of(attachment: Attachment) -> str:
    return f"{attachment.container_id}_{attachment.ifname}{_SUFFIX}"


def read(path: str) -> tuple[bytes, Backup | None]:
    """The file as it is, and what it says: None for no file, or a damaged one.

    The reference's file does not say of which boot it is: its time does. Raises KernelError.
    """
    try:
        data = state_files.read(path)
        if data is None:
            return b"", None
        backup = state_files.decode(path, data, Backup)
        if backup is not None and backup.own is None:
            written = os.lstat(path).st_mtime_ns
            backup = None if state_files.is_of_earlier_boot(written) else backup
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    own = None if backup is None else backup.own
    if own is not None and os.path.basename(path) != _name_of(own.attachment):
        state_files.set_aside(path, f"it is of {own.container_id}, {own.ifname}")
        return data, None
    return data, backup


def write(path: str, backup: Backup) -> None:
    """Write the file. Raises KernelError."""
    state_files.save(path, msgspec.json.format(msgspec.json.encode(backup), indent=1))


def of_network(folder: str, network: str) -> Iterator[tuple[str, Backup, Own]]:
    """Path and content of each file that ours is of the network. The reference's do not say."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise kernel_error(f"list {folder}", error) from error
    for name in names:
        if not name.endswith(_SUFFIX):
            continue
        _, backup = read(f"{folder}/{name}")
        if backup is not None and backup.own is not None and backup.own.network == network:
            yield f"{folder}/{name}", backup, backup.own


def of_attachment(
    attachment: Attachment,
    sandbox: Sandbox,
    sysctls: dict[str, SysctlValue],
) -> Own:
    """Our own part."""
    return Own(
        attachment=attachment,
        sandbox=sandbox,
        sysctls=sysctls,
    )


def is_of(own: Own, container: Netns) -> bool:
    """Whether what was kept is of that namespace. Raises KernelError."""
    return own.boot == records.boot_id() and own.sandbox.is_it(container)
