"""tap: the device in every form, its failures, and what takes it down again."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import struct
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import V4, V6, host_local
from fixtures.dump import dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.reference import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAC = "02:00:00:00:00:07"
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.9", "priority": 7}]


def l2(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net1", "type": "tap", **keys}


def l3(*ranges: Any, routes: Any = (), **keys: Any) -> dict[str, Any]:
    return l2(ipam=host_local(*ranges, routes=list(routes)), **keys)


def info(container: Container, name: str = "eth0") -> dict[str, Any]:
    """What the kernel says of the device."""
    shown = container.link(name)["linkinfo"]
    assert shown["info_kind"] == "tun"
    data: dict[str, Any] = shown["info_data"]
    return data


def opened_in(container: Container, user: int, group: int, multi_queue: bool = False) -> int:
    """0, or the errno with which a process without capabilities fails to use the device."""
    flags = 0x1002 | (0x100 if multi_queue else 0)
    script = (
        "import fcntl, os, struct, sys\n"
        "fd = os.open('/dev/net/tun', os.O_RDWR)\n"
        f"os.setgroups([]); os.setgid({group}); os.setuid({user})\n"
        "try:\n"
        f"    fcntl.ioctl(fd, 0x400454CA, struct.pack('16sH22x', b'eth0', {flags}))\n"
        "except OSError as error:\n"
        "    sys.exit(error.errno)\n"
    )
    return container.run(sys.executable, "-IS", "-c", script, check=False).status


class Guest:
    """A virtual machine's side of a device: frames go in and come out."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, fits: Callable[[bytes], bool]) -> bytes:
        """The next frame that fits, within ten seconds."""
        deadline = time.monotonic() + 10
        while select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
            frame = os.read(self.fd, 2048)
            if fits(frame):
                return frame
        raise AssertionError("no such frame")

    def answer_arp(self, own: bytes, address: bytes) -> None:
        """Answer one request for an address."""
        asked = self.read(
            lambda one: one[12:14] == b"\x08\x06" and one[21] == 1 and one[38:42] == address
        )
        os.write(self.fd, asked[6:12] + own + asked[12:20] + b"\0\2" + own + address + asked[22:32])


@contextmanager
def guest(host: Host, container: Container) -> Iterator[Guest]:
    """Open the device as a virtual machine's monitor does, from this process."""
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/proc/{host.holder.pid}/root{container.netns}", os.O_RDONLY)
    _setns(theirs)
    try:
        # The device is looked for in the namespace in which the file was opened.
        fd = os.open("/dev/net/tun", os.O_RDWR)
    finally:
        _setns(ours)
    try:
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))
        yield Guest(fd)
    finally:
        for one in (ours, theirs, fd):
            os.close(one)


def _setns(fd: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(fd, 0x40000000) == 0, os.strerror(ctypes.get_errno())


# ADD.


def test_dual_stack(host: Host) -> None:
    """[3.9] The device, its addresses and routes, and the result."""
    container = host.container("c1")
    result = host.add("tap", l3(V4, V6, routes=ROUTES), container)
    link = container.link()
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": link["address"], "sandbox": container.netns}],
        "ips": [
            {"interface": 0, "address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"interface": 0, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
        ],
        "routes": ROUTES,
    }
    assert container.addresses() == ["10.1.2.2/24", "fd00:1::2/64"]
    routes = {(one["dst"], one.get("gateway"), one.get("metric")) for one in container.ip("route")}
    assert ("default", "10.1.2.1", None) in routes
    assert ("192.0.2.0/24", "10.1.2.9", 7) in routes
    assert {"UP", "NO-CARRIER"} <= set(link["flags"])
    shown = info(container)
    assert (shown["type"], shown["persist"], shown["multi_queue"]) == ("tap", True, False)
    assert "user" not in shown
    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"
    assert container.sysctl("net/ipv6/conf/eth0/accept_ra") == "0"
    assert f"{container.id}" in link["ifalias"]


def test_frames_reach_the_guest(host: Host) -> None:
    """A packet to a neighbour of the container comes out of the device."""
    container = host.container("c1")
    host.add("tap", l3(), container)
    with guest(host, container) as machine:
        send = "import socket as s; s.socket(2, 2).sendto(b'payload', ('10.1.2.77', 9))"
        container.run(sys.executable, "-IS", "-c", send)
        machine.answer_arp(bytes.fromhex("020000000099"), bytes((10, 1, 2, 77)))
        frame = machine.read(lambda one: one[12:14] == b"\x08\0" and one[23] == 17)
    assert frame[:6].hex() == "020000000099"
    assert frame.endswith(b"payload")


def test_layer_two(host: Host) -> None:
    container = host.container("c1")
    result = host.add("tap", l2(), container)
    link = container.link()
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": link["address"], "sandbox": container.netns}],
    }
    assert "UP" in link["flags"]
    assert container.addresses() == []


