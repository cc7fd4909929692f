"""containerd's own hands: `ctr run --cni` gives containers a network by our executables."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from tools.containerd import Containerd

from fixtures.host import BIN, ROOT, Host
from fixtures.leaks import leaks

pytestmark = pytest.mark.root


@pytest.fixture
def daemon(host: Host, tmp_path: Path, image: Path) -> Containerd:
    """A containerd in the host, with conf/10-bridge.conflist and our executables."""
    conf = tmp_path / "net.d"
    conf.mkdir()
    shutil.copy(ROOT / "conf" / "10-bridge.conflist", conf)
    # Sockets lie below it, and a socket's path has little room.
    with (
        tempfile.TemporaryDirectory(prefix="ctr") as scratch,
        Containerd(
            host.prefix, scratch=Path(scratch), bin_dir=BIN, conf_dir=conf, image=image
        ) as started,
    ):
        yield started


def test_containers_get_addresses_and_reach_each_other(host: Host, daemon: Containerd) -> None:
    daemon.run("first", "sleep", "1000")
    daemon.run("second", "sleep", "1000")
    shown = {name: daemon.exec(name, "ip", "addr", "show", "eth0") for name in ("first", "second")}
    addresses = {name: text.split("inet ")[1].split("/")[0] for name, text in shown.items()}
    assert set(addresses.values()) == {"10.85.0.2", "10.85.0.3"}
    assert "1 packets received" in daemon.exec("first", "ping", "-c", "1", addresses["second"])
    assert len(host.ports()) == 2
    daemon.remove("first")
    daemon.remove("second")
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)


def test_container_that_ends_by_itself(host: Host, daemon: Containerd) -> None:
    """Its namespace is gone when DEL comes, with an empty CNI_NETNS."""
    daemon.run("short", "sh", "-c", "ip addr show eth0")
    daemon.remove("short")
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)


def test_same_name_again(host: Host, daemon: Containerd) -> None:
    """A container is made anew under its old id, without a DEL of the first (`ctr run -d`)."""
    daemon.run("again", "sleep", "1000", detached=True)
    daemon.remove("again")
    daemon.run("again", "sleep", "1000")
    assert "inet 10.85.0." in daemon.exec("again", "ip", "addr", "show", "eth0")
    daemon.remove("again")
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)
