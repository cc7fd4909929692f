"""dhcp: what goes over the wire and into the result (plugins.md 5.3)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.background import running
from fixtures.configs import ipam
from fixtures.dhcp import (
    LEASES,
    SERVER,
    dhcp,
    dnsmasq,
    kea,
    make_lan,
    scripted,
    start_daemon,
    stored,
    until,
    wire,
)
from fixtures.dump import differences, dump
from fixtures.host import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.background import Background
    from fixtures.host import Host

ROUTERS, MASK, LEASE_TIME = "3", "1", "51"
BASE = {MASK: "ffffff00", ROUTERS: "0a090001", LEASE_TIME: "0000003c"}


@pytest.fixture
def lan(host: Host) -> str:
    return make_lan(host)


@pytest.fixture
def daemon(host: Host, lan: str) -> Iterator[Background]:
    assert lan
    with running(start_daemon(host, "-timeout", "3s", "-resendtimeout", "20s")) as process:
        yield process
        host.delete_all()


def hexed(text: str) -> str:
    return text.encode().hex()


def test_lease_on_a_bridge(host: Host, lan: str, daemon: Background) -> None:
    """[A.17, W-DH2] All from the server; the lease is on disk for root alone; DEL releases."""
    container = host.container("c1")
    with dnsmasq(host, lan) as server:
        result = host.add("bridge", dhcp(), container)
        (address,) = result["ips"]
        assert (address["gateway"], address["interface"]) == (SERVER, 2)
        assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": SERVER}]
        assert container.addresses() == [address["address"]]
        assert container.reaches(SERVER)
        (record,) = stored(host)
        assert record["lease"]["address"] == address["address"].split("/")[0]
        modes = host.run("stat", "-c", "%a", LEASES, *host.files(LEASES)).stdout.split()
        assert modes == ["700", "600"]
        check = dhcp() | {"prevResult": result}
        assert host.call("bridge", "CHECK", check, container).status == 0
        host.delete("bridge", dhcp(), container)
        server.wait_for_text("DHCPRELEASE")
        assert stored(host) == []
        host.delete("bridge", dhcp(), container)
    assert [one["event"] for one in daemon.lines] == ["listening", "bound", "released"]


def test_kea(host: Host, lan: str, daemon: Background) -> None:
    """Another server."""
    container = host.container("c1")
    with kea(host, lan, lifetime=600):
        (address,) = host.add("bridge", dhcp(), container)["ips"]
        assert address["gateway"] == SERVER
        assert container.addresses() == [address["address"]]
        assert container.reaches(SERVER)
        host.delete("bridge", dhcp(), container)
    assert daemon.of("event", "released")[-1]["told"] is True


def test_messages(host: Host, lan: str, daemon: Background) -> None:
    """[A.17] DISCOVER, REQUEST and RELEASE, field by field; the interface is set up for them."""
    container = host.container("c1")
    wire(host, container)
    mac = container.link()["address"]
    with scripted(host, lan) as server:
        result = host.add("dhcp", ipam("dhcp"), container)
        host.delete("dhcp", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "release")
    assert result == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.9.0.50/24", "gateway": SERVER}],
        "routes": [{"dst": "0.0.0.0/0", "gw": SERVER}],
    }
    discover, request, release = [one for one in server.lines if one["type"] != "ready"]
    client_id = "00" + hexed("id-c1/net1/eth0")
    common = {"55": "0301060f77", "57": "05dc", "61": client_id}
    assert discover["options"] == {"53": "01", **common}
    offered = {"50": "0a090032", "54": "0a090001"}
    assert request["options"] == {"53": "03", **common, **offered}
    assert discover["xid"] == request["xid"]
    for one in (discover, request):
        assert (one["chaddr"], one["flags"], one["ciaddr"]) == (mac, "0000", "0.0.0.0")
        assert (one["from"], one["to"]) == ("0.0.0.0", "255.255.255.255")
    assert release["options"] == {"53": "07", "54": "0a090001", "61": client_id}
    assert (release["type"], release["ciaddr"], release["chaddr"]) == ("release", "10.9.0.50", mac)
    assert (release["from"], release["to"]) == ("10.9.0.50", SERVER)
    assert container.link()["flags"].count("UP") == 1
    assert daemon.of("event", "failed") == []


def test_options_of_the_configuration(host: Host, lan: str, daemon: Background) -> None:
    """[5.3.4, W-DH9] `request` and `provide`, by name and number, from CNI_ARGS, option 61."""
    assert daemon
    container = host.container("c1")
    wire(host, container)
    config = ipam(
        "dhcp",
        request=[{"skipDefault": True, "option": "subnet-mask"}, {"option": "121"}],
        provide=[
            {"option": "host-name", "value": "plain", "fromArg": "K8S_POD_NAME"},
            {"option": "60", "value": "vendor", "fromArg": "ABSENT"},
            {"option": "dhcp-client-identifier", "value": "own"},
            {"option": "77", "value": ""},
        ],
    )
    env = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web=1;lone"}
    with scripted(host, lan) as server:
        host.add("dhcp", config, container, env=env)
        host.delete("dhcp", config, container, env=env)
        release = server.wait_for(lambda line: line["type"] == "release")
        (discover,) = server.of("type", "discover")
    told = {"12": hexed("web=1"), "60": hexed("vendor"), "61": hexed("own")}
    assert discover["options"] == {"53": "01", "55": "0179", "57": "05dc", **told}
    assert release["options"]["61"] == hexed("own")


def test_requested_beside_the_defaults(host: Host, lan: str, daemon: Background) -> None:
    """[5.3.4] What `request` names comes first, each option once."""
    assert daemon
    container = host.container("c1")
    wire(host, container)
    config = ipam("dhcp", request=[{"option": "26"}, {"option": "3"}])
    with scripted(host, lan) as server:
        host.add("dhcp", config, container)
        host.delete("dhcp", config, container)
        server.wait_for(lambda line: line["type"] == "release")
        assert server.of("type", "discover")[0]["options"]["55"] == "1a0301060f77"


def test_everything_of_dnsmasq(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH9] DNS, classless routes with their metric, and MTU, in result and container."""
    assert daemon
    container = host.container("c1")
    config = dhcp(
        ipam={
            "priority": 7,
            "request": [{"option": "classless-static-routes"}, {"option": "interface-mtu"}],
        }
    )
    with dnsmasq(
        host,
        lan,
        "--dhcp-option=6,10.9.0.2,10.9.0.3",
        "--dhcp-option=15,example.org",
        "--dhcp-option=119,a.example.org,b.example.org",
        "--dhcp-option=26,1400",
        "--dhcp-option=121,0.0.0.0/0,10.9.0.1,10.20.0.0/16,10.9.0.7,10.30.1.0/24,0.0.0.0",
    ):
        result = host.add("bridge", config, container)
        assert result["dns"] == {
            "nameservers": ["10.9.0.2", "10.9.0.3"],
            "domain": "example.org",
            "search": ["a.example.org", "b.example.org"],
        }
        assert result["routes"] == [
            {"dst": "0.0.0.0/0", "gw": SERVER, "priority": 7},
            {"dst": "10.20.0.0/16", "gw": "10.9.0.7", "priority": 7},
            {"dst": "10.30.1.0/24", "gw": "0.0.0.0", "priority": 7, "scope": 253},
        ]
        have = {one["dst"]: one for one in container.ip("route")}
        assert (have["default"]["gateway"], have["default"]["metric"]) == (SERVER, 7)
        assert have["10.20.0.0/16"]["gateway"] == "10.9.0.7"
        assert "gateway" not in have["10.30.1.0/24"]
        assert container.link()["mtu"] == 1400
        check = config | {"prevResult": result}
        outcome = host.call("bridge", "CHECK", check, container)
        assert outcome.status == 0, outcome
        host.delete("bridge", config, container)


