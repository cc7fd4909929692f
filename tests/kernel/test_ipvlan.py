"""ipvlan: modes, and parent and addresses from the chain (`make test-vm`)."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local
from fixtures.dump import differences, dump
from fixtures.host import Host, refusal
from fixtures.parents import (
    VERSION,
    bare,
    child,
    inside,
    parent_of,
    reference_of,
    uplink,
    uplink_inside,
)

pytestmark = pytest.mark.vm

IPVLAN = "ipvlan"
BOTH = host_local(V4, V6)


@pytest.mark.parametrize("mode", ["", "l2", "l3", "l3s"])
def test_modes(host: Host, mode: str) -> None:
    """Containers of one parent reach each other; in l2 they also reach its network."""
    uplink(host, IPVLAN)
    first, second = host.container("c1"), host.container("c2")
    config = child(IPVLAN, mode=mode, ipam=BOTH)
    checked = config | {"prevResult": host.add(IPVLAN, config, first)}
    host.add(IPVLAN, config, second)
    assert first.link()["linkinfo"]["info_data"]["mode"] == (mode or "l2")
    assert host.call(IPVLAN, "CHECK", checked, first).status == 0
    for address in ("10.1.2.3", "fd00:1::3"):
        assert first.reaches(address)
    if mode in ("", "l2"):
        assert first.reaches("10.1.2.1")
        assert second.reaches("fd00:1::1")
    error = refusal(host.call(IPVLAN, "CHECK", checked | {"mode": "none"}, first))
    assert error["msg"] == 'unknown ipvlan mode: "none"'
    other = "l2" if mode in ("l3", "l3s") else "l3"
    error = refusal(host.call(IPVLAN, "CHECK", checked | {"mode": other}, first))
    assert error["msg"] == "mode of interface eth0 differs"
    assert error["details"] == f"expected {other}, found {mode or 'l2'}"


def test_unknown_mode(host: Host) -> None:
    uplink(host, IPVLAN)
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call(IPVLAN, "ADD", child(IPVLAN, mode="bridge"), container))
    assert (error["code"], error["msg"]) == (7, 'unknown ipvlan mode: "bridge"')
    assert error["details"] == "mode is one of l2, l3, l3s"
    error = refusal(host.call(IPVLAN, "STATUS", child(IPVLAN, mode="bridge")))
    assert error["code"] == 50
    assert differences(before, dump(host)) == ""


def test_child_as_parent(host: Host) -> None:
    """The kernel puts an ipvlan of an ipvlan beside it."""
    uplink(host, IPVLAN)
    host.run("ip", "link", "add", "link", "up0", "name", "iv0", "type", "ipvlan", "mode", "l2")
    container = host.container("c1")
    config = child(IPVLAN, master="iv0")
    checked = config | {"prevResult": host.add(IPVLAN, config, container)}
    assert parent_of(host, container) == "up0"
    assert host.call(IPVLAN, "CHECK", checked, container).status == 0


def test_parent_with_macvlans(host: Host) -> None:
    uplink(host, IPVLAN)
    host.run("ip", "link", "add", "link", "up0", "name", "mv0", "type", "macvlan")
    container = host.container("c1")
    error = refusal(host.call(IPVLAN, "ADD", child(IPVLAN), container))
    assert error["msg"].startswith("create ipvlan eth0 on up0: ")
    assert error["details"]
    assert inside(container) == []


def test_address_of_another_child(host: Host) -> None:
    """The kernel does not let two children of a parent have one address."""
    uplink(host, IPVLAN)
    first, second = host.container("c1"), host.container("c2")
    config = child(IPVLAN, ipam={"type": "static", "addresses": [{"address": "10.1.2.9/24"}]})
    host.add(IPVLAN, config, first)
    error = refusal(host.call(IPVLAN, "ADD", config, second))
    assert error["msg"] == "add address 10.1.2.9/24 to eth0: Address already in use"
    assert inside(second) == []
    assert first.reaches("10.1.2.1")


# In a chain.


def chained(*interfaces: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A configuration with the result of a plugin that gave addresses to no interface."""
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": list(interfaces),
        "ips": [
            {"address": "10.1.2.9/24", "gateway": "10.1.2.1", "interface": 0},
            {"address": "fd00:1::9/64"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    config = bare(IPVLAN, prevResult=previous) | keys
    config.pop("master")
    return config | {key: keys[key] for key in ("master",) if key in keys}


def test_parent_and_addresses_of_the_chain(host: Host) -> None:
    """[3.4] An interface of the host, and addresses for a child of it, from another plugin."""
    uplink(host, IPVLAN)
    container = host.container("c1")
    config = chained({"name": "up0", "mac": "02:00:00:00:00:09"})
    result = host.add(IPVLAN, config, container)
    eth0 = container.link()
    # Earlier interfaces are not in the result, as in the reference's.
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": eth0["address"], "sandbox": container.netns}],
        "ips": [
            {"address": "10.1.2.9/24", "gateway": "10.1.2.1", "interface": 0},
            {"address": "fd00:1::9/64", "interface": 0},
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    assert parent_of(host, container) == "up0"
    assert container.addresses() == ["10.1.2.9/24", "fd00:1::9/64"]
    assert container.reaches("10.1.2.1")
    checked = config | {"prevResult": result}
    assert host.call(IPVLAN, "CHECK", checked, container).status == 0
    # A previous result that names no parent, none at all: DEL needs none [W-IV3].
    several = [{"name": "a"}, {"name": "b"}]
    host.delete(IPVLAN, config | {"prevResult": {"interfaces": several}}, container)
    assert inside(container) == []


@pytest.mark.parametrize("interfaces", [[], [{"name": "up0"}, {"name": "up1"}]])
def test_chain_without_one_interface(host: Host, interfaces: list[dict[str, Any]]) -> None:
    uplink(host, IPVLAN)
    container = host.container("c1")
    config = chained(*interfaces)
    error = refusal(host.call(IPVLAN, "ADD", config, container))
    msg = "chained master failure. PrevResult lacks a single named interface"
    assert (error["code"], error["msg"]) == (7, msg)
    # Named, it may be any.
    host.add(IPVLAN, config | {"master": "up0"}, container)
    assert container.reaches("10.1.2.1")


def test_chain_with_ipam(host: Host) -> None:
    """IPAM's addresses, not those of the chain; the parent can still be the chain's."""
    uplink(host, IPVLAN)
    container = host.container("c1")
    config = chained({"name": "up0"}) | {"ipam": host_local()}
    host.add(IPVLAN, config, container)
    assert container.addresses() == ["10.1.2.2/24"]
    assert parent_of(host, container) == "up0"


def test_chain_inside(host: Host) -> None:
    """linkInContainer: an earlier plugin has put the parent into the container."""
    container = host.container("c1")
    uplink_inside(host, IPVLAN, container)
    parent = {"name": "up0", "sandbox": container.netns}
    config = chained(parent, linkInContainer=True)
    checked = config | {"prevResult": host.add(IPVLAN, config, container)}
    assert container.link()["link"] == "up0"
    assert container.reaches("10.1.2.1")
    assert host.call(IPVLAN, "CHECK", checked, container).status == 0


def test_status_without_a_parent(host: Host) -> None:
    """Whether a chain will name the parent is not known to STATUS."""
    config = child(IPVLAN)
    del config["master"]
    assert host.call(IPVLAN, "STATUS", config).status == 0


def test_chain_fails(host: Host) -> None:
    """[W-IV1]"""
    uplink(host, IPVLAN)
    container = host.container("c1")
    config = chained({"name": "up0"})
    config["prevResult"]["routes"] = [{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}]
    error = refusal(host.call(IPVLAN, "ADD", config, container))
    assert error["msg"].startswith("add route 192.0.2.0/24 via 10.9.9.9 dev eth0")
    assert inside(container) == []


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s", "chained"])
def test_beside_the_reference(host: Host, mode: str) -> None:
    """The same result, and what each sets up the other checks and takes down."""
    uplink(host, IPVLAN)
    container = host.container("c1", "cid1")
    if mode == "chained":
        config = chained({"name": "up0"}, cniVersion=VERSION)
        config["prevResult"]["cniVersion"] = VERSION
        # The reference loses the chain's [W-G13].
        del config["prevResult"]["dns"]
    else:
        config = child(IPVLAN, cniVersion=VERSION, mode=mode, ipam=BOTH)
    sides = [host, reference_of(host)]
    states = []
    for adding, other in (sides, sides[::-1]):
        outcome = adding.call(IPVLAN, "ADD", config, container)
        assert outcome.status == 0, outcome
        result = outcome.json
        checked = config | {"prevResult": outcome.json}
        # Its CHECK needs a name [W-IV4].
        named = checked | {"master": "up0"}
        checked_by_other = other.call(IPVLAN, "CHECK", named, container)
        assert checked_by_other.status == 0, checked_by_other
        states.append(
            [
                {key: value for key, value in result.items() if (key, value) != ("dns", {})},
                container.link()["linkinfo"],
                container.ip("route"),
                container.addresses(),
            ]
        )
        other.delete(IPVLAN, checked, container)
        host.delete(IPVLAN, checked, container)
        assert inside(container) == []
        assert host.allocated("net1") == {}
        host.run("rm", "-rf", "/var/lib/cni/networks/net1", "/var/lib/cni/networks/.cni-py")
    assert states[0] == states[1]
