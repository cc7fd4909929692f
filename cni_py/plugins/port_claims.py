"""Who has a host's port: one symbolic link a port and address, to the holder's key.

    /run/cni-py/portmap/ports/4-tcp-8080/any -> 8e48f37d5de60467-0b65a318f52e521b
    /run/cni-py/portmap/ports/4-udp-53/192.0.2.1 -> ...

So two containers that ask for one port at once cannot both get it, whatever their backends are, and
the cost is the same at any number of mappings. A port of all addresses and the same of one address
exclude each other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.kernel import state_files
from cni_py.spec.attachment import is_key
from cni_py.spec.errors import CniError, Code

from .port_mappings import RECORDS
from .records import NOT_EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.spec.attachment import Attachment

    from .port_mappings import Mapped, Record

_FOLDER = f"{RECORDS.folder}/ports"
_ANY = "any"


def require_free(attachment: Attachment, mappings: Iterable[Mapped]) -> None:
    """Raises CniError for the first port that another container has, which lives."""
    for one in mappings:
        holder = _other_holder(attachment, one)
        if holder is not None:
            raise _taken(one, holder)


def without_own(attachment: Attachment, mappings: Iterable[Mapped]) -> list[Mapped]:
    """The mappings but those that another interface of the container has already.

    A runtime asks for a container's ports on each of its networks; the first network has them.
    """
    wanted = []
    for one in mappings:
        key = _holder_at(_path(one))
        record = None if key in (None, attachment.key) else RECORDS.by_key(str(key))
        own = record is not None and record.container_id == attachment.container_id
        if not (own and record is not None and record.sandbox.is_alive()):
            wanted.append(one)
    return wanted


def claim(attachment: Attachment, mappings: Iterable[Mapped]) -> list[Record]:
    """Take the ports; returns the records of the dead that still had one. Raises CniError."""
    stale: dict[str, Record] = {}
    for one in mappings:
        for key in _take(attachment, one):
            record = RECORDS.by_key(key)
            if record is not None:
                stale[key] = record
        # Whoever asks for the same port of other addresses does this after his link is there too.
        holder = _other_holder(attachment, one)
        if holder is not None:
            raise _taken(one, holder)
    return list(stale.values())


def release(attachment: Attachment, mappings: Iterable[Mapped]) -> None:
    """Give the ports back that are the attachment's."""
    for one in mappings:
        path = _path(one)
        if _holder_at(path) == attachment.key:
            state_files.remove(path)
        # Also where the call that gave the port back was killed in between.
        _remove_empty(os.path.dirname(path))


def release_all(is_unwanted: Callable[[str, str], bool]) -> None:
    """Give back the ports of every holder that is unwanted, told by its key and what it holds."""
    for folder in _entries(_FOLDER):
        for name in _entries(f"{_FOLDER}/{folder}"):
            path = f"{_FOLDER}/{folder}/{name}"
            key = _holder_at(path)
            if key is not None and is_unwanted(key, f"claim of port {folder} on {name}"):
                _remove(path)


def tidy() -> None:
    """Remove the folders of ports that a killed call has left empty."""
    for folder in _entries(_FOLDER):
        _remove_empty(f"{_FOLDER}/{folder}")


def are_any() -> bool:
    """Whether anybody holds a port."""
    return bool(_entries(_FOLDER))


def _take(attachment: Attachment, one: Mapped) -> list[str]:
    """Make the link; the keys of the dead whose links were in the way."""
    path = _path(one)
    dead = []
    while True:
        try:
            os.symlink(attachment.key, path)
        except FileNotFoundError:
            # The last one of the port's folder has just gone, and the folder with it.
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            continue
        except FileExistsError:
            key = _holder_at(path)
            if key == attachment.key:
                break
            if key is not None and _lives(key):
                raise _taken(one, key) from None
            if key is not None:
                dead.append(key)
            _remove(path)
            continue
        break
    return dead


def _other_holder(attachment: Attachment, one: Mapped) -> str | None:
    """The key of another container that lives and has the port, of the same or all addresses."""
    path = _path(one)
    folder, own = os.path.split(path)
    for name in _entries(folder):
        if own not in (_ANY, name) and name != _ANY:
            continue
        key = _holder_at(f"{folder}/{name}")
        if key not in (None, attachment.key) and _lives(str(key)):
            return key
    return None


def _lives(key: str) -> bool:
    record = RECORDS.by_key(key)
    if record is None:
        # Nobody knows: its DEL, or GC, gives the port back.
        return RECORDS.is_damaged(key)
    return record.sandbox.is_alive()


def _taken(one: Mapped, key: str) -> CniError:
    record = RECORDS.by_key(key)
    holder = key
    if record is not None:
        holder = f"container {record.container_id} (network {record.network}, {record.ifname})"
    msg = f"host port {one} is taken by {holder}"
    return CniError(Code.INTERNAL, msg, "choose another hostPort, or remove that container")


def _path(one: Mapped) -> str:
    port = f"{one.version}-{one.protocol}-{one.host_port}"
    return f"{_FOLDER}/{port}/{one.host_ip or _ANY}"


def _holder_at(path: str) -> str | None:
    """The key that the link says; None where there is none, or it says something else.

    A record's path is made of it.
    """
    try:
        said = os.readlink(path)
    except OSError:
        return None
    return said if is_key(said) else None


def _remove(path: str) -> None:
    state_files.remove(path)
    _remove_empty(os.path.dirname(path))


def _remove_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        # Another address of the port may still have a link in it.
        if error.errno not in NOT_EMPTY:
            raise


def _entries(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
