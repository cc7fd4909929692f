"""Calling a network's plugins: order, configuration, environment, errors, limits [spec 10, 14]."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.runtime import (
    Cancellation,
    CniError,
    Code,
    GivenUpError,
    Network,
    Parameters,
    PluginError,
    Runtime,
    SeveralErrors,
    parse_network,
)
from fixtures.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

C1 = Parameters("c1", "/run/netns/none-such")
_SECONDS = 20


def network(*plugins: dict[str, Any], **keys: Any) -> Network:
    listed = plugins or ({"type": "a"}, {"type": "b"}, {"type": "c"})
    return parse_network(
        json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": listed, **keys}).encode()
    )


@pytest.fixture
def plugins(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, "a", "b", "c")


@pytest.fixture
def runtime(plugins: Recorder) -> Runtime:
    return Runtime((str(plugins.path),), cache_folder=str(plugins.folder / "cache"))


def test_order_and_previous_results(runtime: Runtime, plugins: Recorder) -> None:
    """[14.2] to [14.4], [PR-01], [PR-02]."""
    added = runtime.add(network(), C1)
    assert added.document == {"cniVersion": "1.1.0", "interfaces": [{"name": "c"}]}
    assert added.result.interfaces[0].name == "c"
    runtime.check(network(), C1)
    runtime.delete(network(), C1)
    runtime.delete(network(), C1)
    orders = [f"{one} ADD" for one in "abc"] + [f"{one} CHECK" for one in "abc"]
    assert plugins.calls == orders + 2 * [f"{one} DEL" for one in "cba"]
    previous = [plugins.stdin(number).get("prevResult") for number in range(1, 13)]
    final = added.document
    first = {"cniVersion": "1.1.0", "interfaces": [{"name": "a"}]}
    second = {"cniVersion": "1.1.0", "interfaces": [{"name": "b"}]}
    assert previous == [None, first, second, *6 * [final], *3 * [None]]


def test_configuration(runtime: Runtime, plugins: Recorder) -> None:
    """[RC-01] to [RC-06], [CP-01]: what is not for plugins goes, everything else stays."""
    one = {
        "type": "a",
        "name": "own",
        "cniVersion": "0.3.0",
        "capabilities": {"mac": True, "ips": False},
        "prevResult": {"planted": True},
        "big": 2**60 + 1,
        "nested": {"é": [1, None]},
    }
    wanted = {"mac": "02:00:00:00:00:01", "ips": ["10.0.0.1/8"], "unknown": 5}
    runtime.add(network(one), Parameters("c1", "/ns", "eth7", (("K", "V"), ("L", "")), wanted))
    assert plugins.stdin(1) == {
        "type": "a",
        "name": "net",
        "cniVersion": "1.1.0",
        "big": 2**60 + 1,
        "nested": {"é": [1, None]},
        "runtimeConfig": {"mac": "02:00:00:00:00:01"},
    }
    environ = plugins.environ(1)
    assert {key: environ[key] for key in environ if key.startswith("CNI_")} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/ns",
        "CNI_IFNAME": "eth7",
        "CNI_ARGS": "K=V;L=",
        "CNI_PATH": str(plugins.path),
    }


def test_previous_result_in_the_version_of_the_network(runtime: Runtime, plugins: Recorder) -> None:
    """[K-04]: converted for CHECK and DEL; not given to a DEL before 0.4.0."""
    old = network({"type": "a"}, cniVersion="0.4.0")
    runtime.add(old, C1)
    runtime.check(old, C1)
    assert plugins.stdin(2)["prevResult"]["cniVersion"] == "0.4.0"
    runtime.delete(old.in_version("0.3.1"), C1)
    assert "prevResult" not in plugins.stdin(3)
    assert runtime.cached("net", "c1") is None


def test_trace(runtime: Runtime, plugins: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """[OT-01] to [OT-05]: inherited, or replaced as a whole."""
    monkeypatch.setenv("TRACEPARENT", "00-inherited")
    monkeypatch.setenv("BAGGAGE", "old=1")
    runtime.status(network({"type": "a"}))
    runtime.traced("00-new", state="x=1").status(network({"type": "a"}))
    inherited, own = plugins.environ(1), plugins.environ(2)
    assert (inherited["TRACEPARENT"], inherited["BAGGAGE"]) == ("00-inherited", "old=1")
    assert (own["TRACEPARENT"], own["TRACESTATE"]) == ("00-new", "x=1")
    assert "BAGGAGE" not in own
    assert own["PATH"] == os.environ["PATH"]


def test_failing_add(runtime: Runtime, plugins: Recorder) -> None:
    """[14.2]: the first failure ends it, nothing is undone or kept."""
    error = {"code": 7, "msg": "bad key", "details": "x is 1"}
    plugins.answer("b", "ADD", f"echo '{json.dumps(error)}'; exit 1")
    with pytest.raises(PluginError) as raised:
        runtime.add(network(), C1)
    found = raised.value
    assert (found.type, found.index, found.verb, found.code) == ("b", 1, "ADD", 7)
    assert str(found) == 'plugin type="b" failed (add): bad key; x is 1'
    assert plugins.calls == ["a ADD", "b ADD"]
    assert runtime.attachments().attachments == ()


def test_failing_add_that_is_undone(runtime: Runtime, plugins: Recorder) -> None:
    """Every DEL runs, also after one that fails, which the error mentions."""
    plugins.answer("b", "ADD", "exit 3")
    plugins.answer("b", "DEL", 'echo \'{"code": 5, "msg": "disk"}\'; exit 1')
    with pytest.raises(PluginError, match="exit status 3") as raised:
        runtime.add(network(), C1, undo=True)
    assert plugins.calls == ["a ADD", "b ADD", "c DEL", "b DEL", "a DEL"]
    assert plugins.stdin(5)["prevResult"] == {"cniVersion": "1.1.0", "interfaces": [{"name": "a"}]}
    assert raised.value.__notes__ == [
        'and it could not be undone: plugin type="b" failed (delete): disk'
    ]


def test_second_add_is_not_undone(runtime: Runtime, plugins: Recorder) -> None:
    """The DELs would take away what the first one has made."""
    runtime.add(network(), C1)
    plugins.answer("a", "ADD", "exit 1")
    with pytest.raises(PluginError):
        runtime.add(network(), C1, undo=True)
    assert plugins.calls[3:] == ["a ADD"]
    assert runtime.cached("net", "c1") is not None


@pytest.mark.parametrize("answer", ["true", "echo x", "echo []", "echo '{\"ips\": 5}'"])
def test_result_that_is_none(runtime: Runtime, plugins: Recorder, answer: str) -> None:
    """[X-30]."""
    plugins.answer("a", "ADD", answer)
    with pytest.raises(PluginError, match="failed to unmarshal raw result") as raised:
        runtime.add(network(), C1)
    assert raised.value.code == Code.DECODING_FAILURE


def test_result_without_a_version(runtime: Runtime, plugins: Recorder) -> None:
    """[X-31]; null is an empty result [X-30]."""
    plugins.answer("a", "ADD", "echo null")
    assert runtime.add(network({"type": "a"}), C1).document == {"cniVersion": "1.1.0"}


def test_failing_del_can_be_done_again(runtime: Runtime, plugins: Recorder) -> None:
    """[14.4]: it stops, and the cache is kept."""
    runtime.add(network(), C1)
    plugins.answer("b", "DEL", "exit 1")
    with pytest.raises(PluginError, match=r'type="b" failed \(delete\)'):
        runtime.delete(network(), C1)
    assert plugins.calls[3:] == ["c DEL", "b DEL"]
    assert runtime.cached("net", "c1") is not None
    plugins.answer("b", "DEL", "true")
    runtime.delete(network(), C1)
    assert runtime.cached("net", "c1") is None


def test_check_rules(runtime: Runtime, plugins: Recorder) -> None:
    """[14.3]: the version comes before `disableCheck`; without a cache there is no prevResult."""
    with pytest.raises(CniError, match="does not support the CHECK command") as raised:
        runtime.check(network(cniVersion="0.3.1", disableCheck=True), C1)
    assert raised.value.code == Code.INCOMPATIBLE_VERSION
    runtime.check(network(disableCheck=True), C1)
    assert plugins.calls == []
    runtime.check(network(), C1)
    assert "prevResult" not in plugins.stdin(1)


def test_status(runtime: Runtime, plugins: Recorder) -> None:
    """[14.6]: not before 1.1.0; the first refusal ends it, its code stays."""
    runtime.status(network(cniVersion="1.0.0"))
    assert plugins.calls == []
    plugins.answer("b", "STATUS", 'echo \'{"code": 51, "msg": "no uplink"}\'; exit 1')
    with pytest.raises(PluginError) as raised:
        runtime.status(network())
    assert (raised.value.code, raised.value.type) == (51, "b")
    assert plugins.calls == ["a STATUS", "b STATUS"]
    assert plugins.environ(1)["CNI_CONTAINERID"] == ""


@pytest.mark.parametrize("bad", [("", "eth0"), ("../x", "eth0"), ("c1", ""), ("c1", "a/b")])
def test_bad_parameters(runtime: Runtime, plugins: Recorder, bad: tuple[str, str]) -> None:
    """Nothing is called, and no path leads out of the cache."""
    parameters = Parameters(bad[0], "/ns", bad[1])
    for method in (runtime.add, runtime.check, runtime.delete):
        with pytest.raises(CniError):
            method(network(), parameters)
    assert plugins.calls == []


class TestGc:
    def test_with_a_list(self, runtime: Runtime, plugins: Recorder) -> None:
        """[14.5]: a DEL for each that is cached and not valid, then GC with both keys."""
        for name in ("c1", "c2"):
            runtime.add(network({"type": "a"}), Parameters(name, f"/{name}"))
        runtime.add(network({"type": "a"}, name="other"), Parameters("c2", "/x"))
        gone = runtime.gc(network({"type": "a"}), [("c1", "eth0"), ("c9", "eth1")])
        assert [one.container_id for one in gone] == ["c2"]
        assert plugins.calls[3:] == ["a DEL", "a GC"]
        assert plugins.environ(4)["CNI_NETNS"] == "/c2"
        listed = [
            {"containerID": "c1", "ifname": "eth0"},
            {"containerID": "c9", "ifname": "eth1"},
        ]
        config = plugins.stdin(5)
        assert config["cni.dev/valid-attachments"] == config["cni.dev/attachments"] == listed
        assert "prevResult" not in config
        left = {
            (one.network, one.parameters.container_id) for one in runtime.attachments().attachments
        }
        assert left == {("net", "c1"), ("other", "c2")}

    def test_from_the_cache(self, runtime: Runtime, plugins: Recorder) -> None:
        """What has its namespace is valid, and what says none; the rest is deleted."""
        alive = f"/proc/{os.getpid()}/ns/net"
        for name, netns in (("c1", alive), ("c2", "/run/netns/none-such"), ("c3", "")):
            runtime.add(network({"type": "a"}), Parameters(name, netns))
        assert [one.container_id for one in runtime.gc(network({"type": "a"}))] == ["c2"]
        listed = plugins.stdin(5)["cni.dev/valid-attachments"]
        assert [one["containerID"] for one in listed] == ["c1", "c3"]

    def test_goes_on(self, runtime: Runtime, plugins: Recorder) -> None:
        runtime.add(network(), C1)
        plugins.answer("b", "DEL", "exit 1")
        plugins.answer("a", "GC", "exit 2")
        with pytest.raises(SeveralErrors) as raised:
            runtime.gc(network(), [])
        assert [str(one) for one in raised.value.errors] == [
            (
                'failed to delete stale attachment c1 eth0: plugin type="b" failed (delete): '
                "netplugin failed with no error message: exit status 1"
            ),
            'plugin type="a" failed (gc): netplugin failed with no error message: exit status 2',
        ]
        assert plugins.calls[-3:] == ["a GC", "b GC", "c GC"]

    def test_disabled_or_too_old(self, runtime: Runtime, plugins: Recorder) -> None:
        runtime.add(network({"type": "a"}, cniVersion="1.0.0"), C1)
        runtime.gc(network({"type": "a"}, disableGC=True), [])
        assert plugins.calls == ["a ADD"]
        runtime.gc(network({"type": "a"}, cniVersion="1.0.0"), [])
        assert plugins.calls == ["a ADD", "a DEL"]

    def test_damaged_cache(self, runtime: Runtime, plugins: Recorder) -> None:
        """What lives is not known then: nothing is collected without a list."""
        runtime.add(network({"type": "a"}), C1)
        (plugins.folder / "cache/results/net-c2-eth0").write_text('{"kind"')
        with pytest.raises(CniError, match=r"GC does not know whose .*net-c2-eth0 is"):
            runtime.gc(network({"type": "a"}))
        assert plugins.calls == ["a ADD"]
        runtime.gc(network({"type": "a"}), [("c2", "eth0")])
        assert plugins.calls == ["a ADD", "a DEL", "a GC"]


class TestVersions:
    def test_validate(self, runtime: Runtime, plugins: Recorder) -> None:
        """[14.7]: every problem at once."""
        good = network({"type": "a", "capabilities": {"mac": True}})
        assert runtime.validate(good, ["mac"]) == {"mac"}
        assert plugins.environ(1)["CNI_NETNS"] == "dummy"
        assert plugins.stdin(1) == {"cniVersion": "1.1.0"}
        bad = network({"type": "a"}, {"type": "nope"}, cniVersion="0.3.1")
        with pytest.raises(SeveralErrors) as raised:
            runtime.validate(bad, ["ips"])
        said = [one.msg for one in raised.value.errors]
        assert said[0] == 'plugin a does not support config version "0.3.1"'
        assert said[1].startswith('failed to find plugin "nope"')
        assert said[2] == "no plugin of net has the capability ips"

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ('echo \'{"cniVersion": "0.2.0"}\'', ("0.1.0", "0.2.0")),
            ('echo \'{"code": 4, "msg": "unknown CNI_COMMAND: VERSION"}\'; exit 1', ("0.1.0",)),
            ('echo \'{"cniVersion": "1.0.0"}\'', "missing field supportedVersions"),
            ("echo '{}'", "missing field cniVersion"),
            ("echo no", "decoding version info"),
            ("exit 1", "exit status 1"),
        ],
    )
    def test_old_answers(
        self, runtime: Runtime, plugins: Recorder, answer: str, expected: str | tuple[str, ...]
    ) -> None:
        """[X-21], [X-22]."""
        plugins.answer("a", "VERSION", answer)
        if isinstance(expected, tuple):
            assert runtime.supported("a") == expected
        else:
            with pytest.raises(CniError, match=expected):
                runtime.supported("a")

    def test_negotiated(self, runtime: Runtime, plugins: Recorder) -> None:
        """[N-14]: the highest that everybody speaks."""
        allowed = ["0.4.0", "1.0.0", "1.1.0"]
        assert runtime.negotiated(network(cniVersions=allowed)).version == "1.1.0"
        old = {"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}
        plugins.answer("b", "VERSION", f"echo '{json.dumps(old)}'")
        assert runtime.negotiated(network(cniVersions=allowed)).version == "1.0.0"
        with pytest.raises(CniError, match="no version that all its plugins speak") as raised:
            runtime.negotiated(network(cniVersion="0.3.1"))
        assert "it allows 0.3.1; a: 0.4.0, 1.0.0, 1.1.0; b: 0.3.1" in raised.value.details


class TestLimits:
    """A plugin that does not end, and asks whether it was asked to."""

    HANGING = """trap 'echo ended >> $folder/ended; exit 1' TERM
    sleep 60 & echo $! > $folder/child; touch $folder/began; wait"""

    @staticmethod
    def wait_for(path: Path) -> None:
        deadline = time.monotonic() + _SECONDS
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @staticmethod
    def end_child(plugins: Recorder) -> None:
        """The plugin's own child has its streams."""
        os.kill(int((plugins.folder / "child").read_text()), 9)

    def test_time_is_over(self, plugins: Recorder) -> None:
        plugins.answer("b", "ADD", self.HANGING)
        runtime = Runtime(
            (str(plugins.path),), cache_folder=str(plugins.folder / "cache"), seconds=0.5
        )
        with pytest.raises(PluginError, match="had not finished when its time was over") as raised:
            runtime.add(network(), C1)
        assert (raised.value.code, raised.value.type) == (Code.TRY_AGAIN_LATER, "b")
        assert (plugins.folder / "ended").exists()
        assert plugins.calls == ["a ADD", "b ADD"]
        self.end_child(plugins)

    def test_given_up(self, runtime: Runtime, plugins: Recorder) -> None:
        """From another thread; with `undo` the DELs still run."""
        plugins.answer("b", "ADD", self.HANGING)
        cancellation = Cancellation()
        raised: list[BaseException] = []

        def add() -> None:
            try:
                runtime.add(network(), C1, undo=True, cancel=cancellation)
            except GivenUpError as error:
                raised.append(error)

        thread = threading.Thread(target=add)
        thread.start()
        self.wait_for(plugins.folder / "began")
        cancellation.cancel()
        thread.join(_SECONDS)
        assert len(raised) == 1
        assert (plugins.folder / "ended").exists()
        assert plugins.calls == ["a ADD", "b ADD", "c DEL", "b DEL", "a DEL"]
        self.end_child(plugins)

    def test_given_up_and_not_undone(self, runtime: Runtime, plugins: Recorder) -> None:
        """What could not be undone is told all the same."""
        plugins.answer("a", "ADD", self.HANGING)
        plugins.answer("a", "DEL", "exit 1")
        cancellation = Cancellation()
        thread = threading.Thread(
            target=lambda: (self.wait_for(plugins.folder / "began"), cancellation.cancel())
        )
        thread.start()
        with pytest.raises(GivenUpError) as raised:
            runtime.add(network({"type": "a"}), C1, undo=True, cancel=cancellation)
        assert "could not be undone" in raised.value.__notes__[0]
        thread.join(_SECONDS)
        self.end_child(plugins)

    def test_given_up_before(self, runtime: Runtime, plugins: Recorder) -> None:
        cancellation = Cancellation()
        cancellation.cancel()
        with pytest.raises(GivenUpError):
            runtime.add(network(), C1, cancel=cancellation)
        assert len(plugins.calls) <= 1

    def test_gc_waits_for_an_add(self, runtime: Runtime, plugins: Recorder) -> None:
        """And says so when its time is over."""
        plugins.answer("a", "ADD", self.HANGING)
        cancellation = Cancellation()

        def add() -> None:
            with pytest.raises(GivenUpError):
                runtime.add(network({"type": "a"}), C1, cancel=cancellation)

        thread = threading.Thread(target=add)
        thread.start()
        self.wait_for(plugins.folder / "began")
        hurried = Runtime(runtime.plugin_path, cache_folder=runtime.cache_folder, seconds=0.1)
        with pytest.raises(CniError, match="was not free in time") as raised:
            hurried.gc(network({"type": "a"}), [])
        assert raised.value.code == Code.TRY_AGAIN_LATER
        cancellation.cancel()
        thread.join(_SECONDS)
        self.end_child(plugins)


def test_busy_executable(runtime: Runtime, plugins: Recorder) -> None:
    """[X-10]: one that is being written is tried again."""
    path = plugins.path / "a"
    file = path.open("ab")
    timer = threading.Timer(0.3, file.close)
    timer.start()
    runtime.status(network({"type": "a"}))
    timer.join()
    assert plugins.calls == ["a STATUS"]


def test_stderr_is_logged(
    runtime: Runtime, plugins: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """[X-11], also of a plugin that fails."""
    plugins.answer("a", "STATUS", "echo one >&2; echo two >&2; exit 1")
    with pytest.raises(PluginError):
        runtime.status(network({"type": "a"}))
    assert [one.getMessage() for one in caplog.records] == ["a: one", "a: two"]
