"""The manifests against Kubernetes' published schemas, and against what they have to promise."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest

from cni_py.cli import main
from cni_py.installation.cluster import needs_subnets, with_subnets
from fixtures.manifests import base, daemon_set, mounts, named, overlaid, overlays
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


def commands(name: str) -> list[list[str]]:
    """Every command line in an overlay's manifests, without the program's name."""
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

    look([one for one in overlaid(name) if one["kind"] == "DaemonSet"])
    return found


def parameters(words: list[str]) -> list[Any]:
    """The parameters of the command that a command line calls; takes its name off `words`."""
    command: Any = main
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        with command.make_context("cni-py", [], resilient_parsing=True) as context:
            command = command.get_command(context, words.pop(0))
    return list(command.params)


@pytest.mark.parametrize(("name", "count"), [("cos", 5), ("agent", 6)])
def test_commands_have_these_options(name: str, count: int) -> None:
    assert len(commands(name)) == count
    for arguments in commands(name):
        rest = list(arguments)
        known = {option for parameter in parameters(rest) for option in parameter.opts}
        given = {one.partition("=")[0] for one in rest if one.startswith("--")}
        assert given <= known, arguments


@pytest.mark.parametrize("name", ["agent", "agent-pod-cidr"])
def test_variables_of_the_agent_are_its_options(name: str) -> None:
    known = {one.envvar for one in parameters(["agent"])}
    objects = overlaid(name)
    given = named(objects, "ConfigMap", "cni-py-agent")["data"]
    assert given.keys() <= known
    (agent,) = daemon_set(objects, "cni-py-agent")["spec"]["template"]["spec"]["containers"]
    assert {one["name"] for one in agent["env"]} <= known
    # Its files are where the Secret is mounted.
    (place,) = [one["mountPath"] for one in agent["volumeMounts"] if one["name"] == "etcd"]
    assert all(value.startswith(f"{place}/") for key, value in given.items() if "FILE" in key)


def test_the_agent_asks_kubernetes_only_where_it_is_to() -> None:
    for name, asks in (("agent", False), ("agent-pod-cidr", True)):
        objects = overlaid(name)
        pod = daemon_set(objects, "cni-py-agent")["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is asks
        subjects = [one["subjects"] for one in objects if one["kind"] == "ClusterRoleBinding"]
        bound = [one["name"] for some in subjects for one in some]
        assert ("cni-py-agent" in bound) is asks


def test_what_the_agent_has() -> None:
    """Its folders and one capability; none of the node's processes, executables, networks."""
    pod = daemon_set(overlaid("agent"), "cni-py-agent")["spec"]["template"]["spec"]
    (agent,) = pod["containers"]
    folders = ("/run/cni-py", "/var/lib/cni/cni-py")
    assert mounts(agent, pod) == dict(zip(folders, folders, strict=True))
    context = agent["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert pod["hostNetwork"]
    assert "hostPID" not in pod


def test_probes_ask_where_the_agent_answers() -> None:
    pod = daemon_set(overlaid("agent"), "cni-py-agent")["spec"]["template"]["spec"]
    (agent,) = pod["containers"]
    for probe, page in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        asked = agent[probe]["httpGet"]
        assert asked["path"] == page
        assert f"--healthz-ip={asked['host']}" in agent["args"]
        assert f"--healthz-port={asked['port']}" in agent["args"]


def test_the_network_is_filled_and_clean(tmp_path: Path) -> None:
    (given,) = [one for one in base() if one["kind"] == "ConfigMap"]
    network = json.loads(given["data"]["10-cni-py.conflist"])
    assert needs_subnets(network)
    path = tmp_path / "10-cni-py.conflist"
    path.write_text(json.dumps(with_subnets(network, ["10.244.3.0/24", "fd00:3::/64"])))
    done = subprocess.run([CNI_PY, "lint", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_agents_network_is_clean(tmp_path: Path) -> None:
    """Nothing of it has to be filled in: a node's subnet is the agent's."""
    text = named(overlaid("agent"), "ConfigMap", "cni-py")["data"]["10-cni-py.conflist"]
    assert not needs_subnets(json.loads(text))
    path = tmp_path / "10-cni-py.conflist"
    path.write_text(text)
    done = subprocess.run([CNI_PY, "lint", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
