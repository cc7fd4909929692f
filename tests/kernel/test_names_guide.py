"""docs/names.md works as it stands: its commands, from the first to the last, on one host."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest

from fixtures.host import ROOT, Host
from fixtures.shell_blocks import blocks, missing

GUIDE = blocks((ROOT / "docs" / "names.md").read_text())


@pytest.mark.slow
def test_guide(host: Host) -> None:
    mark = f"end of {uuid4()}"
    script = "\n".join(f"{one.commands}echo '{mark}'" for one in GUIDE)
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    path = f"{Path(sys.executable).parent}:{system}"
    command = ("bash", "-e", "-c", f"exec 2>&1\n{script}")
    done = host.run(*command, env={"PATH": path, "LC_ALL": "C.UTF-8"}, check=False)
    outputs = done.stdout.split(f"{mark}\n")
    # What did not end is the last.
    last = GUIDE[len(outputs) - 1] if done.status != 0 else GUIDE[-1]
    assert done.status == 0, f"names.md:{last.line}:\n{outputs[-1]}"
    for block, output in zip(GUIDE, outputs, strict=False):
        assert missing(block.answer, output) == [], f"names.md:{block.line}:\n{output}"
