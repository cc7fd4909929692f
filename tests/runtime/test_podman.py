"""podman's CNI backend: a chain as podman's users have it, run by our executables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tools.podman import Podman

from fixtures.host import ROOT, Host
from fixtures.leaks import leaks
from fixtures.ports import PAGE, UPLINK, getting, outside, page

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def podman(host: Host, image: Path) -> Podman:
    """podman with the example of a whole chain: bridge, portmap, firewall, bandwidth, tuning."""
    text = (ROOT / "conf" / "12-full.conflist").read_text()
    host.run("sh", "-c", "cat > /etc/cni/net.d/12-full.conflist", stdin=text)
    return Podman(host, image)


def test_published_port(host: Host, podman: Podman) -> None:
    """From outside, from another container, from itself, and from the host by localhost."""
    machine = outside(host)
    server = ("httpd", "-f", "-h", "/www")
    podman.run("web", *server, network="full", publish=["8080:80", "127.0.0.1:8081:80"])
    podman.run("other", "sleep", "1000", network="full")
    own, _ = UPLINK[4]
    assert page(machine, own, 8080) == PAGE
    assert page(host, own, 8080) == PAGE
    assert page(host, "127.0.0.1", 8080) == page(host, "127.0.0.1", 8081) == PAGE
    for name in ("web", "other"):
        assert podman.exec(name, "sh", "-c", getting("nc", own, 8080)).strip() == PAGE
    address = podman.address("web", "full")
    assert podman.exec("other", "sh", "-c", getting("nc", address, 80)).strip() == PAGE
    for name in ("web", "other"):
        podman.remove(name)
    refused = machine.run("busybox", "nc", "-w", "5", own, "8080", check=False)
    assert "refused" in refused.stderr
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)


def test_port_that_is_taken(host: Host, podman: Podman) -> None:
    """podman does not start the second one, and tells who has the port."""
    podman.run("first", "sleep", "1000", network="full", publish=["8080:80/udp"])
    failed = podman.attempt("second", "sleep", "1000", network="full", publish=["8080:80/udp"])
    assert failed.status != 0
    assert "8080" in failed.stderr
    podman.remove("first")
    podman.remove("second")
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)


def test_reload_and_restart(host: Host, podman: Podman) -> None:
    """`podman network create` and `reload` (for rules that somebody flushed), and a restart."""
    podman("network", "create", "--label", "project=shop", "shop")
    written = host.run("sh", "-c", "cat /etc/cni/net.d/shop.conflist").stdout
    assert "podman_labels" in written
    assert '"dnsname"' in written
    podman.run("web", "httpd", "-f", "-h", "/www", network="shop", publish=["8080:80"])
    address = podman.address("web", "shop")
    assert address in podman.exec("web", "nslookup", "web.dns.podman")
    host.run("nft", "flush", "ruleset")
    podman("network", "reload", "web")
    assert podman.address("web", "shop") == address
    assert page(host, "127.0.0.1", 8080) == PAGE
    podman("restart", "--time", "0", "web")
    assert page(host, "127.0.0.1", 8080) == PAGE
    podman.remove("web")
    podman("network", "rm", "shop")
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)
