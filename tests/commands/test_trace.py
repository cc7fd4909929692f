"""`cni-py trace`: what it foretells, beside what real packets do."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.calls import Outcome
from fixtures.configs import V4, V6, host_local, l3, routed
from fixtures.firewalls import attach, drop_by_default, listening
from fixtures.host import Container, Host
from fixtures.ports import UPLINK, bridged, mapping, outside, publish
from fixtures.server import CNI_PY

NET = l3(isDefaultGateway=True, ipam=host_local(V4, V6))
LIVE = "--live"


def run(host: Host, *arguments: str, status: int | None = None) -> Outcome:
    outcome = host.run(CNI_PY, "trace", *arguments, check=False)
    assert "Traceback" not in outcome.stderr, outcome
    if status is not None:
        assert outcome.status == status, outcome
    return outcome


def trace(host: Host, *arguments: str) -> dict[str, Any]:
    """The trace, and with --live the agreement of both is asserted."""
    outcome = run(host, *arguments, "--json")
    assert outcome.stdout, outcome
    whole = outcome.json
    traced: dict[str, Any] = whole["trace"]
    assert outcome.status == (0 if traced["verdict"]["ending"] in ("arrives", "leaves") else 1)
    if LIVE in arguments:
        assert whole["live"]["agrees"] is not False, outcome.stdout
    return traced | {"live": whole.get("live")}


def ending(host: Host, *arguments: str) -> str:
    traced = trace(host, *arguments)
    assert traced["doubts"] == [], traced
    said: str = traced["verdict"]["ending"]
    return said


def two(host: Host, config: dict[str, Any] | None = None) -> tuple[Container, Container]:
    first, second = host.container("c1"), host.container("c2")
    for one in (first, second):
        host.add((config or NET)["type"], config or NET, one)
    return first, second


def settled(container: Container) -> None:
    """IPv6 works at once: no address is tentative any more."""
    wait = "until ! ip -6 addr show tentative | grep -q inet6; do :; done"
    container.run("timeout", "10", "sh", "-c", wait)


@pytest.mark.parametrize("six", [[], ["-6"]])
def test_between_containers_of_a_bridge(host: Host, six: list[str]) -> None:
    first, second = two(host)
    for one in (first, second):
        settled(one)
    listening(second)
    address = "[fd00:1::3]" if six else "10.1.2.3"
    assert ending(host, "id-c1", f"{address}:80", LIVE) == "arrives"
    assert ending(host, "id-c1", "id-c2:80", *six, LIVE) == "arrives"
    assert ending(host, "id-c1", f"{address}:81", LIVE) == "refused"
    assert ending(host, "id-c1", "id-c2", *six, LIVE) == "arrives"


@pytest.mark.parametrize("six", [[], ["-6"]])
def test_to_the_host_and_from_it(host: Host, six: list[str]) -> None:
    first, _ = two(host)
    settled(first)
    listening(first)
    assert ending(host, "host", "id-c1:80", *six, LIVE) == "arrives"
    traced = trace(host, "id-c1", "host", *six, LIVE)
    assert traced["packet"].endswith("fd00:1::1" if six else "10.1.2.1")
    assert traced["verdict"]["ending"] == "arrives"


def test_no_listener_names_the_socket(host: Host) -> None:
    two(host)
    verdict = trace(host, "id-c1", "id-c2:80", LIVE)["verdict"]
    assert verdict["text"] == "nobody listens on tcp 10.1.2.3:80 in id-c2"
    udp = trace(host, "id-c1", "id-c2:53", "--proto", "udp", LIVE)
    assert (udp["verdict"]["ending"], udp["live"]["answer"]) == ("refused", "refused")


def two_nets(host: Host) -> tuple[Container, Container]:
    """Containers of two bridges, which the host routes between."""
    first, third = host.container("c1"), host.container("c3")
    host.add("bridge", NET, first)
    ranges = host_local([{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}])
    other = l3(name="net9", bridge="cni9", isDefaultGateway=True, ipam=ranges)
    host.add("bridge", other, third)
    return first, third


FOREIGN = """
add table inet other
add chain inet other pass { type filter hook forward priority 7; policy accept; }
add set inet other ports { type inet_service; flags interval; elements = { 22, 80-90 }; }
add set inet other pairs { type ipv4_addr . ipv4_addr; elements = { 10.1.2.2 . 10.9.0.2 }; }
add chain inet other judged
add rule inet other pass tcp dport @ports counter drop
add rule inet other pass udp dport vmap { 53 : drop, 123 : accept }
add rule inet other pass ip saddr . ip daddr @pairs meta l4proto { icmp } jump judged
add rule inet other judged ct state established,related accept
add rule inet other judged ct state new log prefix "x" reject
"""


def test_a_foreign_table_that_drops(host: Host) -> None:
    """The verdict names the rule; the remedy lets the packet through."""
    _, third = two_nets(host)
    assert ending(host, "id-c1", "id-c3", LIVE) == "arrives"
    host.run("nft", "-f", "-", stdin=FOREIGN)
    listening(third, 80)
    listening(third, 91)
    verdict = trace(host, "id-c1", "id-c3:80", LIVE)["verdict"]
    assert verdict["ending"] == "dropped"
    assert verdict["rule"] == "tcp dport @ports counter drop"
    assert verdict["where"].startswith("inet other pass handle ")
    assert ending(host, "id-c1", "id-c3:91", LIVE) == "arrives"
    assert ending(host, "id-c1", "id-c3:53", "--proto", "udp", LIVE) == "dropped"
    rejected = trace(host, "id-c1", "id-c3", LIVE)["verdict"]
    assert (rejected["ending"], rejected["rule"]) == ("rejected", "ct state new log reject")
    host.run("sh", "-c", verdict["remedy"])
    assert ending(host, "id-c1", "id-c3:80", LIVE) == "arrives"
    host.run("nft", "delete", "table", "inet", "other")


def test_a_policy_that_drops_answers_alone(host: Host) -> None:
    """A table that accepts one direction and forgets the answers."""
    two_nets(host)
    hook = "{ type filter hook forward priority 1; policy drop; }"
    host.run("nft", f"add table ip half; add chain ip half pass {hook}")
    host.run("nft", "add rule ip half pass ip saddr 10.1.2.0/24 accept")
    verdict = trace(host, "id-c1", "id-c3", LIVE)["verdict"]
    assert verdict["ending"] == "dropped"
    assert verdict["text"] == "host: ip half pass drops the answer"
    host.run("nft", "add rule ip half pass ct state established accept")
    assert ending(host, "id-c1", "id-c3", LIVE) == "arrives"


@pytest.mark.parametrize("six", [[], ["-6"]])
def test_iptables_that_drops_by_default(host: Host, six: list[str]) -> None:
    """Docker's and ufw's FORWARD; the firewall plugin with iptables is let through."""
    first, third = two_nets(host)
    settled(first)
    settled(third)
    drop_by_default(host)
    verdict = trace(host, "id-c1", "id-c3", *six, LIVE)["verdict"]
    program = "ip6tables" if six else "iptables"
    assert verdict["where"] == f"{program} filter FORWARD"
    assert verdict["rule"] == "-P FORWARD DROP"
    rule = f"-A FORWARD -i cni0 -o cni9 -p {'ipv6-icmp' if six else 'icmp'} -m comment --comment"
    host.run(program, *rule.split(), "two words", "-j", "ACCEPT")
    assert trace(host, "id-c1", "id-c3", *six, LIVE)["verdict"]["ending"] == "dropped"
    answers = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    host.run(program, *answers.split())
    assert ending(host, "id-c1", "id-c3", *six, LIVE) == "arrives"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_isolated_bridges(host: Host, backend: str) -> None:
    """ingressPolicy same-bridge: another bridge's containers are not let in."""
    for number, name in ((1, "net1"), (2, "net2")):
        container = host.container(f"c{number}")
        attach(host, container, backend, name, ingressPolicy="same-bridge")
        settled(container)
    verdict = trace(host, "id-c1", "id-c2", LIVE)["verdict"]
    assert verdict["ending"] == "dropped"
    assert ("cni_py" if backend == "nftables" else "CNI-ISOLATION") in verdict["where"]
    assert trace(host, "id-c1", "id-c2", "-6", LIVE)["verdict"]["ending"] == "dropped"
    third = host.container("c3")
    attach(host, third, backend, "net1", ingressPolicy="same-bridge")
    assert ending(host, "id-c1", "id-c3", LIVE) == "arrives"


