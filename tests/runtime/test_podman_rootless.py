"""podman's CNI backend of a user who is not root: our executables as root of a user namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from tools.podman import RootlessPodman

from fixtures.host import Host
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow]

PAGE = "cni-py-test"
SERVER = ("httpd", "-f", "-h", "/www")


@pytest.fixture
def podman(host: Host, image: Path) -> Iterator[RootlessPodman]:
    """With a network `shop` as `podman network create` writes it."""
    podman = RootlessPodman(host, image)
    try:
        podman("network", "create", "shop")
        yield podman
    finally:
        podman.close()


def page(host: Host, address: str, port: int) -> str:
    """What a web server answers to the host."""
    get = f"printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 5 {address} {port} | tail -n 1"
    return host.run("sh", "-c", get).stdout.strip()


def elements(podman: RootlessPodman) -> list[str]:
    """The elements of maps and sets that belong to containers."""
    listed = json.loads(podman.between("nft", "-j", "list", "table", "inet", "cni_py").stdout)
    return [
        json.dumps(element)
        for one in listed["nftables"]
        for element in next(iter(one.values())).get("elem", ())
        if "comment" in json.dumps(element)
    ]


def test_published_port(host: Host, podman: RootlessPodman) -> None:
    """From the host, from another container; nothing of it is the host's own; DEL takes all."""
    linted = podman.between(CNI_PY, "lint", f"{podman.home}/.config/cni/net.d/shop.conflist")
    assert linted.stdout == ""
    podman.run("web", *SERVER, network="shop", publish=["8080:80"])
    podman.run("other", "sleep", "1000", network="shop")
    assert page(host, "127.0.0.1", 8080) == PAGE
    address = podman.address("web", "shop")
    get = f"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 {address} 80 | tail -n 1"
    assert podman.exec("other", "sh", "-c", get).strip() == PAGE
    shown = podman.between(CNI_PY, "show", "--json").stdout
    assert address in shown
    assert host.files() == {}
    assert host.run("ls", "/run/cni-py", check=False).status != 0
    assert [one["ifname"] for one in host.ip("link")] == ["lo"]
    podman.remove("web")
    assert "8080" not in "".join(elements(podman))
    found = podman.between("find", "/var/lib/cni/networks/shop", "-name", "10.*")
    assert len(found.stdout.split()) == 1
    podman.remove("other")
    # With the last container podman takes away what the plugins had between host and containers.
    left = host.run("find", f"{podman.home}/libpod/tmp/rootless-netns", "-type", "f", check=False)
    assert left.stdout == ""


def test_reload_and_restart(host: Host, podman: RootlessPodman) -> None:
    """`podman network reload` is for rules that somebody flushed; a restart begins anew."""
    podman.run("web", *SERVER, network="shop", publish=["8080:80"])
    address = podman.address("web", "shop")
    before = sorted(elements(podman))
    podman.between("nft", "flush", "ruleset")
    podman("network", "reload", "web")
    assert podman.address("web", "shop") == address
    assert len(elements(podman)) == len(before)
    assert page(host, "127.0.0.1", 8080) == PAGE
    podman("restart", "--time", "0", "web")
    assert page(host, "127.0.0.1", 8080) == PAGE
    assert len(elements(podman)) == len(before)
    podman.remove("web")


def test_limits_and_status(podman: RootlessPodman) -> None:
    """What a user namespace allows in the container's network, by our own command."""
    plugins = [
        {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.93.0.0/24"}},
        {"type": "bandwidth", "ingressRate": 10**7, "ingressBurst": 10**6},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}},
    ]
    network = {"cniVersion": "1.1.0", "name": "limited", "plugins": plugins}
    script = f"""
set -e
mkdir -p /run/netns
mount --bind /run/netns /run/netns
mount --make-private /run/netns
echo '{json.dumps(network)}' > /run/limited.conflist
ip netns add c1
{CNI_PY} status /run/limited.conflist >/dev/null
{CNI_PY} add /run/limited.conflist c1 >/dev/null
{CNI_PY} check /run/limited.conflist c1
tc qdisc show | grep -c tbf
{CNI_PY} del /run/limited.conflist c1
find /run/cni-py /var/lib/cni/networks -type f -name '*limited*'
"""
    assert podman.between("sh", "-c", script).stdout.split() == ["1"]


def test_server_of_root(host: Host, podman: RootlessPodman) -> None:
    """It is not asked: its socket is in root's /run. The user's calls are served standalone."""
    host.serve(forked=True)
    podman.run("web", *SERVER, network="shop", publish=["8080:80"])
    assert page(host, "127.0.0.1", 8080) == PAGE
    podman.remove("web")
    counted = host.run(CNI_PY, "metrics").stdout.splitlines()
    assert [one for one in counted if one.startswith("cni_py_calls_total{")] == []


def test_server_of_the_user(host: Host, podman: RootlessPodman) -> None:
    """One in the networks' namespace, as root there: podman's calls go well beside it."""
    script = f"echo $$; exec {CNI_PY} serve --idle-workers 1 2>&1"
    command = podman.command_between("sh", "-c", script)
    # Without a container podman would take the namespace away from below the server.
    podman.run("other", "sleep", "1000", network="shop")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        # podman does not pass signals on.
        pid = int(server.stdout.readline())
        try:
            assert json.loads(server.stdout.readline())["event"] == "listening"
            podman.run("web", *SERVER, network="shop", publish=["8080:80"])
            assert page(host, "127.0.0.1", 8080) == PAGE
            assert "8080" in "".join(elements(podman))
            podman.remove("web")
            assert "8080" not in "".join(elements(podman))
        finally:
            os.kill(pid, signal.SIGTERM)
    podman.remove("other")
