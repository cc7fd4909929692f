"""docs/migration.md works as it stands, from each release of the reference that is at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest

from fixtures.host import ROOT, Host
from fixtures.reference import folders
from fixtures.shell_blocks import blocks, missing

GUIDE = blocks((ROOT / "docs" / "migration.md").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("folder", folders("bridge"))
def test_guide(host: Host, folder: str) -> None:
    mark = f"end of {uuid4()}"
    script = "\n".join(f"{one.commands}echo '{mark}'" for one in GUIDE)
    # Where the machine has no ping, busybox is one.
    host.run("sh", "-c", "mkdir -p /run/applets; ln -s $(command -v busybox) /run/applets/ping")
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    path = f"{Path(sys.executable).parent}:{system}:/run/applets"
    command = ("bash", "-e", "-c", f"exec 2>&1\n{script}")
    env = {"PATH": path, "LC_ALL": "C.UTF-8", "REFERENCE": folder}
    done = host.run(*command, env=env, check=False)
    outputs = done.stdout.split(f"{mark}\n")
    # What did not end is the last.
    last = GUIDE[len(outputs) - 1] if done.status != 0 else GUIDE[-1]
    assert done.status == 0, f"migration.md:{last.line}:\n{outputs[-1]}"
    for block, output in zip(GUIDE, outputs, strict=False):
        assert missing(block.answer, output) == [], f"migration.md:{block.line}:\n{output}"
