"""ingressPolicy: which containers reach one another, and published ports all the same."""

from __future__ import annotations

import pytest

from fixtures.configs import V4, host_local, routed
from fixtures.dump import differences, dump
from fixtures.firewalls import (
    BACKENDS,
    attach,
    blocked,
    drop_by_default,
    elements,
    firewall,
    greeted,
    listening,
    network,
    passes,
)
from fixtures.host import Host, refusal

every_backend = pytest.mark.parametrize("backend", BACKENDS)
_BRIDGED = "/proc/sys/net/bridge/bridge-nf-call-ip{}tables"


@pytest.fixture(params=["with br_netfilter", "without"])
def host(host: Host, request: pytest.FixtureRequest) -> Host:
    """A host on which frames from port to port pass the IP rules, or do not."""
    there = host.run("test", "-e", _BRIDGED.format(""), check=False).status == 0
    if not there and request.param != "without":
        pytest.skip("br_netfilter is not loaded")
    for version in ("", "6"):
        value = "0" if request.param == "without" else "1"
        if there:
            host.run("sh", "-c", f"echo {value} > {_BRIDGED.format(version)}")
    return host


def publish(host: Host, address: str, port: int = 8080) -> None:
    """What portmap does: the host's port leads to port 80 of the container."""
    rules = f"""
    table ip published {{
      chain prerouting {{
        type nat hook prerouting priority -100
        fib daddr type local tcp dport {port} dnat to {address}:80
      }}
      chain postrouting {{
        type nat hook postrouting priority 100
        ct status dnat ip saddr 10.1.1.0/24 masquerade
      }}
    }}
    """
    host.run("nft", "-f", "-", stdin=rules)


@every_backend
def test_same_bridge(host: Host, backend: str) -> None:
    """[6.3] Containers of a bridge reach one another, and those of other bridges do not."""
    first, second, other = (host.container(name) for name in ("c1", "c2", "c3"))
    for container, name in ((first, "net1"), (second, "net1"), (other, "net2")):
        attach(host, container, backend, name, ingressPolicy="same-bridge")
    assert passes(first, "10.1.1.3")
    assert passes(first, "fd00:1::3")
    assert blocked(first, "10.1.2.2")
    assert blocked(other, "10.1.1.2")
    assert blocked(first, "fd00:2::2")


@every_backend
def test_isolated(host: Host, backend: str) -> None:
    """[6.3] Nobody is reached by another container, and the host reaches them."""
    first, second, other = (host.container(name) for name in ("c1", "c2", "c3"))
    for container, name in ((first, "net1"), (second, "net1"), (other, "net2")):
        attach(host, container, backend, name, ingressPolicy="isolated")
    assert blocked(first, "10.1.1.3")
    assert blocked(first, "fd00:1::3")
    assert blocked(second, "10.1.2.2")
    assert blocked(other, "fd00:1::2")
    assert host.run("busybox", "ping", "-c", "1", "-W", "2", "10.1.1.3").status == 0


@every_backend
@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
def test_published_ports_stay_reachable(host: Host, backend: str, policy: str) -> None:
    """From another network, and from the container's own, also where FORWARD drops."""
    server, near, far = (host.container(name) for name in ("c1", "c2", "c3"))
    for container, name in ((server, "net1"), (near, "net1"), (far, "net2")):
        attach(host, container, backend, name, ingressPolicy=policy)
    listening(server)
    publish(host, "10.1.1.2")
    if backend == "iptables":
        drop_by_default(host)
    assert greeted(far, "10.1.2.1", 8080)
    assert greeted(near, "10.1.1.1", 8080)
    assert not greeted(far, "10.1.1.2")
    assert greeted(near, "10.1.1.2") == (policy == "same-bridge")


@every_backend
def test_open_containers_beside_isolated_ones(host: Host, backend: str) -> None:
    """[6.3] Isolation is between bridges that have a policy: others come and go as before."""
    first, free = host.container("c1"), host.container("c2")
    attach(host, first, backend, ingressPolicy="same-bridge")
    attach(host, free, backend, "net2")
    assert passes(free, "10.1.1.2")
    assert passes(first, "10.1.2.2")


@every_backend
def test_isolation_ends_with_the_last_container(host: Host, backend: str) -> None:
    """[W-FW4] The strictest policy of a bridge holds as long as a container asks for it."""
    free, strict, mild = (host.container(name) for name in ("c1", "c2", "c3"))
    host.add("bridge", network(), free)
    gone = host.container("c0")
    host.delete("firewall", attach(host, gone, backend, ingressPolicy="isolated"), gone)
    host.delete("bridge", network(), gone)
    clean = dump(host)
    attach(host, mild, backend, ingressPolicy="same-bridge")
    only_mild = dump(host)
    config = attach(host, strict, backend, ingressPolicy="isolated")
    drops = (
        sum("-j DROP" in line for line in host.iptables("filter")),
        sum("drop" in str(one) for one in elements(host, "isolation_pairs")),
    )
    assert drops == ((2, 0) if backend == "iptables" else (0, 1))
    host.delete("firewall", config, strict)
    host.delete("bridge", network(), strict)
    after = dump(host)
    for kind in ("nft", "iptables"):
        assert sorted(only_mild[kind]) == sorted(after[kind])
    host.delete("firewall", firewall(backend), mild)
    host.delete("bridge", network(), mild)
    assert differences(clean | {"files": []}, dump(host) | {"files": []}) == ""


def test_ports_of_the_same_host_end(host: Host) -> None:
    """[W-FW6] With ptp, a pair's own end takes a bridge's place."""
    first, second = host.container("c1"), host.container("c2")
    config = routed(ipam=host_local(V4, routes=[{"dst": "0.0.0.0/0"}]))
    for container in (first, second):
        result = host.add("ptp", config, container)
        chained = firewall("nftables", ingressPolicy="isolated") | {"prevResult": result}
        host.add("firewall", chained, container)
    assert blocked(first, "10.1.2.3")


def test_vlan(host: Host) -> None:
    """[W-FW6] The gateway of a VLAN is an interface of its own, and that is what is isolated."""
    result = {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br-net1"},
            {"name": "eth0", "sandbox": "/run/netns/c1"},
            {"name": "br-net1.7"},
        ],
        "ips": [{"address": "10.1.1.2/24", "interface": 1}],
    }
    host.run("ip", "link", "add", "br-net1", "type", "bridge")
    host.run("ip", "link", "add", "br-net1.7", "type", "veth", "peer", "name", "other")
    config = firewall("nftables", ingressPolicy="same-bridge") | {"prevResult": result}
    host.add("firewall", config, host.container("c1"))
    assert elements(host, "isolation_bridges") == ["br-net1.7"]


def test_container_beyond_the_ports_of_a_bridge(host: Host) -> None:
    """A container that is routed would escape the bridge's isolation: it is refused."""
    container = host.container("c1")
    result = host.add("bridge", network(), container)
    host.run("ip", "link", "set", result["interfaces"][1]["name"], "nomaster")
    before = dump(host)
    config = firewall("nftables", ingressPolicy="isolated") | {"prevResult": result}
    error = refusal(host.call("firewall", "ADD", config, container))
    assert error["msg"].startswith("ingressPolicy isolated cannot be enforced for veth")
    assert differences(before, dump(host)) == ""
