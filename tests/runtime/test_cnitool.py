"""The Go cnitool runs our executables, configured by the `.conflist` files in conf/."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fixtures.host import BIN, ROOT, Container, Host, Outcome
from fixtures.leaks import leaks

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cni-py-tests"
CNITOOL = str(CACHE / "cnitool")
NET_D = "/etc/cni/net.d"


def cnitool(
    host: Host, verb: str, network: str, container: Container, *, check: bool = True
) -> Outcome:
    """Run cnitool on the host, with the project's configurations."""
    env = {"NETCONFPATH": NET_D, "CNI_PATH": str(BIN)}
    return host.run(CNITOOL, verb, network, container.netns, check=check, env=env)


@pytest.fixture
def configured(host: Host) -> Host:
    """A host with conf/*.conflist installed."""
    assert shutil.which(CNITOOL), "no cnitool: `make test` builds it"
    for path in sorted((ROOT / "conf").glob("*.conflist")):
        host.run("sh", "-c", f"cat > {NET_D}/{path.name}", stdin=path.read_text())
    return host


def test_bridge_from_add_to_del(configured: Host) -> None:
    host = configured
    first, second = host.container("c1"), host.container("c2")
    results = [
        json.loads(cnitool(host, "add", "containers", one).stdout) for one in (first, second)
    ]
    assert results[0]["ips"][0]["address"] == "10.85.0.2/16"
    assert results[1]["ips"][1]["address"] == "fd85::3/64"
    assert first.reaches("10.85.0.3")
    assert first.reaches("fd85::3")
    cnitool(host, "check", "containers", first)
    first.run("ip", "addr", "del", "10.85.0.2/16", "dev", "eth0")
    failed = cnitool(host, "check", "containers", first, check=False)
    assert failed.status != 0
    assert "address of interface eth0 differs" in failed.stderr
    for container in (first, second):
        cnitool(host, "del", "containers", container)
        cnitool(host, "del", "containers", container)
    assert leaks(host) == []


@pytest.mark.parametrize("network", ["layer2", "fixed", "loopback"])
def test_every_example_configuration(configured: Host, network: str) -> None:
    host = configured
    container = host.container("c1")
    cnitool(host, "add", network, container)
    if network != "loopback" or container.addresses("lo"):
        cnitool(host, "check", network, container)
    container.delete_netns()
    cnitool(host, "del", network, container)
    assert leaks(host) == []


def test_error_reaches_the_caller(configured: Host) -> None:
    """A refusal's words come out of the Go library as we wrote them."""
    host = configured
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    failed = cnitool(host, "add", "containers", container, check=False)
    assert failed.status != 0
    assert "interface eth0 already exists in /run/netns/c1" in failed.stderr
