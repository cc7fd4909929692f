"""A network's names on this host: who answers for them, and where what he answers is kept.

    /run/cni-py/dns/web/network.json     what the server was told
    /run/cni-py/dns/web/dnsmasq.conf     the same for dnsmasq
    /run/cni-py/dns/web/dnsmasq.pid      written by dnsmasq
    /run/cni-py/dns/web/hosts/           watched by it: a file a source, in the form of hosts(5)

All of it goes when the last container has gone, and with a reboot.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import state_files
from cni_py.kernel.errors import kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "/run/cni-py/dns"
# The way to the watched folder for dnsmasq's own user, who can list nothing on it.
_WAY_MODE, _WATCHED_MODE = 0o711, 0o755
_PERMISSIONS = 0o777


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """One network that has names on this host."""

    name: str
    """The network's name."""
    domain: str
    """The domain of its names."""
    addresses: tuple[str, ...]
    """Where the server listens, at port 53: addresses of this host on the network."""
    subnets: tuple[str, ...] = ()
    """The subnets of the network: reverse names of these are answered here alone."""
    upstream: tuple[str, ...] | None = None
    """Whom other names are asked of: none for the host's resolvers, empty for nobody."""
    ttl: int = 0
    """For how many seconds an answer may be kept."""
    cookie: int | None = None
    """The network namespace that the server is in."""
    boot: str = ""
    """The boot that it is of."""

    @property
    def folder(self) -> str:
        """Where all of it is kept."""
        return folder_of(self.name)

    @property
    def hosts(self) -> str:
        """The folder that dnsmasq watches."""
        return f"{self.folder}/hosts"


def folder_of(network: str) -> str:
    """Where what belongs to a network's names is kept."""
    return f"{FOLDER}/{network}"


def networks() -> list[Network]:
    """The networks that have names on this host, by name. Raises KernelError."""
    return list(_networks())


def load(name: str) -> Network | None:
    """One of them; None where it has none, or what was kept is damaged. Raises KernelError."""
    path = _path(name)
    try:
        found = state_files.load(path, Network)
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    return found if found is not None and found.name == name else None


def save(network: Network) -> None:
    """Keep what the network's server is told. Raises KernelError."""
    state_files.save(_path(network.name), msgspec.json.encode(network))


def make_way(network: Network, *, new: bool = True) -> None:
    """Let dnsmasq's user through to the folder that it watches; make all that is missing.

    Where it is not `new`, nothing is made. What is above may have been closed since, as by
    systemd-tmpfiles. Raises KernelError.
    """
    above = os.path.dirname(FOLDER)
    try:
        for path in (above, FOLDER, network.folder, network.hosts):
            mode = _WATCHED_MODE if path == network.hosts else _WAY_MODE
            with suppress(FileExistsError):
                if new:
                    os.mkdir(path, mode)
            have = os.stat(path).st_mode & _PERMISSIONS
            if have & mode != mode:
                os.chmod(path, have | mode)
    except OSError as error:
        raise kernel_error(f"make {network.hosts}", error) from error


def _networks() -> Iterator[Network]:
    try:
        names = sorted(os.listdir(FOLDER))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise kernel_error(f"list {FOLDER}", error) from error
    for name in names:
        found = load(name)
        if found is not None:
            yield found


def _path(name: str) -> str:
    return f"{folder_of(name)}/network.json"
