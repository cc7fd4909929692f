"""Our bridge beside the Go one: the same results, and each takes down what the other has set up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, l2, l3
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.reference import reference

REFERENCE = "/usr/lib/cni"
# Debian's stable release of the reference speaks no 1.1.0.
VERSION = "1.0.0"

ROUTES = [{"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.1.2.9"}]

CONFIGS = {
    "plain": l3(),
    "gateway": l3(isGateway=True),
    "default gateway": l3(isDefaultGateway=True),
    "masquerading": l3(isDefaultGateway=True, ipMasq=True, ipMasqBackend="iptables"),
    "dual stack": l3(isDefaultGateway=True, ipam=host_local(V4, V6)),
    "mtu and hairpin": l3(mtu=1400, hairpinMode=True),
    "promiscuous": l3(promiscMode=True),
    "two of a family": l3(ipam=host_local(V4, [{"subnet": "10.1.3.0/24"}])),
    "routes": l3(isGateway=True, ipam=host_local(V4, routes=ROUTES)),
    "default route of IPAM": l3(isGateway=True, ipam=host_local(V4, routes=[{"dst": "0.0.0.0/0"}])),
    "layer 2": l2(),
    "dns": l3(dns={"nameservers": ["192.0.2.53"], "domain": "example"}),
}


@pytest.fixture
def other() -> Any:
    """A second host, whose plugins are the reference's."""
    second = Host.start()
    second.path = REFERENCE
    try:
        yield second
    finally:
        second.close()


def attached(host: Host, config: dict[str, Any], container: Container) -> dict[str, Any]:
    """An ADD that the test takes down by itself."""
    outcome = host.call("bridge", "ADD", config, container)
    assert outcome.status == 0, outcome
    result: dict[str, Any] = outcome.json
    return result


def anonymous(value: Any, names: dict[str, str]) -> Any:
    """A state with random names replaced by what they stand for."""
    text = json.dumps(value)
    for name, stand_in in names.items():
        text = text.replace(name, stand_in)
    return json.loads(text)


def seen(host: Host, container: Container, result: dict[str, Any]) -> dict[str, Any]:
    """The result, and what the kernel shows of it on both sides."""
    names = {}
    for index, one in enumerate(result["interfaces"]):
        # A bridge of the reference without gateway has its port's address [W-BR15].
        one["mac"] = f"<mac of {index}>"
        if one["name"].startswith("veth"):
            names[one["name"]] = f"<name of {index}>"
    (port,) = host.ports()
    bridge = host.link("cni0")
    assert bridge is not None
    eth0 = container.link()
    state = {
        # An empty dns: release 1.1.1 prints it in 1.0.0, newer ones do not.
        "result": {key: value for key, value in result.items() if (key, value) != ("dns", {})},
        "mtus": [one["mtu"] for one in (bridge, port, eth0)],
        "port": {
            key: value
            for key, value in port["linkinfo"]["info_slave_data"].items()
            if key in ("hairpin", "isolated", "learning")
        },
        "promiscuous": "PROMISC" in bridge["flags"],
        "addresses": [container.addresses(), sorted(host_addresses(host))],
        "routes": [
            container.ip("route"),
            [one for one in container.ip("-6", "route") if one["dst"][:4] not in ("fe80", "ff00")],
        ],
        "iptables": host.iptables(),
        "files": {
            name: content
            for name, content in host.files("/var/lib/cni").items()
            if "/.cni-py/" not in name
        },
        "forwarding": [
            host.sysctl("net/ipv4/ip_forward"),
            host.sysctl("net/ipv6/conf/all/forwarding"),
        ],
        "sysctls": [
            container.sysctl("net/ipv4/conf/eth0/arp_notify"),
            container.sysctl("net/ipv6/conf/eth0/accept_dad"),
            host.sysctl("net/ipv6/conf/cni0/accept_ra"),
        ],
    }
    return anonymous(state, names)


def host_addresses(host: Host) -> list[str]:
    shown = host.ip("addr", "show", "cni0")[0]["addr_info"]
    return [f"{one['local']}/{one['prefixlen']}" for one in shown if one["scope"] != "link"]


