"""What a killed call leaves running: the next call of the attachment waits for its end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Container, Host, refusal
from fixtures.leaks import leaks

from .conftest import start, until

if TYPE_CHECKING:
    import subprocess

# It takes an address when it is let, however long its caller has been gone.
SLOW = """#!/bin/sh
lease=/run/own/lease.$CNI_CONTAINERID
case $CNI_COMMAND in
ADD) echo begins >> /run/own/told; echo $$ > /run/own/pid
    while [ ! -e /run/own/go ]; do sleep 0.02; done
    echo 10.1.2.99 > $lease; echo ends >> /run/own/told
    echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}' ;;
DEL) echo deletes >> /run/own/told; rm -f $lease ;;
esac
"""
DAEMON = """#!/bin/sh
case $CNI_COMMAND in
ADD) sleep 600 < /dev/null > /dev/null 2>&1 & echo $! > /run/own/pid
    echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}' ;;
esac
"""
CONFIG = l3(isGateway=True, ipMasq=True, ipam={"type": "own"})
PATH = f"{BIN}:/run/own"


@pytest.fixture
def own(host: Host) -> Host:
    """A host with the slow IPAM plugin."""
    host.stop_serving()
    install(host, SLOW)
    host.path = PATH
    return host


def install(host: Host, script: str) -> None:
    host.run("mkdir", "-p", "/run/own")
    host.run("sh", "-c", "cat > /run/own/own; chmod +x /run/own/own", stdin=script)


def told(host: Host) -> list[str]:
    return host.run("cat", "/run/own/told", check=False).stdout.split()


def killed_add(host: Host, container: Container, *, warm: bool) -> None:
    """An ADD whose process gets SIGKILL while its IPAM plugin runs."""
    env: dict[str, Any] = {} if warm else {"CNI_PY_SOCKET": ""}
    call = start(host, "ADD", CONFIG, container, path=PATH, **env)
    until(lambda: told(host) == ["begins"])
    pid = parent(int(host.run("cat", "/run/own/pid").stdout))
    assert (pid == call.pid) != warm
    os.kill(pid, signal.SIGKILL)
    call.communicate(timeout=30)
    assert call.returncode != 0


def works(host: Host) -> None:
    """Another ADD finishes what the killed one has begun of the bridge."""
    container = host.container("after")
    host.add("bridge", CONFIG, container)
    host.delete("bridge", CONFIG, container)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("warm", [False, True])
def test_del_waits_for_the_orphan(own: Host, *, warm: bool) -> None:
    """What the killed ADD's IPAM plugin takes afterwards is freed: DEL begins when it has ended."""
    if warm:
        own.serve()
    container = own.container("c1")
    killed_add(own, container, warm=warm)
    env = {} if warm else {"CNI_PY_SOCKET": ""}
    call: subprocess.Popen[bytes] = start(own, "DEL", CONFIG, container, path=PATH, **env)
    # The DEL has its lock's file open, and waits.
    until(lambda: waits(own) == 1)
    assert call.poll() is None
    assert told(own) == ["begins"]
    own.run("touch", "/run/own/go")
    output, _ = call.communicate(timeout=30)
    assert (call.returncode, output) == (0, b"")
    assert told(own) == ["begins", "ends", "deletes"]
    assert own.run("find", "/run/own", "-name", "lease.*").stdout == ""
    works(own)
    assert leaks(own) == []


def waits(host: Host) -> int:
    """How many wait for an attachment's lock, from the kernel's list of locks."""
    names = host.run("find", "/run/cni-py/attachments", "-type", "f", "-printf", "%i ").stdout
    inodes = set(names.split())
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sum(one[1] == "->" and one[6].rpartition(":")[2] in inodes for one in lines)


@pytest.mark.slow
def test_orphan_that_does_not_end(own: Host) -> None:
    """After 30 s DEL says who is in its way; once that is gone it frees all."""
    container = own.container("c1")
    killed_add(own, container, warm=False)
    pid = int(own.run("cat", "/run/own/pid").stdout)
    error = refusal(own.call("bridge", "DEL", CONFIG, container))
    assert error["code"] == 11
    assert error["details"] == f"held by process {pid} (own)"
    assert told(own) == ["begins"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    own.delete("bridge", CONFIG, container)
    own.run("touch", "/run/own/go")
    works(own)
    assert leaks(own) == []


def test_daemon_of_a_delegate(own: Host) -> None:
    """What an IPAM plugin leaves running on purpose keeps nobody waiting."""
    install(own, DAEMON)
    container = own.container("c1")
    own.add("bridge", CONFIG, container)
    pid = int(own.run("cat", "/run/own/pid").stdout)
    began = time.monotonic()
    own.delete("bridge", CONFIG, container)
    own.add("bridge", CONFIG, container)
    own.delete("bridge", CONFIG, container)
    assert time.monotonic() - began < 20
    for one in (pid, int(own.run("cat", "/run/own/pid").stdout)):
        os.kill(one, signal.SIGKILL)
    assert leaks(own) == []
