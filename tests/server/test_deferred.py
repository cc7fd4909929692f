"""DELs that find neither a server nor Python: written down by the launcher, carried out later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Container, Host, Outcome, refusal
from fixtures.leaks import leaks
from fixtures.server import CNI_PY

from .conftest import start, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.server import Server

FOLDER = "/run/cni-py/deferred"
SOCKET = "/run/cni-py/cni.sock"
MOST_FILES, MOST_BYTES, MOST_INPUT = 4096, 16 << 20, 1 << 20
FULL = "/run/cni-py/deferred, which may be full"
CHAIN: list[dict[str, Any]] = [
    l3(isGateway=True, ipMasq=True),
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    {"type": "firewall", "backend": "nftables", "ingressPolicy": "same-bridge"},
    {"type": "bandwidth", "egressRate": 1000000, "egressBurst": 1000000},
]
# An IPAM plugin whose DEL does what a file says, and notes the namespace that it was given.
OWN = """#!/bin/sh
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}' ;;
DEL) echo "$CNI_CONTAINERID $CNI_NETNS" >> /run/own/dels; touch /run/own/del.$$
    while [ -e /run/own/hold ]; do sleep 0.02; done
    [ ! -e /run/own/fail ] ;;
esac
"""
OWN_CONFIG = l3(ipam={"type": "own"})


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launchers as on a node without Python: there are no executables behind them."""
    folder = tmp_path_factory.mktemp("lonely")
    subprocess.run([CNI_PY, "install", "--launcher-only", str(folder)], check=True)
    return folder


@pytest.fixture
def node(host: Host, lonely: Path) -> Iterator[Host]:
    """A host whose plugins are launchers alone, with a server."""
    host.stop_serving()
    host.run("mkdir", "-p", "/run/own")
    host.run("sh", "-c", "cat > /run/own/own; chmod +x /run/own/own", stdin=OWN)
    host.path = f"{lonely}:/run/own"
    host.serve()
    yield host
    if host.server is None:
        host.serve()


def delete(host: Host, config: Any, container: Container, **env: str) -> Outcome:
    """A DEL that finds no server."""
    env = {"CNI_PY_SOCKET": "/run/nobody.sock"} | env
    return host.call(config["type"], "DEL", config, container, env=env)


def deferred(host: Host, config: Any, container: Container, **env: str) -> None:
    """The same, which must succeed."""
    outcome = delete(host, config, container, **env)
    assert (outcome.status, outcome.stdout) == (0, ""), outcome
    assert "DEL is deferred" in outcome.stderr
    host.attachments.pop((config["name"], container.id, "eth0", config["type"]), None)


def files(host: Host) -> list[str]:
    listed = host.run("find", FOLDER, "-maxdepth", "1", "-type", "f", check=False).stdout
    return sorted(listed.split())


def drained(host: Host, **options: Any) -> None:
    until(lambda: files(host) == [], **options)


def attach(host: Host, container: Container) -> list[dict[str, Any]]:
    """The whole chain; returns what DEL is given, in DEL's order."""
    result: Any = None
    given = []
    number = int(container.id.rpartition("c")[2])
    mapping = {"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"}
    for one in CHAIN:
        config = {"cniVersion": "1.1.0", "name": "net1", **one}
        if result is not None:
            config["prevResult"] = result
        if one["type"] == "portmap":
            config["runtimeConfig"] = {"portMappings": [mapping]}
        result = host.add(one["type"], config, container)
        given.append(config)
    return [{**config, "prevResult": result} for config in reversed(given)]


def test_carried_out_when_a_server_comes(node: Host) -> None:
    container = node.container("c1")
    node.add("bridge", l3(), container)
    node.stop_serving()
    deferred(node, l3(), container)
    assert len(node.ports()) == 1
    assert list(node.allocated("net1")) == ["10.1.2.2"]
    (path,) = files(node)
    assert node.run("stat", "-c", "%a %u", FOLDER, path).stdout == "700 0\n600 0\n"
    container.delete_netns()
    server = node.serve()
    server.wait_for(lambda line: line.get("deferred") == Path(path).name)
    assert files(node) == []
    assert leaks(node) == []
    assert server.metric("cni_py_deferred_dels ") == 0
    # Its place is free: a call that comes is served.
    node.add("bridge", l3(), node.container("c2"))


