"""bridge CHECK and STATUS: each thing that ADD set is compared, and the difference is named."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, l2, l3
from fixtures.host import Container, Host, refusal

ROUTES = [{"dst": "192.0.2.0/24", "priority": 9}]
CONFIG = l3(
    isDefaultGateway=True, hairpinMode=True, mtu=1400, ipam=host_local(V4, V6, routes=ROUTES)
)


def checked(host: Host, config: dict[str, Any], container: Container) -> dict[str, Any]:
    """Attach, and the configuration for CHECK."""
    return config | {"prevResult": host.add("bridge", config, container)}


def test_right_after_add(host: Host) -> None:
    """[C-04]"""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    assert host.call("bridge", "CHECK", config, container).status == 0


def test_two_default_routes(host: Host) -> None:
    """The kernel makes one route with two next hops of IPv6's; each interface has its own."""
    container = host.container("c1")
    configs = {}
    for ifname in ("eth0", "net1"):
        configs[ifname] = CONFIG | {"prevResult": host.add("bridge", CONFIG, container, ifname)}
    for ifname, config in configs.items():
        assert host.call("bridge", "CHECK", config, container, ifname).status == 0
    container.run("ip", "-6", "route", "del", "default", "via", "fd00:1::1", "dev", "net1")
    assert host.call("bridge", "CHECK", configs["eth0"], container, "eth0").status == 0
    lost = refusal(host.call("bridge", "CHECK", configs["net1"], container, "net1"))
    assert lost["msg"] == "route ::/0 of interface net1 differs"


def test_layer_two(host: Host) -> None:
    """[W-BR9]"""
    container = host.container("c1")
    config = checked(host, l2(), container)
    assert host.call("bridge", "CHECK", config, container).status == 0


def test_single_address_subnets(host: Host) -> None:
    """[W-G10] A /32 makes no route of its own."""
    container = host.container("c1")
    pool = {"type": "static", "addresses": [{"address": "10.9.9.9/32"}, {"address": "fd09::9/128"}]}
    config = checked(host, l3(ipam=pool), container)
    assert host.call("bridge", "CHECK", config, container).status == 0


def test_routes_with_table_and_metric(host: Host) -> None:
    """[W-G9]"""
    container = host.container("c1")
    routes = [{"dst": "192.0.2.0/24", "table": 700, "priority": 3, "mtu": 1300}]
    config = checked(host, l3(isGateway=True, ipam=host_local(V4, routes=routes)), container)
    assert host.call("bridge", "CHECK", config, container).status == 0
    change = ("ip", "route", "change", "192.0.2.0/24", "via", "10.1.2.1", "table", "700")
    container.run(*change, "metric", "3", "mtu", "1200")
    error = refusal(host.call("bridge", "CHECK", config, container))
    assert error["msg"] == "route 192.0.2.0/24 of interface eth0 differs"
    assert "mtu 1300" in error["details"]


DRIFTS = {
    "container: ip link set eth0 down": "state of interface eth0 differs",
    "container: ip addr del 10.1.2.2/24 dev eth0": "address of interface eth0 differs",
    "container: ip addr del fd00:1::2/64 dev eth0": "address of interface eth0 differs",
    "container: ip route del 192.0.2.0/24": "route 192.0.2.0/24 of interface eth0 differs",
    "container: ip route del default": "route 0.0.0.0/0 of interface eth0 differs",
    "container: ip link set eth0 mtu 1300": "mtu of interface eth0 differs",
    "container: ip link set eth0 address 02:00:00:00:00:09": "mac of interface eth0 differs",
    "container: ip link del eth0": "interface eth0 in /run/netns/c1 differs",
    "host: ip link set PORT nomaster": "bridge of host end PORT differs",
    "host: ip link set PORT type bridge_slave hairpin off": "hairpinMode of host end PORT differs",
    "host: ip link set PORT type bridge_slave isolated on": "portIsolation of host end PORT",
    "host: ip link set PORT mtu 1300": "mtu of host end PORT differs",
    "host: ip addr del 10.1.2.1/24 dev cni0": "gateway address of cni0 differs",
    "host: ip link set cni0 down": "state of bridge cni0 differs",
    "host: ip link set cni0 address 02:00:00:00:00:09": "mac of interface cni0 differs",
    "host: rm /var/lib/cni/networks/net1/10.1.2.2": "host-local: address 10.1.2.2 is not allocated",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_named(host: Host, drift: str) -> None:
    """[W-BR10, C-03] One thing changes; the message says which, the details how."""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    (port,) = host.ports()
    where, _, command = drift.partition(": ")
    arguments = command.replace("PORT", port["ifname"]).split()
    if where == "host":
        host.run(*arguments)
    else:
        container.run(*arguments)
    error = refusal(host.call("bridge", "CHECK", config, container))
    assert error["msg"].startswith(DRIFTS[drift].replace("PORT", port["ifname"]))
    assert error["details"]


def test_somebody_elses_promiscuity_is_no_drift(host: Host) -> None:
    """[W-BR10] A packet capture on the bridge does not make CHECK fail."""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    host.run("ip", "link", "set", "cni0", "promisc", "on")
    assert host.call("bridge", "CHECK", config, container).status == 0
    host.run("ip", "link", "set", "cni0", "promisc", "off")
    wanted = CONFIG | {"hairpinMode": False, "promiscMode": True, "name": "net2", "bridge": "cni1"}
    second = host.container("c2")
    config = checked(host, wanted, second)
    host.run("ip", "link", "set", "cni1", "promisc", "off")
    error = refusal(host.call("bridge", "CHECK", config, second))
    assert error["msg"] == "promiscMode of bridge cni1 differs"


def test_addresses_of_other_interfaces_in_the_chain(host: Host) -> None:
    """[W-G21] A chain's result also lists addresses that are not this interface's."""
    container = host.container("c1")
    config = checked(host, l3(), container)
    previous = config["prevResult"]
    previous["interfaces"].append({"name": "other", "sandbox": container.netns})
    previous["ips"].append({"interface": 3, "address": "192.0.2.77/24"})
    assert host.call("bridge", "CHECK", config, container).status == 0


def test_prev_result_is_required(host: Host) -> None:
    """[C-01]"""
    container = host.container("c1")
    host.add("bridge", CONFIG, container)
    error = refusal(host.call("bridge", "CHECK", CONFIG, container))
    assert error["msg"] == "Required prevResult missing"


def test_sandbox_of_prev_result(host: Host) -> None:
    """[X-03]"""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    config["prevResult"]["interfaces"][2]["sandbox"] = "/run/netns/elsewhere"
    error = refusal(host.call("bridge", "CHECK", config, container))
    assert "doesn't match configured netns: /run/netns/c1" in error["msg"]


# STATUS.


def test_ready(host: Host) -> None:
    assert host.call("bridge", "STATUS", CONFIG).status == 0
    assert host.link("cni0") is None


def test_not_ready_without_addresses(host: Host) -> None:
    """[S-05, W-G2] The IPAM plugin's state is the bridge's."""
    small = l3(ipam=host_local([{"subnet": "10.1.2.0/30"}]))
    host.add("bridge", small, host.container("c1"))
    error = refusal(host.call("bridge", "STATUS", small))
    assert error["code"] == 50
    assert "no IP addresses available" in error["msg"]


def test_not_ready_with_a_foreign_device(host: Host) -> None:
    """[W-G2]"""
    host.run("ip", "link", "add", "cni0", "type", "ifb")
    error = refusal(host.call("bridge", "STATUS", CONFIG))
    assert (error["code"], error["msg"]) == (50, '"cni0" already exists but is not a bridge')
