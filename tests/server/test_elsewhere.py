"""Callers with a root of their own: a node with neither Python nor cni-py.

The server sees nothing of the node but the folder with the sockets.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faults.scenarios import SCENARIOS, Scenario

from fixtures.configs import ipam, l3
from fixtures.host import ELSEWHERE, refusal
from fixtures.leaks import leaks
from fixtures.manifests import without_privileges
from fixtures.node import PATH, ROOT, Node
from fixtures.server import CNI_PY

from .conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Container, Host

# An IPAM plugin of the node's own: it runs with the node's files, and says in which root it is.
OWN = """#!/bin/sh
case $CNI_COMMAND in
ADD) ls / > /tmp/seen; cat > /tmp/stdin
    echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}' ;;
STATUS) echo '{"code": 51, "msg": "not now"}'; exit 1 ;;
esac
"""


@pytest.fixture(scope="module")
def launchers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launchers")
    subprocess.run([CNI_PY, "install", "--launcher-only", folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def bare(host: Host, launchers: Path) -> Node:
    """A node that no server serves yet."""
    host.stop_serving()
    return Node(host, launchers)


@pytest.fixture
def node(bare: Node) -> Iterator[Node]:
    # With what the DaemonSet's container has, and no more.
    server = bare.host.serve_elsewhere("--idle-workers", "1", through=without_privileges())
    yield bare
    assert [
        one for one in server.lines if "elsewhere" in one or one["event"] == "worker died"
    ] == []
    assert [one for one in server.noise if "Error" in one or "Traceback" in one] == []


def add(node: Node, chain: list[Any], container: Container) -> list[Any]:
    """ADD of each plugin in turn; what DEL and CHECK are given."""
    given, result = [], None
    for one in chain:
        config = one if result is None else one | {"prevResult": result}
        outcome = node.call("ADD", config, container)
        assert outcome.status == 0, outcome
        result = outcome.json
        given.append(config)
    return [one | {"prevResult": result} for one in given]


def delete(node: Node, given: list[Any], container: Container) -> None:
    for one in reversed(given):
        outcome = node.call("DEL", one, container)
        assert (outcome.status, outcome.stdout) == (0, ""), outcome


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not s.stock], ids=lambda s: s.name)
def test_every_plugin(node: Node, scenario: Scenario) -> None:
    """Each verb, and what it keeps is in the node's files."""
    host = node.host
    with ExitStack() as stack:
        scenario.prepare(host, stack)
        container = host.container("c1")
        scenario.furnish(container)
        given = add(node, scenario.configs, container)
        if scenario.name != "dhcp":
            assert [one for one in node.files() if one.startswith("/var/lib/cni/networks/net1/")]
        checked = node.call("CHECK", given[scenario.target], container)
        assert (checked.status, checked.stdout) == (0, ""), checked
        for one in given:
            # The device is away: that is what the plugin's STATUS says.
            for verb in ("GC",) if scenario.name == "host-device" else ("STATUS", "GC"):
                config = {key: value for key, value in one.items() if key != "prevResult"}
                living = [{"containerID": container.id, "ifname": "eth0"}]
                config["cni.dev/valid-attachments"] = living
                outcome = node.call(verb, config)
                assert (outcome.status, outcome.stdout) == (0, ""), outcome
        delete(node, given, container)
        # A DEL of what is gone, without its namespace, succeeds too.
        container.delete_netns()
        delete(node, given, container)
    assert leaks(host) == []


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.stock], ids=lambda s: s.name)
def test_kinds_that_the_kernel_may_lack(node: Node, scenario: Scenario) -> None:
    """A device or the kernel's own refusal, and a DEL that leaves nothing."""
    with ExitStack() as stack:
        scenario.prepare(node.host, stack)
        container = node.host.container("c1")
        *before, last = scenario.configs
        given = add(node, before, container)
        config = last | ({"prevResult": given[-1]["prevResult"]} if given else {})
        outcome = node.call("ADD", config, container)
        if outcome.status:
            assert "Operation not supported" in outcome.json["msg"] + outcome.json["details"]
        delete(node, [*given, config], container)


