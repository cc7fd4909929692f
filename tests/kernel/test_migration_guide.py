"""docs/migration.md works as it stands, from each release of the reference that is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.reference import folders
from fixtures.shell_blocks import run

if TYPE_CHECKING:
    from fixtures.host import Host


@pytest.mark.slow
@pytest.mark.parametrize("folder", folders("bridge"))
def test_guide(host: Host, folder: str) -> None:
    # Where the machine has no ping, busybox is one.
    host.run("sh", "-c", "mkdir -p /run/applets; ln -s $(command -v busybox) /run/applets/ping")
    run(host, "migration.md", path="/run/applets", REFERENCE=folder)
