"""Files that are whole or not there, also after a loss of power, and that can be put back."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from hashlib import file_digest, sha256

from cni_py.kernel import state_files

_FOLDER_MODE = 0o755
# File systems that have no hard links, or none from here to there.
_NO_LINK = frozenset({
    errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES,
})  # fmt: skip


def digest(path: str) -> str:
    """What tells a file's content from another's, also a link's; `""` without one.

    Raises OSError, IsADirectoryError for a folder.
    """
    try:
        if os.path.islink(path):
            return "link:" + sha256(os.fsencode(os.readlink(path))).hexdigest()
        with open(path, "rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def unfinished(path: str) -> str:
    """What a file is called until it is whole: no runtime reads one of that name."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}{state_files.NEW}")


def prepare(path: str, content: bytes, mode: int) -> None:
    """Write what `path` is to have under its unfinished name; it is on the disk. Raises OSError."""
    spare = unfinished(path)
    state_files.remove(spare)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(spare, flags, mode)
        try:
            while content:
                content = content[os.write(fd, content) :]
            # The umask is not asked: who may read it is a part of what is installed.
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        with suppress(OSError):
            state_files.remove(spare)
        # write(2) and fsync(2) know no name.
        raise OSError(error.errno, error.strerror, path) from error


def finish(path: str) -> None:
    """Give what was prepared its name. Raises OSError."""
    os.replace(unfinished(path), path)


def put(path: str, content: bytes, mode: int) -> None:
    """Write a file in place of another, to be on the disk when this returns. Raises OSError."""
    prepare(path, content, mode)
    finish(path)
    sync(os.path.dirname(path))


def keep(path: str, aside: str) -> None:
    """Have what is at `path` also at `aside`: the file itself where that can be. Raises OSError."""
    folder = os.path.dirname(aside)
    os.makedirs(folder, 0o700, exist_ok=True)
    if os.path.lexists(aside) and os.path.samestat(os.lstat(path), os.lstat(aside)):
        return
    spare = unfinished(aside)
    state_files.remove(spare)
    try:
        os.link(path, spare, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(path, spare)
    os.replace(spare, aside)
    sync(folder)


def put_back(aside: str, path: str) -> None:
    """Give what was kept its place again. Raises OSError."""
    try:
        os.replace(aside, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        spare = unfinished(path)
        state_files.remove(spare)
        _copy(aside, spare)
        os.replace(spare, path)
        sync(os.path.dirname(path))
        os.unlink(aside)


def make_folders(path: str) -> list[str]:
    """Make a folder of mode 0755 and those above it; those that were made. Raises OSError."""
    made: list[str] = []
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    try:
        for one in reversed(missing):
            try:
                os.mkdir(one)
            except FileExistsError as error:
                if not os.path.isdir(one):
                    raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", one) from error
                # Another installation was faster.
                continue
            made.append(one)
            os.chmod(one, _FOLDER_MODE)
            sync(os.path.dirname(one))
    except OSError:
        drop_folders(made)
        raise
    return made


def drop_folders(paths: list[str]) -> None:
    """Remove those of the folders that are empty; `paths` has the outermost first."""
    for one in reversed(paths):
        try:
            os.rmdir(one)
        except OSError:
            # Somebody has put something into it, or removed it.
            continue


def sync(folder: str) -> None:
    """Have the folder's names on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy(source: str, target: str) -> None:
    """A copy with owner, mode, times and extended attributes."""
    status = os.lstat(source)
    shutil.copyfile(source, target, follow_symlinks=False)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
