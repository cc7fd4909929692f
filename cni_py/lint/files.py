"""The files to look at."""

from __future__ import annotations

import errno
import os
import stat
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from contextlib import suppress
from typing import NamedTuple

from cni_py.runtime.folders import EXTENSIONS
from cni_py.spec import located
from cni_py.spec.limits import MOST_INPUT_BYTES

# Bytes: a binary file has a NUL in them.
_LOOKED_AT = 1024


class File(NamedTuple):
    """A file as it was read. `beside` are those of its folder that are only compared with."""

    name: str
    parsed: located.Parsed
    is_asked: bool = True

    @property
    def extension(self) -> str:
        """`.conflist`, `.conf`, ..., `""` for standard input."""
        return os.path.splitext(self.name)[1]


def collect(paths: list[str]) -> tuple[list[File], list[str]]:
    """The files, in their order, a folder's own sorted as runtimes do; and what cannot be read.

    `-` is standard input. The other configurations of a file's folder come along to be compared
    with, where they can be read.
    """
    files: dict[str, File] = {}
    unreadable = []
    for path in paths:
        try:
            listed = _listed(path) if path != "-" and os.path.isdir(path) else [path]
        except OSError as error:
            unreadable.append(f"{path}: {error.strerror}")
            continue
        for one in listed:
            try:
                files.setdefault(one, standard_input() if one == "-" else read_file(one))
            except OSError as error:
                unreadable.append(f"{one}: {error.strerror}")
    read = {os.path.realpath(one) for one in files if one != "-"}
    for folder in sorted({os.path.dirname(one) or "." for one in files if _is_found(one)}):
        for name in _listed(folder, quiet=True):
            path = os.path.relpath(name) if folder == "." else name
            if os.path.realpath(path) in read:
                continue
            with suppress(OSError):
                files[path] = read_file(path)._replace(is_asked=False)
                read.add(os.path.realpath(path))
    return list(files.values()), unreadable


def standard_input() -> File:
    """What comes on standard input. Raises OSError."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed", "-")
    data = sys.stdin.buffer.read(MOST_INPUT_BYTES + 1)
    return _file("-", data)


def read_file(path: str) -> File:
    """One file; nothing is waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is neither a file nor a folder", path)
        return _file(path, file.read(MOST_INPUT_BYTES + 1))


def _file(name: str, data: bytes) -> File:
    if len(data) > MOST_INPUT_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_INPUT_BYTES} bytes", name)
    if b"\0" in data[:_LOOKED_AT]:
        what = "UTF-16: save it as UTF-8" if data[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "binary"
        raise OSError(errno.EINVAL, f"it is {what}", name)
    return File(name, located.parse(data))


def _listed(folder: str, *, quiet: bool = False) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        if quiet:
            return []
        raise
    paths = (os.path.join(folder, one) for one in sorted(names, key=os.fsencode))
    return [one for one in paths if one.endswith(EXTENSIONS) and os.path.isfile(one)]


def _is_found(path: str) -> bool:
    """Whether a runtime would find a file of that name in its folder."""
    return path != "-" and path.endswith(EXTENSIONS)
