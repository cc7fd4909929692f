"""docs/services.md works as it stands: its commands, from the first to the last, on one host."""

from __future__ import annotations

import pytest

from fixtures.host import ROOT, Host
from fixtures.shell_blocks import blocks, run


@pytest.mark.slow
def test_guide(host: Host) -> None:
    assert len(blocks((ROOT / "docs" / "services.md").read_text())) >= 6
    run(host, "services.md", CNI_PATH=str(ROOT / "bin"))
    # What an operator keeps: the node's identity, and the store.
    kept = "rm /var/lib/cni/cni-py/cluster/default.node /run/cni-py/services.db*"
    host.run("sh", "-c", kept)
