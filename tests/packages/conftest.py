"""What users get, built once a run and installed where nothing of the checkout is."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.debian import ARCHIVE, DebianHost
from fixtures.distributions import NATIVE, Distributions, build_once

if TYPE_CHECKING:
    from collections.abc import Iterator


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
def all_distributions(shared: Path) -> Distributions:
    """The sdist, and the wheels for all architectures."""
    return Distributions(build_once(shared, "all", "dist"))


@pytest.fixture(scope="session")
def packages(shared: Path, request: pytest.FixtureRequest) -> Distributions:
    """The same with the Debian packages; or what is in the folder `CNI_PY_DIST`."""
    if given := os.environ.get("CNI_PY_DIST"):
        return Distributions(Path(given).absolute())
    wheels: Distributions = request.getfixturevalue("all_distributions")
    return Distributions(build_once(shared, "packages", "deb", before=wheels.folder))


@pytest.fixture(scope="session")
def debian_root(shared: Path) -> Path:
    """A root file system of Debian, which tests look at through layers of their own."""
    assert ARCHIVE.exists(), f"no {ARCHIVE}: `make test-packages` makes it"
    folder = shared / "debian"
    with (shared / "debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = shared / "debian.new"
            new.mkdir()
            subprocess.run(["tar", "-xf", str(ARCHIVE), "-C", str(new)], check=True)
            new.rename(folder)
    return folder


@pytest.fixture
def debian(debian_root: Path, packages: Distributions) -> Iterator[DebianHost]:
    """A host with Debian, and the packages of this run in /packages."""
    host = DebianHost(debian_root, packages.folder)
    yield host
    host.close()


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
