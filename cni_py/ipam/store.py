"""host-local's allocations on disk.

`<dataDir>/<network>/` has the reference plugin's format, so that either can release what the other
allocated: one file an address holding `id CR LF ifname`, `last_reserved_ip.<set>`, `lock`.

`<dataDir>/.cni-py/<network>/` is an index beside it: `owners/` from (container, ifname) to
addresses, `used/` with a bit an address, and `state`. It is complete as long as nobody else has
changed the network's folder, which is known exactly: each change of ours ends by setting the
folder's modification time to a value of our own that `state` repeats. Another time there means
another writer, or a crash of ours: the index is rebuilt by a scan (docs/decisions/0004).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni_py.kernel import sysctl
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.lock import take_lock

from .index import (
    DamagedEntryError,
    Entry,
    Index,
    Owner,
    Sandbox,
    State,
    is_address,
    remove_file,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP

    from .ranges import Range

DEFAULT_DATA_DIR = "/var/lib/cni/networks"

_INDEX_DIR = ".cni-py"
_LOCK = "lock"
_LAST_RESERVED = "last_reserved_ip."
_BOOT_ID = "kernel/random/boot_id"


class Store:
    """The allocations of one network; `locked` gives access to them."""

    def __init__(self, data_dir: str, network: str) -> None:
        self.folder = os.path.join(data_dir, network)
        self._index = Index(os.path.join(data_dir, _INDEX_DIR, network))

    @property
    def exists(self) -> bool:
        """Whether anything was ever allocated."""
        return os.path.isdir(self.folder)

    def create(self) -> None:
        """Make the folders. Raises KernelError."""
        try:
            os.makedirs(self.folder, 0o755, exist_ok=True)
            self._index.create()
        except OSError as error:
            raise kernel_error(f"create the folder {self.folder}", error) from error

    @contextmanager
    def locked(self, *, reclaims: bool = True) -> Iterator[Allocations]:
        """Hold the network's lock, which the reference plugin takes too, with the index in order.

        What is of an earlier boot is freed unless told not to: then nothing can be changed.

        Raises CniError 11 when the lock cannot be had in 30 s, KernelError for the disk's refusals.
        """
        self.create()
        path = os.path.join(self.folder, _LOCK)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o750)
        except OSError as error:
            raise kernel_error(f"open {path}", error) from error
        try:
            take_lock(lock, path)
            allocations = Allocations(self.folder, self._index, reclaims=reclaims)
            try:
                yield allocations
            finally:
                allocations.settle()
        except OSError as error:
            what = f"use the allocations in {self.folder}"
            raise kernel_error(what, error) from error
        finally:
            os.close(lock)


class Allocations:
    """What `Store.locked` gives: valid while the lock is held."""

    def __init__(self, folder: str, index: Index, *, reclaims: bool) -> None:
        self._folder = folder
        self._index = index
        self._boot = _boot_id()
        self._changed = False
        self._complete = True
        # What `claim` linked, with the inode, until `record` enters it.
        self._claimed: dict[IP, int] = {}
        state = index.state()
        # A loss of power may have taken parts of the index, and another boot tells of it.
        if os.stat(folder).st_mtime_ns != state.mtime or state.boot != self._boot:
            self._rebuild()
        if not reclaims:
            # Whoever comes next scans again, and finds what is of an earlier boot.
            self._complete = False
        elif state.boot != self._boot:
            self._reclaim_earlier_boots()

    # Looking up.

    def entry(self, owner: Owner) -> Entry | None:
        """What `owner` holds."""
        try:
            return self._index.entry(owner)
        except DamagedEntryError:
            self._rebuild()
            return self._index.entry(owner)

    def entries(self) -> list[Entry]:
        """All owners, for GC: its cost grows with their number."""
        try:
            return self._index.entries()
        except DamagedEntryError:
            self._rebuild()
            return self._index.entries()

    def is_of_earlier_boot(self, entry: Entry) -> bool:
        """Whether it was allocated before the machine last started."""
        return entry.boot != self._boot

    def holder(self, address: IP) -> Owner | None:
        """Whom the address's file names."""
        return _owner_in(self._read(str(address)))

    def last_reserved(self, set_index: int) -> IP | None:
        """The address that was last given out of a range set; None if unknown (5.1.3)."""
        try:
            return ip_address(self._read(f"{_LAST_RESERVED}{set_index}").decode())
        except ValueError:
            return None

    def free_positions(self, run: Range, start: int, end: int) -> Iterator[int]:
        """Positions of `run` in [start, end) that nobody seems to hold, in order."""
        used = self._index.used(run)
        if not used.exists:
            used.rewrite(self._taken_positions(run))
        position = used.next_free(start, end)
        while position is not None:
            yield position
            position = used.next_free(position + 1, end)

    def recount(self, run: Range) -> None:
        """Make the bits of `run` anew from the files."""
        self._index.used(run).rewrite(self._taken_positions(run))

    # Changing.

    def claim(self, owner: Owner, run: Range, address: IP) -> bool:
        """Take the address for `owner`; False if somebody holds it.

        The file appears with its content or not at all: no crash leaves an empty one (W-HL4). One
        that is empty belongs to a writer that died, for all writers hold the lock.
        """
        self._changed = True
        new = self._index.new_file
        # One left by a crash may be the same file as an allocation: never write into it.
        remove_file(new)
        # Noted before the link is made: an interrupted ADD must find what to give back.
        self._claimed[address] = write_file(new, owner.content)
        try:
            taken = not self._link(new, address)
        finally:
            os.unlink(new)
        if taken:
            del self._claimed[address]
        position = run.position(address)
        if position is not None:
            self._index.used(run).mark(position, taken=True)
        return not taken

    def record(self, owner: Owner, sandbox: Sandbox, last: dict[int, IP]) -> None:
        """Enter the claimed addresses, and the last one of each range set."""
        for set_index, address in last.items():
            path = os.path.join(self._folder, f"{_LAST_RESERVED}{set_index}")
            write_file(path, str(address).encode())
        entry = self.entry(owner)
        # Of ranges that were configured before, in the same namespace.
        names = [] if entry is None else [one for one in entry.addresses if self._holds(owner, one)]
        names += [str(address) for address in self._claimed]
        files = {name: _signature(os.stat(os.path.join(self._folder, name))) for name in names}
        self._index.write_entry(Entry(*owner, self._boot, sandbox, files))

    def give_back(self, owner: Owner) -> None:
        """Free what was claimed under this lock: the ADD has failed."""
        for address, inode in self._claimed.items():
            try:
                status = os.stat(self._file(address))
            except FileNotFoundError:
                continue
            if status.st_ino == inode:
                self._remove(address)
        entry = self.entry(owner)
        if entry is None:
            return
        claimed = {str(address) for address in self._claimed}
        kept = {name: file for name, file in entry.addresses.items() if name not in claimed}
        if kept:
            self._index.write_entry(Entry(*owner, entry.boot, entry.sandbox, kept))
        else:
            self._index.drop_entry(owner)

    def release(self, owner: Owner) -> list[IP]:
        """Free what `owner` holds, and return it: files that name another stay."""
        entry = self.entry(owner)
        if entry is None:
            return []
        self._changed = True
        released = [ip_address(name) for name in entry.addresses if self._holds(owner, name)]
        for address in released:
            self._remove(address)
        self._index.drop_entry(owner)
        return released

    def settle(self) -> None:
        """Mark the folder as changed by us, unless the index was left half-built."""
        if not self._changed or not self._complete:
            return
        # The kernel's own times have coarse, regular nanoseconds; ours do not repeat.
        now = time.time_ns() // 1000 * 1000 + os.getpid() % 1000
        try:
            os.utime(self._folder, ns=(now, now))
            mtime = os.stat(self._folder).st_mtime_ns
            self._index.write_state(State(mtime, self._boot))
            self._changed = False
        except OSError:
            # A full disk must not fail a DEL that has freed its addresses. The state that is there
            # has another time: the next call scans.
            return

    def _holds(self, owner: Owner, name: str) -> bool:
        return _owner_in(self._read(name)) == owner

    def _link(self, new: str, address: IP) -> bool:
        path = self._file(address)
        for _ in range(2):
            try:
                os.link(new, path)
            except FileExistsError:
                if self._read(str(address)).strip():
                    return False
                os.unlink(path)
            else:
                return True
        return False

    def _remove(self, address: IP) -> None:
        self._changed = True
        os.unlink(self._file(address))
        self._index.clear_bits(address)

    # The index.

    def _rebuild(self) -> None:
        """Scan the network's folder; what the index knew of a file that is still there is kept."""
        self._changed = True
        self._complete = False
        known = {entry.owner: entry for entry in self._index.sound_entries()}
        found: dict[Owner, dict[str, tuple[int, int]]] = {}
        for name, signature in list(self._scan()):
            owner = _owner_in(self._read(name))
            if owner is None:
                # Its writer died between creating and writing it, for all hold the lock (W-HL4).
                os.unlink(os.path.join(self._folder, name))
            else:
                found.setdefault(owner, {})[name] = signature
        for owner, files in found.items():
            entry = known.get(owner)
            if entry is None or entry.addresses != files:
                self._index.write_entry(Entry(*owner, self._boot, Sandbox(), files))
        self._index.keep_owners(found)
        self._index.forget_used()
        self._complete = True

    def _reclaim_earlier_boots(self) -> None:
        """Free what was allocated before the machine last started: no namespace survives that.

        Only a file that is still the one seen then goes; one written since stays (W-HL1).
        """
        self._changed = True
        for entry in self.entries():
            if entry.boot == self._boot:
                continue
            for name, signature in entry.addresses.items():
                try:
                    status = os.stat(os.path.join(self._folder, name))
                except FileNotFoundError:
                    continue
                if _signature(status) == signature and self._holds(entry.owner, name):
                    self._remove(ip_address(name))
            self._index.drop_entry(entry.owner)

    def _scan(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name, inode and mtime of each address's file."""
        for item in os.scandir(self._folder):
            if is_address(item.name):
                yield item.name, _signature(item.stat(follow_symlinks=False))

    def _taken_positions(self, run: Range) -> Iterator[int]:
        for name in os.listdir(self._folder):
            if is_address(name):
                position = run.position(ip_address(name))
                if position is not None:
                    yield position

    def _file(self, address: IP) -> str:
        return os.path.join(self._folder, str(address))

    def _read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self._folder, name), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError:
            return b""


def _signature(status: os.stat_result) -> tuple[int, int]:
    """What tells a file from another that took its name."""
    return status.st_ino, status.st_mtime_ns


def _owner_in(content: bytes) -> Owner | None:
    """The owner that an address's file names; old files have the container's id alone."""
    container_id, _, ifname = content.decode(errors="replace").strip().partition("\r\n")
    return Owner(container_id, ifname) if container_id else None


def _boot_id() -> str:
    return sysctl.read(_BOOT_ID)
