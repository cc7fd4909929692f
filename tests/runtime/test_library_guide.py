"""docs/runtime.md: every example runs, in order, as one program."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from fixtures.host import ROOT
from fixtures.leaks import leaks
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Host


def test_examples(host: Host) -> None:
    guide = (ROOT / "docs" / "runtime.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    host.run(CNI_PY, "install", "/opt/cni/bin")
    path = "/etc/cni/net.d/10-bridge.conflist"
    host.run("tee", path, stdin=(ROOT / "conf" / "10-bridge.conflist").read_text())
    host.container("c1")
    done = host.run(sys.executable, "-P", "-", stdin=program)
    said = done.stdout.splitlines()
    assert said[0] == "10.85.0.2/16"
    assert "did you mean containers?; there are: containers" in said
    assert "containers c1 eth0" in said
    assert "given up" not in said
    assert done.stderr == ""
    assert leaks(host) == []
    assert host.files("/var/lib/cni/results") == {}
