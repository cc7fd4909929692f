"""The newest form of a result and its reading: spec.md 8.2 and 8.4."""

from ipaddress import IPv4Interface

import pytest

from cni_py.spec.conversion import from_wire
from cni_py.spec.results import DNS, Interface, IPConfig, Result, Route

HOST, ETH0 = Interface("eth0"), Interface("eth0", mtu=1450, sandbox="/run/netns/c1")


def read(version="1.1.0", **members):
    return from_wire({"cniVersion": version, **members}, version)


def refusal(version="1.1.0", **members):
    with pytest.raises(ValueError, match=r".") as caught:
        read(version, **members)
    return str(caught.value)


def test_empty():
    """[PR-06] [P-02] Nothing is required of a result."""
    assert read() == Result()
    assert (Result().interfaces, Result().ips, Result().routes) == ((), (), ())


def test_every_field_is_read():
    """[8.2] The whole table of the newest family."""
    result = read(
        interfaces=[
            {
                "name": "eth0",
                "mac": "02:00:00:00:00:02",
                "mtu": 1450,
                "sandbox": "/run/netns/c1",
                "socketPath": "/run/vhost.sock",
                "pciID": "0000:03:00.1",
            }
        ],
        ips=[{"interface": 0, "address": "203.0.113.9/24", "gateway": "203.0.113.1"}],
        routes=[
            {
                "dst": "10.1.2.3/8",
                "gw": "203.0.113.1",
                "mtu": 1400,
                "advmss": 1360,
                "priority": 50,
                "table": 0,
                "scope": 253,
            }
        ],
        dns={"nameservers": ["10.0.0.2"], "domain": "d", "search": ["s"], "options": ["o"]},
    )
    (interface,), (ip,), (route,) = result.interfaces, result.ips, result.routes
    assert interface == Interface(
        "eth0", "02:00:00:00:00:02", 1450, "/run/netns/c1", "/run/vhost.sock", "0000:03:00.1"
    )
    assert (ip.interface, str(ip.address), str(ip.gateway)) == (0, "203.0.113.9/24", "203.0.113.1")
    assert (str(route.dst), str(route.gw)) == ("10.1.2.3/8", "203.0.113.1")
    assert (route.mtu, route.advmss, route.priority) == (1400, 1360, 50)
    assert (route.table, route.scope) == (0, 253)
    assert result.dns == DNS(("10.0.0.2",), "d", ("s",), ("o",))


@pytest.mark.parametrize("member", ["nameservers", "domain", "search", "options"])
def test_dns_is_empty_only_when_all_are(member):
    """[8.2] Four empty members are no DNS."""
    assert not DNS()
    value = "x" if member == "domain" else ("x",)
    assert DNS(**{member: value})


@pytest.mark.parametrize("unset", ["", None])
def test_unset_addresses(unset):
    """[P-02] [J-04] An empty or null gateway or next hop is none."""
    result = read(
        ips=[{"address": "10.0.0.1/8", "gateway": unset}],
        routes=[{"dst": "0.0.0.0/0", "gw": unset}],
    )
    assert (result.ips[0].gateway, result.routes[0].gw) == (None, None)
    old = {"ip4": None, "ip6": {"ip": "::1/64", "gateway": unset}}
    assert read("0.2.0", **old).ips == (IPConfig(read(ips=[{"address": "::1/64"}]).ips[0].address),)


@pytest.mark.parametrize("member", ["interfaces", "ips", "routes", "dns"])
def test_null_members(member):
    """[P-02] [trap 12] null is absent."""
    assert read(**{member: None}) == Result()


