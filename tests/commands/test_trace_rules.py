"""The evaluators beside the kernel: rules at random, one real datagram through each ruleset."""

from __future__ import annotations

import json
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

from cni_py.tracing import iptables_text
from cni_py.tracing.nft import Ruleset
from cni_py.tracing.packet import EPHEMERAL_PORT, Packet
from fixtures.configs import host_local, l3

if TYPE_CHECKING:
    from fixtures.host import Host

PORT = 999
PACKET = Packet(
    ip_address("10.1.2.2"), ip_address("10.9.0.2"), "udp", EPHEMERAL_PORT, PORT, "cni0", "cni9"
)
# Behind all other filters: counts what has passed them.
COUNTED = f"""
table ip counted {{
  chain pass {{ type filter hook forward priority 50; udp dport {PORT} counter; }}
}}
"""
CONDITIONS = (
    "ip saddr 10.1.2.0/24",
    "ip saddr != 10.1.2.2",
    "ip daddr { 10.9.0.0/25, 10.8.0.1 }",
    "ip daddr 10.9.0.3-10.9.0.9",
    "udp dport 990-1000",
    "udp dport { 1, 999 }",
    "udp dport != 999",
    "udp sport >= 1024",
    "tcp dport 999",
    "th dport 999",
    "meta l4proto { tcp, udp }",
    "ip protocol tcp",
    "meta nfproto ipv6",
    "ip6 saddr ::/0",
    'iifname "cni0"',
    'iifname "cni*"',
    'oifname != "cni9"',
    'iif "cni0"',
    'iifname . oifname { "cni0" . "cni9" }',
    "ct state new",
    "ct state established,related",
    "ct state != new",
    "ct status dnat",
    "meta mark 0x0",
    "meta mark & 0x1 == 0x1",
    "ip saddr . udp dport @pairs",
    "ip daddr != @several",
    "fib daddr type local",
    "fib saddr type unicast",
)
ENDS = (
    "accept",
    "drop",
    "return",
    "continue",
    "jump a",
    "goto a",
    "counter",
    "meta mark set meta mark | 0x1",
    "ip saddr vmap { 10.1.2.2 : drop, 10.1.2.3 : accept }",
    "udp dport vmap { 1-998 : drop, 999 : jump a }",
    "ip daddr . meta l4proto vmap { 10.9.0.2 . udp : return }",
)


def rulesets(host: Host) -> None:
    for number, network in enumerate(("10.1.2.0/24", "10.9.0.0/24")):
        config = l3(
            name=f"net{number}",
            bridge=f"cni{9 * number}",
            isDefaultGateway=True,
            ipam=host_local([{"subnet": network}]),
        )
        host.add("bridge", config, host.container(f"c{number}"))
    host.run("nft", "-f", "-", stdin=COUNTED)


def passes(host: Host) -> bool:
    """Send one datagram, and see whether it has passed every filter."""
    send = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.connect(('10.9.0.2', {PORT})); s.send(b'x')"
    )
    host.run("nsenter", "--net=/run/netns/c0", "--", "python3", "-ISc", send)
    listed = json.loads(host.run("nft", "-j", "list", "table", "ip", "counted").stdout)
    (rule,) = [one["rule"] for one in listed["nftables"] if "rule" in one]
    host.run("nft", "-f", "-", stdin=f"delete table ip counted\n{COUNTED}")
    packets: int = rule["expr"][1]["counter"]["packets"]
    return packets > 0


def nft_rules(random: Random) -> str:
    def rule(ends: tuple[str, ...]) -> str:
        return " ".join((*random.sample(CONDITIONS, random.randint(0, 2)), random.choice(ends)))

    inner = tuple(one for one in ENDS if " a" not in one)
    policy = random.choice(("accept", "drop"))
    return f"""
table inet chance {{
  set pairs {{ type ipv4_addr . inet_service; elements = {{ 10.1.2.2 . 999 }}; }}
  set several {{ type ipv4_addr; flags interval; elements = {{ 10.9.0.0/28 }}; }}
  chain a {{ {"; ".join(rule(inner) for _ in range(2))}; }}
  chain pass {{ type filter hook forward priority 5; policy {policy};
    {"; ".join(rule(ENDS) for _ in range(4))};
  }}
}}
"""


def test_nftables(host: Host) -> None:
    """Both outcomes are among them, and each is as the evaluator foretells."""
    rulesets(host)
    random = Random(99)
    outcomes = set()
    tried = 0
    while tried < 40:
        text = nft_rules(random)
        if host.run("nft", "-f", "-", stdin=text, check=False).status != 0:
            # Conditions that exclude one another, which nft refuses.
            continue
        tried += 1
        listed = json.loads(host.run("nft", "-j", "list", "table", "inet", "chance").stdout)
        ruleset = Ruleset(listed["nftables"], lambda _: "unicast", {})
        (chain,) = ruleset.base
        foretold = ruleset.evaluate(chain, PACKET)
        assert [one for one in foretold.events if one.effect == "uncertain"] == [], text
        assert passes(host) == foretold.passes, text
        outcomes.add(foretold.passes)
        host.run("nft", "delete", "table", "inet", "chance")
    assert outcomes == {True, False}


LEGACY = (
    "-s 10.1.2.0/24",
    "! -s 10.1.2.2/32",
    "-d 10.9.0.0/25",
    "-i cni0",
    "! -i cni+",
    "-o cni9",
    "-o eth+",
    "-p udp",
    "! -p udp",
    "-p udp -m udp --dport 990:1000",
    "-p udp -m udp ! --dport 999",
    "-p udp -m multiport --dports 1,990:1000",
    "-p tcp -m tcp --dport 999",
    "-m conntrack --ctstate NEW",
    "-m conntrack ! --ctstate RELATED,ESTABLISHED",
    "-m conntrack --ctstate DNAT",
    "-m mark --mark 0x1/0x1",
    "-m mark ! --mark 0x1/0x1",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype --src-type UNICAST",
    '-m comment --comment "a -j DROP in words"',
)
TARGETS = ("-j ACCEPT", "-j DROP", "-j RETURN", "-j A", "-g A", "", "-j MARK --set-xmark 0x1/0x1")


def test_iptables(host: Host) -> None:
    """The same of rules that iptables lists; a mark is set in the table mangle alone."""
    rulesets(host)
    random = Random(1129)
    outcomes = set()
    for _ in range(30):

        def rule(chain: str, targets: tuple[str, ...]) -> str:
            conditions = random.sample(LEGACY, 1)
            return f"-A {chain} {' '.join(conditions)} {random.choice(targets)}"

        inner = tuple(one for one in TARGETS if " A" not in one.replace(" ACCEPT", ""))
        lines = [f":FORWARD {random.choice(('ACCEPT', 'DROP'))}", ":A -"]
        lines += [rule("A", inner) for _ in range(2)] + [rule("FORWARD", TARGETS) for _ in range(4)]
        text = "\n".join(("*mangle", *lines, "COMMIT", ""))
        host.run("iptables-restore", stdin=text)
        listed = host.iptables("mangle")
        table = iptables_text.parse(4, "mangle", listed)
        (chain,) = [one for one in iptables_text.base_chains(table) if one.hook == "forward"]
        foretold = iptables_text.evaluate(table, chain, PACKET, lambda _: "unicast")
        assert [one for one in foretold.events if one.effect == "uncertain"] == [], text
        assert passes(host) == foretold.passes, text
        outcomes.add(foretold.passes)
    assert outcomes == {True, False}
