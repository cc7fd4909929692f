"""macvlan: modes, hardware addresses and the queue for broadcasts."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.capture import capture
from fixtures.configs import V4, V6, host_local
from fixtures.dump import differences, dump
from fixtures.host import Host, refusal
from fixtures.parents import VERSION, bare, child, inside, knows, parent_of, reference_of, uplink

MACVLAN = "macvlan"
MAC = "02:00:00:00:00:09"


def two(host: Host, **keys: Any) -> tuple[Any, Any]:
    """Two containers on one parent."""
    first, second = host.container("c1"), host.container("c2")
    host.add(MACVLAN, child(MACVLAN, **keys), first)
    host.add(MACVLAN, child(MACVLAN, **keys), second)
    return first, second


@pytest.mark.parametrize("mode", ["", "bridge", "private", "vepa"])
def test_modes(host: Host, mode: str) -> None:
    """Only in mode bridge do containers of one parent reach each other without a switch."""
    uplink(host, MACVLAN)
    first, second = two(host, mode=mode)
    assert first.link()["linkinfo"]["info_data"]["mode"] == (mode or "bridge")
    assert first.reaches("10.1.2.1")
    assert second.reaches("10.1.2.1")
    assert first.reaches("10.1.2.3") == (mode in ("", "bridge"))


def test_passthru(host: Host) -> None:
    """One child alone, which has its parent's address; a second one is refused, and why."""
    uplink(host, MACVLAN)
    first, second = host.container("c1"), host.container("c2")
    config = child(MACVLAN, mode="passthru", mac=MAC)
    checked = config | {"prevResult": host.add(MACVLAN, config, first)}
    up0 = host.link("up0")
    assert up0 is not None
    assert first.link()["linkinfo"]["info_data"]["mode"] == "passthru"
    assert first.link()["address"] == up0["address"] != MAC
    assert first.reaches("10.1.2.1")
    assert host.call(MACVLAN, "CHECK", checked, first).status == 0
    for mode in ("passthru", "bridge"):
        error = refusal(host.call(MACVLAN, "ADD", child(MACVLAN, mode=mode), second))
        assert error["msg"] == "create macvlan eth0 on up0: Invalid argument"
        assert error["details"] == "a parent with a child in mode passthru has no other child"
    assert list(host.allocated("net1")) == ["10.1.2.2"]


def test_parent_is_a_bridge_port(host: Host) -> None:
    uplink(host, MACVLAN)
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "up0", "master", "br0")
    error = refusal(host.call(MACVLAN, "ADD", child(MACVLAN), host.container("c1")))
    assert error["msg"] == "create macvlan eth0 on up0: Device or resource busy"
    assert "port of a bridge" in error["details"]


def test_unknown_mode(host: Host) -> None:
    uplink(host, MACVLAN)
    before = dump(host)
    config = child(MACVLAN, mode="Bridge")
    for verb, code in (("ADD", 7), ("STATUS", 50)):
        container = host.container(verb.lower()) if verb == "ADD" else None
        error = refusal(host.call(MACVLAN, verb, config, container))
        assert (error["code"], error["msg"]) == (code, 'unknown macvlan mode: "Bridge"')
        assert error["details"] == "mode is one of private, vepa, bridge, passthru"
        if container is not None:
            container.delete_netns()
    assert differences(before, dump(host)) == ""


def test_child_as_parent(host: Host) -> None:
    """The kernel puts a macvlan of a macvlan beside it."""
    uplink(host, MACVLAN)
    host.run("ip", "link", "add", "link", "up0", "name", "mv0", "type", "macvlan", "mode", "bridge")
    host.run("ip", "link", "set", "mv0", "up")
    container = host.container("c1")
    config = child(MACVLAN, master="mv0")
    checked = config | {"prevResult": host.add(MACVLAN, config, container)}
    assert parent_of(host, container) == "up0"
    assert host.call(MACVLAN, "CHECK", checked, container).status == 0
    inner = child(MACVLAN, name="net2", master="eth0", linkInContainer=True, ipam=host_local(V6))
    checked = inner | {"prevResult": host.add(MACVLAN, inner, container, "eth1")}
    assert parent_of(host, container, "eth1") == "up0"
    assert host.call(MACVLAN, "CHECK", checked, container, "eth1").status == 0


def test_broadcast_queue(host: Host) -> None:
    uplink(host, MACVLAN)
    container = host.container("c1")
    config = child(MACVLAN, bcqueuelen=5000)
    checked = config | {"prevResult": host.add(MACVLAN, config, container)}
    assert container.link()["linkinfo"]["info_data"]["bcqueuelen"] == 5000
    assert host.call(MACVLAN, "CHECK", checked, container).status == 0
    error = refusal(host.call(MACVLAN, "CHECK", checked | {"bcqueuelen": 7}, container))
    assert error["msg"] == "bcqueuelen of interface eth0 differs"
    for wrong in (-1, 2**32):
        error = refusal(host.call(MACVLAN, "ADD", child(MACVLAN, bcqueuelen=wrong), container))
        assert (error["code"], error["msg"]) == (7, f"invalid bcqueuelen {wrong}")


SOURCES = {
    "runtimeConfig": {"runtimeConfig": {"mac": "02:00:00:00:00:01"}},
    "args": {"args": {"cni": {"mac": "02-00-00-00-00-02"}}},
    "CNI_ARGS": {},
    "mac": {"mac": "0200.0000.0004"},
}


