"""firewall: what it sets, what passes, and that it is all gone again."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.dump import differences, dump
from fixtures.firewalls import (
    BACKENDS,
    attach,
    blocked,
    drop_by_default,
    elements,
    firewall,
    hide,
    network,
    only_v4,
    passes,
)
from fixtures.host import Host, refusal

every_backend = pytest.mark.parametrize("backend", BACKENDS)


@every_backend
def test_add_passes_the_result_on(host: Host, backend: str) -> None:
    """[6.3] The result is the earlier plugin's, unchanged."""
    container = host.container("c1")
    result = host.add("bridge", network(), container)
    assert host.add("firewall", firewall(backend) | {"prevResult": result}, container) == result


def test_iptables_rules(host: Host) -> None:
    """[A.11] The reference's chains, rules and order, and the rule for published ports."""
    container = host.container("c1")
    attach(host, container, "iptables", ingressPolicy="isolated", iptablesAdminChainName="MINE")
    for version, address in ((4, "10.1.1.2/32"), (6, "fd00:1::2/128")):
        text = "CNI firewall plugin"
        both = f'-m comment --comment "{text} rules (ingressPolicy: same-bridge|isolated)"'
        one = f'-m comment --comment "{text} rules (ingressPolicy: isolated)"'
        first, second = "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2"
        have = host.iptables("filter", version)
        assert sorted(line for line in have if line.startswith("-N")) == [
            "-N CNI-FORWARD",
            f"-N {first}",
            f"-N {second}",
            "-N MINE",
        ]
        assert [line for line in have if line.startswith("-A")] == [
            f"-A FORWARD {both} -j {first}",
            f'-A FORWARD -m comment --comment "{text} rules" -j CNI-FORWARD',
            f'-A CNI-FORWARD -m comment --comment "{text} admin overrides" -j MINE',
            f"-A CNI-FORWARD -d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A CNI-FORWARD -s {address} -j ACCEPT",
            f"-A CNI-FORWARD -d {address} -m conntrack --ctstate DNAT -j ACCEPT",
            f"-A {first} -m conntrack --ctstate DNAT {both} -j RETURN",
            f"-A {first} -i br-net1 -o br-net1 {one} -j DROP",
            f"-A {first} -i br-net1 ! -o br-net1 {one} -j {second}",
            f"-A {first} {both} -j RETURN",
            f"-A {second} -o br-net1 {both} -j DROP",
            f"-A {second} {both} -j RETURN",
        ]


def test_nftables_elements(host: Host) -> None:
    """[W-FW1] An element an address, labelled with its owner; the chains are static."""
    first, second = host.container("c1"), host.container("c2")
    attach(host, first, "nftables")
    rules = sum(line.count("accept") + line.count("drop") for line in host.nft().splitlines())
    attach(host, second, "nftables")
    again = sum(line.count("accept") + line.count("drop") for line in host.nft().splitlines())
    assert rules == again
    assert [one["elem"]["val"] for one in elements(host, "forward4")] == ["10.1.1.2", "10.1.1.3"]
    labels = [one["elem"]["comment"] for one in elements(host, "forward6")]
    assert labels[0].endswith(", net: net1, if: eth0, id: id-c1")
    assert labels[1].endswith(", net: net1, if: eth0, id: id-c2")


@every_backend
@pytest.mark.parametrize("policy", ["", "open", "same-bridge", "isolated"])
def test_nothing_is_left(host: Host, backend: str, policy: str) -> None:
    """[W-FW4] DEL without prevResult removes everything, also isolation; the chains stay."""
    container, before = host.container("c1"), host.container("c0")
    # The chains, tables and folders are there.
    config = attach(host, before, backend, ingressPolicy=policy)
    host.delete("firewall", config, before)
    result = host.add("bridge", network(), container)
    clean = dump(host)
    config = firewall(backend, ingressPolicy=policy)
    host.add("firewall", config | {"prevResult": result}, container)
    assert differences(clean, dump(host)) != ""
    host.delete("firewall", {**config, "backend": "", "ingressPolicy": "nonsense"}, container)
    assert differences(clean, dump(host)) == ""


def test_forwarding_where_iptables_drops(host: Host) -> None:
    """The reason for the plugin: a FORWARD that drops lets containers through."""
    first, second = host.container("c1"), host.container("c2")
    attach(host, first, "iptables")
    attach(host, second, "iptables", "net2")
    drop_by_default(host)
    assert passes(first, "10.1.2.2")
    assert passes(second, "fd00:1::2")
    for name in ("net1", "net2"):
        number = name[-1]
        container = first if name == "net1" else second
        host.delete("firewall", firewall("iptables", name), container)
        assert blocked(container, f"10.1.{3 - int(number)}.2")


