"""cluster: addresses out of the blocks that the agent has claimed for the node."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.configs import ipam, l3
from fixtures.host import Host, refusal
from fixtures.leases import blocks

POD = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0"}


def lan(**keys: Any) -> dict[str, Any]:
    return ipam("cluster", pools=["lan"], **keys)


def given(host: Host, config: dict[str, Any], name: str, env: dict[str, str] | None = None) -> str:
    """The address that a new container gets."""
    result = host.add("cluster", config, host.container(name), env=env)
    address: str = result["ips"][0]["address"]
    return address


def test_addresses_of_the_nodes_blocks(host: Host) -> None:
    """One after the other, with the network's prefix and gateway; never the gateway's own."""
    blocks(host, "10.1.0.0/30", "10.1.8.4/30")
    found = [given(host, lan(), f"c{one}") for one in range(6)]
    own = ["10.1.0.2/16", "10.1.0.3/16", *(f"10.1.8.{one}/16" for one in range(4, 8))]
    assert found == own
    error = refusal(host.call("cluster", "ADD", lan(), host.container("c9")))
    assert error["code"] == 11
    assert error["msg"] == 'no address is left in the 2 blocks that this node has of pool "lan"'
    assert refusal(host.call("cluster", "STATUS", lan()))["code"] == 50
    # The agent has got another one.
    blocks(host, "10.1.0.0/30", "10.1.8.4/30", "10.1.9.0/30")
    assert given(host, lan(), "c10") == "10.1.9.0/16"
    assert host.call("cluster", "STATUS", lan()).status == 0


def test_behind_a_bridge(host: Host) -> None:
    """As any IPAM plugin: in this process, with CHECK and DEL."""
    blocks(host)
    container = host.container()
    config = l3(ipam={"type": "cluster", "pools": ["lan"]})
    result = host.add("bridge", config, container)
    assert result["ips"][0] == {"interface": 2, "address": "10.1.2.0/16", "gateway": "10.1.0.1"}
    outcome = host.call("bridge", "CHECK", config | {"prevResult": result}, container)
    assert outcome.status == 0, outcome
    host.delete("bridge", config, container)
    assert host.allocated("net1") == {}


def test_two_pools(host: Host) -> None:
    blocks(host)
    wide = {"network": "fd00:1::/64", "gateway": "fd00:1::1"}
    blocks(host, "fd00:1::40/122", pool="lan6", **wide)
    config = ipam("cluster", pools=["lan", "lan6"])
    result = host.add("cluster", config, host.container())
    assert [one["address"] for one in result["ips"]] == ["10.1.2.0/16", "fd00:1::40/64"]


@pytest.mark.parametrize("env", [POD, None])
def test_an_address_is_kept_for_a_name(host: Host, env: dict[str, str] | None) -> None:
    """Whoever else comes gets others, also when that is the last one."""
    blocks(host, "10.1.2.0/30")
    config = lan(stickySeconds=600)
    named = config if env else config | {"args": {"cni": {"name": "web-0"}}}
    first = given(host, named, "c1", env)
    container = host.container("c2")
    host.delete("cluster", named, next(one[2] for one in host.attachments.values()))
    others = [host.add("cluster", config, container)["ips"][0]["address"]]
    others += [given(host, config, f"c{one}") for one in (3, 4)]
    assert first not in others
    error = refusal(host.call("cluster", "ADD", config, host.container("c5")))
    assert error["details"].endswith("1 addresses are kept for names")
    assert given(host, named, "c6", env) == first


def test_not_any_longer_than_that(host: Host) -> None:
    """Its time is over: others get it."""
    blocks(host, "10.1.2.0/30")
    container = host.container("c1")
    config = lan(stickySeconds=600)
    host.add("cluster", config, container, env=POD)
    host.delete("cluster", config, container)
    path = "/var/lib/cni/networks/.cni-py/net1/names.json"
    host.run("sed", "-i", r's/"until":[0-9.]*/"until":1.0/', path)
    assert len({given(host, config, f"d{one}") for one in range(4)}) == 4


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"heldUntil": 1.0}, "may have become another's"),
        ({"network": "x"}, "is no pool"),
        ({"blocks": ["10.9.0.0/24"]}, "is no pool"),
        ({"pool": "other"}, "is no pool"),
    ],
)
def test_what_is_not_the_nodes(host: Host, keys: dict[str, Any], said: str) -> None:
    blocks(host)
    prefixes = keys.pop("blocks", ("10.1.2.0/24",))
    blocks(host, *prefixes, **{"pool": "lan"} | {k: v for k, v in keys.items() if k != "pool"})
    if "pool" in keys:
        path = "/run/cni-py/cluster/pools/lan.json"
        host.run("sed", "-i", 's/"pool": "lan"/"pool": "other"/', path)
    for verb, codes in (("ADD", (6, 11)), ("STATUS", (50,))):
        error = refusal(host.call("cluster", verb, lan(), host.container(f"c{verb}")))
        assert said in error["msg"]
        assert error["code"] in codes
    assert host.allocated("net1") == {}


def test_no_agent_yet(host: Host) -> None:
    error = refusal(host.call("cluster", "ADD", lan(), host.container()))
    assert (error["code"], error["msg"]) == (11, 'this node has no addresses of pool "lan" yet')


def test_a_pool_has_one_network_on_a_node(host: Host) -> None:
    """Two folders of allocations would give the same address twice."""
    blocks(host)
    container, config = host.container(), lan()
    host.add("cluster", config, container)
    other = config | {"name": "net2"}
    error = refusal(host.call("cluster", "ADD", other, host.container("c2")))
    assert (error["code"], error["msg"]) == (7, 'pool "lan" is used by network net1 on this node')
    host.delete("cluster", config, container)
    host.add("cluster", other, host.container("c3"))


def test_a_block_that_was_taken_away(host: Host) -> None:
    """CHECK fails for the container, STATUS says 51, and DEL works."""
    blocks(host)
    container = host.container()
    result = host.add("cluster", lan(), container)
    blocks(host, "10.1.3.0/24")
    error = refusal(host.call("cluster", "CHECK", lan() | {"prevResult": result}, container))
    assert error["msg"] == "cluster: address 10.1.2.0 is in no block that this node has any more"
    assert refusal(host.call("cluster", "STATUS", lan()))["code"] == 51
    host.delete("cluster", lan(), container)
    assert host.call("cluster", "STATUS", lan()).status == 0


def test_gc(host: Host) -> None:
    blocks(host)
    config = lan(stickySeconds=600)
    address = given(host, config, "c1", POD)
    outcome = host.call("cluster", "GC", config | {"cni.dev/valid-attachments": []})
    assert outcome.status == 0, outcome
    assert host.allocated("net1") == {}
    assert given(host, config, "c2") != address
    assert given(host, config, "c3", POD) == address
