"""vrf: the container's interface in a VRF (`make test-vm`: not every kernel has the kind)."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_interface
from typing import Any

import pytest

from fixtures.host import BIN, Container, Host, refusal
from fixtures.reference import reference
from fixtures.settled import settled

V4, V6 = "10.0.0.2/24", "fd00:2::2/64"

vm = pytest.mark.vm


def attached(host: Host, name: str = "c1", links: Any = ("eth0",)) -> Container:
    """A container whose interfaces have addresses and routes, as a chain leaves them."""
    container = host.container(name)
    script = ["ip link set lo up"]
    for number, link in enumerate(links):
        script += [
            f"ip link add {link} type veth peer name far{number}",
            f"ip link set far{number} up; ip link set {link} up",
            f"ip addr add 10.0.{number}.2/24 dev {link}",
            f"ip -6 addr add fd00:2:0:{number}::2/64 dev {link} nodad",
            f"ip route add 10.10.{number}.0/24 via 10.0.{number}.1 mtu 1400",
            f"ip route add 192.0.{number}.0/24 dev {link} src 10.0.{number}.2 scope link",
            f"ip -6 route add 2001:db8:{number}::/64 via fd00:2:0:{number}::1",
            f"ip route add 198.51.{number}.0/24 dev {link} table 300",
        ]
    container.run("sh", "-ec", "; ".join(script))
    settled(container, ("fd00:2::2", "fd00:2:0:1::2", "fd00:2:0:2::2")[: len(links)])
    return container


def chained(ifname: str = "eth0", number: int = 0, **keys: Any) -> dict[str, Any]:
    """A configuration in the chain."""
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": ifname, "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"}],
        "ips": [
            {"interface": 0, "address": f"10.0.{number}.2/24"},
            {"interface": 0, "address": str(ip_interface(f"fd00:2:0:{number}::2/64"))},
        ],
        "routes": [{"dst": f"10.10.{number}.0/24", "gw": f"10.0.{number}.1"}],
    }
    base = {"cniVersion": "1.1.0", "name": "net1", "type": "vrf", "vrfname": "blue"}
    return base | {"prevResult": previous} | keys


def routes(container: Container, ifname: str, table: int | str) -> list[str]:
    shown = f"route show table {table} dev {ifname}"
    return _global(container.run("sh", "-c", f"ip {shown}; ip -6 {shown}", check=False).stdout)


def _global(text: str) -> list[str]:
    return sorted(
        one.strip().removesuffix(" pref medium")
        for one in text.splitlines()
        if "fe80" not in one and "ff00" not in one
    )


def state(container: Container) -> list[str]:
    """What there is of eth0: its master, addresses, and routes of all tables."""
    script = """
      ip -o link show eth0 | grep -o 'master [^ ]*'
      ip -o addr show eth0 | tr -s ' ' | cut -d ' ' -f 2-
      for family in -4 -6; do ip $family route show table all dev eth0; done
      ip link show eth0 | grep -o 'NO-CARRIER\\|,UP\\|DOWN'
    """
    return _global(container.run("sh", "-c", script, check=False).stdout)


def vrfs(container: Container) -> dict[str, int]:
    found = container.ip("link", "show", "type", "vrf")
    return {one["ifname"]: one["linkinfo"]["info_data"]["table"] for one in found}


@vm
def test_worked_example(host: Host) -> None:
    """[A.16, W-VR2, W-VR4] Addresses and routes move along, into the VRF and out of it again."""
    container = attached(host)
    before = state(container)
    config = chained()
    result = host.add("vrf", config, container)
    assert result == config["prevResult"]
    assert vrfs(container) == {"blue": 1}
    (blue,) = container.ip("link", "show", "blue")
    assert "UP" in blue["flags"]
    assert blue["ifalias"] == "cni-py: vrf"
    assert container.link()["master"] == "blue"
    assert container.addresses() == [V4, V6]
    moved = routes(container, "eth0", 1)
    assert "10.10.0.0/24 via 10.0.0.1 mtu 1400" in moved
    assert "192.0.0.0/24 scope link src 10.0.0.2" in moved
    assert "2001:db8::/64 via fd00:2::1 metric 1024" in moved
    assert "local fd00:2::2 proto kernel metric 0" in moved
    assert routes(container, "eth0", "main") == []
    assert routes(container, "eth0", 300) == ["198.51.0.0/24 scope link"]
    assert host.call("vrf", "CHECK", config, container).status == 0
    host.delete("vrf", config, container)
    assert state(container) == before
    assert vrfs(container) == {}
    host.delete("vrf", config, container)


@vm
def test_two_interfaces_and_two_vrfs(host: Host) -> None:
    """[W-VR2, W-VR3] The VRF goes with its last; a table that anything uses is not free."""
    container = attached(host, links=("eth0", "eth1", "eth2"))
    container.run("ip", "rule", "add", "from", "192.0.2.1", "lookup", "2")
    container.run("ip", "-6", "route", "add", "2001:db8:9::/64", "dev", "eth0", "table", "3")
    host.add("vrf", chained(), container)
    host.add("vrf", chained("eth1", 1), container, "eth1")
    host.add("vrf", chained("eth2", 2, vrfname="red"), container, "eth2")
    assert vrfs(container) == {"blue": 1, "red": 4}
    host.delete("vrf", chained(), container)
    assert vrfs(container) == {"blue": 1, "red": 4}
    assert host.call("vrf", "CHECK", chained("eth1", 1), container, "eth1").status == 0
    host.delete("vrf", chained("eth1", 1), container, "eth1")
    assert vrfs(container) == {"red": 4}


@vm
def test_configured_table_and_existing_vrf(host: Host) -> None:
    """[W-VR2] A VRF that somebody else has made stays when it becomes empty."""
    container = attached(host, links=("eth0", "eth1"))
    container.run("ip", "link", "add", "blue", "type", "vrf", "table", "77")
    container.run("ip", "link", "set", "blue", "up")
    either: tuple[dict[str, Any], ...] = ({}, {"table": 77})
    for keys in either:
        config = chained(**keys)
        host.add("vrf", config, container)
        assert "10.10.0.0/24 via 10.0.0.1 mtu 1400" in routes(container, "eth0", 77)
        assert host.call("vrf", "CHECK", config, container).status == 0
        host.delete("vrf", config, container)
        assert vrfs(container) == {"blue": 77}
    config = chained("eth1", 1, vrfname="red", table=4000000)
    host.add("vrf", config, container, "eth1")
    assert vrfs(container) == {"blue": 77, "red": 4000000}
    assert host.call("vrf", "CHECK", config, container, "eth1").status == 0


IN_THE_WAY: dict[str, tuple[dict[str, Any], str]] = {
    "ip link add blue type vrf table 5": (
        {"table": 6},
        "VRF blue already exist with different routing table 5",
    ),
    "ip link set blue name red": ({"table": 5}, "table 5 is the one of VRF red"),
    "ip link add blue type veth": ({}, "Netlink blue is not a VRF"),
    "ip link set eth0 master red": ({}, "interface eth0 has already a master set: red"),
}


@vm
def test_failed_add_leaves_nothing(host: Host) -> None:
    """[W-VR5] Also a VRF that was made for it."""
    container = attached(host)
    before = state(container), vrfs(container)
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    script = f"{BIN}/vrf > /dev/full"
    stdin = json.dumps(chained())
    assert host.run("sh", "-c", script, stdin=stdin, env=env, check=False).status == 1
    assert (state(container), vrfs(container)) == before
    for script, (keys, text) in IN_THE_WAY.items():
        container.run("sh", "-c", script)
        before = state(container), vrfs(container)
        error = refusal(host.call("vrf", "ADD", chained(**keys), container))
        assert (error["code"], error["msg"]) == (999, text)
        assert (state(container), vrfs(container)) == before


LOST = {
    "empty": "true",
    "interface": "ip -n c1 link del eth0",
    "vrf": "ip -n c1 link del blue",
    "taken out": "ip -n c1 link set eth0 nomaster",
    "down": "ip -n c1 link set eth0 down",
    "plain file": "ip netns del c1; touch /run/netns/c1",
}


@vm
@pytest.mark.parametrize("case", LOST)
def test_del_matrix(host: Host, case: str) -> None:
    """[A.19, W-VR1] Whatever is gone: the VRF goes too, and a second DEL succeeds."""
    container = attached(host)
    config = chained()
    host.add("vrf", config, container)
    host.run("sh", "-c", LOST[case])
    env = {"CNI_NETNS": ""} if case == "empty" else {}
    for one in (config | {"prevResult": None}, config):
        host.delete("vrf", one, container, env=env)
    if case != "plain file":
        assert vrfs(container) == ({"blue": 1} if case == "empty" else {})


DRIFTS = {
    "ip route del 10.10.0.0/24 table 1": "route 10.10.0.0/24 of interface eth0 differs",
    "ip addr del 10.0.0.2/24 dev eth0": "address of interface eth0 differs",
    "ip link set eth0 nomaster": "vrf of interface eth0 differs",
    "ip link del eth0": "interface eth0 differs",
    "ip link set blue down": "state of vrf blue differs",
    "ip link del blue": "vrf blue differs",
}


@vm
def test_drift_is_named(host: Host) -> None:
    """What is looked at last is changed first."""
    container = attached(host)
    host.add("vrf", chained(), container)
    for drift, expected in DRIFTS.items():
        container.run("sh", "-c", drift)
        error = refusal(host.call("vrf", "CHECK", chained(), container))
        assert error["msg"] == expected


@vm
def test_one_at_a_time(host: Host) -> None:
    """[W-VR3] ADDs at once in a namespace: each VRF has a table of its own."""
    names = ("eth0", "eth1", "eth2")
    container = attached(host, links=names)
    calls = []
    for number, name in enumerate(names):
        config = chained(name, number, vrfname=f"vrf{number}")
        calls.append(
            subprocess.Popen(
                [*host.prefix, f"{BIN}/vrf"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=container.environ("ADD", name) | {"CNI_PY_SOCKET": ""},
            )
        )
        stdin = calls[-1].stdin
        assert stdin is not None
        stdin.write(json.dumps(config).encode())
        stdin.close()
    assert [one.wait(120) for one in calls] == [0, 0, 0]
    assert vrfs(container).keys() == {"vrf0", "vrf1", "vrf2"}
    assert set(vrfs(container).values()) == {1, 2, 3}


@vm
def test_beside_the_reference(host: Host) -> None:
    """The same result and state; each takes down what the other has set up."""
    theirs = reference(host, "vrf")
    seen = []
    for made_by, other in ((theirs, host), (host, theirs)):
        container = attached(host)
        # What it does not move.
        container.run("ip", "route", "del", "192.0.0.0/24")
        container.run("ip", "route", "del", "10.10.0.0/24")
        container.run("ip", "route", "add", "10.10.0.0/24", "via", "10.0.0.1")
        container.run("ip", "route", "flush", "table", "300")
        outcome = made_by.call("vrf", "ADD", chained(), container)
        assert outcome.status == 0, outcome
        seen.append((outcome.json, vrfs(container), state(container), routes(container, "eth0", 1)))
        assert other.call("vrf", "CHECK", chained(), container).status == 0
        outcome = other.call("vrf", "DEL", chained(), container)
        assert outcome.status == 0, outcome
        assert "master" not in container.link()
        # A VRF without our label is left.
        assert vrfs(container) == ({"blue": 1} if made_by is theirs else {})
        container.delete_netns()
    assert seen[0] == seen[1]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"vrfname": ""}, "configuration is expected to have a valid vrf name"),
    "long name": ({"vrfname": "v" * 16}, "is too long"),
    "hostile name": ({"vrfname": "a/b"}, "contains / or :"),
    "all": ({"vrfname": "all"}, "is not the name of one device"),
    "its own name": ({"vrfname": "eth0"}, 'vrfname "eth0" is the name of the interface'),
    "main table": ({"table": 254}, "invalid table 254"),
    "table": ({"table": -1}, "invalid table -1"),
    "big table": ({"table": 2**32}, "invalid table 4294967296"),
    "no prevResult": ({"prevResult": None}, "Required prevResult missing"),
}


def test_refused(host: Host) -> None:
    """[W-VR5] Before anything is done; no VRF is needed for that."""
    container = host.container("c1")
    for keys, text in REFUSED.values():
        error = refusal(host.call("vrf", "ADD", chained(**keys), container))
        assert (error["code"], text in error["msg"]) == (7, True), error
    error = refusal(host.call("vrf", "ADD", chained(), container))
    assert error["msg"] == "interface eth0 is not in /run/netns/c1"
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]


def test_status_and_gc(host: Host) -> None:
    """[W-G1, W-G2] STATUS says whether the kernel has VRFs, and makes none."""
    probe = ("ip", "link", "add", "probe", "type", "vrf", "table", "9")
    has_vrfs = host.run(*probe, check=False).status == 0
    outcome = host.call("vrf", "STATUS", chained())
    assert (outcome.status == 0) == has_vrfs
    if not has_vrfs:
        assert outcome.json["code"] == 50
        assert "the kernel lacks VRFs" in outcome.json["details"]
        container = attached(host)
        before = state(container)
        error = refusal(host.call("vrf", "ADD", chained(), container))
        assert "create vrf blue: Operation not supported" in error["msg"]
        assert state(container) == before
    assert refusal(host.call("vrf", "STATUS", chained(vrfname="")))["code"] == 50
    assert host.call("vrf", "GC", chained() | {"cni.dev/valid-attachments": []}).status == 0
    assert host.call("vrf", "DEL", chained(vrfname=""), host.container("c2")).status == 0
