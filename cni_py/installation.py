"""Installing the executables: one file a plugin, started without the interpreter's site set-up.

`-I` keeps the runtime's environment and working directory out of the module search, `-S` leaves
site-packages and its `.pth` files out; so each executable names the few folders that it needs.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from .ipam.delegation import MARKER, is_ours
from .skel import EXECUTABLES

REQUIRED_PACKAGES = ("cni_py", "msgspec", "pyroute2", "nftables")

_PATH_LINE = "sys.path[:0] = []\n"
_MAX_SHEBANG_BYTES = 127

# The Python executables' place beside the launchers, which find it in themselves.
_PYTHON_FOLDER = ".cni-py"
_FOLDER_MARK = b"@cni-py executables@"
_FOLDER_BYTES = 512


def install_executables(folder: Path, *, launcher_only: bool = False) -> list[Path]:
    """Write every plugin's executable into `folder`, each replaced atomically.

    A compiled launcher gets the plugins' names, and the Python executables go into a folder beside
    it, for when no server listens; without a launcher they get the names themselves. With
    `launcher_only` there are none behind the launcher: for a node without Python, whose server is
    in a container. Returns the plugins' files. Raises OSError, and ValueError for an interpreter or
    a folder that cannot be named where it has to be, or for want of a launcher.
    """
    folder = folder.absolute()
    launcher = launcher_program()
    if launcher_only:
        return _install_launcher_only(folder, launcher)
    python_folder = folder if launcher is None else folder / _PYTHON_FOLDER
    python_folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(_sources().iterdir())
    scripts = [one for one in sources if one.is_file() and one.suffix == ""]
    installed = [_install_script(one, python_folder) for one in scripts]
    if launcher is None:
        return installed
    program = _launcher_for(launcher, os.fsencode(python_folder))
    return [_replace(folder / one.name, program) for one in scripts]


def _install_launcher_only(folder: Path, launcher: Path | None) -> list[Path]:
    if launcher is None:
        raise ValueError("this cni-py was built without the launcher: it needs a C compiler")
    folder.mkdir(parents=True, exist_ok=True)
    program = _launcher_for(launcher, b"")
    installed = [_replace(folder / name, program) for name in EXECUTABLES]
    behind = folder / _PYTHON_FOLDER
    for path in (behind / name for name in EXECUTABLES):
        if is_ours(str(path)):
            path.unlink(missing_ok=True)
    if behind.is_dir() and not any(behind.iterdir()):
        behind.rmdir()
    return installed


def uninstall_executables(folder: Path) -> list[Path]:
    """Remove every plugin's executable that is ours from `folder`, and the folder beside them.

    Returns what is gone. Raises OSError; without the folder there is nothing to do.
    """
    folder = folder.absolute()
    behind = folder / _PYTHON_FOLDER
    # A call that finds a launcher needs what is behind it, which goes last.
    own = [one / name for one in (folder, behind) for name in EXECUTABLES]
    gone = [path for path in own if is_ours(str(path))]
    for path in gone:
        path.unlink(missing_ok=True)
    if behind.is_dir() and not any(behind.iterdir()):
        behind.rmdir()
    return gone


def launcher_program() -> Path | None:
    """The compiled launcher; None where the package was built without a C compiler."""
    path = Path(__file__).resolve().parent / "executables" / "cni-py-launcher"
    return path if path.is_file() else None


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


def _install_script(source: Path, folder: Path) -> Path:
    shebang = f"#!{sys.executable} -IS\n"
    if " " in sys.executable or len(os.fsencode(shebang)) > _MAX_SHEBANG_BYTES:
        msg = f"{sys.executable} has a blank or is too long for a script's first line"
        raise ValueError(msg)
    first, _, rest = source.read_text().partition("\n")
    if not first.startswith("#!") or _PATH_LINE not in rest:
        raise ValueError(f"{source} is not an executable of cni-py")
    text = shebang + rest.replace(_PATH_LINE, f"sys.path[:0] = {search_path()!r}\n")
    return _replace(folder / source.name, text.encode())


def _launcher_for(launcher: Path, folder: bytes) -> bytes:
    """The launcher with the folder written into it, and the mark of our executables at its end.

    Without a folder it has no Python executables to go to.
    """
    if len(folder) >= _FOLDER_BYTES:
        raise ValueError(f"{os.fsdecode(folder)} is too long a path for the launcher")
    program = launcher.read_bytes()
    start = program.index(_FOLDER_MARK)
    field = folder.ljust(_FOLDER_BYTES, b"\0")
    return program[:start] + field + program[start + _FOLDER_BYTES :] + b"\n" + MARKER + b"\n"


def _replace(target: Path, content: bytes) -> Path:
    new = target.with_name(f".{target.name}.new")
    new.write_bytes(content)
    new.chmod(0o755)
    new.replace(target)
    return target
