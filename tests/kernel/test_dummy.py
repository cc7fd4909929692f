"""dummy: an interface that holds addresses (`make test-vm`: not every kernel has the kind)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.reference import reference

pytestmark = pytest.mark.vm

MAC = "02:00:00:00:00:07"
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.9", "priority": 7}]


def l3(*ranges: Any, routes: Any = (), **keys: Any) -> dict[str, Any]:
    pool = host_local(*ranges, routes=list(routes))
    return {"cniVersion": "1.1.0", "name": "net1", "type": "dummy", "ipam": pool} | keys


def names(container: Container) -> list[str]:
    return [one["ifname"] for one in container.ip("link")]


def test_dual_stack(host: Host) -> None:
    """[3.8] The interface, its addresses and routes, and the result."""
    container = host.container("c1")
    config = l3(V4, V6, routes=ROUTES)
    result = host.add("dummy", config, container)
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
    assert link["linkinfo"]["info_kind"] == "dummy"
    assert "UP" in link["flags"]
    assert container.addresses() == ["10.1.2.2/24", "fd00:1::2/64"]
    assert {one["dst"] for one in container.ip("route")} == {
        "default",
        "10.1.2.0/24",
        "192.0.2.0/24",
    }
    container.run("ip", "link", "set", "lo", "up")
    assert container.reaches("10.1.2.2")
    checked = config | {"prevResult": result}
    assert host.call("dummy", "CHECK", checked, container).status == 0
    host.delete("dummy", config, container)
    assert names(container) == ["lo"]
    assert leaks(host) == []


@pytest.mark.parametrize("source", ["key", "capability"])
def test_mac_and_mtu(host: Host, source: str) -> None:
    """[W-DU1]"""
    container = host.container("c1")
    keys: dict[str, Any] = {"mac": MAC}
    if source == "capability":
        keys = {"mac": "02:00:00:00:00:99", "runtimeConfig": {"mac": MAC}}
    config = l3(mtu=9000, **keys)
    result = host.add("dummy", config, container)
    link = container.link()
    assert (link["address"], link["mtu"]) == (MAC, 9000)
    assert result["interfaces"][0]["mac"] == MAC
    checked = config | {"prevResult": result}
    container.run("ip", "link", "set", "eth0", "mtu", "1400")
    error = refusal(host.call("dummy", "CHECK", checked, container))
    assert error["msg"] == "mtu of interface eth0 differs"


@pytest.mark.parametrize(
    ("own", "expected"), [({}, {"nameservers": ["192.0.2.53"]}), ({"domain": "a"}, {"domain": "a"})]
)
def test_dns(host: Host, own: Any, expected: Any) -> None:
    """[W-G10, W-G13] The configuration's dns, which the reference ignores, is used when set."""
    dns = {"nameservers": ["192.0.2.53"]}
    ipam = {"type": "static", "addresses": [{"address": "10.1.2.9/32"}], "dns": dns}
    container = host.container("c1")
    config = l3(ipam=ipam, dns=own)
    result = host.add("dummy", config, container)
    assert result["dns"] == expected
    assert host.call("dummy", "CHECK", config | {"prevResult": result}, container).status == 0


REFUSED = {
    "no ipam": ({"ipam": {}}, 7, "dummy interface requires an IPAM configuration"),
    "mtu": ({"mtu": 67}, 7, "invalid mtu 67"),
    "mac": ({"mac": "x"}, 7, 'invalid mac "x"'),
    "no such ipam": ({"ipam": {"type": "nobody"}}, None, "nobody"),
    "no address": ({"ipam": {"type": "static"}}, None, ""),
    "route": (
        {"ipam": host_local(V4, routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}])},
        999,
        "add route 192.0.2.0/24 via 10.9.9.9 dev eth0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_failed_add_leaves_nothing(host: Host, case: str) -> None:
    """[W-DU1]"""
    keys, code, text = REFUSED[case]
    container = host.container("c1")
    error = refusal(host.call("dummy", "ADD", l3(**keys), container))
    assert code in (None, error["code"])
    assert text in error["msg"]
    assert names(container) == ["lo"]
    assert leaks(host) == []


@pytest.mark.parametrize("kind", ["bridge", "dummy"])
def test_name_is_taken(host: Host, kind: str) -> None:
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", kind)
    before = container.ip("link")
    error = refusal(host.call("dummy", "ADD", l3(), container))
    assert error["msg"] == "interface eth0 already exists in /run/netns/c1"
    assert container.ip("link") == before
    assert host.allocated("net1") == {}


