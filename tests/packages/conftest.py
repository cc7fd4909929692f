"""What users get, built once a run and installed where nothing of the checkout is."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fixtures.distributions import NATIVE, Distributions, build_once

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def distributions(shared: Path) -> Distributions:
    """The sdist, and the wheel for this machine."""
    return Distributions(build_once(shared, "distributions", "dist", NATIVE))


@pytest.fixture(scope="session")
def fresh_venv(shared: Path, distributions: Distributions) -> Path:
    """A virtual environment with the wheel, and its dependencies as pip chooses them."""
    venv = shared / "fresh-venv"
    with (shared / "fresh-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not venv.exists():
            # Its scripts name their folder, so a link is what says that it is whole.
            python, pip = f"{venv}.new/bin/python", [sys.executable, "-m", "pip"]
            subprocess.run(
                [sys.executable, "-m", "venv", "--without-pip", f"{venv}.new"], check=True
            )
            install = ["--python", python, "install", "--quiet", "--no-compile"]
            wheel = str(distributions.wheel())
            subprocess.run([*pip, *install, wheel], check=True, capture_output=True)
            venv.symlink_to(f"{venv}.new")
    return venv.resolve()
