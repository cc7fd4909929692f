"""Launchers and servers of different releases: what both know is spoken, and nobody hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.server.handover import NEWEST_VERSION, OLDEST_VERSION
from fixtures.configs import l3
from fixtures.host import ELSEWHERE, ROOT, Container, Host, Outcome, refusal
from fixtures.node import PATH, Node

from .conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEW, OLD = NEWEST_VERSION, OLDEST_VERSION
FAR = (NEW + 5, NEW + 7)
Launchers = dict[tuple[int, int], "Path"]

# `cni-py serve` as a release that knows other versions. The first one has no answer that names
# them: what it does not know is no call, and it has room for six descriptors.
OTHER_RELEASE = """
import sys
from cni_py.cli import main
from cni_py.server import handover
oldest, newest = map(int, sys.argv[1].split("-"))
handover.OLDEST_VERSION, handover.NEWEST_VERSION = oldest, newest
handover.VERSIONS = b"V" + bytes((oldest, newest))
if newest == 1:
    handover._MOST_FDS = 6
    known = handover._version
    def only(data):
        try:
            return known(data)
        except handover.OtherVersionError:
            raise ValueError("the message is not a call") from None
    handover._version = only
main(sys.argv[3:])
"""


@pytest.fixture(scope="module")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> Launchers:
    """Folders of launchers by the versions that they can send; without Python executables."""
    found = {}
    for oldest, newest in ((OLD, NEW), (OLD, OLD), (OLD, NEW + 1), FAR):
        folder = tmp_path_factory.mktemp(f"v{oldest}-{newest}-")
        flags = [f"-DOLDEST_MESSAGE={oldest}", f"-DNEWEST_MESSAGE={newest}", "-static"]
        program = folder / "bridge"
        source = str(ROOT / "plugins" / "launcher.c")
        subprocess.run(["gcc", *flags, "-o", str(program), source], check=True)
        # What marks an executable of this project's stands at its end.
        with program.open("ab") as file:
            file.write(b"\n# cni-py executable\n")
        (folder / "host-local").write_bytes(program.read_bytes())
        found[oldest, newest] = folder
    return found


@pytest.fixture
def serving(host: Host) -> Iterator[Callable[[int, int], None]]:
    """Starts a server of a release that knows the given versions."""

    def start(oldest: int, newest: int) -> None:
        through = [sys.executable, "-c", OTHER_RELEASE, f"{oldest}-{newest}"]
        host.serve("--idle-workers", "1", through=through)

    host.stop_serving()
    yield start
    if host.server is not None:
        assert host.server.of("event", "worker died") == []


def call(host: Host, folder: Path, verb: str, container: Container, **env: str) -> Outcome:
    environ = container.environ(verb, path=str(folder)) | env
    return host.run(f"{folder}/bridge", stdin=json.dumps(l3()), env=environ, check=False)


@pytest.mark.parametrize(
    ("server", "launcher"),
    [
        ((OLD, OLD), (OLD, NEW)),
        ((OLD, NEW), (OLD, OLD)),
        ((OLD, NEW), (OLD, NEW)),
        ((OLD, NEW), (OLD, NEW + 1)),
        ((OLD, OLD), (OLD, NEW + 1)),
        ((OLD, NEW + 1), (OLD, NEW)),
        ((NEW, NEW + 1), (OLD, NEW)),
    ],
)
def test_releases_that_have_one_in_common(
    host: Host,
    launchers: Launchers,
    serving: Callable[[int, int], None],
    server: tuple[int, int],
    launcher: tuple[int, int],
) -> None:
    """A call, its end, and an error: served, since these launchers have no Python."""
    serving(*server)
    container = host.container("c1")
    folder = launchers[launcher]
    assert call(host, folder, "ADD", container).json["ips"][0]["address"] == "10.1.2.2/24"
    assert refusal(call(host, folder, "LEAP", container))["code"] == 4
    outcome = call(host, folder, "DEL", container)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, "", "")


@pytest.mark.parametrize("server", [(OLD, NEW), (OLD, OLD)])
def test_a_launcher_of_a_far_release(
    host: Host,
    launchers: Launchers,
    serving: Callable[[int, int], None],
    server: tuple[int, int],
) -> None:
    """One line says who knows what; a DEL waits for a server that understands it."""
    serving(*server)
    container = host.container("c1")
    error = refusal(call(host, launchers[FAR], "ADD", container))
    assert error["code"] == 11
    assert error["msg"] == "the cni-py server and the launcher are too far apart"
    known = f"it knows versions {server[0]} to {server[1]} of the call"
    assert error["details"].startswith(f"{known}, the launcher {FAR[0]} to {FAR[1]}: ")
    outcome = call(host, launchers[FAR], "DEL", container)
    assert (outcome.status, "DEL is deferred" in outcome.stderr) == (0, True)
    until(lambda: host.run("ls", "/run/cni-py/deferred").stdout == "")


def test_a_server_of_a_far_release(
    host: Host, launchers: Launchers, serving: Callable[[int, int], None]
) -> None:
    """The same the other way round; with Python executables the call is done by them."""
    serving(*FAR)
    container = host.container("c1")
    error = refusal(call(host, launchers[OLD, NEW], "ADD", container))
    assert error["msg"] == "the cni-py server and the launcher are too far apart"
    host.add("bridge", l3(), container)
    host.delete("bridge", l3(), container)
    assert host.server is not None
    until(lambda: host.server is not None and len(host.server.of("verb", "version")) == 3)
    assert host.server.of("verb", "ADD") == []
    # One that was installed before there were versions takes the answer for none of its own.
    before = launchers[OLD, OLD]
    assert refusal(call(host, before, "STATUS", container))["code"] == 11


def test_an_old_launcher_on_a_node(host: Host, launchers: Launchers) -> None:
    """It sends no root: a server that sees other files refuses, as it did."""
    host.stop_serving()
    node = Node(host, launchers[OLD, OLD])
    server = host.serve("--idle-workers", "1", through=ELSEWHERE)
    container = host.container("c1")
    outcome = node.call("ADD", l3(), container, CNI_PY_WAIT_SECONDS="0")
    assert refusal(outcome)["msg"] == "no cni-py server is listening"
    line: dict[str, Any] = server.wait_for(lambda line: "elsewhere" in line)
    assert "its launcher does not send it" in line["elsewhere"]
    assert node.run("ls", PATH).stdout.split() == ["bridge", "host-local"]


def test_waits_for_a_server_that_comes(host: Host, launchers: Launchers) -> None:
    """A server that is being replaced: the call is served once the next one listens."""
    host.stop_serving()
    host.run("mkdir", "-p", "-m", "700", "/run/cni-py")
    container = host.container("c1")
    environ = container.environ("ADD", path=str(launchers[OLD, NEW]))
    waiting = subprocess.Popen(
        [*host.prefix, f"{launchers[OLD, NEW]}/bridge"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environ | {"CNI_PY_WAIT_SECONDS": "60"},
    )  # fmt: skip
    assert waiting.stdin is not None
    waiting.stdin.write(json.dumps(l3()))
    waiting.stdin.close()
    waiting.stdin = None
    host.serve("--idle-workers", "1")
    said, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, json.loads(said)["ips"][0]["address"]) == (0, "10.1.2.2/24")
    assert call(host, launchers[OLD, NEW], "DEL", container).status == 0


@pytest.mark.parametrize("seconds", ["0", "1", "x", "-1"])
def test_how_long_is_waited(host: Host, launchers: Launchers, seconds: str) -> None:
    """Only where the socket's folder is there: somewhere else no server has ever been."""
    host.stop_serving()
    container = host.container("c1")
    more = {"CNI_PY_WAIT_SECONDS": seconds, "CNI_PY_SOCKET": "/run/nowhere/cni.sock"}
    error = refusal(call(host, launchers[OLD, NEW], "ADD", container, **more))
    assert (error["code"], error["msg"]) == (11, "no cni-py server is listening")
    if seconds in "01":
        host.run("mkdir", "-p", "/run/nowhere")
        error = refusal(call(host, launchers[OLD, NEW], "STATUS", container, **more))
        assert error["code"] == 50