def test_calls_come_after_what_was_deferred(node: Host) -> None:
    """The port and the only address of a container that is gone are free for the first ADD."""
    config = l3(ipam={"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/30"}]]})
    first, second = node.container("c1"), node.container("c2")
    node.add("bridge", config, first)
    node.stop_serving()
    deferred(node, config, first)
    node.serve()
    result = node.add("bridge", config, second)
    assert result["ips"][0]["address"] == "10.1.2.2/30"


def test_chain(node: Host) -> None:
    """All of a chain, in its order, though the namespaces are gone."""
    containers = [node.container(f"c{index}") for index in range(3)]
    given = [attach(node, one) for one in containers]
    node.stop_serving()
    for configs, container in zip(given, containers, strict=True):
        for config in configs:
            deferred(node, config, container)
        container.delete_netns()
    server = node.serve()
    drained(node)
    until(lambda: len(server.of("verb", "DEL")) == 12)
    assert leaks(node) == []
    for container in containers:
        done = [one["plugin"] for one in server.of("container", container.id)]
        assert done == ["bandwidth", "firewall", "portmap", "bridge"]


def test_a_hundred_at_once(node: Host) -> None:
    containers = [node.container(f"c{index}") for index in range(100)]
    for one in containers:
        node.add("bridge", l3(), one)
    node.stop_serving()
    calls = [start_on(node, one) for one in containers]
    for call in calls:
        output, _ = call.communicate(timeout=60)
        assert (call.returncode, output) == (0, b"")
    assert len(files(node)) == 100
    node.attachments.clear()
    node.serve()
    drained(node, seconds=60)
    assert leaks(node) == []


def start_on(host: Host, container: Container, config: Any = None) -> subprocess.Popen[bytes]:
    """A DEL by the launcher that has no Python."""
    path, _, _ = host.path.partition(":")
    return start(host, "DEL", config or l3(), container, path=host.path, executable=path)


def test_killed_while_it_carries_out(node: Host) -> None:
    """The next server goes on; what was done is done once more, or is known to be."""
    containers = [node.container(f"c{index}") for index in range(30)]
    for one in containers:
        node.add("bridge", l3(isGateway=True, ipMasq=True), one)
    node.stop_serving()
    for one in containers:
        deferred(node, l3(isGateway=True, ipMasq=True), one)
    server = node.serve()
    server.wait_for(lambda line: bool(line.get("deferred")))
    pids = [*server.workers(), server.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()
    assert files(node) != []
    node.serve()
    drained(node)
    assert leaks(node) == []


def test_server_that_came_meanwhile(node: Host) -> None:
    """One that started before the file was there finds it soon."""
    container = node.container("c1")
    node.add("bridge", l3(), container)
    deferred(node, l3(), container)
    drained(node)
    assert leaks(node) == []


def test_full(node: Host) -> None:
    """By number, by size, by the file system: an error, after which the runtime tries again."""
    container = node.container("c1")
    node.add("bridge", l3(), container)
    node.stop_serving()
    node.run("mkdir", "-p", "-m", "700", FOLDER)
    many = f"cd {FOLDER}; seq -f 'x%04g' 1 {MOST_FILES - 1} | xargs touch"
    node.run("sh", "-c", many)
    deferred(node, l3(), container)
    node.attachments["net1", container.id, "eth0", "bridge"] = ("bridge", l3(), container, {})
    assert FULL in refusal(delete(node, l3(), container))["details"]
    node.run("sh", "-c", f"rm {FOLDER}/x*; truncate -s {MOST_BYTES} {FOLDER}/x")
    error = refusal(delete(node, l3(), container))
    assert (error["code"], FULL in error["details"]) == (11, True)
    node.run("rm", f"{FOLDER}/x")
    assert refusal(delete(node, l3(x="x" * MOST_INPUT), container))["code"] == 11
    node.run("mount", "-t", "tmpfs", "-o", "size=4k", "none", FOLDER)
    node.run("sh", "-c", f"chmod 700 {FOLDER}; cat /dev/zero > {FOLDER}/x", check=False)
    assert refusal(delete(node, l3(), container))["code"] == 11
    assert node.run("ls", FOLDER).stdout == "x\n"
    node.run("umount", FOLDER)
    assert len(files(node)) == 1


@pytest.mark.parametrize("mode", ["777", "770", "owner", "link", "file"])
def test_folder_of_somebody_else(node: Host, mode: str) -> None:
    """Nothing is written where others could read or change it, and nothing is followed."""
    node.stop_serving()
    node.run("mkdir", "-p", "/run/cni-py", "/run/other")
    if mode == "link":
        node.run("ln", "-s", "/run/other", FOLDER)
    elif mode == "file":
        node.run("touch", FOLDER)
    else:
        node.run("mkdir", FOLDER)
        change = ("chown", "65534") if mode == "owner" else ("chmod", mode)
        node.run(*change, FOLDER)
    assert refusal(delete(node, l3(), node.container("c1")))["code"] == 11
    assert node.run("find", "/run/other", FOLDER, "-type", "f").stdout.split() in ([], [FOLDER])
    node.run("rm", "-rf", FOLDER)


def test_python_that_is_there_and_does_not_start(node: Host) -> None:
    """A host that has it may never get a server: the runtime has to ask again."""
    container = node.container("c1")
    node.stop_serving()
    # The kernel refuses an interpreter that somebody writes to (ETXTBSY), which passes.
    busy = 'cp /bin/true /run/python; exec 3>>/run/python; exec "$@"'
    script = "#!/run/python\n"
    upper = "mkdir -p /run/upper /run/work"
    overlay = f"lowerdir={BIN},upperdir=/run/upper,workdir=/run/work"
    node.run("sh", "-c", f"{upper}; mount -t overlay -o {overlay} none {BIN}")
    node.run("tee", f"{BIN}/.cni-py/bridge", stdin=script)
    env = container.environ("DEL") | {"CNI_PY_SOCKET": "/run/nobody.sock"}
    call = ("sh", "-c", busy, "sh", f"{BIN}/bridge")
    outcome = node.run(*call, env=env, stdin=json.dumps(l3()), check=False)
    node.run("umount", str(BIN))
    assert (outcome.status, outcome.json["code"]) == (1, 11)
    assert files(node) == []


@pytest.mark.parametrize("missing", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"])
def test_call_that_is_none(node: Host, missing: str) -> None:
    """What no plugin could carry out is not written down."""
    node.stop_serving()
    assert refusal(delete(node, l3(), node.container("c1"), **{missing: ""}))["code"] == 11
    assert files(node) == []


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "GC", "STATUS", "VERSION"])
def test_other_verbs_are_not_deferred(node: Host, verb: str) -> None:
    node.stop_serving()
    error = refusal(
        node.call("bridge", verb, l3(), node.container("c1"), env={"CNI_PY_SOCKET": SOCKET})
    )
    assert error["code"] == (50 if verb == "STATUS" else 11)
    assert files(node) == []


