"""ptp ADD: what the kernel has afterwards, and whether packets flow."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.capture import capture
from fixtures.configs import V4, V6, host_local, routed
from fixtures.dump import differences, dump
from fixtures.host import Container, Host, refusal

DEFAULTS = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def static(*addresses: dict[str, str], **keys: Any) -> dict[str, Any]:
    """An `ipam` key with fixed addresses."""
    return {"type": "static", "addresses": list(addresses), **keys}


def host_end(host: Host, container: Container, ifname: str = "eth0") -> dict[str, Any]:
    """The host's end of the container's pair."""
    index = container.link(ifname)["link_index"]
    (found,) = [one for one in host.ip("link") if one["ifindex"] == index]
    return dict(found)


def routes(where: Host | Container, device: str) -> dict[str, dict[str, Any]]:
    """The main table's routes through a device by destination, but not what IPv6 makes itself."""
    listed = where.ip("route", "show", "dev", device)
    listed += where.ip("-6", "route", "show", "dev", device)
    return {one["dst"]: one for one in listed if not one["dst"].startswith("fe80")}


def test_host_and_containers_reach_each_other(host: Host) -> None:
    """Both families, from the first moment on: nothing waits for duplicate detection."""
    first, second = host.container("c1"), host.container("c2")
    config = routed(ipam=host_local(V4, V6))
    host.add("ptp", config, first)
    host.add("ptp", config, second)
    for address in ("fd00:1::1", "10.1.2.1", "fd00:1::2", "10.1.2.2"):
        assert second.reaches(address), address
    for address in ("10.1.2.3", "fd00:1::3"):
        host.run("busybox", "ping", "-c", "1", "-W", "2", address)
    assert host.sysctl("net/ipv4/ip_forward") == "1"
    assert host.sysctl("net/ipv6/conf/all/forwarding") == "1"


@pytest.mark.parametrize(("pool", "versions"), [(V4, ("1", "0")), (V6, ("0", "1"))])
def test_only_the_families_in_use_are_forwarded(
    host: Host, pool: list[dict[str, str]], versions: tuple[str, str]
) -> None:
    host.add("ptp", routed(ipam=host_local(pool)), host.container("c1"))
    forwarding = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    assert tuple(map(host.sysctl, forwarding)) == versions


def test_worked_example(host: Host) -> None:
    """[A.6] Every externally visible part of the reference's worked example."""
    container = host.container("c1", "cid1")
    pool = host_local(V4, [{"subnet": "2001:db8:1::/66"}], routes=DEFAULTS)
    result = host.add("ptp", routed(ipam=pool, mtu=1400), container)
    eth0, end = container.link(), host_end(host, container)
    name = end["ifname"]
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": name, "mac": end["address"]},
            {"name": "eth0", "mac": eth0["address"], "sandbox": "/run/netns/c1"},
        ],
        "ips": [
            {"interface": 1, "address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"interface": 1, "address": "2001:db8:1::2/66", "gateway": "2001:db8:1::1"},
        ],
        "routes": DEFAULTS,
    }
    assert [end["mtu"], eth0["mtu"]] == [1400, 1400]
    assert container.addresses() == ["10.1.2.2/24", "2001:db8:1::2/66"]
    inside = routes(container, "eth0")
    assert set(inside) == {
        "default", "10.1.2.0/24", "10.1.2.1", "2001:db8:1::/66", "2001:db8:1::1"
    }  # fmt: skip
    assert (inside["10.1.2.1"]["scope"], inside["10.1.2.1"]["prefsrc"]) == ("link", "10.1.2.2")
    subnet = inside["10.1.2.0/24"]
    assert (subnet["gateway"], subnet["prefsrc"]) == ("10.1.2.1", "10.1.2.2")
    subnet = inside["2001:db8:1::/66"]
    assert (subnet["gateway"], subnet["prefsrc"]) == ("2001:db8:1::1", "2001:db8:1::2")
    assert inside["2001:db8:1::1"]["prefsrc"] == "2001:db8:1::2"
    assert container.ip("route", "show", "default")[0]["gateway"] == "10.1.2.1"
    assert container.ip("-6", "route", "show", "default")[0]["gateway"] == "2001:db8:1::1"
    own = [
        f"{one['local']}/{one['prefixlen']}"
        for one in host.ip("addr", "show", "dev", name)[0]["addr_info"]
        if one["scope"] != "link"
    ]
    assert own == ["10.1.2.1/32", "2001:db8:1::1/128"]
    outside = routes(host, name)
    assert set(outside) == {"10.1.2.2", "2001:db8:1::1", "2001:db8:1::2"}
    assert outside["10.1.2.2"]["scope"] == "host"
    assert host.sysctl(f"net/ipv6/conf/{name}/accept_ra") == "0"
    assert container.sysctl("net/ipv6/conf/eth0/accept_ra") == "0"