@pytest.mark.parametrize(
    ("options", "routes"),
    [
        ({}, [("0.0.0.0/0", SERVER)]),
        ({ROUTERS: "0a0900010a090002"}, [("0.0.0.0/0", SERVER)]),
        (
            {"33": "0a140000" + "0a090005" + "c0a80700" + "0a090006"},
            [("10.0.0.0/8", "10.9.0.5"), ("192.168.7.0/24", "10.9.0.6"), ("0.0.0.0/0", SERVER)],
        ),
        ({"121": "18c0a8070a090006" + "18c0a8080a09"}, [("192.168.7.0/24", "10.9.0.6")]),
        ({"121": "18c0a807" + "0a090006"}, [("192.168.7.0/24", "10.9.0.6")]),
    ],
    ids=["router", "two-routers", "static", "classless-cut-short", "classless"],
)
def test_routes(host: Host, lan: str, daemon: Background, options: Any, routes: Any) -> None:
    """[5.3.3] 121 alone where it is given, else 33 by class and a default route."""
    assert daemon
    container = host.container("c1")
    wire(host, container)
    with scripted(host, lan, options=BASE | options):
        result = host.add("dhcp", ipam("dhcp"), container)
        host.delete("dhcp", ipam("dhcp"), container)
    assert [(one["dst"], one["gw"]) for one in result.get("routes", [])] == routes


