"""host-device: a device is moved, and comes back as it was, in every state the world can be in."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.reference import reference

MAC = "02:00:00:00:0a:01"
RECORDS = "/var/lib/cni/cni-py/host-device"
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.9", "priority": 7}]
LONG_ALIAS = "uplink of rack 7, " + "x" * 230


def l2(**keys: Any) -> dict[str, Any]:
    base = {"cniVersion": "1.1.0", "name": "net1", "type": "host-device", "device": "nic0"}
    return {key: value for key, value in (base | keys).items() if value is not None}


def l3(*ranges: Any, routes: Any = (), **keys: Any) -> dict[str, Any]:
    return l2(ipam=host_local(*ranges, routes=list(routes)), **keys)


def make(host: Host, kind: str = "veth", name: str = "nic0") -> None:
    """A device that stands for a NIC: up, with everything that is to be restored."""
    if kind == "veth":
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"far-{name}")
        host.run("ip", "link", "set", f"far-{name}", "up")
    elif kind == "tap":
        host.run("ip", "tuntap", "add", "mode", "tap", "name", name)
    else:
        host.run("ip", "link", "add", "wire", "type", "ifb")
        host.run("ip", "link", "set", "wire", "up")
        host.run("ip", "link", "add", "link", "wire", "name", name, "type", "macvlan")
    host.run("ip", "link", "set", name, "address", MAC, "mtu", "1400", "alias", LONG_ALIAS, "up")
    host.run("ip", "addr", "add", "198.51.100.7/24", "dev", name)
    host.run("ip", "addr", "add", "198.51.100.8/24", "dev", name)
    host.run("ip", "addr", "add", "fd00:9::7/64", "dev", name, "nodad")
    if kind == "veth":
        groups = [f"ff00::/8 dev {one}" for one in (name, f"far-{name}")]
        _settle(host, f"local fd00:9::7 dev {name}", *groups)


def _settle(host: Host, *routes: str) -> None:
    """Wait until the kernel has taken notice of the carriers."""
    deadline = time.monotonic() + 10
    while not all(
        one in host.run("ip", "-6", "route", "show", "table", "local").stdout for one in routes
    ):
        assert time.monotonic() < deadline, routes


@pytest.fixture
def nic(host: Host) -> Host:
    """A host with a device nic0."""
    make(host)
    return host


def names(container: Container) -> list[str]:
    return [one["ifname"] for one in container.ip("link")]


def state(host: Host, name: str = "nic0") -> dict[str, Any]:
    """What DEL has to restore."""
    (shown,) = host.ip("addr", "show", "dev", name)
    have = [one for one in shown["addr_info"] if one["scope"] != "link"]
    keys = ("ifname", "address", "mtu", "ifalias")
    return {key: shown.get(key) for key in keys} | {
        "up": "UP" in shown["flags"],
        "addresses": sorted(f"{one['local']}/{one['prefixlen']}" for one in have),
    }


# ADD.


@pytest.mark.parametrize("kind", ["veth", "tap", "macvlan"])
def test_moved_and_given_back(host: Host, kind: str) -> None:
    """[A.8, W-HD4, W-HD6] With its address in the container, and what it was afterwards."""
    make(host, kind)
    before, all_before = state(host), dump(host)
    container = host.container("c1")
    config = l3(V4, V6, routes=ROUTES)
    result = host.add("host-device", config, container, "net1")
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "mac": MAC, "sandbox": container.netns}],
        "ips": [
            {"interface": 0, "address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"interface": 0, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
        ],
        "routes": ROUTES,
    }
    assert host.link("nic0") is None
    link = container.link("net1")
    assert (link["ifalias"], link["address"], link["mtu"]) == ("nic0", MAC, 1400)
    assert "UP" in link["flags"]
    assert container.addresses("net1") == ["10.1.2.2/24", "fd00:1::2/64"]
    routes = {(one["dst"], one.get("gateway"), one.get("metric")) for one in container.ip("route")}
    assert {("default", "10.1.2.1", None), ("192.0.2.0/24", "10.1.2.9", 7)} <= routes
    checked = config | {"prevResult": result}
    assert host.call("host-device", "CHECK", checked, container, "net1").status == 0
    for _ in range(2):
        host.delete("host-device", config, container, "net1")
        assert state(host) == before
    assert names(container) == ["lo"]
    after = dump(host)
    for part in ("addresses", "routes", "sysctls"):
        assert sorted(all_before[part]) == sorted(after[part])
    assert leaks(host) == []
    assert host.files(RECORDS) == {}


def test_packets_pass(nic: Host) -> None:
    nic.run("ip", "addr", "add", "10.1.2.1/24", "dev", "far-nic0")
    container = nic.container("c1")
    nic.add("host-device", l3(), container)
    assert container.reaches("10.1.2.1")


def test_layer_two(nic: Host) -> None:
    container = nic.container("c1")
    result = nic.add("host-device", l2(dns={"domain": "a"}), container)
    assert result["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": container.netns}]
    assert result["dns"] == {"domain": "a"}
    assert "UP" in container.link()["flags"]
    assert container.addresses() == []


def test_record_is_for_root_alone(nic: Host) -> None:
    nic.add("host-device", l2(), nic.container("c1"))
    listed = nic.run("stat", "-c", "%a %U", RECORDS, *nic.files(RECORDS)).stdout.split("\n")
    assert listed[:2] == ["700 root", "600 root"]


@pytest.mark.parametrize(
    "keys",
    [
        {"hwaddr": MAC},
        {"hwaddr": MAC.upper().replace(":", "-")},
        {"kernelpath": "/sys/devices/virtual/net/nic0"},
        {"device": "nic0", "hwaddr": "02:00:00:00:00:99", "kernelpath": "/sys/devices/nothing"},
        {"hwaddr": MAC, "kernelpath": "/sys/devices/nothing", "pciBusID": "0000:ff:1f.7"},
        {"HWAddr": MAC, "pcibusid": None},
    ],
    ids=str,
)
def test_ways_to_name_the_device(nic: Host, keys: dict[str, Any]) -> None:
    """device, hwaddr, kernelpath, pciBusID: the first that is set counts."""
    container = nic.container("c1")
    config = l2(device=None) | keys
    nic.add("host-device", config, container)
    assert container.link()["ifalias"] == "nic0"
    nic.delete("host-device", config, container)
    assert nic.link("nic0") is not None


def test_kernelpath_with_a_folder_of_interfaces(host: Host) -> None:
    """A device's folder has its interfaces below `net`: the first by name."""
    host.run("ip", "link", "add", "aaa1", "type", "veth", "peer", "name", "aaa0")
    container = host.container("c1")
    config = l2(device=None, kernelpath="/sys/devices/virtual/")
    host.add("host-device", config, container)
    assert container.link()["ifalias"] == "aaa0"


