"""ptp CHECK and STATUS: each thing that ADD set is compared, and the difference is named."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, routed
from fixtures.host import Container, Host, refusal
from fixtures.leaks import leaks

ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "priority": 9}]
CONFIG = routed(ipMasq=True, mtu=1400, ipam=host_local(V4, V6, routes=ROUTES))


def checked(host: Host, config: dict[str, Any], container: Container) -> dict[str, Any]:
    """Attach, and the configuration for CHECK."""
    return config | {"prevResult": host.add("ptp", config, container)}


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_right_after_add(host: Host, backend: str) -> None:
    """[C-04]"""
    container = host.container("c1")
    config = checked(host, CONFIG | {"ipMasqBackend": backend}, container)
    assert host.call("ptp", "CHECK", config, container).status == 0


def test_single_address_subnets(host: Host) -> None:
    """[W-G10, W-P5]"""
    container = host.container("c1")
    pool = {
        "type": "static",
        "addresses": [
            {"address": "10.9.9.9/32", "gateway": "169.254.1.1"},
            {"address": "fd09::9/128", "gateway": "fe80::1"},
        ],
    }
    config = checked(host, routed(ipam=pool), container)
    assert host.call("ptp", "CHECK", config, container).status == 0


DRIFTS = {
    "container: ip link set eth0 down": "state of interface eth0 differs",
    "container: ip addr del 10.1.2.2/24 dev eth0": "address of interface eth0 differs",
    "container: ip addr del fd00:1::2/64 dev eth0": "address of interface eth0 differs",
    "container: ip route del 192.0.2.0/24": "route 192.0.2.0/24 of interface eth0 differs",
    "container: ip route del default": "route 0.0.0.0/0 of interface eth0 differs",
    "container: ip route del 10.1.2.0/24": "route 10.1.2.2/24 of interface eth0 differs",
    "container: ip route del 10.1.2.1": "route 10.1.2.1/32 of interface eth0 differs",
    "container: ip -6 route del fd00:1::/64": "route fd00:1::2/64 of interface eth0 differs",
    "container: ip -6 route del fd00:1::1": "route fd00:1::1/128 of interface eth0 differs",
    "container: ip link set eth0 mtu 1300": "mtu of interface eth0 differs",
    "container: ip link set eth0 address 02:00:00:00:00:09": "mac of interface eth0 differs",
    "container: ip link del eth0": "interface eth0 in /run/netns/c1 differs",
    "host: ip link set PORT mtu 1300": "mtu of interface PORT differs",
    "host: ip link set PORT down": "state of interface PORT differs",
    "host: ip link set PORT address 02:00:00:00:00:09": "mac of interface PORT differs",
    "host: ip addr del 10.1.2.1/32 dev PORT": "gateway address of PORT differs",
    "host: ip addr del fd00:1::1/128 dev PORT": "gateway address of PORT differs",
    "host: ip route del 10.1.2.2": "route 10.1.2.2/32 of interface PORT differs",
    "host: ip route change 10.1.2.2 dev lo scope host": "route 10.1.2.2/32 of interface PORT",
    "host: ip -6 route del fd00:1::2": "route fd00:1::2/128 of interface PORT differs",
    "host: sysctl -q net.ipv4.ip_forward=0": "net.ipv4.ip_forward differs",
    "host: sysctl -q net.ipv6.conf.all.forwarding=0": "net.ipv6.conf.all.forwarding differs",
    "host: nft delete element inet cni_py masq4 {10.1.2.2}": "masquerading of 10.1.2.2 differs",
    "host: rm /var/lib/cni/networks/net1/10.1.2.2": "host-local: address 10.1.2.2 is not allocated",
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_named(host: Host, drift: str) -> None:
    """[C-03] One thing changes; the message says which, the details how."""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    (port,) = host.ip("link", "show", "type", "veth")
    where, _, command = drift.partition(": ")
    arguments = command.replace("PORT", port["ifname"]).split()
    if where == "host":
        host.run(*arguments)
    else:
        container.run(*arguments)
    error = refusal(host.call("ptp", "CHECK", config, container))
    assert error["msg"].startswith(DRIFTS[drift].replace("PORT", port["ifname"]))
    assert error["details"]
    # What has changed does not keep DEL from taking all of it down.
    host.delete("ptp", config, container)
    assert leaks(host) == []


def test_another_host_end(host: Host) -> None:
    """The result names another pair than the one that is there."""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    config["prevResult"]["interfaces"][0]["name"] = "veth0000"
    error = refusal(host.call("ptp", "CHECK", config, container))
    assert error["msg"] == "host end of interface eth0 differs"
    assert "veth0000" in error["details"]


def test_addresses_of_other_interfaces_in_the_chain(host: Host) -> None:
    """[W-G21] A chain's result also lists interfaces and addresses that are not ours."""
    container = host.container("c1")
    config = checked(host, routed(), container)
    previous = config["prevResult"]
    previous["interfaces"] += [{"name": "other", "sandbox": container.netns}, {"name": "ifb"}]
    previous["ips"].append({"interface": 2, "address": "192.0.2.77/24"})
    assert host.call("ptp", "CHECK", config, container).status == 0


def test_prev_result_is_required(host: Host) -> None:
    """[C-01]"""
    container = host.container("c1")
    host.add("ptp", CONFIG, container)
    error = refusal(host.call("ptp", "CHECK", CONFIG, container))
    assert error["msg"] == "Required prevResult missing"


def test_sandbox_of_prev_result(host: Host) -> None:
    """[X-03]"""
    container = host.container("c1")
    config = checked(host, CONFIG, container)
    config["prevResult"]["interfaces"][1]["sandbox"] = "/run/netns/elsewhere"
    error = refusal(host.call("ptp", "CHECK", config, container))
    assert "doesn't match configured netns: /run/netns/c1" in error["msg"]


# STATUS.


def test_ready(host: Host) -> None:
    assert host.call("ptp", "STATUS", CONFIG).status == 0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ipam": {}}, "ipam.type is missing"),
        ({"mtu": 5}, "invalid mtu 5"),
        ({"ipMasqBackend": "pf"}, 'unknown ipmasq backend "pf"'),
    ],
)
def test_not_ready_with_such_a_configuration(host: Host, keys: dict[str, Any], words: str) -> None:
    """[W-G2]"""
    error = refusal(host.call("ptp", "STATUS", CONFIG | keys))
    assert error["code"] == 50
    assert words in error["msg"]


def test_not_ready_without_addresses(host: Host) -> None:
    """[S-05, W-G2] The IPAM plugin's state is ptp's."""
    small = routed(ipam=host_local([{"subnet": "10.1.2.0/30"}]))
    host.add("ptp", small, host.container("c1"))
    error = refusal(host.call("ptp", "STATUS", small))
    assert error["code"] == 50
    assert "no IP addresses available" in error["msg"]
