"""host-local's allocations on disk.

`<dataDir>/<network>/` has the reference plugin's format, so that either can release what the other
allocated: one file an address holding `id CR LF ifname`, `last_reserved_ip.<set>`, `lock`.

`<dataDir>/.cni-py/<network>/` is an index beside it: `owners/` from (container, ifname) to
addresses, `used/` with a bit an address, and `state`. It is complete as long as nobody else has
changed the network's folder, which is known exactly: each change of ours ends by setting the
folder's modification time to a value of our own that `state` repeats. Another time there means
another writer, or a crash of ours: the index is rebuilt by a scan (docs/decisions/0004).

An address's file that is no file, or names nobody, is that of the owner whom the index knows, and
is made anew as long as the owner's namespace is there. Nobody else's is worth anything.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING

from cni_py.kernel import state_files, sysctl
from cni_py.kernel.errors import KernelError, kernel_error
from cni_py.kernel.lock import on_folder, take_lock

from .index import (
    LAST_RESERVED,
    DamagedEntryError,
    Entry,
    Index,
    Owner,
    Sandbox,
    Signature,
    State,
    is_address,
    owner_in,
)
from .peek import Peek

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.state_files import Unnamed
    from cni_py.spec.addresses import IP

    from .ranges import Range

DEFAULT_DATA_DIR = "/var/lib/cni/networks"

INDEX_DIR = ".cni-py"
_LOCK = "lock"
# That of an entry whose file is older than this boot.
_EARLIER = ""
_NO_ROOM = "each address is a file there: make room, or set ipam.dataDir to another folder"


class Store:
    """The allocations of one network; `locked` gives access to them."""

    def __init__(self, data_dir: str, network: str) -> None:
        self.folder = os.path.join(data_dir, network)
        self._index = Index(os.path.join(data_dir, INDEX_DIR, network))

    @property
    def exists(self) -> bool:
        """Whether anything was ever allocated."""
        return os.path.isdir(self.folder)

    def require_room(self) -> None:
        """Raises KernelError where the disk is full or read-only, so that nothing can be given."""
        folder = self.folder
        while not os.path.exists(folder) and folder not in ("", "/"):
            folder = os.path.dirname(folder)
        try:
            disk = os.statvfs(folder or ".")
        except OSError as error:
            raise kernel_error(f"look at {folder}", error) from error
        # Some file systems have no number of inodes, and say 0 of 0.
        if disk.f_flag & os.ST_RDONLY:
            raise KernelError(f"write into {self.folder}", errno.EROFS, _NO_ROOM)
        if (disk.f_blocks and not disk.f_bfree) or (disk.f_files and not disk.f_ffree):
            raise KernelError(f"write into {self.folder}", errno.ENOSPC, _NO_ROOM)

    def peek(self) -> Peek:
        """What there is, for who must change nothing."""
        return Peek(self.folder, self._index.folder, sysctl.boot_id())

    @contextmanager
    def locked(self, *, reclaims: bool = True) -> Iterator[Allocations]:
        """Hold the network's lock, which the reference plugin takes too, with the index in order.

        What is of an earlier boot is freed unless told not to: then nothing can be changed.

        Raises CniError 11 when the lock cannot be had in 30 s, KernelError for the disk's refusals.
        """
        path = os.path.join(self.folder, _LOCK)
        try:
            os.makedirs(self.folder, 0o755, exist_ok=True)
        except OSError as error:
            raise kernel_error(f"create the folder {self.folder}", error) from error
        try:
            lock = self._opened_lock(path)
        except OSError as error:
            raise kernel_error(f"open {path}", error) from error
        try:
            take_lock(lock, path)
            self._index.create()
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

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Hold the network's lock to look at what is there; nothing is made or put right.

        Raises CniError 11 when the lock cannot be had in 30 s, KernelError.
        """
        path = os.path.join(self.folder, _LOCK)
        try:
            lock = state_files.opened(path, os.O_RDONLY)
        except (FileNotFoundError, state_files.DamagedError):
            # Nobody can hold what is not there.
            yield
            return
        except OSError as error:
            raise kernel_error(f"open {path}", error) from error
        try:
            take_lock(lock, path)
            yield
        finally:
            os.close(lock)

    def _opened_lock(self, path: str) -> int:
        """The lock's file, open: the reference opens it too. What is no file is set aside."""
        try:
            return _opened_file(path)
        except state_files.DamagedError:
            # One that somebody else has just put right must stay: one call at a time looks.
            with on_folder(self.folder):
                try:
                    return _opened_file(path)
                except state_files.DamagedError as error:
                    self._index.set_aside(path, str(error))
                return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o750)


def _opened_file(path: str) -> int:
    """Raises DamagedError, OSError."""
    lock = state_files.opened(path, os.O_RDONLY | os.O_CREAT, 0o750)
    if stat.S_ISREG(os.fstat(lock).st_mode):
        return lock
    os.close(lock)
    raise state_files.DamagedError("it is no file")


