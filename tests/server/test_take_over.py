"""One server takes the place of another, as in a rolling upgrade on a node without Python."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from fixtures.configs import l3
from fixtures.host import Host
from fixtures.server import CNI_PY, Server

from .conftest import start, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("launchers")
    subprocess.run([CNI_PY, "install", "--launcher-only", folder], check=True, capture_output=True)
    return str(folder)


@pytest.fixture
def node(host: Host, launchers: str) -> Iterator[Host]:
    """A host whose calls nobody but a server can carry out."""
    host.stop_serving()
    host.path = launchers
    yield host
    if host.server is None:
        host.serve()


def taking_over(host: Host, number: int) -> Server:
    options = ("--take-over", "--idle-workers", "1", "--metrics-socket", f"/run/own{number}.sock")
    return Server(host.prefix, *options)


def ready(host: Host, number: int, *more: str) -> bool:
    command = (CNI_PY, "node", "probe", "--metrics-socket", f"/run/own{number}.sock", *more)
    return host.run(*command, check=False).status == 0


def test_no_call_fails(node: Host) -> None:
    """Calls all the time, none of which waits for a server: the next is there before one goes."""
    servers = [taking_over(node, 0)]
    outcomes = []
    for number in range(1, 4):
        containers = [node.container(f"n{number}x{index}") for index in range(5)]
        for verb in ("ADD", "DEL"):
            more = {"path": node.path, "executable": node.path, "CNI_PY_WAIT_SECONDS": "0"}
            calls = [start(node, verb, l3(), one, **more) for one in containers]
            if verb == "ADD":
                servers.append(taking_over(node, number))
                until(lambda number=number: ready(node, number, "--ready"))
            else:
                assert servers.pop(0).stop() == 0
            for call in calls:
                said, errors = call.communicate(timeout=60)
                outcomes.append((verb, call.returncode, said, errors))
    failed = [one for one in outcomes if one[1] != 0 or b"deferred" in one[3]]
    assert failed == []
    last = servers.pop()
    assert node.run("ls", "-A", "/run/cni-py").stdout.split() == ["attachments", "cni.sock"]
    last.stop()
    assert "cni.sock" not in node.run("ls", "-A", "/run/cni-py").stdout


def test_the_one_before_leaves_the_sockets_of_the_next(node: Host) -> None:
    """It reloads and stops as ever, and what lies at its paths by then is not its own."""
    first = taking_over(node, 0)
    second = Server(node.prefix, "--take-over", "--metrics-socket", "/run/own0.sock")
    seen = len(first.lines)
    first.process.send_signal(1)
    first.wait_for(lambda line: line["event"] == "listening", seen)
    first.stop()
    assert ready(node, 0, "--ready")
    container = node.container("c1")
    env = {"CNI_PY_SOCKET": "/run/cni-py/cni.sock", "CNI_PY_WAIT_SECONDS": "0"}
    node.add("bridge", l3(), container, env=env)
    node.delete("bridge", l3(), container, env=env)
    second.stop()
    assert not ready(node, 0)


def test_probes(node: Host, tmp_path: Path) -> None:
    """Alive is not ready: the executables and the network have to be there too."""
    assert not ready(node, 0)
    server = taking_over(node, 0)
    network = tmp_path / "net.d" / "10-pods.conflist"
    network.parent.mkdir()
    options = ("--ready", "--bin", node.path, "--network", str(network))
    assert ready(node, 0)
    assert not ready(node, 0, *options)
    source = tmp_path / "10-pods.conflist"
    source.write_text(json.dumps({"cniVersion": "1.1.0", "name": "pods", "plugins": [l3()]}))
    publish = (CNI_PY, "node", "publish", str(source), "--net-dir", str(network.parent))
    node.run(*publish, "--metrics-socket", "/run/own0.sock")
    assert ready(node, 0, *options)
    assert not ready(node, 0, "--ready", "--bin", str(tmp_path))
    server.stop()
    network.unlink()
    seconds = ("--metrics-socket", "/run/own0.sock", "--seconds", "0.2")
    done = node.run(*publish, *seconds, check=False)
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert not network.exists()