def test_closed_output_undoes_the_add(host: Host) -> None:
    """[W-G8]"""
    container = host.container("c1")
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    script = f"{BIN}/dummy > /dev/full"
    assert host.run("sh", "-c", script, stdin=json.dumps(l3()), env=env, check=False).status == 1
    assert names(container) == ["lo"]
    assert leaks(host) == []


@pytest.mark.parametrize("state", ["there", "empty", "missing", "plain file", "other"])
def test_del_matrix(host: Host, state: str) -> None:
    """[A.19, W-G4]"""
    container = host.container("c1")
    host.add("dummy", l3(V4, V6), container)
    if state != "there":
        container.delete_netns()
    if state == "plain file":
        host.run("touch", container.netns)
    elif state == "other":
        other = host.container("c1", "other")
        host.add("dummy", l3(V4, V6), other)
    env = {"CNI_NETNS": ""} if state == "empty" else {}
    for _ in range(2):
        host.delete("dummy", l3(V4, V6), container, env=env)
    if state == "other":
        assert other.addresses() == ["10.1.2.3/24", "fd00:1::3/64"]
        host.delete("dummy", l3(V4, V6), other)
    assert leaks(host) == []


def test_del_without_ipam(host: Host) -> None:
    """[W-DU1]"""
    container = host.container("c1")
    host.add("dummy", l3(), container)
    config = l3(mtu=-1, mac="x")
    del config["ipam"]
    assert host.call("dummy", "DEL", config, container).status == 0
    assert names(container) == ["lo"]
    host.delete("dummy", l3(), container)


DRIFTS = {
    "ip link set eth0 down": "state of interface eth0 differs",
    "ip link set eth0 address 02:00:00:00:00:99": "mac of interface eth0 differs",
    "ip addr del 10.1.2.2/24 dev eth0": "address of interface eth0 differs",
    "ip addr del fd00:1::2/64 dev eth0": "address of interface eth0 differs",
    "ip route del 192.0.2.0/24": "route 192.0.2.0/24 of interface eth0 differs",
    "ip link del eth0": "interface eth0 in /run/netns/c1 differs",
    "ip link del eth0; ip link add eth0 type bridge": "kind of interface eth0 differs",
}


def test_drift_is_named(host: Host) -> None:
    """[W-DU1]"""
    config = l3(V4, V6, routes=ROUTES)
    for number, (drift, expected) in enumerate(DRIFTS.items()):
        container = host.container("c1", f"id{number}")
        checked = config | {"prevResult": host.add("dummy", config, container)}
        assert host.call("dummy", "CHECK", checked, container).status == 0
        # Addresses go round.
        command = drift.replace(".2/", f".{number + 2}/").replace("::2/", f"::{number + 2}/")
        container.run("sh", "-c", command)
        error = refusal(host.call("dummy", "CHECK", checked, container))
        assert error["msg"] == expected
        host.delete("dummy", config, container)
        container.delete_netns()


def test_status_and_gc(host: Host) -> None:
    """[W-G1, W-G2]"""
    assert host.call("dummy", "STATUS", l3()).status == 0
    assert refusal(host.call("dummy", "STATUS", l3(ipam={})))["code"] == 50
    lost, kept = host.container("c1"), host.container("c2")
    host.add("dummy", l3(), lost)
    host.add("dummy", l3(), kept)
    lost.delete_netns()
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    assert host.call("dummy", "GC", l3() | {"cni.dev/valid-attachments": valid}).status == 0
    assert set(host.allocated("net1")) == {"10.1.2.3"}


def seen(container: Container, result: dict[str, Any]) -> dict[str, Any]:
    result["interfaces"][0]["mac"] = "<mac>"
    link = container.link()
    return {
        "result": result,
        "link": {key: link[key] for key in ("mtu", "operstate", "flags")},
        "addresses": container.addresses(),
        "routes": [container.ip("route"), container.ip("-6", "route", "show", "fd00:1::/64")],
    }


def test_beside_the_reference(host: Host) -> None:
    """The same result and state; each checks and takes down what the other has set up."""
    config, theirs = l3(V4, V6, routes=ROUTES), reference(host, "dummy")
    states = []
    for made_by, other in ((theirs, host), (host, theirs)):
        container = host.container("c1")
        outcome = made_by.call("dummy", "ADD", config, container)
        assert outcome.status == 0, outcome
        checked = config | {"prevResult": outcome.json}
        assert other.call("dummy", "CHECK", checked, container).status == 0
        states.append(seen(container, outcome.json))
        other.delete("dummy", config, container)
        assert names(container) == ["lo"]
        host.delete("dummy", config, container)
        container.delete_netns()
        host.run("sh", "-c", "rm -rf /var/lib/cni/networks/*")
    assert states[0] == states[1]
