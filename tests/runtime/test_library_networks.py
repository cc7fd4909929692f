"""Loading networks: what is read, in which order, and what is refused [spec 13]."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.runtime import (
    CniError,
    Code,
    UnknownNetworkError,
    load_file,
    load_folder,
    load_network,
    parse_network,
    parse_plugin,
)

if TYPE_CHECKING:
    from pathlib import Path


def document(**keys: Any) -> bytes:
    return json.dumps(
        {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a"}], **keys}
    ).encode()


def refused(data: bytes) -> CniError:
    with pytest.raises(CniError) as raised:
        parse_network(data)
    return raised.value


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "1.0.0"),
        ({"cniVersion": "1.2.3"}, "1.2.3"),
        ({"cniVersions": ["0.4.0", "1.1.0", "1.0.0"]}, "1.1.0"),
        ({"cniVersions": ["0.4.0", "9.9.9"]}, "1.0.0"),
        ({"cniVersion": "", "cniVersions": ["0.3.1", "0.4.0"]}, "0.4.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["9.0.0"]}, "2.0.0"),
        ({"cniVersion": "", "cniVersions": []}, ""),
    ],
)
def test_version_of_a_list(keys: dict[str, Any], expected: str) -> None:
    """[N-10] to [N-12]."""
    assert parse_network(document(**keys)).version == expected


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": None}, "no name"),
        ({"name": 5}, "invalid name type int"),
        ({"name": ""}, "missing network name"),
        ({"name": "../x"}, "invalid characters found in network name"),
        ({"cniVersion": 1}, "invalid cniVersion type int"),
        ({"cniVersions": "1.0.0"}, "invalid cniVersions type str"),
        ({"cniVersions": [1]}, "invalid type for cniVersions index 0: int"),
        ({"cniVersions": ["1.0.0", "x"]}, "invalid cniVersions entry x at index 1"),
        ({"cniVersion": "x", "cniVersions": []}, "invalid cniVersion x: failed to convert"),
        ({"disableCheck": 1}, "invalid type int for disableCheck"),
        ({"disableGC": "Maybe"}, 'invalid value "maybe" for disableGC'),
        ({"plugins": {}}, "invalid plugins type object"),
        ({"plugins": []}, "no plugins in list"),
        ({"plugins": [{"type": "a"}, {}]}, "failed to parse plugin config 1: error parsing"),
        ({"plugins": [5]}, "failed to parse plugin config 0"),
        ({"plugins": [{"type": "../a"}]}, "invalid plugin name: ../a"),
        ({"plugins": [{"type": "a", "capabilities": {"x": 1}}]}, "capabilities of a must map"),
    ],
)
def test_refused_lists(keys: dict[str, Any], said: str) -> None:
    """[13.2], and names that would lead out of a folder [L-10, L-22]."""
    error = refused(document(**keys))
    assert error.code == Code.INVALID_CONFIG
    assert said in error.msg


@pytest.mark.parametrize("data", [b"", b"[]", b"nul", b"\xff\xfe", b"[" * 100_000])
def test_no_json_object(data: bytes) -> None:
    assert refused(data).code == Code.DECODING_FAILURE


@settings(max_examples=50)
@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "name",
                        "type",
                        "plugins",
                        "cniVersion",
                        "cniVersions",
                        "disableGC",
                        "capabilities",
                    ]
                ),
                inner,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_is_read_or_refused(data: bytes) -> None:
    for parse in (parse_network, parse_plugin):
        with suppress(CniError):
            parse(data)


def test_flags_may_be_text() -> None:
    read = parse_network(document(disableCheck="TRUE", disableGC=True))
    assert (read.disable_check, read.disable_gc) == (True, True)


def test_single_plugin_becomes_a_list() -> None:
    """[L-31]: the cache gets the list."""
    read = parse_network(
        b'{"name": "n", "cniVersion": "0.4.0", "type": "a", "big": 9007199254740993}'
    )
    assert (read.name, read.version, [one.type for one in read.plugins]) == ("n", "0.4.0", ["a"])
    assert json.loads(read.source)["plugins"][0]["big"] == 9007199254740993


class TestFolder:
    @staticmethod
    def fill(folder: Path) -> None:
        (folder / "20.conflist").write_bytes(document(name="two"))
        (folder / "10.conflist").write_bytes(document(name="one"))
        (folder / "00.conf").write_text('{"name": "one", "type": "single"}')
        (folder / "30.json").write_text('{"name": "three", "type": "single"}')
        (folder / "note.txt").write_text("nothing")
        (folder / "40.conflist").mkdir()

    def test_by_name(self, tmp_path: Path) -> None:
        """[L-03], [L-04]: a list comes before a single plugin, whatever their numbers are."""
        self.fill(tmp_path)
        assert load_network("one", str(tmp_path)).path == str(tmp_path / "10.conflist")
        assert load_network("three", str(tmp_path)).plugins[0].type == "single"
        names = [one.name for one in load_folder(str(tmp_path)).networks]
        assert names == ["one", "two", "one", "three"]

    def test_unknown(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        (tmp_path / "05.conflist").write_text("{")
        with pytest.raises(UnknownNetworkError) as raised:
            load_network("tow", str(tmp_path))
        said = str(raised.value)
        assert "did you mean two?; there are: one, two, three; cannot be read: " in said
        assert "05.conflist" in said
        assert len(load_folder(str(tmp_path)).unreadable) == 1

    def test_no_folder(self, tmp_path: Path) -> None:
        """[L-02], [L-05]."""
        missing = str(tmp_path / "missing")
        assert load_folder(missing).networks == ()
        with pytest.raises(UnknownNetworkError, match="no net configurations found"):
            load_network("n", missing)

    def test_drop_ins(self, tmp_path: Path) -> None:
        """[L-20] to [L-23]: after the inlined ones, by their names; nothing but `.conf`."""
        path = tmp_path / "10.conflist"
        path.write_bytes(document())
        folder = tmp_path / "n"
        folder.mkdir()
        for name in ("20.conf", "10.conf", "30.json", "40.conflist"):
            (folder / name).write_text(json.dumps({"type": name.partition(".")[0]}))
        assert [one.type for one in load_file(str(path)).plugins] == ["a", "10", "20"]
        path.write_bytes(document(loadOnlyInlinedPlugins="true"))
        assert [one.type for one in load_file(str(path)).plugins] == ["a"]
        path.write_text('{"name": "n"}')
        assert [one.type for one in load_file(str(path)).plugins] == ["10", "20"]
        path.write_text('{"name": "other"}')
        with pytest.raises(CniError, match="no plugin configs found"):
            load_file(str(path))
        path.write_text('{"name": "n", "loadOnlyInlinedPlugins": true}')
        with pytest.raises(CniError, match="there are no plugins"):
            load_file(str(path))
        path.write_bytes(document())
        (folder / "15.conf").write_text("{}")
        with pytest.raises(
            CniError, match=r"15\.conf: error parsing configuration: missing 'type'"
        ):
            load_file(str(path))

    def test_list_in_a_conf(self, tmp_path: Path) -> None:
        """[L-06]: other runtimes would not find it."""
        path = tmp_path / "10.conf"
        path.write_bytes(document())
        with pytest.raises(CniError, match="missing 'type'") as raised:
            load_file(str(path))
        assert "must be called .conflist" in raised.value.details

    def test_no_file(self, tmp_path: Path) -> None:
        """What is there and is no file is refused, and keeps nobody waiting."""
        os.mkfifo(tmp_path / "a.conflist")
        (tmp_path / "b.conflist").symlink_to(tmp_path)
        for name in ("a.conflist", "b.conflist", "c.conflist"):
            with pytest.raises(CniError, match=r"\.conflist: cannot be read: "):
                load_file(str(tmp_path / name))

    def test_link_to_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_bytes(document())
        (tmp_path / "a.conflist").symlink_to("real")
        assert load_network("n", str(tmp_path)).name == "n"
