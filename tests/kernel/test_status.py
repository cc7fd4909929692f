"""STATUS: 50 where an ADD could not succeed, 51 where containers that live are cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import V4, V6, host_local, ipam, l2, l3, routed
from fixtures.firewalls import attach, firewall, hide, network
from fixtures.host import refusal
from fixtures.ports import mapping, portmap
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.host import Host

GATEWAY = l3(isGateway=True, ipam=host_local(V4, V6))
MASQUERADED = GATEWAY | {"ipMasq": True, "ipMasqBackend": "nftables"}
FORWARDING = {"IPv4": "net.ipv4.ip_forward", "IPv6": "net.ipv6.conf.all.forwarding"}


def status(host: Host, plugin: str, config: Any) -> tuple[int, str, str]:
    """Code, message and details; -1 and nothing for a plugin that is ready."""
    outcome = host.call(plugin, "STATUS", config)
    if outcome.status == 0:
        return -1, "", ""
    error = refusal(outcome)
    return error["code"], error["msg"], error.get("details", "")


# 51: containers are cut off, and what would help.


@pytest.mark.parametrize("config", [GATEWAY, l2()], ids=["l3", "l2"])
def test_bridge_that_is_down(host: Host, config: Any) -> None:
    """Somebody has set it down: its containers reach nobody until an ADD or the operator."""
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", config, first)
    assert status(host, "bridge", config)[0] == -1
    host.run("ip", "link", "set", "cni0", "down")
    code, msg, details = status(host, "bridge", config)
    assert (code, msg) == (51, "bridge cni0 is down: nothing gets through its 1 ports")
    assert details.startswith("`ip link set cni0 up`, or the next ADD")
    host.add("bridge", config, second)
    assert status(host, "bridge", config)[0] == -1


def test_bridge_that_is_down_and_empty(host: Host) -> None:
    """The next ADD sets it up, and nobody misses it before."""
    container = host.container("c1")
    host.add("bridge", l2(), container)
    host.delete("bridge", l2(), container)
    host.run("ip", "link", "set", "cni0", "down")
    assert status(host, "bridge", l2())[0] == -1


@pytest.mark.parametrize("version", FORWARDING)
@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_forwarding_that_was_turned_off(host: Host, plugin: str, version: str) -> None:
    """Somebody's sysctl.d or VPN has: the containers reach the host, and nothing beyond it."""
    config = GATEWAY if plugin == "bridge" else routed(ipam=host_local(V4, V6))
    first, second = host.container("c1"), host.container("c2")
    key = FORWARDING[version]
    host.run("sysctl", "-w", f"{key}=0")
    assert status(host, plugin, config)[0] == -1
    host.add(plugin, config, first)
    assert status(host, plugin, config)[0] == -1
    host.run("sysctl", "-w", f"{key}=0")
    code, msg, details = status(host, plugin, config)
    if plugin == "ptp" and version == "IPv6":
        # To find out whether a container has IPv6 would take a listing of all of them each time.
        assert code == -1
        return
    whose = "bridge cni0" if plugin == "bridge" else "network net1"
    assert (code, msg) == (
        51,
        f"{version} is not forwarded: the containers of {whose} reach no other network",
    )
    assert details == f"`sysctl -w {key}=1`, or the next ADD, sets it to 1"
    host.add(plugin, config, second)
    assert status(host, plugin, config)[0] == -1


def test_forwarding_that_nobody_needs(host: Host) -> None:
    """IPv6 of a network without it, and a bridge that is no gateway."""
    host.add("bridge", l3(isGateway=True), host.container("c1"))
    host.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=0")
    assert status(host, "bridge", l3(isGateway=True))[0] == -1
    host.run("sysctl", "-w", "net.ipv4.ip_forward=0")
    assert status(host, "bridge", l3())[0] == -1
    assert status(host, "ptp", routed(name="net2"))[0] == -1


def masqueraded(host: Host) -> tuple[str, Any, str]:
    host.add("bridge", MASQUERADED, host.container("c1"))
    return "bridge", MASQUERADED, "masquerading"


def routed_and_masqueraded(host: Host) -> tuple[str, Any, str]:
    config = routed(ipMasq=True, ipMasqBackend="nftables")
    host.add("ptp", config, host.container("c1"))
    return "ptp", config, "masquerading"