def test_loopback_and_static(node: Node) -> None:
    container = node.host.container("c1")
    loopback = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}
    static = ipam("static", addresses=[{"address": "10.5.0.1/24"}])
    for plugin, config in (("loopback", loopback), ("static", static)):
        for verb in ("ADD", "CHECK", "STATUS", "GC", "DEL", "VERSION"):
            given = config | {"cni.dev/valid-attachments": []}
            if verb == "CHECK":
                given["prevResult"] = node.call("ADD", config, container, plugin).json
            outcome = node.call(verb, given, container, plugin)
            assert outcome.status == 0, outcome


BAD: dict[str, tuple[str, Any, int]] = {
    "no JSON": ("ADD", "{", 6),
    "no name": ("ADD", {"cniVersion": "1.1.0", "type": "bridge"}, 7),
    "version": ("ADD", l3(cniVersion="9.9.9"), 1),
    "verb": ("LEAP", l3(), 4),
    "type": ("ADD", l3(mtu="many"), 7),
    "subnet": ("ADD", l3(ipam={"type": "host-local", "subnet": "nowhere"}), 7),
    "delegate": ("ADD", l3(ipam={"type": "nobody"}), 999),
    "not UTF-8": ("ADD", l3(ipam={"type": "host-local", "resolvConf": "/nowhere\udcff"}), 0),
    "resolvConf": (
        "ADD",
        l3(ipam={"type": "host-local", "subnet": "10.1.2.0/24", "resolvConf": "/none"}),
        0,
    ),
    "CHECK without a result": ("CHECK", l3(), 0),
    "vlan": ("ADD", l3(vlan=5000), 7),
}


@pytest.mark.parametrize("case", BAD)
def test_errors(node: Node, case: str) -> None:
    """The one document, as a standalone executable gives it."""
    verb, config, code = BAD[case]
    container = node.host.container("c1")
    outcome = node.call(verb, config, container, "bridge")
    error = refusal(outcome)
    host = node.host
    stdin = config if isinstance(config, str) else json.dumps(config)
    env = container.environ(verb) | {"CNI_PY_SOCKET": ""}
    alone = host.run(f"{host.path}/bridge", stdin=stdin, env=env, check=False)
    ours, theirs = (json.dumps(one).replace(host.path, PATH) for one in (error, alone.json))
    assert ours == theirs
    assert code in (0, error["code"])
    assert "No module" not in ours


