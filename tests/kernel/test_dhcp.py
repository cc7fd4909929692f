"""dhcp and its daemon against real DHCP servers (plugins.md 5.3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fixtures.dhcp import (
    LEASES,
    SERVER,
    dhcp,
    dnsmasq,
    logged,
    make_lan,
    running,
    start_daemon,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.dhcp import Process
    from fixtures.host import Host


@pytest.fixture
def lan(host: Host) -> str:
    return make_lan(host)


@pytest.fixture
def daemon(host: Host, lan: str) -> Iterator[Process]:
    with running(start_daemon(host, "-timeout", "3s", "-resendtimeout", "20s")) as process:
        yield process
        host.delete_all()


def test_lease_on_a_bridge(host: Host, lan: str, daemon: Process) -> None:
    """[A.17] Address, gateway and default route come from the server; DEL gives them back."""
    container = host.container("c1")
    with dnsmasq(host, lan) as server:
        result = host.add("bridge", dhcp(), container)
        (address,) = result["ips"]
        assert address["gateway"] == SERVER
        assert address["interface"] == 2
        assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": SERVER}]
        assert container.addresses() == [address["address"]]
        assert container.reaches(SERVER)
        (record,) = stored(host)
        assert record["lease"]["address"] == address["address"].split("/")[0]
        mode = host.run("stat", "-c", "%a %n", LEASES, *host.files(LEASES)).stdout.split("\n")
        assert mode[0] == f"700 {LEASES}"
        assert mode[1].startswith("600 ")
        check = dhcp() | {"prevResult": result}
        assert host.call("bridge", "CHECK", check, container).status == 0
        host.delete("bridge", dhcp(), container)
        logged(server, "DHCPRELEASE")
        assert stored(host) == []
    print(json.dumps(daemon.lines))
    print(*server.lines)
