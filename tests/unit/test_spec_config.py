"""From bytes to typed configuration: spec.md 8.4, 10 and 18; plugins.md J-01 to J-05."""

import json
import re
from ipaddress import IPv4Address, IPv4Interface

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import config
from cni_py.spec.addresses import IP, Cidr
from cni_py.spec.config import CniArgs, PluginConfig, decode_config, decode_json
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import DNS

quick = settings(max_examples=300, deadline=None)


class Range(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    subnet: Cidr
    range_start: IP | None = None


class Ipam(msgspec.Struct, kw_only=True, frozen=True):
    type: str = ""
    ranges: tuple[tuple[Range, ...], ...] = ()


class Example(PluginConfig, frozen=True):
    bridge: str = "cni0"
    mtu: int = 0
    ip_masq: bool = False
    table: int | None = None
    gateway: IP | None = None
    ipam: Ipam = Ipam()
    args: CniArgs = CniArgs()
    sysctl: dict[str, str] = msgspec.field(default_factory=dict)


def read(**keys):
    return decode_config({"name": "n", **keys}, Example)


def refusal(raw):
    with pytest.raises(CniError) as caught:
        decode_config(raw, Example)
    assert caught.value.code == Code.INVALID_CONFIG
    return caught.value.msg, caught.value.details


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf{}", id="[trap 5] byte order mark"),
        pytest.param("{}".encode("utf-16"), id="[trap 5] UTF-16"),
        pytest.param("{}".encode("utf-32-le"), id="[trap 5] UTF-32"),
        pytest.param(b'{"a":NaN}', id="[trap 5] NaN"),
        pytest.param(b"[Infinity]", id="[trap 5] Infinity"),
        pytest.param(b"[-Infinity]", id="[trap 5] minus Infinity"),
        pytest.param(b'{"a":"\xff"}', id="[trap 5] not UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', id="[trap 5] half a surrogate pair"),
        pytest.param(b"{} x", id="[2.2] text after the document"),
        pytest.param(b"{}{}", id="[2.2] two documents"),
        pytest.param(b"", id="[21.6] nothing"),
        pytest.param(b"{", id="[21.5] half"),
        pytest.param(b"{'a':1}", id="[2.2] not JSON"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="[2.2] too deep"),
    ],
)
def test_not_json(data):
    with pytest.raises(ValueError, match=r"."):
        decode_json(data)


def test_json():
    """[2.2] [RC-02] Integers stay exact, and a later duplicate wins [J-02]."""
    assert decode_json(b' {"a": [9007199254740993, null]} \n') == {"a": [9007199254740993, None]}
    assert decode_json(b'{"a":1,"a":2}') == {"a": 2}


def test_defaults():
    """[RC-08] [J-05] Only the name is needed; unset is told apart from zero where it matters."""
    assert read() == Example(name="n")
    assert read().table is None
    assert read(table=0).table == 0


@pytest.mark.parametrize("key", ["IPMASQ", "ipmasq", "IpMasq", "ipMasq"])
def test_keys_match_in_any_case(key):
    """[J-01] [P-05] [trap 14] A variant of a key is the key, also in nested objects."""
    assert read(**{key: True}).ip_masq is True
    nested = read(IPAM={"Type": "t", "RANGES": [[{"SUBNET": "10.0.0.1/8", "rangestart": "::1"}]]})
    assert nested.ipam.ranges[0][0].subnet == IPv4Interface("10.0.0.1/8")


@pytest.mark.parametrize("keys", [("mtu", "MTU"), ("MTU", "mtu")])
def test_exact_key_is_preferred(keys):
    """[J-01] Whatever comes first."""
    raw = {key: 1500 if key == "mtu" else 9000 for key in keys}
    assert read(**raw).mtu == 1500
    assert config.member(raw, "mtu") == 1500


def test_last_variant_wins():
    """[P-05] Of two variants the later one, in the typed form and in a single look-up."""
    raw = {"MTU": 1, "Mtu": 2}
    assert read(**raw).mtu == config.member(raw, "mtu") == 2


@pytest.mark.parametrize("raw", [{"mtu": None, "MTU": 7}, {"MTU": 7, "mtu": None, "Mtu": None}])
def test_null_does_not_hide_a_variant(raw):
    """[J-02] null is absent, so the other spelling counts."""
    assert read(**raw).mtu == config.member(raw, "mtu") == 7


def test_member_absent():
    """[J-02] Absent and null are the same."""
    assert config.member({"a": 1}, "mtu") is None
    assert config.member({"mtu": None}, "mtu") is None


@pytest.mark.parametrize("key", ["bridge", "mtu", "ipMasq", "table", "gateway", "ipam", "dns"])
def test_null_is_absent(key):
    """[J-02] [trap 12] null leaves the default, for every type."""
    assert read(**{key: None}) == read()


def test_null_in_a_nested_object():
    """[J-02] [trap 12] There too."""
    raw = {"ranges": [[{"subnet": "10.0.0.0/8", "rangeStart": None}]], "type": None}
    assert read(ipam=raw).ipam.ranges[0][0].range_start is None


def test_unknown_keys():
    """[J-02] [GE-04] [P-04] Ignored, also those that the runtime puts in."""
    raw = {"x": [1], "cni.dev/valid-attachments": [], "runtimeConfig": {}, "ipam": {"y": 1}}
    assert read(**raw) == read()


@pytest.mark.parametrize("value", [{}, {"cni": {"labels": [{"key": 1}]}}, {"x": 5}])
def test_args_may_have_any_content(value):
    """[AR-01] [GE-04] Metadata is never refused for its content."""
    assert read(args=value) == read()


