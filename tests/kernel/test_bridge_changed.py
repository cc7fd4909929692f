"""DEL takes away what ADD has set, whatever has changed in between; and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, l2, l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks

FULL = l3(isDefaultGateway=True, ipMasq=True, macspoofchk=True, ipam=host_local(V4, V6))
PLAIN = l3(isDefaultGateway=True, ipam=host_local(V4, V6))


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize(
    "later",
    [
        pytest.param(PLAIN, id="keys taken out"),
        pytest.param(FULL | {"ipMasqBackend": "nftables"}, id="to nftables"),
        pytest.param(FULL | {"ipMasqBackend": "iptables"}, id="to iptables"),
        pytest.param(FULL | {"bridge": "other0"}, id="another bridge"),
    ],
)
def test_configuration_has_changed(host: Host, backend: str, later: dict[str, Any]) -> None:
    """[W-PM4] What the interface's label says was set is what goes."""
    container = host.container("c1")
    outcome = host.call("bridge", "ADD", FULL | {"ipMasqBackend": backend}, container)
    assert outcome.status == 0
    assert host.call("bridge", "DEL", later, container).status == 0
    assert leaks(host) == []


@pytest.mark.parametrize("later", [PLAIN, FULL], ids=["keys taken out", "same"])
def test_namespace_gone_and_configuration_changed(host: Host, later: dict[str, Any]) -> None:
    """Without the interface nothing says what was set: all of the attachment's elements go."""
    container = host.container("c1")
    assert host.call("bridge", "ADD", FULL, container).status == 0
    container.delete_netns()
    assert host.call("bridge", "DEL", later, container).status == 0
    assert leaks(host) == []


def test_collected_after_the_configuration_changed(host: Host) -> None:
    """[G-01] GC looks at what is there, not at what the configuration would set now."""
    for name, backend in (("c1", "nftables"), ("c2", "iptables")):
        config = FULL | {"ipMasqBackend": backend}
        assert host.call("bridge", "ADD", config, host.container(name)).status == 0
    collected = PLAIN | {"cni.dev/valid-attachments": []}
    assert host.call("bridge", "GC", collected).status == 0
    assert leaks(host) == []


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_container_has_other_addresses_now(host: Host, backend: str) -> None:
    """What is inside is the container's to change."""
    config = FULL | {"ipMasqBackend": backend}
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", config, second)
    assert host.call("bridge", "ADD", config, first).status == 0
    first.run("ip", "addr", "flush", "dev", "eth0")
    # It even pretends to be its neighbour.
    first.run("ip", "addr", "add", second.addresses()[0], "dev", "eth0")
    before = leaks(host)
    assert host.call("bridge", "DEL", config, first).status == 0
    left = leaks(host)
    own = [one for one in before if one not in left]
    assert [one for one in left if first.id in one] == []
    assert [one for one in own if second.id in one] == []


def test_chain_is_shared_by_interfaces(host: Host) -> None:
    """[W-G14, W-MQ3] The iptables chain has no interface in its name: each DEL takes its own."""
    config = FULL | {"ipMasqBackend": "iptables", "macspoofchk": False}
    container = host.container("c1")
    host.add("bridge", config, container)
    with_one = sorted(host.iptables())
    assert host.call("bridge", "ADD", config, container, ifname="eth1").status == 0
    assert sorted(host.iptables()) != with_one
    for _ in range(2):
        assert host.call("bridge", "DEL", config, container, ifname="eth1").status == 0
        assert sorted(host.iptables()) == with_one


def test_failed_add_of_another_interface(host: Host) -> None:
    """[W-MQ3] Its undoing leaves the first interface's masquerading."""
    config = FULL | {"ipMasqBackend": "iptables", "macspoofchk": False}
    container = host.container("c1")
    host.add("bridge", config, container)
    before = sorted(host.iptables())
    failing = config | {"ipam": host_local(V4, routes=[{"dst": "10.9.0.0/16", "gw": "10.77.0.1"}])}
    refusal(host.call("bridge", "ADD", failing, container, ifname="eth1"))
    assert sorted(host.iptables()) == before


def test_two_networks_with_one_subnet(host: Host) -> None:
    """A living container's masquerading is not taken over; a dead one's is."""
    first, second = host.container("c1"), host.container("c2")
    one = l3(isGateway=True, ipMasq=True)
    other = one | {"name": "net2", "bridge": "cni1"}
    host.add("bridge", one, first)
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", other, second))
    assert error["code"] == 999
    assert "10.1.2.2 is already masqueraded" in error["msg"]
    assert "net1" in error["details"]
    after = dump(host)
    for kind in ("links", "nft", "addresses", "routes"):
        assert differences({kind: before[kind]}, {kind: after[kind]}) == ""
    first.delete_netns()
    host.add("bridge", other, second)


def test_path_leads_to_another_container(host: Host) -> None:
    """[N-06] Its interface of that name is not ours to delete."""
    container = host.container("c1")
    host.run("ip", "link", "add", "foreign0", "type", "veth", "peer", "eth0", "netns", "c1")
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.delete("bridge", FULL, container)
    assert container.link()["linkinfo"]["info_kind"] == "veth"
    # As a port of the network's bridge it is what the reference plugin has made.
    host.run("ip", "link", "set", "foreign0", "master", "cni0")
    host.delete("bridge", FULL, container)
    assert host.link("foreign0") is None


def test_listed_in_the_previous_result(host: Host) -> None:
    """What the reference plugin has made goes also when it is no port any more."""
    container = host.container("c1")
    host.run("ip", "link", "add", "vethabcd1234", "type", "veth", "peer", "eth0", "netns", "c1")
    prev = {"cniVersion": "1.1.0", "interfaces": [{"name": "vethabcd1234"}]}
    host.delete("bridge", l2(prevResult=prev), container)
    assert host.link("vethabcd1234") is None


