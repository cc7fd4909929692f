"""A worker that serves several calls leaves nothing of one to the next."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Host
from fixtures.server import Server

from .conftest import SLOW_CONFIG, Held, start, until

# An IPAM plugin that tells what it was given, and fails when it is asked to.
TELL = """#!/bin/sh
env >&2
pwd >&2
[ -z "$FAIL" ] || { echo '{"code": 100, "msg": "asked to fail"}'; exit 1; }
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.77/24"}]}'
exit 0
"""
CONFIG = l3(ipam={"type": "tell"})


@pytest.fixture
def single(served: Host) -> Host:
    """A host whose server has one worker, used again and again."""
    served.stop_serving()
    served.run("sh", "-c", "cat > /run/slow/tell; chmod +x /run/slow/tell", stdin=TELL)
    served.serve("--workers", "1", "--idle-workers", "1")
    return served


def worker_of(server: Server) -> int:
    (pid,) = server.workers()
    return pid


def test_environment_and_folder_are_each_callers_own(single: Host) -> None:
    container = single.container("c1")
    seen = []
    for verb, more in (("ADD", {"SECRET": "one"}), ("DEL", {})):
        process = start(single, verb, CONFIG, container, **more)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        seen.append(errors.decode())
    assert "SECRET=one" in seen[0]
    assert "SECRET" not in seen[1]


def test_same_worker_until_a_call_fails(single: Host) -> None:
    """After a call that did not end well the process is not used again."""
    assert single.server is not None
    first = worker_of(single.server)
    container = single.container("c1")
    for _ in range(3):
        single.add("bridge", l3(), container)
        single.delete("bridge", l3(), container)
    assert worker_of(single.server) == first
    assert single.call("bridge", "ADD", "{", container).status == 1
    until(lambda: single.server is not None and single.server.workers() not in ([first], []))


def test_number_of_calls_is_limited(single: Host) -> None:
    assert single.server is not None
    single.stop_serving()
    server = single.serve("--workers", "1", "--idle-workers", "1", "--calls-per-worker", "2")
    first = worker_of(server)
    for index in range(2):
        single.add("bridge", l3(), single.container(f"c{index}"))
    until(lambda: server.workers() not in ([first], []))


def test_nothing_stays_open(single: Host) -> None:
    """Files, namespaces, sockets: as many after thirty calls as after three."""
    assert single.server is not None
    pid = worker_of(single.server)
    counts = []
    for rounds in (3, 27):
        for index in range(rounds):
            container = single.container(f"x{rounds}y{index}")
            single.add("bridge", l3(ipMasq=True, macspoofchk=True), container)
            single.delete("bridge", l3(ipMasq=True, macspoofchk=True), container)
            container.delete_netns()
        counts.append(len(os.listdir(f"/proc/{pid}/fd")))
    assert worker_of(single.server) == pid
    assert counts[0] == counts[1]


def test_callers_in_different_namespaces(single: Host) -> None:
    """Each call acts where its caller stands, whichever worker it meets."""
    places = [single.container(f"place{index}") for index in range(3)]
    containers = [single.container(f"c{index}") for index in range(3)]
    config = json.dumps(l3(ipMasq=True))
    for verb in ("ADD", "DEL"):
        for place, container in zip(places, containers, strict=True):
            place.run(f"{BIN}/bridge", stdin=config, env=container.environ(verb))
            here = place.run("nft", "list", "ruleset").stdout
            assert (container.id in here) == (verb == "ADD")
    assert single.link("cni0") is None
    assert "masq4" not in single.nft()


def test_vanished_namespace_is_let_go(single: Host) -> None:
    """A worker that served a container keeps nothing of it alive."""
    assert single.server is not None
    container = single.container("c1")
    single.add("bridge", l3(), container)
    single.attachments.clear()
    container.delete_netns()
    until(lambda: single.ports() == [])
    single.delete("bridge", l3(), container)


def test_interrupted_worker_is_not_used_again(served: Host, server: Server, held: Held) -> None:
    pid = held.worker()
    held.process.send_signal(signal.SIGTERM)
    assert held.outcome()[0] == 1
    until(lambda: pid not in server.workers())
    assert not Path(f"/proc/{pid}").exists()
    served.delete("bridge", SLOW_CONFIG, held.container, env={"CNI_PATH": f"{BIN}:/run/slow"})
