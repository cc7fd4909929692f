"""Finding networks' configurations: by file, by name in a folder, and all of a folder.

The order is libcni's (spec.md 13.1): every `.conflist` by its name, then every `.conf` and `.json`.
A file that cannot be read keeps no other network from being found, unlike there: it is named where
the search finds nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code
from cni_py.spec.limits import MOST_INPUT_BYTES

from .networks import Network, Plugin, parse_network, parse_plugin, parse_single

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_FOLDER = "/etc/cni/net.d"
_LISTS, _SINGLES = (".conflist",), (".conf", ".json")
EXTENSIONS = (*_LISTS, *_SINGLES)
_DROP_INS = (".conf",)


class UnknownNetworkError(CniError):
    """No file of a folder has the network: `known` are the names of those that there are."""

    def __init__(self, msg: str, details: str, known: tuple[str, ...]) -> None:
        super().__init__(Code.INVALID_CONFIG, msg, details)
        self.known = known


@dataclass(frozen=True)
class Folder:
    """What a folder has: its networks in the order of the search, and by path what is wrong.

    Of networks that have one name the first one counts.
    """

    networks: tuple[Network, ...]
    unreadable: dict[str, CniError]


def load_file(path: str) -> Network:
    """The network of a `.conflist`, `.conf` or `.json`, with its drop-in files.

    Raises CniError 5 for what cannot be read, 6 and 7 for what is in it; it names the file.
    """
    try:
        data = _content(path)
        if _extension(path) in _SINGLES:
            return parse_single(data, path)
        network = parse_network(data, path)
        drop_ins = () if network.only_inlined else _drop_ins(path, network.name)
        if not network.plugins and not drop_ins:
            raise CniError(Code.INVALID_CONFIG, "no plugin configs found")
    except CniError as error:
        raise _in_file(path, error) from error
    return replace(network, plugins=(*network.plugins, *drop_ins))


def load_network(name: str, folder: str = DEFAULT_FOLDER) -> Network:
    """The network of that name. Raises UnknownNetworkError, and CniError 5 for the folder."""
    read = list(_each(folder))
    networks = [one for _, one in read if isinstance(one, Network)]
    found = next((one for one in networks if one.name == name), None)
    if found is not None:
        return found
    known = tuple(one.name for one in networks)
    unreadable = [str(one) for _, one in read if isinstance(one, CniError)]
    if not read:
        raise UnknownNetworkError(f"no net configurations found in {folder}", "", known)
    msg = f'no net configuration with name "{name}" in {folder}'
    alike = get_close_matches(name, known, n=1)
    details = [f"did you mean {alike[0]}?"] if alike else []
    details += [f"there are: {', '.join(dict.fromkeys(known))}"] if known else []
    details += [f"cannot be read: {one}" for one in unreadable]
    raise UnknownNetworkError(msg, "; ".join(details), known)


def load_folder(folder: str = DEFAULT_FOLDER) -> Folder:
    """Everything that a folder has; nothing where there is no folder. Raises CniError 5."""
    read = list(_each(folder))
    return Folder(
        tuple(one for _, one in read if isinstance(one, Network)),
        {path: one for path, one in read if isinstance(one, CniError)},
    )


def _each(folder: str) -> Iterator[tuple[str, Network | CniError]]:
    """Each file's path, with what it has or what is wrong with it."""
    names = _names(folder)
    for extensions in (_LISTS, _SINGLES):
        for name in names:
            if _extension(name) in extensions:
                path = os.path.join(folder, name)
                try:
                    yield path, load_file(path)
                except CniError as error:
                    yield path, error


def _names(folder: str) -> list[str]:
    """The files of a folder, sorted by their bytes; nothing without one."""
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if not one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        msg = f"cannot list {folder}: {error.strerror}"
        raise CniError(Code.IO_FAILURE, msg) from error
    return sorted(names, key=os.fsencode)


def _extension(path: str) -> str:
    """From the last dot on, also of a name that begins with it (L-01)."""
    return "".join(os.path.basename(path).rpartition(".")[1:])


def _drop_ins(path: str, name: str) -> tuple[Plugin, ...]:
    """The plugins in the folder beside a list that has its network's name (L-20, L-21)."""
    folder = os.path.join(os.path.dirname(path), name)
    files = [os.path.join(folder, one) for one in _names(folder) if _extension(one) in _DROP_INS]
    read = []
    for one in files:
        try:
            read.append(parse_plugin(_content(one)))
        except CniError as error:
            raise _in_file(one, error) from error
    return tuple(read)


def _content(path: str) -> bytes:
    """A file's content; a link to one is followed, nothing is waited for. Raises CniError 5."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            data = file.read(MOST_INPUT_BYTES + 1)
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"cannot be read: {error.strerror}") from None
    if len(data) > MOST_INPUT_BYTES:
        msg = f"cannot be read: it has more than {MOST_INPUT_BYTES} bytes"
        raise CniError(Code.IO_FAILURE, msg)
    return data


def _in_file(path: str, error: CniError) -> CniError:
    return CniError(error.code, f"{path}: {error.msg}", error.details)
