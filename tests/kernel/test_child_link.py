"""What macvlan, ipvlan and vlan have in common, each with a parent that leads to a neighbour."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.background import Background, running
from fixtures.configs import V4, V6, host_local
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.parents import (
    VERSION,
    bare,
    child,
    inside,
    knows,
    parent_of,
    reference_of,
    rename,
    uplink,
    uplink_inside,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

VM = pytest.mark.vm
IPVLAN, VLAN = (pytest.param(kind, marks=VM) for kind in ("ipvlan", "vlan"))
every_kind = pytest.mark.parametrize("kind", ["macvlan", IPVLAN, VLAN])
with_default_parent = pytest.mark.parametrize("kind", ["macvlan", IPVLAN])
# What is the same code for all of them, and needs no virtual machine.
by_macvlan = pytest.mark.parametrize("kind", ["macvlan"])


def each(name: str, cases: Iterable[Any], in_vm: Iterable[Any]) -> pytest.MarkDecorator:
    """All the cases with macvlan, and some with the others."""
    chosen = [pytest.param("macvlan", one) for one in cases]
    others = [(kind, one) for kind in ("ipvlan", "vlan") for one in in_vm]
    return pytest.mark.parametrize(
        ("kind", name), chosen + [pytest.param(*one, marks=VM) for one in others]
    )


BOTH = host_local(V4, V6)
# An IPAM result that cannot be configured: the gateway is nowhere.
UNREACHABLE = host_local(V4, routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}])


def unchanged(before: dict[str, list[str]], host: Host) -> bool:
    """Whether nothing is left, apart from the folders of host-local's files."""
    after = dump(host)
    for dumped in (before, after):
        for listed in ("files", "folders"):
            dumped[listed] = [one for one in dumped[listed] if "/var/lib/cni/networks" not in one]
    found = differences(before, after)
    assert found == ""
    return host.allocated("net1") == {}


# ADD.


@every_kind
def test_worked_example(host: Host, kind: str) -> None:
    """[A.7] The child is in the container, its parent on the host, and packets flow."""
    uplink(host, kind)
    container = host.container("c1")
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    result = host.add(kind, child(kind, ipam=host_local(V4, V6, routes=routes)), container)
    eth0 = container.link()
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": eth0["address"], "sandbox": container.netns}],
        "ips": [
            {"interface": 0, "address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"interface": 0, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
        ],
        "routes": routes,
    }
    up0 = host.link("up0")
    assert up0 is not None
    assert eth0["linkinfo"]["info_kind"] == kind
    assert parent_of(host, container) == "up0"
    assert (eth0["address"] == up0["address"]) == (kind != "macvlan")
    assert eth0["mtu"] == 1500
    assert "UP" in eth0["flags"]
    assert container.addresses() == ["10.1.2.2/24", "fd00:1::2/64"]
    for address in ("10.1.2.1", "fd00:1::1"):
        assert container.reaches(address), address
    (default,) = [one for one in container.ip("route") if one["dst"] == "default"]
    assert default["gateway"] == "10.1.2.1"
    for key in ("ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"):
        assert container.sysctl(f"net/{key}") == "1"
    # Routers of the parent's network are the administrator's, as the host's are.
    assert container.sysctl("net/ipv6/conf/eth0/accept_ra") == "1"


@by_macvlan
def test_label_tells_the_owner(host: Host, kind: str) -> None:
    uplink(host, kind)
    container = host.container("c1", "pod-17")
    host.add(kind, child(kind), container)
    assert container.link()["ifalias"].endswith("net: net1, if: eth0, id: pod-17")


@every_kind
def test_name_that_the_host_has_too(host: Host, kind: str) -> None:
    """[W-G20] The parent, and some other link, have the names that the children get.

    Before Linux 6.15 the kernel takes these for the links to create.
    """
    uplink(host, kind, "eth0")
    host.run("ip", "link", "add", "net1", "type", "bridge")
    container = host.container("c1")
    config = child(kind, master="eth0")
    host.add(kind, config, container)
    assert parent_of(host, container) == "eth0"
    assert container.reaches("10.1.2.1")
    second = config | {"name": "net2", "vlanId": 101, "ipam": host_local(V6)}
    result = host.add(kind, second, container, "net1")
    assert inside(container) == ["eth0", "net1"]
    checked = second | {"prevResult": result}
    assert host.call(kind, "CHECK", checked, container, "net1").status == 0
    assert inside(container) == ["eth0", "net1"]


