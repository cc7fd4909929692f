"""The wheel for arm64: its launcher, run by qemu."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from fixtures.configs import l3
from fixtures.distributions import NATIVE, Distributions
from fixtures.elf import elf_machine, is_static
from fixtures.host import Host

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.packages
OTHER = "x86_64" if NATIVE == "aarch64" else "aarch64"
QEMU = f"qemu-{OTHER}-static"


@pytest.fixture
def launcher(all_distributions: Distributions, tmp_path: Path) -> list[str]:
    """The command that starts the other architecture's launcher as `bridge`."""
    with zipfile.ZipFile(all_distributions.wheel(OTHER)) as wheel:
        program = wheel.read("cni_py/executables/cni-py-launcher")
    assert is_static(program)
    assert elf_machine(program) == OTHER
    path = tmp_path / "bridge"
    path.write_bytes(program)
    path.chmod(0o755)
    qemu = shutil.which(QEMU)
    assert qemu, f"no {QEMU}: `make test-packages` installs it"
    return [qemu, str(path)]


def test_hands_calls_to_the_server(host: Host, launcher: list[str]) -> None:
    """The server of this machine answers it as it does its own."""
    server = host.serve()
    said = host.run(*launcher, stdin='{"cniVersion": "1.1.0"}', env={"CNI_COMMAND": "VERSION"})
    assert "1.1.0" in said.json["supportedVersions"]
    assert server.metric('cni_py_calls_total{plugin="bridge",verb="VERSION"') == 1


def test_adds_and_deletes(host: Host, launcher: list[str]) -> None:
    """Descriptors and namespaces are handed over as well."""
    host.serve()
    container = host.container("c1")
    env = container.environ("ADD")
    result = host.run(*launcher, stdin=json.dumps(l3()), env=env).json
    assert result["ips"][0]["address"] == "10.1.2.2/24"
    assert container.addresses() == ["10.1.2.2/24"]
    host.run(*launcher, stdin=json.dumps(l3()), env=env | {"CNI_COMMAND": "DEL"})
    assert container.ip("link", "show", "type", "veth") == []


def test_without_a_server(host: Host, launcher: list[str]) -> None:
    host.stop_serving()
    env = host.container("c1").environ("ADD")
    failed = host.run(*launcher, stdin="{}", env=env, check=False)
    assert failed.status == 1
    assert failed.json["code"] == 11
    assert failed.json["msg"] == "no cni-py server is listening"
