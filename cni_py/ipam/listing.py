"""host-local's allocations, looked at without the lock and without changing anything.

What `store` would put right while it is there (an index that is behind, a damaged file) stays as it
is, and is told.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel import state_files
from cni_py.spec.addresses import parse_ip

from .index import Entry, Owner, Sandbox, is_address, range_of_used
from .store import INDEX_DIR, LAST_RESERVED, owner_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP


class Allocation(NamedTuple):
    """An address's file: whom it names, None for nobody, and when it was written (epoch seconds).

    `sandbox` is what the index says of the owner's namespace; None where it knows no such owner, as
    of one of the reference plugin's.
    """

    address: IP
    owner: Owner | None
    since: float
    path: str
    sandbox: Sandbox | None
    boot: str


class Listing(NamedTuple):
    """A network's folder. `runs` are the (first, last, version) that were given out from."""

    folder: str
    allocations: tuple[Allocation, ...]
    last_reserved: dict[str, str]
    runs: tuple[tuple[int, int, int], ...]
    damaged: tuple[str, ...]


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
    entries = dict(_entries(os.path.join(index, "owners"), damaged))
    allocations = [
        _allocation(folder, name, entries, damaged) for name in filter(is_address, names)
    ]
    last = {
        name.removeprefix(LAST_RESERVED): _text(os.path.join(folder, name))
        for name in names
        if name.startswith(LAST_RESERVED)
    }
    runs = filter(None, map(range_of_used, _names(os.path.join(index, "used")) or ()))
    damaged += [path for one in (index,) for path in _aside(one)]
    ordered = sorted(
        filter(None, allocations), key=lambda one: (one.address.version, int(one.address))
    )
    return Listing(folder, tuple(ordered), last, tuple(runs), tuple(damaged))


def _aside(folder: str) -> list[str]:
    aside = os.path.join(folder, state_files.DAMAGED)
    return [os.path.join(aside, name) for name in _names(aside) or ()]


def _allocation(
    folder: str, name: str, entries: dict[Owner, Entry], damaged: list[str]
) -> Allocation | None:
    path = os.path.join(folder, name)
    try:
        since = os.lstat(path).st_mtime
        owner = owner_in(state_files.content(path))
    except FileNotFoundError:
        return None
    except (OSError, state_files.DamagedError):
        since, owner = 0.0, None
    if owner is None:
        damaged.append(path)
    entry = None if owner is None else entries.get(owner)
    if entry is None or name not in entry.addresses:
        return Allocation(parse_ip(name), owner, since, path, None, "")
    return Allocation(parse_ip(name), owner, since, path, entry.sandbox, entry.boot)


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
