"""Our bandwidth beside the Go one: the same queues and results, and each undoes the other's."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from fixtures.configs import l3
from fixtures.host import Container, Host
from fixtures.leaks import leaks
from fixtures.reference import reference
from fixtures.shaping import (
    BOTH,
    EGRESS,
    INGRESS,
    block,
    filters,
    host_end,
    limited,
)

CONFIGS: dict[str, dict[str, Any]] = {
    "both": BOTH,
    "ingress": INGRESS,
    "egress": EGRESS,
    "runtime": {"runtimeConfig": {"bandwidth": BOTH}},
    "configuration before runtime": INGRESS | {"runtimeConfig": {"bandwidth": EGRESS}},
    "none": {},
}


@pytest.fixture
def container(host: Host) -> Container:
    return host.container("c1", "cid1")


def attached(theirs: Host, config: dict[str, Any], container: Container) -> dict[str, Any]:
    """An ADD of the reference's, which the test takes down."""
    outcome = theirs.call("bandwidth", "ADD", config, container)
    assert outcome.status == 0, outcome
    result: dict[str, Any] = outcome.json
    return result


def seen(host: Host, result: dict[str, Any]) -> dict[str, Any]:
    """The result, and everything that the kernel tells of queues, filters and the block."""
    names = [one["name"] for one in result["interfaces"] if one["name"][:3] in ("bwp", "vet")]
    shown = {name: host.run("tc", "-d", "qdisc", "show", "dev", name).stdout for name in names}
    blocks = [host.ip("link", "show", "dev", one)[0] for one in names if one.startswith("bwp")]
    for one in blocks:
        # Of each its own, or the label.
        for key in ("ifindex", "address", "ifalias", "link_index"):
            one.pop(key, None)
    listed = [one for one in result["interfaces"] if not one["name"].startswith("bwp")]
    # Behind the action that takes the packet the reference has the same once more.
    leading = filters(host, host_end(result)).split("\taction order 2")[0].split("\tindex")[0]
    return {
        "interfaces": listed,
        "rest": {key: value for key, value in result.items() if key != "interfaces"},
        "names": names,
        "qdiscs": shown,
        "blocks": blocks,
        "filters": leading,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_same_result_and_same_queues(host: Host, container: Container, name: str) -> None:
    """[A.12] Field by field, one after the other on the same interface."""
    theirs = reference(host, "bandwidth")
    connected = host.add("bridge", l3(cniVersion="1.0.0"), container)
    config = limited(connected, cniVersion="1.0.0", **CONFIGS[name])
    mine = host.add("bandwidth", config, container)
    ours = seen(host, mine)
    host.delete("bandwidth", config | {"prevResult": mine}, container)
    expected = seen(host, attached(theirs, config, container))
    for part, value in expected.items():
        assert (part, ours[part]) == (part, value)


def numbers() -> list[tuple[int, int]]:
    """Rates and bursts that both can set: the burst lasts less than 274 s."""
    chosen = random.Random(25)
    pairs = [(8, 8), (123, 123), (2**36, 2**24), (10**9, 2**31 - 1), (34_359_738_368, 10**7)]
    while len(pairs) < 9:
        rate = int(10 ** chosen.uniform(2, 12))
        burst = int(rate * 10 ** chosen.uniform(-4, 2))
        if burst >= 8 * 1500 and burst < 2**34:
            pairs.append((rate, burst))
    return pairs


def test_same_numbers(host: Host, container: Container) -> None:
    """[6.2] Ticks and limits to the unit, also beyond 32 bits: each CHECK accepts the other's."""
    theirs = reference(host, "bandwidth")
    connected = host.add("bridge", l3(cniVersion="1.0.0"), container)
    for rate, burst in numbers():
        rates = {"ingressRate": rate, "ingressBurst": burst}
        config = limited(connected, cniVersion="1.0.0", **rates)
        host.add("bandwidth", config, container)
        outcome = theirs.call("bandwidth", "CHECK", config, container)
        assert outcome.status == 0, (rates, outcome)
        host.delete("bandwidth", config, container)


@pytest.mark.parametrize("name", ["both", "ingress", "egress"])
@pytest.mark.parametrize("netns", ["there", "gone"])
def test_we_check_and_delete_the_references(
    host: Host, container: Container, name: str, netns: str
) -> None:
    theirs = reference(host, "bandwidth")
    connected = host.add("bridge", l3(cniVersion="1.0.0"), container)
    config = limited(connected, cniVersion="1.0.0", **CONFIGS[name])
    result = attached(theirs, config, container)
    config["prevResult"] = result
    outcome = host.call("bandwidth", "CHECK", config, container)
    assert outcome.status == 0, outcome
    if netns == "gone":
        container.delete_netns()
    host.delete("bandwidth", config, container)
    assert host.ip("link", "show", "type", "ifb") == []
    host.delete_all()
    assert leaks(host) == []


@pytest.mark.parametrize("name", ["both", "ingress", "egress"])
def test_the_reference_checks_and_deletes_ours(host: Host, container: Container, name: str) -> None:
    """A node that is rolled back: the block has the reference's name."""
    theirs = reference(host, "bandwidth")
    connected = host.add("bridge", l3(cniVersion="1.0.0"), container)
    config = limited(connected, cniVersion="1.0.0", **CONFIGS[name])
    config["prevResult"] = host.add("bandwidth", config, container)
    for verb in ("CHECK", "DEL"):
        outcome = theirs.call("bandwidth", verb, config, container)
        assert (outcome.status, outcome.stdout) == (0, ""), outcome
    assert host.ip("link", "show", "type", "ifb") == []


def test_two_interfaces_of_which_one_is_the_references(host: Host, container: Container) -> None:
    """[W-BW3] Ours beside it, and our DEL leaves it."""
    theirs = reference(host, "bandwidth")
    configs, results = {}, {}
    for ifname, bridge, net in (("eth1", "cni1", "10.1.3.0/24"), ("eth0", "cni0", "10.1.2.0/24")):
        connection = l3(cniVersion="1.0.0", bridge=bridge)
        connection["ipam"] = {"type": "host-local", "subnet": net}
        connected = host.add("bridge", connection, container, ifname)
        configs[ifname] = limited(connected, cniVersion="1.0.0", **BOTH)
        if ifname == "eth1":
            outcome = theirs.call("bandwidth", "ADD", configs[ifname], container, ifname)
            results[ifname] = json.loads(outcome.stdout)
        else:
            results[ifname] = host.add("bandwidth", configs[ifname], container, ifname)
    assert block(results["eth0"]) != block(results["eth1"])
    for ifname, result in results.items():
        config = configs[ifname] | {"prevResult": result}
        assert host.call("bandwidth", "CHECK", config, container, ifname).status == 0
    host.delete("bandwidth", configs["eth0"] | {"prevResult": results["eth0"]}, container)
    left = [one["ifname"] for one in host.ip("link", "show", "type", "ifb")]
    assert left == [block(results["eth1"])]
    host.delete("bandwidth", configs["eth1"] | {"prevResult": results["eth1"]}, container, "eth1")
    assert host.ip("link", "show", "type", "ifb") == []
