"""The executables: one file a plugin, started without the interpreter's site set-up.

`-I` keeps the runtime's environment and working directory out of the module search, `-S` leaves
site-packages and its `.pth` files out; so each executable names the few folders that it needs.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cni_py.ipam.delegation import MARKER
from cni_py.skel import EXECUTABLES

from .asked import InstallationError, Wanted
from .machines import require_machine
from .package import launcher_program, plugins
from .record import BESIDE

if TYPE_CHECKING:
    from .root import Root

REQUIRED_PACKAGES = ("cni_py", "msgspec", "pyroute2", "nftables")

_MODE = 0o755
_PATH_LINE = "sys.path[:0] = []\n"
_MAX_SHEBANG_BYTES = 127

# The Python executables' place, which a launcher finds in itself.
_FOLDER_MARK = b"@cni-py executables@"
_FOLDER_BYTES = 512


def executables(folder: str, root: Root, *, launcher_only: bool = False) -> list[Wanted]:
    """Every plugin's executable, in the order in which they can be replaced while calls come.

    A compiled launcher gets the plugins' names, and the Python executables go into a folder beside
    it, for when no server listens; without a launcher they get the names too. With `launcher_only`
    there are none behind the launcher: for a node without Python, whose server is in a container.
    Raises InstallationError.
    """
    launcher = launcher_program()
    if launcher_only:
        if launcher is None:
            raise InstallationError(
                "this cni-py was built without the launcher: install a C compiler and cni-py again"
            )
        program = _launcher_for(launcher, b"", root)
        return [_executable(f"{folder}/{name}", program) for name in EXECUTABLES]
    behind = f"{folder}/{BESIDE}"
    scripts = {name: _script(name, root) for name in EXECUTABLES}
    named = scripts
    if launcher is not None:
        named = dict.fromkeys(EXECUTABLES, _launcher_for(launcher, os.fsencode(behind), root))
    # Those behind the launcher come first: an old launcher finds a new one there, and the other
    # way round.
    return [
        _executable(f"{place}/{name}", content[name])
        for place, content in ((behind, scripts), (folder, named))
        for name in EXECUTABLES
    ]


def names(folder: str) -> set[str]:
    """The paths that an executable of ours can have."""
    return {f"{place}/{name}" for place in (folder, f"{folder}/{BESIDE}") for name in EXECUTABLES}


def interpreter(root: Root) -> str:
    """The interpreter that runs now, as it is called in the root. Raises InstallationError."""
    return _inside(sys.executable, root)


def search_path() -> list[str]:
    """The folders that hold `REQUIRED_PACKAGES`, each once."""
    folders: dict[str, None] = {}
    for name in REQUIRED_PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
        origin = Path(spec.origin).resolve()
        folders[str(origin.parents[1] if origin.name == "__init__.py" else origin.parent)] = None
    return list(folders)


def _inside(path: str, root: Root) -> str:
    inside = root.inside(path)
    if not root.is_own and not os.path.exists(root.followed(inside)):
        raise InstallationError(
            f"{root.folder} has no {inside}: install cni-py into it first, and run that cni-py, "
            "or take --launcher-only"
        )
    return inside


def _script(name: str, root: Root) -> bytes:
    python = interpreter(root)
    shebang = f"#!{python} -IS\n"
    if " " in python or len(os.fsencode(shebang)) > _MAX_SHEBANG_BYTES:
        msg = f"{python} has a blank or is too long for a script's first line"
        raise InstallationError(f"{msg}: move cni-py's virtual environment")
    first, _, rest = (plugins() / name).read_text().partition("\n")
    if not first.startswith("#!") or _PATH_LINE not in rest:
        raise InstallationError(f"the package's {name} is no executable of cni-py: install it anew")
    folders = [_inside(one, root) for one in search_path()]
    return (shebang + rest.replace(_PATH_LINE, f"sys.path[:0] = {folders!r}\n")).encode()


def _launcher_for(launcher: Path, folder: bytes, root: Root) -> bytes:
    """The launcher with the folder written into it, and the mark of our executables at its end.

    Without a folder it has no Python executables to go to.
    """
    if len(folder) >= _FOLDER_BYTES:
        raise InstallationError(f"{os.fsdecode(folder)} is too long a path for the launcher")
    program = launcher.read_bytes()
    require_machine(program, root)
    start = program.index(_FOLDER_MARK)
    field = folder.ljust(_FOLDER_BYTES, b"\0")
    return program[:start] + field + program[start + _FOLDER_BYTES :] + b"\n" + MARKER + b"\n"


def _executable(path: str, content: bytes) -> Wanted:
    return Wanted(path, content, _MODE, "executable")
