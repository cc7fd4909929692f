"""What goes wrong around a call: the others go on, the caller hears of it, nothing leaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fixtures.configs import l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, Host, refusal
from fixtures.leaks import leaks
from fixtures.server import CNI_PY, Server

from .conftest import SLOW_CONFIG, Held, start, until

SOCKET = "/run/cni-py/cni.sock"
# Connects in the host's namespaces, and does what argv says.
CLIENT = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if len(sys.argv) > 2:
    os.setresuid(*[int(sys.argv[2])] * 3)
s.connect("/run/cni-py/cni.sock")
s.settimeout(10)
try:
    s.send(bytes.fromhex(sys.argv[1]))
except BrokenPipeError:
    pass
try:
    print(s.recv(4096).decode())
except OSError as error:
    print(f"closed: {error}")
"""


def send(host: Host, message: bytes, *uid: str) -> str:
    """What the server answers to a message."""
    return host.run(sys.executable, "-I", "-c", CLIENT, message.hex(), *uid).stdout.strip()


def works(host: Host, name: str) -> None:
    """A call is served, by the server."""
    assert host.server is not None
    seen = len(host.server.lines)
    container = host.container(name)
    host.add("bridge", l3(), container)
    host.server.wait_for(lambda line: line.get("container") == container.id, seen)
    host.delete("bridge", l3(), container)


@pytest.mark.parametrize(
    "message",
    [
        b"x",
        b"CNI1",
        b"CNI1\x00",
        b"CNI1\x00bridge",
        b"CNI1\x00bridge\x00A=1\x00",
        b"CNI1\x3fbridge\x00",
        b"CNI1\xffbridge\x00",
        b"CNI1\x18\xff\xfe\x00",
        bytes(range(256)) * 16,
        b"C" * 150_000,
    ],
    ids=lambda one: f"{len(one)} bytes {one[:8]!r}",
)
def test_message_that_is_no_call(served: Host, message: bytes) -> None:
    answer = send_long(served, len(message)) if len(message) > 100_000 else send(served, message)
    assert answer.startswith("E{"), answer
    assert '"code": 4' in answer
    assert "the call was not understood" in answer
    works(served, "after")


def send_long(host: Host, length: int) -> str:
    """The same for a message too long for a command line."""
    code = CLIENT.replace("bytes.fromhex(sys.argv[1])", "b'C' * int(sys.argv[1])")
    return host.run(sys.executable, "-I", "-c", code, str(length)).stdout.strip()


def test_another_user(served: Host) -> None:
    """The socket is root's alone; where somebody opens it up, the credentials are looked at."""
    assert served.run("stat", "-c", "%a %U", SOCKET).stdout == "600 root\n"
    closed = served.run(sys.executable, "-I", "-c", CLIENT, b"x".hex(), "65534", check=False)
    assert "Permission denied" in closed.stderr
    served.run("chmod", "755", "/run/cni-py")
    served.run("chmod", "666", SOCKET)
    assert "only root may call the server" in send(served, b"x", "65534")
    works(served, "after")


