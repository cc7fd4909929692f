"""What a network's names lead to: a file a source, which dnsmasq takes in as soon as it is there.

A file appears whole, by rename(2) from outside of the watched folder: dnsmasq reads it in one go,
and no query meets half of it, or none of what was there before.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cni_py.kernel import state_files
from cni_py.kernel.errors import kernel_error
from cni_py.spec.addresses import parse_ip
from cni_py.spec.dns_names import dns_name, forms

from .network import make_way

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .network import Network

# dnsmasq passes over what begins with a dot or ends with a tilde.
_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# For dnsmasq's own user: who gets there is said by the folder above.
_FILE_MODE = 0o644


def publish(
    network: Network, source: str, entries: Iterable[tuple[str, Iterable[str]]], note: str = ""
) -> None:
    """Have names lead to addresses, instead of what `source` has published before.

    Each entry is an address and its names, of which the first is the reverse one; a name is
    answered as it is and in the network's domain. Names of several sources lead to the addresses of
    all. `note` is a line that only readers of the file see. It is answered once dnsmasq has read
    it, within milliseconds. Raises ValueError for what is no name, address or source, with nothing
    written; KernelError.
    """
    text = _text(network, entries, note)
    path = _path(network, source)
    spare = f"{network.folder}/{source}{state_files.NEW}"
    make_way(network, new=False)
    try:
        fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, _FILE_MODE)
            data = memoryview(text.encode())
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(spare, path)
    except OSError as error:
        raise kernel_error(f"write {path}", error) from error


def withdraw(network: Network, source: str) -> None:
    """Take back what `source` has published; nothing is fine. Raises ValueError, KernelError."""
    path = _path(network, source)
    for one in (path, f"{network.folder}/{source}{state_files.NEW}"):
        try:
            state_files.remove(one)
        except OSError as error:
            raise kernel_error(f"remove {one}", error) from error


def sources(network: Network) -> list[str]:
    """Who has published something. Raises KernelError."""
    try:
        return sorted(os.listdir(network.hosts))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise kernel_error(f"list {network.hosts}", error) from error


def published(network: Network, source: str) -> tuple[str, dict[str, list[str]]] | None:
    """The note, and the addresses with all forms of their names; None where there is no file.

    Raises KernelError; DamagedError for what `publish` has not written.
    """
    path = _path(network, source)
    try:
        text = state_files.content(path).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    note, entries = "", {}
    for line in text.splitlines():
        if line.startswith("# "):
            note = line[2:]
        elif len(fields := line.split()) > 1:
            entries[fields[0]] = fields[1:]
    return note, entries


def lines_of(
    network: Network, entries: Iterable[tuple[str, Iterable[str]]]
) -> dict[str, list[str]]:
    """The addresses with all forms of their names. Raises ValueError."""
    found: dict[str, list[str]] = {}
    for address, names in entries:
        listed = found.setdefault(str(parse_ip(address)), [])
        for name in names:
            listed += [one for one in forms(dns_name(name), network.domain) if one not in listed]
    return {address: names for address, names in found.items() if names}


def _text(network: Network, entries: Iterable[tuple[str, Iterable[str]]], note: str) -> str:
    if not note.isprintable():
        raise ValueError("a note is one line of what can be printed")
    lines: Mapping[str, list[str]] = lines_of(network, entries)
    head = f"# {note}\n" if note else ""
    return head + "".join(f"{address} {' '.join(names)}\n" for address, names in lines.items())


def _path(network: Network, source: str) -> str:
    if not _SOURCE.fullmatch(source):
        raise ValueError(f"{source!a} is no source: a letter or digit, then any of those, _.-")
    return f"{network.hosts}/{source}"