def test_an_isolated_bridge_keeps_its_ports_apart(host: Host) -> None:
    for number in (1, 2):
        attach(host, host.container(f"c{number}"), "nftables", "net1", ingressPolicy="isolated")
    verdict = trace(host, "id-c1", "id-c2", LIVE)["verdict"]
    assert verdict["ending"] == "dropped"
    # Where br_netfilter is loaded, the rules of IP are asked first.
    assert "cni_py forward" in verdict["where"]


def test_isolated_ports(host: Host) -> None:
    two(host, NET | {"portIsolation": True})
    verdict = trace(host, "id-c1", "id-c2", LIVE)["verdict"]
    assert verdict["ending"] == "stuck"
    assert "are isolated from one another on cni0" in verdict["text"]


def test_no_route(host: Host) -> None:
    """A container without a default route reaches its own network alone."""
    container = host.container("c1")
    host.add("bridge", l3(), container)
    verdict = trace(host, "id-c1", "192.0.2.9", LIVE)["verdict"]
    assert verdict["ending"] == "stuck"
    assert verdict["text"] == "there is no route to 192.0.2.9: Network is unreachable"
    assert "isDefaultGateway" in verdict["remedy"]


def test_an_address_that_nobody_has(host: Host) -> None:
    two(host)
    verdict = trace(host, "id-c1", "10.1.2.77", LIVE)["verdict"]
    assert verdict["text"].startswith("nobody on cni0 has the address 10.1.2.77")