@pytest.mark.parametrize("multi_queue", [False, True])
@pytest.mark.parametrize(
    "ids",
    [{}, {"owner": 1234}, {"group": 4321}, {"owner": 1234, "group": 4321}, {"owner": 3000000000}],
    ids=str,
)
def test_mac_and_mtu_are_honoured(host: Host, ids: dict[str, int], multi_queue: bool) -> None:
    """[W-TP1, W-TP2] Also with owner and group, where the reference forgets both."""
    container = host.container("c1")
    config = l2(mac=MAC, mtu=1400, multiQueue=multi_queue, **ids)
    result = host.add("tap", config, container)
    assert result["interfaces"][0]["mac"] == MAC
    link = container.link()
    assert (link["address"], link["mtu"]) == (MAC, 1400)
    shown = info(container)
    assert shown["multi_queue"] is multi_queue
    assert shown["vnet_hdr"] is True
    checked = config | {"prevResult": result}
    assert host.call("tap", "CHECK", checked, container).status == 0
    owner, group = ids.get("owner", 1), ids.get("group", 1)
    assert opened_in(container, owner, group, multi_queue) == 0
    # The wrong kind of queue.
    assert opened_in(container, owner, group, not multi_queue) == errno.EINVAL
    if ids:
        assert opened_in(container, 1, 1, multi_queue) == errno.EPERM


@pytest.mark.parametrize(
    ("keys", "args", "expected"),
    [
        ({"mac": MAC}, "", MAC),
        ({"mac": "02-00-00-00-00-0A"}, "", "02:00:00:00:00:0a"),
        ({"mac": MAC}, "MAC=02:00:00:00:00:08", "02:00:00:00:00:08"),
        ({}, "IgnoreUnknown=1;K8S_POD_NAME=a;MAC=0200.0000.0008", "02:00:00:00:00:08"),
        (
            {"mac": MAC, "runtimeConfig": {"mac": "02:00:00:00:00:09"}},
            "MAC=02:00:00:00:00:08",
            "02:00:00:00:00:09",
        ),
    ],
)
def test_sources_of_the_mac(host: Host, keys: dict[str, Any], args: str, expected: str) -> None:
    """The capability wins over CNI_ARGS, which win over the key."""
    container = host.container("c1")
    result = host.add("tap", l2(**keys), container, env={"CNI_ARGS": args})
    assert result["interfaces"][0]["mac"] == expected
    assert container.link()["address"] == expected


def test_port_of_a_bridge_in_the_container(host: Host) -> None:
    container = host.container("c1")
    container.run("ip", "link", "add", "br0", "type", "bridge")
    config = l2(bridge="br0")
    result = host.add("tap", config, container)
    assert container.link()["master"] == "br0"
    checked = config | {"prevResult": result}
    assert host.call("tap", "CHECK", checked, container).status == 0
    container.run("ip", "link", "set", "eth0", "nomaster")
    error = refusal(host.call("tap", "CHECK", checked, container))
    assert error["msg"] == "bridge of interface eth0 differs"


