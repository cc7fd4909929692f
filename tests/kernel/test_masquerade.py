"""ipMasq: real connections to a host outside see the right source address."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fixtures.configs import V4, V6, host_local, l3
from fixtures.host import Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.ports import UPLINK, outside
from fixtures.settled import vanished


@pytest.fixture(params=["nftables", "iptables"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def source_seen(server: Container, client: Container, address: str) -> str:
    """The address that a TCP connection from `client` comes from, as the server sees it."""
    family = "AF_INET6" if ":" in address else "AF_INET"
    serve = (
        "import socket; s = socket.create_server(('', 7000), "
        f"family=socket.{family}); print('ready', flush=True); print(s.accept()[1][0])"
    )
    process = subprocess.Popen(
        ["timeout", "20", *server.command("python3", "-I", "-c", serve)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    connect = f"import socket; socket.create_connection(({address!r}, 7000), 5)"
    client.run("python3", "-I", "-c", connect)
    seen = process.stdout.readline().strip()
    process.stdout.close()
    process.wait()
    return seen


def masquerading(backend: str, **keys: object) -> dict[str, object]:
    ranges = host_local(V4, V6)
    return l3(isDefaultGateway=True, ipMasq=True, ipMasqBackend=backend, ipam=ranges) | keys


@pytest.mark.parametrize("version", [4, 6])
def test_leaving_the_network(host: Host, backend: str, version: int) -> None:
    machine = outside(host)
    container = host.container("c1")
    host.add("bridge", masquerading(backend), container)
    own, other = UPLINK[version]
    assert source_seen(machine, container, other) == own


@pytest.mark.parametrize("version", [4, 6])
def test_inside_the_network(host: Host, backend: str, version: int) -> None:
    """Between two containers nothing is translated, even when bridged frames pass the host."""
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", masquerading(backend), first)
    host.add("bridge", masquerading(backend), second)
    addresses = {4: ("10.1.2.2", "10.1.2.3"), 6: ("fd00:1::2", "fd00:1::3")}
    client, server = addresses[version]
    assert source_seen(second, first, server) == client


def test_gone_after_del(host: Host, backend: str) -> None:
    """Another container that gets the address without ipMasq is not masqueraded."""
    machine = outside(host)
    config = masquerading(backend)
    pool = {"type": "static", "addresses": [{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}]}
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", config | {"ipam": pool}, first)
    host.delete("bridge", config | {"ipam": pool}, first)
    host.add("bridge", config | {"ipam": pool, "ipMasq": False}, second)
    machine.run("ip", "route", "add", "10.1.2.0/24", "via", "192.0.2.1")
    assert source_seen(machine, second, "192.0.2.2") == "10.1.2.9"


def test_address_that_the_container_took_off(host: Host, backend: str) -> None:
    """[W-BR3] DEL without the result of ADD knows it all the same."""
    container = host.container("c1")
    host.add("bridge", masquerading(backend), container)
    container.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
    container.run("ip", "addr", "add", "10.1.2.2/24", "dev", "eth0")
    host.delete("bridge", masquerading(backend), container)
    assert leaks(host) == []


def test_stale_owner_of_the_address_is_replaced(host: Host) -> None:
    """A crash has left an element for the address: the new owner's takes its place."""
    machine = outside(host)
    config = masquerading("nftables")
    pool = {"type": "static", "addresses": [{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}]}
    host.add("bridge", config, host.container("c0"))
    host.run("nft", "add chain inet cni_py stale")
    element = '{ 10.1.2.9 comment "stale" : goto stale }'
    host.run("nft", f"add element inet cni_py masq4 {element}")
    container = host.container("c1")
    host.add("bridge", config | {"ipam": pool}, container)
    assert "stale" not in host.nft().replace("chain stale", "")
    assert source_seen(machine, container, "192.0.2.2") == "192.0.2.1"


def test_iptables_rules_are_the_references(host: Host) -> None:
    """[A.1, H-02, H-03]"""
    container = host.container("c1", "cid1")
    before = host.iptables()
    host.add("bridge", l3(ipMasq=True, ipMasqBackend="iptables", isGateway=True), container)
    added = [line for line in host.iptables() if line not in before]
    chain = next(line.split()[1] for line in added if line.startswith("-N"))
    comment = r'-m comment --comment "name: \"net1\" id: \"cid1\""'
    assert added == [
        f"-N {chain}",
        f"-A POSTROUTING -s 10.1.2.2/32 {comment} -j {chain}",
        f"-A {chain} -d 10.1.2.0/24 {comment} -j ACCEPT",
        f"-A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE",
    ]
    assert len(chain) == 28
    host.delete("bridge", l3(ipMasq=True, ipMasqBackend="iptables"), container)
    assert host.iptables() == before


def test_another_backend_at_del(host: Host) -> None:
    """A node was switched from iptables to nftables while the container ran, and lost its netns."""
    container = host.container("c1")
    host.add("bridge", masquerading("iptables"), container)
    container.delete_netns()
    host.delete("bridge", masquerading("nftables"), container)
    host.attachments.clear()
    assert leaks(host) == []


def test_check_finds_missing_masquerading(host: Host, backend: str) -> None:
    """[W-BR10]"""
    config = masquerading(backend)
    container = host.container("c1")
    result = host.add("bridge", config, container)
    checked = config | {"prevResult": result}
    assert host.call("bridge", "CHECK", checked, container).status == 0
    if backend == "nftables":
        host.run("nft", "delete element inet cni_py masq4 { 10.1.2.2 }")
    else:
        host.run("iptables", "-t", "nat", "-F", "POSTROUTING")
    error = refusal(host.call("bridge", "CHECK", checked, container))
    assert error["msg"] == "masquerading of 10.1.2.2 differs"


def test_without_nftables_library(host: Host) -> None:
    """Without libnftables the default is iptables, and asking for nftables is refused."""
    host.stop_serving()
    (library,) = Path("/usr/lib").glob("*/libnftables.so.1")
    host.run("mount", "--bind", "/dev/null", str(library))
    config = l3(isGateway=True, ipMasq=True)
    container = host.container("c1")
    error = refusal(host.call("bridge", "ADD", config | {"ipMasqBackend": "nftables"}, container))
    assert error["msg"].startswith("nftables is not available")
    outcome = host.call("bridge", "ADD", config, container)
    assert outcome.status == 0, outcome
    assert any("MASQUERADE" in line for line in host.iptables())
    assert host.call("bridge", "DEL", config, container).status == 0
    assert not any("MASQUERADE" in line for line in host.iptables())
    host.run("umount", str(library))


def test_collecting_by_iptables(host: Host) -> None:
    """[W-G1] Without a list too: the record says whose the chain is, and goes after it."""
    config = masquerading("iptables")
    dead, alive = host.container("c1"), host.container("c2")
    host.add("bridge", config, alive)
    before = {version: host.iptables(version=version) for version in (4, 6)}
    outcome = host.call("bridge", "ADD", config, dead)
    assert outcome.status == 0, outcome
    assert host.iptables() != before[4]
    host.call("bridge", "GC", config)
    assert len(host.iptables()) > len(before[4])
    # What a crash leaves: the link dies with the namespace, a moment later.
    vanished(host, dead, 1)
    assert host.call("bridge", "GC", config).status == 0
    for version, lines in before.items():
        assert sorted(host.iptables(version=version)) == sorted(lines)
