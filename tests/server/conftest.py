"""A host with a warm server, and calls that can be held in their middle."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Container, Host
from fixtures.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

# An IPAM plugin that does not answer before /run/go is there.
SLOW = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
touch /run/started.$CNI_CONTAINERID
while [ ! -e /run/go ]; do sleep 0.02; done
echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}'
"""
SLOW_CONFIG = l3(ipam={"type": "slow"})


@pytest.fixture
def served(host: Host) -> Host:
    """A host with a server of four waiting workers."""
    host.stop_serving()
    host.run("mkdir", "-p", "/run/slow")
    host.run("sh", "-c", "cat > /run/slow/slow; chmod +x /run/slow/slow", stdin=SLOW)
    host.serve()
    return host


@pytest.fixture
def server(served: Host) -> Server:
    assert served.server is not None
    return served.server


@pytest.fixture
def held(served: Host) -> Iterator[Held]:
    """An ADD that hangs in its IPAM plugin."""
    call = Held(served, served.container("held"))
    yield call
    served.run("touch", "/run/go")
    call.process.kill()
    call.process.wait()
    for stream in (call.process.stdout, call.process.stderr):
        assert stream is not None
        stream.close()


class Held:
    """A running ADD; `release` lets it go on, `outcome` waits for its end."""

    def __init__(self, host: Host, container: Container) -> None:
        self.host, self.container = host, container
        self.process = start(host, "ADD", SLOW_CONFIG, container)
        until(
            lambda: host.run("test", "-e", f"/run/started.{container.id}", check=False).status == 0
        )

    def worker(self) -> int:
        """The process that serves it: a child of the server that has children itself."""
        assert self.host.server is not None
        (pid,) = [
            pid
            for pid in self.host.server.workers()
            if Path(f"/proc/{pid}/task/{pid}/children").read_text()
        ]
        return pid

    def outcome(self) -> tuple[int, dict[str, Any]]:
        """Exit status and document."""
        assert self.process.stdout is not None
        document = json.loads(self.process.stdout.read())
        return self.process.wait(30), document


def start(
    host: Host,
    verb: str,
    config: Any,
    container: Container,
    path: str = f"{BIN}:/run/slow",
    executable: str = str(BIN),
    **env: str,
) -> subprocess.Popen[bytes]:
    """Start a call and send its configuration; `executable` is the folder of the plugin."""
    environ = {"PATH": os.environ["PATH"]} | container.environ(verb, path=path)
    process = subprocess.Popen(
        [*host.prefix, f"{executable}/bridge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ | env,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    process.stdin = None
    return process


def until(condition: Any, seconds: float = 20) -> None:
    """Wait for a condition, asked again and again."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
