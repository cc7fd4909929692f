"""What the machine refuses, with what to do about it."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .asked import InstallationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENFORCING = "/sys/fs/selinux/enforce"
# The second one is what kernels before 5.8 have; SELinux has its label there.
_PROFILES = ("/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM})


@contextmanager
def explaining(folder: str) -> Iterator[None]:
    """Make an InstallationError of what the block is refused; `folder` is installed into."""
    try:
        yield
    except OSError as error:
        raise InstallationError(_explained(error, folder)) from error


def _explained(error: OSError, folder: str) -> str:
    path = os.fsdecode(error.filename or folder)
    said = f"{path}: {error.strerror}"
    if error.errno == errno.EROFS:
        return (
            f"{said}: mount it writable, or, where the distribution keeps it read-only, install "
            "into another folder, such as `cni-py install /var/lib/cni/bin`, and name that one to "
            "the runtime: `bin_dir` or `bin_dirs` of containerd's CNI section, `plugin_dirs` of "
            "CRI-O, `cni_plugin_dirs` of podman"
        )
    if error.errno in _NO_ROOM:
        return f"{said}: make room and repeat it; until then calls go on with what is there"
    if error.errno in _DENIED:
        return f"{said}: {_who_denies(path)}"
    return said


def _who_denies(path: str) -> str:
    if os.geteuid() != 0:
        return "try again with sudo"
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    found = []
    if _content(_ENFORCING) == "1":
        found.append(
            "SELinux is enforcing: `ausearch -m AVC -ts recent` shows what it denies, "
            f"`restorecon -Rv {folder}` gives the folder its label"
        )
    profile = next(filter(None, map(_content, _PROFILES)), "") if not found else ""
    if profile and not profile.startswith("unconfined"):
        found.append(
            f"this process is confined by the AppArmor profile {profile}: `journalctl -k -g "
            "apparmor=.DENIED` shows what it denies"
        )
    if found:
        return "; ".join(found)
    return (
        "root may do that, so something else denies it: see `lsattr -d`, how it is mounted, and "
        "whether this is a container; for SELinux `ausearch -m AVC -ts recent` and "
        f"`ls -Zd {folder}`, for AppArmor `journalctl -k -g apparmor=.DENIED`"
    )


def _content(path: str) -> str:
    with suppress(OSError), open(path) as file:
        return file.read().strip("\0\n ")
    return ""
