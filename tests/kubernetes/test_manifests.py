"""The manifests against Kubernetes' published schemas, and against what they have to promise."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest

from cni_py.cli import main
from cni_py.installation.cluster import needs_subnets, with_subnets
from fixtures.manifests import base, daemon_set, mounts, overlaid, overlays
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from pathlib import Path

# The oldest that has appArmorProfile, and the newest that the package knows.
VERSIONS = ("1.30", kubernetes_validate.latest_version())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["base", *overlays()])
def test_schemas(name: str, version: str) -> None:
    for one in base() if name == "base" else overlaid(name):
        kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_key_is_seen() -> None:
    wrong = daemon_set()
    wrong["spec"]["template"]["spec"]["hostNetwrok"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_what_is_mounted() -> None:
    """The sockets' folder, the executables, the configuration: nothing else of the node."""
    pod = daemon_set()["spec"]["template"]["spec"]
    (prepare,), (server,) = pod["initContainers"], pod["containers"]
    assert mounts(prepare) == {"/node/bin": "/opt/cni/bin"}
    assert mounts(server) == {
        "/run/cni-py": "/run/cni-py",
        "/node/bin": "/opt/cni/bin",
        "/node/net.d": "/etc/cni/net.d",
    }
    for one in (prepare, server):
        assert one["securityContext"]["readOnlyRootFilesystem"]
        assert "privileged" not in one["securityContext"]
    assert pod["hostNetwork"]
    assert pod["hostPID"]


def test_no_gap_between_two_servers() -> None:
    strategy = daemon_set()["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (server,) = daemon_set()["spec"]["template"]["spec"]["containers"]
    assert "--take-over" in server["args"]


def commands() -> list[list[str]]:
    """Every command line in the manifests, without the program's name."""
    found: list[list[str]] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if "command" in value:
                name, *rest = [*value["command"], *value.get("args", ())]
                assert name == "cni-py"
                found.append(rest)
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    look(daemon_set())
    return found


def test_commands_have_these_options() -> None:
    assert len(commands()) == 5
    for arguments in commands():
        command: Any = main
        rest = list(arguments)
        while hasattr(command, "get_command"):
            with command.make_context("cni-py", [], resilient_parsing=True) as context:
                command = command.get_command(context, rest.pop(0))
        known = {option for parameter in command.params for option in parameter.opts}
        given = {one.partition("=")[0] for one in rest if one.startswith("--")}
        assert given <= known, arguments


def test_the_network_is_filled_and_clean(tmp_path: Path) -> None:
    (given,) = [one for one in base() if one["kind"] == "ConfigMap"]
    network = json.loads(given["data"]["10-cni-py.conflist"])
    assert needs_subnets(network)
    path = tmp_path / "10-cni-py.conflist"
    path.write_text(json.dumps(with_subnets(network, ["10.244.3.0/24", "fd00:3::/64"])))
    done = subprocess.run([CNI_PY, "lint", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