def test_same_name_on_both_sides(host: Host) -> None:
    """The container's name is in use on the host, and the host's in the container."""
    make(host)
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    container = host.container("c1")
    container.run("ip", "link", "add", "nic0", "type", "bridge")
    before = state(host)
    host.add("host-device", l3(), container)
    assert container.link()["ifalias"] == "nic0"
    host.delete("host-device", l3(), container)
    assert state(host) == before
    assert names(container) == ["lo", "nic0"]


@pytest.mark.parametrize(
    ("own", "pool", "expected"),
    [
        ({}, {"nameservers": ["192.0.2.53"]}, {"nameservers": ["192.0.2.53"]}),
        ({"domain": "a"}, {"nameservers": ["192.0.2.53"]}, {"domain": "a"}),
    ],
)
def test_dns(nic: Host, own: Any, pool: Any, expected: Any) -> None:
    """[W-G13]"""
    ipam = {"type": "static", "addresses": [{"address": "10.1.2.9/24"}], "dns": pool}
    container = nic.container("c1")
    assert nic.add("host-device", l2(ipam=ipam, dns=own), container)["dns"] == expected


def test_ipv6_is_turned_on(nic: Host) -> None:
    container = nic.container("c1")
    for name in ("all", "default", "lo"):
        container.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    nic.add("host-device", l3(V6), container)
    assert container.addresses() == ["fd00:1::2/64"]


