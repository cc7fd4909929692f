"""The server's image as a container, with the mounts and capabilities of the DaemonSet alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools.containerd import Containerd
from tools.server_image import PROGRAM, build, bundle

from fixtures.background import Background
from fixtures.host import ROOT, Host
from fixtures.leaks import leaks
from fixtures.manifests import base, daemon_set, mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.slow]

CRUN = ("crun", "--cgroup-manager=disabled", "--root", "/run/crun")
ENVIRON = {"PATH": "/usr/local/bin", "NODE_NAME": "node-1", "PYTHONDONTWRITEBYTECODE": "1"}
NETWORK = "10-cni-py.conflist"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("image") / "root"
    build(folder)
    yield folder
    shutil.rmtree(folder)


class Pod:
    """A pod of the DaemonSet on a host."""

    def __init__(self, host: Host, root: Path, folder: Path, number: int) -> None:
        self.host, self.root, self.name = host, root, f"server{number}"
        self.folder = folder / self.name
        for one in ("own", "network", "template"):
            (self.folder / one).mkdir(parents=True)
        (template,) = [one["data"] for one in base() if one["kind"] == "ConfigMap"]
        network = json.loads(template[NETWORK])
        # No API server here: the network has its subnet.
        network["plugins"][0]["ipam"]["subnet"] = "10.86.0.0/24"
        (self.folder / "template" / NETWORK).write_text(json.dumps(network))
        pod = daemon_set()["spec"]["template"]["spec"]
        (self.prepare,), (self.server,) = pod["initContainers"], pod["containers"]
        self.running: Background | None = None

    def _bundle(self, container: dict[str, Any], arguments: list[str]) -> str:
        own = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        binds = {
            own[name]: str(self.folder / name)
            for name in ("own", "network", "template")
            if name in own
        }
        path = self.folder / container["name"]
        bundle(path, self.root, container, arguments, binds | mounts(container), ENVIRON)
        return str(path)

    def start(self) -> None:
        """What the kubelet does, until the pod is ready."""
        self.host.run("mkdir", "-p", *set(mounts(self.server).values()))
        command = [*self.prepare["command"][1:], *self.prepare["args"]]
        path = self._bundle(self.prepare, command)
        self.host.run(*CRUN, "run", "--bundle", path, f"{self.name}-prepare")
        # The first process here is the machine's; the host's is the one that holds it.
        own_root = f"--host-root=/proc/{self.host.holder.pid}/root"
        arguments = [
            own_root if one.startswith("--host-root=") else one
            for one in (*self.server["command"][1:], *self.server["args"])
        ]
        path = self._bundle(self.server, arguments)
        run = [*self.host.prefix, *CRUN, "run", "--bundle", path, self.name]
        self.running = Background(run)
        self.running.wait_for(lambda line: line["event"] == "listening")
        self.exec(self.server["lifecycle"]["postStart"]["exec"]["command"])
        deadline = time.monotonic() + 30
        while self.probe("readinessProbe"):
            assert time.monotonic() < deadline, self.running.lines

    def exec(self, command: list[str], *, check: bool = True) -> int:
        assert command[0] == Path(PROGRAM).name
        environ = [option for key, value in ENVIRON.items() for option in ("-e", f"{key}={value}")]
        whole = (*CRUN, "exec", *environ, self.name, PROGRAM, *command[1:])
        return self.host.run(*whole, check=check).status

    def probe(self, name: str) -> int:
        return self.exec(self.server[name]["exec"]["command"], check=False)

    def stop(self) -> None:
        if self.running is not None:
            self.host.run(*CRUN, "kill", self.name, "TERM")
            self.running.process.wait(60)
            self.running.stop()
            self.running = None


@pytest.fixture
def pods(host: Host, root: Path, tmp_path: Path) -> Iterator[list[Pod]]:
    host.stop_serving()
    made = [Pod(host, root, tmp_path, number) for number in range(2)]
    yield made
    for one in made:
        one.stop()


@pytest.fixture
def daemon(host: Host, tmp_path: Path) -> Iterator[Containerd]:
    """The node's containerd, which has neither executables nor networks yet."""
    image = tmp_path / "image.tar"
    subprocess.run([ROOT / "tests" / "tools" / "make-image", image], check=True)
    folders = {name: tmp_path / name for name in ("bin", "net.d")}
    for one in folders.values():
        one.mkdir()
    with (
        tempfile.TemporaryDirectory(prefix="ctr") as scratch,
        Containerd(
            host.prefix,
            scratch=Path(scratch),
            bin_dir=folders["bin"],
            conf_dir=folders["net.d"],
            image=image,
        ) as started,
    ):
        yield started


def address(daemon: Containerd, name: str) -> str:
    return daemon.exec(name, "ip", "addr", "show", "eth0").split("inet ")[1].split("/")[0]


def test_a_node_is_served_and_upgraded(host: Host, daemon: Containerd, pods: list[Pod]) -> None:
    """containerd on the node, launchers without Python behind them, the server in a container."""
    first, second = pods
    first.start()
    listed = host.run("find", "/opt/cni/bin", "-name", "*.py", "-o", "-name", "python*").stdout
    assert listed == ""
    assert host.run("test", "-e", "/opt/cni/bin/.cni-py/bridge", check=False).status == 1
    daemon.run("before", "sleep", "1000")
    assert address(daemon, "before") == "10.86.0.2"
    assert host.allocated("pods")
    assert first.probe("livenessProbe") == 0
    # The pod of the next release, beside this one; then this one is told to stop.
    second.start()
    first.stop()
    daemon.run("after", "sleep", "1000")
    other = address(daemon, "after")
    assert "1 packets received" in daemon.exec("before", "ping", "-c", "1", other)
    for name in ("before", "after"):
        daemon.remove(name)
    deadline = time.monotonic() + 10
    while leaks(host):
        assert time.monotonic() < deadline, leaks(host)
    assert second.running is not None
    calls = [one for one in second.running.lines if one.get("event") == "call"]
    assert {one["plugin"] for one in calls} >= {"bridge", "portmap", "bandwidth"}
    assert [one for one in calls if "elsewhere" in one or "code" in one] == []
