"""New connections through port mappings: how long one takes among a thousand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from host import Sandboxes, Suite, add_netns, bridge
from rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECTIONS = 300
_FIRST_PORT = 20_000
_NETWORK = bridge("ports", 94)
_CONTAINERS = "10.94.128.0/17"
_OUTSIDE, _HOST = "192.0.2.2", "192.0.2.1"
_SERVE = """
import socket
with socket.create_server(("", 80), backlog=1024) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""
# Each connection is made and reset; the ports are taken in turn.
_CONNECT = """
import json, socket, struct, sys, time
address, ports = json.loads(sys.argv[1])
linger = struct.pack("ii", 1, 0)
start = time.perf_counter()
for port in ports:
    try:
        client = socket.create_connection((address, port), 5)
    except OSError as error:
        sys.exit(f"port {port}: {error}")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()
print((time.perf_counter() - start) / len(ports) * 1000)
"""


def connections(
    suites: tuple[Suite, Suite],
    box: Sandboxes,
    count: int,
    runs: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Row]:
    """From outside, through as many mappings as each suite sets up; the reference has `seconds`.

    Every container has one mapping, and one server answers for all: the way to it is measured.
    """
    row = Row(f"a new connection through {count:,} port mappings", count=count, unit="ms")
    row.ratio_budget = 0.5
    with ExitStack() as stack:
        made = []
        for suite, limit in zip(suites, (math.inf, seconds), strict=True):
            say(f"{count:,} port mappings of {suite.name}")
            made.append(_Published(suite, box.take(), count, limit, stack))
        row.reference_count = made[1].count
        if row.reference_count < count:
            row.work += f" (reference: {row.reference_count:,})"
        for turn in range(runs + 1):
            for one, values in zip(made, (row.ours, row.reference), strict=True):
                took = one.connect(turn)
                if turn > 0:
                    values.append(took)
    return [row]


class _Published:
    """A host with mappings, a server in one container, and a client outside."""

    def __init__(
        self, suite: Suite, netns: str, count: int, seconds: float, stack: ExitStack
    ) -> None:
        self._client = add_netns(f"client-{suite.name}")
        _, answer = suite.answered("bridge", "ADD", _NETWORK, "server", netns)
        via = json.loads(answer)["ips"][0]["address"].split("/")[0]
        # This process is on the suite's host now.
        for command in (
            f"ip link add up0 type veth peer name eth0 netns {self._client}",
            f"ip addr add {_HOST}/24 dev up0",
            "ip link set up0 up",
            f"ip -n {self._client} addr add {_OUTSIDE}/24 dev eth0",
            f"ip -n {self._client} link set eth0 up",
            f"ip route add {_CONTAINERS} via {via}",
        ):
            subprocess.run(command.split(), check=True)
        # One namespace has all the containers' addresses, behind its own: the kernel knows 1,024
        # neighbours at most.
        own = [f"10.94.{128 + index // 250}.{index % 250 + 1}" for index in range(count)]
        batch = "".join(f"addr add {one}/32 dev lo\n" for one in own)
        addresses = ["ip", "-n", netns, "-batch", "-"]
        subprocess.run(addresses, input=batch, text=True, check=True)
        script = ["ip", "netns", "exec", netns, sys.executable, "-IS", "-c", _SERVE]
        server = stack.enter_context(subprocess.Popen(script, stdout=subprocess.PIPE))
        stack.callback(server.kill)
        assert server.stdout is not None
        server.stdout.readline()
        interfaces = [{"name": "eth0", "sandbox": f"/run/netns/{netns}"}]
        config = {"cniVersion": "1.0.0", "name": "ports", "type": "portmap"}
        deadline = time.monotonic() + seconds
        self.count = 0
        while self.count < count and time.monotonic() < deadline:
            port = {"hostPort": _FIRST_PORT + self.count, "containerPort": 80, "protocol": "tcp"}
            ips = [{"interface": 0, "address": f"{own[self.count]}/16"}]
            previous = {"cniVersion": "1.0.0", "interfaces": interfaces, "ips": ips}
            keys = {"prevResult": previous, "runtimeConfig": {"portMappings": [port]}}
            suite.call("portmap", "ADD", {**config, **keys}, f"c{self.count}", netns)
            self.count += 1

    def connect(self, turn: int) -> float:
        """Milliseconds of a connection, on the average over ports from everywhere."""
        step = 7919
        numbers = range(turn, turn + step * _CONNECTIONS, step)
        ports = [_FIRST_PORT + number % self.count for number in numbers]
        client = ["ip", "netns", "exec", self._client, sys.executable, "-IS", "-c", _CONNECT]
        done = subprocess.run(
            [*client, json.dumps([_HOST, ports])], stdout=subprocess.PIPE, check=True, text=True
        )
        return float(done.stdout)
