"""Folders that only their owner may change, whoever was there first and whatever the umask is."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Sequence

# What records, locks and sockets are below. Who may change one of these is root to the plugins.
STATE = ("/run/cni-py", "/var/lib/cni/cni-py")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def limit_umask() -> None:
    """Let nobody else write to what this process makes, and its owner always read and write it.

    The folders above one that is made have no mode but what the umask leaves (os.makedirs).
    """
    given = os.umask(_OTHERS_WRITE)
    os.umask((given | _OTHERS_WRITE) & (stat.S_IRWXG | stat.S_IRWXO))


def require_own(paths: Sequence[str] = STATE) -> None:
    """Refuse to work with a folder that somebody else can change. Raises CniError 5.

    What is below would be theirs too, so it cannot be mended by changing the folder alone. A folder
    that is not there is made later.
    """
    for path in paths:
        problem = not_own(path)
        if problem:
            details = f"look at what is in it, then remove it, or: chown root:root {path}; "
            details += f"chmod 755 {path}"
            raise CniError(Code.IO_FAILURE, f"{path} {problem}", details)


def not_own(path: str) -> str:
    """Why the folder is not the owner's alone; `""` where it is, or is not there.

    One of another user that this process cannot change is no way for that user to it.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return ""
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid not in (0, os.geteuid()) and os.access(path, os.W_OK):
        return f"belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS_WRITE:
        return f"can be written by others: its mode is {stat.S_IMODE(status.st_mode):04o}"
    return ""
