"""The CNI_* variables: spec.md sections 2.1 and 2.2."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec.environment import VERBS, Environment, read_environment
from cni_py.spec.errors import CniError, Code

FULL = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K=V",
    "CNI_PATH": "/opt/cni/bin",
    "CNI_NETNS_OVERRIDE": "1",
}
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}
CELLS = [(verb, name) for verb in REQUIRED for name in list(FULL)[1:]]


def environment(**changes):
    merged = {**FULL, **{f"CNI_{key}": value for key, value in changes.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def outcome(function, *arguments):
    """What the call returned, and the CniError that it raised instead."""
    try:
        return function(*arguments), None
    except CniError as error:
        return None, error


def refusal(environ):
    with pytest.raises(CniError) as caught:
        read_environment(environ)
    assert caught.value.code == Code.INVALID_ENVIRONMENT
    return caught.value.msg


@pytest.mark.parametrize(("verb", "name"), CELLS, ids="[2.1] {}".format)
@pytest.mark.parametrize("absence", [None, ""], ids=["unset", "empty [E-02]"])
def test_matrix(verb, name, absence):
    """[2.1] [E-02] [21.2] [trap 23] Each cell of the table; unset and empty are the same."""
    environ = environment(COMMAND=verb, **{name.removeprefix("CNI_"): absence})
    if name in REQUIRED[verb]:
        assert refusal(environ) == f"required env variables [{name}] missing"
    else:
        assert read_environment(environ).verb == verb


@pytest.mark.parametrize("verb", [*REQUIRED])
def test_only_the_required_variables(verb):
    """[2.1] [S-06] [VR-01] A verb runs with its required variables alone."""
    environ = {"CNI_COMMAND": verb, **{name: FULL[name] for name in REQUIRED[verb]}}
    read = read_environment(environ)
    assert (read.verb, read.args, read.netns_override) == (verb, "", "")


def test_verbs():
    """[E-04] [19.5] STATUS is a verb, though the specification's list forgets it."""
    assert set(REQUIRED) == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS - {"VERSION"}))
def test_path_is_required(verb):
    """[E-01] [19.4] CNI_PATH is required by all verbs but VERSION, as the reference does."""
    environ = environment(COMMAND=verb, PATH="")
    assert refusal(environ) == "required env variables [CNI_PATH] missing"


@pytest.mark.parametrize("verb", ["GC", "STATUS", "VERSION"])
def test_garbage_is_not_looked_at(verb):
    """[E-03] [21.10] [21.9] Verbs without an attachment do not validate its parameters."""
    environ = environment(COMMAND=verb, CONTAINERID="-%", IFNAME="a/b" * 9)
    assert read_environment(environ).container_id == "-%"


@pytest.mark.parametrize("verb", ["ADD", "STATUS", "VERSION", "NOPE"])
def test_all_variables_are_read(verb):
    """[E-05] Every field comes from the environment, also for a verb that ignores it."""
    expected = Environment(verb, "c1", "/run/netns/c1", "eth0", "K=V", "/opt/cni/bin", "1")
    assert read_environment(environment(COMMAND=verb)) == expected


def test_cni_version_variable_is_ignored():
    """[E-06] CNI_VERSION of 0.1.0 changes nothing."""
    assert read_environment(environment(VERSION="banana")) == read_environment(FULL)


def test_missing_names_in_table_order():
    """[2.2] [21.2] Comma-joined, no blanks, in the table's order; no details."""
    with pytest.raises(CniError) as caught:
        read_environment({"CNI_COMMAND": "ADD", "CNI_NETNS": "/n"})
    assert caught.value.code == 4
    assert (
        caught.value.msg == "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"
    )
    assert caught.value.details == ""


def test_nothing_set():
    """[2.2] [21.1] Without a verb no other variable is required."""
    assert refusal({}) == "required env variables [CNI_COMMAND] missing"


def test_invalid_beats_missing():
    """[2.2] [21.3] An invalid value is reported even when an earlier variable is missing."""
    environ = environment(NETNS="", IFNAME="a" * 16)
    assert refusal(environ) == "interface name is too long"


def test_first_invalid_wins():
    """[2.2] The container id stands before the interface name in the table."""
    environ = environment(CONTAINERID="a b", IFNAME="a b")
    assert refusal(environ) == "invalid characters in containerID"


def test_missing_container_id_is_an_environment_error():
    """[19.10] Code 4 here; code 3 is only for runtimes."""
    environ = environment(CONTAINERID="")
    assert refusal(environ) == "required env variables [CNI_CONTAINERID] missing"


@pytest.mark.parametrize("verb", ["add", "Add", "NOPE", " ADD"])
def test_unknown_verb_requires_nothing(verb):
    """[2.2] [21.5] An unknown verb passes here: stdin is judged before it is refused."""
    assert read_environment({"CNI_COMMAND": verb}).verb == verb
    assert verb not in VERBS


@pytest.mark.parametrize("value", ["TRUE", "true", "TrUe", "1"])
def test_netns_override(value):
    """[N-02] [21.12] `TRUE` in any case, or `1`."""
    assert read_environment(environment(NETNS_OVERRIDE=value)).may_share_netns


@pytest.mark.parametrize("value", ["", "yes", "0", "01", "false", "TRUE ", "t"])
def test_netns_override_other_values(value):
    """[N-02] [21.12] Everything else leaves the check on."""
    assert not read_environment(environment(NETNS_OVERRIDE=value)).may_share_netns


def test_del_without_netns():
    """[D-06] [DL-04] DEL does without a namespace."""
    assert read_environment(environment(COMMAND="DEL", NETNS=None)).netns == ""


any_value = st.one_of(
    st.sampled_from([*VERBS, "", "c1", "eth0", "a b", "a" * 16]),
    st.binary(max_size=20).map(os.fsdecode),
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FULL)), any_value))
def test_any_environment(environ):
    """[2.2] [4.2] Whatever the values are: the values themselves, or code 4 with a text."""
    read, error = outcome(read_environment, environ)
    if error:
        assert error.code == Code.INVALID_ENVIRONMENT
        assert error.msg
    else:
        assert list(read) == [environ.get(name, "") for name in FULL]
        assert all(environ[name] for name in REQUIRED.get(read.verb, ()))


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_namespace_that_no_result_could_name(verb):
    """Bytes that are no UTF-8 come from the environment as lone surrogates."""
    assert refusal(environment(COMMAND=verb, NETNS="/run/netns/\udc80")) == "CNI_NETNS is not UTF-8"


def test_delete_goes_on_whatever_the_namespace_is_called():
    assert read_environment(environment(COMMAND="DEL", NETNS="\udc80")).netns == "\udc80"