@pytest.mark.parametrize(
    ("own", "pool", "expected"),
    [
        ({}, {"nameservers": ["192.0.2.53"]}, {"nameservers": ["192.0.2.53"]}),
        ({"domain": "a"}, {"nameservers": ["192.0.2.53"]}, {"domain": "a"}),
    ],
)
def test_dns(host: Host, own: Any, pool: Any, expected: Any) -> None:
    """[W-G13] IPAM's dns is kept unless the configuration has its own."""
    ipam = {"type": "static", "addresses": [{"address": "10.1.2.9/24"}], "dns": pool}
    container = host.container("c1")
    assert host.add("tap", l2(ipam=ipam, dns=own), container)["dns"] == expected


def test_selinux_context_without_selinux(host: Host) -> None:
    """As in the reference, the key means nothing where there is no SELinux."""
    container = host.container("c1")
    host.add("tap", l2(selinuxContext="system_u:system_r:container_t:s0"), container)
    assert info(container)["type"] == "tap"


def test_created_in_a_process_of_its_own(host: Host) -> None:
    """The way that a device gets another SELinux label; the label itself needs SELinux."""
    container = host.container("c1")
    script = (
        "from cni_py.kernel import tap\n"
        "wanted = tap.Wanted('eth0', 3000000000, 7, True)\n"
        "tap._carry_out([*tap._ioctls(wanted), ('keep', tap._TUNSETPERSIST, 1)])\n"
    )
    container.run(sys.executable, "-c", script)
    shown = info(container)
    assert (shown["persist"], shown["multi_queue"]) == (True, True)
    assert opened_in(container, 3000000000, 7, True) == 0
    again = container.run(sys.executable, "-c", script, check=False)
    assert "create tap eth0: Device or resource busy" in again.stderr


# A failed ADD leaves nothing.

REFUSED = {
    "mtu too small": ({"mtu": 67}, 7, "invalid mtu 67"),
    "mtu too large": ({"mtu": 65522}, 7, "invalid mtu 65522"),
    "mac": ({"mac": "02:00"}, 7, 'invalid mac "02:00"'),
    "multicast mac": ({"mac": "03:00:00:00:00:01"}, 7, "multicast"),
    "owner": ({"owner": -1}, 7, "$.owner"),
    "group": ({"group": 4294967295}, 7, "$.group"),
    "owner as text": ({"owner": "root"}, 7, "$.owner"),
    "bridge is missing": ({"bridge": "br9"}, 999, "failed to get bridge br9"),
    "bridge is none": ({"bridge": "lo"}, 999, '"lo" already exists but is not a bridge'),
    "bridge's name": ({"bridge": "a/b"}, 7, 'bridge "a/b"'),
    "version": ({"cniVersion": "0.2.0"}, 7, "cannot convert: no valid IP addresses"),
    "no such ipam": ({"ipam": {"type": "nobody"}}, None, "nobody"),
    "pool": (
        {"ipam": host_local([{"subnet": "10.1.2.0/30", "rangeEnd": "10.1.2.1"}])},
        None,
        "no IP addresses available",
    ),
    "route": (
        {"ipam": host_local(V4, routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}])},
        999,
        "add route 192.0.2.0/24 via 10.9.9.9 dev eth0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_failed_add_leaves_nothing(host: Host, case: str) -> None:
    """[W-TP3, W-TP4]"""
    keys, code, text = REFUSED[case]
    container = host.container("c1")
    # host-local's folder stays when it was used once.
    host.add("tap", l3(), container, "first")
    host.delete("tap", l3(), container, "first")
    before, inside = dump(host), container.ip("addr")
    error = refusal(host.call("tap", "ADD", l2(**keys), container))
    assert code in (None, error["code"])
    assert text in error["msg"]
    assert container.ip("addr") == inside
    after = dump(host)
    for kind in before:
        if kind not in ("files", "folders"):
            assert before[kind] == after[kind]
    assert leaks(host) == []


def test_unknown_argument(host: Host) -> None:
    error = refusal(
        host.call("tap", "ADD", l2(), host.container("c1"), env={"CNI_ARGS": "COLOUR=red"})
    )
    assert (error["code"], "COLOUR=red" in error["msg"]) == (4, True)


