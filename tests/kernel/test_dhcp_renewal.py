"""dhcp: what becomes of a lease, and of the interface with it (RFC 2131, 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.background import running
from fixtures.dhcp import (
    SERVER,
    dhcp,
    kea,
    kill,
    make_lan,
    scripted,
    start_daemon,
    stored,
    tell,
    until,
)
from fixtures.host import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.background import Background
    from fixtures.host import Container, Host

OTHER = "10.9.0.77"


@pytest.fixture
def lan(host: Host) -> str:
    return make_lan(host)


@pytest.fixture
def daemon(host: Host, lan: str) -> Iterator[Background]:
    assert lan
    with running(start_daemon(host, "-timeout", "2s", "-resendtimeout", "10s")) as process:
        yield process
        host.delete_all()


def options(lease: int, renew: int, rebind: int) -> dict[str, str]:
    """Of a lease with these times, in seconds."""
    times = {"51": lease, "58": renew, "59": rebind}
    numbers = {code: f"{value:08x}" for code, value in times.items()}
    return {"1": "ffffff00", "3": "0a090001", **numbers}


def event(daemon: Background, name: str, seen: int = 0) -> dict[str, Any]:
    return daemon.wait_for(lambda line: line["event"] == name, seen)


def message(server: Background, kind: str, index: int = 0) -> dict[str, Any]:
    """The server's line of one message of a kind."""
    until(lambda: len(server.of("type", kind)) > index, f"no {kind}")
    return server.of("type", kind)[index]


def attached(host: Host) -> tuple[Container, dict[str, Any]]:
    container = host.container("c1")
    result = host.add("bridge", dhcp(), container)
    return container, result


def test_renewal(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] By Kea, with leases of 10 seconds: it goes on, and the file follows.

    No shorter ones: a lease that ends while the machine is busy is not what is tested.
    """
    with kea(host, lan, lifetime=10):
        container, result = attached(host)
        since = stored(host)[0]["lease"]["since"]
        event(daemon, "renewed")
        seen = len(daemon.lines)
        event(daemon, "renewed", seen)
        assert stored(host)[0]["lease"]["since"] > since
        assert container.addresses() == [result["ips"][0]["address"]]
        check = dhcp() | {"prevResult": result}
        assert host.call("bridge", "CHECK", check, container).status == 0
        host.delete("bridge", dhcp(), container)
    assert daemon.of("event", "lost") == []


def test_renewal_goes_to_the_server_alone(host: Host, lan: str, daemon: Background) -> None:
    """[5.3.4] REQUEST with ciaddr, without 50 and 54, from the address; not a broadcast."""
    with scripted(host, lan, options=options(60, 1, 40)) as server:
        container, _ = attached(host)
        event(daemon, "renewed")
        renewal = message(server, "request", 1)
        assert (renewal["from"], renewal["to"]) == ("10.9.0.50", SERVER)
        assert (renewal["ciaddr"], renewal["flags"]) == ("10.9.0.50", "0000")
        assert set(renewal["options"]) == {"53", "55", "57", "61"}
        host.delete("bridge", dhcp(), container)


def test_rebinding(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH5] From T2 on a REQUEST by broadcast, which any server may answer."""
    with scripted(host, lan, options=options(8, 1, 3)) as server:
        container, _ = attached(host)
        tell(server, request="silent")
        rebind = server.wait_for(
            lambda line: line.get("from") == "10.9.0.50" and line["to"] == "255.255.255.255"
        )
        assert rebind["ciaddr"] == "10.9.0.50"
        assert set(rebind["options"]) == {"53", "55", "57", "61"}
        tell(server, request="ack")
        event(daemon, "renewed")
        assert len(server.of("type", "discover")) == 1
        assert container.addresses() == ["10.9.0.50/24"]
        host.delete("bridge", dhcp(), container)


def test_other_address(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH5] A renewal with another address and other routes: the interface gets them."""
    config = dhcp(ipam={"request": [{"option": "121"}], "priority": 5})
    first = options(60, 1, 40) | {"121": "18c0a807" + "0a090001" + "00" + "0a090001"}
    with scripted(host, lan, options=first) as server:
        container = host.container("c1")
        result = host.add("bridge", config, container)
        changed = options(60, 1, 40) | {"121": "18c0a808" + "0a090001" + "00" + "0a090001"}
        tell(server, address=OTHER, options=changed)
        line = event(daemon, "changed")
        assert (line["before"], line["address"]) == ("10.9.0.50", OTHER)
        assert container.addresses() == [f"{OTHER}/24"]
        have = {one["dst"]: one.get("gateway") for one in container.ip("route")}
        assert have == {"default": SERVER, "192.168.8.0/24": SERVER, "10.9.0.0/24": None}
        metrics = {one["metric"] for one in container.ip("route") if "gateway" in one}
        assert metrics == {5}
        assert container.reaches(SERVER)
        until(lambda: stored(host)[0]["applied"]["address"] == OTHER, "the file follows")
        error = refusal(host.call("bridge", "CHECK", config | {"prevResult": result}, container))
        assert error["msg"] == f"dhcp: address {OTHER}/24 of the lease is not in prevResult"
        host.delete("bridge", config, container)
        assert message(server, "release")["ciaddr"] == OTHER


def test_other_gateway(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH5] The same address with another router."""
    with scripted(host, lan, options=options(60, 1, 40)) as server:
        container, _ = attached(host)
        tell(server, options=options(60, 30, 40) | {"3": "0a090009"})
        event(daemon, "changed")
        (default,) = [one for one in container.ip("route") if one["dst"] == "default"]
        assert default["gateway"] == "10.9.0.9"
        assert container.addresses() == ["10.9.0.50/24"]
        host.delete("bridge", dhcp(), container)


