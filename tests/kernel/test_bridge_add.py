"""bridge ADD: what the kernel has afterwards, and whether packets flow."""

from __future__ import annotations

import pytest

from fixtures.configs import V4, V6, host_local, l2, l3
from fixtures.dump import differences, dump
from fixtures.host import Host, refusal


def test_two_containers_reach_each_other(host: Host) -> None:
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", l3(), first)
    host.add("bridge", l3(), second)
    assert first.addresses() == ["10.1.2.2/24"]
    assert second.addresses() == ["10.1.2.3/24"]
    assert first.reaches("10.1.2.3")


def test_dual_stack_with_default_gateway(host: Host) -> None:
    """Both families on one interface, usable at once: nothing waits for DAD."""
    first, second = host.container("c1"), host.container("c2")
    config = l3(isDefaultGateway=True, ipam=host_local(V4, V6))
    host.add("bridge", config, first)
    result = host.add("bridge", config, second)
    assert [one["address"] for one in result["ips"]] == ["10.1.2.3/24", "fd00:1::3/64"]
    assert result["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.1.2.1"},
        {"dst": "::/0", "gw": "fd00:1::1"},
    ]
    for address in ("10.1.2.2", "fd00:1::2", "10.1.2.1", "fd00:1::1"):
        assert second.reaches(address), address
    assert host.sysctl("net/ipv4/ip_forward") == "1"
    assert host.sysctl("net/ipv6/conf/all/forwarding") == "1"


def test_worked_example(host: Host) -> None:
    """[A.1] Every externally visible part of the reference's first worked example."""
    container = host.container("c1", "cid1")
    config = l3(isDefaultGateway=True, ipMasq=True, ipMasqBackend="iptables", mtu=1400)
    result = host.add("bridge", config, container)
    (port,) = host.ports()
    bridge = host.link("cni0")
    assert bridge is not None
    eth0 = container.link()
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cni0", "mac": bridge["address"]},
            {"name": port["ifname"], "mac": port["address"]},
            {"name": "eth0", "mac": eth0["address"], "sandbox": "/run/netns/c1"},
        ],
        "ips": [{"interface": 2, "address": "10.1.2.2/24", "gateway": "10.1.2.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}],
    }
    assert [bridge["mtu"], port["mtu"], eth0["mtu"]] == [1400, 1400, 1400]
    assert "UP" in bridge["flags"]
    assert "UP" in port["flags"]
    assert "txqlen" not in port or port["txqlen"] == 0
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is False
    assert port["linkinfo"]["info_slave_data"]["isolated"] is False
    (address,) = [
        one for one in host.ip("addr", "show", "cni0")[0]["addr_info"] if one["family"] == "inet"
    ]
    assert (address["local"], address["broadcast"]) == ("10.1.2.1", "10.1.2.255")
    for name in ("cni0", port["ifname"]):
        assert host.sysctl(f"net/ipv6/conf/{name}/accept_ra") == "0"
    assert container.sysctl("net/ipv6/conf/eth0/accept_dad") == "0"
    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"
    default, connected = container.ip("route")
    assert (default["dst"], default["gateway"]) == ("default", "10.1.2.1")
    assert default["protocol"] == "boot"
    assert "metric" not in default
    assert (connected["dst"], connected["protocol"]) == ("10.1.2.0/24", "kernel")


def test_host_end_carries_its_owner(host: Host) -> None:
    """The label names network, interface and container, so that anyone can tell whose it is."""
    host.add("bridge", l3(), host.container("c1", "pod-17"))
    (port,) = host.ports()
    assert port["ifalias"].endswith("net: net1, if: eth0, id: pod-17")


def test_layer_two_only(host: Host) -> None:
    first, second = host.container("c1"), host.container("c2")
    result = host.add("bridge", l2(), first)
    host.add("bridge", l2(), second)
    assert "ips" not in result
    assert [one["name"] for one in result["interfaces"]][::2] == ["cni0", "eth0"]
    first.run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
    second.run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
    assert first.reaches("192.0.2.2")


def test_layer_two_cannot_be_reported_before_0_3_0(host: Host) -> None:
    """[W-G8] Refused before anything is done, not after."""
    before = dump(host)
    container = host.container("c1")
    error = refusal(host.call("bridge", "ADD", l2(cniVersion="0.2.0"), container))
    assert (error["code"], error["msg"]) == (7, "cannot convert: no valid IP addresses")
    container.delete_netns()
    assert differences(before, dump(host)) == ""


def test_container_interface_can_stay_down(host: Host) -> None:
    container = host.container("c1")
    host.add("bridge", l2(disableContainerInterface=True), container)
    assert "UP" not in container.link()["flags"]


def test_hairpin_and_isolation(host: Host) -> None:
    host.add("bridge", l3(hairpinMode=True), host.container("c1"))
    host.add("bridge", l3(portIsolation=True), host.container("c2"))
    first, second = (one["linkinfo"]["info_slave_data"] for one in host.ports())
    assert (first["hairpin"], first["isolated"]) == (True, False)
    assert (second["hairpin"], second["isolated"]) == (False, True)


def test_isolated_ports_do_not_reach_each_other(host: Host) -> None:
    first, second = host.container("c1"), host.container("c2")
    config = l3(isGateway=True, portIsolation=True)
    host.add("bridge", config, first)
    host.add("bridge", config, second)
    assert first.reaches("10.1.2.1")
    assert not first.reaches("10.1.2.3")


def test_promiscuous_bridge(host: Host) -> None:
    host.add("bridge", l3(promiscMode=True), host.container("c1"))
    bridge = host.link("cni0")
    assert bridge is not None
    assert "PROMISC" in bridge["flags"]


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
        (
            {},
            {"CNI_ARGS": "K8S_POD_NAME=a;MAC=02-00-00-00-00-04;IgnoreUnknown=true"},
            "02:00:00:00:00:04",
        ),
    ],
    ids=["CNI_ARGS", "args.cni", "runtimeConfig [J-01]", "with Kubernetes' arguments"],
)
def test_hardware_address(
    host: Host, keys: dict[str, object], env: dict[str, str], expected: str
) -> None:
    container = host.container("c1")
    result = host.add("bridge", l3(**keys), container, env=env)
    assert container.link()["address"] == expected
    assert result["interfaces"][2]["mac"] == expected


