"""sbr: routes by source for the container's interface (6.5)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.configs import host_local, routed
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.parents import child, uplink
from fixtures.reference import reference
from fixtures.settled import settled

V4, V6 = "192.168.1.209/24", "fd00:1::209/64"
GATEWAYS = {"192.168.1.209": "192.168.1.1", "fd00:1::209": "fd00:1::1"}
RECORDS = "/run/cni-py/sbr"


def attached(host: Host, name: str = "c1", ips: Any = (V4, V6), default: bool = True) -> Container:
    """A container with eth0, and net1 with addresses and default routes, as a chain leaves it."""
    container = host.container(name)
    for link, far in (("eth0", "far0"), ("net1", "far1")):
        container.run("ip", "link", "add", link, "type", "veth", "peer", "name", far)
        for one in (link, far):
            container.run("ip", "link", "set", one, "addrgenmode", "none", "up")
    container.run("ip", "addr", "add", "10.1.2.9/24", "dev", "eth0")
    container.run("ip", "route", "add", "default", "via", "10.1.2.1")
    for address in ips:
        container.run("ip", "addr", "add", address, "dev", "net1", "nodad")
        gateway = GATEWAYS.get(address.split("/")[0])
        if gateway and default:
            family = "-6" if ":" in gateway else "-4"
            route = ("default", "via", gateway, "dev", "net1", "metric", "50")
            container.run("ip", family, "route", "add", *route)
    settled(container, ips)
    return container


def sourced(*ips: str, **keys: Any) -> dict[str, Any]:
    """A configuration in the chain."""
    listed = [
        {"interface": 1, "address": one, "gateway": GATEWAYS[one.split("/")[0]]}
        if one.split("/")[0] in GATEWAYS
        else {"interface": 1, "address": one}
        for one in ips or (V4, V6)
    ]
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "veth0", "mac": "02:00:00:00:00:01"},
            {"name": "net1", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"},
        ],
        "ips": [{"interface": 0, "address": "10.9.9.9/24"}, *listed],
    }
    base = {"cniVersion": "1.1.0", "name": "net1", "type": "sbr", "prevResult": previous}
    return base | keys


def rules(container: Container) -> list[str]:
    """The rules, but those that every namespace has."""
    shown = container.run("sh", "-c", "ip rule; ip -6 rule").stdout.splitlines()
    texts = [one.split(":", 1)[1].strip() for one in shown]
    return [one for one in texts if not one.startswith("from all lookup")]


def table(container: Container, number: int | str) -> list[str]:
    """The routes of a table through net1, sorted."""
    script = f"ip route show table {number} dev net1; ip -6 route show table {number} dev net1"
    lines = container.run("sh", "-c", script, check=False).stdout.splitlines()
    return sorted(one.strip().removesuffix(" pref medium") for one in lines)


def state(container: Container) -> str:
    return container.run(
        "sh",
        "-c",
        "ip rule; ip -6 rule; ip route show table all | sort; ip -6 route show table all | sort",
    ).stdout


CONNECTED4 = "192.168.1.0/24 proto kernel scope link src 192.168.1.209"
CONNECTED6 = "fd00:1::/64 proto kernel metric 256"


def test_worked_example(host: Host) -> None:
    """[A.15] A table for each address; the main one is without net1, and DEL brings it back."""
    container = attached(host)
    before = state(container)
    config = sourced()
    result = host.add("sbr", config, container, "net1")
    assert result == config["prevResult"]
    assert rules(container) == ["from 192.168.1.209 lookup 100", "from fd00:1::209 lookup 101"]
    assert table(container, 100) == [
        CONNECTED4,
        "default via 192.168.1.1",
        "default via 192.168.1.1 metric 50",
    ]
    assert table(container, 101) == [
        "default via fd00:1::1 metric 1024",
        "default via fd00:1::1 metric 50",
        CONNECTED6,
    ]
    assert table(container, "main") == []
    assert "default via 10.1.2.1 dev eth0" in state(container)
    assert host.call("sbr", "CHECK", config, container, "net1").status == 0
    host.delete("sbr", config, container, "net1")
    assert state(container) == before
    assert host.run("ls", RECORDS).stdout == ""


def test_source_hints(host: Host) -> None:
    """[A.15, W-SB5] Only the subnets stay in the main table, each with the address to send from."""
    container = attached(host)
    before = state(container)
    config = sourced(addSourceHints=True)
    host.add("sbr", config, container, "net1")
    assert table(container, "main") == [
        "192.168.1.0/24 scope link src 192.168.1.209",
        "fd00:1::/64 src fd00:1::209 metric 1024",
    ]
    assert host.call("sbr", "CHECK", config, container, "net1").status == 0
    host.delete("sbr", config, container, "net1")
    assert state(container) == before


def test_configured_table(host: Host) -> None:
    """[6.5] Rules alone: somebody else fills the table, also one beyond a byte."""
    container = attached(host)
    for number in (77, 4000000):
        before = state(container)
        config = sourced(table=number)
        host.add("sbr", config, container, "net1")
        assert rules(container) == [
            f"from 192.168.1.209 lookup {number}",
            f"from fd00:1::209 lookup {number}",
        ]
        assert table(container, "main") != []
        assert host.call("sbr", "CHECK", config, container, "net1").status == 0
        host.delete("sbr", config, container, "net1")
        assert state(container) == before


def test_static_gateways(host: Host) -> None:
    """[6.5] They win over IPAM's, also over the default route that net1 has."""
    container = attached(host)
    container.run("ip", "route", "append", "default", "via", "192.168.1.1", "dev", "net1")
    config = sourced(gateways=["192.168.1.7", "fd00:1::7"])
    host.add("sbr", config, container, "net1")
    defaults = [one for one in table(container, 100) + table(container, 101) if "default" in one]
    assert defaults == ["default via 192.168.1.7", "default via fd00:1::7 metric 1024"]
    assert host.call("sbr", "CHECK", config, container, "net1").status == 0


