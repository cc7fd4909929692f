"""DHCP's options, and the lease and the result that they make (RFC 2132, 3397, 3442)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.dhcp import options
from cni_py.dhcp.lease import lease_of, result_of
from cni_py.ipam.dhcp import client_id
from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError

MAC = bytes.fromhex("0200000000fe")


def lease(**given: str):
    """A lease with these options, in hexadecimal, by their numbers as `o121`."""
    values = {int(code[1:]): bytes.fromhex(value) for code, value in given.items()}
    return lease_of(IPv4Address("10.9.0.50"), values, MAC, 100.0)


def routes(**given: str) -> list[tuple[str, str, int | None]]:
    found = options.routes({int(code[1:]): bytes.fromhex(one) for code, one in given.items()})
    return [(str(one.dst), str(one.gw), one.scope) for one in found]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dhcp-client-identifier", 61),
        ("subnet-mask", 1),
        ("routers", 3),
        ("host-name", 12),
        ("user-class", 77),
        ("vendor-class-identifier", 60),
        ("classless-static-routes", 121),
        ("1", 1),
        ("254", 254),
    ],
)
def test_names(name: str, code: int) -> None:
    """[5.3.4]"""
    assert options.code_of(name, "key") == code


@pytest.mark.parametrize("name", ["", "0", "255", "256", "-1", "1.0", "x", "\u0661", "1 "])
def test_no_names(name: str) -> None:
    with pytest.raises(CniError) as caught:
        options.code_of(name, "ipam.request[0].option")
    assert caught.value.msg == f'Can not parse option "{name}"'
    assert caught.value.details.startswith("ipam.request[0].option is 1 to 254")


def test_classless_routes() -> None:
    """[RFC 3442] 3 and 33 count for nothing then; 0.0.0.0 is on the link."""
    given = {"o3": "0a090001", "o33": "0a0000000a090001"}
    value = "00" + "0a090001" + "080a" + "0a090002" + "19c0000280" + "00000000"
    assert routes(o121=value, **given) == [
        ("0.0.0.0/0", "10.9.0.1", None),
        ("10.0.0.0/8", "10.9.0.2", None),
        ("192.0.2.128/25", "0.0.0.0", 253),
    ]


@pytest.mark.parametrize("value", ["21" + "00" * 9, "18c0a8", "00", "080a0a0900"])
def test_classless_routes_that_are_none(value: str) -> None:
    assert routes(o121=value) == []


def test_host_bits_are_left_out() -> None:
    assert routes(o121="08" + "0a" + "0a090001" + "09" + "0aff" + "0a090001") == [
        ("10.0.0.0/8", "10.9.0.1", None),
        ("10.128.0.0/9", "10.9.0.1", None),
    ]


def test_static_routes() -> None:
    """[5.3.3] By class, then the default route; half a pair is left out."""
    value = "0a010000" + "0a090002" + "ac100000" + "0a090003" + "c0a80101" + "0a090004" + "01020304"
    assert routes(o33=value, o3="0a0900010a090009") == [
        ("10.0.0.0/8", "10.9.0.2", None),
        ("172.16.0.0/16", "10.9.0.3", None),
        ("192.168.1.0/24", "10.9.0.4", None),
        ("0.0.0.0/0", "10.9.0.1", None),
    ]


networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: IPv4Network((pair[0], pair[1]), strict=False)
)
gateways = st.integers(0, 2**32 - 1).map(IPv4Address)


@given(st.lists(st.tuples(networks, gateways), max_size=8))
def test_classless_round_trip(pairs: list[tuple[IPv4Network, IPv4Address]]) -> None:
    data = b"".join(
        bytes((net.prefixlen,))
        + net.network_address.packed[: (net.prefixlen + 7) // 8]
        + gateway.packed
        for net, gateway in pairs
    )
    found = options.routes({121: data})
    assert [(one.dst.network, one.gw) for one in found] == pairs


@given(st.dictionaries(st.sampled_from([1, 3, 6, 15, 26, 33, 51, 54, 58, 59, 119, 121]),
                       st.binary(max_size=64)))  # fmt: skip
def test_any_options(given_options: dict[int, bytes]) -> None:
    """A lease and its result, or a CniError for the subnet mask."""
    made = lease_of(IPv4Address("10.9.0.50"), given_options, MAC, 0.0)
    assert 0 < made.renew <= made.rebind <= made.expire
    if options.prefix_length(given_options) is None:
        with pytest.raises(CniError, match="Subnet Mask not found"):
            result_of(made, 7)
        return
    result = result_of(made, 7)
    assert all(one.priority == 7 for one in result.routes)
    for name in (result.dns.domain, *result.dns.search):
        assert all(one.isalnum() or one in "_.-" for one in name)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("0165076578616d706c65036f726700", ("e.example.org",)),
        ("076578616d706c65036f726700" + "0161c000", ("example.org", "a.example.org")),
        ("c000", ()),
        ("c0", ()),
        ("0561", ()),
        ("4061", ()),
        ("00", ()),
        ("016100" + "016", ("a",)[:1]),
    ],
)
def test_search_list(data: str, names: tuple[str, ...]) -> None:
    """[RFC 3397, RFC 1035 4.1.4] Names with pointers; a pointer to itself ends nothing."""
    given = {119: bytes.fromhex(data if len(data) % 2 == 0 else data + "0")}
    assert options.search_list(given)[: len(names) or None] == names


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, (1800, 3150, 3600)),
        ({"o51": "00000064"}, (50, 87.5, 100)),
        ({"o51": "00000064", "o58": "0000000a", "o59": "00000014"}, (10, 20, 100)),
        ({"o51": "00000064", "o58": "0000003c", "o59": "0000001e"}, (50, 87.5, 100)),
        ({"o51": "00000064", "o59": "000000ff"}, (50, 87.5, 100)),
        ({"o51": "00000000"}, (1800, 3150, 3600)),
        ({"o51": "ffffffff"}, (2147483647.5, 3758096383.125, 4294967295)),
        ({"o51": "64"}, (1800, 3150, 3600)),
    ],
)
def test_times(times: dict[str, str], expected: tuple[float, ...]) -> None:
    """[RFC 2131, 4.4.5] T1 and T2; those that contradict the lease are the defaults."""
    made = lease(**times)
    assert (made.renew, made.rebind, made.expire) == expected
    assert not made.is_over(100.0 + expected[2] - 0.5)
    assert made.is_over(100.0 + expected[2])


@pytest.mark.parametrize(("value", "mtu"), [("05dc", 1500), ("0043", 0), ("0044", 68), ("dc", 0)])
def test_mtu(value: str, mtu: int) -> None:
    assert lease(o26=value).mtu == mtu


@pytest.mark.parametrize("mask", ["", "ff00ff00", "ffffff", "00000001"])
def test_no_mask(mask: str) -> None:
    """00000001 is a wildcard mask to ipaddress, and none here."""
    given = {"o1": mask} if mask else {}
    with pytest.raises(CniError, match="Subnet Mask"):
        result_of(lease(**given), 0)


def test_host_mask() -> None:
    (one,) = result_of(lease(o1="ffffffff"), 0).ips
    assert str(one.address) == "10.9.0.50/32"


def test_client_id() -> None:
    """[5.3.3] `<container id>/<network>/<ifname>`."""
    attachment = Attachment("net1", "cid1", "eth0")
    assert client_id(attachment) == b"\0cid1/net1/eth0"


def test_long_client_ids_differ() -> None:
    """[W-DH9]"""
    first, second = (client_id(Attachment("n", "c" * 300, name)) for name in ("eth0", "eth1"))
    assert first != second
    assert len(first) == len(second) == 255
