"""docs/guide.md works as it stands: its commands, from the first to the last, on one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.shell_blocks import run

if TYPE_CHECKING:
    from fixtures.host import Host


@pytest.mark.slow
def test_guide(host: Host) -> None:
    # Where the machine has no ping, busybox is one.
    host.run("sh", "-c", "mkdir -p /run/applets; ln -s $(command -v busybox) /run/applets/ping")
    run(host, "guide.md", path="/run/applets")
