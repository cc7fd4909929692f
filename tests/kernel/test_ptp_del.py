"""ptp DEL, failed ADDs and GC: what is gone, in every state the world can be in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, routed
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks

FULL = routed(ipMasq=True, ipam=host_local(V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]))

# What host-local keeps: its lock, and for the round robin a marker and the index.
_KEPT = ("/net1/lock", "last_reserved_ip", "/.cni-py/")


def pairs(host: Host) -> list[str]:
    """The names of the host's ends."""
    return [one["ifname"] for one in host.ip("link", "show", "type", "veth")]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_one_attachment_leaves_no_trace(host: Host, backend: str) -> None:
    """Once the tables are there, an ADD and its DEL change nothing at all."""
    config = FULL | {"ipMasqBackend": backend}
    warm = host.container("c0")
    host.add("ptp", config, warm)
    host.delete("ptp", config, warm)
    container = host.container("c1")
    before = dump(host)
    host.add("ptp", config, container)
    assert differences(before, dump(host)) != ""
    host.delete("ptp", config, container)
    changed = [
        line
        for line in differences(before, dump(host)).splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---"))
    ]
    assert [line for line in changed if not any(name in line for name in _KEPT)] == []
    assert container.ip("link", "show", "type", "veth") == []


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("state", ["empty", "missing", "plain file", "directory", "other"])
def test_namespace_is_gone(host: Host, state: str, backend: str) -> None:
    """[W-P3, W-G4, A.19] Everything on the host goes, whatever CNI_NETNS leads to."""
    config = FULL | {"ipMasqBackend": backend}
    container = host.container("c1")
    host.add("ptp", config, container)
    path = container.netns
    if state == "empty":
        env = {"CNI_NETNS": ""}
    else:
        env = {}
        container.delete_netns()
    if state == "plain file":
        host.run("touch", path)
    elif state == "directory":
        host.run("mkdir", path)
    elif state == "other":
        # The path has been given to somebody else: his interface stays.
        host.run("ip", "netns", "add", "c1")
        container.run("ip", "link", "add", "eth0", "type", "bridge")
    host.delete("ptp", config, container, env=env)
    assert leaks(host) == []
    assert pairs(host) == []
    if state == "other":
        assert container.link()["linkinfo"]["info_kind"] == "bridge"
    # And again [DL-03].
    host.delete("ptp", config, container, env=env)


def test_link_is_gone(host: Host) -> None:
    """[W-P3] Somebody deleted the interface before."""
    config = FULL | {"ipMasqBackend": "iptables"}
    container = host.container("c1")
    host.add("ptp", config, container)
    container.run("ip", "link", "delete", "eth0")
    host.delete("ptp", config, container)
    assert leaks(host) == []


@pytest.mark.parametrize("prev", ["absent", "null", "garbage", "of the ADD"])
def test_previous_result_is_not_needed(host: Host, prev: str) -> None:
    """[DL-04]"""
    container = host.container("c1")
    result = host.add("ptp", FULL, container)
    values: dict[str, Any] = {"null": None, "garbage": {"ips": 5}, "of the ADD": result}
    config = FULL if prev == "absent" else FULL | {"prevResult": values[prev]}
    host.delete("ptp", config, container)
    assert leaks(host) == []


@pytest.mark.parametrize("keys", [{"ipMasq": False}, {"ipMasqBackend": "iptables"}, {"ipam": {}}])
def test_configuration_has_changed(host: Host, keys: dict[str, Any]) -> None:
    """DEL goes by what ADD has recorded: masquerading ends all the same."""
    container = host.container("c1")
    host.add("ptp", FULL, container)
    host.delete("ptp", FULL | keys, container)
    assert pairs(host) == []
    assert "id-c1" not in host.nft()
    if "ipam" in keys:
        assert set(host.allocated("net1")) == {"10.1.2.2", "fd00:1::2"}
        host.delete("ptp", FULL, container)


def test_never_added(host: Host) -> None:
    """[DL-03] DEL of what never was succeeds."""
    host.delete("ptp", FULL, host.container("c1"))
    assert host.run("ls", "/var/lib/cni/networks").stdout == ""