@pytest.mark.parametrize("kind", ["dummy tap", "bridge"])
def test_name_is_taken(host: Host, kind: str) -> None:
    """A device that is there is neither opened nor changed."""
    container = host.container("c1")
    if kind == "bridge":
        container.run("ip", "link", "add", "eth0", "type", "bridge")
    else:
        container.run("ip", "tuntap", "add", "mode", "tap", "name", "eth0")
    before = container.ip("link")
    error = refusal(host.call("tap", "ADD", l3(mtu=1400), container))
    assert error["msg"] == "interface eth0 already exists in /run/netns/c1"
    assert container.ip("link") == before
    assert host.allocated("net1") == {}


def test_second_add_is_refused(host: Host) -> None:
    container = host.container("c1")
    host.add("tap", l3(), container)
    before = container.ip("addr")
    error = refusal(host.call("tap", "ADD", l3(), container))
    assert "already exists" in error["msg"]
    assert container.ip("addr") == before
    assert host.allocated("net1") != {}


def test_killed_add_leaves_no_device(host: Host) -> None:
    """The device lives with its process until all is done."""
    host.run("mkdir", "/run/bin")
    slow = "#!/bin/sh\ntouch /run/started\nkill -9 $PPID\n"
    host.run("sh", "-c", "cat > /run/bin/slow; chmod +x /run/bin/slow", stdin=slow)
    container = host.container("c1")
    env = container.environ("ADD", path="/run/bin") | {"CNI_PY_SOCKET": ""}
    config = json.dumps(l2(ipam={"type": "slow"}))
    outcome = host.run(f"{BIN}/tap", stdin=config, env=env, check=False)
    assert outcome.status != 0
    host.run("test", "-e", "/run/started")
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]
    host.run("rm", "-f", f"/run/cni-py/attachments/{_lock_of(container)}")


def _lock_of(container: Container) -> str:
    from cni_py.spec.attachment import Attachment

    return f"tap-{Attachment('net1', container.id, 'eth0').key}"


def test_closed_output_undoes_the_add(host: Host) -> None:
    """[W-G8]"""
    container = host.container("c1")
    script = f"{BIN}/tap > /dev/full"
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    outcome = host.run("sh", "-c", script, stdin=json.dumps(l3()), env=env, check=False)
    assert outcome.status == 1
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]
    assert leaks(host) == []


def test_ipv6_is_turned_on(host: Host) -> None:
    container = host.container("c1")
    for name in ("all", "default", "lo"):
        container.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    host.add("tap", l3(V6), container)
    assert container.addresses() == ["fd00:1::2/64"]


# DEL.


@pytest.mark.parametrize("state", ["there", "empty", "missing", "plain file", "other"])
def test_del_matrix(host: Host, state: str) -> None:
    """[A.19, W-G4] The address is released whatever CNI_NETNS leads to."""
    container = host.container("c1")
    host.add("tap", l3(V4, V6), container)
    if state != "there":
        container.delete_netns()
    if state == "plain file":
        host.run("touch", container.netns)
    elif state == "other":
        # The path has been given to another attachment of the same network.
        other = host.container("c1", "other")
        host.add("tap", l3(V4, V6), other)
    env = {"CNI_NETNS": ""} if state == "empty" else {}
    for _ in range(2):
        host.delete("tap", l3(V4, V6), container, env=env)
    if state == "other":
        assert other.addresses() == ["10.1.2.3/24", "fd00:1::3/64"]
        host.delete("tap", l3(V4, V6), other)
    if state in ("there", "other"):
        assert [one["ifname"] for one in container.ip("link")] == ["lo"]
    assert leaks(host) == []


def test_del_spares_what_is_no_tap(host: Host) -> None:
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    container.run("ip", "tuntap", "add", "mode", "tun", "name", "net1")
    host.delete("tap", l2(), container)
    assert container.link()["linkinfo"]["info_kind"] == "bridge"