@by_macvlan
def test_no_other_name_is_ever_seen(host: Host, kind: str) -> None:
    """[A.7] The child has its final name from the first moment on."""
    uplink(host, kind)
    container = host.container("c1")
    command = container.command("ip", "-o", "monitor", "link")
    with running(Background(command, stream="stdout")) as monitor:
        # Something to see that it listens.
        deadline = time.monotonic() + 30
        while not any("lo:" in line for line in monitor.noise):
            assert time.monotonic() < deadline
            container.run("ip", "link", "set", "lo", "down")
            container.run("ip", "link", "set", "lo", "up")
        host.add(kind, child(kind), container)
        container.run("ip", "link", "add", "last", "type", "bridge")
        monitor.wait_for_text("last")
    names = {line.split(":")[1].strip().split("@")[0] for line in monitor.noise}
    assert names - {"lo"} == {"eth0", "last"}


def default_route(host: Host, name: str, number: int, *options: str) -> None:
    host.run("ip", "addr", "add", f"192.0.{number}.1/24", "dev", name)
    via = f"192.0.{number}.254"
    host.run("ip", "route", "append", "default", "via", via, "dev", name, *options)


@with_default_parent
def test_default_parent(host: Host, kind: str) -> None:
    """[W-MV2] Without `master`: the default route of the lowest metric, in the main table."""
    for name in ("up0", "up1", "up2"):
        uplink(host, kind, name)
    config = child(kind)
    del config["master"]
    default_route(host, "up2", 3, "metric", "5", "table", "77")
    default_route(host, "up0", 1, "metric", "300")
    default_route(host, "up1", 2, "metric", "100")
    host.run("ip", "route", "add", "unreachable", "default", "metric", "1")
    container = host.container("c1")
    result = host.add(kind, config, container)
    assert parent_of(host, container) == "up1"
    # Another default route now: nothing that the attachment depends on [W-MV3, W-IV4, W-IV3].
    host.run("ip", "route", "del", "default", "metric", "100")
    checked = config | {"prevResult": result}
    assert host.call(kind, "CHECK", checked, container).status == 0
    assert host.call(kind, "STATUS", config).status == 0
    host.run("ip", "route", "flush", "default")
    assert host.call(kind, "CHECK", checked, container).status == 0
    host.delete(kind, config, container)
    assert inside(container) == []
    assert host.allocated("net1") == {}


@by_macvlan
@pytest.mark.parametrize("routes", ["IPv6", "multipath", "none"])
def test_kinds_of_default_routes(host: Host, kind: str, routes: str) -> None:
    """[W-MV2]"""
    for name in ("up0", "up1"):
        uplink(host, kind, name)
    config = child(kind)
    del config["master"]
    if routes == "IPv6":
        host.run("ip", "-6", "route", "add", "default", "dev", "up1")
    elif routes == "multipath":
        hops = ("nexthop", "dev", "up1", "nexthop", "dev", "up0")
        host.run("ip", "route", "add", "default", *hops)
    container = host.container("c1")
    if routes == "none":
        error = refusal(host.call(kind, "ADD", config, container))
        assert error["msg"] == "no default route interface found"
        assert "master" in error["details"]
        return
    host.add(kind, config, container)
    assert parent_of(host, container) == "up1"


@by_macvlan
def test_alternative_name_of_the_parent(host: Host, kind: str) -> None:
    uplink(host, kind)
    host.run("ip", "link", "property", "add", "dev", "up0", "altname", "an-uplink-with-a-long-name")
    container = host.container("c1")
    config = child(kind, master="an-uplink-with-a-long-name")
    checked = config | {"prevResult": host.add(kind, config, container)}
    assert parent_of(host, container) == "up0"
    assert host.call(kind, "CHECK", checked, container).status == 0