def test_dns():
    """[RC-07] The four keys of name resolution."""
    raw = {"nameservers": ["10.0.0.2"], "domain": "d", "search": ["s"], "options": ["ndots:2"]}
    assert read(dns=raw).dns == DNS(("10.0.0.2",), "d", ("s",), ("ndots:2",))


def test_free_map_keeps_its_keys():
    """[J-01] Only declared keys are folded: a sysctl's name is data."""
    raw = {"net.ipv4.conf.ETH0.x": "1", "NAME": "2"}
    assert read(sysctl=raw).sysctl == raw


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("10.0.0.1", IPv4Address("10.0.0.1"), id="[J-04] text"),
        pytest.param("::ffff:10.0.0.1", IPv4Address("10.0.0.1"), id="[J-04] mapped"),
        pytest.param("", None, id="[J-04] empty is unset"),
    ],
)
def test_address(text, address):
    assert read(gateway=text).gateway == address


@pytest.mark.parametrize(
    ("key", "value", "msg", "details"),
    [
        ("mtu", "1500", "Expected `int`, got `str`", 'got "1500"'),
        ("mtu", 1.5, "Expected `int`, got `float`", "got 1.5"),
        ("mtu", 1500.0, "Expected `int`, got `float`", "got 1500.0"),
        ("mtu", True, "Expected `int`, got `bool`", "got true"),
        ("ipMasq", 1, "Expected `bool`, got `int`", "got 1"),
        ("ipMasq", "true", "Expected `bool`, got `str`", 'got "true"'),
        ("bridge", 5, "Expected `str`, got `int`", "got 5"),
        ("type", [], "Expected `str`, got `array`", "got []"),
        ("ipam", [], "Expected `object`, got `array`", "got []"),
        ("gateway", "10.0.0", "invalid IP address: 10.0.0", 'got "10.0.0"'),
        ("gateway", 5, "Expected `str`, got `int`", "got 5"),
    ],
)
def test_wrong_type(key, value, msg, details):
    """[J-03] [J-04] [P-03] [trap 6] [trap 7] Code 7 with the path, the fault and the value."""
    expected = f"invalid configuration: $.{key}: {msg}", details
    assert refusal({"name": "n", key: value}) == expected


def test_wrong_type_deep_inside():
    """[J-03] [P-01] The path leads through lists, in the declared spelling."""
    raw = {"name": "n", "ipam": {"Ranges": [[], [{"SUBNET": "10.0.0.0"}]]}}
    msg = "invalid configuration: $.ipam.ranges[1][0].subnet: invalid CIDR address: 10.0.0.0"
    assert refusal(raw) == (msg, 'got "10.0.0.0"')


def test_missing_key():
    """[J-03] What is missing is named, with the object where it is missing."""
    msg, details = refusal({"name": "n", "ipam": {"ranges": [[{"rangeStart": "::1"}]]}})
    fault = "Object missing required field `subnet`"
    assert msg == f"invalid configuration: $.ipam.ranges[0][0]: {fault}"
    assert details == 'got {"rangeStart":"::1"}'


def test_capability_that_is_not_a_boolean():
    """[RC-08] Refused, with the object that has it."""
    msg, details = refusal({"name": "n", "capabilities": {"mac": True, "ips": "yes"}})
    assert msg == "invalid configuration: $.capabilities[...]: Expected `bool`, got `str`"
    assert details == 'got {"mac":true,"ips":"yes"}'


def test_not_an_object():
    """[J-03] A configuration is an object."""
    assert refusal([]) == ("invalid configuration: Expected `object`, got `array`", "")


def test_long_value_is_cut():
    """[4.1] The value is shown, not a page of it."""
    _, details = refusal({"name": "n", "mtu": "9" * 5000})
    assert details == 'got "' + "9" * 79 + "..."


KEYS = (
    "name",
    "mtu",
    "ipMasq",
    "gateway",
    "ipam",
    "ranges",
    "subnet",
    "rangeStart",
    "dns",
    "search",
)
known_keys = st.sampled_from([*KEYS, *map(str.upper, KEYS), "capabilities", "sysctl", "args"])
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["10.0.0.1", "10.0.0.1/8", "x - at `$.y`", ""]),
)
any_json = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(known_keys | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=15,
)
ranges = st.fixed_dictionaries({"ranges": st.lists(st.lists(any_json, max_size=2), max_size=2)})
configs = st.fixed_dictionaries(
    {"name": st.just("n")},
    optional=dict.fromkeys(("mtu", "Gateway", "dns", "capabilities", "sysctl"), any_json)
    | {"IPAM": ranges | any_json},
)


def follow(raw, path):
    """All values at a path: a key in any spelling, `[...]` for every element."""
    found = [raw]
    for key, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        if key:
            members = [one.items() for one in found if isinstance(one, dict)]
            found = [v for items in members for k, v in items if k.lower() == key.lower()]
        elif index == "...":
            found = [v for one in found if isinstance(one, dict) for v in one.values()]
        else:
            lists = [one for one in found if isinstance(one, list) and int(index) < len(one)]
            found = [one[int(index)] for one in lists]
    return found


@quick
@given(configs | any_json)
def test_any_json(raw):
    """[J-03] [4.2] A typed value, or code 7 with a path that exists and the value found there."""
    try:
        typed, refused = decode_config(raw, Example), None
    except CniError as error:
        typed, refused = None, error
    if refused is None:
        assert isinstance(typed, Example)
        return
    assert refused.code == Code.INVALID_CONFIG
    path = re.match(r"invalid configuration: (?:key in )?`?(\$[^:` ]*)", refused.msg)
    if path is None:
        assert re.search(": (Expected `object`, got|Object missing required field)", refused.msg)
        return
    found = follow(raw, path[1])
    assert found
    if "..." not in path[1] + refused.details and not isinstance(found[0], dict | list):
        assert json.loads(refused.details.removeprefix("got ")) in found
