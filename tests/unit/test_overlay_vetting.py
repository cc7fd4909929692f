"""Which peers are believed."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from cni_py.cluster.backend import Announcement, Node, View
from cni_py.cluster.vetting import quoted, vetted

NETWORK, NETWORK6 = IPv4Network("10.244.0.0/16"), IPv6Network("fd00:244::/48")


def node(subnet: str, address: str = "192.0.2.9", backend: str = "vxlan") -> Node:
    return Node(Announcement(backend, IPv4Address(address)), IPv4Network(subnet))


OWN = node("10.244.0.0/24", "192.0.2.1")


def refusal(*peers: Node, network: IPv4Network | None = NETWORK) -> str:
    """Why the last one is refused; the others are not."""
    believed, refused = vetted(View(OWN, peers, network, NETWORK6), "vxlan")
    assert believed[: len(peers) - 1] == list(peers[:-1])
    assert set(refused) <= {peers[-1].name}
    return refused.get(peers[-1].name, "")


def test_peers_that_can_be_are_believed_in_their_order() -> None:
    peers = [node("10.244.2.0/24", "192.0.2.2"), node("10.244.1.0/24", "192.0.2.3")]
    assert vetted(View(OWN, peers, NETWORK), "vxlan") == (peers, {})


def test_one_node_can_have_two_leases_for_a_while() -> None:
    assert refusal(node("10.244.1.0/24"), node("10.244.2.0/24")) == ""


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (node("10.244.1.0/24", backend="host-gw"), "its backend is 'host-gw', this node's is"),
        (node("10.245.1.0/24"), "10.245.1.0/24 is no part of the cluster's network"),
        (node("10.0.0.0/8"), "10.0.0.0/8 is no part of the cluster's network"),
        (node("10.244.0.0/16"), "10.244.0.0/16 is no part of the cluster's network"),
        (node("10.244.0.128/25"), "10.244.0.128/25 overlaps this node's own"),
        (node("10.244.0.0/23"), "10.244.0.0/23 overlaps this node's own"),
        (node("10.244.1.0/24", "192.0.2.1"), "its address 192.0.2.1 is this node's own"),
        (node("10.244.1.0/24", "10.244.1.9"), "is inside the cluster's network"),
        (node("10.244.1.0/24", "10.244.0.1"), "is inside the cluster's network"),
        (node("10.244.1.0/24", "255.255.255.255"), "no host has the address"),
        (node("10.244.1.0/24", "0.0.0.0"), "no host has the address"),
        (node("10.244.1.0/24", "239.1.1.1"), "no host has the address"),
        (node("10.244.1.0/24", "127.0.0.1"), "no host has the address"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(peer: Node, why: str) -> None:
    assert why in refusal(peer)


def test_of_two_that_overlap_the_older_is_believed() -> None:
    older = node("10.244.4.0/23", "192.0.2.2")
    for subnet in ("10.244.4.0/23", "10.244.4.0/24", "10.244.5.128/25", "10.244.4.0/22"):
        assert "overlaps that of an older lease: 10.244.4.0/23" in refusal(older, node(subnet))
    for subnet in ("10.244.6.0/24", "10.244.3.0/24"):
        assert refusal(older, node(subnet)) == ""


def test_a_family_that_the_cluster_does_not_have() -> None:
    assert "the cluster has no IPv4 network" in refusal(node("10.244.1.0/24"), network=None)


def test_an_ipv6_address_that_needs_a_link() -> None:
    peer = Node(
        Announcement("vxlan", address6=IPv6Address("fe80::1")),
        subnet6=IPv6Network("fd00:244:0:1::/64"),
    )
    assert "no host has the address fe80::1" in refusal(peer)
    good = replace(peer, said=replace(peer.said, address6=IPv6Address("2001:db8::1")))
    assert refusal(good) == ""


def test_what_anybody_wrote_is_told_on_one_short_line() -> None:
    assert quoted("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert len(quoted("x" * 10_000)) == 40


def test_thousands_of_peers_are_looked_at_in_no_time() -> None:
    network = IPv4Network("10.0.0.0/8")
    peers = [
        node(f"10.{number >> 8}.{number & 255}.0/24", f"172.16.{number >> 8}.{number & 255}")
        for number in range(3_000)
    ]
    own = Node(OWN.said, IPv4Network("10.255.0.0/24"))
    start = time.process_time()
    believed, refused = vetted(View(own, peers, network), "vxlan")
    # 0.1 s; each with each would take half a minute.
    assert time.process_time() - start < 10
    assert (len(believed), refused) == (3_000, {})