def test_refused_renewal(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH5] A NAK: the address goes off at once, and another one is asked for."""
    with scripted(host, lan, options=options(60, 1, 40)) as server:
        container, _ = attached(host)
        tell(server, request="nak", text="moved", offer=False)
        lost = event(daemon, "lost")
        assert lost["reason"] == f"the server {SERVER} refused: moved"
        until(lambda: container.addresses() == [], "the address is still there")
        tell(server, request="ack", offer=True, address=OTHER)
        event(daemon, "changed")
        assert container.addresses() == [f"{OTHER}/24"]
        assert container.reaches(SERVER)
        assert server.of("type", "discover")[-1]["options"]["50"] == "0a090032"
        host.delete("bridge", dhcp(), container)


def test_expiry(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH3, W-DH5] No server: the address goes off in time; CHECK and DEL do not wait."""
    with scripted(host, lan, options=options(3, 1, 2)) as server:
        container, result = attached(host)
        tell(server, request="silent", offer=False)
        assert event(daemon, "lost")["reason"] == "it expired"
        until(lambda: container.addresses() == [], "the address is still there")
        error = refusal(host.call("bridge", "CHECK", dhcp() | {"prevResult": result}, container))
        assert error["msg"] == "dhcp: container id-c1 has no lease for eth0"
        host.delete("bridge", dhcp(), container)
        assert server.of("type", "release") == []
    assert stored(host) == []


def test_server_comes_back(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH5] After an expiry the same address is put back."""
    with scripted(host, lan, options=options(3, 1, 2)) as server:
        container, result = attached(host)
        tell(server, request="silent", offer=False)
        event(daemon, "lost")
        tell(server, request="ack", offer=True, options=options(60, 30, 40))
        event(daemon, "changed")
        assert container.addresses() == [result["ips"][0]["address"]]
        assert container.reaches(SERVER)
        check = dhcp() | {"prevResult": result}
        outcome = host.call("bridge", "CHECK", check, container)
        assert outcome.status == 0, outcome
        host.delete("bridge", dhcp(), container)


def test_address_that_somebody_took_off(host: Host, lan: str, daemon: Background) -> None:
    """What is not on the interface any more is not put there by a renewal."""
    with scripted(host, lan, options=options(60, 1, 40)) as server:
        container, _ = attached(host)
        container.run("ip", "addr", "flush", "dev", "eth0")
        tell(server, address=OTHER)
        daemon.wait_for(lambda line: line["event"] == "renewed" and line["address"] == OTHER)
        assert container.addresses() == []
        host.delete("bridge", dhcp(), container)


def test_interface_vanishes(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH4] The next renewal forgets the lease; the daemon kept nothing of the namespace."""
    with scripted(host, lan, options=options(60, 2, 40)):
        container, _ = attached(host)
        assert len(host.ports()) == 2
        container.delete_netns()
        until(lambda: len(host.ports()) == 1, "the namespace is kept alive")
        event(daemon, "interface gone")
        until(lambda: stored(host) == [], "the lease is still on disk")
        host.delete("bridge", dhcp(), container)


def test_other_namespace_at_the_path(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH4] A later container at the same path with the same interface is not taken for it."""
    with scripted(host, lan, options=options(60, 2, 40)) as server:
        container, _ = attached(host)
        container.delete_netns()
        host.container("c1", container_id="other")
        host.run("ip", "-n", "c1", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
        event(daemon, "interface gone")
        assert len(server.of("type", "request")) == 1


# The daemon starts anew.


def restarted(host: Host, daemon: Background) -> Background:
    kill(daemon)
    return start_daemon(host, "-timeout", "2s")


def test_restart(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] Killed and started again: INIT-REBOOT, then it renews and releases as before."""
    with scripted(host, lan, options=options(60, 30, 40)) as server:
        container, result = attached(host)
        with running(restarted(host, daemon)) as second:
            assert second.lines[0]["leases"] == 1
            event(second, "renewed")
            reboot = message(server, "request", 1)
            assert reboot["options"]["50"] == "0a090032"
            assert "54" not in reboot["options"]
            assert (reboot["ciaddr"], reboot["to"]) == ("0.0.0.0", "255.255.255.255")
            assert len(server.of("type", "discover")) == 1
            check = dhcp() | {"prevResult": result}
            assert host.call("bridge", "CHECK", check, container).status == 0
            assert container.addresses() == ["10.9.0.50/24"]
            host.delete("bridge", dhcp(), container)
            server.wait_for(lambda line: line["type"] == "release")


