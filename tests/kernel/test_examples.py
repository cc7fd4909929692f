"""Each configuration in conf/ works as it stands: the documents of the plugins show them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from fixtures import leases
from fixtures.background import running
from fixtures.dhcp import dnsmasq, make_lan, start_daemon
from fixtures.host import ROOT, Container, Host
from fixtures.leaks import leaks
from fixtures.parents import uplink
from fixtures.ports import mapping

# Kinds of links that not every kernel has.
RARE = {"ipvlan", "vlan", "vrf", "dummy"}
# What a user namespace refuses: an owner that it has no number for; the DHCP server's own group.
REAL = {"tap", "dhcp"}
# What a runtime passes where the configuration declares the capability.
CAPABILITIES = {
    "portMappings": [mapping()],
    "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000},
    "mac": "02:00:00:00:00:07",
    "aliases": ["web"],
}


def examples() -> list[Any]:
    found = []
    for path in sorted((ROOT / "conf").glob("*.conflist")):
        conflist = json.loads(path.read_text())
        types = {one["type"] for one in conflist["plugins"]}
        types |= {one.get("ipam", {}).get("type") for one in conflist["plugins"]}
        marks = [pytest.mark.vm] if types & RARE else []
        marks += [pytest.mark.root] if types & REAL else []
        found.append(pytest.param(conflist, id=path.name, marks=marks))
    return found


def prepared(host: Host, conflist: dict[str, Any], stack: ExitStack) -> None:
    """Give the host what the configuration names."""
    main = conflist["plugins"][0]
    if main["type"] == "overlay":
        leases.lease(host)
    if main["type"] == "flannel":
        leases.text(host, leases.FLANNEL, leases.ENVIRONMENT)
    if main.get("ipam", {}).get("type") == "cluster":
        leases.blocks(host)
    if "master" in main:
        uplink(host, "macvlan", main["master"])
    if "device" in main:
        uplink(host, "macvlan", main["device"])
    if main.get("ipam", {}).get("type") == "dhcp":
        server = make_lan(host, main["bridge"])
        stack.enter_context(dnsmasq(host, server))
        stack.enter_context(running(start_daemon(host)))


def run(host: Host, conflist: dict[str, Any], verb: str, container: Container, result: Any) -> Any:
    """One verb for all plugins of the list, as libcni does it; the last result."""
    plugins = conflist["plugins"]
    ifname = "lo" if plugins[0]["type"] == "loopback" else "eth0"
    for plugin in reversed(plugins) if verb == "DEL" else plugins:
        config = plugin | {key: conflist[key] for key in ("cniVersion", "name")}
        config["runtimeConfig"] = {
            key: value
            for key, value in CAPABILITIES.items()
            if config.get("capabilities", {}).get(key)
        }
        if result is not None:
            config["prevResult"] = result
        outcome = host.call(plugin["type"], verb, config, container, ifname)
        assert outcome.status == 0, outcome
        result = outcome.json if verb == "ADD" else result
    return result


@pytest.mark.parametrize("conflist", examples())
def test_example(host: Host, conflist: dict[str, Any]) -> None:
    container = host.container()
    with ExitStack() as stack:
        prepared(host, conflist, stack)
        result = run(host, conflist, "ADD", container, None)
        assert result["cniVersion"] == conflist["cniVersion"]
        run(host, conflist, "CHECK", container, result)
        run(host, conflist, "DEL", container, result)
        assert leaks(host) == []
