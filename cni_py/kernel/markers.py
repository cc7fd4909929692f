"""Empty files that say something by being there, or by the lock on them."""

from __future__ import annotations

import errno
import os

from . import state_files

_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What open(2) says of a link, a folder, a socket.
_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})


def opened(path: str) -> int:
    """Open the file, which is made; what is no file there goes, as it can have said nothing.

    Never follows a link, never waits for a fifo's writer. Raises OSError.
    """
    try:
        return os.open(path, _FLAGS, 0o600)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
    state_files.remove(path)
    return os.open(path, _FLAGS, 0o600)


def touch(path: str) -> None:
    """Make the file. Raises OSError."""
    os.close(opened(path))
