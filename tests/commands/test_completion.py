"""`cni-py completion`: what a real bash completes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.host import ROOT
from fixtures.server import CNI_PY

# Completes a line as readline does, and prints what is offered.
COMPLETE = """
eval "$(cni-py completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_cni_py_completion cni-py "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str, **environ: str) -> list[str]:
    path = f"{Path(CNI_PY).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "cni-py", *words],
        env=os.environ | {"PATH": path} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options() -> None:
    assert completed("li") == ["lint"]
    assert {"add", "completion", "lint", "show"} <= set(completed(""))
    assert completed("lint", "--off") == ["--offline"]
    assert completed("completion", "z") == ["zsh"]


def test_networks(tmp_path: Path) -> None:
    """Those of NETCONFPATH, or of --net-dir where the line has it."""
    shutil.copy(ROOT / "conf" / "12-full.conflist", tmp_path)
    shutil.copy(ROOT / "conf" / "30-static.conflist", tmp_path)
    (tmp_path / "99-broken.conflist").write_text("{")
    assert completed("add", "f", NETCONFPATH=str(tmp_path)) == ["full", "fixed"]
    assert completed("del", "--net-dir", str(tmp_path), "fu") == ["full"]
    assert completed("show", "--network", "fi", NETCONFPATH=str(tmp_path)) == ["fixed"]
    assert completed("add", "f", NETCONFPATH=f"{tmp_path}/none") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    """Each is one its shell can read, where there is that shell."""
    script = subprocess.run(
        [CNI_PY, "completion", shell], capture_output=True, text=True, check=True
    ).stdout
    assert f"_CNI_PY_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
