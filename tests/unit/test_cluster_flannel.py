"""flannel's keys and values: literally as its source and its own tests write them."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.cluster.flannel import (
    FlannelError,
    NodeLease,
    Subnets,
    Vxlan,
    WireGuard,
    parse_lease,
    parse_subnets,
)
from cni_py.cluster.flannel_network import parse_network
from cni_py.cluster.peers import Judge
from cni_py.cluster.store import Record

V4 = IPv4Network("10.1.5.0/24")
V6 = IPv6Network("fc00:0:0:5::/64")
MAC = "26:8a:1f:00:5c:01"

# Key below the prefix, value, and what they mean.
WRITTEN = [
    (
        "subnets/10.1.5.0-24",
        b'{"PublicIP":"1.2.3.4","PublicIPv6":null}',
        NodeLease(Subnets(V4), IPv4Address("1.2.3.4")),
    ),
    (
        "subnets/10.1.5.0-24",
        (
            b'{"PublicIP":"192.168.9.2","PublicIPv6":null,"BackendType":"vxlan",'
            b'"BackendData":{"VNI":1,"VtepMAC":"26:8a:1f:00:5c:01"}}'
        ),
        NodeLease(
            Subnets(V4),
            IPv4Address("192.168.9.2"),
            None,
            "vxlan",
            b'{"VNI":1,"VtepMAC":"26:8a:1f:00:5c:01"}',
        ),
    ),
    (
        "subnets/10.1.5.0-24",
        b'{"PublicIP":"192.168.9.2","PublicIPv6":null,"BackendType":"host-gw"}',
        NodeLease(Subnets(V4), IPv4Address("192.168.9.2"), None, "host-gw"),
    ),
    (
        "subnets/10.1.5.0-24&fc00:0:0:5::-64",
        (
            b'{"PublicIP":"192.168.9.2","PublicIPv6":"fd11::2","BackendType":"vxlan",'
            b'"BackendData":{"VNI":1,"VtepMAC":"26:8a:1f:00:5c:01"},'
            b'"BackendV6Data":{"VNI":1,"VtepMAC":"26:8a:1f:00:5c:02"}}'
        ),
        NodeLease(
            Subnets(V4, V6),
            IPv4Address("192.168.9.2"),
            IPv6Address("fd11::2"),
            "vxlan",
            b'{"VNI":1,"VtepMAC":"26:8a:1f:00:5c:01"}',
            b'{"VNI":1,"VtepMAC":"26:8a:1f:00:5c:02"}',
        ),
    ),
    (
        "subnets/0.0.0.0-0&fc00:0:0:5::-64",
        (
            b'{"PublicIP":"0.0.0.0","PublicIPv6":"fd11::2","BackendType":"wireguard",'
            b'"BackendV6Data":{"PublicKey":"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}}'
        ),
        NodeLease(
            Subnets(None, V6),
            None,
            IPv6Address("fd11::2"),
            "wireguard",
            b"",
            b'{"PublicKey":"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}',
        ),
    ),
]


@pytest.mark.parametrize(("key", "value", "lease"), WRITTEN)
def test_a_lease_is_read_and_written_as_flannel_writes_it(key, value, lease):
    assert parse_lease(key, value) == lease
    assert lease.subnets.key == key
    assert lease.encode() == value.replace(b"fc00:0:0:5::", b"fc00:0:0:5::")


def test_old_versions_write_less_and_go_reads_keys_of_any_case():
    value = b'{"publicip":"192.168.9.2","BackendType":"vxlan","BackendData":null}'
    lease = parse_lease("subnets/10.1.5.0-24", value)
    assert lease == NodeLease(Subnets(V4), IPv4Address("192.168.9.2"), None, "vxlan")


@pytest.mark.parametrize(
    "key",
    [
        "config",
        "subnets/",
        "subnets/10.1.5.0",
        "subnets/10.1.5.0-33",
        "subnets/10.1.5.1-24",
        "subnets/10.1.5.0-24/x",
        "subnets/10.1.5-24",
        "subnets/10.1.5.0-24&",
        "subnets/10.1.5.0-24&fc00::1-64",
        "subnets/10.1.5.0-24&fc00::-129",
        "subnets/x10.1.5.0-24",
        "subnets/10.1.5.0-24\n",
        "networks/10.1.5.0-24",
    ],
)
def test_no_key_of_a_subnet(key):
    with pytest.raises(FlannelError, match="is not the key of a subnet"):
        parse_subnets(key)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "subnets/10.1.5.0-24: Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"PublicIP":"300.1.1.1"}', "PublicIP: invalid IP address: 300.1.1.1"),
        (b'{"PublicIP":"fd11::2"}', "a public address is of the wrong family"),
        (b'{"PublicIP":"1.2.3.4","BackendType":7}', "BackendType: Expected `str`"),
        (b'{"PublicIP":' * 30 + b"1", "truncated"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "subnets/10.1.5.0-24: "),
    ],
)
def test_a_value_that_cannot_be(value, message):
    with pytest.raises(FlannelError) as caught:
        parse_lease("subnets/10.1.5.0-24", value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=64), st.text(max_size=40))
def test_whatever_the_bytes_are(value, key):
    for name in (key, f"subnets/{key}", "subnets/10.1.5.0-24"):
        with suppress(FlannelError):
            parse_lease(name, value)


@given(
    st.integers(1, 32), st.integers(0, 2**32 - 1), st.integers(0, 128), st.integers(0, 2**128 - 1)
)
def test_each_subnet_has_its_key(length, address, length_v6, address_v6):
    v4 = IPv4Network((address >> (32 - length) << (32 - length), length))
    v6 = IPv6Network((address_v6 >> (128 - length_v6) << (128 - length_v6), length_v6))
    for subnets in (Subnets(v4), Subnets(v4, v6), Subnets(None, v6)):
        assert parse_subnets(subnets.key) == subnets


def test_the_ends_of_tunnels():
    assert Vxlan.of(f'{{"VNI":1,"VtepMAC":"{MAC.upper()}"}}'.encode()) == Vxlan(mac=MAC)
    for mac in ("", "26:8a:1f:00:5c", "26-8a-1f-00-5c-01", f"{MAC}:00:00", rf"{MAC}\n"):
        with pytest.raises(FlannelError, match="no MAC address"):
            Vxlan.of(f'{{"VNI":1,"VtepMAC":"{mac}"}}'.encode())
    with pytest.raises(FlannelError, match="no WireGuard key"):
        WireGuard.of(b'{"PublicKey":"x"}')


@pytest.mark.parametrize(
    ("config", "first", "last", "count"),
    [
        # The documentation's own example.
        (
            ('{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0",'
            '"SubnetMax":"10.99.0.0","Backend":{"Type":"udp","Port":7890}}'),
            "10.10.0.0/20", "10.99.0.0/20", 1425,
        ),
        ('{"Network":"10.5.0.0/16"}', "10.5.1.0/24", "10.5.255.0/24", 255),
        ('{"network":"10.5.0.0/23"}', "10.5.0.128/25", "10.5.1.128/25", 3),
        ('{"Network":"10.5.0.0/28","SubnetMin":null}', "10.5.0.4/30", "10.5.0.12/30", 3),
        (
            '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}',
            "2001:cafe:42:1::/64", "2001:cafe:42:ff::/64", 255,
        ),
        (
            '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/7","IPv6SubnetLen":126}',
            "fc00::4/126", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", 2**119 - 1,
        ),
    ],
)  # fmt: skip
def test_the_subnets_of_a_network(config, first, last, count):
    network = parse_network(config.encode())
    pool = network.v4 if network.v4 is not None else network.v6
    assert pool is not None
    assert (str(pool.first), str(pool.last), pool.count) == (first, last, count)
    assert (pool.at(0), pool.at(count - 1)) == (pool.first, pool.last)
    assert pool.offers(pool.first)
    assert pool.offers(pool.last)


def test_a_network_of_both_families():
    network = parse_network(
        b'{"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56",'
        b'"Backend":{"type":"vxlan","VNI":7}}'
    )
    assert network.backend_type == "vxlan"
    assert network.backend == b'{"type":"vxlan","VNI":7}'
    both = Subnets(IPv4Network("10.42.3.0/24"), IPv6Network("2001:cafe:42:3::/64"))
    assert network.offers(both)
    assert not network.offers(Subnets(both.v4))
    assert not network.offers(Subnets(IPv4Network("10.42.0.0/24"), both.v6))
    assert not network.offers(Subnets(IPv4Network("10.42.4.0/23"), both.v6))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{}", "config: Network is missing"),
        ("", "config: Input data was truncated"),
        ('{"Network":"10.5.0.0"}', "Network: invalid CIDR address: 10.5.0.0"),
        ('{"Network":"fc00::/48"}', "config: Network: fc00::/48 is of the other family"),
        ('{"Network":"10.5.0.0/29"}', "SubnetLen is 31, at most 30"),
        ('{"Network":"10.5.0.0/16","SubnetLen":31}', "SubnetLen is 31, at most 30"),
        ('{"Network":"10.5.0.0/16","SubnetLen":17}', "has no four subnets"),
        ('{"Network":"10.5.0.0/16","SubnetLen":-1}', "has no four subnets"),
        ('{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}', "SubnetMin 10.6.0.0 is not in"),
        ('{"Network":"10.5.0.0/16","SubnetMax":"10.5.0.9"}', "is not where a subnet of /24"),
        (
            '{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}',
            "SubnetMax is below SubnetMin",
        ),
        ('{"Network":"10.5.0.0/16","SubnetMin":"fc00::"}', "SubnetMin fc00:: is not in"),
        ('{"Network":"10.5.0.0/16","Backend":{"VNI":1}}', "Backend has no Type"),
        ('{"Network":"10.5.0.0/16","Backend":"vxlan"}', "Backend: Expected `object`"),
        ('{"EnableIPv4":false}', "neither EnableIPv4 nor EnableIPv6"),
        ('{"Network":"10.5.0.0/16","EnableIPv6":true}', "IPv6Network is missing"),
    ],
)
def test_a_network_that_cannot_be(config, message):
    with pytest.raises(FlannelError) as caught:
        parse_network(config.encode())
    assert message in str(caught.value)


NETWORK = parse_network(
    b'{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48",'
    b'"Backend":{"Type":"vxlan"}}'
)


def _lease(number: int, *, mac: str = "", ip: str = "") -> NodeLease:
    subnets = Subnets(IPv4Network(f"10.5.{number}.0/24"), IPv6Network(f"fc00:0:0:{number:x}::/64"))
    mac = mac or f"26:8a:1f:00:5c:{number:02x}"
    address = IPv4Address(ip or f"192.168.9.{number}")
    return NodeLease(subnets, address, None, "vxlan", msgspec.json.encode(Vxlan(mac=mac)))


def _record(lease: NodeLease, created: int = 0) -> Record:
    key = f"/coreos.com/network/{lease.subnets.key}"
    return Record(key, lease.encode(), created or 10, created or 10, 1)


OWN = _lease(1)


def _judged(*records: Record):
    judge = Judge("/coreos.com/network", NETWORK, OWN)
    for record in (_record(OWN), *records):
        judge.put(record)
    return judge.peers()


def test_the_other_nodes_are_believed():
    found = _judged(_record(_lease(3), 8), _record(_lease(2), 9))
    assert found.leases == (_lease(3), _lease(2))
    assert found.refused == ()


def _with(**changes) -> NodeLease:
    values = {"subnets": _lease(2).subnets, "public_ip": IPv4Address("192.168.9.2"),
        "backend_type": "vxlan", "data": _lease(2).data, **changes}  # fmt: skip
    return NodeLease(**values)


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        (_with(subnets=Subnets(IPv4Network("10.6.2.0/24"))), "10.6.2.0/24 is no part of"),
        (_with(subnets=Subnets(IPv4Network("10.5.0.0/16"))), "10.5.0.0/16 is no part of"),
        (_with(subnets=Subnets(IPv4Network("0.0.0.0/0"))), "0.0.0.0/0 is no part of"),
        (_with(subnets=Subnets(None, IPv6Network("::/0"))), "::/0 is no part of"),
        (_with(subnets=Subnets(IPv4Network("10.5.0.0/22"))), "overlaps a subnet of this node"),
        (_with(subnets=Subnets(IPv4Network("10.5.1.128/25"))), "overlaps a subnet of this node"),
        (_with(subnets=Subnets(IPv4Network("10.5.3.0/25"))), "overlaps a subnet of subnets/10.5.3"),
        (_with(public_ip=None), "no public address"),
        (_with(public_ip=IPv4Address("192.168.9.1")), "192.168.9.1 is this node's"),
        (_with(public_ip=IPv4Address("10.5.7.7")), "10.5.7.7 is inside 10.5.0.0/16"),
        (_with(public_ip=IPv4Address("127.0.0.1")), "127.0.0.1 is no host's"),
        (_with(public_ip=IPv4Address("224.0.0.1")), "224.0.0.1 is no host's"),
        (_with(public_ip=IPv4Address("255.255.255.255")), "is no host's"),
        (_with(public_ipv6=IPv6Address("ff02::1")), "ff02::1 is no host's"),
        (_lease(2, mac="26:8a:1f:00:5c:01"), "VtepMAC 26:8a:1f:00:5c:01 is that of this node"),
        (_lease(2, mac="26:8a:1f:00:5c:03"), "is that of subnets/10.5.3.0-24&fc00:0:0:3::-64"),
        (_lease(2, mac="01:00:5e:00:00:01"), "is no interface's"),
        (_lease(2, mac="ff:ff:ff:ff:ff:ff"), "is no interface's"),
        (_lease(2, mac="00:00:00:00:00:00"), "is no interface's"),
        (_with(data=b"[]"), "BackendData: Expected `object`"),
        (_with(backend_type="host-gw"), "its backend is 'host-gw', not 'vxlan'"),
    ],
)
def test_what_a_node_may_not_say_is_left_out(lease, why):
    found = _judged(_record(_lease(3), 5), _record(lease))
    assert found.leases == (_lease(3),)
    assert [why in one.why for one in found.refused] == [True], found.refused


def test_what_is_no_lease_is_left_out():
    found = _judged(Record("/coreos.com/network/subnets/x", b"", 1, 1, 1), _record(_lease(2)))
    assert found.leases == (_lease(2),)
    assert [one.key for one in found.refused] == ["/coreos.com/network/subnets/x"]


def test_the_older_lease_keeps_what_a_newer_one_claims_too():
    newer = _with(subnets=Subnets(IPv4Network("10.5.3.0/24")), public_ip=IPv4Address("192.168.9.9"))
    found = _judged(_record(newer, 7), _record(_lease(3), 5))
    assert found.leases == (_lease(3),)


def test_a_node_that_has_moved_has_two_leases_for_a_while():
    moved = _lease(3, mac="26:8a:1f:00:5c:02", ip="192.168.9.2")
    assert _judged(_record(_lease(2)), _record(moved)).leases == (_lease(2), moved)
