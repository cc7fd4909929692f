"""docs/services.md works as it stands: its commands, from the first to the last, on one host."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest

from fixtures.host import ROOT, Host
from fixtures.shell_blocks import blocks, missing

GUIDE = blocks((ROOT / "docs" / "services.md").read_text())


@pytest.mark.slow
def test_guide(host: Host) -> None:
    mark = f"end of {uuid4()}"
    script = "\n".join(f"{one.commands}echo '{mark}'" for one in GUIDE)
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ("bash", "-e", "-c", f"exec 2>&1\n{script}")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{system}",
        "CNI_PATH": str(ROOT / "bin"),
        "LC_ALL": "C.UTF-8",
    }
    done = host.run(*command, env=environment, check=False)
    outputs = done.stdout.split(f"{mark}\n")
    last = GUIDE[len(outputs) - 1] if done.status != 0 else GUIDE[-1]
    assert done.status == 0, f"services.md:{last.line}:\n{outputs[-1]}"
    assert len(GUIDE) >= 6
    # What an operator keeps: the node's identity, and the store.
    kept = "rm /var/lib/cni/cni-py/cluster/default.node /run/cni-py/services.db*"
    host.run("sh", "-c", kept)
    for block, output in zip(GUIDE, outputs, strict=False):
        assert missing(block.answer, output) == [], f"services.md:{block.line}:\n{output}"