def test_forwarding_is_off(host: Host) -> None:
    two_nets(host)
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    verdict = trace(host, "id-c1", "id-c3", LIVE)["verdict"]
    assert verdict["text"] == "IPv4 is not forwarded from cni0"
    host.run("sh", "-c", verdict["remedy"])
    assert ending(host, "id-c1", "id-c3", LIVE) == "arrives"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_published_ports(host: Host, backend: str) -> None:
    """From outside, from the host by each of its addresses, and hairpin from the container."""
    machine = outside(host)
    first, second = host.container("c1"), host.container("c2")
    network = bridged()
    host.add("bridge", network, second)
    publish(host, first, mapping(), network=network, backend=backend)
    settled(first)
    listening(first)
    for address in ("192.0.2.1", "[2001:db8:ff::1]"):
        source = UPLINK[4 if "." in address else 6][1]
        traced = trace(host, source, f"{address}:8080")
        assert (traced["verdict"]["ending"], traced["doubts"]) == ("arrives", []), traced
        assert traced["verdict"]["text"] == "arrives in id-c1"
        plain = address.strip("[]")
        said = machine.run("busybox", "nc", "-w", "3", plain, "8080", stdin="").stdout
        assert "hello" in said
    for source in ("host", "id-c1", "id-c2"):
        assert ending(host, source, "192.0.2.1:8080", LIVE) == "arrives"
    assert ending(host, "host", "127.0.0.1:8080", LIVE) == "arrives"
    assert ending(host, "host", "127.0.0.1:8081", LIVE) == "refused"
    assert ending(host, UPLINK[4][1], "192.0.2.1:8081") == "refused"


def test_masqueraded_out(host: Host) -> None:
    """Without ipMasq the source stays, which is noted; with it the machine answers."""
    machine = outside(host)
    listening(machine)
    first = host.container("c1")
    host.add("bridge", NET, first)
    plain = trace(host, "id-c1", "192.0.2.2:80", LIVE)
    assert plain["verdict"]["ending"] == "leaves"
    assert any("keeps its source 10.1.2.2" in one["text"] for one in plain["steps"])
    assert plain["live"]["answer"] == "silence"
    second = host.container("c2")
    host.add("bridge", NET | {"name": "net2", "ipMasq": True}, second)
    masked = trace(host, "id-c2", "192.0.2.2:80", LIVE)
    assert any(one["rule"] == "masquerade" for one in masked["steps"])
    assert not any("keeps its source" in one["text"] for one in masked["steps"])
    assert masked["live"]["answer"] == "answered"


def test_a_container_on_a_point_to_point_link(host: Host) -> None:
    _, second = two(host, routed(ipam=host_local(V4)))
    listening(second)
    assert ending(host, "id-c1", "id-c2:80", LIVE) == "arrives"
    assert ending(host, "host", "id-c2:80", LIVE) == "arrives"


def test_a_bridge_that_checks_addresses(host: Host) -> None:
    """[macspoofchk] The sender's hardware address is known."""
    two(host, NET | {"macspoofchk": True})
    assert ending(host, "id-c1", "id-c2", LIVE) == "arrives"
    assert ending(host, "id-c1", "10.1.2.1", LIVE) == "arrives"


def test_children_of_a_parent(host: Host) -> None:
    """macvlan: containers reach one another, and never the host's own address on the parent."""
    host.run("ip", "link", "add", "parent", "type", "veth", "peer", "other")
    for name in ("parent", "other"):
        host.run("ip", "link", "set", name, "up")
    host.run("ip", "addr", "add", "10.1.2.200/24", "dev", "parent")
    children = l3(type="macvlan", master="parent", ipam=host_local(V4))
    two(host, children)
    assert ending(host, "id-c1", "id-c2", LIVE) == "arrives"
    verdict = trace(host, "id-c1", "10.1.2.200", LIVE)["verdict"]
    assert verdict["ending"] == "stuck"
    assert "macvlan keeps containers from the host's own address" in verdict["text"]