def test_host_end_carries_its_owner(host: Host) -> None:
    """The label names network, interface and container; nothing is marked unfinished."""
    container = host.container("c1", "pod-17")
    host.add("ptp", routed(ipMasq=True), container)
    end = host_end(host, container)
    assert end["ifalias"].endswith("has: nftables, net: net1, if: eth0, id: pod-17")
    assert end.get("group", "default") == "default"
    assert "master" not in end


@pytest.mark.parametrize(
    ("address", "gateway"),
    [
        ("10.9.9.9/32", "10.9.9.1"),
        ("10.9.9.9/32", "169.254.1.1"),
        ("fd09::9/128", "fd09::1"),
        ("fd09::9/128", "fe80::1"),
        ("10.9.9.9/24", "10.8.8.1"),
        ("10.9.9.8/31", "10.9.9.9"),
    ],
)
def test_subnets_without_the_gateway(host: Host, address: str, gateway: str) -> None:
    """[W-P5] A single address, or a gateway outside the subnet, is connected all the same."""
    host.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    host.run("ip", "addr", "add", "2001:db8::1/128", "dev", "lo")
    everywhere = [{"dst": "::/0" if ":" in address else "0.0.0.0/0"}]
    pool = static({"address": address, "gateway": gateway}, routes=everywhere)
    container = host.container("c1")
    host.add("ptp", routed(ipam=pool), container)
    assert container.reaches("2001:db8::1" if ":" in address else "192.0.2.1")
    host.run("busybox", "ping", "-c", "1", "-W", "2", address.split("/", maxsplit=1)[0])


@pytest.mark.parametrize(
    "addresses", [("10.9.9.9/24", "10.9.9.10/24"), ("fd09::9/64", "fd09::a/64")]
)
def test_addresses_that_share_a_gateway(host: Host, addresses: tuple[str, str]) -> None:
    gateway = "fd09::1" if ":" in addresses[0] else "10.9.9.1"
    pool = static(*({"address": one, "gateway": gateway} for one in addresses))
    container = host.container("c1")
    config = routed(ipam=pool)
    result = host.add("ptp", config, container)
    assert [one["interface"] for one in result["ips"]] == [1, 1]
    assert sorted(container.addresses()) == sorted(addresses)
    for one in addresses:
        host.run("busybox", "ping", "-c", "1", "-W", "2", one.split("/")[0])
    assert host.call("ptp", "CHECK", config | {"prevResult": result}, container).status == 0


def test_several_addresses_and_routes(host: Host) -> None:
    """[W-G9] Every property of a route reaches the kernel; a next hop may be a neighbour."""
    container = host.container("c1")
    listed = [
        {"dst": "192.0.2.0/24"},
        {"dst": "198.51.100.0/24", "gw": "10.1.2.9", "priority": 7, "mtu": 1300, "advmss": 1200},
        {"dst": "203.0.113.0/24", "table": 500},
        {"dst": "fd99::/64", "gw": "fd00:1::9", "mtu": 1290},
    ]
    ranges = [V4, [{"subnet": "10.1.3.0/24"}], V6]
    config = routed(ipam=host_local(*ranges, routes=listed))
    result = host.add("ptp", config, container)
    assert container.addresses() == ["10.1.2.2/24", "10.1.3.2/24", "fd00:1::2/64"]
    shown = {one["dst"]: one for one in container.ip("route", "show", "table", "all")}
    assert shown["192.0.2.0/24"]["gateway"] == "10.1.2.1"
    other = shown["198.51.100.0/24"]
    assert (other["gateway"], other["metric"]) == ("10.1.2.9", 7)
    assert other["metrics"] == [{"mtu": 1300, "advmss": 1200}]
    assert shown["203.0.113.0/24"]["table"] == "500"
    six = {one["dst"]: one for one in container.ip("-6", "route")}["fd99::/64"]
    assert (six["gateway"], six["metrics"]) == ("fd00:1::9", [{"mtu": 1290}])
    for one in ("10.1.2.1", "10.1.3.1", "fd00:1::1"):
        assert container.reaches(one), one
    assert host.call("ptp", "CHECK", config | {"prevResult": result}, container).status == 0