def test_duplicate_address_detection_on_request(host: Host) -> None:
    """`enabledad` waits for its end; without it an address is usable at once."""
    plain, careful = host.container("c1"), host.container("c2")
    host.add("bridge", l3(ipam=host_local(V6)), plain)
    host.add("bridge", l3(ipam=host_local(V6), enabledad=True), careful)
    assert plain.sysctl("net/ipv6/conf/eth0/accept_dad") == "0"
    assert careful.sysctl("net/ipv6/conf/eth0/accept_dad") == "1"
    assert careful.sysctl("net/ipv6/conf/eth0/enhanced_dad") == "1"
    shown = careful.ip("-6", "addr", "show", "eth0", "scope", "global")
    (address,) = [one for one in shown[0]["addr_info"] if one.get("local")]
    assert "tentative" not in address
    assert "nodad" not in address


def test_duplicate_address_is_reported(host: Host) -> None:
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", l3(ipam=host_local(V6)), first)
    first.run("ip", "addr", "add", "fd00:1::3/64", "dev", "eth0", "nodad")
    error = refusal(host.call("bridge", "ADD", l3(ipam=host_local(V6), enabledad=True), second))
    assert "fd00:1::3" in error["msg"]
    assert list(host.allocated("net1")) == ["fd00:1::2"]


def test_ipv6_where_it_was_disabled(host: Host) -> None:
    container = host.container("c1")
    container.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    host.add("bridge", l3(ipam=host_local(V6)), container)
    assert container.addresses() == ["fd00:1::2/64"]


def test_no_router_advertisements(host: Host) -> None:
    """[CVE-2020-10749] Neither the host nor an addressed container listens to advertisements."""
    container = host.container("c1")
    host.add("bridge", l3(), container)
    (port,) = host.ports()
    for name in ("cni0", port["ifname"]):
        assert host.sysctl(f"net/ipv6/conf/{name}/accept_ra") == "0"
    assert container.sysctl("net/ipv6/conf/eth0/accept_ra") == "0"


def test_several_addresses_and_routes(host: Host) -> None:
    """[W-G9] Every property of a route reaches the kernel."""
    container = host.container("c1")
    routes = [
        {"dst": "192.0.2.0/24"},
        {"dst": "198.51.100.0/24", "gw": "10.1.2.9", "priority": 7, "mtu": 1300, "advmss": 1200},
        {"dst": "203.0.113.0/24", "table": 500},
        {"dst": "fd99::/64", "gw": "fd00:1::9", "mtu": 1290},
    ]
    ranges = [V4, [{"subnet": "10.1.3.0/24"}], V6]
    result = host.add(
        "bridge", l3(isGateway=True, ipam=host_local(*ranges, routes=routes)), container
    )
    assert container.addresses() == ["10.1.2.2/24", "10.1.3.2/24", "fd00:1::2/64"]
    assert [one["interface"] for one in result["ips"]] == [2, 2, 2]
    shown = {one["dst"]: one for one in container.ip("route", "show", "table", "all")}
    assert shown["192.0.2.0/24"]["gateway"] == "10.1.2.1"
    other = shown["198.51.100.0/24"]
    assert (other["gateway"], other["metric"]) == ("10.1.2.9", 7)
    assert other["metrics"] == [{"mtu": 1300, "advmss": 1200}]
    assert shown["203.0.113.0/24"]["table"] == "500"
    six = {one["dst"]: one for one in container.ip("-6", "route")}["fd99::/64"]
    assert (six["gateway"], six["metrics"]) == ("fd00:1::9", [{"mtu": 1290}])
    have = [one.get("local") for one in host.ip("addr", "show", "cni0")[0]["addr_info"]]
    assert {"10.1.2.1", "10.1.3.1", "fd00:1::1"} <= set(have)