def test_damaged(node: Host) -> None:
    """Set aside, each with its reason; the others are carried out, and calls served."""
    container = node.container("c1")
    node.add("bridge", l3(), container)
    node.stop_serving()
    deferred(node, l3(), container)
    (good,) = files(node)
    stem = good.rpartition("-")[0][:-4]
    damage = {
        "empty": ": > {}",
        "half": f"head -c 200 {good} > {{}}",
        "cut": f"head -c -9 {good} > {{}}",
        "longer": f"(cat {good}; echo) > {{}}",
        "noise": "head -c 5000 /dev/urandom > {}",
        "verb": f"sed s/CNI_COMMAND=DEL/CNI_COMMAND=ADD/ {good} > {{}}",
        "plugin": f"sed s/CNID1bridge/CNID1bridgX/ {good} > {{}}",
        "json": f"sed 's/cniVersion.:/cniVersion\" /' {good} > {{}}",
        "id": f"sed s/CNI_CONTAINERID=id-c1/CNI_CONTAINERID=id+c1/ {good} > {{}}",
        "link": f"ln -s {good} {{}}",
        "folder": "mkdir {}; touch {}/x",
        "fifo": "mkfifo {}",
    }
    for number, command in enumerate(damage.values()):
        node.run("sh", "-c", command.replace("{}", f"{stem}{number:04}-{'0' * 16}"))
    node.run("touch", f"{FOLDER}/odd name")
    server = node.serve()
    node.add("bridge", l3(), node.container("c2"))
    listed = node.run("ls", FOLDER, f"{FOLDER}/damaged").stdout.splitlines()
    assert listed[:3] == [f"{FOLDER}:", "damaged", ""]
    assert len(listed) - 4 == len(damage) + 1
    assert len(node.ports()) == 1
    assert sum("was set aside" in one for one in server.noise) == len(damage) + 1
    node.run("rm", "-r", f"{FOLDER}/damaged")


