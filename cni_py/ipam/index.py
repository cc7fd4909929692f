"""host-local's index on disk: `owners/`, `used/` and `state` of one network.

It only ever speeds up what the allocation files decide (`store`): an entry that cannot be read is
made anew from them, and what is no file is set aside (decision 30), in a folder that the reference
does not read. Files appear with their content or not at all; what a crash leaves half-written has a
name of its own, which nobody reads.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel import state_files
from cni_py.kernel.netns import cookie_inside, is_there, why_gone
from cni_py.spec.names import is_container_id

from .used_map import UsedMap

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni_py.kernel.netns import Netns
    from cni_py.spec.addresses import IP

    from .ranges import Range

STATE, OWNERS, USED = "state", "owners", "used"
LAST_RESERVED = "last_reserved_ip."
_KEY_DIGITS = 32
_USED_NAME = re.compile(r"([0-9a-f]+)-([0-9a-f]+)-([46])")


# Inode and mtime: what tells a file from another that took its name.
Signature = tuple[int, int]


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


def owner_in(content: bytes) -> Owner | None:
    """The owner that an address's file names, None if nobody; old ones have the id alone."""
    container_id, _, ifname = content.decode(errors="replace").strip().partition("\r\n")
    return Owner(container_id, ifname) if is_container_id(container_id) else None


class Sandbox(msgspec.Struct, frozen=True):
    """The network namespace that an address was allocated for."""

    path: str = ""
    cookie: int | None = None

    def why_gone(self) -> str:
        """Why it is gone; `""` where it may be there, or nobody recorded one."""
        return "" if self.cookie is None else why_gone(self.path, self._is_it)

    def is_there(self) -> bool:
        """Whether it certainly is, as far as its number is known."""
        return bool(self.path) and is_there(self.path, self._may_be_it)

    def _is_it(self, container: Netns) -> bool:
        return cookie_inside(container) == self.cookie

    def _may_be_it(self, container: Netns) -> bool:
        return self.cookie is None or self._is_it(container)


class Entry(msgspec.Struct, frozen=True):
    """The index's record of one owner: its addresses, each with its file's inode and mtime."""

    container_id: str
    ifname: str
    boot: str
    sandbox: Sandbox
    addresses: dict[str, Signature]

    @property
    def owner(self) -> Owner:
        """Whose entry this is."""
        return Owner(self.container_id, self.ifname)


class State(msgspec.Struct):
    """`mtime` of the network's folder after our last change, and the boot it was made in."""

    mtime: int = 0
    boot: str = ""


class DamagedEntryError(Exception):
    """An entry was there and could not be read, as after a loss of power."""


class Index:
    """The files of the index in `folder`; `create` makes it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._owners = os.path.join(folder, OWNERS)
        self._used = os.path.join(folder, USED)
        self._state = os.path.join(folder, STATE)
        self.damaged = os.path.join(folder, state_files.DAMAGED)
        # What an allocation's file is called before it has its name, where it has to have one.
        self.new_file = os.path.join(folder, "new")

    def create(self) -> None:
        """Make the folders, under the network's lock."""
        if self._makes(self._owners):
            # Whatever it says, it is not of this folder.
            self.remove(self._state)
        self._makes(self._used)

    # State.

    def state(self) -> State:
        """The state; that of a folder never seen when it is missing or damaged."""
        return state_files.load(self._state, State, self.damaged) or State()

    def write_state(self, state: State) -> None:
        """Replace the state."""
        state_files.replace(self._state, msgspec.json.encode(state), self.damaged)

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
        path = os.path.join(self._owners, entry.owner.key)
        state_files.replace(path, msgspec.json.encode(entry), self.damaged)

    def drop_entry(self, owner: Owner) -> None:
        """Forget an owner."""
        self.remove(os.path.join(self._owners, owner.key))

    def keep_owners(self, owners: Collection[Owner]) -> None:
        """Forget all other owners, and what is damaged or unfinished."""
        keys = {owner.key for owner in owners}
        for name in os.listdir(self._owners):
            if name not in keys:
                self.remove(os.path.join(self._owners, name))

    def _keys(self) -> list[str]:
        return [name for name in os.listdir(self._owners) if not name.endswith(state_files.NEW)]

    def _load(self, key: str) -> Entry | None:
        path = os.path.join(self._owners, key)
        try:
            data = state_files.content(path)
        except FileNotFoundError:
            return None
        except state_files.DamagedError as error:
            self.set_aside(path, str(error))
            raise DamagedEntryError(key) from error
        entry = state_files.decode(path, data, Entry, self.damaged)
        if entry is not None and entry.owner.key == key and all(map(is_address, entry.addresses)):
            return entry
        if entry is not None:
            self.set_aside(path, "it is of another owner, or of no address")
        raise DamagedEntryError(key)

    # Used maps.

    def used(self, run: Range) -> UsedMap:
        """The bits of a range."""
        name = f"{run.first:x}-{run.last:x}-{run.version}"
        return UsedMap(os.path.join(self._used, name), run.size, self.damaged)

    def clear_bits(self, address: IP) -> None:
        """Mark an address as free in every range that it is in, whatever is configured now."""
        for name in os.listdir(self._used):
            run = range_of_used(name)
            if run is None or run[2] != address.version:
                continue
            first, last, _ = run
            if first <= int(address) <= last:
                path = os.path.join(self._used, name)
                used = UsedMap(path, last - first + 1, self.damaged)
                used.mark(int(address) - first, taken=False)

    def forget_used(self) -> None:
        """Drop all bits: each range's are made anew when they are needed."""
        for name in os.listdir(self._used):
            self.remove(os.path.join(self._used, name))

    # Damage.

    def _makes(self, folder: str) -> bool:
        """Whether the folder had to be made."""
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if os.path.isdir(folder):
                return False
            self.set_aside(folder, "it is no folder")
            os.mkdir(folder, 0o700)
        except FileNotFoundError:
            os.makedirs(folder, 0o700)
        return True

    def set_aside(self, path: str, why: str) -> None:
        """Move something of this network out of the way."""
        state_files.set_aside(path, why, self.damaged)

    def remove(self, path: str) -> None:
        """Unlink a file that may be gone; what is no file is set aside. Raises OSError."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except IsADirectoryError as error:
            self.set_aside(path, str(error.strerror))


def range_of_used(name: str) -> tuple[int, int, int] | None:
    """The first and last address, as integers, and the IP version of a file in `used/`."""
    match = _USED_NAME.fullmatch(name)
    return None if match is None else (int(match[1], 16), int(match[2], 16), int(match[3]))


def is_address(name: str) -> bool:
    """Whether a file's name is an address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