# A failed ADD.

REFUSED = {
    "nothing named": ({"device": None}, 7, 'specify either "device", "hwaddr"'),
    "missing": ({"device": "nic9"}, 999, 'failed to find host device: device "nic9"'),
    "no such address": (
        {"device": None, "hwaddr": "02:00:00:00:00:99"}, 999, 'hwaddr "02:00:00:00:00:99"',
    ),
    "bad address": ({"device": None, "hwaddr": "02"}, 7, 'invalid mac "02"'),
    "path outside": ({"device": None, "kernelpath": "/etc"}, 7, "begin with /sys/devices/"),
    "path climbs": ({"device": None, "kernelpath": "/sys/devices/../x"}, 7, "begin with"),
    "path is missing": (
        {"device": None, "kernelpath": "/sys/devices/none"}, 999, "/sys/devices/none",
    ),
    "path without": ({"device": None, "kernelpath": "/sys/devices/system"}, 999, "kernelpath"),
    "pci": ({"device": None, "pciBusID": "0000:ff:1f.7"}, 999, 'pciBusID "0000:ff:1f.7"'),
    "pci climbs": ({"device": None, "pciBusID": "../x"}, 7, 'pciBusID "../x"'),
    "device id": (
        {"device": None, "runtimeConfig": {"deviceID": "0000:ff:1f.7"}}, 999,
        "runtime config DeviceID 0000:ff:1f.7 not found or unsupported",
    ),
    "name": ({"device": "a/b"}, 7, 'device "a/b"'),
    "version": ({"cniVersion": "0.2.0"}, 7, "cannot convert: no valid IP addresses"),
    "loopback": ({"device": "lo"}, 999, "move link lo to eth0: Invalid argument"),
    "a bridge": ({"device": "br0"}, 999, "move link br0 to eth0: Invalid argument"),
    "no such ipam": ({"ipam": {"type": "nobody"}}, None, "nobody"),
    "pool": (
        {"ipam": host_local([{"subnet": "10.1.2.0/30", "rangeEnd": "10.1.2.1"}])}, None,
        "no IP addresses available",
    ),
    "route": (
        {"ipam": host_local(V4, routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}])}, 999,
        "add route 192.0.2.0/24 via 10.9.9.9 dev eth0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_failed_add_leaves_everything_as_it_was(nic: Host, case: str) -> None:
    """[W-HD3] Also the addresses that the device had on the host."""
    keys, code, text = REFUSED[case]
    nic.run("ip", "link", "add", "br0", "type", "bridge")
    container = nic.container("c1")
    before, own, inside = dump(nic), state(nic), container.ip("addr")
    error = refusal(nic.call("host-device", "ADD", l2(**keys), container))
    assert code in (None, error["code"])
    assert text in error["msg"]
    assert container.ip("addr") == inside
    assert state(nic) == own
    after = dump(nic)
    for kind in ("addresses", "routes", "rules", "sysctls", "nft"):
        assert sorted(before[kind]) == sorted(after[kind])
    assert leaks(nic) == []
    assert nic.run("ls", RECORDS, check=False).stdout == ""


def test_name_is_taken(nic: Host) -> None:
    container = nic.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    before = dump(nic)
    error = refusal(nic.call("host-device", "ADD", l3(), container))
    assert error["msg"] == "interface eth0 already exists in /run/netns/c1"
    assert differences(before, dump(nic)) == ""


def test_second_add_is_refused(nic: Host) -> None:
    """By the same container, and by another one."""
    container, other = nic.container("c1"), nic.container("c2")
    nic.add("host-device", l3(), container)
    before, inside = dump(nic), container.ip("addr")
    error = refusal(nic.call("host-device", "ADD", l3(), container))
    assert "already exists" in error["msg"]
    container.run("ip", "link", "set", "eth0", "down", "name", "moved")
    error = refusal(nic.call("host-device", "ADD", l3(), container))
    assert error["msg"] == "container id-c1 already has device nic0"
    assert "as moved" in error["details"]
    error = refusal(nic.call("host-device", "ADD", l3(), container, "eth1"))
    assert error["msg"] == 'failed to find host device: device "nic0"'
    assert error["details"] == "the container has it as moved"
    refusal(nic.call("host-device", "ADD", l3(), other))
    assert differences(before, dump(nic)) == ""
    assert [one["address"] for one in container.ip("link")] == [one["address"] for one in inside]


