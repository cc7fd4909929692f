"""DELs that launchers have written down, since nobody was there to carry them out (decision 29).

A file each in a folder that only root sees. Its name is the time and the attachment's hash, its
content what the launcher knew: plugins/launcher.c is the other side.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from . import netns, roots, state_files, sysctl
from .errors import kernel_error
from .lock import take_lock
from .own_folders import require_own

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "/run/cni-py/deferred"

_MAGIC = b"CNID1"
_FIELDS = 7
_NAME = re.compile(r"[0-9]{20}-[0-9a-f]{16}")
_HASH_DIGITS = 16
_FNV_OFFSET, _FNV_PRIME, _FNV_MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


class Deferred(NamedTuple):
    """One of them. `own` and `container` are cookies of namespaces, 0 where there was none."""

    plugin: str
    boot: str
    own: int
    mounts: int
    container: int
    cwd: str
    environ: dict[str, str]
    stdin: bytes

    @property
    def elsewhere(self) -> str:
        """Why it cannot be carried out by this process; `""` where it can."""
        if self.boot != sysctl.boot_id():
            return ""
        if self.own and self.own != netns.cookie():
            return "it was called in another network namespace"
        if self.mounts != roots.mounts():
            return "it was called in another mount namespace"
        return ""


def pending(*, tidy: bool = False) -> list[str]:
    """The names of those that wait, oldest first; `tidy` sets aside what else is there.

    Raises KernelError, and CniError 5 where others can write there.
    """
    require_own()
    try:
        names = os.listdir(FOLDER)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise kernel_error(f"list {FOLDER}", error) from error
    if tidy:
        for name in names:
            if not _NAME.fullmatch(name) and name != state_files.DAMAGED:
                set_aside(name, "its name is none of a deferred DEL")
    return sorted(filter(_NAME.fullmatch, names))


def pending_of(container_id: str, ifname: str) -> list[str]:
    """Those of one attachment, on whatever network. Raises KernelError."""
    if not os.path.exists(FOLDER):
        return []
    key = hash_of(os.fsencode(f"{container_id}/{ifname}"))
    return [name for name in pending() if key_of(name) == key]


def key_of(name: str) -> str:
    """What those of one attachment have in common."""
    return name[-_HASH_DIGITS:]


def seconds_of(name: str) -> float:
    """When it was written down, by CLOCK_BOOTTIME."""
    return int(name.partition("-")[0]) / 1e9


@contextmanager
def claimed(name: str) -> Iterator[Deferred | None]:
    """Let nobody else carry it out while the block runs; None where it has been, or was damaged.

    Raises CniError 11 after 30 s, KernelError, and Interrupted.
    """
    path = f"{FOLDER}/{name}"
    try:
        fd = state_files.opened(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    except state_files.DamagedError as error:
        set_aside(name, str(error))
        yield None
        return
    except OSError as error:
        raise kernel_error(f"open {path}", error) from error
    try:
        take_lock(fd, path)
        yield _read(name)
    finally:
        os.close(fd)


@contextmanager
def in_place(deferred: Deferred) -> Iterator[dict[str, str]]:
    """Be where the launcher was, and give the environment.

    CNI_NETNS is empty in it unless the same namespace is still there. Raises KernelError.
    """
    path = deferred.environ.get("CNI_NETNS", "")
    container = netns.open_netns(path) if path and deferred.container else None
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.isdir(deferred.cwd):
            os.chdir(deferred.cwd)
        if (
            container is not None
            and deferred.boot == sysctl.boot_id()
            and netns.cookie_inside(container) == deferred.container
        ):
            with netns.provided(path, container.fd):
                yield deferred.environ
        else:
            yield {**deferred.environ, "CNI_NETNS": ""}
    finally:
        if container is not None:
            container.close()
        os.fchdir(home)
        os.close(home)


def forget(name: str) -> None:
    """It has been carried out. Raises KernelError."""
    try:
        state_files.remove(f"{FOLDER}/{name}")
    except OSError as error:
        raise kernel_error(f"remove {FOLDER}/{name}", error) from error


def set_aside(name: str, why: str) -> None:
    """It makes no sense: out of the way with it, and say so on stderr."""
    state_files.set_aside(f"{FOLDER}/{name}", why)


def _read(name: str) -> Deferred | None:
    path = f"{FOLDER}/{name}"
    try:
        data = state_files.read(path)
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    if data is None:
        return None
    try:
        return parse(data)
    except ValueError as error:
        set_aside(name, str(error))
        return None


def parse(data: bytes) -> Deferred:
    """Read a file's content. Raises ValueError for what a launcher has not written."""
    if not data.startswith(_MAGIC):
        raise ValueError("it is no deferred DEL")
    *fields, rest = data[len(_MAGIC) :].split(b"\0", _FIELDS)
    block, end, stdin = (b"\0" + rest).partition(b"\0\0")
    if len(fields) != _FIELDS or not end:
        raise ValueError("its beginning is not whole")
    plugin, boot, own, mounts, container, cwd, size = map(os.fsdecode, fields)
    if int(size) != len(stdin):
        raise ValueError(f"its input has {len(stdin)} bytes of {size}")
    # Of a variable that is there twice the first one counts, as for getenv(3).
    variables = reversed(os.fsdecode(block[1:]).split("\0"))
    pairs = (one.split("=", 1) for one in variables if "=" in one[1:])
    environ = {key: value for key, value in pairs if key}
    if environ.get("CNI_COMMAND") != "DEL":
        raise ValueError("its CNI_COMMAND is not DEL")
    return Deferred(plugin, boot, int(own), int(mounts), int(container), cwd, environ, stdin)


def hash_of(data: bytes) -> str:
    """FNV-1a, which the launcher has in three lines."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _FNV_MASK
    return f"{value:016x}"