def test_without_gateway(host: Host) -> None:
    """[6.5] The table has what the main one had; several addresses, several tables."""
    ips = ("198.51.100.2/24", "203.0.113.2/24")
    container = attached(host, ips=ips)
    container.run("ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.9", "mtu", "1400")
    container.run("ip", "route", "add", "192.0.3.0/24", "dev", "net1")
    before = state(container)
    config = sourced(*ips)
    host.add("sbr", config, container, "net1")
    shared = "192.0.3.0/24 scope link"
    assert table(container, 100) == [
        shared,
        "198.51.100.0/24 proto kernel scope link src 198.51.100.2",
    ]
    assert table(container, 101) == [
        "192.0.2.0/24 via 203.0.113.9 mtu 1400",
        shared,
        "203.0.113.0/24 proto kernel scope link src 203.0.113.2",
    ]
    assert host.call("sbr", "CHECK", config, container, "net1").status == 0
    host.delete("sbr", config, container, "net1")
    assert state(container) == before


def test_result_without_interfaces(host: Host) -> None:
    """[6.5] Of an older version: its addresses are the interface's."""
    container = attached(host)
    family = {"ip": V4, "gateway": "192.168.1.1"}
    config = sourced(cniVersion="0.2.0", prevResult={"cniVersion": "0.2.0", "ip4": family})
    assert host.add("sbr", config, container, "net1")["ip4"] == family
    assert rules(container) == ["from 192.168.1.209 lookup 100"]


def test_link_local_routes_stay(host: Host) -> None:
    """[W-SB5] IPv6 does not work on a link without them."""
    container = attached(host)
    container.run("ip", "addr", "add", "fe80::9/64", "dev", "net1", "nodad")
    host.add("sbr", sourced(), container, "net1")
    assert table(container, "main") == ["fe80::/64 proto kernel metric 256"]
    assert "fe80::/64 proto kernel metric 256" in table(container, 101)


