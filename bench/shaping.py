"""What iperf3 gets through bandwidth's limits: cni-py beside the reference, in turn, in one run.

    bench/shaping.py [--reference FOLDER] [--seconds N]

Bits on the wire as a share of the configured rate: those that arrive at the receiver, with the
headers that iperf3 does not count. A burst of 20 ms of the rate. Subnets are ours alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from host import OURS, Suite, add_host, add_netns, bridge, enter
from tables import table

_PAYLOAD = 1448 / 1514
_RATES = (10**7, 10**8, 10**9)
_GATEWAY, _OTHER = "10.84.0.1", "10.199.0.1"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=Path("/usr/lib/cni"))
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    enter()
    rows = []
    suites = {"cni-py": OURS, "reference": arguments.reference}
    hosts = {
        name: Suite(name, folder, add_host(f"host-{name}"), (("CNI_PY_SOCKET", ""),))
        for name, folder in suites.items()
    }
    for rate in _RATES:
        for to_container in (True, False):
            row = [f"{rate // 10**6} Mbit/s", "to the container" if to_container else "from it"]
            for name, suite in hosts.items():
                shares = _measured(
                    suite, rate, {}, [_GATEWAY], arguments.seconds, to_container=to_container
                )
                row.append(f"{shares[0]:.3f}")
                _say(f"{name}: {row}")
            keys = {"unshapedSubnets": [f"{_OTHER}/16"]}
            places = [_GATEWAY, _OTHER]
            shares = _measured(
                hosts["cni-py"], rate, keys, places, arguments.seconds, to_container=to_container
            )
            rows.append([*row, *(f"{one:.3f}" for one in shares)])
    head = ("rate", "direction", *suites, "cni-py beside a subnet", "the subnet itself")
    print(table(head, rows))


def _measured(
    suite: Suite,
    rate: int,
    keys: dict[str, Any],
    addresses: list[str],
    seconds: int,
    *,
    to_container: bool,
) -> list[float]:
    """The share of the rate that is reached at each address of the host."""
    netns = f"box-{suite.name}-{time.monotonic_ns()}"
    add_netns(netns)
    network = bridge("shaped", 84)
    _, output = suite.answered("bridge", "ADD", network, netns, netns)
    rates = {
        f"{direction}{key}": value
        for direction in ("ingress", "egress")
        for key, value in (("Rate", rate), ("Burst", rate // 50))
    }
    config = {"cniVersion": "1.0.0", "name": "shaped", "type": "bandwidth", **rates, **keys}
    config["prevResult"] = json.loads(output)
    _, output = suite.answered("bandwidth", "ADD", config, netns, netns)
    config["prevResult"] = json.loads(output)
    try:
        _run("ip", "addr", "replace", f"{_OTHER}/32", "dev", "br-shaped")
        return [_iperf(netns, one, seconds, to_container=to_container) / rate for one in addresses]
    finally:
        suite.call("bandwidth", "DEL", config, netns, netns)
        suite.call("bridge", "DEL", network, netns, netns)


def _iperf(netns: str, address: str, seconds: int, *, to_container: bool) -> float:
    """The bits a second on the wire; this process is on the host."""
    server = subprocess.Popen(
        ["iperf3", "-s", "-1", "-B", address, "--forceflush"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server.stdout:
        # It says so once it listens.
        while "listening" not in server.stdout.readline():
            if server.poll() is not None:
                sys.exit("bench: the iperf3 server has ended")
        command = ["ip", "netns", "exec", netns, "iperf3", "-c", address, "-J", "-O", "1"]
        command += ["-t", str(seconds), *(["-R"] if to_container else [])]
        ended = json.loads(_run(*command))["end"]
        server.communicate()
    bits: float = ended["sum_received"]["bits_per_second"]
    return bits / _PAYLOAD


def _run(*command: str) -> str:
    return subprocess.run(
        command, env=os.environ, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
