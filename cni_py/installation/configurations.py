"""A network's configuration, for the folder in which runtimes look."""

from __future__ import annotations

import os

from .asked import InstallationError, Wanted
from .package import conf

NET_DIR = "/etc/cni/net.d"
_SUFFIX = ".conflist"
# At most and at least: one that only its owner may read, for a secret in it, stays so.
_MOST, _LEAST = 0o644, 0o600


def source(given: str) -> str:
    """The file that is meant by a path, or by the name of one of the package's examples.

    Raises InstallationError.
    """
    if "/" not in given and not os.path.exists(given):
        name = given if given.endswith(_SUFFIX) else given + _SUFFIX
        path = conf() / name
        if not path.is_file():
            known = ", ".join(sorted(one.stem for one in conf().glob(f"*{_SUFFIX}")))
            raise InstallationError(f"there is no file {given}, nor an example: {known}")
        return str(path)
    if not given.endswith(_SUFFIX):
        raise InstallationError(f"{given} does not end in {_SUFFIX}: a list of plugins is needed")
    return given


def configuration(path: str) -> Wanted:
    """The file as it comes into /etc/cni/net.d. Raises OSError."""
    with open(path, "rb") as file:
        content = file.read()
        mode = os.fstat(file.fileno()).st_mode & _MOST | _LEAST
    return Wanted(f"{NET_DIR}/{os.path.basename(path)}", content, mode, "configuration")
