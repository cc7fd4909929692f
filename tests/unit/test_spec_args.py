"""CNI_ARGS: spec.md section 11.3, plugins.md section 1.4 (A-01 to A-03)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec.args import invalid_value, load_args
from cni_py.spec.errors import CniError, Code

KNOWN = ("IP", "MAC")


def outcome(function, *arguments):
    """What the call returned, and the CniError that it raised instead."""
    try:
        return function(*arguments), None
    except CniError as error:
        return None, error


def refusal(text, known=KNOWN):
    with pytest.raises(CniError) as caught:
        load_args(text, known)
    assert caught.value.code == Code.INVALID_ENVIRONMENT
    assert caught.value.details
    return caught.value.msg


def test_empty():
    """[CA-02] [A-01] An empty string is no arguments."""
    assert load_args("", KNOWN) == {}


def test_pairs():
    """[CA-01] [CA-07] `K=V;K2=V2`, the conventional keys."""
    loaded = load_args("IP=10.0.0.5/24;MAC=02:00:00:00:00:01", KNOWN)
    assert loaded == {"IP": "10.0.0.5/24", "MAC": "02:00:00:00:00:01"}


def test_empty_value():
    """[CA-02] Two parts, one of them empty, are two parts."""
    assert load_args("IP=", KNOWN) == {"IP": ""}


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        pytest.param("IP=1;", "", id="[CA-02] trailing semicolon"),
        pytest.param(";IP=1", "", id="[CA-02] leading semicolon"),
        pytest.param("IP=1;;MAC=2", "", id="[CA-02] empty pair"),
        pytest.param("IP", "IP", id="[CA-02] no equals sign"),
        pytest.param("IP=a=b", "IP=a=b", id="[CA-02] equals sign in the value"),
        pytest.param("IgnoreUnknown=1;a=b=c", "a=b=c", id="[CA-02] not saved by IgnoreUnknown"),
    ],
)
def test_malformed(text, pair):
    """[CA-02] [A-01] [21.18] Exactly one `=` in each pair."""
    assert refusal(text) == f'ARGS: invalid pair "{pair}"'


def test_unknown_keys():
    """[CA-03] [A-03] [21.18] All unknown pairs are named, in their order."""
    assert refusal("A=1;IP=10.0.0.5;B=2") == 'ARGS: unknown args ["A=1" "B=2"]'


@pytest.mark.parametrize("key", ["ip", "Ip", "mac", "ignoreunknown", " IP"])
def test_keys_match_exactly(key):
    """[CA-03] [A-02] A key in another case is an unknown key."""
    assert refusal(f"{key}=1") == f'ARGS: unknown args ["{key}=1"]'


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "tRuE"])
@pytest.mark.parametrize("text", ["IgnoreUnknown={};A=1;IP=x", "A=1;IP=x;IgnoreUnknown={}"])
def test_ignore_unknown(text, value):
    """[CA-04] [CA-08] [21.18] True in any case, at any place."""
    assert load_args(text.format(value), KNOWN) == {"IP": "x"}


@pytest.mark.parametrize("value", ["0", "false", "FALSE"])
def test_ignore_unknown_switched_off(value):
    """[CA-04] False in any case refuses what is unknown, and nothing else."""
    assert refusal(f"IgnoreUnknown={value};A=1") == 'ARGS: unknown args ["A=1"]'
    assert load_args(f"IgnoreUnknown={value};IP=1", KNOWN) == {"IP": "1"}


@pytest.mark.parametrize("value", ["yes", "", "2", "t", "Banana"])
def test_bad_boolean(value):
    """[CA-04] [CA-05] [21.18] The reference's text, with the value in lower case."""
    expected = (
        f'ARGS: error parsing value of pair "IgnoreUnknown={value}": '
        f"boolean unmarshal error: invalid input {value.lower()}"
    )
    assert refusal(f"IgnoreUnknown={value}") == expected


def test_value_that_a_plugin_cannot_read():
    """[CA-05] The refusal of a known pair has the pair and the cause."""
    error = invalid_value("IP=x", "invalid IP address: x")
    assert error.code == Code.INVALID_ENVIRONMENT
    assert error.msg == 'ARGS: error parsing value of pair "IP=x": invalid IP address: x'


def test_kubernetes():
    """[CA-08] [A-03] What containerd sends is accepted by a plugin that knows none of it."""
    text = (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;"
        "K8S_POD_INFRA_CONTAINER_ID=0123abcd;K8S_POD_UID=11-22"
    )
    assert load_args(text, ()) == {}
    assert refusal(text.partition(";")[2], ()).startswith("ARGS: unknown args [")


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="IPMACg=;1", max_size=12)))
def test_any_text(text):
    """[CA-02] [CA-03] Pairs of known keys that stand in the text, or code 4 with a text."""
    loaded, error = outcome(load_args, text, KNOWN)
    if error:
        assert error.code == Code.INVALID_ENVIRONMENT
        assert error.msg.startswith("ARGS: ")
    else:
        pairs = text.split(";") if text else []
        assert all(pair.count("=") == 1 for pair in pairs)
        assert {f"{key}={value}" for key, value in loaded.items()} <= set(pairs)
