"""From stdin to a typed call: spec.md 2.2, 2.3, 3.6, 9 and 10."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import versions
from cni_py.spec.addresses import IP, Cidr
from cni_py.spec.attachment import Attachment
from cni_py.spec.call import gate_version, read_request, typed_call, valid_attachments
from cni_py.spec.config import PluginConfig
from cni_py.spec.environment import Environment
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Result

ENVIRON = {"CNI_COMMAND": "ADD", "EXTRA": "1"}
VERBS_WITH_ATTACHMENT = ("ADD", "CHECK", "DEL")


class Example(PluginConfig, frozen=True):
    mtu: int = 0
    gateway: IP | None = None
    addresses: tuple[Cidr, ...] = ()


def environment(verb="ADD"):
    return Environment(verb, "c1", "/run/netns/c1", "eth0", "A=1", "/opt/cni/bin", "")


def request(stdin, verb="ADD", supported=versions.ALL):
    """A request that has passed the gate; a dict becomes JSON with a name."""
    if isinstance(stdin, dict):
        stdin = json.dumps({"name": "net1", **stdin}).encode()
    return gate_version(read_request(environment(verb), ENVIRON, stdin), supported)


def call(stdin, verb="ADD"):
    return typed_call(request(stdin, verb), Example)


def refusal(function, *arguments):
    with pytest.raises(CniError) as caught:
        function(*arguments)
    return caught.value


UNDECODABLE = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b'{"name":5}',
    b'{"name":["a"]}',
    b'{"name":"a"}x',
    b"\xff",
]


@pytest.mark.parametrize("verb", ["ADD", "STATUS", "NOPE"])
@pytest.mark.parametrize("stdin", UNDECODABLE, ids=ascii)
def test_stdin_that_is_no_configuration(stdin, verb):
    """[2.2] [4.3] [21.5] [21.6] Code 6, for an unknown verb too."""
    error = refusal(read_request, environment(verb), ENVIRON, stdin)
    assert error.code == Code.DECODING_FAILURE
    assert error.msg.startswith("error unmarshall network config: ")


@pytest.mark.parametrize("verb", ["ADD", "GC", "NOPE"])
@pytest.mark.parametrize("stdin", [b"null", b"{}", b'{"name":null}', b'{"name":""}'], ids=ascii)
def test_missing_name(stdin, verb):
    """[2.2] [21.5] [21.6] Code 7 without the colon that the runtime's text has."""
    error = refusal(read_request, environment(verb), ENVIRON, stdin)
    assert (error.code, error.msg) == (7, "missing network name")
    assert error.details == ""


@pytest.mark.parametrize("name", ["a b", "-a", "../x", "a\n", "\u00e9"])
def test_invalid_name(name):
    """[2.2] [5.2] [21.6] Code 7 with the name."""
    stdin = json.dumps({"name": name}).encode()
    error = refusal(read_request, environment(), ENVIRON, stdin)
    assert (error.code, error.msg) == (7, "invalid characters found in network name")
    assert error.details == name


@pytest.mark.parametrize("stdin", [b'{"Name":"net1"}', b'{"NAME":"x","Name":"net1"}'])
def test_name_in_any_case(stdin):
    """[J-01] [P-05] [trap 14] The request and the typed configuration agree on the name."""
    made = call(stdin)
    assert (made.request.network, made.config.name) == ("net1", "net1")


def test_request_keeps_what_came():
    """[E-05] [DG-03] [RC-06] stdin byte by byte and every key, for a delegate."""
    stdin = b' {"name":"net1","x":{"b":1,"a":9007199254740993}} '
    read = read_request(environment(), ENVIRON, stdin)
    assert (read.stdin, read.environ, read.environment) == (stdin, ENVIRON, environment())
    assert read.raw == {"name": "net1", "x": {"b": 1, "a": 9007199254740993}}