def test_add_after_the_container_went(host: Host) -> None:
    """[W-G20] A veth is destroyed with its namespace; a new one of that name is another device."""
    make(host)
    first = host.container("c1")
    host.add("host-device", l3(), first)
    first.delete_netns()
    deadline = time.monotonic() + 10
    while host.link("far-nic0") is not None:
        assert time.monotonic() < deadline
    make(host)
    second = host.container("c2", first.id)
    host.add("host-device", l3(), second)
    assert second.link()["ifalias"] == "nic0"
    assert len(host.files(RECORDS)) == 1


def test_many_want_one_device(nic: Host) -> None:
    """One gets it, the others fail and change nothing; its DEL gives it back."""
    before = state(nic)
    containers = [nic.container(f"c{index}") for index in range(6)]
    processes = [
        subprocess.Popen(
            [*nic.prefix, f"{BIN}/host-device"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]} | one.environ("ADD"),
        )
        for one in containers
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(l3()).encode())
        process.stdin.close()
    for process in processes:
        assert process.stdout is not None
        process.stdout.read()
        process.stdout.close()
    statuses = [process.wait(60) for process in processes]
    assert sorted(statuses) == [0, 1, 1, 1, 1, 1]
    owner = containers[statuses.index(0)]
    assert owner.link()["ifalias"] == "nic0"
    assert len(nic.files(RECORDS)) == 1
    assert len(nic.allocated("net1")) == 1
    for container in containers:
        if container is not owner:
            nic.delete("host-device", l3(), container)
    assert names(owner) == ["lo", "eth0"]
    nic.delete("host-device", l3(), owner)
    assert state(nic) == before
    assert leaks(nic) == []


def test_closed_output_undoes_the_add(nic: Host) -> None:
    """[W-G8]"""
    container = nic.container("c1")
    before = state(nic)
    script = f"{BIN}/host-device > /dev/full"
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    outcome = nic.run("sh", "-c", script, stdin=json.dumps(l3()), env=env, check=False)
    assert outcome.status == 1
    assert state(nic) == before
    assert leaks(nic) == []


@pytest.mark.parametrize("point", ["before the move", "after the move"])
def test_killed_add_is_undone_by_del(nic: Host, point: str) -> None:
    """Whatever a crash leaves between the record and the result, DEL clears up."""
    container = nic.container("c1")
    before = state(nic)
    # The record is written before the move, and again afterwards.
    when = 1 if point == "before the move" else 2
    fault = f"inject=linkat:signal=KILL:when={when}"
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    command = ("strace", "-f", "-o", "/run/trace", "-e", "trace=linkat", "-e", fault)
    nic.run(*command, f"{BIN}/host-device", stdin=json.dumps(l3()), env=env, check=False)
    assert bool(nic.files(RECORDS)) == (point == "after the move")
    assert (nic.link("nic0") is None) == (point == "after the move")
    nic.run("sh", "-c", "rm -f /run/cni-py/attachments/*")
    nic.delete("host-device", l3(), container)
    assert state(nic) == before
    assert names(container) == ["lo"]
    assert leaks(nic) == []


# DEL.


