"""host-local's index on disk: `owners/`, `used/` and `state` of one network.

It only ever speeds up what the allocation files decide (`store`): an entry that cannot be read is
made anew from them. Files appear with their content or not at all; what a crash leaves half-written
has a name of its own, which nobody reads.
"""

from __future__ import annotations

import errno
import os
import re
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .used_map import UsedMap

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni_py.spec.addresses import IP

    from .ranges import Range

_KEY_DIGITS = 32
_UNFINISHED = ".new"
_USED_NAME = re.compile(r"([0-9a-f]+)-([0-9a-f]+)-([46])")


class Owner(NamedTuple):
    """Who holds an address."""

    container_id: str
    ifname: str

    @property
    def content(self) -> bytes:
        """What the address's file holds (plugins.md 5.1.3)."""
        return os.fsencode(f"{self.container_id}\r\n{self.ifname}")

    @property
    def key(self) -> str:
        """The name of the index's entry."""
        return sha256(os.fsencode("\0".join(self))).hexdigest()[:_KEY_DIGITS]


class Sandbox(msgspec.Struct, frozen=True):
    """The network namespace that an address was allocated for."""

    path: str = ""
    cookie: int | None = None


class Entry(msgspec.Struct, frozen=True):
    """The index's record of one owner: its addresses, each with its file's inode and mtime."""

    container_id: str
    ifname: str
    boot: str
    sandbox: Sandbox
    addresses: dict[str, tuple[int, int]]

    @property
    def owner(self) -> Owner:
        """Whose entry this is."""
        return Owner(self.container_id, self.ifname)


class State(msgspec.Struct):
    """`mtime` of the network's folder after our last change, and the boot it was made in."""

    mtime: int = 0
    boot: str = ""


class DamagedEntryError(Exception):
    """An entry is there and cannot be read, as after a loss of power."""


class Index:
    """The files of the index in `folder`; `create` makes it."""

    def __init__(self, folder: str) -> None:
        self._owners = os.path.join(folder, "owners")
        self._used = os.path.join(folder, "used")
        self._state = os.path.join(folder, "state")
        # Where an allocation's file is written before it is linked to its name.
        self.new_file = os.path.join(folder, "new")

    def create(self) -> None:
        """Make the folders."""
        os.makedirs(self._owners, 0o700, exist_ok=True)
        os.makedirs(self._used, 0o700, exist_ok=True)

    # State.

    def state(self) -> State:
        """The state; that of a folder never seen when it is missing or damaged."""
        try:
            with open(self._state, "rb", buffering=0) as file:
                return msgspec.json.decode(file.read(), type=State)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return State()

    def write_state(self, state: State) -> None:
        """Replace the state."""
        _replace(self._state, msgspec.json.encode(state))

    # Owners.

    def entry(self, owner: Owner) -> Entry | None:
        """What `owner` holds; None if nothing. Raises DamagedEntryError."""
        return self._load(owner.key)

    def entries(self) -> list[Entry]:
        """All owners' entries. Raises DamagedEntryError."""
        return [entry for name in self._keys() if (entry := self._load(name)) is not None]

    def sound_entries(self) -> Iterator[Entry]:
        """All owners' entries that can be read."""
        for name in self._keys():
            try:
                entry = self._load(name)
            except DamagedEntryError:
                continue
            if entry is not None:
                yield entry

    def write_entry(self, entry: Entry) -> None:
        """Replace an owner's entry."""
        _replace(os.path.join(self._owners, entry.owner.key), msgspec.json.encode(entry))

    def drop_entry(self, owner: Owner) -> None:
        """Forget an owner."""
        remove_file(os.path.join(self._owners, owner.key))

    def keep_owners(self, owners: Collection[Owner]) -> None:
        """Forget all other owners, and what is damaged or unfinished."""
        keys = {owner.key for owner in owners}
        for name in os.listdir(self._owners):
            if name not in keys:
                remove_file(os.path.join(self._owners, name))

    def _keys(self) -> list[str]:
        return [name for name in os.listdir(self._owners) if not name.endswith(_UNFINISHED)]

    def _load(self, key: str) -> Entry | None:
        try:
            with open(os.path.join(self._owners, key), "rb", buffering=0) as file:
                entry = msgspec.json.decode(file.read(), type=Entry)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DamagedEntryError(key) from error
        if entry.owner.key != key or not all(map(is_address, entry.addresses)):
            raise DamagedEntryError(key)
        return entry

    # Used maps.

    def used(self, run: Range) -> UsedMap:
        """The bits of a range."""
        name = f"{run.first:x}-{run.last:x}-{run.version}"
        return UsedMap(os.path.join(self._used, name), run.size)

    def clear_bits(self, address: IP) -> None:
        """Mark an address as free in every range that it is in, whatever is configured now."""
        for name in os.listdir(self._used):
            match = _USED_NAME.fullmatch(name)
            if match is None or int(match[3]) != address.version:
                continue
            first, last = int(match[1], 16), int(match[2], 16)
            if first <= int(address) <= last:
                used = UsedMap(os.path.join(self._used, name), last - first + 1)
                used.mark(int(address) - first, taken=False)

    def forget_used(self) -> None:
        """Drop all bits: each range's are made anew when they are needed."""
        # The folder stays: a call that has not got the lock yet may be making it.
        for name in os.listdir(self._used):
            remove_file(os.path.join(self._used, name))


def is_address(name: str) -> bool:
    """Whether a file's name is an address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def write_file(path: str, content: bytes) -> int:
    """Write a file of mode 0600 in place and return its inode. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def remove_file(path: str) -> None:
    """Unlink a file that may be gone."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _replace(path: str, content: bytes) -> None:
    write_file(path + _UNFINISHED, content)
    os.replace(path + _UNFINISHED, path)