@every_kind
def test_parent_inside(host: Host, kind: str) -> None:
    """linkInContainer: parent and child are both in the container."""
    container = host.container("c1")
    uplink_inside(host, kind, container)
    config = child(kind, linkInContainer=True)
    checked = config | {"prevResult": host.add(kind, config, container)}
    assert "link_netnsid" not in container.link()
    assert container.link()["link"] == "up0"
    assert container.reaches("10.1.2.1")
    assert host.call(kind, "CHECK", checked, container).status == 0
    # STATUS knows no container.
    assert host.call(kind, "STATUS", config).status == 0
    host.delete(kind, config, container)
    assert inside(container) == ["up0"]


@with_default_parent
def test_default_parent_inside(host: Host, kind: str) -> None:
    container = host.container("c1")
    uplink_inside(host, kind, container)
    container.run("ip", "route", "add", "default", "dev", "up0")
    config = child(kind, linkInContainer=True)
    del config["master"]
    host.add(kind, config, container)
    assert container.link()["link"] == "up0"


@every_kind
def test_mtu(host: Host, kind: str) -> None:
    uplink(host, kind)
    container = host.container("c1")
    config = child(kind, mtu=1400)
    checked = config | {"prevResult": host.add(kind, config, container)}
    assert container.link()["mtu"] == 1400
    assert host.call(kind, "CHECK", checked, container).status == 0


@each("mtu", [1501, 67, 1, -1, 2**31], [1501])
def test_mtu_out_of_range(host: Host, kind: str, mtu: int) -> None:
    uplink(host, kind)
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call(kind, "ADD", child(kind, mtu=mtu), container))
    assert error["code"] == 7
    assert error["msg"].startswith(f"invalid MTU {mtu}")
    assert unchanged(before, host)


@every_kind
def test_layer_two(host: Host, kind: str) -> None:
    """[W-IV6] Without IPAM the interface is up and has no address."""
    uplink(host, kind)
    container = host.container("c1")
    result = host.add(kind, bare(kind), container)
    assert set(result) == {"cniVersion", "interfaces"}
    assert "UP" in container.link()["flags"]
    assert container.addresses() == []
    container.run("ip", "addr", "add", "10.1.2.7/24", "dev", "eth0")
    assert container.reaches("10.1.2.1")
    checked = bare(kind) | {"prevResult": result}
    assert host.call(kind, "CHECK", checked, container).status == 0


@by_macvlan
def test_layer_two_cannot_be_reported_before_0_3_0(host: Host, kind: str) -> None:
    """[W-G8]"""
    uplink(host, kind)
    before = dump(host)
    container = host.container("c1")
    error = refusal(host.call(kind, "ADD", bare(kind, cniVersion="0.2.0"), container))
    assert (error["code"], error["msg"]) == (7, "cannot convert: no valid IP addresses")
    container.delete_netns()
    assert differences(before, dump(host)) == ""


@by_macvlan
def test_dns(host: Host, kind: str) -> None:
    """[W-G13] The IPAM plugin's is kept unless the configuration has its own."""
    uplink(host, kind)
    container = host.container("c1")
    addresses = [{"address": "10.1.2.9/24"}]
    ipam = {"type": "static", "addresses": addresses, "dns": {"nameservers": ["192.0.2.53"]}}
    config = child(kind, ipam=ipam)
    assert host.add(kind, config, container)["dns"] == {"nameservers": ["192.0.2.53"]}
    host.delete(kind, config, container)
    config |= {"dns": {"domain": "example"}}
    assert host.add(kind, config, container)["dns"] == {"domain": "example"}


@by_macvlan
def test_ipv6_was_disabled(host: Host, kind: str) -> None:
    """Where the runtime turns IPv6 off in new namespaces, addresses of IPAM turn it on."""
    uplink(host, kind)
    container = host.container("c1")
    for name in ("all", "default"):
        container.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    host.add(kind, child(kind, ipam=BOTH), container)
    assert container.reaches("fd00:1::1")


# An ADD that is refused, or fails.