@pytest.mark.parametrize("change", ["name", "alias", "both", "everything"])
@pytest.mark.parametrize("prev", ["with", "without"])
def test_changes_in_the_container(nic: Host, change: str, prev: str) -> None:
    """[W-HD2, W-HD4] The device is known by what it is, not by how it looks."""
    container = nic.container("c1")
    before = state(nic)
    config = l3(V4, V6)
    result = nic.add("host-device", config, container)
    container.run("ip", "link", "set", "eth0", "down")
    if change != "name":
        container.run("ip", "link", "set", "eth0", "alias", "mine")
    if change == "everything":
        looks = ("address", "02:00:00:00:00:99", "mtu", "1300")
        container.run("ip", "link", "set", "eth0", *looks)
    if change != "alias":
        container.run("ip", "link", "set", "eth0", "name", "other")
        # A namesake that is not ours.
        container.run("ip", "link", "add", "eth0", "type", "bridge")
    if prev == "with":
        config = config | {"prevResult": result}
    nic.delete("host-device", config, container)
    assert state(nic) == before
    assert names(container) == (["lo"] if change == "alias" else ["lo", "eth0"])
    nic.delete("host-device", config, container)
    assert leaks(nic) == []


@pytest.mark.parametrize("path", ["empty", "missing", "plain file", "other"])
def test_del_matrix(nic: Host, path: str) -> None:
    """[A.19, W-HD1, W-G4] The namespace is gone and a virtual device with it."""
    container = nic.container("c1")
    nic.add("host-device", l3(V4, V6), container)
    container.delete_netns()
    if path == "plain file":
        nic.run("touch", container.netns)
    elif path == "other":
        nic.run("ip", "netns", "add", "c1")
        container.run("ip", "link", "add", "eth0", "type", "bridge")
    env = {"CNI_NETNS": ""} if path == "empty" else {}
    for _ in range(2):
        nic.delete("host-device", l3(V4, V6), container, env=env)
        assert leaks(nic) == []
        assert nic.files(RECORDS) == {}
    if path == "other":
        assert names(container) == ["lo", "eth0"]


def test_empty_netns_while_the_container_lives(nic: Host) -> None:
    """[W-HD1] The record knows where the device is."""
    container = nic.container("c1")
    before = state(nic)
    nic.add("host-device", l3(), container)
    nic.delete("host-device", l3(), container, env={"CNI_NETNS": ""})
    assert state(nic) == before
    assert leaks(nic) == []


def test_device_is_on_the_host_under_another_name(nic: Host) -> None:
    """Somebody brought it back, as the kernel does with hardware: it gets its name again."""
    container = nic.container("c1")
    before = state(nic)
    nic.add("host-device", l3(), container)
    container.run("ip", "link", "set", "eth0", "netns", str(nic.holder.pid))
    assert nic.link("eth0") is not None
    container.delete_netns()
    nic.delete("host-device", l3(), container)
    assert state(nic) == before
    assert nic.link("eth0") is None


def test_old_name_is_taken(nic: Host) -> None:
    """The device stays where it is, and the address is released; later DEL works."""
    container = nic.container("c1")
    before = state(nic)
    nic.add("host-device", l3(), container)
    nic.run("ip", "link", "add", "nic0", "type", "bridge")
    error = refusal(nic.call("host-device", "DEL", l3(), container))
    assert error["msg"] == "cannot give device eth0 back its name nic0"
    assert names(container) == ["lo", "eth0"]
    assert nic.allocated("net1") == {}
    nic.run("ip", "link", "delete", "nic0")
    nic.delete("host-device", l3(), container)
    assert state(nic) == before


def test_address_is_released_last(nic: Host) -> None:
    """[W-G3]"""
    container = nic.container("c1")
    nic.add("host-device", l3(), container)
    env = container.environ("DEL") | {"CNI_PY_SOCKET": ""}
    command = ("strace", "-f", "-o", "/run/trace", "-e", "trace=sendto,unlink,unlinkat")
    nic.run(*command, f"{BIN}/host-device", stdin=json.dumps(l3()), env=env)
    lines = nic.run("cat", "/run/trace").stdout.splitlines()
    moved = next(index for index, line in enumerate(lines) if "nlmsg_type=0x13" in line)
    released = next(index for index, line in enumerate(lines) if "/net1/10.1.2.2" in line)
    assert moved < released
    nic.attachments.clear()