@pytest.mark.parametrize("first", range(5))
def test_sources_of_the_address(host: Host, first: int) -> None:
    """Capability, `args.cni.mac`, CNI_ARGS, `mac`: in this order."""
    uplink(host, MACVLAN)
    container = host.container("c1")
    given = list(SOURCES)[first:]
    config = child(MACVLAN)
    for source in given:
        config |= SOURCES[source]
    env = {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:03"} if "CNI_ARGS" in given else {}
    result = host.add(MACVLAN, config, container, env=env)
    mac = container.link()["address"]
    assert result["interfaces"][0]["mac"] == mac
    assert first == 4 or mac == f"02:00:00:00:00:0{first + 1}"
    checked = config | {"prevResult": result}
    assert host.call(MACVLAN, "CHECK", checked, container, env=env).status == 0


def test_wrong_addresses(host: Host) -> None:
    uplink(host, MACVLAN)
    container = host.container("c1")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"mac": "none"}, "", "in the key mac"),
        ({"mac": "01:00:00:00:00:01"}, "", "in the key mac"),
        ({"runtimeConfig": {"mac": "1:2:3"}, "mac": MAC}, "", "in runtimeConfig.mac"),
        ({"args": {"cni": {"mac": "1:2:3"}}}, "", "in args.cni.mac"),
        ({}, "MAC=1:2:3", "in CNI_ARGS MAC"),
    ]
    for keys, args, where in cases:
        outcome = host.call(
            MACVLAN, "ADD", child(MACVLAN, **keys), container, env={"CNI_ARGS": args}
        )
        error = refusal(outcome)
        assert (error["code"], error["details"]) == (7, where)
        assert error["msg"].startswith("invalid mac ")
    outcome = host.call(
        MACVLAN, "ADD", child(MACVLAN), container, env={"CNI_ARGS": "mac=02:00:00:00:00:01"}
    )
    assert refusal(outcome)["code"] == 4
    assert inside(container) == []


def test_drift(host: Host) -> None:
    uplink(host, MACVLAN)
    container = host.container("c1")
    config = child(MACVLAN, mac=MAC, mode="vepa")
    checked = config | {"prevResult": host.add(MACVLAN, config, container)}
    assert host.call(MACVLAN, "CHECK", checked, container).status == 0
    container.run("ip", "link", "set", "eth0", "type", "macvlan", "mode", "private")
    error = refusal(host.call(MACVLAN, "CHECK", checked, container))
    assert error["msg"] == "mode of interface eth0 differs"
    assert error["details"] == "expected vepa, found private"
    container.run("ip", "link", "set", "eth0", "type", "macvlan", "mode", "vepa")
    container.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
    error = refusal(host.call(MACVLAN, "CHECK", checked, container))
    assert error["msg"] == "mac of interface eth0 differs"


def test_neighbours_hear_of_the_addresses(host: Host) -> None:
    neighbour = uplink(host, MACVLAN)
    container = host.container("c1")
    with capture(host, "lan0", neighbour.netns) as heard:
        host.add(MACVLAN, child(MACVLAN, ipam=host_local(V4, V6), mac=MAC), container)
        mac = bytes.fromhex(MAC.replace(":", ""))
        arp = heard.wait_for(lambda frame: frame[12:14] == b"\x08\x06" and frame[6:12] == mac)
        target = bytes.fromhex("fd000001000000000000000000000002")
        heard.wait_for(lambda frame: frame[54:55] == b"\x88" and frame[62:78] == target)
    # Sender and target are the address itself (RFC 5227 section 3).
    assert arp[28:32] == arp[38:42] == bytes((10, 1, 2, 2))


@pytest.mark.parametrize(
    "keys", [{"mode": "vepa"}, {"mode": "passthru"}, {"mac": MAC}, {"bcqueuelen": 3000}]
)
def test_beside_the_reference(host: Host, keys: dict[str, Any]) -> None:
    """What each sets up the other checks and takes down."""
    if not knows(MACVLAN, "bcqueuelen") and "bcqueuelen" in keys:
        pytest.skip("the reference here has no bcqueuelen")
    uplink(host, MACVLAN)
    config = child(MACVLAN, cniVersion=VERSION, **keys)
    container = host.container("c1", "cid1")
    sides = [host, reference_of(host)]
    states = []
    for adding, other in (sides, sides[::-1]):
        outcome = adding.call(MACVLAN, "ADD", config, container)
        assert outcome.status == 0, outcome
        eth0 = container.link()
        assert outcome.json["interfaces"][0]["mac"] == eth0["address"]
        states.append([eth0["linkinfo"], eth0["address"] if "mac" in keys else ""])
        checked = config | {"prevResult": outcome.json}
        assert other.call(MACVLAN, "CHECK", checked, container).status == 0
        other.delete(MACVLAN, checked, container)
        host.delete(MACVLAN, checked, container)
        assert inside(container) == []
        assert host.allocated("net1") == {}
    assert states[0] == states[1]


def test_layer_two_beside_the_reference(host: Host) -> None:
    uplink(host, MACVLAN)
    config = bare(MACVLAN, cniVersion=VERSION)
    container = host.container("c1")
    checked = config | {"prevResult": host.add(MACVLAN, config, container)}
    reference = reference_of(host)
    assert reference.call(MACVLAN, "CHECK", checked, container).status == 0
    reference.delete(MACVLAN, checked, container)
    assert inside(container) == []