def test_replies_leave_through_the_interface_that_was_asked(host: Host) -> None:
    """[6.5] What it is for: a neighbour's neighbour asks net1's address, and hears of it."""
    container = host.container("c1")
    first = routed(ipam={"type": "static", "addresses": [{"address": "10.1.2.2/24"}],
        "routes": [{"dst": "0.0.0.0/0"}]})  # fmt: skip
    first["ipam"]["addresses"][0]["gateway"] = "10.1.2.1"
    host.add("ptp", first, container, "eth0")
    # The host is net1's router, with somebody behind it.
    host.run("ip", "link", "add", "up1", "type", "veth", "peer", "name", "net1",
        "netns", "c1")  # fmt: skip
    host.run("sh", "-c", "ip addr add 192.168.1.1/24 dev up1; ip link set up1 up")
    host.run("sh", "-c", "ip link add far type veth peer name near; ip link set near up;"
        "ip addr add 203.0.113.1/24 dev far; ip link set far up")  # fmt: skip
    container.run("sh", "-c", f"ip addr add {V4} dev net1; ip link set net1 up")
    config = sourced(V4)
    ask = ("busybox", "ping", "-c", "1", "-W", "1", "-I", "203.0.113.1", "192.168.1.209")
    # Loose reverse path filtering is off here: the wrong interface is seen by strict filtering.
    host.run("sh", "-c", "for f in all up1; do echo 1 > /proc/sys/net/ipv4/conf/$f/rp_filter; done")
    for link in ("all",):
        container.run("sysctl", "-qw", f"net.ipv4.conf.{link}.rp_filter=0")
    veth = next(one["ifname"] for one in host.ip("link") if one["ifname"].startswith("veth"))
    host.run("sysctl", "-qw", f"net.ipv4.conf.{veth}.rp_filter=1")
    host.run("ip", "route", "add", "blackhole", "10.255.0.0/16")
    counters = ("cat", "/sys/class/net/up1/statistics/rx_packets")
    # IPv6 noise apart, the answer comes in on up1 only with the rule.
    host.add("sbr", config, container, "net1")
    before = int(host.run(*counters).stdout)
    assert host.run(*ask, check=False).status == 0
    assert int(host.run(*counters).stdout) > before
    host.delete("sbr", config, container, "net1")


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no prevResult": ({"prevResult": None}, 7, "Required prevResult missing"),
    "no address": (
        {"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "net1"}]}},
        7,
        "No IP addresses supplied on interface: net1",
    ),
    "gateway": ({"gateways": ["10.0.0.0/8"]}, 7, "invalid static gateway IP address: 10.0.0.0/8"),
    "two gateways": (
        {"gateways": ["192.168.1.1", "192.168.1.2"]},
        7,
        "gateways list contains multiple IPv4 addresses",
    ),
    "three gateways": (
        {"gateways": ["192.168.1.1", "fd00:1::1", "fd00:1::2"]},
        7,
        "gateways list cannot contain more than 2 entries",
    ),
    "table": ({"table": 0}, 7, "invalid table 0"),
    "big table": ({"table": 2**32}, 7, "invalid table 4294967296"),
    "unreachable": ({"gateways": ["203.0.113.1"]}, 999, "add route 0.0.0.0/0 via 203.0.113.1"),
    "unreachable IPv6": ({"gateways": ["fd00:9::1"]}, 999, "add route ::/0 via fd00:9::1"),
    "unreachable with hints": (
        {"gateways": ["fd00:9::1"], "addSourceHints": True},
        999,
        "add route ::/0 via fd00:9::1",
    ),
    "hint of nobody": (
        {"prevResult": sourced(V4, "192.168.7.7/24")["prevResult"], "addSourceHints": True},
        999,
        "add route 192.168.7.0/24 dev net1",
    ),
}


def test_failed_add_reverts_all(host: Host) -> None:
    """[W-SB3] Rules, tables, and the routes of the main table."""
    container = attached(host)
    host.run("mkdir", "-p", RECORDS)
    before = state(container), dump(host)
    for keys, code, text in REFUSED.values():
        error = refusal(host.call("sbr", "ADD", sourced(**keys), container, "net1"))
        assert (error["code"], text in error["msg"]) == (code, True), error
        assert state(container) == before[0], error
    error = refusal(host.call("sbr", "ADD", sourced(), container, "net2"))
    assert error["msg"] == "No IP addresses supplied on interface: net2"
    env = container.environ("ADD", "net1") | {"CNI_PY_SOCKET": ""}
    stdin = json.dumps(sourced())
    script = f"{BIN}/sbr > /dev/full"
    assert host.run("sh", "-c", script, stdin=stdin, env=env, check=False).status == 1
    assert state(container) == before[0]
    assert differences(before[1], dump(host)) == ""