def test_record_of_an_earlier_boot(nic: Host) -> None:
    """After a reboot every device is on the host, as that has set it up: nothing is touched."""
    container = nic.container("c1")
    nic.add("host-device", l3(), container)
    ((path, text),) = nic.files(RECORDS).items()
    nic.delete("host-device", l3(), container)
    record = json.loads(text) | {"boot": "another"}
    nic.run("sh", "-c", f"cat > {path}", stdin=json.dumps(record))
    nic.run("ip", "addr", "flush", "dev", "nic0")
    nic.run("ip", "link", "set", "nic0", "down")
    before = state(nic)
    nic.delete("host-device", l3(), container)
    assert state(nic) == before
    assert nic.files(RECORDS) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"network": "net1"}'])
def test_damaged_record(nic: Host, text: str) -> None:
    """A record that cannot be read is none: the alias still tells the name."""
    container = nic.container("c1")
    nic.add("host-device", l3(), container)
    (path,) = nic.files(RECORDS)
    nic.run("sh", "-c", f"cat > {path}", stdin=text)
    nic.delete("host-device", l3(), container)
    assert nic.link("nic0") is not None
    assert nic.files(RECORDS) == {}


def test_del_with_a_configuration_that_add_refuses(nic: Host) -> None:
    container = nic.container("c1")
    before = state(nic)
    nic.add("host-device", l3(), container)
    config = l3(device=None, hwaddr=[1], kernelpath="/etc", pciBusID={}, DPDKMode=True)
    nic.delete("host-device", config, container)
    assert state(nic) == before


def test_del_leaves_devices_of_others(nic: Host) -> None:
    """What is called CNI_IFNAME and was never moved by anybody stays."""
    container = nic.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    container.run("ip", "link", "set", "eth0", "alias", "8e48, net: net1, if: eth0, id: a")
    nic.delete("host-device", l2(), container)
    assert names(container) == ["lo", "eth0"]


# CHECK.