@every_kind
def test_missing_parent(host: Host, kind: str) -> None:
    container = host.container("c1")
    host.run("mkdir", "-p", "/var/lib/cni/networks")
    before = dump(host)
    error = refusal(host.call(kind, "ADD", child(kind), container))
    assert error["msg"] == 'failed to lookup master "up0": Link not found'
    assert error["details"] == "the host has no such interface"
    inner = child(kind, linkInContainer=True)
    error = refusal(host.call(kind, "ADD", inner, container))
    assert error["details"] == "the container has no such interface"
    assert unchanged(before, host)


@every_kind
def test_parent_elsewhere(host: Host, kind: str) -> None:
    """A parent in the container's namespace is none without linkInContainer, and the reverse."""
    container = host.container("c1")
    uplink_inside(host, kind, container)
    error = refusal(host.call(kind, "ADD", child(kind), container))
    assert error["details"] == "the host has no such interface"
    assert inside(container) == ["up0"]


@by_macvlan
@pytest.mark.parametrize("name", ["a/b", "a b", "..", "all", "x" * 128])
def test_impossible_parent(host: Host, kind: str, name: str) -> None:
    error = refusal(host.call(kind, "ADD", child(kind, master=name), host.container("c1")))
    assert error["code"] == 7
    assert f'master "{name}"' in error["msg"]


@every_kind
def test_interface_name_is_taken(host: Host, kind: str) -> None:
    """[W-G20] Refused, by somebody else's interface or the attachment's own; nothing changes."""
    uplink(host, kind)
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    before = dump(host)
    error = refusal(host.call(kind, "ADD", child(kind), container))
    assert error["msg"] == "interface eth0 already exists in /run/netns/c1"
    assert unchanged(before, host)
    container.run("ip", "link", "del", "eth0")
    host.add(kind, child(kind), container)
    error = refusal(host.call(kind, "ADD", child(kind), container))
    assert error["msg"] == "container id-c1 is already attached as eth0"
    assert "DEL" in error["details"]
    assert container.reaches("10.1.2.1")
    assert list(host.allocated("net1")) == ["10.1.2.2"]


@by_macvlan
@pytest.mark.parametrize("netns", ["missing", "plain file"])
def test_no_namespace(host: Host, kind: str, netns: str) -> None:
    uplink(host, kind)
    container = host.container("c1")
    container.delete_netns()
    if netns == "plain file":
        host.run("touch", container.netns)
    error = refusal(host.call(kind, "ADD", child(kind), container))
    assert error["code"] == 4


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "route": (UNREACHABLE, "add route 192.0.2.0/24 via 10.9.9.9 dev eth0"),
    "pool": (host_local([{"subnet": "10.1.2.0/30"}]), "host-local: "),
    "no addresses": ({"type": "static", "addresses": []}, "IPAM plugin returned missing IP config"),
    "no plugin": ({"type": "nobody"}, 'failed to find plugin "nobody"'),
    "same address twice": (
        {"type": "static", "addresses": [{"address": "10.1.2.9/24"}] * 2},
        "address 10.1.2.9 is given twice",
    ),
}


@each("failure", FAILURES, ["route", "pool"])
def test_failed_add_leaves_nothing(host: Host, kind: str, failure: str) -> None:
    """[W-MV1, W-IV1, W-IV2, W-VL1]"""
    uplink(host, kind)
    container = host.container("c1")
    ipam, msg = FAILURES[failure]
    if failure == "pool":
        # Its one address is another network's container's.
        other = child(kind, ipam=ipam, vlanId=7)
        host.add(kind, other, host.container("c2"))
    before, taken = dump(host), host.allocated("net1")
    error = refusal(host.call(kind, "ADD", child(kind, ipam=ipam), container))
    assert msg in error["msg"] or error["msg"].startswith("no IP addresses available"), error
    assert inside(container) == []
    assert host.allocated("net1") == taken
    unchanged(before, host)


@by_macvlan
def test_result_that_cannot_be_written(host: Host, kind: str) -> None:
    """[W-G8]"""
    uplink(host, kind)
    container = host.container("c1")
    env = container.environ("ADD")
    script = f"{BIN}/{kind} > /dev/full"
    outcome = host.run("sh", "-c", script, stdin=json.dumps(child(kind)), env=env, check=False)
    assert outcome.status == 1
    assert inside(container) == []
    assert host.allocated("net1") == {}


