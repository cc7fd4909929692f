"""Installing the executables: one file a plugin, started without the interpreter's site set-up.

`-I` keeps the runtime's environment and working directory out of the module search, `-S` leaves
site-packages and its `.pth` files out; so each executable names the few folders that it needs.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

REQUIRED_PACKAGES = ("cni_py", "msgspec", "pyroute2", "nftables")

_PATH_LINE = "sys.path[:0] = []\n"
_MAX_SHEBANG_BYTES = 127


def install_executables(folder: Path) -> list[Path]:
    """Write every plugin's executable into `folder`, each replaced atomically.

    Returns the files. Raises OSError, and ValueError for an interpreter that cannot be named in a
    script's first line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(path for path in _sources().iterdir() if path.is_file())
    return [_install(source, folder) for source in sources if source.suffix == ""]


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


def _sources() -> Path:
    """The executables as they come with the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "executables" / "plugins"
    return installed if installed.is_dir() else package.parent / "plugins"


def _install(source: Path, folder: Path) -> Path:
    shebang = f"#!{sys.executable} -IS\n"
    if " " in sys.executable or len(os.fsencode(shebang)) > _MAX_SHEBANG_BYTES:
        msg = f"{sys.executable} has a blank or is too long for a script's first line"
        raise ValueError(msg)
    first, _, rest = source.read_text().partition("\n")
    if not first.startswith("#!") or _PATH_LINE not in rest:
        raise ValueError(f"{source} is not an executable of cni-py")
    text = shebang + rest.replace(_PATH_LINE, f"sys.path[:0] = {search_path()!r}\n")
    target = folder / source.name
    new = folder / f".{source.name}.new"
    new.write_text(text)
    new.chmod(0o755)
    new.replace(target)
    return target