def test_without_ip6tables(host: Host) -> None:
    """[W-FW1] IPv6's executables are only needed where there is an address of IPv6."""
    host.stop_serving()
    hide(host, "ip6tables", "ip6tables-restore")
    container = host.container("c1")
    result = host.add("bridge", only_v4(), container)
    host.add("firewall", firewall("iptables") | {"prevResult": result}, container)
    other = host.container("c2")
    result = host.add("bridge", network("net2"), other)
    outcome = host.call("firewall", "ADD", firewall("iptables") | {"prevResult": result}, other)
    assert refusal(outcome)["msg"] == "ip6tables is not installed"
    host.delete_all()
    host.run("umount", "/usr/sbin")


@pytest.mark.parametrize(
    ("keys", "msg"),
    [
        ({"ingressPolicy": "closed"}, 'unknown ingress policy: "closed"'),
        ({"backend": "pf"}, 'unknown backend: "pf"'),
        ({"iptablesAdminChainName": ""}, 'iptablesAdminChainName "" cannot'),
        ({"iptablesAdminChainName": "-F"}, 'iptablesAdminChainName "-F" cannot'),
        ({"iptablesAdminChainName": "A B"}, 'iptablesAdminChainName "A B" cannot'),
        ({"iptablesAdminChainName": "A\nCOMMIT"}, "iptablesAdminChainName"),
        ({"iptablesAdminChainName": "FORWARD"}, 'iptablesAdminChainName "FORWARD" cannot'),
        ({"iptablesAdminChainName": "CNI-FORWARD"}, 'iptablesAdminChainName "CNI-FORWARD" cannot'),
        ({"iptablesAdminChainName": "x" * 29}, "iptablesAdminChainName"),
        ({"firewalldZone": ""}, "firewalldZone is empty"),
        ({"backend": "firewalld"}, "firewalld does not answer on the system bus"),
        ({"prevResult": None}, "missing prevResult from earlier plugin"),
        ({"ingressPolicy": "isolated", "prevResult": {"cniVersion": "1.1.0"}}, "interface needs"),
    ],
)
def test_refused_before_anything_is_changed(host: Host, keys: dict[str, Any], msg: str) -> None:
    """[W-FW5]"""
    container = host.container("c1")
    result = host.add("bridge", network(), container)
    before = dump(host)
    config = firewall("nftables") | {"prevResult": result} | keys
    assert refusal(host.call("firewall", "ADD", config, container))["msg"].startswith(msg)
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize("name", ["br+", 'b"r', "b;r", "b'r"])
def test_bridge_that_a_rule_cannot_name(host: Host, name: str) -> None:
    """In iptables a `+` would stand for every bridge whose name begins so."""
    container = host.container("c1")
    config = network(bridge=name)
    result = host.add("bridge", config, container)
    before = dump(host)
    config = firewall("iptables", ingressPolicy="isolated") | {"prevResult": result}
    error = refusal(host.call("firewall", "ADD", config, container))
    assert error["msg"] == f'interface "{name}" cannot be named in an iptables rule'
    assert differences(before, dump(host)) == ""
    if name != 'b"r':
        host.add("firewall", config | {"backend": "nftables"}, container)


@every_backend
def test_add_again(host: Host, backend: str) -> None:
    """A second ADD leaves one of everything, and takes what is configured now."""
    container = host.container("c1")
    config = attach(host, container, backend, ingressPolicy="isolated")
    before = dump(host)
    host.add("firewall", config, container)
    assert differences(before, dump(host)) == ""
    host.add("firewall", config | {"ingressPolicy": "open"}, container)
    assert elements(host, "isolation_bridges") == []
    assert not any("-j DROP" in line for line in host.iptables("filter"))


@every_backend
def test_address_that_another_container_has_got(host: Host, backend: str) -> None:
    """[W-FW3] A late DEL does not take the rules of the address's next container away."""
    first, second = host.container("c1"), host.container("c2")
    config = attach(host, first, backend)
    host.delete("bridge", network(), first)
    pool = {
        "type": "static",
        "addresses": [{"address": "10.1.1.2/24"}, {"address": "fd00:1::2/64"}],
    }
    result = host.add("bridge", network(ipam=pool), second)
    assert [one["address"] for one in result["ips"]] == ["10.1.1.2/24", "fd00:1::2/64"]
    later = config | {"prevResult": result}
    host.add("firewall", later, second)
    once = host.iptables("filter")
    host.delete("firewall", config, first)
    assert host.iptables("filter") == once
    outcome = host.call("firewall", "CHECK", later, second)
    assert outcome.status == 0, outcome
    host.delete("firewall", config, second)
    assert elements(host, "forward4") == []
    assert not any("10.1.1.2" in line for line in host.iptables("filter"))