def test_another_namespace_at_the_path(node: Host) -> None:
    """It is another container's by now: nothing in it is touched, and a delegate is not told it."""
    node.run("ip", "link", "add", "up0", "type", "dummy", check=False)
    if node.link("up0") is None:
        node.run("ip", "link", "add", "up0", "type", "veth", "peer", "up1")
    macvlan = {"cniVersion": "1.1.0", "name": "net2", "type": "macvlan", "master": "up0"}
    gone, same = node.container("c1", "gone"), node.container("c2", "same")
    for one in (gone, same):
        node.add("macvlan", macvlan, one)
        node.add("bridge", OWN_CONFIG, one, "eth1")
    node.stop_serving()
    for one in (gone, same):
        deferred(node, macvlan, one)
        env = {"CNI_PY_SOCKET": SOCKET}
        outcome = node.call("bridge", "DEL", OWN_CONFIG, one, "eth1", env)
        assert outcome.status == 0
    node.attachments.clear()
    gone.delete_netns()
    other = node.container("c1", "other")
    other.run("ip", "link", "add", "eth0", "type", "veth", "peer", "eth1")
    before = other.ip("link")
    node.serve()
    drained(node)
    assert other.ip("link") == before
    assert [one["ifname"] for one in same.ip("link")] == ["lo"]
    told = node.run("sort", "/run/own/dels").stdout
    assert told == "gone \nsame /run/netns/c2\n"
    other.delete_netns()


def test_add_comes_after_its_del(node: Host) -> None:
    """Also one that is standalone, on a host that has got Python meanwhile."""
    container = node.container("c1")
    node.add("bridge", l3(), container)
    node.stop_serving()
    deferred(node, l3(), container)
    outcome = node.run(
        f"{BIN}/bridge",
        stdin=json.dumps(l3()),
        env=container.environ("ADD", path=str(BIN)) | {"CNI_PY_SOCKET": ""},
    )
    assert files(node) == []
    assert outcome.json["ips"][0]["address"] == "10.1.2.3/24"
    assert list(node.allocated("net1")) == ["10.1.2.3"]
    node.attachments["net1", container.id, "eth0", "bridge"] = ("bridge", l3(), container, {})
    node.serve()
    assert container.link()["ifname"] == "eth0"


def test_by_hand(node: Host) -> None:
    """`cni-py doctor` tells of it, `cni-py gc` carries it out where there is no server, or says why
    it cannot."""
    container = node.container("c1")
    node.add("bridge", OWN_CONFIG, container)
    node.stop_serving()
    deferred(node, OWN_CONFIG, container)
    gc = (CNI_PY, "gc", "-", "--cni-path", str(BIN))
    told = f"1 DELs are deferred in {FOLDER}, one for "
    assert told in node.run(CNI_PY, "doctor", check=False).stdout
    node.run("touch", "/run/own/fail")
    outcome = node.run(*gc, stdin=json.dumps(l3()), check=False)
    assert outcome.status == 1
    assert "deferred DEL of id-c1: netplugin failed" in outcome.stderr
    node.run("rm", "/run/own/fail")
    node.run(*gc, "--dry-run", stdin=json.dumps(l3()))
    assert len(files(node)) == 1
    node.run(*gc, stdin=json.dumps(l3()))
    assert leaks(node) == []
    assert "no DEL is deferred" in node.run(CNI_PY, "doctor", check=False).stdout


def test_one_that_fails(node: Host) -> None:
    """It stays, is told, keeps the ADD of its attachment waiting, and holds up nobody else."""
    container, other = node.container("c1"), node.container("c2")
    node.add("bridge", OWN_CONFIG, container)
    node.add("bridge", l3(), other)
    node.stop_serving()
    deferred(node, OWN_CONFIG, container)
    deferred(node, l3(), other)
    node.run("touch", "/run/own/fail")
    server = node.serve()
    line = server.wait_for(lambda line: line["event"] == "deferred DEL fails")
    assert (line["times"], line["again_in_seconds"]) == (1, 5.0)
    until(lambda: len(files(node)) == 1)
    assert server.metric("cni_py_deferred_dels_failing") == 1
    assert server.metric("cni_py_deferred_dels ") == 1
    error = refusal(node.call("bridge", "ADD", OWN_CONFIG, container))
    assert error["code"] == 11
    assert "an earlier DEL of the attachment has been deferred and fails" in error["msg"]
    node.run("rm", "/run/own/fail")
    node.add("bridge", OWN_CONFIG, container)
    assert files(node) == []
    until(lambda: server.metric("cni_py_deferred_dels_failing") == 0)


