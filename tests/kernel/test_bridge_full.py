"""A bridge with all the ports that the kernel allows, and the containers beyond them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import V4, V6, host_local, l2, l3
from fixtures.dump import differences, dump
from fixtures.host import refusal
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from fixtures.host import Container, Host

PLAIN = l3(isDefaultGateway=True, ipam=host_local(V4, V6))
ROUTED = PLAIN | {"overflow": "routed"}
PAIRS = 511


def fill(host: Host, pairs: int = PAIRS) -> None:
    """Ports for all the room that the two containers leave."""
    lines = "".join(
        f"link add p{index} master cni0 type veth peer name q{index}\n"
        f"link set q{index} master cni0\n"
        for index in range(pairs)
    )
    host.run("ip", "-batch", "-", stdin=lines)


def proxies(host: Host) -> list[str]:
    listed = [*host.ip("neigh", "show", "proxy"), *host.ip("-6", "neigh", "show", "proxy")]
    return sorted({one["dst"] for one in listed})


@pytest.fixture
def bridged(host: Host) -> Container:
    """A container on a bridge that is full."""
    container = host.container("c1")
    host.add("bridge", PLAIN, container)
    fill(host)
    assert len(host.ports()) == 1023
    return container


def test_clear_error_before_an_address_is_given(host: Host, bridged: Container) -> None:
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", PLAIN, host.container("c2")))
    assert error["code"] == 11
    assert error["msg"] == "bridge cni0 has 1023 ports, the most that the kernel allows"
    assert "overflow" in error["details"]
    host.run("ip", "netns", "delete", "c2")
    assert differences(before, dump(host)) == ""
    status = refusal(host.call("bridge", "STATUS", PLAIN))
    assert (status["code"], status["msg"]) == (50, error["msg"])
    assert host.call("bridge", "STATUS", ROUTED).status == 0
    assert bridged.reaches("10.1.2.1")


def test_nearly_full(host: Host) -> None:
    """[G-02] Code 51 while there is still room."""
    container = host.container("c1")
    host.add("bridge", PLAIN, container)
    fill(host, 480)
    assert host.call("bridge", "STATUS", PLAIN).status == 0
    fill_more = "".join(f"link add r{index} master cni0 type veth\n" for index in range(11))
    host.run("ip", "-batch", "-", stdin=fill_more)
    error = refusal(host.call("bridge", "STATUS", PLAIN))
    assert (error["code"], "972 of the 1023 ports" in error["msg"]) == (51, True)


def test_routed(host: Host, bridged: Container) -> None:
    """Everybody in the subnet reaches everybody, in both IP versions."""
    second, third = host.container("c2"), host.container("c3")
    for container in (second, third):
        result = host.add("bridge", ROUTED, container)
        config = ROUTED | {"prevResult": result}
        assert host.call("bridge", "CHECK", config, container).status == 0
    port = result["interfaces"][1]["name"]
    link = host.link(port)
    assert link is not None
    assert "master" not in link
    assert "routed" in link["ifalias"]
    for own, container in enumerate((bridged, second, third), start=2):
        for number in {1, 2, 3, 4} - {own}:
            for address in (f"10.1.2.{number}", f"fd00:1::{number}"):
                assert container.reaches(address), (container.id, address)
    assert proxies(host) == ["10.1.2.3", "10.1.2.4", "fd00:1::3", "fd00:1::4"]
    host.delete("bridge", ROUTED, second)
    assert proxies(host) == ["10.1.2.4", "fd00:1::4"]
    third.delete_netns()
    host.delete("bridge", ROUTED, third)
    assert proxies(host) == []
    assert bridged.reaches("10.1.2.1")
    host.delete("bridge", PLAIN, bridged)
    assert leaks(host) == []


def test_collected(host: Host, bridged: Container) -> None:
    """[G-01] What a crashed runtime has left is found by GC."""
    assert host.call("bridge", "ADD", ROUTED, host.container("c2")).status == 0
    valid = [{"containerID": bridged.id, "ifname": "eth0"}]
    gc = ROUTED | {"cni.dev/valid-attachments": valid}
    assert host.call("bridge", "GC", gc).status == 0
    assert proxies(host) == []


def test_check_of_a_routed_port(host: Host, bridged: Container) -> None:
    container = host.container("c2")
    config = ROUTED | {"prevResult": host.add("bridge", ROUTED, container)}
    host.run("ip", "neigh", "delete", "proxy", "10.1.2.3", "dev", "cni0")
    error = refusal(host.call("bridge", "CHECK", config, container))
    assert error["msg"] == "proxy neighbour 10.1.2.3 on cni0 differs"
    assert bridged.link()["ifname"] == "eth0"


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(l2(overflow="routed"), id="without addresses"),
        pytest.param(l3(overflow="routed"), id="without a gateway"),
        pytest.param(ROUTED | {"vlan": 5}, id="vlan"),
        pytest.param(ROUTED | {"vlanTrunk": [{"id": 5}]}, id="trunk"),
        pytest.param(ROUTED | {"portIsolation": True}, id="isolation"),
        pytest.param(ROUTED | {"overflow": "bridge"}, id="unknown"),
    ],
)
def test_refused(host: Host, config: dict[str, Any]) -> None:
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", config, container))
    assert error["code"] == 7
    assert differences(before, dump(host)) == ""