CHECKED = l3(V4, V6, routes=ROUTES)
DRIFTS = {
    "ip link set eth0 down": "state of interface eth0 differs",
    "ip link set eth0 address 02:00:00:00:00:99": "mac of interface eth0 differs",
    "ip addr del 10.1.2.2/24 dev eth0": "address of interface eth0 differs",
    "ip addr del fd00:1::2/64 dev eth0": "address of interface eth0 differs",
    "ip route del 192.0.2.0/24": "route 192.0.2.0/24 of interface eth0 differs",
    "ip link set eth0 alias other": "alias of interface eth0 differs",
    "ip link set eth0 down; ip link set eth0 name eth9": "interface eth0 in /run/netns/c1 differs",
    "ip link set eth0 down; ip link set eth0 name eth9; "
    f"ip link add eth0 address {MAC} up type bridge": "device of interface eth0 differs",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_named(nic: Host, drift: str) -> None:
    container = nic.container("c1")
    config = CHECKED | {"prevResult": nic.add("host-device", CHECKED, container)}
    assert nic.call("host-device", "CHECK", config, container).status == 0
    container.run("sh", "-c", drift)
    error = refusal(nic.call("host-device", "CHECK", config, container))
    assert error["msg"] == DRIFTS[drift]


def test_check_needs_the_previous_result(nic: Host) -> None:
    container = nic.container("c1")
    nic.add("host-device", l2(), container)
    error = refusal(nic.call("host-device", "CHECK", l2(), container))
    assert error["msg"] == "Required prevResult missing"


# STATUS and GC.


def test_status(nic: Host) -> None:
    """[W-G2] Ready while the host has the device."""
    assert nic.call("host-device", "STATUS", l3()).status == 0
    for keys in ({"device": "nic9"}, {"device": None}, {"device": None, "kernelpath": "/etc"}):
        assert refusal(nic.call("host-device", "STATUS", l3(**keys)))["code"] == 50
    comes_later = l3(device=None, capabilities={"deviceID": True})
    assert nic.call("host-device", "STATUS", comes_later).status == 0
    container = nic.container("c1")
    nic.add("host-device", l3(), container)
    error = refusal(nic.call("host-device", "STATUS", l3()))
    assert (error["code"], error["msg"]) == (50, 'failed to find host device: device "nic0"')


def test_gc(host: Host) -> None:
    """[W-G1] Devices of attachments that do not live come back; others and the living stay."""
    for name in ("nic0", "nic1", "nic2", "nic3"):
        make(host, name=name)
        host.run("ip", "link", "set", name, "address", f"02:00:00:00:0b:0{name[3:]}")
    before = state(host)
    lost, kept, other, gone = (host.container(f"c{index}") for index in range(4))
    host.add("host-device", l3(), lost)
    host.add("host-device", l3(device="nic1"), kept)
    host.add("host-device", l2(device="nic2", name="net2"), other)
    host.add("host-device", l3(device="nic3"), gone)
    gone.delete_netns()
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    assert host.call("host-device", "GC", l3()).status == 0
    assert len(host.files(RECORDS)) == 3
    config = l3() | {"cni.dev/valid-attachments": valid}
    assert host.call("host-device", "GC", config).status == 0
    assert state(host) == before
    assert [names(one) for one in (lost, kept, other)] == [["lo"], ["lo", "eth0"], ["lo", "eth0"]]
    assert set(host.allocated("net1")) == {"10.1.2.3"}
    assert len(host.files(RECORDS)) == 2


# Beside the reference.

SHARED = {
    "layer 2": l2(),
    "dual stack": l3(V4, V6, routes=ROUTES),
    "by address": l3(device=None, hwaddr=MAC),
    "dns": l3(dns={"domain": "a"}),
}


def seen(container: Container, result: dict[str, Any]) -> dict[str, Any]:
    link = container.link()
    return {
        "result": result,
        "link": {key: link.get(key) for key in ("ifalias", "mtu", "address", "flags")},
        "addresses": container.addresses(),
        "routes": container.ip("route"),
    }


@pytest.mark.parametrize("case", SHARED)
def test_same_result_and_state_as_the_reference(nic: Host, case: str) -> None:
    config, theirs = SHARED[case], reference(nic, "host-device")
    first, second = nic.container("c1"), nic.container("c2")
    outcome = theirs.call("host-device", "ADD", config, first)
    assert outcome.status == 0
    expected = seen(first, outcome.json)
    theirs.delete("host-device", config, first)
    nic.run("sh", "-c", "rm -rf /var/lib/cni/networks/*")
    found = seen(second, nic.add("host-device", config, second))
    found["result"]["interfaces"][0]["sandbox"] = first.netns
    found["result"] = {
        key: one for key, one in found["result"].items() if (key, one) != ("dns", {})
    }
    if case == "dns":
        expected["result"]["dns"] = {"domain": "a"}
    assert found == expected


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("maker", ["ours", "theirs"])
def test_each_takes_down_the_others(nic: Host, case: str, maker: str) -> None:
    """CHECK and DEL by the one of what the other has set up; the reference leaves it down."""
    config, theirs = SHARED[case], reference(nic, "host-device")
    made_by, other = (nic, theirs) if maker == "ours" else (theirs, nic)
    container = nic.container("c1")
    outcome = made_by.call("host-device", "ADD", config, container)
    assert outcome.status == 0, outcome
    config = config | {"prevResult": outcome.json}
    assert other.call("host-device", "CHECK", config, container).status == 0
    other.delete("host-device", config, container)
    assert names(container) == ["lo"]
    expected = {"ifname": "nic0", "address": MAC, "mtu": 1400, "ifalias": None}
    assert state(nic) == expected | {"up": False, "addresses": []}
    # Our index learns at the next call of what the reference has released, and the record goes.
    nic.delete("host-device", config, container)
    assert leaks(nic) == []
    assert nic.run("ls", RECORDS, check=False).stdout == ""


@pytest.mark.parametrize("change", ["name", "alias"])
def test_the_references_device_after_a_change(nic: Host, change: str) -> None:
    """[W-HD2] The previous result tells which it is."""
    theirs = reference(nic, "host-device")
    container = nic.container("c1")
    outcome = theirs.call("host-device", "ADD", l2(), container)
    config = l2(prevResult=outcome.json)
    value = "" if change == "alias" else "other"
    container.run("ip", "link", "set", "eth0", "down", change, value)
    nic.delete("host-device", config, container)
    assert nic.link("nic0") is not None
    assert names(container) == ["lo"]
