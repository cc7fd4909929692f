"""host-local's allocations, looked at without the lock and without changing anything.

What `store` would put right while it is there (an index that is behind, a damaged file) stays as it
is, and is told.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel import state_files, sysctl
from cni_py.spec.addresses import parse_ip

from .index import (
    LAST_RESERVED,
    OWNERS,
    STATE,
    USED,
    Entry,
    Owner,
    Sandbox,
    State,
    is_address,
    owner_in,
    range_of_used,
)
from .store import INDEX_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP


class Allocation(NamedTuple):
    """An address's file: whom it names, None for nobody, and when it was written (epoch seconds).

    `sandbox` is what the index says of the owner's namespace; None where it knows no such owner, as
    of one of the reference plugin's. `problem` is what is wrong with the file: then `known` is the
    entry of whom the index knows to have it.
    """

    address: IP
    owner: Owner | None
    since: float
    path: str
    sandbox: Sandbox | None
    boot: str
    is_of_earlier_boot: bool = False
    problem: str = ""
    known: Entry | None = None


class Listing(NamedTuple):
    """A network's folder. `runs` are the (first, last, version) that were given out from.

    `behind` is why the next call makes the index anew, `""` where it need not.
    """

    folder: str
    allocations: tuple[Allocation, ...]
    last_reserved: dict[str, str]
    runs: tuple[tuple[int, int, int], ...]
    damaged: tuple[str, ...]
    behind: str = ""


def networks(data_dir: str) -> list[str]:
    """The networks that have a folder there, in order; none where it cannot be listed."""
    try:
        found = [one.name for one in os.scandir(data_dir) if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(name for name in found if name != INDEX_DIR)


def listing(data_dir: str, network: str) -> Listing | None:
    """What is allocated of a network; None where there is no such folder."""
    folder = os.path.join(data_dir, network)
    index = os.path.join(data_dir, INDEX_DIR, network)
    names = _names(folder)
    if names is None:
        return None
    damaged: list[str] = []
    entries = dict(_entries(os.path.join(index, OWNERS), damaged))
    behind = "files of it are damaged" if damaged else _why_behind(folder, index)
    holders = {name: entry for entry in entries.values() for name in entry.addresses}
    allocations = [
        _allocation(folder, name, entries, holders.get(name), damaged)
        for name in filter(is_address, names)
    ]
    last = {
        name.removeprefix(LAST_RESERVED): _text(os.path.join(folder, name))
        for name in names
        if name.startswith(LAST_RESERVED)
    }
    runs = filter(None, map(range_of_used, _names(os.path.join(index, USED)) or ()))
    damaged += [path for one in (index,) for path in _aside(one)]
    ordered = sorted(
        filter(None, allocations), key=lambda one: (one.address.version, int(one.address))
    )
    return Listing(folder, tuple(ordered), last, tuple(runs), tuple(damaged), behind)


def _aside(folder: str) -> list[str]:
    aside = os.path.join(folder, state_files.DAMAGED)
    return [os.path.join(aside, name) for name in _names(aside) or ()]


def _allocation(
    folder: str,
    name: str,
    entries: dict[Owner, Entry],
    known: Entry | None,
    damaged: list[str],
) -> Allocation | None:
    path = os.path.join(folder, name)
    signature, since = (0, 0), 0.0
    owner, problem = None, "it names nobody"
    try:
        status = os.lstat(path)
        signature, since = (status.st_ino, status.st_mtime_ns), status.st_mtime
        owner = owner_in(state_files.content(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = str(error.strerror)
    except state_files.DamagedError as error:
        problem = str(error)
    if owner is None:
        damaged.append(path)
    entry = known if owner is None else entries.get(owner)
    earlier = (
        entry.boot != sysctl.boot_id()
        if entry is not None and entry.addresses.get(name) == signature
        else state_files.is_of_earlier_boot(signature[1])
    )
    if owner is None:
        address = parse_ip(name)
        return Allocation(address, None, since, path, None, "", earlier, problem, known)
    if entry is None or name not in entry.addresses:
        return Allocation(parse_ip(name), owner, since, path, None, "", earlier)
    return Allocation(parse_ip(name), owner, since, path, entry.sandbox, entry.boot, earlier)


def _why_behind(folder: str, index: str) -> str:
    """As `store` tells it, which makes the index anew then."""
    try:
        state = msgspec.json.decode(state_files.content(os.path.join(index, STATE)), type=State)
        mtime = os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return "there is none yet"
    except (OSError, state_files.DamagedError, msgspec.DecodeError, UnicodeDecodeError):
        return "files of it are damaged"
    if state.boot != sysctl.boot_id():
        return "it is of an earlier boot"
    return "" if state.mtime == mtime else "somebody else has changed the folder since"


def _entries(folder: str, damaged: list[str]) -> Iterator[tuple[Owner, Entry]]:
    for name in _names(folder) or ():
        if name.endswith(state_files.NEW):
            continue
        path = os.path.join(folder, name)
        try:
            entry = msgspec.json.decode(state_files.content(path), type=Entry)
        except FileNotFoundError:
            continue
        except (OSError, state_files.DamagedError, msgspec.DecodeError, UnicodeDecodeError):
            damaged.append(path)
            continue
        if entry.owner.key == name:
            yield entry.owner, entry
        else:
            damaged.append(path)


def _names(folder: str) -> list[str] | None:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return None


def _text(path: str) -> str:
    try:
        return state_files.content(path).decode(errors="replace").strip()
    except (OSError, state_files.DamagedError):
        return ""
