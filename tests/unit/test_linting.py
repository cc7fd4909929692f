"""What `cni-py lint` says of a text, and where: lines and columns as a person counts them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.lint import File, Host, lint
from cni_py.spec import located
from fixtures.host import ROOT


def findings(text: str | bytes, host: Host = Host(), name: str = "a.conflist") -> list[str]:  # noqa: B008
    data = text.encode() if isinstance(text, str) else text
    return [
        str(one).removeprefix(f"{name}:") for one in lint([File(name, located.parse(data))], host)
    ]


def network(*plugins: dict, **keys: object) -> str:
    """A list, a plugin a line: the first one's line is 1."""
    head = {"cniVersion": "1.0.0", "name": "n", **keys}
    listed = ",\n".join(json.dumps(one) for one in plugins)
    return json.dumps(head)[:-1] + f', "plugins": [\n{listed}]}}'


HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}
BRIDGE = {"type": "bridge", "isGateway": True, "ipam": HOST_LOCAL}

SYNTAX = {
    '{"a": 1,}': "1:8: error: nothing follows this comma but `}`; take it out",
    '{"a" 1}': '1:6: error: expected `:` after the key "a"',
    '{"a": 1\n "b": 2}': "2:2: error: expected `,` or `}`, got `\"`",
    '{a: 1}': '1:2: error: the key a has no quotes; write "a"',
    "{'a': 1}": '1:2: error: a string has double quotes; write "..."',
    '{"a": True}': "1:7: error: `True` is no JSON; write true",
    '{"a": NaN}': "1:7: error: JSON has no NaN",
    '{"a": 012}': "1:7: error: `012` is no number of JSON; no +, no leading 0, no other base",
    '{"a": "\t"}': "1:8: error: a tab stands in a string; write \\t",
    '// x\n{"a": 1}': "1:1: error: JSON has no comments; take it out; an unknown key can hold text",
    "\ufeff{}": "1:1: error: a byte order mark (BOM) stands before the JSON; save without BOM",
    '{"a": [1}': "1:9: error: `}` does not close `[`; `]` does",
    '{"a": 1': "1:8: error: the text ends inside the object that begins in line 1, column 1; "
    "`}` closes it",
    "": "1:1: error: there is no JSON in it; a network is an object: {...}",
    '{"a": "x\n}': "1:7: error: this string does not end in its line; a `\"` closes it",
    "[" * 200: "1:101: error: it is nested more than 100 levels deep",
    '{"a": "\\q"}': "1:8: error: `\\q` is no escape in a string; a backslash is `\\\\`",
    "{} x": "1:4: error: `x` stands after the end of the JSON",
}  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), SYNTAX.items())
def test_syntax(text: str, wanted: str) -> None:
    assert wanted in findings(text)


def cases() -> list[tuple[str, list[str]]]:
    """What stands in lint_meanings.txt."""
    blocks = (ROOT / "tests" / "unit" / "lint_meanings.txt").read_text().split("-----\n")[1:]
    split = (one.split("\n=>\n") for one in blocks)
    return [(text, answer.splitlines()) for text, answer in split]


@pytest.mark.parametrize(("text", "wanted"), cases())
def test_meaning(text: str, wanted: list[str]) -> None:
    assert findings(text) == wanted


def test_list_called_conf() -> None:
    wanted = "1:38: error: a .conf has one plugin, and this is a list: runtimes refuse it; "
    assert findings(network(BRIDGE), name="a.conf") == [wanted + "call the file .conflist"]


def test_missing_executable() -> None:
    host = Host("/opt/cni/bin", frozenset({"bridge", "my-plugin"}), has_executables=True)
    text = network({"type": "bridge", "ipam": {"type": "static"}}, {"type": "my-plugn"})
    assert findings(text, host) == [
        "2:37: error: /opt/cni/bin has no executable static; cni-py install writes it",
        "3:10: error: /opt/cni/bin has no executable my-plugn; did you mean my-plugin?",
    ]


def together(*texts: str) -> list[str]:
    files = [
        File(f"{index}.conflist", located.parse(one.encode())) for index, one in enumerate(texts)
    ]
    return [str(one) for one in lint(files, Host())]


def test_together() -> None:
    """Names, addresses and bridges of several files; the same bridge and ranges apart is fine."""
    assert together(network(BRIDGE), network({"type": "loopback"})) == [
        (
            '1.conflist:1:33: warning: the network "n" is in 0.conflist too; '
            "runtimes take one of them: give each its own name"
        )
    ]
    other = {**BRIDGE, "bridge": "cni9"}
    assert together(network(BRIDGE), network(other, name="m")) == [
        (
            "1.conflist:2:93: warning: n (0.conflist) gives addresses of 10.1.0.0/16 too; "
            "one address may be given out twice: give each network its own range"
        )
    ]
    moved = {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/16"}]]}
    assert "cni0 has the address 10.1.0.1" in together(
        network(BRIDGE), network({**BRIDGE, "ipam": moved}, name="m")
    )[0]  # fmt: skip
    assert together(network(BRIDGE), network({**other, "ipam": moved}, name="m")) == []


def test_examples_are_clean() -> None:
    files = [
        File(one.name, located.parse(one.read_bytes()))
        for one in sorted((ROOT / "conf").glob("*.conflist"))
    ]
    assert lint(files, Host()) == []


JSONISH = st.one_of(
    st.binary(max_size=200),
    st.text("{}[]\",:\\'1e-.tnu/*# \n\ufeff", max_size=60).map(str.encode),
    st.builds(
        lambda text, at, with_: text[:at] + with_ + text[at + 1 :],
        st.sampled_from([network(BRIDGE, {"type": "portmap"}).encode()]),
        st.integers(0, 250),
        st.binary(max_size=3),
    ),
)


@given(JSONISH)
def test_any_bytes(data: bytes) -> None:
    """Nothing raises; each finding lies within the file; without a mistake it is JSON."""
    parsed = located.parse(data)
    lines = data.decode(errors="replace").split("\n")
    for one in lint([File("a.conflist", parsed)], Host()):
        assert 1 <= one.line <= len(lines)
        assert 1 <= one.column <= len(lines[one.line - 1]) + 1
    if not parsed.mistakes:
        assert parsed.root is not None
        json.loads(data)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(JSON_VALUES, st.booleans())
def test_reads_as_json_does(value: object, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=1)
    if "\\ud" in text:
        return
    parsed = located.parse(text.encode(errors="surrogatepass"))
    if not parsed.mistakes:
        assert parsed.root is not None
        assert parsed.root.plain() == value


def test_folder_of_files() -> None:
    from cni_py.lint import collect

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "20-b.conflist").write_text(network(BRIDGE, name="b"))
        Path(folder, "10-a.conf").write_text(
            json.dumps({"name": "a", "cniVersion": "1.0.0", **BRIDGE})
        )
        Path(folder, "notes.txt").write_text("x")
        files, unreadable = collect([folder])
        assert [Path(one.name).name for one in files] == ["10-a.conf", "20-b.conflist"]
        assert unreadable == []
        alone, _ = collect([f"{folder}/20-b.conflist"])
        assert [one.is_asked for one in alone] == [True, False]
        said = [str(one) for one in lint(files, Host(), [f"{folder}/"])]
        assert any("info: of" in one and "take this one: a" in one for one in said)