def test_a_link_that_is_down(host: Host) -> None:
    two(host)
    (port,) = [one["ifname"] for one in host.ports() if "id: id-c2" in one["ifalias"]]
    host.run("ip", "link", "set", port, "down")
    verdict = trace(host, "id-c1", "id-c2", LIVE)["verdict"]
    assert (verdict["text"], verdict["remedy"]) == (f"{port} is down", f"ip link set {port} up")


@pytest.mark.vm
def test_another_vlan(host: Host) -> None:
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", l3(vlan=10), first)
    host.add("bridge", l3(vlan=20), second)
    verdict = trace(host, "id-c1", "id-c2", LIVE)["verdict"]
    assert verdict["ending"] == "stuck"
    assert "is in VLAN 10" in verdict["text"]


def test_what_is_not_understood_is_said(host: Host) -> None:
    """A rule that cannot be evaluated makes the result uncertain, unless it is of others."""
    two_nets(host)
    hook = "{ type filter hook forward priority 7; policy accept; }"
    host.run("nft", f"add table ip odd; add chain ip odd pass {hook}")
    host.run("nft", "add rule ip odd pass ip daddr 192.0.2.1 ip ttl 1 drop")
    assert ending(host, "id-c1", "id-c3") == "arrives"
    host.run("nft", "add rule ip odd pass ip saddr 10.1.2.0/24 ip ttl 1 drop")
    traced = trace(host, "id-c1", "id-c3")
    assert traced["verdict"]["ending"] == "uncertain"
    assert "rule not understood: ip ttl; result uncertain" in traced["doubts"][0]
    assert traced["doubts"][0].startswith("ip odd pass handle ")
    host.run("sh", "-c", "iptables -A FORWARD -m ttl --ttl-eq 1 -j DROP")
    doubts = "\n".join(trace(host, "id-c1", "id-c3")["doubts"])
    assert "iptables filter FORWARD: rule not understood: -m ttl" in doubts


def test_live_leaves_nothing_behind(host: Host) -> None:
    """Also when it is killed: the kernel takes the table away with the process."""
    two(host)
    before = host.nft()
    trace(host, "id-c1", "id-c2", LIVE)
    assert host.nft() == before
    script = (
        f"{CNI_PY} trace id-c1 10.1.2.77 --live >/dev/null 2>&1 & "
        "until nft list tables | grep -q cni_py_trace; do :; done; kill -{} $!; wait $!; "
        "while nft list tables | grep -q cni_py_trace; do :; done"
    )
    for signal in ("KILL", "INT", "TERM"):
        # An interrupt is ignored by what a shell starts in the background.
        host.run("timeout", "20", "bash", "-mc", script.replace("{}", signal), check=False)
        assert host.nft() == before


def test_text(host: Host) -> None:
    """Steps by place, the verdict, the rule and a remedy, in lines."""
    two_nets(host)
    drop_by_default(host)
    outcome = run(host, "id-c1", "id-c3", status=1)
    assert "iptables filter FORWARD" in outcome.stdout
    lines = outcome.stdout.splitlines()
    assert lines[0] == "id-c1 -> id-c3: icmp -> 10.9.0.2"
    assert "dropped: host: iptables filter FORWARD drops the packet" in lines
    assert "  rule    -P FORWARD DROP" in lines
    assert lines[-1].startswith("  remedy  iptables -t filter -I FORWARD ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("id-", "host"), "2 containers begin with 'id-'"),
        (("nobody", "host"), "'nobody' is no address and no container"),
        (("id-c1", "id-c2:0"), "'0' is no port"),
        (("id-c1", "id-c2", "--proto", "udp"), "udp goes to a port"),
        (("id-c1", "fd00:9::1"), "no packet goes from one to the other"),
        (("192.0.2.9", "id-c2", "--live"), "--live sends from this host"),
    ],
)
def test_what_cannot_be_traced(host: Host, arguments: tuple[str, ...], said: str) -> None:
    two(host, l3(isDefaultGateway=True))
    outcome = run(host, *arguments, status=2)
    assert said in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_without_root(host: Host) -> None:
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    outcome = host.run(*nobody, CNI_PY, "trace", "host", "host", check=False)
    assert outcome.status == 1
    assert "needs root" in outcome.stderr
