"""Results written in every version and read back: spec.md 8.1 to 8.7."""

import json
from itertools import product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import versions
from cni_py.spec.addresses import parse_cidr, parse_ip
from cni_py.spec.conversion import embedded_version, from_wire, require_family, to_wire
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import DNS, Interface, IPConfig, Result, Route

PAIRS = list(product(versions.ALL, repeat=2))

# The worked vector of spec.md 8.7.
NEWEST, IN_040, IN_020, BACK_UP = json.loads("""[
{"cniVersion":"1.1.0",
 "interfaces":[{"name":"br7","mac":"02:00:00:00:00:01"},
               {"name":"eth0","mac":"02:00:00:00:00:02","mtu":1450,
                "sandbox":"/run/netns/c1","pciID":"0000:03:00.1"}],
 "ips":[{"interface":1,"address":"2001:db8::5/64","gateway":"2001:db8::1"},
        {"interface":1,"address":"198.51.100.9/25"},
        {"interface":1,"address":"203.0.113.9/24","gateway":"203.0.113.1"}],
 "routes":[{"dst":"0.0.0.0/0","priority":50,"table":0},
           {"dst":"2001:db8:1::/48","gw":"2001:db8::fe","mtu":1400}]},
{"cniVersion":"0.4.0",
 "interfaces":[{"name":"br7","mac":"02:00:00:00:00:01"},
               {"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/c1"}],
 "ips":[{"version":"6","interface":1,"address":"2001:db8::5/64","gateway":"2001:db8::1"},
        {"version":"4","interface":1,"address":"198.51.100.9/25"},
        {"version":"4","interface":1,"address":"203.0.113.9/24","gateway":"203.0.113.1"}],
 "routes":[{"dst":"0.0.0.0/0","priority":50,"table":0},
           {"dst":"2001:db8:1::/48","gw":"2001:db8::fe","mtu":1400}],
 "dns":{}},
{"cniVersion":"0.2.0",
 "ip4":{"ip":"198.51.100.9/25","routes":[{"dst":"0.0.0.0/0"}]},
 "ip6":{"ip":"2001:db8::5/64","gateway":"2001:db8::1",
        "routes":[{"dst":"2001:db8:1::/48","gw":"2001:db8::fe"}]},
 "dns":{}},
{"cniVersion":"1.1.0",
 "ips":[{"address":"198.51.100.9/25"},{"address":"2001:db8::5/64","gateway":"2001:db8::1"}],
 "routes":[{"dst":"0.0.0.0/0"},{"dst":"2001:db8:1::/48","gw":"2001:db8::fe"}]}
]""")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param(NEWEST, NEWEST, id="[8.7] untouched"),
        pytest.param(NEWEST, IN_040, id="[8.7] [D1] 1.1.0 to 0.4.0"),
        pytest.param(NEWEST, IN_020, id="[8.7] [D2] 1.1.0 to 0.2.0"),
        pytest.param(IN_040, IN_020, id="[8.7] [D2] 0.4.0 to 0.2.0"),
        pytest.param(IN_020, BACK_UP, id="[8.7] [U1] [U2] 0.2.0 to 1.1.0"),
    ],
)
def test_worked_vector(source, target):
    """[8.7] [21.16] [C-05] The golden data."""
    assert to_wire(from_wire(source, ""), target["cniVersion"]) == target


def family(version):
    families = (versions.FAMILY_020, versions.FAMILY_040, versions.FAMILY_100)
    return next(one for one in families if version in one)


def in_040(result):
    """What 0.3.0 to 0.4.0 keep: the table of 8.5."""
    kept = tuple(Interface(one.name, one.mac, 0, one.sandbox) for one in result.interfaces)
    return msgspec.structs.replace(result, interfaces=kept)


def in_020(result):
    """What 0.1.0 and 0.2.0 keep: the first address of each family and its routes, IPv4 first."""
    ips, routes = [], []
    for ip_version in (4, 6):
        own = [one for one in result.ips if one.address.version == ip_version]
        if own:
            ips.append(IPConfig(own[0].address, own[0].gateway))
            routes += [Route(r.dst, r.gw) for r in result.routes if r.dst.version == ip_version]
    return Result((), tuple(ips), tuple(routes), result.dns)


KEPT = {versions.FAMILY_100: lambda r: r, versions.FAMILY_040: in_040, versions.FAMILY_020: in_020}

texts = st.text(max_size=4)
numbers = st.integers(0, 2**31)
optional = st.none() | st.integers(0, 300)
addresses = st.ip_addresses().map(str).map(parse_ip)
cidrs = st.builds("{}/{}".format, addresses, st.integers(0, 32)).map(parse_cidr)
gateways = st.none() | addresses