@pytest.mark.parametrize("name", CONFIGS)
def test_same_result_and_same_kernel_state(host: Host, other: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    ours, theirs = host.container("c1", "cid1"), other.container("c1", "cid1")
    mine = seen(host, ours, host.add("bridge", config, ours))
    reference = seen(other, theirs, attached(other, config, theirs))
    for part, expected in reference.items():
        assert (part, mine[part]) == (part, expected)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("netns", ["there", "gone"])
def test_we_take_down_what_the_reference_set_up(host: Host, name: str, netns: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    host.path = REFERENCE
    config["prevResult"] = attached(host, config, container)
    host.path = str(BIN)
    if netns == "gone":
        container.delete_netns()
    host.delete("bridge", config, container)
    assert leaks(host) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reference_takes_down_what_we_set_up(host: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    config["prevResult"] = attached(host, config, container)
    host.path = REFERENCE
    host.delete("bridge", config, container)
    host.path = str(BIN)
    # Our index learns of it at the next call.
    host.delete("bridge", config, container)
    assert leaks(host) == []


@pytest.mark.parametrize("name", ["default gateway", "layer 2", "dual stack"])
def test_the_references_check_accepts_ours(host: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    checked = config | {"prevResult": host.add("bridge", config, container)}
    host.path = REFERENCE
    outcome = host.call("bridge", "CHECK", checked, container)
    host.path = str(BIN)
    # Its CHECK of a network without IPAM always fails [W-BR9].
    assert outcome.status == (1 if name == "layer 2" else 0), outcome


@pytest.mark.parametrize("name", CONFIGS)
def test_our_check_accepts_the_references(host: Host, name: str) -> None:
    config = CONFIGS[name] | {"cniVersion": VERSION}
    container = host.container("c1", "cid1")
    host.path = REFERENCE
    config["prevResult"] = attached(host, config, container)
    host.path = str(BIN)
    assert host.call("bridge", "CHECK", config, container).status == 0
    host.delete("bridge", config, container)


@pytest.mark.parametrize("backend", [None, "iptables", "nftables"])
def test_our_check_by_default_accepts_the_references(host: Host, backend: str | None) -> None:
    """A node that has just been changed over says nothing of a backend, or names another one."""
    config = CONFIGS["dual stack"] | {"cniVersion": VERSION, "ipMasq": True}
    config.pop("ipMasqBackend", None)
    container = host.container("c1", "cid1")
    theirs = reference(host, "bridge")
    keys = {"ipMasqBackend": backend} if backend else {}
    config["prevResult"] = attached(theirs, config | keys, container)
    assert host.call("bridge", "CHECK", config, container).status == 0
    host.run("sh", "-c", "nft flush ruleset")
    outcome = host.call("bridge", "CHECK", config, container)
    assert "masquerading of 10." in refusal(outcome)["msg"]
    host.delete("bridge", config, container)


def test_our_check_after_a_change_of_the_backend(host: Host) -> None:
    """Who has changed over takes `iptables` out of the list: CHECK goes by what ADD has used."""
    config = CONFIGS["dual stack"] | {"cniVersion": VERSION, "ipMasq": True}
    container = host.container("c1", "cid1")
    before = config | {"ipMasqBackend": "iptables"}
    config["prevResult"] = host.add("bridge", before, container)
    config.pop("ipMasqBackend", None)
    assert host.call("bridge", "CHECK", config, container).status == 0
    host.delete("bridge", config, container)


def test_nftables_state_of_newer_releases(host: Host) -> None:
    """[A.2, A.5] Rules as release 1.9.1 writes them, of a container that is gone."""
    container = host.container("c1", "cid1")
    key = "8e48f37d5de60467-0b65a318f52e521b"
    masquerade = f'comment "{key}, net: net1, if: eth0, id: cid1"'
    other = 'comment "8e48f37d5de60467-ffffffffffffffff, net: net1, if: eth0, id: other"'
    ruleset = f"""
    table inet cni_plugins_masquerade {{
      chain masq_checks {{
        ip saddr 10.1.2.2 ip daddr != 10.1.2.0/24 masquerade {masquerade}
        ip saddr 10.1.2.3 ip daddr != 10.1.2.0/24 masquerade {other}
      }}
    }}
    table bridge nat {{
      chain cni-br-iface-cid1-eth0 {{ }}
      chain cni-br-iface-cid1-eth0-mac {{ }}
      chain PREROUTING {{
        type filter hook prerouting priority -300; policy accept;
        iifname "veth0" jump cni-br-iface-cid1-eth0 comment "macspoofchk-cid1-eth0"
        iifname "veth1" accept comment "macspoofchk-other-eth0"
      }}
    }}
    add rule bridge nat cni-br-iface-cid1-eth0 jump cni-br-iface-cid1-eth0-mac
    add rule bridge nat cni-br-iface-cid1-eth0-mac drop
    """
    host.run("nft", "-f", "-", stdin=ruleset)
    config = l3(ipMasq=True, macspoofchk=True)
    host.delete("bridge", config, container)
    rules = host.nft()
    assert "cid1" not in rules
    assert "10.1.2.3" in rules
    assert "macspoofchk-other-eth0" in rules
    host.run("nft", "flush", "ruleset")
