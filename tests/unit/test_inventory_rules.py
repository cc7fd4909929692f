"""Rules of containers, read from listings as the tools print them, and from odd ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.inventory.iptables_rules import rules_in
from cni_py.inventory.nft_rules import Element, ports_in, reference_port

LISTING = r"""
-P PREROUTING ACCEPT
-N CNI-HOSTPORT-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -s 10.1.2.2/32 -m comment --comment "name: \"net1\" id: \"c1\"" -j CNI-abc
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net1\" id: \"c1\"" -m multiport --dports 8080 -j CNI-DN-x
-A CNI-DN-x -s 10.1.2.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-x -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.2.2:80
-A CNI-DN-y -d 192.0.2.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.1.2.3:53
-A CNI-FORWARD -d 10.1.2.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A OTHER -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.9.9:80
"""  # noqa: E501 - as it is printed


def test_iptables():
    found = rules_in(LISTING.splitlines(), 4)
    assert [(str(one), one.container_id, one.network) for one in found.ports] == [
        ("0.0.0.0:8080 -> 10.1.2.2:80/tcp", "c1", "net1"),
        ("192.0.2.1:53 -> 10.1.2.3:53/udp", "", ""),
    ]
    assert [(one.address, one.container_id) for one in found.masquerades] == [("10.1.2.2", "c1")]
    assert [one.address for one in found.allowed] == ["10.1.2.2"]


def test_iptables_of_ipv6():
    line = "-A CNI-DN-x -p tcp -m tcp --dport 1:2 -j DNAT --to-destination [fd00::2]:80"
    (one,) = rules_in([line], 6).ports
    assert str(one) == "[::]:1 -> [fd00::2]:80/tcp"


@given(st.lists(st.text(max_size=60) | st.sampled_from(LISTING.splitlines())))
def test_no_listing_of_iptables_is_too_odd(lines):
    rules_in([*lines, *(f"-A CNI-DN-x {one}" for one in lines)], 4)


UDP_PORT = {"protocol": "udp", "field": "dport"}
_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(_VALUES, _VALUES)
def test_no_element_of_nftables_is_too_odd(key, value):
    for one in (Element("port4", key, value, ""), Element("port4", {"concat": key}, value, "x")):
        list(ports_in([one]))


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        (
            [
                {
                    "match": {
                        "left": {"payload": {"protocol": "udp", "field": "dport"}},
                        "right": 53,
                    }
                },
                {"dnat": {"addr": "10.1.2.2", "port": 5353}},
            ],
            "0.0.0.0:53 -> 10.1.2.2:5353/udp",
        ),
        ([{"match": {"left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}], None),
        ([{"accept": None}, {"dnat": {"addr": "10.1.2.2"}}], None),
    ],
)
def test_rule_of_the_reference(expr, said):
    found = reference_port({"expr": json.loads(json.dumps(expr)), "comment": "c1"}, 4)
    assert (None if found is None else str(found)) == said