@pytest.mark.parametrize(
    ("members", "msg"),
    [
        pytest.param(
            {"ips": [{"address": None}]},
            "$.ips[0]: Object missing required field `address`, got {}",
            id="[P-02] null address",
        ),
        pytest.param(
            {"routes": [{"dst": None}]},
            "$.routes[0]: Object missing required field `dst`, got {}",
            id="[P-02] null destination",
        ),
        pytest.param(
            {"ips": [{"address": ""}]},
            '$.ips[0].address: invalid CIDR address: , got ""',
            id="[P-01] empty address",
        ),
        pytest.param(
            {"ips": [None]},
            "$.ips[0]: Expected `object`, got `null`, got null",
            id="[P-02] null element",
        ),
        pytest.param(
            {"interfaces": [{"name": "a"}, None]},
            "$.interfaces[1]: Expected `object`, got `null`, got null",
            id="[P-02] second element null",
        ),
        pytest.param(
            {"ips": [{"address": 5}]},
            "$.ips[0].address: Expected `str`, got `int`, got 5",
            id="[P-03] number for address",
        ),
        pytest.param(
            {"interfaces": [{"name": "a", "mtu": 1500.0}]},
            "$.interfaces[0].mtu: Expected `int`, got `float`, got 1500.0",
            id="[trap 7] fraction for mtu",
        ),
        pytest.param(
            {"interfaces": [{"name": "a", "mtu": True}]},
            "$.interfaces[0].mtu: Expected `int`, got `bool`, got true",
            id="[trap 6] boolean for mtu",
        ),
        pytest.param(
            {"ips": [{"address": "::1/64", "interface": False}]},
            "$.ips[0].interface: Expected `int | null`, got `bool`, got false",
            id="[trap 6] boolean for index",
        ),
        pytest.param(
            {"routes": {"dst": "::/0"}},
            '$.routes: Expected `array`, got `object`, got {"dst":"::/0"}',
            id="[P-03] object for list",
        ),
    ],
)
def test_refused(members, msg):
    assert refusal(**members) == msg


def test_refused_in_the_oldest_family():
    """[P-02] [P-03] A part without its address has no meaning."""
    assert refusal("0.2.0", ip4={}) == "$.ip4: Object missing required field `ip`, got {}"
    assert refusal("0.1.0", ip6=5) == "$.ip6: Expected `object | null`, got `int`, got 5"


def test_unknown_keys():
    """[P-04] Ignored, at every depth."""
    assert read(x=1, ips=[{"address": "::1/64", "y": 2}]) == read(ips=[{"address": "::1/64"}])


def test_surplus_ip_version():
    """[8.2] The family is the address's, whatever `ips[].version` says in 1.x."""
    assert str(read(ips=[{"version": "6", "address": "10.0.0.1/8"}]).ips[0].address) == "10.0.0.1/8"


def test_keys_in_any_case():
    """[P-05] [trap 14] As Go's decoder reads them."""
    result = from_wire({"CNIVersion": "0.4.0", "IPs": [{"Address": "10.0.0.1/8"}]}, "1.1.0")
    assert result.ips == (IPConfig(IPv4Interface("10.0.0.1/8")),)


@pytest.mark.parametrize("index", [None, -1, 7])
def test_interface_index_is_not_judged(index):
    """[PR-09] [19.23] Absent, -1 and out of range are read."""
    assert read(ips=[{"address": "::1/64", "interface": index}]).ips[0].interface == index


def test_negative_numbers_are_tolerated():
    """[19.23] [8.2] On input, as the reference does."""
    assert read(routes=[{"dst": "::/0", "priority": -1}]).routes[0].priority == -1


@pytest.mark.parametrize(
    ("raw", "word"), [([], "array"), ("x", "str"), (5, "int"), (None, "null"), (True, "bool")]
)
def test_not_an_object(raw, word):
    """[PR-06] A result is an object."""
    with pytest.raises(ValueError, match=rf"\Aexpected a result object, got {word}\Z"):
        from_wire(raw, "1.1.0")


def test_own_interface():
    """[X-03] By name and sandbox; the last one wins, and the host's end is not it."""
    result = Result((HOST, ETH0, Interface("lo", sandbox="/run/netns/c1"), ETH0))
    assert result.container_interface("eth0", "/run/netns/c1") == 3
    assert result.container_interface("eth0", "") == 0
    assert result.container_interface("eth1", "/run/netns/c1") is None
    assert result.container_interface("eth0", "/proc/1/ns/net") is None


def test_routes_tell_zero_from_unset():
    """[J-05] [trap 11] `table` and `scope`."""
    dst = IPv4Interface("0.0.0.0/0")
    assert Route(dst).table is None
    assert Route(dst, table=0) != Route(dst)
    assert read(routes=[{"dst": "0.0.0.0/0", "scope": None}]).routes == (Route(dst),)
