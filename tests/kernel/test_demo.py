"""`cni-py demo`: on a host of its own, with nothing left, also when it is interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fixtures.configs import l3
from fixtures.host import Host
from fixtures.server import CNI_PY

_PIPE_BYTES = 4096
# What fits before the reader is waited for: the demo is adding its first container then.
_ROOM_BYTES = 1200


def state(host: Host) -> tuple:
    namespaces = host.run("ls", "/run/netns").stdout
    return [one["ifname"] for one in host.ip("link")], namespaces, host.files(), host.nft()


def test_main_job(host: Host) -> None:
    before = state(host)
    done = host.run(CNI_PY, "demo")
    assert "    -> pong" in done.stdout
    assert done.stdout.rstrip().endswith("The bridge stays.")
    assert done.stderr == ""
    assert state(host) == before


def test_json(host: Host) -> None:
    answer = json.loads(host.run(CNI_PY, "demo", "--json").stdout)
    assert answer["left"] == []
    assert "-> pong" in [line for step in answer["steps"] for line in step["lines"]]


def test_interrupted(host: Host) -> None:
    """While it waits for its reader, in the middle of what it does."""
    before = state(host)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.write(writing, b"\n" * (_PIPE_BYTES - _ROOM_BYTES))
    demo = subprocess.Popen(
        [*host.prefix, CNI_PY, "demo"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    _poll(lambda: "pipe_write" in Path(f"/proc/{demo.pid}/wchan").read_text())
    demo.send_signal(signal.SIGINT)
    with open(reading) as output:
        told = output.read()
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "=== ADD" in told
    assert "The bridge stays." not in told
    assert "Traceback" not in errors
    assert state(host) == before


def _poll(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_left_is_found(host: Host) -> None:
    config = l3(ipMasq=True)
    code = f"from cni_py.cli.demo import _left; print(*_left({config['name']!r}), sep='\\n')"
    host.add("bridge", config, host.container())
    found = host.run(sys.executable, "-c", code, env={"PYTHONSAFEPATH": "1"}).stdout
    for kind in ("link veth", "allocation 10.1.2.2", "element of the map masq"):
        assert kind in found
    host.delete_all()
    assert host.run(sys.executable, "-c", code, env={"PYTHONSAFEPATH": "1"}).stdout.strip() == ""