def published(host: Host) -> tuple[str, Any, str]:
    container = host.container("c1")
    result = host.add("bridge", l3(isGateway=True), container)
    config = portmap(mapping(), prevResult=result, backend="nftables")
    host.add("portmap", config, container)
    return "portmap", portmap(backend="nftables"), "published ports"


def let_through(host: Host) -> tuple[str, Any, str]:
    attach(host, host.container("c1"), "nftables")
    return "firewall", firewall("nftables"), "the firewall"


@pytest.mark.parametrize("setting", [masqueraded, routed_and_masqueraded, published, let_through])
def test_flushed_rules(host: Host, setting: Callable[[Host], tuple[str, Any, str]]) -> None:
    """`nft flush ruleset`: told as long as it lasts, and only while a container lives."""
    plugin, config, what = setting(host)
    assert status(host, plugin, config)[0] == -1
    host.run("nft", "flush", "ruleset")
    code, msg, details = status(host, plugin, config)
    assert code == 51
    assert msg == f"somebody has flushed the rules of {what}: 1 containers that live lack them"
    assert "`cni-py firewall restore`" in details
    assert status(host, plugin, config | {"name": "net2"})[0] == -1
    host.run(CNI_PY, "firewall", "restore")
    assert status(host, plugin, config)[0] == -1
    host.run("nft", "flush", "ruleset")
    host.delete_all()
    assert status(host, plugin, config)[0] == -1


def test_50_comes_before_51(host: Host) -> None:
    """The worse one is told."""
    config = l3(isGateway=True, ipam=host_local([{"subnet": "10.1.2.0/30"}]))
    host.add("bridge", config, host.container("c1"))
    host.run("ip", "link", "set", "cni0", "down")
    code, msg, _ = status(host, "bridge", config)
    assert (code, "no IP addresses available" in msg) == (50, True)
    host.run("ip", "link", "set", "cni0", "up")


# 50: an ADD could not succeed.


@pytest.mark.parametrize("fault", ["full", "inodes", "readonly"])
@pytest.mark.parametrize("used", [False, True])
def test_disk(host: Host, fault: str, *, used: bool) -> None:
    """An address cannot be written down, also where the folders and the lock are there already."""
    options = "size=64k" if fault == "full" else "nr_inodes=40"
    host.run("mount", "-t", "tmpfs", "-o", options, "none", "/var/lib/cni")
    host.run("mkdir", "/var/lib/cni/networks")
    if used:
        container = host.container("c1")
        host.add("bridge", l3(), container)
        host.delete("bridge", l3(), container)
    assert not used or status(host, "bridge", l3())[0] == -1
    break_disk = {
        "full": "cat /dev/zero > /var/lib/cni/full",
        "inodes": "cd /var/lib/cni; seq 50 | xargs touch",
        "readonly": "mount -o remount,ro /var/lib/cni",
    }
    host.run("sh", "-c", break_disk[fault], check=False)
    expected = "Read-only file system" if fault == "readonly" else "No space left on device"
    for plugin, config in (("bridge", l3()), ("host-local", ipam(ranges=[V4]))):
        code, msg, details = status(host, plugin, config)
        assert (code, expected in msg) == (50, True), msg
        assert "dataDir" in details
    error = refusal(host.call("bridge", "ADD", l3(), host.container("c2")))
    assert expected in error["msg"]
    host.run("umount", "/var/lib/cni")


def test_missing_tools(host: Host) -> None:
    """Of those who need iptables, not of others."""
    hide(host, "iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore")
    for plugin, config in (
        ("firewall", firewall("iptables")),
        ("portmap", portmap(backend="iptables")),
        ("bridge", l3(ipMasq=True, ipMasqBackend="iptables")),
        ("ptp", routed(ipMasq=True, ipMasqBackend="iptables")),
    ):
        code, msg, _ = status(host, plugin, config)
        assert (code, "iptables" in msg) == (50, True), (plugin, code, msg)
    for plugin, config in (
        ("firewall", firewall("nftables")),
        ("portmap", portmap(backend="nftables")),
        ("bridge", network(ipMasq=True)),
    ):
        assert status(host, plugin, config)[0] == -1
    host.run("umount", "/usr/sbin")
