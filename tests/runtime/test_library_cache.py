"""The result cache: libcni's form, and what is damaged or hostile in it [spec 15]."""

from __future__ import annotations

import base64
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.runtime import CniError, Code, Network, Parameters, Runtime, parse_network
from fixtures.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = b'{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "a"}]}\n'
C1 = Parameters("c1", "/run/netns/c1", args=(("K", "V"),), capabilities={"mac": "x"})


@pytest.fixture
def plugins(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, "a")


@pytest.fixture
def runtime(plugins: Recorder) -> Runtime:
    return Runtime((str(plugins.path),), cache_folder=str(plugins.folder / "cache"))


@pytest.fixture
def network() -> Network:
    return parse_network(SOURCE)


@pytest.fixture
def cached(runtime: Runtime, network: Network, plugins: Recorder) -> Path:
    """The file of an attachment."""
    runtime.add(network, C1)
    return plugins.folder / "cache/results/net-c1-eth0"


def test_form(cached: Path) -> None:
    """[K-01], [K-03]."""
    assert json.loads(cached.read_text()) == {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": base64.b64encode(SOURCE).decode(),
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/c1",
        "cniArgs": [["K", "V"]],
        "capabilityArgs": {"mac": "x"},
        "result": {"cniVersion": "1.1.0", "interfaces": [{"name": "a"}]},
    }
    assert stat.S_IMODE(cached.stat().st_mode) == 0o600
    assert stat.S_IMODE(cached.parent.stat().st_mode) == 0o700
    assert os.listdir(cached.parent) == [cached.name]


def test_empty_members_are_left_out(runtime: Runtime, network: Network, plugins: Recorder) -> None:
    runtime.add(network, Parameters("c1", ""))
    record = json.loads((plugins.folder / "cache/results/net-c1-eth0").read_text())
    assert set(record) == {"kind", "containerId", "config", "ifName", "networkName", "result"}


@pytest.mark.usefixtures("cached")
def test_what_is_known(runtime: Runtime) -> None:
    known = runtime.cached("net", "c1")
    assert known is not None
    assert known.parameters == C1
    assert known.configuration().plugins[0].type == "a"
    assert [one.attachment for one in runtime.attachments().attachments] == [known.attachment]
    assert runtime.cached("net", "c2") is None


def other(**keys: Any) -> str:
    record = {
        "kind": "cniCacheV1", "containerId": "c9", "config": "", "ifName": "eth0",
        "networkName": "net",
    }  # fmt: skip
    return json.dumps(record | keys)


DAMAGED = {
    "empty": "",
    "truncated": '{"kind": "cniCacheV1", "cont',
    "binary": "\0\1\2",
    "another kind": '{"kind": "cniCacheV2"}',
    "a list": "[]",
    "deep": "[" * 100_000,
    "wrong types": other(containerId=5),
    "no base64": other(containerId="c1", config="%%%"),
    "of another": other(),
    "a path": other(containerId="../../etc/passwd"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file(
    runtime: Runtime, network: Network, plugins: Recorder, cached: Path, content: str
) -> None:
    """[14.3], [14.4]: CHECK says so; DEL does without, and takes it away."""
    cached.write_text(content)
    with pytest.raises(CniError) as raised:
        runtime.check(network, C1)
    assert raised.value.code == Code.DECODING_FAILURE
    assert str(cached) in raised.value.msg
    assert list(runtime.attachments().unreadable) == [str(cached)]
    runtime.delete(network, C1)
    assert "prevResult" not in plugins.stdin(2)
    assert not cached.exists()


def test_what_is_no_file(runtime: Runtime, network: Network, cached: Path, tmp_path: Path) -> None:
    """A link is not followed, neither to read nor to write; a fifo or a folder stops nobody."""
    victim = tmp_path / "victim"
    victim.write_bytes(cached.read_bytes())
    before = victim.read_bytes()
    for plant in (
        lambda: cached.symlink_to(victim),
        lambda: os.mkfifo(cached),
        cached.mkdir,
    ):
        cached.unlink()
        plant()
        assert list(runtime.attachments().unreadable) == [str(cached)]
        with pytest.raises(CniError, match="is damaged"):
            runtime.cached("net", "c1")
        runtime.delete(network, C1)
        assert not os.path.lexists(cached)
        plant()
        runtime.add(network, C1)
        assert stat.S_ISREG(cached.lstat().st_mode)
        assert victim.read_bytes() == before
    assert [one.parameters for one in runtime.attachments().attachments] == [C1]


def test_result_of_old(runtime: Runtime, network: Network, plugins: Recorder, cached: Path) -> None:
    """[K-04]: a bare result, which is 0.1.0 where it does not say."""
    cached.write_text('{"ip4": {"ip": "10.0.0.2/8"}}')
    runtime.check(network, C1)
    assert plugins.stdin(2)["prevResult"]["ips"] == [{"address": "10.0.0.2/8"}]
    assert list(runtime.attachments().unreadable) == [str(cached)]


def test_unknown_version(runtime: Runtime, network: Network, cached: Path) -> None:
    record = json.loads(cached.read_text())
    record["result"]["cniVersion"] = "7.0.0"
    cached.write_text(json.dumps(record))
    with pytest.raises(CniError, match="failed to convert cached result"):
        runtime.check(network, C1)
    runtime.delete(network, C1)
    assert not cached.exists()


def test_folder_of_others(
    runtime: Runtime, network: Network, plugins: Recorder, cached: Path
) -> None:
    """Who can write there could have any container's network taken down."""
    cached.parent.chmod(0o777)
    with pytest.raises(CniError, match="can be written by others") as raised:
        runtime.gc(network, [])
    assert raised.value.code == Code.IO_FAILURE
    assert plugins.calls == ["a ADD"]


@pytest.mark.parametrize("undo", [False, True])
def test_result_that_cannot_be_kept(
    runtime: Runtime, network: Network, plugins: Recorder, undo: bool
) -> None:
    """[14.2]: an error, though everything is attached; `undo` detaches it."""
    results = "$folder/cache/results"
    plugins.answer("a", "ADD", f"rm -r {results}; : > {results}; echo '{{}}'")
    with pytest.raises(CniError, match=r"write .*net-c1-eth0: Not a directory"):
        runtime.add(network, C1, undo=undo)
    assert plugins.calls == ["a ADD", *(["a DEL"] if undo else [])]


def test_name_that_no_file_can_have(runtime: Runtime, network: Network, plugins: Recorder) -> None:
    """Before anything is made."""
    with pytest.raises(CniError, match="too long together"):
        runtime.add(network, Parameters("c" * 250, "/x"))
    assert plugins.calls == []
