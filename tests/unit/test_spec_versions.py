"""Protocol versions: spec.md sections 1, 2.3 and 7."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import versions
from cni_py.spec.errors import CniError, Code

quick = settings(max_examples=150, deadline=None)


def outcome(function, *arguments):
    """What the call returned, and the CniError that it raised instead."""
    try:
        return function(*arguments), None
    except CniError as error:
        return None, error


def test_newest_version():
    """[V-01] Nothing is newer than 1.1.0."""
    assert versions.NEWEST == "1.1.0"


def test_all_versions_in_order():
    """[V-02] The full list, oldest first."""
    assert versions.ALL == ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


def test_families_partition_the_versions():
    """[8.1] Three families cover the seven versions, and `""` belongs to the oldest."""
    assert versions.FAMILY_020 == ("", "0.1.0", "0.2.0")
    assert versions.FAMILY_040 == ("0.3.0", "0.3.1", "0.4.0")
    assert versions.FAMILY_100 == ("1.0.0", "1.1.0")
    joined = versions.FAMILY_020 + versions.FAMILY_040 + versions.FAMILY_100
    assert joined == ("", *versions.ALL)


@pytest.mark.parametrize("index", range(7))
def test_starting_from_a_known_version(index):
    """[V-03] The list from a version on, that version included."""
    rest = versions.starting_from(versions.ALL[index])
    assert rest == versions.ALL[index:]


@pytest.mark.parametrize("unknown", ["", "0.3", "1.2.0", "v1.0.0", "01.0.0"])
def test_starting_from_an_unknown_version(unknown):
    """[V-03] What is not an element of the list is a ValueError."""
    with pytest.raises(ValueError, match="not in tuple"):
        versions.starting_from(unknown)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        pytest.param("", (0, 1, 0), id="[VS-01] empty"),
        pytest.param("1", (1, 0, 0), id="[VS-01] one part"),
        pytest.param("1.1", (1, 1, 0), id="[VS-01] two parts"),
        pytest.param("0.3.1", (0, 3, 1), id="[VS-01] three parts"),
        pytest.param("0.-42.0", (0, -42, 0), id="[VS-02] minus"),
        pytest.param("+1.+0.0", (1, 0, 0), id="[VS-02] plus"),
        pytest.param("01.002.0", (1, 2, 0), id="[VS-02] leading zeros"),
    ],
)
def test_parse(text, parsed):
    assert versions.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "msg"),
    [
        pytest.param(
            "1.2.3.4.5", 'invalid version "1.2.3.4.5": too many parts', id="[VS-04] five parts"
        ),
        pytest.param(
            "1.0.0.0", 'invalid version "1.0.0.0": too many parts', id="[VS-01] four parts"
        ),
        *(
            pytest.param(
                text, f'failed to convert {name} version part "{part}": invalid syntax', id=case
            )
            for case, text, name, part in [
                ("[VS-04] word", "asdf.", "major", "asdf"),
                ("[VS-04] no minor", "0.", "minor", ""),
                ("[VS-04] only dots", "..", "major", ""),
                ("[VS-03] release candidate", "1.0.0-rc1", "micro", "0-rc1"),
                ("[VS-03] build metadata", "1.0.0+b1", "micro", "0+b1"),
                ("[VS-02] v", "v1.1.0", "major", "v1"),
                ("[VS-02] two signs", "+-1", "major", "+-1"),
                ("[VS-02] sign alone", "1.-", "minor", "-"),
                ("[trap 10] blank", " 1.0.0", "major", " 1"),
                ("[trap 10] underscore", "1_0.0", "major", "1_0"),
                ("[trap 10] newline", "1.0.0\n", "micro", "0\n"),
                ("[trap 10] Arabic digits", "1.\u0661.0", "minor", "\u0661"),
                ("[trap 10] superscript", "1.\u00b2.0", "minor", "\u00b2"),
            ]
        ),
    ],
)
def test_parse_refuses(text, msg):
    with pytest.raises(CniError) as caught:
        versions.parse(text)
    assert caught.value.code == Code.DECODING_FAILURE
    assert caught.value.msg == msg


@quick
@given(st.one_of(st.text(alphabet="0123456789.+-v \n\u0661", max_size=12), st.text()))
def test_parse_follows_the_grammar(text):
    """[VS-01] [VS-02] Three signed decimals at most; everything else is error 6, never another."""
    allowed = re.fullmatch(r"[+-]?[0-9]{1,18}(\.[+-]?[0-9]{1,18}){0,2}", text) or text == ""
    parsed, error = outcome(versions.parse, text)
    assert (error is None) == bool(allowed)
    if error:
        assert error.code == Code.DECODING_FAILURE
        assert error.msg.startswith(("failed to convert m", "invalid version "))
    else:
        numbers = [int(part) for part in (text or "0.1.0").split(".")]
        assert list(parsed) == [*numbers, 0, 0][:3]


@quick
@given(st.tuples(*[st.integers(-999, 999)] * 3), st.tuples(*[st.integers(-999, 999)] * 3))
def test_comparison_is_numeric(left, right):
    """[VS-04] 0.10.0 is newer than 0.9.0."""
    texts = [".".join(map(str, one)) for one in (left, right)]
    assert (versions.parse(texts[0]) < versions.parse(texts[1])) == (left < right)


@pytest.mark.parametrize("version", versions.ALL)
def test_gate_lets_a_supported_version_through(version):
    """[2.3] Membership is all that counts."""
    assert versions.require_exact(version, versions.ALL) is None


@pytest.mark.parametrize(
    "version", ["1.1", "v1.1.0", "9.9.9", "", "01.0.0", "garbage"], ids="[VS-05] {!r}".format
)
def test_gate_compares_text(version):
    """[VS-05] [2.3] Plain string equality: no ranges, no numeric equality."""
    with pytest.raises(CniError) as caught:
        versions.require_exact(version, ("0.4.0", "1.0.0"))
    assert caught.value.code == Code.INCOMPATIBLE_VERSION
    assert caught.value.msg == "incompatible CNI versions"
    assert caught.value.details == f'config is "{version}", plugin supports ["0.4.0" "1.0.0"]'


FLOORS = [("CHECK", "0.4.0", "0.3.1"), ("GC", "1.1.0", "1.0.0"), ("STATUS", "1.1.0", "1.0.0")]


@pytest.mark.parametrize(("verb", "floor", "below"), FLOORS)
def test_verb_below_its_floor(verb, floor, below):
    """[2.3] [21.8] A configuration older than the verb is refused with code 1."""
    for version in (below, "", "0.1.0"):
        with pytest.raises(CniError) as caught:
            versions.require_verb(verb, floor, version, versions.ALL)
        assert caught.value.code == Code.INCOMPATIBLE_VERSION
        assert caught.value.msg == f"config version does not allow {verb}"


@pytest.mark.parametrize(("verb", "floor"), [row[:2] for row in FLOORS])
def test_verb_at_its_floor(verb, floor):
    """[2.3] The floor itself is allowed, and so is what is newer."""
    for version in versions.starting_from(floor):
        assert versions.require_verb(verb, floor, version, versions.ALL) is None


@pytest.mark.parametrize(("verb", "floor", "below"), FLOORS)
def test_verb_of_a_plugin_that_is_too_old(verb, floor, below):
    """[21.8] No supported version reaches the configuration's."""
    with pytest.raises(CniError) as caught:
        versions.require_verb(verb, floor, floor, ("0.1.0", below))
    assert caught.value.code == Code.INCOMPATIBLE_VERSION
    assert caught.value.msg == f"plugin version does not allow {verb}"