def test_the_nodes_files_and_programs(node: Node) -> None:
    """resolvConf, dataDir, CNI_PATH and working folder lead where they lead on the node."""
    host = node.host
    host.run("sh", "-c", f"echo nameserver 192.0.2.53 > {ROOT}/etc/resolv.conf")
    host.run("sh", "-c", f"cat > {ROOT}/opt/own; chmod +x {ROOT}/opt/own", stdin=OWN)
    container = host.container("c1")
    addresses = {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": "/var/lib/mine"}
    config = l3(ipam=addresses | {"resolvConf": "/etc/resolv.conf"})
    (given,) = add(node, [config], container)
    assert given["prevResult"]["dns"]["nameservers"] == ["192.0.2.53"]
    assert "/var/lib/mine/net1/10.1.2.2" in node.files("/var/lib/mine")
    delete(node, [given], container)
    own = l3(ipam={"type": "own"})
    path = {"CNI_PATH": f"{PATH}:/opt"}
    outcome = node.call("ADD", own, container, **path)
    assert outcome.json["ips"][0]["address"] == "10.1.2.99/24"
    seen = node.run("cat", "/tmp/seen").stdout.split()
    assert "bin" in seen
    assert "work" not in seen
    assert refusal(node.call("STATUS", own, None, **path))["code"] == 51
    assert node.call("DEL", own, container, **path).status == 0


def test_a_worker_comes_back(node: Node) -> None:
    """One worker serves callers of both roots in turn, and pins nothing of either between."""
    host = node.host
    host.stop_serving()
    server = host.serve_elsewhere("--idle-workers", "1", "--workers", "1")
    first = server.workers()
    container = host.container("c1")
    for _ in range(3):
        given = add(node, [l3()], container)
        delete(node, given, container)
        host.add("bridge", l3(), container)
        assert host.allocated("net1")
        host.delete("bridge", l3(), container)
    refusal(node.call("LEAP", l3(), container))
    assert server.workers() == first or server.of("code", "4") == []
    host.run("umount", f"{ROOT}/run/cni", f"{ROOT}/run/cni-py")
    host.run("umount", "--recursive", ROOT)


def test_mounts_of_the_callers_own(node: Node) -> None:
    """A caller in a mount namespace of its own has its mounts, which come and go with it."""
    host = node.host
    container = host.container("c1")
    script = (
        f"mount -t tmpfs none {ROOT}/var/lib/cni; chroot {ROOT} {PATH}/bridge; "
        f"ls {ROOT}/var/lib/cni/networks"
    )
    env = container.environ("ADD", path=PATH)
    command = ("unshare", "--mount", "sh", "-c", script)
    outcome = host.run(*command, stdin=json.dumps(l3()), env=env)
    assert outcome.stdout.endswith("}net1\n")
    assert node.files() == []
    assert node.call("DEL", l3(), container).status == 0


@pytest.fixture
def node_process(bare: Node) -> Iterator[int]:
    """A process that lives in the node's root, in a mount namespace of its own."""
    command = [*bare.host.prefix, "unshare", "--mount", "chroot", ROOT, "cat"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    until(lambda: Path(f"/proc/{process.pid}/comm").read_text() in ("busybox\n", "cat\n"))
    yield process.pid
    process.communicate()


def test_deferred_del_and_restored_rules(bare: Node, node_process: int) -> None:
    """What has no caller is done in the root that --host-root names."""
    host = bare.host
    root = ("--host-root", f"/proc/{node_process}/root")
    host.serve(*root, through=ELSEWHERE)
    container = host.container("c1")
    (given,) = add(bare, [l3(isGateway=True, ipMasq=True)], container)
    assert "/var/lib/cni/networks/net1/10.1.2.2" in bare.files()
    host.stop_serving()
    # The launcher is in the namespace of that process, as a runtime is in the first one's.
    inside = ("nsenter", "--target", str(node_process), "--mount", "--root", "--")
    env = container.environ("DEL", path=PATH)
    script = f"cd /; exec {PATH}/bridge"
    host.run(*inside, "/bin/sh", "-c", script, stdin=json.dumps(given), env=env)
    host.run("nft", "flush", "ruleset")
    server = host.serve(*root, "--restore-rules", through=ELSEWHERE)
    server.wait_for(lambda line: "deferred" in line)
    server.wait_for(lambda line: line["event"] == "rules restored")
    assert host.run("ls", "/run/cni-py/deferred").stdout == ""
    assert "/var/lib/cni/networks/net1/10.1.2.2" not in bare.files()
    assert leaks(host) == []


@pytest.mark.parametrize("path", ["/", "/proc/1", "/nowhere"])
def test_host_root_that_is_none(bare: Node, path: str) -> None:
    done = bare.host.run(CNI_PY, "serve", "--host-root", path, check=False)
    assert done.status == 1
    assert done.stderr.count("\n") == 1
    assert path in done.stderr


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_without_the_capability(bare: Node, verb: str) -> None:
    """The launcher says why; a host with Python does the call itself."""
    host = bare.host
    drop = ["setpriv", "--bounding-set=-sys_chroot", "--"]
    server = host.serve("--idle-workers", "1", through=[*ELSEWHERE, *drop])
    container = host.container("c1")
    outcome = bare.call(verb, l3(), container)
    error = refusal(outcome)
    assert error["code"] == 11
    assert error["msg"] == "the cni-py server cannot serve this caller"
    assert "the server needs CAP_SYS_CHROOT" in error["details"]
    line = server.wait_for(lambda line: "elsewhere" in line)
    assert "CAP_SYS_CHROOT" in line["elsewhere"]
    host.add("bridge", l3(), container)
    assert len(server.of("verb", "elsewhere")) == 2
    host.delete("bridge", l3(), container)


def test_pid_namespaces(bare: Node) -> None:
    """A server in a pid namespace below the caller's serves it; one beside it says why not."""
    host = bare.host
    below = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    server = host.serve("--idle-workers", "1", through=[*ELSEWHERE, *below])
    container = host.container("c1")
    given = add(bare, [l3(ipMasq=True)], container)
    delete(bare, given, container)
    assert server.of("verb", "elsewhere") == []
    script = f"mount -t proc none {ROOT}/proc; exec chroot {ROOT} {PATH}/bridge"
    beside = ("unshare", "--mount", "--pid", "--fork", "sh", "-c", script)
    env = container.environ("ADD", path=PATH)
    error = refusal(host.run(*beside, stdin=json.dumps(l3()), env=env, check=False))
    assert "it is in another pid namespace" in error["details"]