@pytest.mark.parametrize(
    ("keys", "env", "expected"),
    [
        ({}, {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:01"}, "02:00:00:00:00:01"),
        (
            {"args": {"cni": {"mac": "02:00:00:00:00:02"}}},
            {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:01"},
            "02:00:00:00:00:02",
        ),
        (
            {
                "RuntimeConfig": {"MAC": "0200.0000.0003"},
                "args": {"cni": {"mac": "02:00:00:00:00:02"}},
            },
            {},
            "02:00:00:00:00:03",
        ),
    ],
    ids=["CNI_ARGS", "args.cni", "runtimeConfig"],
)
def test_hardware_address(
    host: Host, keys: dict[str, object], env: dict[str, str], expected: str
) -> None:
    """[W-P6]"""
    container = host.container("c1")
    result = host.add("ptp", routed(**keys), container, env=env)
    assert container.link()["address"] == expected
    assert result["interfaces"][1]["mac"] == expected
    assert container.reaches("10.1.2.1")


def test_announcements(host: Host) -> None:
    """[W-P6] The host hears of the addresses, now and whenever the link comes up again."""
    container = host.container("c1")
    config = routed(ipam=host_local(V4, V6), runtimeConfig={"mac": "02:00:00:00:00:07"})
    mac = bytes.fromhex("020000000007")
    # Heard on all interfaces: the pair does not exist yet.
    with capture(host, "") as heard:
        host.add("ptp", config, container)
        arp = heard.wait_for(lambda frame: frame[12:14] == b"\x08\x06" and frame[6:12] == mac)
        heard.wait_for(
            lambda frame: (
                frame[12:14] == b"\x86\xdd"
                and frame[6:12] == mac
                and frame[54] == 136
                and frame[62:78] == bytes.fromhex("fd000001000000000000000000000002")
            )
        )
    assert arp[28:32] == arp[38:42] == bytes((10, 1, 2, 2))
    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"
    assert container.sysctl("net/ipv6/conf/eth0/ndisc_notify") == "1"


def test_dns_of_the_configuration_wins(host: Host) -> None:
    """[W-G13] IPAM's dns is kept unless the configuration has one."""
    host.run("sh", "-c", "echo 'nameserver 192.0.2.53' > /run/resolv.conf")
    pool = host_local(V4, resolvConf="/run/resolv.conf")
    first = host.add("ptp", routed(ipam=pool), host.container("c1"))
    assert first["dns"] == {"nameservers": ["192.0.2.53"]}
    own = {"nameservers": ["192.0.2.1"], "search": ["example"]}
    second = host.add("ptp", routed(ipam=pool, dns=own), host.container("c2"))
    assert second["dns"] == own


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_older_protocol_versions(host: Host, version: str) -> None:
    config = routed(cniVersion=version, ipam=host_local(V4, V6))
    container = host.container("c1")
    result = host.add("ptp", config, container)
    assert result["cniVersion"] == version
    if version in ("0.1.0", "0.2.0"):
        assert result["ip4"]["ip"] == "10.1.2.2/24"
        assert result["ip6"]["gateway"] == "fd00:1::1"
    else:
        assert [one["interface"] for one in result["ips"]] == [1, 1]
    assert container.reaches("10.1.2.1")


def test_ipv6_where_it_was_disabled(host: Host) -> None:
    container = host.container("c1")
    container.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    host.add("ptp", routed(ipam=host_local(V6)), container)
    assert container.addresses() == ["fd00:1::2/64"]
    assert container.reaches("fd00:1::1")


# A route of another holder of the address.


def pinned(**keys: Any) -> dict[str, Any]:
    """A network that always gives the same address."""
    return routed(ipam=static({"address": "10.1.2.9/24", "gateway": "10.1.2.1"},
        {"address": "fd00:1::9/64", "gateway": "fd00:1::1"}), **keys)  # fmt: skip


def test_route_of_an_earlier_holder_is_replaced(host: Host) -> None:
    """[W-P8] The address was given again while the earlier container is still there."""
    old, new = host.container("c1"), host.container("c2")
    host.add("ptp", pinned(), old)
    host.add("ptp", pinned(), new)
    name = host_end(host, new)["ifname"]
    for address in ("10.1.2.9", "fd00:1::9"):
        (route,) = host.ip("route", "get", address)
        assert route["dev"] == name
        assert new.reaches(address.replace("9", "1"))
    # The end of the earlier one takes nothing from the new one.
    host.delete("ptp", pinned(), old)
    assert new.reaches("10.1.2.1")
    assert new.reaches("fd00:1::1")


def test_route_of_the_reference_is_replaced(host: Host) -> None:
    """[W-P8] A pair that the reference has left: it has a random name and no label."""
    host.run("ip", "link", "add", "veth0a1b2c3d", "type", "veth", "peer", "name", "other")
    host.run("ip", "link", "set", "veth0a1b2c3d", "up")
    host.run("ip", "link", "set", "other", "up")
    host.run("ip", "route", "add", "10.1.2.9", "dev", "veth0a1b2c3d", "scope", "host")
    host.run("ip", "-6", "route", "add", "fd00:1::9", "dev", "veth0a1b2c3d")
    container = host.container("c1")
    host.add("ptp", pinned(), container)
    assert container.reaches("10.1.2.1")
    assert container.reaches("fd00:1::1")
    host.run("ip", "link", "delete", "other")


@pytest.mark.parametrize("other", ["network", "device", "blackhole"])
def test_route_of_somebody_else_stays(host: Host, other: str) -> None:
    """[W-P8] Another network's container, or other software, keeps its route; ADD says whose."""
    if other == "network":
        first = host.container("c1", "first")
        host.add("ptp", pinned(name="net2"), first)
        words = f"10.1.2.9 is already routed through {host_end(host, first)['ifname']}"
        details = "net: net2, if: eth0, id: first"
    elif other == "device":
        host.run("ip", "link", "add", "tun0", "type", "ifb")
        host.run("ip", "link", "set", "tun0", "up")
        host.run("ip", "route", "add", "10.1.2.9", "dev", "tun0")
        words, details = "10.1.2.9 is already routed through tun0", ""
    else:
        host.run("ip", "route", "add", "blackhole", "10.1.2.9")
        words, details = "10.1.2.9 is already routed otherwise", ""
    container = host.container("c2")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", pinned(), container))
    assert error["msg"] == words
    assert details in error["details"]
    assert differences(before, dump(host)) == ""
    assert container.ip("link", "show", "type", "veth") == []


# Refusals.


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ipam": {}}, "ptp needs an IPAM plugin: ipam.type is missing"),
        ({"mtu": 67}, "invalid mtu 67"),
        ({"mtu": 65536}, "invalid mtu 65536"),
        ({"mtu": "1500"}, "$.mtu"),
        ({"ipMasq": True, "ipMasqBackend": "pf"}, 'unknown ipmasq backend "pf"'),
        ({"runtimeConfig": {"mac": "02:00:00:00:00"}}, 'invalid mac "02:00:00:00:00"'),
        ({"runtimeConfig": {"mac": "ff:ff:ff:ff:ff:ff"}}, "multicast or zero"),
    ],
)
def test_refused_configuration(host: Host, keys: dict[str, object], words: str) -> None:
    """Code 7, words that name the value, and nothing changed."""
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", routed(**keys), container))
    assert error["code"] == 7
    assert words in error["msg"]
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            {"address": "10.9.9.9/24"},
            "IPAM plugin returned address 10.9.9.9/24 without a gateway",
        ),
        (
            {"address": "10.9.9.9/24", "gateway": "fd00::1"},
            "gateway fd00::1 is not of the family of 10.9.9.9/24",
        ),
        (
            {"address": "10.9.9.9/24", "gateway": "10.9.9.9"},
            "IPAM plugin returned address 10.9.9.9/24 with itself as the gateway",
        ),
    ],
)
def test_gateway_that_cannot_be(host: Host, address: dict[str, str], words: str) -> None:
    """[W-P4]"""
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", routed(ipam=static(address)), container))
    assert error["msg"] == words
    assert differences(before, dump(host)) == ""


def test_missing_namespace(host: Host) -> None:
    container = host.container("c1")
    container.delete_netns()
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", routed(), container))
    assert error["code"] == 4
    assert 'CNI_NETNS "/run/netns/c1" is not a network namespace' in error["msg"]
    assert differences(before, dump(host)) == ""


def test_existing_interface_in_the_container(host: Host) -> None:
    """[A-02] The container's own interface stays, and nothing of the attempt remains."""
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    before = dump(host)
    error = refusal(host.call("ptp", "ADD", routed(), container))
    assert error["msg"] == "interface eth0 already exists in /run/netns/c1"
    assert differences(before, dump(host)) == ""
    assert container.link()["linkinfo"]["info_kind"] == "bridge"
