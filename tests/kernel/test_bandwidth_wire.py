"""bandwidth on the wire: what iperf3 gets through."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import Container, Host
from fixtures.shaping import limited

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

RATE = 40_000_000
# Of 1514 bytes on the wire 1448 are the payload that iperf3 counts.
PAYLOAD = 1448 / 1514
LIMITED, FREE = (0.9, 1.1), 5
# A pause of the machine spoils one measurement; a wrong limit spoils each.
MEASUREMENTS = 4
GATEWAYS = ("10.1.2.1", "10.99.0.1")


@pytest.fixture
def container(host: Host) -> Container:
    assert shutil.which("iperf3"), "iperf3 is not installed; `make test` installs it"
    return host.container("c1", "cid1")


@contextmanager
def listening(host: Host, address: str) -> Iterator[None]:
    """An iperf3 server on the host, which ends when it is asked to or with the host."""
    host.run("iperf3", "-s", "-D", "-B", address, "-I", f"/run/iperf-{address}.pid")
    try:
        deadline = time.monotonic() + 10
        while f"{address}:5201" not in host.run("ss", "-ltnH").stdout:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        pid = host.run("cat", f"/run/iperf-{address}.pid").stdout.strip("\0\n")
        host.run("kill", pid)


def measured(container: Container, address: str, rate: int = RATE, *, to_container: bool) -> float:
    """The bits a second that arrive on the wire, as a share of the limit."""
    command = ["iperf3", "-c", address, "-J", "-t", "2", "-O", "1"]
    if to_container:
        command.append("-R")
    ended = json.loads(container.run(*command).stdout)["end"]
    bits: float = ended["sum_received"]["bits_per_second"]
    return bits / PAYLOAD / rate


def held(container: Container, address: str, rate: int = RATE, *, to_container: bool) -> bool:
    """Whether the limit holds within 10 percent."""
    shares: list[float] = []
    while len(shares) < MEASUREMENTS:
        shares.append(measured(container, address, rate, to_container=to_container))
        if LIMITED[0] < shares[-1] < LIMITED[1]:
            return True
    pytest.fail(f"shares of {rate} bit/s that arrived: {shares}")


def limit(host: Host, container: Container, rate: int = RATE, **keys: Any) -> None:
    """Attach the container, with both limits and 20 ms of the rate as burst."""
    connected = host.add("bridge", l3(isDefaultGateway=True), container)
    host.run("ip", "addr", "add", f"{GATEWAYS[1]}/32", "dev", "cni0")
    rates = {
        f"{direction}{key}": value
        for direction in ("ingress", "egress")
        for key, value in (("Rate", rate), ("Burst", rate // 50))
    }
    host.add("bandwidth", limited(connected, **rates, **keys), container)


@pytest.mark.parametrize("to_container", [True, False], ids=["ingress", "egress"])
def test_rate_holds(host: Host, container: Container, to_container: bool) -> None:
    """[6.2] Within 10 percent."""
    limit(host, container)
    with listening(host, GATEWAYS[0]):
        assert held(container, GATEWAYS[0], to_container=to_container)


@pytest.mark.parametrize("to_container", [True, False], ids=["ingress", "egress"])
@pytest.mark.parametrize("key", ["unshapedSubnets", "shapedSubnets"])
def test_subnets(
    host: Host,
    container: Container,
    key: str,
    to_container: bool,
) -> None:
    """What the subnets say is limited, within 10 percent, and the rest is not at all."""
    limit(host, container, **{key: ["10.99.0.0/16"]})
    free, limited_one = GATEWAYS if key == "shapedSubnets" else reversed(GATEWAYS)
    with listening(host, limited_one):
        assert held(container, limited_one, to_container=to_container)
    with listening(host, free):
        assert measured(container, free, to_container=to_container) > FREE


def test_slow_class(host: Host, container: Container) -> None:
    """Packets of 64 KiB, as TCP hands them down, are more than 25 ms of 5 Mbit/s."""
    slow = 5_000_000
    limit(host, container, slow, unshapedSubnets=["10.99.0.0/16"])
    with listening(host, GATEWAYS[0]):
        assert held(container, GATEWAYS[0], slow, to_container=True)