def test_of_another_network_namespace(node: Host) -> None:
    """A server elsewhere would not find what is to be taken away: it waits for the right one."""
    container = node.container("c1")
    node.stop_serving()
    path, _, _ = node.path.partition(":")
    env = container.environ("DEL") | {"CNI_PY_SOCKET": "/run/nobody.sock"}
    node.run("unshare", "--net", f"{path}/bridge", env=env, stdin=json.dumps(l3()))
    node.run("unshare", "--mount", f"{path}/bridge", env=env, stdin=json.dumps(l3()))
    assert len(files(node)) == 2
    server = node.serve()
    for kind in ("network", "mount"):
        line = server.wait_for(lambda line, kind=kind: f"another {kind}" in line.get("error", ""))
        assert line["event"] == "deferred DEL fails"
    assert len(files(node)) == 2
    node.run("sh", "-c", f"rm {FOLDER}/*")


# The server ends during a DEL.


@pytest.fixture
def slow(node: Host) -> Container:
    """A container whose DEL waits in its IPAM plugin."""
    container = node.container("c1")
    node.add("bridge", OWN_CONFIG, container)
    node.attachments.clear()
    node.run("touch", "/run/own/hold")
    return container


def dels(host: Host) -> int:
    return len(host.run("cat", "/run/own/dels", check=False).stdout.splitlines())


def serving(server: Server | None) -> list[int]:
    """The workers that have a DEL's input."""
    assert server is not None
    found = []
    for pid in server.workers():
        try:
            if "memfd:stdin" in os.readlink(f"/proc/{pid}/fd/0"):
                found.append(pid)
        except FileNotFoundError:
            continue
    return found


def finish(host: Host, call: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    host.run("rm", "/run/own/hold")
    output, errors = call.communicate(timeout=60)
    return call.returncode, output, errors


def test_worker_killed_in_del(node: Host, slow: Container) -> None:
    """The launcher hands the DEL over once more: the runtime does not notice."""
    assert node.server is not None
    call = start_on(node, slow, OWN_CONFIG)
    until(lambda: dels(node) == 1)
    os.kill(serving(node.server)[0], signal.SIGKILL)
    assert finish(node, call) == (0, b"", b"")
    assert dels(node) == 2
    assert leaks(node) == []


def test_worker_killed_twice_in_del(node: Host, slow: Container) -> None:
    """Once more is enough: then it is an error, and the runtime's DEL frees all."""
    assert node.server is not None
    call = start_on(node, slow, OWN_CONFIG)
    until(lambda: dels(node) == 1)
    first = serving(node.server)
    os.kill(first[0], signal.SIGKILL)
    until(lambda: serving(node.server) not in ([], first))
    os.kill(serving(node.server)[0], signal.SIGKILL)
    status, output, _ = finish(node, call)
    assert (status, json.loads(output)["code"]) == (1, 11)
    node.delete("bridge", OWN_CONFIG, slow)
    assert leaks(node) == []


@pytest.mark.parametrize("python", [True, False])
def test_all_of_the_server_killed_in_del(node: Host, slow: Container, *, python: bool) -> None:
    """Where there is Python the launcher carries the DEL out, and writes it down where not."""
    server = node.server
    assert server is not None
    path = f"{BIN}:/run/own" if python else node.path
    executable = str(BIN) if python else node.path.partition(":")[0]
    call = start(node, "DEL", OWN_CONFIG, slow, path=path, executable=executable)
    until(lambda: dels(node) == 1)
    for pid in [server.process.pid, *server.workers()]:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()
    node.stop_serving()
    status, output, errors = finish(node, call)
    assert (status, output) == (0, b"")
    assert (b"DEL is deferred" in errors) != python
    assert len(files(node)) == (not python)
    if not python:
        node.serve()
        drained(node)
    assert leaks(node) == []


def test_interrupted_del_is_not_repeated(node: Host, slow: Container) -> None:
    """Who gives up on it does not want it once more."""
    assert node.server is not None
    call = start_on(node, slow, OWN_CONFIG)
    until(lambda: dels(node) == 1)
    (worker,) = serving(node.server)
    os.kill(worker, signal.SIGSTOP)
    call.send_signal(signal.SIGTERM)
    os.kill(worker, signal.SIGKILL)
    status, output, _ = finish(node, call)
    assert status == 1
    assert json.loads(output)["code"] == 11
    node.delete("bridge", OWN_CONFIG, slow)
    assert leaks(node) == []