# DEL.


@each("state", ["empty", "missing", "plain file", "directory"], ["missing"])
@pytest.mark.parametrize("where", ["host", "container"])
def test_namespace_is_gone(host: Host, kind: str, state: str, where: str) -> None:
    """[A.19, W-G4, W-IV3, W-VL2] The address is released; the interface went with the container."""
    container = host.container("c1")
    if where == "host":
        uplink(host, kind)
    else:
        uplink_inside(host, kind, container)
    config = child(kind, linkInContainer=where == "container")
    host.add(kind, config, container)
    container.delete_netns()
    if state in ("plain file", "directory"):
        host.run("touch" if state == "plain file" else "mkdir", container.netns)
    env = {"CNI_NETNS": ""} if state == "empty" else {}
    host.delete(kind, config, container, env=env)
    assert host.allocated("net1") == {}
    host.delete(kind, config, container, env=env)


@every_kind
def test_parent_is_gone(host: Host, kind: str) -> None:
    """[W-IV3, W-VL2] The kernel took the child with the parent, or DEL does."""
    uplink(host, kind)
    container = host.container("c1")
    host.add(kind, child(kind), container)
    host.run("ip", "link", "del", "up0")
    host.delete(kind, child(kind), container)
    assert host.allocated("net1") == {}
    uplink(host, kind, "up1")
    config = child(kind, master="up1")
    host.add(kind, config, container)
    rename(host, "up1", "renamed")
    host.delete(kind, config, container)
    assert inside(container) == []
    assert host.allocated("net1") == {}


REFUSED: list[dict[str, Any]] = [
    {"master": None},
    {"master": "a/b"},
    {"master": 5, "mtu": "x", "mode": [], "vlanId": {}},
    {"mtu": 99999, "mode": "none", "vlanId": 99999, "mac": "none"},
    {"prevResult": {"ips": 5}},
    {"prevResult": None},
]


@each("keys", REFUSED, REFUSED[2:4])
def test_configuration_that_add_would_refuse(host: Host, kind: str, keys: dict[str, Any]) -> None:
    """[DL-04, W-IV3, W-VL2]"""
    uplink(host, kind)
    container = host.container("c1")
    host.add(kind, child(kind), container)
    host.delete(kind, child(kind) | keys, container)
    assert inside(container) == []
    assert host.allocated("net1") == {}


@every_kind
def test_what_is_somebody_elses_stays(host: Host, kind: str) -> None:
    """The path leads to another container's namespace by now."""
    uplink(host, kind)
    uplink(host, kind, "up1")
    gone, other = host.container("c1"), host.container("c2")
    host.add(kind, child(kind), gone)
    host.add(kind, child(kind, name="net2", master="up1"), other)
    host.delete(kind, child(kind), gone, env={"CNI_NETNS": other.netns})
    assert inside(other) == ["eth0"]
    assert host.allocated("net1") == {}
    third = host.container("c3")
    third.run("ip", "link", "add", "eth0", "type", "bridge")
    host.delete(kind, child(kind), third)
    assert inside(third) == ["eth0"]


@by_macvlan
def test_unlabelled_child_of_a_crashed_add(host: Host, kind: str) -> None:
    uplink(host, kind)
    container = host.container("c1")
    options = ("id", "100") if kind == "vlan" else ()
    create = ("ip", "link", "add", "link", "up0", "name", "x0", "type", kind, *options)
    host.run(*create)
    host.run("ip", "link", "set", "x0", "netns", container.netns, "name", "eth0")
    host.delete(kind, child(kind), container)
    assert inside(container) == []


