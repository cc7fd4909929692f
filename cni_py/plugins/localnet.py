"""From the host's 127.0.0.1 to a container: `route_localnet` on the container's side, and no more.

The parameter lets packets of 127.0.0.0/8 pass an interface in both directions. Those that come in
through it would reach what listens on the host's 127.0.0.1 alone (CVE-2020-8558): they are dropped
before anything else sees them. The interface has the parameter as long as a container needs it:

    /run/cni-py/portmap/localnet/cni0/<key>     one file a container
    /run/cni-py/portmap/localnet/cni0/set       the parameter was 0 before

The guard says the last too, as far as it can: where the files are lost, it tells which interfaces
have the parameter by us.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cni_py.kernel import markers, state_files, sysctl
from cni_py.kernel.lock import on_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FOLDER = "/run/cni-py/portmap/localnet"
_SET = "set"


def allow(interface: str, key: str, guard: Callable[[str], None]) -> None:
    """Let the host reach the container from 127.0.0.0/8 through `interface`.

    `guard` keeps what comes in through it from 127.0.0.0/8. Raises CniError.
    """
    folder = f"{_FOLDER}/{interface}"
    with on_folder(_FOLDER):
        os.makedirs(folder, 0o700, exist_ok=True)
        markers.touch(f"{folder}/{key}")
        is_off = sysctl.read(_key(interface)) != "1"
        if is_off:
            markers.touch(f"{folder}/{_SET}")
        guard(interface)
        if is_off:
            sysctl.write(_key(interface), "1")


def forbid(interface: str, key: str, unguard: Callable[[str], None]) -> None:
    """The container needs it no more; with the last one all is as it was before. Raises CniError.

    The parameter is reset before the guard goes.
    """
    folder = f"{_FOLDER}/{interface}"
    with on_folder(_FOLDER):
        if not os.path.isdir(folder):
            return
        state_files.remove(f"{folder}/{key}")
        if set(os.listdir(folder)) - {_SET}:
            return
        if os.path.exists(f"{folder}/{_SET}"):
            sysctl.write_if_present(_key(interface), "0")
        unguard(interface)
        state_files.remove(f"{folder}/{_SET}")
        os.rmdir(folder)


def forbid_lost(interface: str, unguard: Callable[[str], None], *, was_off: bool) -> None:
    """Put a guarded interface back that no file tells of, and nobody needs. Raises CniError."""
    with on_folder(_FOLDER):
        if os.path.isdir(f"{_FOLDER}/{interface}"):
            return
        if was_off:
            sysctl.write_if_present(_key(interface), "0")
        unguard(interface)


def was_off(interface: str) -> bool:
    """Whether the parameter was 0 before."""
    return os.path.exists(f"{_FOLDER}/{interface}/{_SET}")


def is_allowed(interface: str) -> bool:
    """Whether the interface has the parameter now. Raises KernelError."""
    return sysctl.read(_key(interface)) == "1"


def users() -> Iterator[tuple[str, str]]:
    """The (interface, key) of all that need it."""
    with suppress(FileNotFoundError):
        for interface in sorted(os.listdir(_FOLDER)):
            for key in sorted(os.listdir(f"{_FOLDER}/{interface}")):
                if key != _SET:
                    yield interface, key


def _key(interface: str) -> str:
    return f"net/ipv4/conf/{interface}/route_localnet"