def test_free_tables(host: Host) -> None:
    """[W-SB2] A table with routes alone is not free, nor one that only IPv6 uses."""
    container = attached(host)
    container.run("ip", "route", "add", "192.0.2.0/24", "dev", "eth0", "table", "100")
    container.run("ip", "-6", "route", "add", "2001:db8::/64", "dev", "net1", "table", "102")
    container.run("ip", "rule", "add", "from", "192.0.2.1", "lookup", "103")
    container.run("ip", "-6", "rule", "add", "from", "2001:db8::1", "lookup", "104")
    host.add("sbr", sourced(), container, "net1")
    assert {"from 192.168.1.209 lookup 101", "from fd00:1::209 lookup 105"} <= set(rules(container))
    assert table(container, 102) == ["2001:db8::/64 metric 1024"]


def test_repeated_add(host: Host) -> None:
    """[W-SB4] It begins anew, also with another configuration or another interface of the name."""
    container = attached(host)
    before = state(container)
    for keys in ({}, {}, {"addSourceHints": True}, {"table": 200}, {}):
        host.add("sbr", sourced(**keys), container, "net1")
    assert rules(container) == ["from 192.168.1.209 lookup 100", "from fd00:1::209 lookup 101"]
    for _ in range(2):
        host.delete("sbr", sourced(), container, "net1")
        assert state(container) == before
    host.add("sbr", sourced(), container, "net1")
    container.run("ip", "link", "del", "net1")
    container.run("ip", "link", "add", "net1", "type", "veth", "peer", "name", "far1")
    container.run("ip", "link", "set", "net1", "up")
    for address in (V4, V6):
        container.run("ip", "addr", "add", address, "dev", "net1", "nodad")
    host.add("sbr", sourced(gateways=["192.168.1.7"]), container, "net1")
    assert len(rules(container)) == 2
    assert "default via 192.168.1.7" in "\n".join(table(container, 100))


def test_only_own_rules_go(host: Host) -> None:
    """[W-SB4] Somebody else's rule of the same source stays, with and without a record."""
    container = attached(host)
    foreign = ["from 192.168.1.209 lookup 50", "from 192.168.1.209 fwmark 0x1 lookup 100"]
    container.run("ip", "rule", "add", "from", "192.168.1.209", "lookup", "50")
    host.add("sbr", sourced(), container, "net1")
    mark = ("fwmark", "1", "lookup", "100")
    container.run("ip", "rule", "add", "from", "192.168.1.209", *mark)
    host.delete("sbr", sourced(), container, "net1")
    assert sorted(rules(container)) == sorted(foreign)
    host.add("sbr", sourced(), container, "net1")
    host.run("sh", "-c", f"rm {RECORDS}/*")
    host.delete("sbr", sourced(), container, "net1")
    assert sorted(rules(container)) == sorted(foreign)


LOST = {
    "there": "true",
    "empty": "true",
    "missing": "ip netns del c1",
    "plain file": "ip netns del c1; touch /run/netns/c1",
    "link is gone": "ip -n c1 link del net1",
    "no record": f"rm {RECORDS}/*",
}


@pytest.mark.parametrize("case", LOST)
def test_del_matrix(host: Host, case: str) -> None:
    """[A.19, W-SB1, W-SB4] Twice, without prevResult, and no file appears at a vanished path."""
    container = attached(host)
    before = state(container)
    config = sourced()
    host.add("sbr", config, container, "net1")
    host.run("sh", "-c", LOST[case])
    env = {"CNI_NETNS": ""} if case == "empty" else {}
    for one in (config | {"prevResult": None}, config):
        host.delete("sbr", one, container, "net1", env=env)
    assert host.run("ls", RECORDS).stdout == ""
    if case == "missing":
        assert host.run("test", "-e", container.netns, check=False).status == 1
    elif case in ("there", "empty"):
        assert state(container) == before
    elif case != "plain file":
        assert rules(container) == []