@pytest.mark.parametrize("config", [{}, {"cniVersion": ""}, {"cniVersion": None}])
def test_missing_version(config):
    """[7.1] [21.7] [19.13] 0.1.0, which the plugin must support."""
    assert request(config).cni_version == "0.1.0"
    error = refusal(request, config, "ADD", ("0.4.0", "1.0.0"))
    assert (error.code, error.msg) == (1, "incompatible CNI versions")
    assert error.details == 'config is "0.1.0", plugin supports ["0.4.0" "1.0.0"]'


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("version", [1, 1.1, True, ["1.1.0"], {}])
def test_version_of_the_wrong_type(version, verb):
    """[2.3] [4.3] [21.7] Code 6."""
    error = refusal(request, {"cniVersion": version}, verb)
    assert error.code == Code.DECODING_FAILURE
    assert error.msg.startswith("decoding version from network config: ")


@pytest.mark.parametrize("version", ["1.1", "9.9.9", "garbage", "v1.0.0"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_version_that_is_not_supported(version, verb):
    """[2.3] [D-04] [VS-05] [21.7] ADD and DEL do not read it as a number: code 1."""
    error = refusal(request, {"cniVersion": version}, verb)
    assert (error.code, error.msg) == (1, "incompatible CNI versions")


@pytest.mark.parametrize(
    ("verb", "below"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")]
)
def test_gated_verbs(verb, below):
    """[2.3] [D-04] [C-01] [21.8] Below the floor code 1, garbage code 6, the newest passes."""
    error = refusal(request, {"cniVersion": below}, verb)
    assert (error.code, error.msg) == (1, f"config version does not allow {verb}")
    assert refusal(request, {"cniVersion": "garbage"}, verb).code == Code.DECODING_FAILURE
    assert request({"cniVersion": "1.1.0"}, verb).cni_version == "1.1.0"


def test_call_answers_for_its_request():
    """[E-05] [GE-02] The attachment is network, container id and interface name."""
    made = call({})
    assert (made.verb, made.container_id, made.ifname) == ("ADD", "c1", "eth0")
    assert (made.netns, made.args) == ("/run/netns/c1", "A=1")
    assert made.attachment == made.request.attachment == Attachment("net1", "c1", "eth0")


def test_typed_configuration():
    """[RC-08] [J-03] Read as the plugin's own type, or code 7."""
    assert call({"MTU": 1500, "gateway": ""}).config == Example(name="net1", mtu=1500)
    error = refusal(call, {"mtu": "x"})
    assert (error.code, error.details) == (7, 'got "x"')
    assert error.msg == "invalid configuration: $.mtu: Expected `int`, got `str`"


IPS = {"ips": [{"address": "10.0.0.5/24"}]}


@pytest.mark.parametrize("verb", VERBS_WITH_ATTACHMENT)
@pytest.mark.parametrize("version", [None, "", "1.0.0", "1.1.0"])
def test_previous_result(verb, version):
    """[PR-04] [PR-05] [PR-02] [21.17] Without a version, or with one of the family."""
    previous = {**IPS, "cniVersion": version}
    made = call({"cniVersion": "1.1.0", "prevResult": previous}, verb)
    assert str(made.prev_result.ips[0].address) == "10.0.0.5/24"


@pytest.mark.parametrize("verb", VERBS_WITH_ATTACHMENT)
@pytest.mark.parametrize("config", [{}, {"prevResult": None}])
def test_no_previous_result(verb, config):
    """[PR-04] [PR-01] Absent and null are none; `{}` is an empty one [PR-06]."""
    assert call({"cniVersion": "1.0.0", **config}, verb).prev_result is None
    empty = call({"cniVersion": "1.0.0", "prevResult": {}}, verb)
    assert empty.prev_result == Result()


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_no_previous_result_for_the_network(verb):
    """[PR-03] GC and STATUS have none, whatever stands there."""
    assert call({"cniVersion": "1.1.0", "prevResult": 5}, verb).prev_result is None


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_previous_result_of_another_family(verb):
    """[PR-04] [P-06] [21.17] Code 6 with the reference's text."""
    config = {"cniVersion": "1.1.0", "prevResult": {**IPS, "cniVersion": "0.4.0"}}
    error = refusal(call, config, verb)
    assert error.code == Code.DECODING_FAILURE
    assert error.msg == (
        "could not parse prevResult: result type supports [1.0.0 1.1.0] "
        'but unmarshalled CNIVersion is "0.4.0"'
    )


@pytest.mark.parametrize("previous", [5, [], "x", True])
def test_previous_result_that_is_no_object(previous):
    """[PR-06] Code 6."""
    error = refusal(call, {"prevResult": previous})
    assert error.code == Code.DECODING_FAILURE
    assert error.msg.startswith("could not parse prevResult: expected a result object, got ")


@pytest.mark.parametrize("previous", [5, {"cniVersion": "9.9.9"}, {"ips": [None]}])
def test_del_does_without_a_damaged_previous_result(previous):
    """[DL-04] [19.24] DEL goes on where ADD and CHECK refuse."""
    config = {"cniVersion": "1.1.0", "prevResult": previous}
    assert call(config, "DEL").prev_result is None
    assert refusal(call, config, "CHECK").code == Code.DECODING_FAILURE


NEW, OLD = "cni.dev/valid-attachments", "cni.dev/attachments"
ONE, TWO = ({"containerID": name, "ifname": "eth0"} for name in ("one", "two"))


def listed(**lists):
    keys = {"new": NEW, "old": OLD}
    raw = {keys[key]: value for key, value in lists.items()}
    return valid_attachments(request({"cniVersion": "1.1.0", **raw}, "GC"))


@pytest.mark.parametrize(
    ("lists", "containers"),
    [
        pytest.param({}, None, id="[G-07] [19.21] absent: nothing is known"),
        pytest.param({"new": None, "old": None}, None, id="[G-07] null: nothing is known"),
        pytest.param({"new": []}, set(), id="[G-07] [21.19] empty: nothing lives"),
        pytest.param({"new": [ONE, TWO, ONE]}, {"one", "two"}, id="[G-01] listed"),
        pytest.param({"old": [ONE]}, {"one"}, id="[G-08] [19.11] the older key"),
        pytest.param({"new": [TWO], "old": [ONE]}, {"two"}, id="[G-08] the newer key wins"),
        pytest.param({"new": [], "old": [ONE]}, set(), id="[G-08] also when empty"),
        pytest.param({"new": None, "old": [ONE]}, {"one"}, id="[G-08] null is absent"),
    ],
)
def test_valid_attachments(lists, containers):
    """[G-09] All of them belong to the request's network."""
    expected = containers and {Attachment("net1", name, "eth0") for name in containers}
    assert listed(**lists) == (frozenset() if containers == set() else expected)


@pytest.mark.parametrize("value", [5, {}, [None], ["one"], [{"containerID": "a"}], [{"ifname": 5}]])
def test_valid_attachments_that_cannot_be_read(value):
    """[G-01] [G-07] Code 7: nothing is removed on a guess."""
    error = refusal(lambda: listed(new=value))
    assert error.code == Code.INVALID_CONFIG
    assert error.msg.startswith("invalid configuration: $")


names = st.sampled_from(
    ["name", "Name", "cniVersion", "prevResult", "mtu", "gateway", "addresses", "dns", "ips"]
)
leaves = st.sampled_from(["net1", "1.1.0", "0.4.0", "10.0.0.1/8", "", None, True, 5, -1, 1.5])
any_json = st.recursive(
    leaves | st.text(max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=12,
)
likely = st.fixed_dictionaries(
    {"name": st.just("net1")},
    optional={
        "cniVersion": st.sampled_from([*versions.ALL, "9.9.9", 5]),
        "prevResult": st.dictionaries(names, any_json, max_size=4),
        "addresses": any_json,
    },
)
any_stdin = st.one_of(
    st.binary(),
    any_json.map(lambda value: json.dumps(value).encode()),
    likely.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda raw, cut: json.dumps(raw).encode()[:cut], likely, st.integers(0, 80)),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]), any_stdin)
def test_any_stdin(verb, stdin):
    """[2.2] [2.3] [4.2] Each step lets through or refuses with its own codes, and with a text."""
    steps = (
        ((6, 7), lambda _: read_request(environment(verb), ENVIRON, stdin)),
        ((1, 6), lambda made: gate_version(made, versions.ALL)),
        ((6, 7), lambda made: typed_call(made, Example)),
    )
    made, refused = None, None
    for codes, step in steps:
        try:
            made = step(made)
        except CniError as error:
            refused = (error, codes)
            break
    if refused is None:
        assert isinstance(made.config, Example)
        assert made.config.name == made.request.network
        assert made.request.cni_version in versions.ALL
    else:
        assert refused[0].code in refused[1]
        assert refused[0].msg