@every_backend
def test_address_of_a_container_that_is_gone(host: Host, backend: str) -> None:
    """What a crash has left does not double the rules, and goes with the new one's DEL."""
    first, second = host.container("c1"), host.container("c2")
    config = attach(host, first, backend)
    first.delete_netns()
    host.delete("bridge", network(), first)
    pool = {
        "type": "static",
        "addresses": [{"address": "10.1.1.2/24"}, {"address": "fd00:1::2/64"}],
    }
    later = config | {"prevResult": host.add("bridge", network(ipam=pool), second)}
    host.add("firewall", later, second)
    assert sum("-s 10.1.1.2/32" in line for line in host.iptables("filter")) <= 1
    host.delete("firewall", config, second)
    assert not any("10.1.1.2" in line for line in host.iptables("filter"))
    host.delete("firewall", config, first)
    assert elements(host, "forward4") == []


@every_backend
def test_another_backend_at_del(host: Host, backend: str) -> None:
    """[W-FW4] DEL goes by what ADD has recorded."""
    container = host.container("c1")
    config = attach(host, container, backend)
    other = "nftables" if backend == "iptables" else "iptables"
    host.delete("firewall", config | {"backend": other}, container)
    assert elements(host, "forward4") == []
    assert not any("10.1.1.2" in line for line in host.iptables("filter"))


@every_backend
def test_lost_record(host: Host, backend: str) -> None:
    """DEL finds the rules by the label, or by the addresses in prevResult."""
    container = host.container("c1")
    config = attach(host, container, backend)
    host.run("rm", "-r", "/run/cni-py/firewall")
    host.delete("firewall", config, container)
    assert elements(host, "forward4") == elements(host, "forward6") == []
    for version in (4, 6):
        assert not any("-j ACCEPT" in line for line in host.iptables("filter", version))


@every_backend
def test_failed_add_leaves_nothing(host: Host, backend: str) -> None:
    """[W-FW5] The second half of the rules is refused."""
    container = host.container("c1")
    result = host.add("bridge", network(), container)
    config = firewall(backend, ingressPolicy="isolated") | {"prevResult": result}
    host.stop_serving()
    if backend == "iptables":
        # Only what adds is refused.
        hide(host, "ip6tables-restore", instead="! grep -q ^-[AI]")
    else:
        host.run("nft", "add table inet cni_py; add chain inet cni_py forward_admin")
        host.run("nft", "add set inet cni_py forward4 { type ifname; }")
    before = dump(host)
    outcome = host.call("firewall", "ADD", config, container)
    assert outcome.status == 1, outcome
    after = dump(host)
    if backend == "iptables":
        # The chains stay, as after every DEL.
        kept = [line for line in after["iptables"] if line not in before["iptables"]]
        assert not any("10.1.1.2" in line or "br-net1" in line for line in kept)
        before["iptables"] = after["iptables"]
        before["nft"] = after["nft"]
    assert differences(before, after) == ""


@every_backend
def test_collecting(host: Host, backend: str) -> None:
    """[W-G1] GC removes what the network's dead attachments have left."""
    alive, dead, other = (host.container(name) for name in ("c1", "c2", "c3"))
    config = attach(host, alive, backend, ingressPolicy="isolated")
    attach(host, dead, backend, ingressPolicy="isolated")
    attach(host, other, backend, "net2")
    before = dump(host)
    listed = [{"containerID": one.id, "ifname": "eth0"} for one in (alive, dead)]
    for valid in (None, listed):
        outcome = host.call("firewall", "GC", config | {"cni.dev/valid-attachments": valid})
        assert (outcome.status, outcome.stdout) == (0, "")
        assert differences(before, dump(host)) == ""
    outcome = host.call("firewall", "GC", config | {"cni.dev/valid-attachments": listed[:1]})
    assert (outcome.status, outcome.stdout) == (0, "")
    if backend == "nftables":
        values = [one["elem"]["val"] for one in elements(host, "forward4")]
        assert values == ["10.1.1.2", "10.1.2.2"]
        assert elements(host, "isolation_bridges") == ["br-net1"]
    else:
        rules = "\n".join(host.iptables("filter"))
        assert "10.1.1.2" in rules
        assert "10.1.1.3" not in rules
        assert "-i br-net1 -o br-net1" in rules


def test_collecting_labelled_elements(host: Host) -> None:
    """GC finds elements whose record is lost."""
    container = host.container("c1")
    config = attach(host, container, "nftables")
    host.run("rm", "-r", "/run/cni-py/firewall")
    host.call("firewall", "GC", config | {"cni.dev/valid-attachments": []})
    assert elements(host, "forward4") == []


@every_backend
def test_status(host: Host, backend: str) -> None:
    assert host.call("firewall", "STATUS", firewall(backend)).status == 0
    error = refusal(host.call("firewall", "STATUS", firewall("firewalld")))
    assert (error["code"], error["msg"]) == (50, "firewalld does not answer on the system bus")
    error = refusal(host.call("firewall", "STATUS", firewall(backend, ingressPolicy="x")))
    assert error["code"] == 50


