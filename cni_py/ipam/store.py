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

import errno
import fcntl
import os
import shutil
import signal
import time
from contextlib import contextmanager
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel.errors import kernel_error
from cni_py.spec.errors import CniError, Code

from .used_map import UsedMap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from cni_py.spec.addresses import IP

    from .ranges import Range

DEFAULT_DATA_DIR = "/var/lib/cni/networks"

_INDEX_DIR = ".cni-py"
_LOCK = "lock"
_LAST_RESERVED = "last_reserved_ip."
_LOCK_SECONDS = 30.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_KEY_DIGITS = 32


class Owner(NamedTuple):
    """Who holds an address."""

    container_id: str
    ifname: str

    @property
    def content(self) -> bytes:
        """What the address's file holds (plugins.md 5.1.3)."""
        return f"{self.container_id}\r\n{self.ifname}".encode()

    @property
    def key(self) -> str:
        """The name of the index's entry."""
        return sha256("\0".join(self).encode()).hexdigest()[:_KEY_DIGITS]


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


class _State(msgspec.Struct):
    """`mtime` of the network's folder after our last change, and the boot it was made in."""

    mtime: int = 0
    boot: str = ""


class Store:
    """The allocations of one network; `locked` gives access to them."""

    def __init__(self, data_dir: str, network: str) -> None:
        self.folder = os.path.join(data_dir, network)
        self._index = os.path.join(data_dir, _INDEX_DIR, network)

    @property
    def exists(self) -> bool:
        """Whether anything was ever allocated."""
        return os.path.isdir(self.folder)

    def create(self) -> None:
        """Make the folders. Raises KernelError."""
        try:
            os.makedirs(self.folder, 0o755, exist_ok=True)
            os.makedirs(os.path.join(self._index, "owners"), 0o700, exist_ok=True)
            os.makedirs(os.path.join(self._index, "used"), 0o700, exist_ok=True)
        except OSError as error:
            raise kernel_error(f"create the folder {self.folder}", error) from error

    @contextmanager
    def locked(self) -> Iterator[Allocations]:
        """Hold the network's lock, which the reference plugin takes too, with the index in order.

        Raises CniError 11 when the lock cannot be had in 30 s, KernelError for the disk's refusals.
        """
        self.create()
        path = os.path.join(self.folder, _LOCK)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o750)
        except OSError as error:
            raise kernel_error(f"open {path}", error) from error
        try:
            _lock(lock, path)
            allocations = Allocations(self.folder, self._index)
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

    def __init__(self, folder: str, index: str) -> None:
        self._folder = folder
        self._index = index
        self._boot = _boot_id()
        self._changed = False
        state = self._read_state()
        if os.stat(folder).st_mtime_ns != state.mtime:
            self._rebuild()
        if state.boot != self._boot:
            self._reclaim_earlier_boots()
            self._changed = True

    # Looking up.

    def entry(self, owner: Owner) -> Entry | None:
        """What `owner` holds."""
        return _read_entry(os.path.join(self._index, "owners", owner.key))

    def entries(self) -> Iterator[Entry]:
        """All owners, for GC: its cost grows with their number."""
        folder = os.path.join(self._index, "owners")
        for name in os.listdir(folder):
            entry = _read_entry(os.path.join(folder, name))
            if entry is not None:
                yield entry

    def holds(self, owner: Owner, address: IP) -> bool:
        """Whether the address's file names `owner`."""
        return _owner_in(self._read(str(address))) == owner

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
        used = self._used(run)
        if not used.exists:
            used.rewrite(self._taken_positions(run))
        position = used.next_free(start, end)
        while position is not None:
            yield position
            position = used.next_free(position + 1, end)

    def recount(self, run: Range) -> None:
        """Make the bits of `run` anew from the files."""
        self._used(run).rewrite(self._taken_positions(run))

    # Changing.

    def claim(self, owner: Owner, run: Range, address: IP) -> bool:
        """Take the address for `owner`; False if somebody holds it.

        The file appears with its content or not at all: no crash leaves an empty one (W-HL4). One
        that is empty belongs to a writer that died, for all writers hold the lock.
        """
        self._changed = True
        new = os.path.join(self._index, "new")
        # One left by a crash may be the same file as an allocation: never write into it.
        _unlink(new)
        _write(new, owner.content)
        try:
            taken = not self._link(new, address)
        finally:
            os.unlink(new)
        position = run.position(address)
        if position is not None:
            self._used(run).mark(position, taken=True)
        return not taken

    def record(
        self, owner: Owner, sandbox: Sandbox, addresses: list[IP], last: dict[int, IP]
    ) -> None:
        """Enter the owner's addresses, and the last one of each range set, into the index."""
        self._changed = True
        files = {}
        for address in addresses:
            status = os.stat(self._file(address))
            files[str(address)] = (status.st_ino, status.st_mtime_ns)
        self._write_entry(Entry(*owner, self._boot, sandbox, files))
        for set_index, address in last.items():
            path = os.path.join(self._folder, f"{_LAST_RESERVED}{set_index}")
            _write(path, str(address).encode())

    def release(self, owner: Owner, addresses: list[IP] | None = None) -> list[IP]:
        """Free what `owner` holds (and `addresses`, claimed but not recorded yet); returns it."""
        entry = self.entry(owner)
        recorded = [] if entry is None else [ip_address(one) for one in entry.addresses]
        released = [one for one in {*recorded, *(addresses or ())} if self._free(owner, one)]
        if entry is not None:
            self._changed = True
            os.unlink(os.path.join(self._index, "owners", owner.key))
        return sorted(released, key=lambda one: (one.version, int(one)))

    def settle(self) -> None:
        """Mark the folder as changed by us."""
        if not self._changed:
            return
        # The kernel's own times have coarse, regular nanoseconds; ours do not repeat.
        now = time.time_ns() // 1000 * 1000 + os.getpid() % 1000
        os.utime(self._folder, ns=(now, now))
        mtime = os.stat(self._folder).st_mtime_ns
        path = os.path.join(self._index, "state")
        _write(path + ".new", msgspec.json.encode(_State(mtime, self._boot)))
        os.replace(path + ".new", path)

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

    def _free(self, owner: Owner, address: IP) -> bool:
        """Remove the address's file if it still names `owner`."""
        if not self.holds(owner, address):
            return False
        self._changed = True
        os.unlink(self._file(address))
        for path, run in self._used_maps():
            position = run.position(address)
            if position is not None:
                UsedMap(path, run.size).mark(position, taken=False)
        return True

    # The index.

    def _rebuild(self) -> None:
        """Scan the network's folder; what the index knew of a file that is still there is kept."""
        self._changed = True
        known = {entry.owner: entry for entry in self.entries()}
        found: dict[Owner, dict[str, tuple[int, int]]] = {}
        for name, (inode, mtime) in self._scan():
            owner = _owner_in(self._read(name))
            if owner is not None:
                found.setdefault(owner, {})[name] = (inode, mtime)
        for owner, files in found.items():
            entry = known.pop(owner, None)
            if entry is None or entry.addresses != files:
                self._write_entry(Entry(*owner, self._boot, Sandbox(), files))
        for owner in known:
            os.unlink(os.path.join(self._index, "owners", owner.key))
        shutil.rmtree(os.path.join(self._index, "used"))
        os.mkdir(os.path.join(self._index, "used"), 0o700)

    def _reclaim_earlier_boots(self) -> None:
        """Free what was allocated before the machine last started: no namespace survives that.

        Only a file that is still the one seen then goes; one written since stays (W-HL1).
        """
        for entry in list(self.entries()):
            if entry.boot == self._boot:
                continue
            for name, (inode, mtime) in entry.addresses.items():
                try:
                    status = os.stat(os.path.join(self._folder, name))
                except FileNotFoundError:
                    continue
                if (status.st_ino, status.st_mtime_ns) == (inode, mtime):
                    self._free(entry.owner, ip_address(name))
            os.unlink(os.path.join(self._index, "owners", entry.owner.key))

    def _scan(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name, inode and mtime of each address's file."""
        for item in os.scandir(self._folder):
            if _is_address(item.name):
                status = item.stat(follow_symlinks=False)
                yield item.name, (status.st_ino, status.st_mtime_ns)

    def _taken_positions(self, run: Range) -> Iterator[int]:
        for name in os.listdir(self._folder):
            if _is_address(name):
                position = run.position(ip_address(name))
                if position is not None:
                    yield position

    def _used(self, run: Range) -> UsedMap:
        name = f"{run.first:x}-{run.last:x}-{run.version}"
        return UsedMap(os.path.join(self._index, "used", name), run.size)

    def _used_maps(self) -> Iterator[tuple[str, _Run]]:
        folder = os.path.join(self._index, "used")
        for name in os.listdir(folder):
            parts = name.split("-")
            if len(parts) == len(_Run._fields):
                run = _Run(int(parts[0], 16), int(parts[1], 16), int(parts[2]))
                yield os.path.join(folder, name), run

    def _read_state(self) -> _State:
        try:
            with open(os.path.join(self._index, "state"), "rb") as file:
                return msgspec.json.decode(file.read(), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):
            return _State()

    def _write_entry(self, entry: Entry) -> None:
        path = os.path.join(self._index, "owners", entry.owner.key)
        _write(path + ".new", msgspec.json.encode(entry))
        os.replace(path + ".new", path)

    def _file(self, address: IP) -> str:
        return os.path.join(self._folder, str(address))

    def _read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self._folder, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""


class _Run(NamedTuple):
    """The range that a file of `used/` is about."""

    first: int
    last: int
    version: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def position(self, address: IP) -> int | None:
        if address.version != self.version or not self.first <= int(address) <= self.last:
            return None
        return int(address) - self.first


def _owner_in(content: bytes) -> Owner | None:
    """The owner that an address's file names; old files have the container's id alone."""
    container_id, _, ifname = content.decode(errors="replace").strip().partition("\r\n")
    return Owner(container_id, ifname) if container_id else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _read_entry(path: str) -> Entry | None:
    """The entry; None if it is missing, or damaged, which a rebuild mends."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Entry)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def _boot_id() -> str:
    with open(_BOOT_ID) as file:
        return file.read().strip()


def _lock(fd: int, path: str) -> None:
    """flock(2) with a limit; the holder's process is named when it passes."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, _LOCK_SECONDS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except TimeoutError:
        msg = f"the lock {path} was not free within {_LOCK_SECONDS:.0f} s"
        raise CniError(Code.TRY_AGAIN_LATER, msg, _lock_holder(fd)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _lock_holder(fd: int) -> str:
    """`held by process N (name)`, from proc(5)'s list of locks."""
    inode = os.fstat(fd).st_ino
    with open("/proc/locks") as locks:
        for line in locks:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                try:
                    with open(f"/proc/{fields[4]}/comm") as comm:
                        return f"held by process {fields[4]} ({comm.read().strip()})"
                except FileNotFoundError:
                    break
    return "held by a process that cannot be seen from here"
