"""The executables, and the launcher in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.installation import launcher_program
from cni_py.ipam.delegation import is_ours
from cni_py.skel import EXECUTABLES

from .finding import broken, fine, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding


def examine(places: Places) -> Iterator[Finding]:
    """Look at each executable of the folder."""
    folder = places.folder
    for name in EXECUTABLES:
        path = folder / name
        if not path.exists():
            yield look(f"{path} is missing", f"cni-py install {folder}")
        elif not is_ours(str(path)):
            yield look(f"{path} is not cni-py's", f"cni-py install {folder}")
        elif not os.access(path, os.X_OK):
            yield broken(f"{path} is not executable", f"chmod 755 {path}")
        else:
            yield fine(f"{path} is cni-py's")
    if launcher_program() is not None:
        yield fine("the launcher is compiled")
    else:
        remedy = "install a C compiler and cni-py again: without a launcher calls cannot use "
        yield look("the package was built without the launcher", f"{remedy}the server")