def test_verb_with_a_version_between_the_supported_ones():
    """[D-02] Above the floor and below a supported one, but not listed: the exact gate refuses."""
    with pytest.raises(CniError) as caught:
        versions.require_verb("CHECK", "0.4.0", "0.5.0", ("0.4.0", "1.0.0"))
    assert caught.value.code == Code.INCOMPATIBLE_VERSION
    assert caught.value.msg == "incompatible CNI versions"


def test_malformed_supported_version_that_is_reached():
    """[D-03] The walk meets the malformed entry first: code 6."""
    with pytest.raises(CniError) as caught:
        versions.require_verb("CHECK", "0.4.0", "1.0.0", ("0.4.0", "0.x.0", "1.0.0"))
    assert caught.value.code == Code.DECODING_FAILURE
    assert caught.value.msg == 'failed to convert minor version part "x": invalid syntax'


def test_malformed_supported_version_that_is_not_reached():
    """[D-03] A satisfying entry ends the walk before the malformed one."""
    assert versions.require_verb("CHECK", "0.4.0", "1.0.0", ("1.0.0", "0.x.0")) is None


@pytest.mark.parametrize(("verb", "floor"), [row[:2] for row in FLOORS])
def test_unparsable_version_of_a_gated_verb(verb, floor):
    """[D-04] CHECK, GC and STATUS read the version as numbers: garbage is code 6."""
    with pytest.raises(CniError) as caught:
        versions.require_verb(verb, floor, "garbage", versions.ALL)
    assert caught.value.code == Code.DECODING_FAILURE
