"""Reading resolv.conf(5): plugins.md 5.1.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.ipam.resolv_conf import parse_resolv_conf, read_resolv_conf
from cni_py.spec.errors import CniError
from cni_py.spec.results import DNS

words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


def test_every_keyword():
    """[5.1.4] `search` and `options` add up, the last `domain` counts, a `nameserver` is one."""
    text = """
    nameserver 192.0.2.1
    nameserver 2001:db8::1 ignored
    search a.example b.example
    domain first.example
    options ndots:5
    sortlist 10.0.0.0
    search c.example
    domain last.example ignored
    options edns0 rotate
    """
    assert parse_resolv_conf(text) == DNS(
        ("192.0.2.1", "2001:db8::1"),
        "last.example",
        ("a.example", "b.example", "c.example"),
        ("ndots:5", "edns0", "rotate"),
    )


@pytest.mark.parametrize(
    "line",
    [
        *("", "   ", "# nameserver 192.0.2.1", "; nameserver 192.0.2.1", "  #search a"),
        *("nameserver", "search", "#nameserver 192.0.2.1", "NAMESERVER 192.0.2.1", "unknown a b"),
    ],
)
def test_lines_without_meaning(line):
    """[5.1.4] Comments, blanks, a keyword without value and unknown keywords say nothing."""
    assert parse_resolv_conf(f"{line}\nnameserver 192.0.2.9\n") == DNS(("192.0.2.9",))


@pytest.mark.parametrize(
    "text", ["search a\x0bb", "search a\x1cb", "search\ta\x85b", "search a\rb"]
)
def test_only_a_newline_ends_a_line(text):
    """Other characters that Unicode calls line breaks are blanks."""
    assert parse_resolv_conf(text) == DNS(search=("a", "b"))


def test_windows_line_ends():
    assert parse_resolv_conf("nameserver 192.0.2.1\r\nsearch a\r\n") == DNS(
        ("192.0.2.1",), search=("a",)
    )


@given(st.lists(words), words, st.lists(words, min_size=1), st.lists(words, min_size=1))
def test_what_is_written_is_read(nameservers, domain, search, options):
    lines = [f"nameserver {one}" for one in nameservers]
    lines += [f"domain {domain}", f"search {' '.join(search)}", f"options {' '.join(options)}"]
    expected = DNS(tuple(nameservers), domain, tuple(search), tuple(options))
    assert parse_resolv_conf("\n".join(lines)) == expected


@given(st.text())
def test_no_text_is_refused(text):
    assert isinstance(parse_resolv_conf(text), DNS)


def test_a_file(tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_bytes(b"nameserver 192.0.2.1\n# \xff\nsearch a\rb\n")
    assert read_resolv_conf(str(file)) == DNS(("192.0.2.1",), search=("a", "b"))


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(CniError) as caught:
        read_resolv_conf(str(tmp_path / "none"))
    assert caught.value.code == 7
    assert caught.value.msg == (
        f"cannot read ipam.resolvConf {tmp_path}/none: No such file or directory"
    )