@pytest.mark.parametrize("kind", ["too long", "socket", "fifo"])
def test_path_that_is_no_namespace(host: Host, kind: str) -> None:
    """[W-G4] DEL counts it as gone, and releases everything."""
    container = host.container("c1")
    assert host.call("bridge", "ADD", FULL, container).status == 0
    path = "/run/netns/x"
    if kind == "too long":
        path = "/run/" + "x" * 300
    elif kind == "socket":
        bind = "import socket; socket.socket(socket.AF_UNIX).bind('/run/netns/x')"
        host.run("python3", "-I", "-c", bind)
    else:
        host.run("mkfifo", path)
    assert host.call("bridge", "DEL", FULL, container, env={"CNI_NETNS": path}).status == 0
    assert leaks(host) == []


@pytest.mark.parametrize("ifname", ["eth%d", "e%", os.fsdecode(b"e\xff")])
def test_name_that_no_interface_can_have(host: Host, ifname: str) -> None:
    """The kernel would make `eth0` of `eth%d`, and a result names interfaces in UTF-8."""
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", FULL, container, ifname=ifname))
    assert error["code"] == 4
    assert differences(before, dump(host)) == ""


def test_longest_label(host: Host) -> None:
    """What does not fit on a link is cut."""
    config = FULL | {"name": "n" * 200}
    host.add("bridge", config, host.container("c1", "c" * 200))


def test_table_zero(host: Host) -> None:
    """The kernel takes route table 0 for the main one, and so does CHECK."""
    routes = [{"dst": "10.9.0.0/16", "gw": "10.1.2.1", "table": 0}]
    config = l3(isGateway=True, ipam=host_local(V4, routes=routes))
    container = host.container("c1")
    result = host.add("bridge", config, container)
    assert host.call("bridge", "CHECK", config | {"prevResult": result}, container).status == 0


def test_failing_adds_at_once(host: Host) -> None:
    """[W-BR1] The bridge that they made goes with the last of them."""
    containers = [host.container(f"c{index}") for index in range(12)]
    failing = l3(ipam=host_local(V4, routes=[{"dst": "10.9.0.0/16", "gw": "10.77.0.1"}]))
    for one in calls(host, [(failing, container) for container in containers]):
        assert one["code"] == 999
    assert host.link("cni0") is None
    assert leaks(host) == []


def test_failing_and_succeeding_adds_at_once(host: Host) -> None:
    """A failing ADD takes no bridge from one that goes on."""
    failing = l3(ipam=host_local(V4, routes=[{"dst": "10.9.0.0/16", "gw": "10.77.0.1"}]))
    pairs = []
    for index in range(8):
        pairs.append((failing, host.container(f"f{index}")))
        pairs.append((l3(), host.container(f"g{index}")))
    answers = calls(host, pairs)
    for (config, container), answer in zip(pairs, answers, strict=True):
        assert ("ips" in answer) == (config != failing), answer
        if config != failing:
            host.delete("bridge", config, container)
    bridge = host.link("cni0")
    assert bridge is not None
    assert bridge["group"] == "default"


def calls(host: Host, pairs: list[tuple[dict[str, Any], Container]]) -> list[dict[str, Any]]:
    """Run ADDs at the same moment; their answers."""
    processes = [
        subprocess.Popen(
            [*host.prefix, f"{BIN}/bridge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]} | container.environ("ADD"),
        )
        for _, container in pairs
    ]
    for process, (config, _) in zip(processes, pairs, strict=True):
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append(json.loads(process.stdout.read()))
        process.stdout.close()
        process.wait(60)
    return answers


def test_delete_waits_for_a_running_add(host: Host) -> None:
    """A DEL that comes meanwhile finds all of it, not half."""
    host.run("mkdir", "/run/bin")
    script = (
        '#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || { touch /run/deleted; exit 0; }\n'
        "touch /run/started; while [ ! -e /run/go ]; do sleep 0.02; done\n"
        'echo \'{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.9/24"}]}\'\n'
    )
    host.run("sh", "-c", "cat > /run/bin/slow; chmod +x /run/bin/slow", stdin=script)
    container = host.container("c1")
    config = l3(isGateway=True, ipMasq=True, ipam={"type": "slow"})
    processes = []
    for verb in ("ADD", "DEL"):
        env = {"PATH": os.environ["PATH"]} | container.environ(verb, path="/run/bin")
        one = subprocess.Popen(
            [*host.prefix, f"{BIN}/bridge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=env,
        )
        processes.append(one)
        assert one.stdin is not None
        one.stdin.write(json.dumps(config).encode())
        one.stdin.close()
        if verb == "ADD":
            until_exists(host, "/run/started")
    try:
        inode = host.run("sh", "-c", "stat -c %i /run/cni-py/attachments/*").stdout.strip()
        deadline = time.monotonic() + 20
        while not waits_for(inode):
            assert time.monotonic() < deadline
            assert processes[1].poll() is None
    finally:
        host.run("touch", "/run/go")
    assert [one.wait(60) for one in processes] == [0, 0]
    assert host.run("test", "-e", "/run/deleted").status == 0
    assert leaks(host) == []
    assert host.ports() == []


def waits_for(inode: str) -> bool:
    """Whether a process waits for a lock on the file."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f":{inode} " in line for line in lines)


def until_exists(host: Host, path: str) -> None:
    deadline = time.monotonic() + 20
    while host.run("test", "-e", path, check=False).status != 0:
        assert time.monotonic() < deadline