def test_own_namespace_is_left_alone(host: Host) -> None:
    """[N-06] A path that leads to the host itself: all else is released, then code 8."""
    container = host.container("c1")
    host.add("ptp", FULL, container)
    container.delete_netns()
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "uplink")
    env = {"CNI_NETNS": f"/proc/{host.holder.pid}/ns/net"}
    error = refusal(host.call("ptp", "DEL", FULL, container, env=env))
    assert error["code"] == 8
    assert host.link("eth0") is not None
    host.attachments.clear()
    host.run("ip", "link", "delete", "eth0")
    assert leaks(host) == []


def test_address_is_released_last(host: Host) -> None:
    """[W-G3] While the address is still in use it cannot be given to another container."""
    container = host.container("c1")
    host.add("ptp", routed(), container)
    env = container.environ("DEL") | {"CNI_PY_SOCKET": ""}
    trace = ("strace", "-f", "-o", "/run/trace", "-e", "trace=sendto,unlink,unlinkat")
    host.run(*trace, f"{BIN}/ptp", stdin=json.dumps(routed()), env=env)
    lines = host.run("cat", "/run/trace").stdout.splitlines()
    deleted = next(index for index, line in enumerate(lines) if "RTM_DELLINK" in line)
    released = next(index for index, line in enumerate(lines) if "/net1/10.1.2.2" in line)
    assert deleted < released
    host.attachments.clear()


@pytest.mark.parametrize("plugin", ["bridge", "ptp", "nobody"])
def test_another_networks_interface_stays(host: Host, plugin: str) -> None:
    """DEL of a network that the container was never on, under the name that another one has."""
    container = host.container("c1")
    if plugin == "nobody":
        # A pair that somebody else has made by hand.
        host.run("ip", "link", "add", "other", "type", "veth", "peer", "eth0", "netns", "c1")
        host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "other")
    else:
        host.add(plugin, routed(type=plugin), container)
    host.delete("ptp", FULL | {"name": "net2"}, container)
    assert len(container.ip("link", "show", "type", "veth")) == 1
    if plugin == "nobody":
        host.run("ip", "link", "delete", "other")


# A second ADD.


def test_second_add_while_the_first_lives(host: Host) -> None:
    """[W-G20, A-06] Refused, with the words to act on, and the first keeps working."""
    container = host.container("c1")
    host.add("ptp", FULL, container)
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", FULL, container))
    assert "already attached as eth0" in error["msg"]
    assert "DEL" in error["details"]
    assert differences(before, dump(host)) == ""
    assert container.reaches("10.1.2.1")


@pytest.mark.parametrize("path", ["same", "other"])
def test_second_add_after_the_namespace_went(host: Host, path: str) -> None:
    """[W-G20] The sandbox is made anew without a DEL: the ADD succeeds, with nothing left over."""
    container = host.container("c1")
    host.add("ptp", FULL, container)
    container.delete_netns()
    again = host.container("c1" if path == "same" else "c2", container.id)
    host.add("ptp", FULL, again)
    assert len(pairs(host)) == 1
    assert len(host.allocated("net1")) == 2
    assert again.reaches("10.1.2.1")


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_second_interface_of_one_container(host: Host, backend: str) -> None:
    """[W-G14, W-MQ3] Each interface has its own masquerading; one's DEL leaves the other's."""
    config = routed(ipMasq=True, ipMasqBackend=backend)
    container = host.container("c1")
    host.add("ptp", config, container)
    # The subnet's route is the first one's: the second address has a gateway of its own.
    pool = {"type": "static", "addresses": [{"address": "10.1.3.2/24", "gateway": "10.1.3.1"}]}
    host.add("ptp", config | {"ipam": pool}, container, "net1")
    host.delete("ptp", config, container)
    rules = host.nft() + str(host.iptables())
    assert "10.1.3.2" in rules
    assert "10.1.2.2" not in rules
    assert container.reaches("10.1.3.1")
    host.delete("ptp", config | {"ipam": pool}, container, "net1")
    assert leaks(host) == []


# A failed ADD.


def executable(host: Host, script: str) -> str:
    """An IPAM plugin `own` beside ours; the CNI_PATH with both."""
    host.run("mkdir", "-p", "/run/bin")
    host.run("sh", "-c", "cat > /run/bin/own; chmod +x /run/bin/own", stdin=script)
    return f"{BIN}:/run/bin"