class Allocations:
    """What `Store.locked` gives: valid while the lock is held."""

    def __init__(self, folder: str, index: Index, *, reclaims: bool) -> None:
        self._folder = folder
        self._index = index
        self._boot = sysctl.boot_id()
        self._changed = False
        self._complete = True
        self._reclaims = reclaims
        # What `claim` linked, with the inode, and the entry that it is in.
        self._claimed: dict[IP, int] = {}
        self._entry = Entry("", "", self._boot, Sandbox(), {})
        state = index.state()
        # A loss of power may have taken parts of the index, and another boot tells of it.
        if os.stat(folder).st_mtime_ns != state.mtime or state.boot != self._boot:
            self._rebuild()

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
        """Whom the address's file names; one that is damaged is put right before."""
        name = str(address)
        owner = owner_in(self._read(name))
        if owner is None and (entry := self._living_holder(name)) is not None:
            self._put_right(entry, name)
            return entry.owner
        return owner

    def last_reserved(self, set_index: int) -> IP | None:
        """The address that was last given out of a range set; None if unknown (5.1.3)."""
        try:
            return ip_address(self._read(f"{LAST_RESERVED}{set_index}").decode())
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

    def set_aside(self) -> list[str]:
        """The paths of what was damaged and set aside: of the folder and the index."""
        return state_files.all_aside(self._index.folder)

    # Changing.

    def prepare(self, owner: Owner, sandbox: Sandbox) -> None:
        """Say whose the addresses are that `claim` takes from now on."""
        entry = self.entry(owner)
        # Of ranges that were configured before, in the same namespace.
        kept = {} if entry is None else entry.addresses
        names = [name for name in kept if self._holds(owner, name)]
        files = {name: _signature(os.stat(os.path.join(self._folder, name))) for name in names}
        self._entry = Entry(*owner, self._boot, sandbox, files)

    def claim(self, run: Range, address: IP) -> bool:
        """Take the address for the owner; False if somebody holds it.

        The file appears with its content or not at all: no crash leaves an empty one (W-HL4). One
        that is empty belongs to a writer that died, for all writers hold the lock. The owner's
        entry has the address before: a crash in between leaves nothing that nobody is known of.
        """
        self._changed = True
        before, owner = self._entry, self._entry.owner
        with state_files.unnamed(self._index.new_file, owner.content) as file:
            files = before.addresses | {str(address): _signature(file.status)}
            self._entry = Entry(*owner, before.boot, before.sandbox, files)
            self._index.write_entry(self._entry)
            # Noted before the link is made: an interrupted ADD must find what to give back.
            self._claimed[address] = file.status.st_ino
            taken = not self._link(file, address)
        if taken:
            del self._claimed[address]
            self._keep(before)
        position = run.position(address)
        if position is not None:
            self._index.used(run).mark(position, taken=True)
        return not taken

    def record(self, last: dict[int, IP]) -> None:
        """Enter the last claimed address of each range set."""
        for set_index, address in last.items():
            path = os.path.join(self._folder, f"{LAST_RESERVED}{set_index}")
            state_files.write(path, str(address).encode(), self._index.damaged)

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
        self._keep(Entry(*owner, entry.boot, entry.sandbox, kept))

    def _keep(self, entry: Entry) -> None:
        """Have the owner hold what the entry says, which may be nothing."""
        self._entry = entry
        if entry.addresses:
            self._index.write_entry(entry)
        else:
            self._index.drop_entry(entry.owner)

    def release(self, owner: Owner) -> list[IP]:
        """Free what `owner` holds, and return it: files that name another stay."""
        entry = self.entry(owner)
        if entry is None:
            return []
        self._changed = True
        held = entry.addresses.items()
        released = [ip_address(name) for name, one in held if self._held(owner, name, one)]
        for address in released:
            self._remove(address)
        self._index.drop_entry(owner)
        return released

    def free(self, owner: Owner, address: IP) -> bool:
        """Free one of an owner's addresses; False where its file names another."""
        entry = self.entry(owner)
        name = str(address)
        if entry is None or name not in entry.addresses:
            return False
        if not self._held(owner, name, entry.addresses[name]):
            return False
        self._remove(address)
        rest = {one: file for one, file in entry.addresses.items() if one != name}
        self._keep(Entry(*owner, entry.boot, entry.sandbox, rest))
        return True

    def rebuild(self) -> None:
        """Make the index anew from the files, and put right what is damaged."""
        self._rebuild()

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
        return owner_in(self._read(name)) == owner

    def _held(self, owner: Owner, name: str, signature: Signature) -> bool:
        """Whether the address is the owner's, also where its file was cut off since."""
        data = self._read(name)
        if owner_in(data) == owner:
            return True
        try:
            inode = os.lstat(os.path.join(self._folder, name)).st_ino
        except FileNotFoundError:
            return False
        return inode == signature[0] and _is_cut_off(data, owner)

    def _link(self, file: Unnamed, address: IP) -> bool:
        path = self._file(address)
        for _ in range(2):
            if file.takes(path):
                return True
            if self.holder(address) is not None:
                return False
            self._discard(str(address))
        return False

    def _remove(self, address: IP) -> None:
        self._changed = True
        os.unlink(self._file(address))
        self._index.clear_bits(address)

    # The index.

    def _rebuild(self) -> None:
        """Scan the network's folder; what the index knew of a file that is still there is kept.

        What was allocated before the machine last started is freed: no namespace survives that. A
        file that was written since stays, whoever it names (W-HL1).
        """
        self._changed = True
        self._complete = False
        known = {entry.owner: entry for entry in self._index.sound_entries()}
        holders = {name: entry.owner for entry in known.values() for name in entry.addresses}
        found: dict[Owner, dict[str, Signature]] = {}
        earlier: dict[Owner, dict[str, Signature]] = {}
        for name, seen in list(self._scan()):
            owner, signature = self._owner_of(name, seen, known, holders.get(name))
            if owner is None:
                # Its writer died between creating and writing it, for all hold the lock (W-HL4).
                self._discard(name)
                continue
            is_earlier = self._is_of_earlier_boot(known.get(owner), name, signature)
            (earlier if is_earlier else found).setdefault(owner, {})[name] = signature
        for owner, files in found.items():
            self._enter(known.get(owner), owner, files)
        owners = set(found)
        if self._reclaims:
            for name in chain.from_iterable(earlier.values()):
                os.unlink(os.path.join(self._folder, name))
        else:
            for owner in earlier.keys() - found.keys():
                self._index.write_entry(Entry(*owner, _EARLIER, Sandbox(), earlier[owner]))
                owners.add(owner)
        self._index.keep_owners(owners)
        self._index.forget_used()
        # Otherwise whoever comes next scans again, and finds what is of an earlier boot.
        self._complete = self._reclaims

    def _owner_of(
        self, name: str, signature: Signature, known: dict[Owner, Entry], holder: Owner | None
    ) -> tuple[Owner | None, Signature]:
        """Whose a file is, `holder` being the one that the index knows; and its signature then."""
        data = self._read(name)
        owner = owner_in(data)
        if holder is None or owner == holder:
            return owner, signature
        entry = known[holder]
        is_cut_off = signature[0] == entry.addresses[name][0] and _is_cut_off(data, holder)
        if owner is not None and not is_cut_off:
            return owner, signature
        if not self._is_living(entry):
            # An empty one is nobody's; one cut off is found by its owner's DEL.
            return (holder if owner is not None else None), signature
        known[holder] = self._put_right(entry, name)
        return holder, known[holder].addresses[name]

    def _is_of_earlier_boot(self, entry: Entry | None, name: str, signature: Signature) -> bool:
        """Of the reference's files their time says it: copying or a new owner changes only ctime.

        `entry` is the owner's, who may have had another file of that name.
        """
        if entry is not None and entry.addresses.get(name) == signature:
            return self.is_of_earlier_boot(entry)
        return state_files.is_of_earlier_boot(signature[1])

    def _enter(self, entry: Entry | None, owner: Owner, files: dict[str, Signature]) -> None:
        """Write an owner's entry, unless it is that already."""
        if entry is None or self.is_of_earlier_boot(entry):
            entry = Entry(*owner, self._boot, Sandbox(), {})
        if entry.addresses == files:
            return
        is_as_known = files.items() <= entry.addresses.items()
        sandbox = entry.sandbox if is_as_known else Sandbox()
        self._index.write_entry(Entry(*owner, self._boot, sandbox, files))

    # Damage.

    def _is_living(self, entry: Entry) -> bool:
        return not self.is_of_earlier_boot(entry) and entry.sandbox.is_there()

    def _living_holder(self, name: str) -> Entry | None:
        """Who holds the address as far as the index knows: this reads all of it."""
        entries = (one for one in self._index.sound_entries() if name in one.addresses)
        # What is being claimed is entered before it is taken.
        others = (one for one in entries if one != self._entry)
        return next(filter(self._is_living, others), None)

    def _put_right(self, entry: Entry, name: str) -> Entry:
        """Write the file of an address anew."""
        self._changed = True
        path, index = os.path.join(self._folder, name), self._index
        state_files.replace(path, entry.owner.content, index.damaged, index.new_file)
        state_files.report(path, "its owner is not in it", f"and names {entry.container_id} again")
        files = entry.addresses | {name: _signature(os.stat(path))}
        entry = Entry(*entry.owner, entry.boot, entry.sandbox, files)
        self._index.write_entry(entry)
        return entry

    def _discard(self, name: str) -> None:
        """Take away the file of an address that names nobody."""
        path = os.path.join(self._folder, name)
        if self._read(name).strip():
            self._index.set_aside(path, "it names nobody")
        else:
            self._index.remove(path)

    # The folder.

    def _scan(self) -> Iterator[tuple[str, Signature]]:
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
        return state_files.read(os.path.join(self._folder, name), self._index.damaged) or b""


def _signature(status: os.stat_result) -> Signature:
    """What tells a file from another that took its name."""
    return status.st_ino, status.st_mtime_ns


def _is_cut_off(data: bytes, owner: Owner) -> bool:
    """Whether an address's file can be what is left of the owner's."""
    return owner_in(data) is None or owner.content.startswith(data.rstrip())