def test_other_namespace_at_the_path(host: Host) -> None:
    """[W-SB4] A late DEL leaves the rules of another container that has the address by now."""
    first = attached(host)
    host.add("sbr", sourced(), first, "net1")
    first.delete_netns()
    attached(host)
    second = Container(host, "id-c2", first.netns)
    host.add("sbr", sourced(), second, "net1")
    before = state(second)
    for _ in range(2):
        host.delete("sbr", sourced(), first, "net1")
        assert state(second) == before


DRIFTS = {
    "ip rule del from 192.168.1.209": "rule from 192.168.1.209 differs",
    "ip -6 rule del from fd00:1::209": "rule from fd00:1::209 differs",
    "ip rule del from 192.168.1.209; ip rule add from 192.168.1.209 lookup 50": (
        "rule from 192.168.1.209 differs"
    ),
    "ip route flush table 100": "default route of interface net1 in table 100 differs",
    "ip route add 192.0.2.0/24 dev net1": (
        "main table's route 192.0.2.0/24 of interface net1 differs"
    ),
    "ip link set net1 down; ip link set net1 name net2": "interface net1 differs",
}


def test_drift_is_named(host: Host) -> None:
    """[W-SB5]"""
    for number, (drift, expected) in enumerate(DRIFTS.items()):
        container = attached(host, f"c{number}")
        config = sourced()
        config["prevResult"]["interfaces"][1]["sandbox"] = container.netns
        host.add("sbr", config, container, "net1")
        container.run("sh", "-c", drift)
        error = refusal(host.call("sbr", "CHECK", config, container, "net1"))
        assert error["msg"] == expected
    hinted = sourced(addSourceHints=True)
    container = attached(host, "c9")
    host.add("sbr", hinted, container, "net1")
    container.run("ip", "route", "del", "192.168.1.0/24", "dev", "net1", "table", "main")
    error = refusal(host.call("sbr", "CHECK", hinted, container, "net1"))
    assert error["msg"] == "main table's route 192.168.1.0/24 of interface net1 differs"


def test_status_and_gc(host: Host) -> None:
    """[W-G1, W-G2]"""
    config = sourced()
    assert host.call("sbr", "STATUS", config).status == 0
    assert refusal(host.call("sbr", "STATUS", config | {"gateways": ["x"]}))["code"] == 50
    containers = [attached(host, name) for name in ("lost", "lives", "kept", "c4")]
    before = state(containers[1])
    for index, container in enumerate(containers):
        own = config if index < 3 else config | {"name": "net2"}
        host.add("sbr", own, container, "net1")
    containers[0].delete_netns()
    assert host.call("sbr", "GC", config).status == 0
    assert len(host.run("ls", RECORDS).stdout.split()) == 3
    valid = [{"containerID": containers[2].id, "ifname": "net1"}]
    assert host.call("sbr", "GC", config | {"cni.dev/valid-attachments": valid}).status == 0
    assert len(host.run("ls", RECORDS).stdout.split()) == 2
    assert state(containers[1]) == before
    assert len(rules(containers[2])) == len(rules(containers[3])) == 2