def tuples(elements, least=0):
    return st.lists(elements, min_size=least, max_size=3).map(tuple)


results = st.builds(
    Result,
    tuples(st.builds(Interface, texts, texts, numbers, texts, texts, texts)),
    tuples(st.builds(IPConfig, cidrs, gateways, optional), least=1),
    tuples(st.builds(Route, cidrs, gateways, numbers, numbers, numbers, optional, optional)),
    st.builds(DNS, tuples(texts), texts, tuples(texts), tuples(texts)),
)


def through(result, version):
    """Written in a version, sent as JSON text, read again."""
    wire = to_wire(result, version)
    assert wire["cniVersion"] == version
    return from_wire(json.loads(json.dumps(wire)), "")


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=20, deadline=None)
@given(results)
def test_every_pair_of_versions(first, second, result):
    """[8.5] [A-05] [VR-03] Every ordered pair: nothing is lost but what the table says."""
    once = KEPT[family(first)](result)
    assert through(result, first) == once
    assert through(once, second) == KEPT[family(second)](once)


@pytest.mark.parametrize("version", versions.ALL)
@settings(max_examples=25, deadline=None)
@given(results)
def test_within_a_family_only_the_label_differs(version, result):
    """[8.1] [8.5] A relabelled copy, both ways."""
    written = to_wire(result, version)
    for sibling in filter(None, family(version)):
        relabelled = to_wire(from_wire(written, ""), sibling)
        assert relabelled == {**written, "cniVersion": sibling}


@settings(max_examples=50, deadline=None)
@given(results)
def test_going_down_in_steps(result):
    """[8.5] From 1.x to 0.2.0 is D1 and then D2."""
    assert to_wire(from_wire(to_wire(result, "0.4.0"), ""), "0.2.0") == to_wire(result, "0.2.0")


@pytest.mark.parametrize("version", versions.ALL)
def test_dns_key(version):
    """[trap 13] [8.2] [19.16] `{}` up to 0.4.0, absent from 1.0.0 on; a set one always there."""
    result = Result(ips=(IPConfig(parse_cidr("10.0.0.1/8")),))
    assert to_wire(result, version).get("dns") == (None if version.startswith("1.") else {})
    set_one = msgspec.structs.replace(result, dns=DNS(domain="d"))
    assert to_wire(set_one, version)["dns"] == {"domain": "d"}


@pytest.mark.parametrize("version", versions.ALL[2:])
def test_zero_is_written_or_left_out(version):
    """[trap 11] [8.2] `interface`, `table` and `scope` keep 0; mtu, advmss and priority do not."""
    cidr = parse_cidr("10.0.0.1/8")
    result = Result((Interface("a"),), (IPConfig(cidr, None, 0),), (Route(cidr, table=0, scope=0),))
    wire = to_wire(result, version)
    assert wire["interfaces"] == [{"name": "a"}]
    assert wire["ips"][0]["interface"] == 0
    assert wire["routes"] == [{"dst": "10.0.0.1/8", "table": 0, "scope": 0}]


@pytest.mark.parametrize("version", versions.ALL[2:])
def test_empty_result(version):
    """[8.2] Empty lists are left out."""
    assert set(to_wire(Result(), version)) <= {"cniVersion", "dns"}


@pytest.mark.parametrize("version", ["", "0.1.0", "0.2.0"])
def test_no_address_for_the_oldest_family(version):
    """[D2] [8.6] [R-05] [21.16] [C-05] An attachment without addresses cannot be told."""
    with pytest.raises(CniError) as caught:
        to_wire(Result((Interface("eth0"),)), version)
    assert caught.value.code == Code.INTERNAL
    assert caught.value.msg == "cannot convert: no valid IP addresses"


def test_target_without_a_version():
    """[7.1] [19.13] `""` is 0.1.0."""
    result = from_wire(NEWEST, "")
    assert to_wire(result, "") == to_wire(result, "0.1.0") == {**IN_020, "cniVersion": "0.1.0"}


@pytest.mark.parametrize("version", ["1.2.0", "0.3", "1.1", "x"])
def test_unknown_versions(version):
    """[8.5] [P-06] [VS-05] Neither written nor read; compared as text."""
    with pytest.raises(CniError) as caught:
        to_wire(Result(), version)
    assert caught.value.msg == f"no converter for CNI result version 1.1.0 to {version}"
    with pytest.raises(ValueError, match=rf'\Aunsupported CNI result version "{version}"\Z'):
        from_wire({"cniVersion": version}, "1.1.0")