@by_macvlan
def test_address_is_released_last(host: Host, kind: str) -> None:
    """[W-G3]"""
    uplink(host, kind)
    trace = "/run/trace"
    container = host.container("c1")
    host.add(kind, child(kind), container)
    env = container.environ("DEL") | {"CNI_PY_SOCKET": ""}
    command = ("strace", "-f", "-o", trace, "-e", "trace=sendto,unlink,unlinkat", f"{BIN}/{kind}")
    host.run(*command, stdin=json.dumps(child(kind)), env=env)
    lines = host.run("cat", trace).stdout.splitlines()
    # RTM_DELLINK, of which strace does not know the name on a socket in another namespace.
    deleted = next(index for index, line in enumerate(lines) if "nlmsg_type=0x11 " in line)
    released = next(index for index, line in enumerate(lines) if "/net1/10.1.2.2" in line)
    assert deleted < released


@every_kind
def test_one_attachment_leaves_no_trace(host: Host, kind: str) -> None:
    """[C-04]"""
    uplink(host, kind)
    container = host.container("c1")
    before = dump(host)
    host.add(kind, child(kind, ipam=BOTH), container)
    host.delete(kind, child(kind, ipam=BOTH), container)
    assert inside(container) == []
    assert unchanged(before, host)


# CHECK.


DRIFTS = {
    "container: ip link set eth0 down": "state of interface eth0 differs",
    "container: ip addr del 10.1.2.2/24 dev eth0": "address of interface eth0 differs",
    "container: ip addr del fd00:1::2/64 dev eth0": "address of interface eth0 differs",
    "container: ip route del 192.0.2.0/24": "route 192.0.2.0/24 of interface eth0 differs",
    "container: ip link set eth0 mtu 1300": "mtu of interface eth0 differs",
    "container: ip link del eth0": "interface eth0 in /run/netns/c1 differs",
    "host: ip link set up0 name up9": "parent up0 in the host differs",
    "host: rm /var/lib/cni/networks/net1/10.1.2.2": "host-local: address 10.1.2.2 is not allocated",
}


@each("drift", DRIFTS, list(DRIFTS)[3:5])
def test_drift_is_named(host: Host, kind: str, drift: str) -> None:
    """[C-03]"""
    uplink(host, kind)
    container = host.container("c1")
    ipam = host_local(V4, V6, routes=[{"dst": "192.0.2.0/24", "priority": 9}])
    config = child(kind, mtu=1400, ipam=ipam)
    checked = config | {"prevResult": host.add(kind, config, container)}
    assert host.call(kind, "CHECK", checked, container).status == 0
    where, _, command = drift.partition(": ")
    (host if where == "host" else container).run(*command.split())
    error = refusal(host.call(kind, "CHECK", checked, container))
    assert error["msg"].startswith(DRIFTS[drift])
    assert error["details"]


@every_kind
def test_another_parent(host: Host, kind: str) -> None:
    """[W-MV3, W-VL3] The parent's place was taken by another link of its name."""
    uplink(host, kind)
    uplink(host, kind, "up1")
    container = host.container("c1")
    config = child(kind)
    checked = config | {"prevResult": host.add(kind, config, container)}
    rename(host, "up0", "old")
    rename(host, "up1", "up0")
    error = refusal(host.call(kind, "CHECK", checked, container))
    assert error["msg"] == "parent of interface eth0 differs"
    inner = checked | {"linkInContainer": True}
    container.run("ip", "link", "add", "up0", "type", "bridge")
    error = refusal(host.call(kind, "CHECK", inner, container))
    assert error["msg"] == "parent of interface eth0 differs"


@by_macvlan
def test_kind_and_mac(host: Host, kind: str) -> None:
    uplink(host, kind)
    container = host.container("c1")
    config = child(kind)
    checked = config | {"prevResult": host.add(kind, config, container)}
    checked["prevResult"]["interfaces"][0]["mac"] = "02:00:00:00:00:09"
    error = refusal(host.call(kind, "CHECK", checked, container))
    assert error["msg"] == "mac of interface eth0 differs"
    container.run("ip", "link", "del", "eth0")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    error = refusal(host.call(kind, "CHECK", checked, container))
    assert error["msg"] == "kind of interface eth0 differs"
    assert error["details"] == f"expected {kind}, found bridge"