def test_one_at_a_time(host: Host) -> None:
    """[W-SB1, W-SB2] The namespace itself is the lock, the reference's too: tables never clash."""
    container = attached(host, ips=())
    addresses = [f"198.51.{number}.2/24" for number in range(6)]
    for address in addresses:
        container.run("ip", "addr", "add", address, "dev", "net1")
    calls = []
    for number, address in enumerate(addresses):
        own = Container(host, f"id{number}", container.netns)
        env = own.environ("ADD", "net1") | {"CNI_PY_SOCKET": "" if host.server is None else None}
        process = subprocess.Popen(
            [*host.prefix, f"{BIN}/sbr"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={key: value for key, value in env.items() if value is not None},
        )
        calls.append((process, json.dumps(sourced(address)).encode()))
    for process, stdin in calls:
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
    assert [process.wait(60) for process, _ in calls] == [0] * len(calls)
    for process, _ in calls:
        assert process.stdout is not None
        process.stdout.close()
    tables = [one.rsplit(" ", 1)[1] for one in rules(container)]
    assert sorted(tables) == [str(100 + number) for number in range(len(addresses))]
    for number, address in enumerate(addresses):
        own = Container(host, f"id{number}", container.netns)
        host.delete("sbr", sourced(address), own, "net1")
    assert rules(container) == []


def test_waits_for_who_has_the_namespace(host: Host) -> None:
    """[W-SB1] The reference's lock is on the same file."""
    container = attached(host)
    script = f"exec 9< {container.netns}; flock 9; echo locked; read line"
    holder = subprocess.Popen(
        [*host.prefix, "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    env = container.environ("ADD", "net1") | {"CNI_PY_SOCKET": ""}
    call = subprocess.Popen(
        [*host.prefix, f"{BIN}/sbr"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert call.stdin is not None
    call.stdin.write(json.dumps(sourced()).encode())
    call.stdin.close()
    deadline = time.monotonic() + 20
    waits = f"-> FLOCK.* {call.pid} "
    while host.run("grep", "-q", "--", waits, "/proc/locks", check=False).status:
        assert time.monotonic() < deadline
        assert call.poll() is None
    assert rules(container) == []
    holder.communicate("\n")
    assert call.wait(20) == 0
    assert call.stdout is not None
    call.stdout.close()
    assert len(rules(container)) == 2
    host.delete("sbr", sourced(), container, "net1")


SHARED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "IPv4": ((V4,), {}),
    "dual stack": ((V4, V6), {}),
    "hints": ((V4,), {"addSourceHints": True}),
    "table": ((V4, V6), {"table": 77}),
    "gateways": ((V4,), {"gateways": ["192.168.1.7"]}),
}


@pytest.mark.parametrize("case", SHARED)
def test_beside_the_reference(host: Host, case: str) -> None:
    """The same result and state; each checks and takes down what the other has set up."""
    ips, keys = SHARED[case]
    theirs = reference(host, "sbr")
    executable = Path(theirs.path, "sbr").read_bytes()
    if any(key.encode() not in executable for key in keys if key != "table"):
        pytest.skip(f"that release of the reference has no {', '.join(keys)}")
    seen = []
    for made_by, other in ((theirs, host), (host, theirs)):
        container = attached(host, ips=ips, default=False)
        before = rules(container)
        config = sourced(*ips, **keys)
        outcome = made_by.call("sbr", "ADD", config, container, "net1")
        assert outcome.status == 0, outcome
        # IPv6's routes are in IPv4's table too there.
        mine = [one for one in table(container, 100) if ":" not in one]
        seen.append((outcome.json, rules(container), mine, table(container, 101),
            table(container, "main")))  # fmt: skip
        assert other.call("sbr", "CHECK", config, container, "net1").status == 0
        outcome = other.call("sbr", "DEL", config, container, "net1")
        assert outcome.status == 0, outcome
        assert rules(container) == before
        host.delete("sbr", config, container, "net1")
        container.delete_netns()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("plugin", ["bridge", "ptp", "macvlan"])
def test_check_of_the_plugin_before(host: Host, plugin: str) -> None:
    """Its routes are where sbr has put them; a route that is nowhere is missed."""
    uplink(host, "macvlan")
    routes = [{"dst": "192.0.2.0/24"}, {"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]
    config = child("macvlan", ipam=host_local(routes=routes))
    config |= {"type": plugin, "isGateway": True}
    container = host.container()
    result = host.add(plugin, config, container)
    chained = {"cniVersion": "1.1.0", "name": "net1", "type": "sbr", "prevResult": result}
    host.add("sbr", chained, container)
    for name, given in ((plugin, config | {"prevResult": result}), ("sbr", chained)):
        outcome = host.call(name, "CHECK", given, container)
        assert outcome.status == 0, outcome
    container.run("ip", "route", "delete", "192.0.2.0/24", "table", "100")
    error = refusal(host.call(plugin, "CHECK", config | {"prevResult": result}, container))
    assert error["msg"] == "route 192.0.2.0/24 of interface eth0 differs"
    host.delete("sbr", chained, container)