def test_restart_with_kea(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] A lease that ran on while there was no daemon."""
    with kea(host, lan, lifetime=30):
        container, result = attached(host)
        with running(restarted(host, daemon)) as second:
            event(second, "renewed")
            assert container.addresses() == [result["ips"][0]["address"]]
            host.delete("bridge", dhcp(), container)
            assert event(second, "released")["told"] is True


def test_restart_and_the_server_refuses(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2, W-DH5] The network has changed meanwhile."""
    with scripted(host, lan, options=options(60, 30, 40)) as server:
        container, _ = attached(host)
        tell(server, request="nak", offer=False)
        with running(restarted(host, daemon)) as second:
            event(second, "lost")
            tell(server, request="ack", offer=True, address=OTHER)
            event(second, "changed")
            assert container.addresses() == [f"{OTHER}/24"]
            host.delete("bridge", dhcp(), container)


def test_restart_without_a_server(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] Nobody answers: the lease holds as long as it was given for, and is released."""
    with scripted(host, lan, options=options(60, 30, 40)) as server:
        container, result = attached(host)
        tell(server, request="silent", offer=False)
        with running(restarted(host, daemon)) as second:
            until(lambda: len(server.of("type", "request")) >= 3, "it does not ask again")
            check = dhcp() | {"prevResult": result}
            assert host.call("bridge", "CHECK", check, container).status == 0
            assert container.addresses() == ["10.9.0.50/24"]
            host.delete("bridge", dhcp(), container)
            assert event(second, "released")["told"] is True


def test_restart_after_expiry(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] The lease ended while there was no daemon: the address goes off, and comes back."""
    with scripted(host, lan, options=options(2, 1, 2)) as server:
        container, _ = attached(host)
        kill(daemon)
        until(lambda: stored(host) != [], "nothing is stored")
        since = stored(host)[0]["lease"]["since"]
        until(lambda: float(host.run("cat", "/proc/uptime").stdout.split()[0]) > since + 2, "time")
        tell(server, offer=False)
        with running(start_daemon(host, "-timeout", "2s")) as second:
            event(second, "lost")
            until(lambda: container.addresses() == [], "the address is still there")
            tell(server, offer=True, options=options(60, 30, 40))
            event(second, "changed")
            assert container.addresses() == ["10.9.0.50/24"]
            host.delete("bridge", dhcp(), container)


def test_restart_when_the_container_is_gone(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] Nothing is left to renew for."""
    with scripted(host, lan, options=options(60, 30, 40)):
        container, _ = attached(host)
        kill(daemon)
        container.delete_netns()
        with running(start_daemon(host)) as second:
            event(second, "interface gone")
            until(lambda: stored(host) == [], "the lease is still on disk")
            host.delete("bridge", dhcp(), container)


def test_damaged_and_old_files(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH2] Leases of an earlier boot are removed, and what cannot be read is set aside."""
    folder = "/var/lib/cni/cni-py/dhcp"
    with scripted(host, lan):
        container, _ = attached(host)
        (name,) = host.files(folder)
        kill(daemon)
        host.run("sh", "-c", f"echo '{{' > {folder}/damaged.json")
        host.run("sed", 's/"boot": "/&x/', name, "-i")
        with running(start_daemon(host)) as second:
            assert second.lines[0]["leases"] == 0
            assert host.files(folder) == {f"{folder}/damaged/damaged.json": "{\n"}
            host.delete("bridge", dhcp(), container)
            host.run("rm", "-r", f"{folder}/damaged")


def test_mtu(host: Host, lan: str, daemon: Background) -> None:
    """Set when the server says another one, and not again at every renewal."""
    config = dhcp(ipam={"request": [{"option": "interface-mtu"}]})
    with scripted(host, lan, options=options(60, 1, 40) | {"26": "0578"}) as server:
        container = host.container("c1")
        host.add("bridge", config, container)
        assert container.link()["mtu"] == 1400
        container.run("ip", "link", "set", "eth0", "mtu", "1300")
        event(daemon, "renewed")
        assert container.link()["mtu"] == 1300
        tell(server, options=options(60, 1, 40) | {"26": "04b0"})
        until(lambda: container.link()["mtu"] == 1200, "the server's is not set")
        # No more than the interface was made for.
        tell(server, options=options(60, 1, 40) | {"26": "2328"})
        until(lambda: container.link()["mtu"] == 1500, "the server's is not set")
        host.delete("bridge", config, container)
