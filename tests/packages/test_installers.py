"""How people install it: pip from the sdist, pipx from the wheel; and what auditwheel says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fixtures.configs import l3
from fixtures.distributions import Distributions
from fixtures.host import Host

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.packages, pytest.mark.root]


def used(host: Host, cni_py: str, distributions: Distributions, folder: Path) -> None:
    """Version, install, ADD and DEL."""
    said = host.run(cni_py, "--version").stdout
    assert said == f"cni-py, version {distributions.version}\n"
    host.run(cni_py, "install", str(folder))
    host.path = str(folder)
    container = host.container("c1")
    host.add("bridge", l3(), container)
    host.delete("bridge", l3(), container)


def test_pip_from_the_sdist(host: Host, distributions: Distributions, tmp_path: Path) -> None:
    """As pip does it anywhere: it fetches the build system and compiles here."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", str(distributions.sdist)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    used(host, str(python.with_name("cni-py")), distributions, tmp_path / "bin")


def test_pipx(host: Host, distributions: Distributions, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(tmp_path / "commands"),
        "PIPX_MAN_DIR": str(tmp_path / "man"),
    }
    command = [sys.executable, "-m", "pipx", "install", "--quiet", str(distributions.wheel())]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "man" / "man1" / "cni-py.1").exists()
    used(host, str(tmp_path / "commands" / "cni-py"), distributions, tmp_path / "bin")


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_auditwheel_agrees(all_distributions: Distributions, architecture: str) -> None:
    """The tags promise no more than it finds: it knows which C library an executable asks for."""
    wheel = str(all_distributions.wheel(architecture))
    command = [sys.executable, "-m", "auditwheel", "show", "--json", wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["overall_tag"] in (
        f"manylinux_2_5_{architecture}",
        f"manylinux_2_17_{architecture}",
    )