def test_a_thousand_idle_connections(served: Host) -> None:
    """They cost no worker, and calls go on beside them."""
    hold = (
        "import resource, socket, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "held = []\n"
        "for _ in range(1000):\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"    s.connect({SOCKET!r})\n"
        "    held.append(s)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [*served.prefix, sys.executable, "-I", "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        works(served, "meanwhile")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
    works(served, "after")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(served: Host, closed: str) -> None:
    """A caller without some of its streams gets an error where it can, and nothing is left."""
    container = served.container("c1")
    env = container.environ("ADD")
    outcome = served.run("sh", "-c", f"exec {BIN}/bridge {closed}", env=env, check=False)
    assert outcome.status == 1
    if ">&-" not in closed.split():
        assert outcome.json["code"] in (5, 6)
    assert served.ports() == []
    works(served, "after")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_to_the_caller_undoes_the_add(served: Host, held: Held, number: int) -> None:
    held.process.send_signal(number)
    status, error = held.outcome()
    assert status == 1
    assert (error["code"], error["msg"]) == (11, f"interrupted by {signal.Signals(number).name}")
    assert leaks(served) == []
    assert served.ports() == []


def test_killed_caller_undoes_the_add(served: Host, held: Held) -> None:
    held.process.kill()
    until(lambda: leaks(served) == [] and served.link("cni0") is None)


def test_killed_worker(served: Host, server: Server, held: Held) -> None:
    """The caller gets code 11; the DEL that follows a failed ADD removes what is left."""
    os.kill(held.worker(), signal.SIGKILL)
    status, error = held.outcome()
    assert status == 1
    assert (error["code"], error["msg"]) == (11, "the cni-py server ended during the call")
    works(served, "after")
    assert server.metric("cni_py_lost_workers_total") == 1
    # The DEL comes after the end of the IPAM plugin that the worker has left behind.
    served.run("touch", "/run/go")
    served.delete("bridge", SLOW_CONFIG, held.container, env={"CNI_PATH": f"{BIN}:/run/slow"})
    assert served.ports() == []


def test_killed_server(served: Host, server: Server, held: Held) -> None:
    """Its workers finish their calls; the next call is standalone."""
    server.process.kill()
    server.process.wait()
    served.run("touch", "/run/go")
    status, result = held.outcome()
    assert (status, result["ips"][0]["address"]) == (0, "10.1.2.99/24")
    served.delete("bridge", SLOW_CONFIG, held.container, env={"CNI_PATH": f"{BIN}:/run/slow"})
    container = served.container("after")
    served.add("bridge", l3(), container)
    served.delete("bridge", l3(), container)
    # A new server takes the place of the dead one's socket.
    served.serve()
    works(served, "later")


def test_killed_worker_that_waits(served: Host, server: Server) -> None:
    """Nobody notices: a call that one of them got before it was gone is standalone."""
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    for index in range(6):
        container = served.container(f"c{index}")
        served.add("bridge", l3(), container)
        served.delete("bridge", l3(), container)
    works(served, "after")


def test_namespace_vanishes_during_the_call(served: Host, held: Held) -> None:
    """The call holds it open: it ends as if nothing had happened, and DEL cleans up."""
    held.container.delete_netns()
    served.run("touch", "/run/go")
    status, _ = held.outcome()
    assert status == 0
    served.delete("bridge", SLOW_CONFIG, held.container, env={"CNI_PATH": f"{BIN}:/run/slow"})
    until(lambda: served.ports() == [])


def test_full_disk(served: Host) -> None:
    """An address that cannot be written down is not given out."""
    container = served.container("c1")
    served.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", "/var/lib/cni")
    served.run("sh", "-c", "cat /dev/zero > /var/lib/cni/full", check=False)
    before = dump(served)
    error = refusal(served.call("bridge", "ADD", l3(), container))
    assert "No space left on device" in error["msg"]
    assert differences({"links": before["links"]}, {"links": dump(served)["links"]}) == ""
    served.run("rm", "/var/lib/cni/full")
    works(served, "after")


def test_call_that_takes_too_long(served: Host) -> None:
    """It is interrupted, undoes what it did, and says so."""
    served.stop_serving()
    served.serve("--call-seconds", "1")
    call = start(served, "ADD", SLOW_CONFIG, served.container("c1"))
    output, _ = call.communicate(timeout=30)
    assert call.returncode == 1
    assert b'"code": 11' in output
    assert served.ports() == []
    assert leaks(served) == []


def test_more_calls_than_workers(served: Host) -> None:
    """They wait in a queue, and all of them succeed."""
    served.stop_serving()
    served.serve("--workers", "2")
    containers = [served.container(f"c{index}") for index in range(10)]
    calls = [start(served, "ADD", l3(), one) for one in containers]
    for call, container in zip(calls, containers, strict=True):
        output, _ = call.communicate(timeout=60)
        assert call.returncode == 0, output
        served.attachments["net1", container.id, "eth0", "bridge"] = (
            "bridge",
            l3(),
            container,
            {},
        )


def test_socket_path_in_the_environment(served: Host) -> None:
    """CNI_PY_SOCKET: another place; empty, no server at all."""
    assert served.server is not None
    container = served.container("c1")
    seen = len(served.server.lines)
    for path in ("", "/run/nobody.sock", "/run/" + "long" * 40):
        process = start(served, "ADD", l3(), container, CNI_PY_SOCKET=path)
        assert process.communicate(timeout=30)[0]
        assert process.returncode == 0
        process = start(served, "DEL", l3(), container, CNI_PY_SOCKET=path)
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert [line for line in served.server.lines[seen:] if line["event"] == "call"] == []


def test_second_server_is_refused(served: Host) -> None:
    outcome = served.run(CNI_PY, "serve", check=False)
    assert outcome.status == 1
    assert "Address already in use" in outcome.stderr
    works(served, "after")


def test_report_that_is_long_or_no_text(served: Host, server: Server) -> None:
    """What the caller's environment holds cannot end the server, or its log."""
    container = served.container("c1")
    env = container.environ("VERSION") | {"TRACEPARENT": "0" * 70_000}
    assert served.run(f"{BIN}/bridge", env=env, stdin="{}").status == 0
    run = ["env", "-i", "CNI_CONTAINERID=\udcff", "CNI_COMMAND=\udcfe", f"{BIN}/bridge"]
    seen = len(server.lines)
    assert served.run(*run, check=False).status == 1
    server.wait_for(lambda one: one.get("verb") == "other", seen)
    works(served, "after")


def test_verbs_that_are_none(served: Host, server: Server) -> None:
    """They share one label: a caller must not fill the metrics."""
    for index in range(5):
        env = {"CNI_COMMAND": f'X{index}"', "CNI_PATH": str(BIN)}
        served.run(f"{BIN}/bridge", env=env, stdin="{}", check=False)
    until(lambda: 'verb="other"' in server.metrics())
    assert 'X1"' not in server.metrics()


def test_full_memory_disk(served: Host) -> None:
    """What is rehearsed there is left out; calls are served."""
    served.stop_serving()
    served.run("mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "none", "/dev/shm")
    served.run("sh", "-c", "cat /dev/zero > /dev/shm/full", check=False)
    served.run("sh", "-c", "touch /dev/shm/more", check=False)
    server = served.serve()
    for index in range(6):
        works(served, f"c{index}")
    assert any("cannot rehearse" in one for one in server.noise)
    assert server.metric("cni_py_lost_workers_total") == 0


def test_no_descriptors_left(served: Host, server: Server) -> None:
    """It serves what it can, waits, and goes on when there are some again."""
    pid = str(server.process.pid)
    for one in server.workers():
        os.kill(one, signal.SIGKILL)
    hard = served.run("prlimit", "--pid", pid, "--nofile", "-o", "HARD", "--noheadings").stdout
    served.run("prlimit", "--pid", pid, f"--nofile=4:{hard.strip()}")
    container = served.container("c1")
    seen = len(server.lines)
    call = start(served, "ADD", l3(), container)
    server.wait_for(lambda line: line["event"] == "accept failed", seen)
    # It does not try all the time: a hundred milliseconds lie between two attempts.
    began = time.monotonic()
    until(lambda: sum(line["event"] == "accept failed" for line in server.lines[seen:]) > 5)
    assert time.monotonic() - began > 0.3
    served.run("prlimit", "--pid", pid, f"--nofile={hard.strip()}:{hard.strip()}")
    output, _ = call.communicate(timeout=60)
    assert call.returncode == 0, output
    served.delete("bridge", l3(), container)
    works(served, "after")


@pytest.mark.parametrize("times", [1, 3])
def test_signals_do_not_cut_the_undoing(served: Host, held: Held, times: int) -> None:
    for _ in range(times):
        held.process.send_signal(signal.SIGTERM)
    status, error = held.outcome()
    assert (status, error["code"]) == (1, 11)
    assert leaks(served) == []
    assert served.link("cni0") is None


def test_reload_during_a_reload(served: Host, server: Server) -> None:
    """SIGHUP again and again, while it starts anew: it stays, and serves."""
    for pause in range(40):
        server.process.send_signal(signal.SIGHUP)
        # The next one comes a little later in the start each time.
        served.run("busybox", "usleep", str(pause * 5000))
    assert server.process.poll() is None
    works(served, "after")


def test_caller_in_another_mount_namespace(served: Host, server: Server) -> None:
    """Paths lead elsewhere there: the call is served with the caller's files."""
    container = served.container("c1")
    config = json.dumps(l3())
    served.run("sh", "-c", "cat > /run/config", stdin=config)
    add = f"mount -t tmpfs none /var/lib/cni; {BIN}/bridge < /run/config; ls /var/lib/cni/networks"
    env = container.environ("ADD")
    outcome = served.run("unshare", "--mount", "sh", "-c", add, env=env)
    assert outcome.stdout.endswith("}net1\n")
    assert served.allocated("net1") == {}
    server.wait_for(lambda line: line.get("verb") == "ADD")
    served.delete("bridge", l3(), container)
    works(served, "after")