def test_unreachable_next_hop_leaves_nothing(host: Host) -> None:
    """[W-P1]"""
    container = host.container("c1")
    before = dump(host)
    pool = host_local(V4, V6, routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}])
    error = refusal(host.call("ptp", "ADD", FULL | {"ipam": pool}, container))
    assert error["msg"].startswith("add route 192.0.2.0/24 via 10.9.9.9 dev eth0")
    assert_undone(host, before, container)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_failing_masquerade_leaves_nothing(host: Host, backend: str) -> None:
    """[W-P1] Neither the pair nor the routes nor half of the rules."""
    if backend == "nftables":
        host.run("nft", "add table inet cni_py; add map inet cni_py masq6 { type mark : verdict; }")
    else:
        # IPv4 works, IPv6 does not.
        warm, config = host.container("c0"), routed(ipMasq=True, ipMasqBackend=backend)
        host.add("ptp", config, warm)
        host.delete("ptp", config, warm)
        host.run("nft", "add table ip6 nat; add chain ip6 nat POSTROUTING")
        host.run("nft", "add chain ip6 nat other; add rule ip6 nat other goto POSTROUTING")
    container = host.container("c1")
    before = dump(host)
    refusal(host.call("ptp", "ADD", FULL | {"ipMasqBackend": backend}, container))
    assert_undone(host, before, container)
    host.run("nft", "flush", "ruleset")


def test_failing_forwarding_leaves_nothing(host: Host) -> None:
    """[W-P2] The address is given back too."""
    key = "/proc/sys/net/ipv4/ip_forward"
    host.run("mount", "-n", "--bind", key, key)
    host.run("mount", "-n", "-o", "remount,ro,bind", key)
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", routed(), container))
    assert error["msg"].startswith("set sysctl net/ipv4/ip_forward to 1")
    assert_undone(host, before, container)


@pytest.mark.parametrize(
    "answer",
    [
        '{"cniVersion": "1.0.0"}',
        '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24"}]}',
        '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24", "gateway": "10.9.9.9"}]}',
    ],
)
def test_ipam_is_asked_to_release(host: Host, answer: str) -> None:
    """[W-P2, W-P4] Also what it has given without anything to use."""
    script = (
        f"#!/bin/sh\necho $CNI_COMMAND >> /run/verbs\n[ $CNI_COMMAND = DEL ] || echo '{answer}'\n"
    )
    path = executable(host, script)
    container = host.container("c1")
    before = dump(host)
    config = routed(cniVersion="1.0.0", ipam={"type": "own"})
    refusal(host.call("ptp", "ADD", config, container, env={"CNI_PATH": path}))
    assert host.run("cat", "/run/verbs").stdout.split() == ["ADD", "DEL"]
    host.run("rm", "/run/verbs")
    assert_undone(host, before, container)


def test_exhausted_pool_leaves_nothing(host: Host) -> None:
    small = FULL | {"ipam": host_local([{"subnet": "10.1.2.0/30"}])}
    host.add("ptp", small, host.container("c1"))
    container = host.container("c2")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", small, container))
    assert "no IP addresses available" in error["msg"]
    assert_undone(host, before, container)


def test_host_without_ipv6(host: Host) -> None:
    """The host's end cannot get the gateway's address."""
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", FULL, container))
    assert error["msg"].startswith("add address fd00:1::1/128 to veth")
    assert_undone(host, before, container)


