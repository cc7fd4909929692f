"""`mtu: "auto"`: what the host's uplinks carry, on every plugin that takes an MTU."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.configs import host_local, l2, l3, routed
from fixtures.host import Host, refusal

IPAM = host_local([{"subnet": "10.1.2.0/24"}])
BASE = {"cniVersion": "1.1.0", "name": "net1", "ipam": IPAM}
CONFIGS: dict[str, dict[str, Any]] = {
    "bridge": l3(),
    "ptp": routed(),
    "macvlan": BASE | {"type": "macvlan", "master": "up4"},
    "tap": BASE | {"type": "tap"},
}
every_plugin = pytest.mark.parametrize("plugin", CONFIGS)


def uplinks(host: Host, first: int = 1420, second: int = 1400) -> None:
    """Two uplinks, one with the IPv4 default route and one with that of IPv6."""
    for name, mtu in (("up4", first), ("up6", second)):
        host.run("ip", "link", "add", name, "mtu", str(mtu), "type", "bridge")
        host.run("ip", "link", "set", name, "up")
    host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "up4")
    host.run("ip", "addr", "add", "2001:db8::1/64", "dev", "up6", "nodad")
    host.run("ip", "route", "add", "default", "via", "192.0.2.254")
    host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::fe")


@every_plugin
@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", 1400), ("auto-50", 1350), ("auto-0", 1400)]
)
def test_lowest_of_the_uplinks(host: Host, plugin: str, asked: str, expected: int) -> None:
    uplinks(host)
    container = host.container("c1")
    config = CONFIGS[plugin] | {"mtu": asked}
    result = host.add(plugin, config, container)
    assert container.link()["mtu"] == expected
    # CHECK compares nothing that may have changed meanwhile.
    host.run("ip", "link", "set", "up6", "mtu", "1300")
    assert host.call(plugin, "CHECK", config | {"prevResult": result}, container).status == 0


def test_route_has_its_own(host: Host) -> None:
    uplinks(host)
    host.run("ip", "route", "replace", "default", "via", "192.0.2.254", "mtu", "1380")
    container = host.container("c1")
    host.add("bridge", l3(mtu="auto"), container)
    assert container.link()["mtu"] == 1380
    bridge = host.link("cni0")
    assert bridge is not None
    assert bridge["mtu"] == 1380


def test_several_next_hops(host: Host) -> None:
    uplinks(host)
    host.run("ip", "link", "add", "up5", "mtu", "1390", "type", "bridge")
    host.run("ip", "link", "set", "up5", "up")
    host.run("ip", "addr", "add", "198.51.100.1/24", "dev", "up5")
    hops = ("nexthop", "via", "192.0.2.254", "nexthop", "via", "198.51.100.254")
    host.run("ip", "route", "replace", "default", *hops)
    container = host.container("c1")
    host.add("bridge", l3(mtu="auto"), container)
    assert container.link()["mtu"] == 1390


@pytest.mark.parametrize("plugin", ["bridge", "ptp", "tap"])
def test_without_a_default_route(host: Host, plugin: str) -> None:
    """The kernel's default."""
    container = host.container("c1")
    host.add(plugin, CONFIGS[plugin] | {"mtu": "auto"}, container)
    assert container.link()["mtu"] == 1500


def test_child_has_no_more_than_its_parent(host: Host) -> None:
    """Another link than the parent may be the uplink."""
    uplinks(host, first=1500, second=9000)
    host.run("ip", "link", "add", "lan", "mtu", "1440", "type", "bridge")
    host.run("ip", "link", "set", "lan", "up")
    container = host.container("c1")
    host.add("macvlan", CONFIGS["macvlan"] | {"master": "lan", "mtu": "auto"}, container)
    assert container.link()["mtu"] == 1440


@every_plugin
@pytest.mark.parametrize("asked", ["automatic", "auto-", "auto50", "1400", "", "auto--1"])
def test_refused(host: Host, plugin: str, asked: str) -> None:
    error = refusal(host.call(plugin, "ADD", CONFIGS[plugin] | {"mtu": asked}, host.container()))
    assert error["code"] == 7
    assert "mtu" in error["msg"] + error.get("details", "")


def test_nothing_is_left_for_the_container(host: Host) -> None:
    uplinks(host)
    error = refusal(host.call("bridge", "ADD", l2(mtu="auto-1399"), host.container("c1")))
    assert (error["code"], error["msg"]) == (7, "invalid mtu 1")
