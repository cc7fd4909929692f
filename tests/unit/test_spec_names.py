"""Container ids, network names and interface names: spec.md section 5."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import names
from cni_py.spec.errors import CniError, Code

quick = settings(max_examples=150, deadline=None)

WHITESPACE = "\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
GOOD_WORDS = ["a", "Z", "7", "a..b", "A_b.c-1", "0" * 300]
BAD_WORDS = [
    *("-a", ".a", "_a", "..", ".", "a b", "a%", "a/b", "a\\b", "a:b", "\u00e9", "a\u00e9", "a\0"),
    *("\u0661", "a\u0661", " a"),
]


def outcome(function, *arguments):
    """What the call returned, and the CniError that it raised instead."""
    try:
        return function(*arguments), None
    except CniError as error:
        return None, error


@pytest.mark.parametrize("text", GOOD_WORDS)
def test_container_id(text):
    """[5.1] [19.18] A letter or digit, then zero or more of `[A-Za-z0-9_.-]`; no length limit."""
    assert names.validate_container_id(text) is None


@pytest.mark.parametrize("text", [*BAD_WORDS, "a\n"])
def test_container_id_refused(text):
    """[5.1] [trap 1] [21.4] Code 4 with the id as details; a trailing newline is not overlooked."""
    with pytest.raises(CniError) as caught:
        names.validate_container_id(text)
    assert caught.value.code == Code.INVALID_ENVIRONMENT
    assert caught.value.msg == "invalid characters in containerID"
    assert caught.value.details == text


def test_container_id_empty():
    """[4.3] [19.10] An empty id, which only a runtime can bring here, is code 3."""
    with pytest.raises(CniError) as caught:
        names.validate_container_id("")
    assert (caught.value.code, caught.value.msg) == (3, "missing containerID")


@pytest.mark.parametrize("text", GOOD_WORDS)
def test_network_name(text):
    """[5.2] [19.18] The same pattern as a container id; `a..b` is legal."""
    assert names.validate_network_name(text) is None


@pytest.mark.parametrize("text", [*BAD_WORDS, "a\n"])
def test_network_name_refused(text):
    """[5.2] [trap 1] Code 7 with the name as details."""
    with pytest.raises(CniError) as caught:
        names.validate_network_name(text)
    assert caught.value.code == Code.INVALID_CONFIG
    assert caught.value.msg == "invalid characters found in network name"
    assert caught.value.details == text


def test_network_name_empty():
    """[4.3] The runtime's text has a colon at its end."""
    with pytest.raises(CniError) as caught:
        names.validate_network_name("")
    assert (caught.value.code, caught.value.msg) == (7, "missing network name:")


@quick
@given(st.one_of(st.text(), st.text(alphabet="aZ09_.-/ \n", max_size=8)))
def test_words_follow_the_pattern(text):
    """[5.1] [5.2] Both validators accept exactly what the pattern matches as a whole."""
    allowed = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", text) is not None
    for validate in (names.validate_container_id, names.validate_network_name):
        _, error = outcome(validate, text)
        assert (error is None) == allowed
        assert error is None or (error.code in (3, 4, 7) and error.msg)


def test_ifname_empty():
    """[4.3] An empty name is reported first."""
    with pytest.raises(CniError) as caught:
        names.validate_ifname("")
    assert (caught.value.code, caught.value.msg) == (4, "interface name is empty")


@pytest.mark.parametrize(
    "text", ["e", "eth0", "a" * 15, "\u00e9" * 7 + "a", "...", "a%;b", "net.1"]
)
def test_ifname(text):
    """[5.3] [21.3] Up to 15 bytes; `%`, `;` and non-ASCII characters pass."""
    assert names.validate_ifname(text) is None


@pytest.mark.parametrize("text", ["a" * 16, "a" * 14 + "\u00e9", "a/" * 8, " " * 16, "\udcff" * 16])
def test_ifname_too_long(text):
    """[5.3] [trap 3] [21.3] Bytes are counted, and before the characters are looked at."""
    with pytest.raises(CniError) as caught:
        names.validate_ifname(text)
    assert caught.value.code == Code.INVALID_ENVIRONMENT
    assert caught.value.msg == "interface name is too long"
    assert caught.value.details == "interface name should be less than 16 characters"


@pytest.mark.parametrize("text", [".", ".."])
def test_ifname_dots(text):
    """[5.3] The two names that are folders."""
    with pytest.raises(CniError) as caught:
        names.validate_ifname(text)
    assert (caught.value.code, caught.value.msg) == (4, "interface name is . or ..")
    assert caught.value.details == ""


@pytest.mark.parametrize("character", [*"/:", *WHITESPACE], ids=ascii)
def test_ifname_forbidden_character(character):
    """[5.3] Separators and each of Unicode's blanks."""
    for text in (character, f"a{character}", f"{character}a", f"a{character}b"):
        with pytest.raises(CniError) as caught:
            names.validate_ifname(text)
        assert caught.value.code == Code.INVALID_ENVIRONMENT
        assert caught.value.msg == "interface name contains / or : or whitespace characters"


@pytest.mark.parametrize("character", "\x1c\x1d\x1e\x1f\u200b\u180e", ids=ascii)
def test_ifname_characters_that_only_look_blank(character):
    """[trap 2] `str.isspace` would refuse U+001C to U+001F, which the kernel and Go accept."""
    assert names.validate_ifname(f"a{character}b") is None


@quick
@given(st.one_of(st.text(max_size=20), st.binary(max_size=20).map(os.fsdecode)))
def test_ifname_follows_the_rules(text):
    """[5.3] Accepts exactly what the four rules leave, from any bytes of an environment."""
    allowed = (
        0 < len(os.fsencode(text)) <= 15
        and text not in (".", "..")
        and not set(text) & {"/", ":", *WHITESPACE}
    )
    _, error = outcome(names.validate_ifname, text)
    assert (error is None) == allowed
    if error:
        assert error.code == Code.INVALID_ENVIRONMENT
        assert error.msg.startswith("interface name ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("a" * 16, "is too long"),
        ("..", "is . or .."),
        ("a b", "contains / or : or whitespace characters"),
    ],
)
def test_device_name_of_a_configuration(text, problem):
    """[5.3] [4.2] The same rules for a key of the configuration, with its name and code 7."""
    assert names.validate_device_name("br0", "bridge") is None
    with pytest.raises(CniError) as caught:
        names.validate_device_name(text, "bridge")
    assert caught.value.code == Code.INVALID_CONFIG
    assert caught.value.msg == f'bridge "{text}" {problem}'
    assert caught.value.details