def test_del_with_a_configuration_that_add_refuses(host: Host) -> None:
    container = host.container("c1")
    host.add("tap", l3(), container)
    host.delete("tap", l3(mtu=-5, mac="x", owner="y", bridge="a/b"), container)
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]
    assert leaks(host) == []


def test_address_is_released_last(host: Host) -> None:
    """[W-G3]"""
    container = host.container("c1")
    host.add("tap", l3(), container)
    env = container.environ("DEL") | {"CNI_PY_SOCKET": ""}
    command = ("strace", "-f", "-o", "/run/trace", "-e", "trace=sendto,unlink,unlinkat")
    host.run(*command, f"{BIN}/tap", stdin=json.dumps(l3()), env=env)
    lines = host.run("cat", "/run/trace").stdout.splitlines()
    # strace knows no names for a socket of another namespace: 0x11 is RTM_DELLINK.
    deleted = next(index for index, line in enumerate(lines) if "nlmsg_type=0x11" in line)
    released = next(index for index, line in enumerate(lines) if "/net1/10.1.2.2" in line)
    assert deleted < released
    host.attachments.clear()


def test_failing_ipam_does_not_keep_the_device(host: Host) -> None:
    container = host.container("c1")
    host.add("tap", l2(), container)
    outcome = host.call("tap", "DEL", l2(ipam={"type": "nobody"}), container)
    assert "nobody" in refusal(outcome)["msg"]
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]


# CHECK.

