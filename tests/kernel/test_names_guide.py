"""docs/names.md works as it stands: its commands, from the first to the last, on one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.shell_blocks import run

if TYPE_CHECKING:
    from fixtures.host import Host


@pytest.mark.slow
def test_guide(host: Host) -> None:
    run(host, "names.md")
