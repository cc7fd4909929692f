"""The Go cnitool runs our executables, configured by the `.conflist` files in conf/."""

from __future__ import annotations

import json
import shutil

import pytest

from fixtures.cnitool import CNITOOL, NET_D, cnitool
from fixtures.host import ROOT, Host
from fixtures.leaks import leaks
from fixtures.ports import ask, mapping, outside, serving


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


@pytest.mark.parametrize(
    "network", ["layer2", "fixed", "loopback", "isolated", "published", "limited"]
)
def test_every_example_configuration(configured: Host, network: str) -> None:
    host = configured
    container = host.container("c1")
    cnitool(host, "add", network, container)
    if network != "loopback" or container.addresses("lo"):
        cnitool(host, "check", network, container)
    container.delete_netns()
    cnitool(host, "del", network, container)
    assert leaks(host) == []


def test_whole_chain(configured: Host) -> None:
    """As Kubernetes has it: a port, a limit each way, rules and settings; CHECK, then DEL twice."""
    host = configured
    server, client = host.container("c1"), host.container("c2")
    limits = {"ingressRate": 8_000_000, "ingressBurst": 800_000}
    limits |= {"egressRate": 8_000_000, "egressBurst": 800_000}
    caps = {"portMappings": [mapping()], "bandwidth": limits}
    cnitool(host, "add", "full", server, **caps)
    cnitool(host, "add", "full", client)
    machine = outside(host)
    with serving(server):
        assert ask(machine, "192.0.2.1", "2001:db8:ff::1") == ["c1 192.0.2.2", "c1 2001:db8:ff::2"]
        assert ask(host, "127.0.0.1") == ["c1 10.87.0.1"]
        assert ask(client, "192.0.2.1") == ["c1 10.87.0.1"]
    for version in (4, 6):
        assert any("CNI-FORWARD" in one for one in host.iptables("filter", version))
    queues = host.run("tc", "qdisc").stdout
    assert queues.count("rate 8Mbit") == 2
    assert server.sysctl("net/ipv4/conf/eth0/arp_filter") == "1"
    cnitool(host, "check", "full", server, **caps)
    for container, own in ((server, caps), (client, {}), (server, caps)):
        cnitool(host, "del", "full", container, **own)
    assert leaks(host) == []


def test_error_reaches_the_caller(configured: Host) -> None:
    """A refusal's words come out of the Go library as we wrote them."""
    host = configured
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    failed = cnitool(host, "add", "containers", container, check=False)
    assert failed.status != 0
    assert "interface eth0 already exists in /run/netns/c1" in failed.stderr