CHECKED = l3(V4, V6, routes=ROUTES, mac=MAC, mtu=1400, owner=1234, group=7, multiQueue=True)
RECREATE = "ip link del eth0; ip tuntap add mode tap name eth0"
DRIFTS = {
    "ip link set eth0 down": "state of interface eth0 differs",
    "ip link set eth0 mtu 1300": "mtu of interface eth0 differs",
    "ip link set eth0 address 02:00:00:00:00:99": "mac of interface eth0 differs",
    "ip addr del 10.1.2.2/24 dev eth0": "address of interface eth0 differs",
    "ip addr del fd00:1::2/64 dev eth0": "address of interface eth0 differs",
    "ip route del 192.0.2.0/24": "route 192.0.2.0/24 of interface eth0 differs",
    "ip link del eth0": "interface eth0 in /run/netns/c1 differs",
    "ip link del eth0; ip link add eth0 type bridge": "kind of interface eth0 differs",
    f"{RECREATE} user 1234 group 7": "multiQueue of interface eth0 differs",
    f"{RECREATE} multi_queue user 1235 group 7": "owner of interface eth0 differs",
    f"{RECREATE} multi_queue user 1234": "group of interface eth0 differs",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_named(host: Host, drift: str) -> None:
    """[W-TP5]"""
    container = host.container("c1")
    config = CHECKED | {"prevResult": host.add("tap", CHECKED, container)}
    assert host.call("tap", "CHECK", config, container).status == 0
    container.run("sh", "-c", drift)
    if "tuntap" in drift:
        container.run("ip", "link", "set", "eth0", "address", MAC, "mtu", "1400", "up")
    error = refusal(host.call("tap", "CHECK", config, container))
    assert error["msg"] == DRIFTS[drift]


def test_check_while_in_use(host: Host) -> None:
    """A virtual machine that has opened the device is no drift."""
    container = host.container("c1")
    config = l3()
    config |= {"prevResult": host.add("tap", config, container)}
    with guest(host, container):
        assert host.call("tap", "CHECK", config, container).status == 0


def test_check_needs_the_previous_result(host: Host) -> None:
    container = host.container("c1")
    result = host.add("tap", l2(), container)
    error = refusal(host.call("tap", "CHECK", l2(), container))
    assert error["msg"] == "Required prevResult missing"
    result["interfaces"][0]["sandbox"] = "/elsewhere"
    error = refusal(host.call("tap", "CHECK", l2(prevResult=result), container))
    assert error["msg"].startswith("Sandbox in prevResult")


# STATUS and GC.


def test_status(host: Host) -> None:
    """[W-G2]"""
    assert host.call("tap", "STATUS", l3()).status == 0
    error = refusal(host.call("tap", "STATUS", l3(mtu=5)))
    assert (error["code"], error["msg"]) == (50, "invalid mtu 5")
    small = l3([{"subnet": "10.1.2.0/30"}])
    host.add("tap", small, host.container("c1"))
    assert refusal(host.call("tap", "STATUS", small))["code"] == 50


def test_status_without_the_device(host: Host) -> None:
    """[W-G2] A node without /dev/net/tun is not ready."""
    host.run("mount", "-t", "tmpfs", "none", "/dev/net")
    error = refusal(host.call("tap", "STATUS", l3()))
    assert (error["code"], error["msg"]) == (50, "open /dev/net/tun: No such file or directory")
    container = host.container("c1")
    error = refusal(host.call("tap", "ADD", l3(), container))
    assert error["msg"] == "open /dev/net/tun: No such file or directory"
    assert host.allocated("net1") == {}


def test_gc_releases_addresses(host: Host) -> None:
    """[W-G1]"""
    lost, kept = host.container("c1"), host.container("c2")
    host.add("tap", l3(), lost)
    host.add("tap", l3(), kept)
    lost.delete_netns()
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    assert host.call("tap", "GC", l3() | {"cni.dev/valid-attachments": valid}).status == 0
    assert set(host.allocated("net1")) == {"10.1.2.3"}
    assert kept.addresses() == ["10.1.2.3/24"]


# Beside the reference.

SHARED = {
    "layer 2": l2(),
    "dual stack": l3(V4, V6, routes=ROUTES),
    "owner and group": l2(owner=1234, group=7),
    "mac and mtu": l2(mac=MAC, mtu=1400),
    "multi queue": l3(multiQueue=True, dns={"domain": "a"}),
    "owner, multi queue": l2(owner=1234, multiQueue=True, mac=MAC, mtu=1400),
}


def seen(container: Container, result: dict[str, Any], *, fixed: bool) -> dict[str, Any]:
    """The result, and what the kernel shows, without what is random."""
    if not fixed:
        result["interfaces"][0]["mac"] = "<mac>"
    shown = info(container)
    keys = ("type", "persist", "multi_queue", "user", "group")
    link = container.link()
    return {
        "result": result,
        "device": {key: shown.get(key) for key in keys},
        "link": {key: link[key] for key in ("mtu", "operstate", "flags")},
        "addresses": container.addresses(),
        "routes": [container.ip("route"), container.ip("-6", "route")],
    }


@pytest.mark.parametrize("case", SHARED)
def test_same_result_and_state_as_the_reference(host: Host, case: str) -> None:
    config, theirs = SHARED[case], reference(host, "tap")
    first, second = host.container("c1"), host.container("c2")
    fixed = "mac" in config
    outcome = theirs.call("tap", "ADD", config, first)
    assert outcome.status == 0
    expected = seen(first, outcome.json, fixed=fixed)
    theirs.delete("tap", config, first)
    # The next address would be another one.
    host.run("sh", "-c", "rm -rf /var/lib/cni/networks/*")
    found = seen(second, host.add("tap", config, second), fixed=fixed)
    found["result"]["interfaces"][0]["sandbox"] = first.netns
    assert found == expected


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("maker", ["ours", "theirs"])
def test_each_takes_down_the_others(host: Host, case: str, maker: str) -> None:
    """CHECK and DEL by the one of what the other has set up."""
    config, theirs = SHARED[case], reference(host, "tap")
    maker_host, other = (host, theirs) if maker == "ours" else (theirs, host)
    container = host.container("c1")
    outcome = maker_host.call("tap", "ADD", config, container)
    assert outcome.status == 0, outcome
    config = config | {"prevResult": outcome.json}
    outcome = other.call("tap", "CHECK", config, container)
    # The reference's CHECK finds no gateway where there is no address.
    assert outcome.status == 0, outcome
    other.delete("tap", config, container)
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]
    # Our index learns at the next call of what the reference has released.
    host.delete("tap", config, container)
    assert leaks(host) == []
