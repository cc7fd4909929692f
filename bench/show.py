"""How long the commands that look at a host take, with a thousand containers on it.

    .venv/bin/python bench/show.py [--containers 1000] [--runs 5]

Each container has a namespace of its own, an interface on a bridge, masquerading, a published port
and an entry in libcni's cache. Whole processes are timed, milliseconds from start to end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host import OURS, Suite, add_netns, bridge, enter, own_netns, settle
from rows import Row
from server import Server
from tables import comparison

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMAND = OURS / "cni-py"
_CACHE = Path("/var/lib/cni/results")
_FIRST_PORT = 20_000
_NETWORK = bridge("seen", 95, ipMasq=True)
# Milliseconds: who looks must not wait.
_BUDGET = 2000.0
_COMMANDS = {
    "show": ["show"],
    "show --json": ["show", "--json"],
    "show CONTAINER": ["show", "seen0"],
    "graph --format html": ["graph", "--format", "html"],
}


def looking(warm: Suite, count: int, runs: int, say: Callable[[str], None]) -> list[Row]:
    """Attach the containers, then look at them."""
    say(f"{count:,} containers to look at")
    _CACHE.mkdir(exist_ok=True)
    for index in range(count):
        _attach(warm, index)
        if index % 100 == 99:
            say(f"{index + 1:,} are attached")
    settle(1 + count / 200)
    rows = []
    for name, arguments in _COMMANDS.items():
        wall = Row(f"cni-py {name}, {count:,} containers", budget=_BUDGET)
        processor = Row(f"cni-py {name}, {count:,} containers: processor time")
        for _ in range(runs):
            settle()
            used, start = _used(), time.perf_counter()
            subprocess.run([_COMMAND, *arguments], stdout=subprocess.DEVNULL, check=True)
            wall.ours.append((time.perf_counter() - start) * 1000)
            processor.ours.append((_used() - used) * 1000)
        rows += [wall, processor]
    return rows


def _used() -> float:
    """The seconds of processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _attach(warm: Suite, index: int) -> None:
    """What a runtime does for one container."""
    name = f"seen{index}"
    add_netns(name)
    _, answer = warm.answered("bridge", "ADD", _NETWORK, name, name)
    port = {"hostPort": _FIRST_PORT + index, "containerPort": 80, "protocol": "tcp"}
    mapping: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": _NETWORK["name"],
        "type": "portmap",
        "prevResult": json.loads(answer),
        "runtimeConfig": {"portMappings": [port]},
    }
    warm.call("portmap", "ADD", mapping, name, name)
    ipam = {**_NETWORK["ipam"], "dataDir": str(warm.networks)}
    network = {"cniVersion": "1.0.0", "name": "seen", "plugins": [{**_NETWORK, "ipam": ipam}]}
    kept = {
        "kind": "cniCacheV1",
        "containerId": name,
        "config": b64encode(json.dumps(network).encode()).decode(),
        "ifName": "eth0",
        "networkName": "seen",
        "netns": f"/run/netns/{name}",
        "result": json.loads(answer),
    }
    (_CACHE / f"seen-{name}-eth0").write_text(json.dumps(kept))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    enter()
    server = Server()
    try:
        warm = Suite("cni-py", OURS, own_netns())
        rows = looking(warm, arguments.containers, arguments.runs, print)
    finally:
        server.stop()
    print(comparison(rows, digits=0))


if __name__ == "__main__":
    main()
