"""Fixtures for every test that touches a kernel."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from fixtures.host import BIN, MODES, Host
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tests fork, and gRPC would start threads of its own in each child unless it hears this before it
# is loaded: a process that has threads may not change its mount namespace.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--served", choices=MODES, default=MODES[0], help="what serves the calls")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's job in the background ignores it, and so would all that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes says how busy the machine is, and nothing of the code.
    settings.register_profile(
        "untimed",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    settings.load_profile("untimed")
    Host.mode = config.getoption("--served")


@pytest.fixture
def host() -> Iterator[Host]:
    """A fresh host. What the test leaves attached is taken down, and then nothing may be left."""
    _require_tools()
    host = Host.start()
    try:
        if Host.mode == "warm":
            host.serve("--idle-workers", "1", forked=True)
        elif Host.mode == "elsewhere":
            host.serve_elsewhere("--idle-workers", "1")
        yield host
        host.delete_all()
        assert leaks(host) == []
        if Host.mode == "elsewhere" and host.server is not None:
            assert [one for one in host.server.lines if "elsewhere" in one] == []
    finally:
        host.close()


def _require_tools() -> None:
    missing = [one for one in ("unshare", "nsenter", "ip", "nft", "iptables", "busybox")
        if shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]  # fmt: skip
    assert not missing, f"not installed: {', '.join(missing)}; `make test` installs them"
    assert (BIN / "bridge").exists(), f"no executables in {BIN}; `make bin` installs them"