@by_macvlan
def test_previous_result(host: Host, kind: str) -> None:
    """[C-01, X-03, W-G21]"""
    uplink(host, kind)
    container = host.container("c1")
    result = host.add(kind, child(kind), container)
    error = refusal(host.call(kind, "CHECK", child(kind), container))
    assert error["msg"] == "Required prevResult missing"
    result["interfaces"].append({"name": "other", "sandbox": container.netns})
    result["ips"].append({"interface": 1, "address": "192.0.2.77/24"})
    checked = child(kind) | {"prevResult": result}
    assert host.call(kind, "CHECK", checked, container).status == 0
    result["interfaces"][0]["sandbox"] = "/run/netns/elsewhere"
    error = refusal(host.call(kind, "CHECK", checked, container))
    assert "doesn't match configured netns: /run/netns/c1" in error["msg"]


@by_macvlan
def test_single_address_subnets(host: Host, kind: str) -> None:
    """[W-G10]"""
    uplink(host, kind)
    container = host.container("c1")
    pool = {"type": "static", "addresses": [{"address": "10.9.9.9/32"}, {"address": "fd09::9/128"}]}
    config = child(kind, ipam=pool)
    checked = config | {"prevResult": host.add(kind, config, container)}
    assert host.call(kind, "CHECK", checked, container).status == 0


# STATUS and GC.


@every_kind
def test_status(host: Host, kind: str) -> None:
    """[W-G2] Whether an ADD would find its parent, with that MTU, and an address."""
    config = child(kind, ipam=host_local([{"subnet": "10.1.2.0/30"}]), mtu=1400)
    error = refusal(host.call(kind, "STATUS", config))
    expected = (50, 'failed to lookup master "up0": Link not found')
    assert (error["code"], error["msg"]) == expected
    uplink(host, kind)
    assert host.call(kind, "STATUS", config).status == 0
    error = refusal(host.call(kind, "STATUS", config | {"mtu": 1501}))
    expected = (50, "invalid MTU 1501, must be [0, master MTU(1500)]")
    assert (error["code"], error["msg"]) == expected
    host.add(kind, config, host.container("c1"))
    error = refusal(host.call(kind, "STATUS", config))
    assert error["code"] == 50
    assert "no IP addresses available" in error["msg"]


@every_kind
def test_gc(host: Host, kind: str) -> None:
    """[G-01, G-07] Addresses of what is gone are released, those of the living stay."""
    uplink(host, kind)
    uplink(host, kind, "up1")
    lost, kept, unlisted = (host.container(f"c{number}") for number in (1, 2, 3))
    host.add(kind, child(kind), lost)
    config = child(kind, master="up1")
    host.add(kind, config, kept)
    # A parent has each VLAN once.
    host.add(kind, config | {"vlanId": 101}, unlisted)
    lost.delete_netns()
    assert host.call(kind, "GC", config).status == 0
    assert sorted(host.allocated("net1")) == ["10.1.2.3", "10.1.2.4"]
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    collected = config | {"cni.dev/valid-attachments": valid, "mode": "none", "master": 5}
    assert host.call(kind, "GC", collected).status == 0
    assert list(host.allocated("net1")) == ["10.1.2.3"]
    assert inside(kept) == ["eth0"]
    assert host.call(kind, "GC", bare(kind) | {"cni.dev/valid-attachments": []}).status == 0


# Beside the reference.


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dual stack": {"ipam": BOTH},
    "mtu": {"mtu": 1400},
    "default route": {"ipam": host_local(V4, routes=[{"dst": "0.0.0.0/0"}])},
    "routes": {"ipam": host_local(V4, routes=[{"dst": "198.51.100.0/24", "gw": "10.1.2.9"}])},
    "dns": {"dns": {"nameservers": ["192.0.2.53"], "domain": "example"}},
}


