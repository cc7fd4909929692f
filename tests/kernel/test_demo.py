"""`cni-py demo`: on a host of its own, with nothing left, also when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from fixtures.configs import l3
from fixtures.host import Host
from fixtures.server import CNI_PY


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
    before = state(host)
    demo = subprocess.Popen(
        [*host.prefix, CNI_PY, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    assert any("=== ADD" in line for line in demo.stdout)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in errors
    assert state(host) == before


def test_what_is_left_is_found(host: Host) -> None:
    config = l3(ipMasq=True)
    code = f"from cni_py.cli.demo import _left; print(*_left({config['name']!r}), sep='\\n')"
    host.add("bridge", config, host.container())
    found = host.run(sys.executable, "-c", code, env={"PYTHONSAFEPATH": "1"}).stdout
    for kind in ("link veth", "allocation 10.1.2.2", "element of the map masq"):
        assert kind in found
    host.delete_all()
    assert host.run(sys.executable, "-c", code, env={"PYTHONSAFEPATH": "1"}).stdout.strip() == ""
