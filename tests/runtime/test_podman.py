"""podman's CNI backend: a chain as podman users have it, run by our executables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tools.podman import Podman

from fixtures.host import ROOT, Host
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

NETWORK = "containers"


@pytest.fixture
def podman(host: Host, image: Path) -> Podman:
    """podman with conf/10-bridge.conflist."""
    text = (ROOT / "conf" / "10-bridge.conflist").read_text()
    host.run("sh", "-c", "cat > /etc/cni/net.d/10-bridge.conflist", stdin=text)
    return Podman(host, image)


def test_containers_reach_each_other(host: Host, podman: Podman) -> None:
    podman.run("first", "sleep", "1000", network=NETWORK)
    podman.run("second", "sleep", "1000", network=NETWORK)
    address = podman.address("second", NETWORK)
    assert "1 packets received" in podman.exec("first", "ping", "-c", "1", address)
    for name in ("first", "second"):
        podman.remove(name)
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)