def seen(host: Host, container: Container, result: dict[str, Any]) -> dict[str, Any]:
    """The result, and what the kernel shows of it."""
    eth0 = container.link()
    kind = eth0["linkinfo"]["info_kind"]
    assert result["interfaces"][0].pop("mac") == eth0["address"]
    addresses = container.ip("addr", "show", "dev", "eth0")[0]["addr_info"]
    return {
        "result": {key: value for key, value in result.items() if (key, value) != ("dns", {})},
        "kind": eth0["linkinfo"],
        "mtu": eth0["mtu"],
        "flags": sorted(set(eth0["flags"]) - {"LOWER_UP", "M-DOWN"}),
        "parent": parent_of(host, container),
        "addresses": [
            {key: one.get(key) for key in ("local", "prefixlen", "broadcast", "scope")}
            for one in addresses
            if one["scope"] != "link"
        ],
        "routes": container.ip("route"),
        "sysctls": {
            key: container.sysctl(f"net/{key}")
            for key in (
                "ipv4/conf/eth0/arp_notify",
                "ipv6/conf/eth0/accept_ra",
                "ipv6/conf/eth0/accept_dad",
                "ipv6/conf/eth0/disable_ipv6",
            )
            # The reference's vlan does not announce its addresses.
            if not (kind == "vlan" and key.endswith("arp_notify"))
        },
        "files": {
            name: content
            for name, content in host.files("/var/lib/cni").items()
            if "/.cni-py/" not in name
        },
    }


@each("name", CONFIGS, ["dual stack"])
def test_same_result_and_same_kernel_state(host: Host, kind: str, name: str) -> None:
    uplink(host, kind)
    config = child(kind, cniVersion=VERSION, **CONFIGS[name])
    reference = reference_of(host)
    first = host.container("c1", "cid1")
    outcome = reference.call(kind, "ADD", config, first)
    assert outcome.status == 0, outcome
    theirs = seen(host, first, outcome.json)
    reference.delete(kind, config, first)
    first.delete_netns()
    host.run("rm", "-r", "/var/lib/cni/networks/net1")
    second = host.container("c1", "cid1")
    ours = seen(host, second, host.add(kind, config, second))
    for part, expected in theirs.items():
        assert (part, ours[part]) == (part, expected)


@each("name", CONFIGS, ["dual stack"])
@pytest.mark.parametrize("netns", ["there", "gone"])
def test_we_check_and_take_down_what_the_reference_set_up(
    host: Host, kind: str, name: str, netns: str
) -> None:
    uplink(host, kind)
    config = child(kind, cniVersion=VERSION, **CONFIGS[name])
    container = host.container("c1")
    outcome = reference_of(host).call(kind, "ADD", config, container)
    checked = config | {"prevResult": outcome.json}
    assert host.call(kind, "CHECK", checked, container).status == 0
    if netns == "gone":
        container.delete_netns()
    host.delete(kind, checked, container)
    assert host.allocated("net1") == {}
    if netns == "there":
        assert inside(container) == []


@each("name", CONFIGS, ["dual stack"])
def test_the_reference_checks_and_takes_down_what_we_set_up(
    host: Host, kind: str, name: str
) -> None:
    uplink(host, kind)
    config = child(kind, cniVersion=VERSION, **CONFIGS[name])
    container = host.container("c1")
    checked = config | {"prevResult": host.add(kind, config, container)}
    reference = reference_of(host)
    outcome = reference.call(kind, "CHECK", checked, container)
    assert outcome.status == 0, outcome
    reference.delete(kind, checked, container)
    assert inside(container) == []
    # Our index learns of it at the next call.
    host.delete(kind, config, container)
    assert host.allocated("net1") == {}


@every_kind
@pytest.mark.skipif(
    not knows("macvlan", "linkInContainer"), reason="the reference here has no linkInContainer"
)
def test_parent_inside_beside_the_reference(host: Host, kind: str) -> None:
    container = host.container("c1")
    uplink_inside(host, kind, container)
    config = child(kind, cniVersion=VERSION, linkInContainer=True)
    sides = [host, reference_of(host)]
    for adding, other in (sides, sides[::-1]):
        outcome = adding.call(kind, "ADD", config, container)
        assert outcome.status == 0, outcome
        assert container.link()["link"] == "up0"
        checked = config | {"prevResult": outcome.json}
        assert other.call(kind, "CHECK", checked, container).status == 0
        other.delete(kind, checked, container)
        host.delete(kind, checked, container)
        assert inside(container) == ["up0"]
        assert host.allocated("net1") == {}
