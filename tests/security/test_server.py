"""The server's socket: who may call, who may answer, and what a message may bring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.server import Server

NOBODY = 65534
_SECONDS = 30

# Listens as another user, and notes whether anything comes.
STRANGER = f"""
import os, socket
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind("/run/theirs/cni.sock")
s.listen()
print("ready", flush=True)
connection, _ = s.accept()
data, fds, _, _ = socket.recv_fds(connection, 1 << 17, 16)
print(len(data), len(fds), flush=True)
"""

# Sends a call with the files that argv names for its descriptors, and prints the answers.
CALLER = """
import json, os, socket, sys
mask, paths, environ, more = json.loads(sys.argv[1])
modes = {"w": os.O_WRONLY, "r": os.O_RDONLY, "p": os.O_PATH}
fds = [os.open(path, modes[mode]) for mode, path in paths]
# A root comes with the second version of the message.
version, mounts = (b"2", b"1\\0") if mask & 64 else (b"1", b"")
message = b"CNI" + version + bytes((mask,)) + b"bridge\\0" + mounts + environ.encode()
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect("/run/cni-py/cni.sock")
s.settimeout(20)
socket.send_fds(s, [message], fds + [fds[0]] * more)
said = []
while True:
    try:
        answer = s.recv(4096)
    except OSError:
        break
    if not answer:
        break
    said.append(answer.decode(errors="replace"))
print(json.dumps(said))
"""
CONNECT = """
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect("/run/cni-py/cni.sock")
print(os.geteuid(), s.recv(4096).decode())
"""
NETNS, CWD = ("r", "/proc/self/ns/net"), ("p", "/")
ENVIRON = (
    "CNI_COMMAND=ADD\0CNI_CONTAINERID=evil\0CNI_NETNS=/run/netns/c1\0CNI_IFNAME=eth0\0CNI_PATH=/x\0"
)


@pytest.fixture
def server(host: Host) -> Server:
    host.stop_serving()
    return host.serve("--idle-workers", "1")


@pytest.fixture
def stranger(host: Host) -> Iterator[subprocess.Popen[str]]:
    """Somebody else who listens on a socket."""
    host.stop_serving()
    host.run("sh", "-c", f"mkdir /run/theirs; chown {NOBODY} /run/theirs")
    process = subprocess.Popen(
        [*host.prefix, sys.executable, "-I", "-c", STRANGER], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def say(host: Host, mask: int, *paths: tuple[str, str], more: int = 0) -> list[str]:
    """What the server answers to a call with these descriptors."""
    told = json.dumps([mask, paths, ENVIRON, more])
    answers: list[str] = json.loads(host.run(sys.executable, "-I", "-c", CALLER, told).stdout)
    return answers


def open_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def works(host: Host) -> None:
    """A call is served, by the server."""
    assert host.server is not None
    seen = len(host.server.lines)
    container = host.container("works")
    host.add("bridge", l3(), container)
    host.server.wait_for(lambda line: line.get("container") == container.id, seen)
    host.delete("bridge", l3(), container)
    container.delete_netns()


def test_a_server_of_somebody_else(host: Host, stranger: subprocess.Popen[str]) -> None:
    """It gets neither the caller's descriptors nor its environment, and gives no answer."""
    container = host.container()
    env = container.environ("ADD") | {"CNI_PY_SOCKET": "/run/theirs/cni.sock"}
    done = host.run(f"{BIN}/bridge", stdin=json.dumps(l3()), env=env)
    assert done.json["ips"][0]["address"] == "10.1.2.2/24"
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == "0 0\n"
    host.delete("bridge", l3(), container)


@pytest.mark.usefixtures("server")
def test_caller_in_another_user_namespace(host: Host) -> None:
    """Root there is nobody here: the kernel tells the user that it is for the server."""
    host.run("sh", "-c", "chmod 755 /run/cni-py; chmod 666 /run/cni-py/cni.sock")
    become = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    inside = ("unshare", "--user", "--map-root-user", "python3", "-Ic", CONNECT)
    said = host.run(*become, *inside).stdout
    assert said.startswith("0 E{"), said
    assert "only root may call the server" in said
    works(host)


@pytest.mark.parametrize("more", [1, 40, 247])
def test_more_descriptors_than_named(host: Host, server: Server, more: int) -> None:
    """They are closed, and the call is refused: nothing of them stays open in the server."""
    works(host)
    before = open_files(server)
    for _ in range(5):
        (answer,) = say(host, 0b11000, NETNS, CWD, more=more)
        assert "the call was not understood" in answer
    works(host)
    assert open_files(server) == before


NULLS = [("r", "/dev/null"), ("w", "/dev/null"), ("w", "/dev/null")]
WRONG = {
    "null as namespace": (0b11000, [("r", "/dev/null"), CWD]),
    "mount namespace": (0b11000, [("r", "/proc/self/ns/mnt"), CWD]),
    "folder as namespace": (0b11000, [("r", "/"), CWD]),
    "file as folder": (0b11000, [NETNS, ("r", "/etc/hostname")]),
    "namespace as folder": (0b11000, [NETNS, NETNS]),
    "folders as streams": (0b11111, [("r", "/"), ("r", "/"), ("r", "/"), NETNS, CWD]),
    "reading from what is written": (0b11111, [("w", "/dev/null")] * 3 + [NETNS, CWD]),
    "null as container": (0b111111, [*NULLS, NETNS, CWD, ("r", "/dev/null")]),
    "null as root": (0b1011000, [NETNS, CWD, ("r", "/dev/null")]),
    "namespace as root": (0b1011000, [NETNS, CWD, NETNS]),
    "empty folder as root": (0b1011000, [NETNS, CWD, ("p", "/run/lock")]),
    "server's namespace as container": (0b111111, [*NULLS, NETNS, CWD, NETNS]),
}


@pytest.mark.parametrize("case", WRONG)
def test_descriptors_that_are_something_else(host: Host, server: Server, case: str) -> None:
    """The call fails alone: the next one is served as ever, in the server's own namespace."""
    mask, paths = WRONG[case]
    host.run("ip", "netns", "add", "c1")
    before = host.ip("link")
    answers = say(host, mask, *paths)
    assert "X\0" not in answers, answers
    works(host)
    left = [one["ifname"] for one in host.ip("link") if one["ifname"] != "cni0"]
    assert left == [one["ifname"] for one in before if one["ifname"] != "cni0"]
    assert Path(f"/proc/{server.process.pid}").exists()


@pytest.mark.usefixtures("server")
def test_sockets_are_no_abstract_ones(host: Host) -> None:
    """CVE-2020-15257: an abstract socket is there for every container in the host's namespace."""
    listed = host.run("cat", "/proc/net/unix").stdout
    ours = [line.split()[-1] for line in listed.splitlines() if "cni" in line]
    assert sorted(set(ours)) == ["/run/cni-py/cni.sock", "/run/cni-py/metrics.sock"]