def assert_undone(host: Host, before: dict[str, list[str]], container: Container) -> None:
    """All is as before, but for what host-local keeps of its turn."""
    kinds = ("links", "addresses", "routes", "rules", "neighbours", "nft", "iptables", "sysctls")
    after = dump(host)
    assert differences(*({kind: one[kind] for kind in kinds} for one in (before, after))) == ""
    allocated = [
        [line for line in one["files"] if not any(name in line for name in _KEPT)]
        for one in (before, after)
    ]
    assert allocated[0] == allocated[1]
    assert container.ip("link", "show", "type", "veth") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_add_undoes_itself(host: Host, number: int) -> None:
    """The runtime gives up while IPAM is busy: the ADD takes back what it has done."""
    slow = '#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && { touch /run/started; sleep 60; }\nexit 0\n'
    path = executable(host, slow)
    container = host.container("c1")
    before = dump(host)
    env = {"PATH": os.environ["PATH"]} | container.environ("ADD", path=path)
    process = subprocess.Popen(
        [*host.prefix, f"{BIN}/ptp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(routed(ipam={"type": "own"})))
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
    assert_undone(host, before, container)


def test_closed_output_undoes_the_add(host: Host) -> None:
    """[W-G8] A result that nobody can read is no result."""
    container = host.container("c1")
    # Forwarding stays on [W-G15].
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    before = dump(host)
    script = f"{BIN}/ptp > /dev/full"
    env = container.environ("ADD")
    outcome = host.run("sh", "-c", script, stdin=json.dumps(routed()), env=env, check=False)
    assert outcome.status == 1
    assert "No space left on device" in outcome.stderr
    assert_undone(host, before, container)


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_killed_at_any_moment(host: Host, verb: str) -> None:
    """SIGKILL at each message to the kernel: the next DEL, or GC, finds what is there."""
    container = host.container("c1")
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    strace = ("strace", "-qq", "-o", "/run/trace", "-e", "trace=sendto")
    run = (f"{BIN}/ptp",)
    config = json.dumps(FULL)
    gc = FULL | {"cni.dev/valid-attachments": []}
    # Twice: the first one also makes the tables.
    for _ in range(2):
        host.run(*strace, *run, stdin=config, env=env)
        assert host.call("ptp", "DEL", FULL, container).status == 0
    count = len(host.run("cat", "/run/trace").stdout.splitlines())
    assert count > 5
    for number in range(1, count + 1):
        inject = f"inject=sendto:signal=SIGKILL:when={number}"
        killed = host.run(*strace, "-e", inject, *run, stdin=config, env=env, check=False)
        assert killed.status == -signal.SIGKILL, (number, killed)
        if verb == "DEL":
            assert host.call("ptp", "DEL", FULL, container).status == 0
        else:
            assert host.call("ptp", "GC", gc).status == 0
        host.run("sh", "-c", "rm -f /run/cni-py/attachments/*")
        assert leaks(host) == [], number
        assert pairs(host) == [], number


def test_many_at_once(host: Host) -> None:
    """All succeed, each with its own route."""
    containers = [host.container(f"c{index}") for index in range(12)]
    processes = [
        subprocess.Popen(
            [*host.prefix, f"{BIN}/ptp"],
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
        host.attachments["net1", container.id, "eth0", "ptp"] = ("ptp", FULL, container, {})
    addresses = {one["ips"][0]["address"].split("/")[0] for one in results}
    assert len(addresses) == len(containers)
    own = containers[0].addresses()[0].split("/")[0]
    for address in addresses - {own}:
        assert containers[0].reaches(address), address


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_gc_removes_what_is_not_listed(host: Host, backend: str) -> None:
    """[G-01, G-07, G-08, G-09] Stale attachments of this network go; others and the living stay."""
    lost, kept, other = (host.container(name) for name in ("c1", "c2", "c3"))
    first = FULL | {"ipMasqBackend": backend}
    second = first | {"name": "net2", "ipam": host_local([{"subnet": "10.1.3.0/24"}])}
    host.add("ptp", first, lost)
    host.add("ptp", first, kept)
    host.add("ptp", second, other)
    plain = dump(host)
    assert host.call("ptp", "GC", first).status == 0
    assert differences(plain, dump(host)) == ""
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    for key in ("cni.dev/attachments", "cni.dev/valid-attachments"):
        assert host.call("ptp", "GC", first | {key: valid}).status == 0
        assert len(pairs(host)) == 2
        assert set(host.allocated("net1")) == {"10.1.2.3", "fd00:1::3"}
        rules = host.nft() + str(host.iptables())
        assert lost.id not in rules
        assert kept.id in rules
        assert other.id in rules
    assert kept.reaches("10.1.2.1")
    assert other.reaches("10.1.3.1")
    assert lost.ip("link", "show", "type", "veth") == []