def test_gateway_conflict(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.run("ip", "addr", "add", "10.9.9.1/24", "dev", "cni0")
    container = host.container("c1")
    error = refusal(host.call("bridge", "ADD", l3(isGateway=True), container))
    assert error["msg"] == '"cni0" already has an IP address different from 10.1.2.1/24'
    assert "10.9.9.1/24" in error["details"]
    assert host.allocated("net1") == {}
    assert host.ports() == []
    host.add("bridge", l3(isGateway=True, forceAddress=True), container)
    (own,) = [one for one in host.ip("-4", "addr", "show", "cni0")[0]["addr_info"] if one]
    assert own["local"] == "10.1.2.1"


def test_bridge_keeps_its_hardware_address(host: Host) -> None:
    """[W-BR15] A bridge without addresses has the same hardware address as ports come and go."""
    host.add("bridge", l2(), host.container("c1"))
    before = host.link("cni0")
    for name in ("c2", "c3", "c4"):
        host.add("bridge", l2(), host.container(name))
    after = host.link("cni0")
    assert before is not None
    assert after is not None
    assert before["address"] == after["address"]


def test_not_a_bridge(host: Host) -> None:
    host.run("ip", "link", "add", "cni0", "type", "ifb")
    before = dump(host)
    container = host.container("c1")
    error = refusal(host.call("bridge", "ADD", l3(), container))
    assert (error["code"], error["msg"]) == (7, '"cni0" already exists but is not a bridge')
    container.delete_netns()
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"vlan": 4095}, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
        ({"vlan": -1}, "invalid VLAN ID -1"),
        ({"mtu": 67}, "invalid mtu 67"),
        ({"mtu": "1500"}, "$.mtu"),
        ({"hairpinMode": True, "promiscMode": True}, "cannot set hairpin mode and promiscuous"),
        ({"disableContainerInterface": True}, "cannot use IPAM when DisableContainerInterface"),
        ({"vlanTrunk": [{"minID": 5}]}, "maxID is missing"),
        ({"vlanTrunk": [{"maxID": 5}]}, "minID is missing"),
        ({"vlanTrunk": [{"minID": 0, "maxID": 5}]}, "incorrect trunk minID parameter"),
        ({"vlanTrunk": [{"minID": 1, "maxID": 4095}]}, "incorrect trunk maxID parameter"),
        ({"vlanTrunk": [{"minID": 6, "maxID": 5}]}, "minID is greater than maxID"),
        ({"vlanTrunk": [{"id": 0}]}, "incorrect trunk id parameter"),
        ({"bridge": "a-name-of-16-byte"}, "too long"),
        ({"bridge": "a/b"}, "contains / or :"),
        ({"bridge": "all"}, "is not the name of one device"),
        ({"ipMasq": True, "ipMasqBackend": "pf"}, 'unknown ipmasq backend "pf"'),
        ({"runtimeConfig": {"mac": "02:00:00:00:00"}}, 'invalid mac "02:00:00:00:00"'),
        ({"runtimeConfig": {"mac": "ff:ff:ff:ff:ff:ff"}}, "multicast or zero"),
    ],
)
def test_refused_configuration(host: Host, keys: dict[str, object], words: str) -> None:
    """Code 7, words that name the value, and nothing changed."""
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", l3(**keys), container))
    assert error["code"] == 7
    assert words in error["msg"]
    assert differences(before, dump(host)) == ""


def test_missing_namespace(host: Host) -> None:
    container = host.container("c1")
    container.delete_netns()
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", l3(), container))
    assert error["code"] == 4
    assert 'CNI_NETNS "/run/netns/c1" is not a network namespace' in error["msg"]
    assert differences(before, dump(host)) == ""


def test_existing_interface_in_the_container(host: Host) -> None:
    """[A-02] The container's own interface stays, and nothing of the attempt remains."""
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", l3(), container))
    assert error["msg"] == "interface eth0 already exists in /run/netns/c1"
    assert differences(before, dump(host)) == ""
    assert container.link()["linkinfo"]["info_kind"] == "bridge"


def test_dns_of_the_configuration_wins(host: Host) -> None:
    """[W-G13] IPAM's dns is kept unless the configuration has one."""
    host.run("sh", "-c", "echo 'nameserver 192.0.2.53' > /run/resolv.conf")
    pool = host_local(V4, resolvConf="/run/resolv.conf")
    first = host.add("bridge", l3(ipam=pool), host.container("c1"))
    assert first["dns"] == {"nameservers": ["192.0.2.53"]}
    own = {"nameservers": ["192.0.2.1"], "search": ["example"]}
    second = host.add("bridge", l3(ipam=pool, dns=own), host.container("c2"))
    assert second["dns"] == own


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_result_in_every_version(host: Host, version: str) -> None:
    """[A-05] The result has the configuration's version and that version's shape."""
    result = host.add("bridge", l3(cniVersion=version), host.container("c1"))
    assert result["cniVersion"] == version
    if version < "0.3.0":
        assert result["ip4"]["ip"] == "10.1.2.2/24"
    elif version < "1.0.0":
        assert result["ips"][0]["version"] == "4"
        assert result["dns"] == {}
    else:
        assert result["ips"] == [{"interface": 2, "address": "10.1.2.2/24", "gateway": "10.1.2.1"}]
