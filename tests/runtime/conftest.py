"""What the runtimes start containers from."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from fixtures.host import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI image archive with busybox in it."""
    path = tmp_path_factory.mktemp("image") / "image.tar"
    subprocess.run([ROOT / "tests" / "tools" / "make-image", path], check=True)
    return path