MOVE = """iptables -D FORWARD 2
iptables -I FORWARD 1 -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD"""
OPEN_UP = """nft flush map inet cni_py isolation_pairs
nft add element inet cni_py isolation_pairs '{ br-net1 . br-net1 : accept }'"""
CHANGES = {
    "iptables": [
        ("iptables -F CNI-FORWARD", "chain CNI-FORWARD differs"),
        ("iptables -D CNI-FORWARD -s 10.1.1.2/32 -j ACCEPT", "chain CNI-FORWARD differs"),
        ("ip6tables -D CNI-FORWARD -s fd00:1::2/128 -j ACCEPT", "chain CNI-FORWARD differs"),
        ("iptables -F FORWARD", "chain FORWARD differs"),
        ("iptables -D CNI-ISOLATION-STAGE-1 2", "chain CNI-ISOLATION-STAGE-1 differs"),
        ("iptables -F CNI-ISOLATION-STAGE-2", "chain CNI-ISOLATION-STAGE-2 differs"),
        (MOVE, "chain FORWARD differs"),
    ],
    "nftables": [
        ("nft delete element inet cni_py forward4 '{ 10.1.1.2 }'", "set forward4 differs"),
        ("nft delete element inet cni_py forward6 '{ fd00:1::2 }'", "set forward6 differs"),
        ("nft flush set inet cni_py isolation_bridges", "set isolation_bridges differs"),
        ("nft flush map inet cni_py isolation_pairs", "set isolation_pairs differs"),
        ("nft flush chain inet cni_py forward", "chain forward of table inet cni_py differs"),
        ("nft flush ruleset", "set isolation_bridges differs"),
        (OPEN_UP, "verdict of br-net1 in isolation_pairs differs"),
    ],
}


@pytest.mark.parametrize(
    ("backend", "change", "msg"),
    [(backend, *one) for backend, listed in CHANGES.items() for one in listed],
)
def test_check_names_the_difference(host: Host, backend: str, change: str, msg: str) -> None:
    """[W-FW2] CHECK changes nothing, and names what is missing."""
    container = host.container("c1")
    config = attach(host, container, backend, ingressPolicy="isolated")
    outcome = host.call("firewall", "CHECK", config, container)
    assert (outcome.status, outcome.stdout) == (0, ""), outcome
    host.run("sh", "-c", change)
    before = dump(host)
    assert refusal(host.call("firewall", "CHECK", config, container))["msg"] == msg
    assert differences(before, dump(host)) == ""


def test_check_of_configuration(host: Host) -> None:
    container = host.container("c1")
    config = attach(host, container, "nftables")
    error = refusal(
        host.call("firewall", "CHECK", config | {"ingressPolicy": "isolated"}, container)
    )
    assert error["msg"] == "ingressPolicy differs"
    prev = config["prevResult"] | {"ips": [{"address": "10.1.1.9/24", "interface": 2}]}
    error = refusal(host.call("firewall", "CHECK", config | {"prevResult": prev}, container))
    assert error["msg"] == "addresses differs"


@every_backend
def test_administrators_chain(host: Host, backend: str) -> None:
    """[6.3] An operator's rules come first, and nothing of ours ever removes them."""
    first, second = host.container("c1"), host.container("c2")
    attach(host, first, backend)
    if backend == "iptables":
        host.run("iptables", "-A", "CNI-ADMIN", "-d", "10.1.2.2", "-j", "DROP")
    else:
        host.run("nft", "add rule inet cni_py forward_admin ip daddr 10.1.2.2 drop")
    attach(host, second, backend, "net2")
    assert blocked(first, "10.1.2.2")
    assert passes(first, "fd00:2::2")
    host.delete("firewall", firewall(backend), first)
    host.delete("firewall", firewall(backend, "net2"), second)
    listed = host.iptables("filter") if backend == "iptables" else host.nft().splitlines()
    assert any("10.1.2.2" in line for line in listed)


def test_result_without_addresses(host: Host) -> None:
    """A chain of layer 2: nothing to accept, and no error."""
    container = host.container("c1")
    config = network()
    del config["ipam"]
    del config["isDefaultGateway"]
    result = host.add("bridge", config, container)
    for backend in BACKENDS:
        chained = firewall(backend) | {"prevResult": result}
        assert host.add("firewall", chained, container) == result
        host.delete("firewall", chained, container)


def test_hostile_names(host: Host) -> None:
    """Names go into labels and rules as text."""
    container = host.container("c1", "a.b_c-" + "d" * 120)
    config = attach(host, container, "nftables", ingressPolicy="isolated")
    host.delete("firewall", config, container)
    assert elements(host, "forward4") == []