def test_no_router(host: Host, lan: str, daemon: Background) -> None:
    """A lease without a gateway, and text that no runtime should write to a file."""
    assert daemon
    container = host.container("c1")
    wire(host, container)
    options = {MASK: "fffffff8", "15": hexed("a b\nnameserver 1.1.1.1"), "6": "0a0900"}
    with scripted(host, lan, options=options):
        result = host.add("dhcp", ipam("dhcp"), container)
        host.delete("dhcp", ipam("dhcp"), container)
    dns = {"domain": "a", "search": ["a", "b", "nameserver", "1.1.1.1"]}
    ips = [{"address": "10.9.0.50/29"}]
    assert result == {"cniVersion": "1.1.0", "ips": ips, "dns": dns}


def test_no_subnet_mask(host: Host, lan: str, daemon: Background) -> None:
    """[5.3.3] Refused, and the lease is given back."""
    assert daemon
    container = host.container("c1")
    wire(host, container)
    with scripted(host, lan, options={ROUTERS: "0a090001"}) as server:
        error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container))
        assert error["msg"] == "DHCP option Subnet Mask not found in DHCPACK"
        server.wait_for(lambda line: line["type"] == "release")
    assert stored(host) == []


def test_two_interfaces(host: Host, lan: str, daemon: Background) -> None:
    """Each interface of a container has a lease of its own."""
    container = host.container("c1")
    with dnsmasq(host, lan) as server:
        first = host.add("bridge", dhcp(), container, "eth0")
        second = host.add("bridge", dhcp(), container, "net1")
        assert first["ips"][0]["address"] != second["ips"][0]["address"]
        assert len(stored(host)) == 2
        host.delete("bridge", dhcp(), container, "eth0")
        server.wait_for_text("DHCPRELEASE(srv0) " + first["ips"][0]["address"].split("/")[0])
        (left,) = stored(host)
        assert left["attachment"] == ["net1", "id-c1", "net1"]
        check = dhcp() | {"prevResult": second}
        outcome = host.call("bridge", "CHECK", check, container, "net1")
        assert outcome.status == 0, outcome
        host.delete("bridge", dhcp(), container, "net1")
    assert len(daemon.of("event", "released")) == 2


def test_on_macvlan(host: Host, lan: str, daemon: Background) -> None:
    """The daemon sends and hears on any Ethernet interface."""
    assert daemon
    container = host.container("c1")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "link", "set", "up1", "master", "cni0", "up")
    host.run("ip", "link", "set", "up0", "up")
    host.run("ip", "link", "add", "mv0", "link", "up0", "type", "macvlan", "mode", "bridge")
    host.run("ip", "link", "set", "mv0", "netns", "c1", "name", "eth0")
    with dnsmasq(host, lan) as server:
        result = host.add("dhcp", ipam("dhcp"), container)
        assert result["ips"][0]["gateway"] == SERVER
        host.delete("dhcp", ipam("dhcp"), container)
        server.wait_for_text("DHCPRELEASE")


