"""What comes with the package, or lies beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def launcher_program() -> Path | None:
    """The compiled launcher; None where the package was built without a C compiler."""
    path = _PACKAGE / "executables" / "cni-py-launcher"
    return path if path.is_file() else None


def plugins() -> Path:
    """The folder of the Python executables, whose first lines are filled in."""
    installed = _PACKAGE / "executables" / "plugins"
    return installed if installed.is_dir() else _PACKAGE.parent / "plugins"


def conf() -> Path:
    """The folder of example configurations and of systemd's units."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"
