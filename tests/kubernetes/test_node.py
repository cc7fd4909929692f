"""`cni-py node`: subnets from an API server over TLS, launchers, and the network last."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.ipam.delegation import is_ours
from cni_py.skel import EXECUTABLES
from fixtures.api_server import ApiServer
from fixtures.manifests import without_privileges
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "plugins": [
        {"type": "bridge", "ipam": {"type": "host-local"}},
        {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}},
        {"type": "portmap"},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("account")


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[ApiServer]:
    server = ApiServer(folder)
    yield server
    server.close()


@pytest.fixture
def api(started: ApiServer) -> ApiServer:
    started.status, started.seen, started.headers = 200, [], {}
    (started.folder / "token").write_text("secret\n")
    return started


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("bin", "net.d", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "10-pods.conflist").write_text(json.dumps(NETWORK))
    return tmp_path


def prepare(place: Path, api: ApiServer, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "NODE_NAME": "node-1",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    environ = {key: value for key, value in (environ | env).items() if value}
    paths = (place / "10-pods.conflist", place / "out" / "10-pods.conflist")
    options = ("--bin", place / "bin", "--account", api.folder)
    return subprocess.run(
        [*without_privileges("prepare"), CNI_PY, "node", "prepare", *paths, *options],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def filled(place: Path) -> Any:
    return json.loads((place / "out" / "10-pods.conflist").read_text())


def test_dual_stack(api: ApiServer, place: Path) -> None:
    """A range set a family; what has a subnet keeps it; launchers are there, without Python."""
    api.specs = [{"podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24", "fd00:3::/64"]}]
    done = prepare(place, api)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, _ = filled(place)["plugins"]
    assert first["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}], [{"subnet": "fd00:3::/64"}]]
    assert second["ipam"] == NETWORK["plugins"][1]["ipam"]  # type: ignore[index]
    assert api.seen == ["/api/v1/nodes/node-1"]
    assert all(is_ours(str(place / "bin" / one)) for one in EXECUTABLES)
    assert not (place / "bin" / ".cni-py" / "bridge").exists()
    assert list((place / "net.d").iterdir()) == []


def test_waits_for_a_subnet(api: ApiServer, place: Path) -> None:
    """A node that has just joined has none; then an old API with the one key."""
    api.specs = [{}, {"podCIDR": "10.244.9.0/24"}]
    done = prepare(place, api)
    assert done.returncode == 0
    assert done.stderr == "waiting: node node-1 has no podCIDR yet\n"
    assert filled(place)["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.9.0/24"}]]


def test_what_waiting_does_not_mend(api: ApiServer, place: Path) -> None:
    api.specs = [{"podCIDRs": ["nowhere"]}]
    assert "the podCIDR of node node-1 is none" in prepare(place, api).stderr
    (api.folder / "token").write_text("another")
    refused = prepare(place, api).stderr
    assert "answers 401" in refused
    assert "another" not in refused
    assert "only a container in a pod" in prepare(place, api, KUBERNETES_SERVICE_HOST="").stderr
    assert "NODE_NAME" in prepare(place, api, NODE_NAME="").stderr
    assert list((place / "out").iterdir()) == []


def test_a_server_that_is_somebody_else(api: ApiServer, place: Path, tmp_path: Path) -> None:
    """Its certificate is not the cluster's: the token is not sent."""
    api.specs = [{"podCIDRs": ["10.244.3.0/24"]}]
    other = tmp_path / "other"
    other.mkdir()
    ApiServer(other).close()
    (other / "token").write_text("secret")
    assert "certificate" in waits(place, api, other)
    assert api.seen == []


def test_a_server_that_sends_elsewhere(api: ApiServer, place: Path) -> None:
    """The token is for the API server alone."""
    api.specs, api.status = [{}], 302
    api.headers = {"Location": f"https://localhost:{api.port}/elsewhere"}
    assert "answers 302" in waits(place, api, api.folder)
    assert set(api.seen) == {"/api/v1/nodes/node-1"}


def waits(place: Path, api: ApiServer, account: Path) -> str:
    """Why `cni-py node prepare` waits: its first line."""
    command = [CNI_PY, "node", "prepare", place / "10-pods.conflist", place / "out" / "x"]
    process = subprocess.Popen(
        [*command, "--bin", place / "bin", "--account", account, "--node", "node-1"],
        env={"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": "127.0.0.1",
             "KUBERNETES_SERVICE_PORT": str(api.port)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    process.kill()
    process.communicate()
    assert line.startswith("waiting: ")
    return line


def test_bad_templates(api: ApiServer, place: Path) -> None:
    for text in ("{", "[]", '{"plugins": []}', '{"plugins": 3}'):
        (place / "10-pods.conflist").write_text(text)
        done = prepare(place, api)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert list((place / "bin").iterdir()) == []


def test_remove(api: ApiServer, place: Path) -> None:
    """What was there before comes back; it is somebody else's, as from an archive of plugins."""
    api.specs = [{"podCIDRs": ["10.244.3.0/24"]}]
    (place / "bin" / "bridge").write_text("theirs")
    for one in (place / "bin" / "bridge", place / "bin"):
        os.chown(one, 1001, 1001)
    assert prepare(place, api).returncode == 0
    assert is_ours(str(place / "bin" / "bridge"))
    (place / "net.d" / "10-pods.conflist").write_text("{}")
    options = ("--bin", place / "bin", "--net-dir", place / "net.d")
    subprocess.run([CNI_PY, "node", "remove", "10-pods.conflist", *options], check=True)
    assert (place / "bin" / "bridge").read_text() == "theirs"
    assert (place / "bin" / "bridge").stat().st_uid == 1001
    assert [one.name for one in (place / "bin").iterdir()] == ["bridge"]
    assert list((place / "net.d").iterdir()) == []
