"""bridge DEL and failed ADDs: what is gone, in every state the world can be in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, Host, refusal
from fixtures.leaks import leaks

FULL = l3(
    isDefaultGateway=True,
    ipMasq=True,
    macspoofchk=True,
    hairpinMode=True,
    ipam=host_local(V4, V6),
)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_one_attachment_leaves_no_trace(host: Host, backend: str) -> None:
    """Once the bridge and the tables are there, an ADD and its DEL change nothing at all."""
    config = FULL | {"ipMasqBackend": backend}
    warm = host.container("c0")
    host.add("bridge", config, warm)
    host.delete("bridge", config, warm)
    container = host.container("c1")
    before = dump(host)
    host.add("bridge", config, container)
    assert differences(before, dump(host)) != ""
    host.delete("bridge", config, container)
    after = dump(host)
    changed = [
        line
        for line in differences(before, after).splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---"))
    ]
    # The round robin goes on: its marker, the index's bits for it, and its time stamp.
    kept = ("last_reserved_ip", "/.cni-py/net1/state")
    assert [line for line in changed if not any(name in line for name in kept)] == []


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("state", ["empty", "missing", "plain file", "directory", "other"])
def test_namespace_is_gone(host: Host, state: str, backend: str) -> None:
    """[W-BR3, W-BR4, W-G4, A.19] Everything on the host goes, whatever CNI_NETNS leads to."""
    config = FULL | {"ipMasqBackend": backend}
    container = host.container("c1")
    host.add("bridge", config, container)
    path = container.netns
    container.delete_netns()
    if state == "plain file":
        host.run("touch", path)
    elif state == "directory":
        host.run("mkdir", path)
    elif state == "other":
        # The path has been given to somebody else: his interface stays.
        host.run("ip", "netns", "add", "c1")
        container.run("ip", "link", "add", "eth0", "type", "bridge")
    env = {"CNI_NETNS": ""} if state == "empty" else {}
    host.delete("bridge", config, container, env=env)
    assert leaks(host) == []
    if state == "other":
        assert container.link()["linkinfo"]["info_kind"] == "bridge"
    # And again [DL-03].
    host.delete("bridge", config, container, env=env)


def test_link_is_gone(host: Host) -> None:
    """[W-BR4] Somebody deleted the interface before."""
    config = FULL | {"ipMasqBackend": "iptables"}
    container = host.container("c1")
    host.add("bridge", config, container)
    container.run("ip", "link", "delete", "eth0")
    host.delete("bridge", config, container)
    assert leaks(host) == []


@pytest.mark.parametrize("prev", ["absent", "null", "garbage", "of the ADD"])
def test_previous_result_is_not_needed(host: Host, prev: str) -> None:
    """[DL-04]"""
    container = host.container("c1")
    result = host.add("bridge", FULL, container)
    values: dict[str, Any] = {"null": None, "garbage": {"ips": 5}, "of the ADD": result}
    config = FULL if prev == "absent" else FULL | {"prevResult": values[prev]}
    host.delete("bridge", config, container)
    assert leaks(host) == []


def test_never_added(host: Host) -> None:
    """[DL-03] DEL of what never was succeeds."""
    host.delete("bridge", FULL, host.container("c1"))
    assert host.run("ls", "/var/lib/cni/networks").stdout == ""


def test_own_namespace_is_left_alone(host: Host) -> None:
    """[N-06] A path that leads to the host itself: all else is released, then code 8."""
    container = host.container("c1")
    host.add("bridge", FULL, container)
    container.delete_netns()
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "uplink")
    env = {"CNI_NETNS": f"/proc/{host.holder.pid}/ns/net"}
    error = refusal(host.call("bridge", "DEL", FULL, container, env=env))
    assert error["code"] == 8
    assert host.link("eth0") is not None
    host.attachments.clear()
    host.run("ip", "link", "delete", "eth0")
    assert leaks(host) == []


def test_address_is_released_last(host: Host) -> None:
    """[W-G3] While the address is still in use it cannot be given to another container."""
    trace = "/run/trace"
    container = host.container("c1")
    host.add("bridge", l3(), container)
    env = container.environ("DEL") | {"CNI_PY_SOCKET": ""}
    command = ("strace", "-f", "-o", trace, "-e", "trace=sendto,unlink,unlinkat", f"{BIN}/bridge")
    host.run(*command, stdin=json.dumps(l3()), env=env)
    lines = host.run("cat", trace).stdout.splitlines()
    deleted = next(index for index, line in enumerate(lines) if "RTM_DELLINK" in line)
    released = next(index for index, line in enumerate(lines) if "/net1/10.1.2.2" in line)
    assert deleted < released
    host.attachments.clear()


def test_another_networks_interface_stays(host: Host) -> None:
    """DEL of a network that the container was never on, under the name that another one has."""
    container = host.container("c1")
    host.add("bridge", l3(), container)
    host.delete("bridge", l3(name="net2", bridge="cni1"), container)
    assert container.addresses() == ["10.1.2.2/24"]


# A second ADD.


def test_second_add_while_the_first_lives(host: Host) -> None:
    """[W-G20, A-06] Refused, with the words to act on, and the first keeps working."""
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", FULL, first)
    host.add("bridge", FULL, second)
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", FULL, first))
    assert "already attached as eth0" in error["msg"]
    assert "DEL" in error["details"]
    assert differences(before, dump(host)) == ""
    assert first.reaches("10.1.2.3")


@pytest.mark.parametrize("path", ["same", "other"])
def test_second_add_after_the_namespace_went(host: Host, path: str) -> None:
    """[W-G20] The sandbox is made anew without a DEL: the ADD succeeds, with nothing left over."""
    container = host.container("c1")
    host.add("bridge", FULL, container)
    container.delete_netns()
    again = host.container("c1" if path == "same" else "c2", container.id)
    host.add("bridge", FULL, again)
    assert len(host.ports()) == 1
    assert len(host.allocated("net1")) == 2
    assert again.reaches("10.1.2.1")


def test_second_interface_of_one_container(host: Host) -> None:
    """[W-G14, W-MQ3] Each interface has its own masquerading; one's DEL leaves the other's."""
    config = FULL | {"ipMasqBackend": "iptables", "ipam": host_local(V4)}
    container = host.container("c1")
    host.add("bridge", config, container)
    host.add("bridge", config, container, "net1")
    jumps = [line for line in host.iptables() if line.startswith("-A POSTROUTING")]
    assert len(jumps) == 2
    host.delete("bridge", config, container)
    rules = host.iptables()
    assert [line for line in rules if "-s 10.1.2.3/32" in line]
    assert [line for line in rules if "MASQUERADE" in line]
    host.delete("bridge", config, container, "net1")
    assert leaks(host) == []


# A failed ADD.


def test_failing_ipam_leaves_nothing(host: Host) -> None:
    """[W-BR1] Not even the bridge that the ADD had created."""
    container = host.container("c1")
    before = dump(host)
    pool = host_local(
        [{"subnet": "10.1.2.0/24"}], routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}]
    )
    error = refusal(host.call("bridge", "ADD", FULL | {"ipam": pool}, container))
    assert error["msg"].startswith("add route 192.0.2.0/24 via 10.9.9.9 dev eth0")
    after = dump(host)
    assert leaks(host) == []
    for kind in ("links", "addresses", "routes", "nft", "iptables", "sysctls"):
        assert before[kind] == after[kind] or kind == "nft"
    assert container.ip("link", "show", "type", "veth") == []


def test_failing_spoof_check_leaves_nothing(host: Host) -> None:
    """[W-BR2]"""
    host.run("nft", "add table bridge cni_py; add chain bridge cni_py guarded")
    host.run("nft", "add set bridge cni_py guarded { type ipv4_addr; }")
    before = dump(host)
    container = host.container("c1")
    refusal(host.call("bridge", "ADD", FULL, container))
    container.delete_netns()
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_add_undoes_itself(host: Host, number: int) -> None:
    """The runtime gives up while IPAM is busy: the ADD takes back what it has done."""
    host.run("mkdir", "/run/bin")
    slow = '#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && { touch /run/started; sleep 60; }\nexit 0\n'
    host.run("sh", "-c", "cat > /run/bin/slow; chmod +x /run/bin/slow", stdin=slow)
    container = host.container("c1")
    before = dump(host)
    env = {"PATH": os.environ["PATH"]} | container.environ("ADD", path="/run/bin")
    process = subprocess.Popen(
        [*host.prefix, f"{BIN}/bridge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(l3(ipam={"type": "slow"})))
    process.stdin.close()
    deadline = time.monotonic() + 20
    while host.run("test", "-e", "/run/started", check=False).status != 0:
        assert time.monotonic() < deadline
    process.send_signal(number)
    error = json.loads(process.stdout.read())
    process.stdout.close()
    assert process.wait(20) == 1
    assert (error["code"], error["msg"]) == (11, f"interrupted by {signal.Signals(number).name}")
    host.run("rm", "/run/started")
    assert differences(before, dump(host)) == ""


def test_closed_output_undoes_the_add(host: Host) -> None:
    """[W-G8] A result that nobody can read is no result."""
    container = host.container("c1")
    before = dump(host)
    env = container.environ("ADD")
    script = f"{BIN}/bridge > /dev/full"
    outcome = host.run("sh", "-c", script, stdin=json.dumps(l3()), env=env, check=False)
    assert outcome.status == 1
    assert "No space left on device" in outcome.stderr
    assert leaks(host) == []
    for kind in ("links", "addresses", "routes"):
        assert differences({kind: before[kind]}, {kind: dump(host)[kind]}) == ""


def test_many_at_once(host: Host) -> None:
    """[W-BR11] First use by many calls at the same moment: all succeed, on one bridge."""
    containers = [host.container(f"c{index}") for index in range(24)]
    processes = [
        subprocess.Popen(
            [*host.prefix, f"{BIN}/bridge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]} | one.environ("ADD"),
        )
        for one in containers
    ]
    data = json.dumps(FULL).encode()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()
    results = []
    for process, container in zip(processes, containers, strict=True):
        assert process.stdout is not None
        output = process.stdout.read()
        process.stdout.close()
        assert process.wait(60) == 0, output
        results.append(json.loads(output))
        key = ("net1", container.id, "eth0", "bridge")
        host.attachments[key] = ("bridge", FULL, container, {})
    assert len({one["ips"][0]["address"] for one in results}) == len(containers)
    assert len(host.ports()) == len(containers)
    assert containers[0].reaches(results[-1]["ips"][0]["address"].split("/")[0])


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_gc_removes_what_is_not_listed(host: Host, backend: str) -> None:
    """[G-01, G-07, G-08, G-09] Stale attachments of this network go; others and the living stay."""
    lost, kept, other = (host.container(name) for name in ("c1", "c2", "c3"))
    first = FULL | {"ipMasqBackend": backend}
    second = first | {"name": "net2", "ipam": host_local([{"subnet": "10.1.3.0/24"}])}
    second |= {"bridge": "cni1"}
    host.add("bridge", first, lost)
    host.add("bridge", first, kept)
    host.add("bridge", second, other)
    plain = dump(host)
    assert host.call("bridge", "GC", first).status == 0
    assert differences(plain, dump(host)) == ""
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    for key in ("cni.dev/attachments", "cni.dev/valid-attachments"):
        assert host.call("bridge", "GC", first | {key: valid}).status == 0
        assert len(host.ports()) == 1
        assert set(host.allocated("net1")) == {"10.1.2.3", "fd00:1::3"}
        rules = host.nft() + str(host.iptables())
        assert lost.id not in rules
        assert kept.id in rules
        assert other.id in rules
    assert kept.reaches("10.1.2.1")
    assert set(host.allocated("net2")) == {"10.1.3.2"}


def test_gc_of_many(host: Host) -> None:
    """All stale interfaces go, in one removal; the living ones and everybody else's stay."""
    host.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "other2")
    containers = [host.container(f"c{index}") for index in range(12)]
    for container in containers:
        host.add("bridge", l3(), container)
    valid = [{"containerID": one.id, "ifname": "eth0"} for one in containers[::4]]
    config = l3() | {"cni.dev/valid-attachments": valid}
    assert host.call("bridge", "GC", config).status == 0
    assert len(host.ports()) == len(valid)
    assert len(host.allocated("net1")) == len(valid)
    assert host.link("other") is not None
    assert containers[0].reaches("10.1.2.6")
    host.run("ip", "link", "delete", "other")