@pytest.mark.vm
def test_on_ipvlan(host: Host, lan: str, daemon: Background) -> None:
    """[W-IV6, W-DH1] Links that share a hardware address: by broadcast, told apart by their ids."""
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "link", "set", "up1", "master", "cni0", "up")
    host.run("ip", "link", "set", "up0", "up")
    with dnsmasq(host, lan) as server:
        found = set()
        for name in ("c1", "c2"):
            container = host.container(name)
            host.run("ip", "link", "add", "iv0", "link", "up0", "type", "ipvlan", "mode", "l2")
            host.run("ip", "link", "set", "iv0", "netns", name, "name", "eth0")
            (address,) = host.add("dhcp", ipam("dhcp"), container)["ips"]
            found.add(address["address"])
            container.run("ip", "addr", "add", address["address"], "dev", "eth0")
            assert container.reaches(SERVER)
        assert len(found) == 2
        host.delete_all()
        server.wait_for_text("DHCPRELEASE")
    assert daemon.of("event", "failed") == []


def test_many_at_once(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH7, W-DH8] Each gets its own address, and no thread more runs for them."""
    containers = [host.container(f"c{number}") for number in range(12)]
    for one in containers:
        wire(host, one)
    found: list[str] = []

    def attach(container: Any) -> None:
        outcome = host.call("dhcp", "ADD", ipam("dhcp"), container)
        assert outcome.status == 0, outcome
        found.append(outcome.json["ips"][0]["address"])

    with dnsmasq(host, lan):
        threads = [threading.Thread(target=attach, args=(one,)) for one in containers]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(set(found)) == len(containers)
        tasks = host.run("ls", f"/proc/{daemon.process.pid}/task").stdout.split()
        assert len(tasks) == 1
        for one in containers:
            host.delete("dhcp", ipam("dhcp"), one)


def test_same_attachment_at_once(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH7] Two ADDs of one attachment: one lease."""
    assert daemon
    container = host.container("c1")
    wire(host, container)
    outcomes = []

    def attach() -> None:
        outcomes.append(host.call("dhcp", "ADD", ipam("dhcp"), container))

    with scripted(host, lan) as server:
        threads = [threading.Thread(target=attach) for _ in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(one.status for one in outcomes) == [0, 1, 1]
        error = refusal(next(one for one in outcomes if one.status))
        assert "DEL comes before the next ADD" in error["details"]
        assert stored(host) != []
        host.delete("dhcp", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "release")
        assert len({one["xid"] for one in server.of("type", "request")}) == 1


def test_add_again(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH3, W-G20] Refused while the interface lives; a container made anew gets its lease."""
    assert daemon
    container = host.container("c1")
    with dnsmasq(host, lan):
        first = host.add("bridge", dhcp(), container)["ips"]
        wire(host, container, "net1")
        error = refusal(host.call("bridge", "ADD", dhcp(), container))
        assert error["code"] == 999
        (record,) = stored(host)
        assert f"{record['lease']['address']}/24" == first[0]["address"]
        container.delete_netns()
        # Nothing that the daemon has keeps the namespace alive.
        until(lambda: host.ports() == [] or len(host.ports()) == 1, "the pair is still there")
        container = host.container("c1")
        second = host.add("bridge", dhcp(), container)["ips"]
        assert second[0]["address"] == first[0]["address"]
        assert container.reaches(SERVER)
        host.delete("bridge", dhcp(), container)


def test_nothing_left(host: Host, lan: str, daemon: Background) -> None:
    """ADD and DEL, and the host is as it was."""
    assert daemon
    container = host.container("c1")
    with dnsmasq(host, lan):
        host.add("bridge", dhcp(), container)
        host.delete("bridge", dhcp(), container)
        before = dump(host)
        host.add("bridge", dhcp(), container)
        host.delete("bridge", dhcp(), container)
        assert differences(before, dump(host)) == ""