def test_spelling_of_the_address_list():
    """[19.14] `ips` also in 0.3.0, whose text said `ip`."""
    assert "ips" in to_wire(from_wire(NEWEST, ""), "0.3.0")


def test_mapped_address_goes_to_ip4():
    """[R-03] [D1] [trap 9] An IPv4-mapped address is version 4."""
    result = from_wire({"ips": [{"address": "::ffff:1.2.3.4/120"}]}, "1.1.0")
    assert to_wire(result, "0.4.0")["ips"] == [{"version": "4", "address": "1.2.3.4/24"}]
    assert to_wire(result, "0.2.0")["ip4"] == {"ip": "1.2.3.4/24"}


def test_routes_without_their_family():
    """[D2] [8.6] A route whose family has no address is dropped."""
    raw = {"ips": [{"address": "10.0.0.1/8"}], "routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]}
    wire = to_wire(from_wire(raw, "1.0.0"), "0.2.0")
    assert wire["ip4"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert "ip6" not in wire


def test_route_fields_go_up():
    """[U1] IPv4's routes first, with all their fields; the gateway does not become `gw`."""
    ip4 = {"ip": "10.0.0.1/8", "gateway": "10.0.0.2", "routes": [{"dst": "0.0.0.0/0", "mtu": 9}]}
    ip6 = {"ip": "::1/64", "routes": [{"dst": "::/0"}]}
    wire = to_wire(from_wire({"ip6": ip6, "ip4": ip4}, "0.2.0"), "1.0.0")
    assert wire["routes"] == [{"dst": "0.0.0.0/0", "mtu": 9}, {"dst": "::/0"}]


def test_negative_index_is_left_out():
    """[19.23] [PR-09] -1 says that there is no interface, and goes out as that."""
    raw = {"ips": [{"address": "::1/64", "interface": -1}]}
    for version in ("0.4.0", "1.1.0"):
        assert "interface" not in to_wire(from_wire(raw, version), version)["ips"][0]


@pytest.mark.parametrize("field", ["mtu", "advmss", "priority", "table", "scope"])
def test_negative_route_number(field):
    """[19.23] Not written: the protocol's numbers are unsigned."""
    route = Route(parse_cidr("::/0"), **{field: -1})
    with pytest.raises(CniError, match="route ::/0 has a negative number") as caught:
        to_wire(Result(routes=(route,)), "1.1.0")
    assert caught.value.code == Code.INTERNAL


def test_negative_interface_number():
    """[19.23] Nor for an interface's MTU."""
    with pytest.raises(CniError, match="interface eth0 has mtu -5"):
        to_wire(Result((Interface("eth0", mtu=-5),)), "1.1.0")


@pytest.mark.parametrize("version", [None, "", 5])
def test_version_from_the_fallback(version):
    """[7.1] [PR-05] Missing, empty or not text: the configuration's version."""
    assert from_wire({**IN_020, "cniVersion": version}, "0.2.0") == from_wire(IN_020, "")
    assert embedded_version({"cniVersion": version}) == ""


@pytest.mark.parametrize("key", ["cniVersion", "CNIVersion", "cniversion"])
def test_version_key_in_any_case(key):
    """[trap 14] [P-05] The result's version is found in any spelling."""
    assert embedded_version({key: "0.4.0"}) == "0.4.0"


@pytest.mark.parametrize(
    ("config", "embedded", "listed"),
    [
        ("0.2.0", "0.4.0", " 0.1.0 0.2.0"),
        ("0.3.1", "1.0.0", "0.3.0 0.3.1 0.4.0"),
        ("1.1.0", "0.4.0", "1.0.0 1.1.0"),
        ("1.0.0", "9.9.9", "1.0.0 1.1.0"),
    ],
)
def test_foreign_family(config, embedded, listed):
    """[P-06] [21.17] The text of the reference, with its leading blank for the oldest family."""
    with pytest.raises(ValueError, match="result type") as caught:
        require_family({"cniVersion": embedded}, config)
    expected = f'result type supports [{listed}] but unmarshalled CNIVersion is "{embedded}"'
    assert str(caught.value) == expected


@pytest.mark.parametrize(("config", "embedded"), PAIRS)
def test_own_family(config, embedded):
    """[P-07] Any member of the family is fine; members of others are not."""
    if embedded in family(config):
        assert require_family({"cniVersion": embedded}, config) is None
    else:
        with pytest.raises(ValueError, match="result type supports"):
            require_family({"cniVersion": embedded}, config)
