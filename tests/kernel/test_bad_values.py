"""Values of the right type that cannot be meant: code 7, the key is named, nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import ipam, l3, routed
from fixtures.dump import differences, dump
from fixtures.host import Container, Host, refusal
from fixtures.parents import child, uplink

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = "ip -o addr; ip rule; ip route show table all; grep -s . /proc/sys/net/ipv4/*/*/*"
NEW = {
    "bridge": l3(),
    "macvlan": child("macvlan"),
    "ptp": routed(),
    "static": ipam("static"),
    "tap": {"ipam": ipam()["ipam"]},
    "host-device": {},
}


def mapped(**keys: Any) -> dict[str, Any]:
    """A port mapping with some of its keys replaced."""
    one = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"} | keys
    return {"runtimeConfig": {"portMappings": [one]}}


def fixed(*addresses: str, **keys: Any) -> dict[str, Any]:
    """Addresses of static, the keys beside each."""
    return {"ipam": {"type": "static", "addresses": [{"address": x} | keys for x in addresses]}}


SERVICE = {"name": "web", "port": 8080}


def declared(**keys: Any) -> dict[str, Any]:
    """One service, with the keys."""
    return {"services": [SERVICE | keys]}


def annotated(text: str) -> dict[str, Any]:
    """What containerd brings of a pod with the annotation."""
    return {"io.kubernetes.cri.pod-annotations": {"cni-py.dev/services": text}}


TWICE = [{"hostPort": 80, "containerPort": port, "protocol": "tcp"} for port in (1, 2)]
LIMIT = {"ingressRate": 8000, "ingressBurst": 8000}
ARP_FILTER = "net.ipv4.conf.IFNAME.arp_filter"
ZERO = "00:00:00:00:00:00"
# What is set, and the words by which a person finds it.
CASES: dict[str, list[tuple[dict[str, Any], str]]] = {
    "tuning": [
        ({"sysctl": {"": "1"}}, 'sysctl key: ""'),
        ({"sysctl": {"kernel.hostname": "x"}}, '"kernel.hostname"'),
        ({"sysctl": {"net/../kernel/hostname": "x"}}, '"net/../kernel/hostname"'),
        ({"sysctl": {"/net/ipv4/ip_forward": "1"}}, '"/net/ipv4/ip_forward"'),
        ({"sysctl": {ARP_FILTER: "1\n2"}}, ARP_FILTER),
        ({"sysctl": {ARP_FILTER: "1\0"}}, ARP_FILTER),
        ({"sysctl": {ARP_FILTER: "1", ARP_FILTER.replace(".", "/"): "0"}}, ARP_FILTER),
        ({"args": {"cni": {"sysctl": {"kernel.x": "1"}}}}, '"kernel.x"'),
        ({"mac": "02:00:00:00:00"}, "key mac"),
        ({"mac": "02:00:00:00:00:01:02:03"}, "key mac"),
        ({"mac": ZERO}, "key mac"),
        ({"mac": "01:00:5e:00:00:01"}, "key mac"),
        ({"runtimeConfig": {"mac": "x"}}, "runtimeConfig.mac"),
        ({"args": {"cni": {"mac": "x"}}}, "args.cni.mac"),
        ({"mtu": -1}, "mtu -1"),
        ({"mtu": 67}, "mtu 67"),
        ({"mtu": 65536}, "mtu 65536"),
        ({"args": {"cni": {"mtu": 2**40}}}, f"mtu {2**40}"),
        ({"txQLen": -1}, "txQLen -1"),
        ({"txQLen": 2**32}, f"txQLen {2**32}"),
        ({"dataDir": "relative/folder"}, 'dataDir "relative/folder"'),
        ({"dataDir": "/a\0b"}, "dataDir"),
        ({"dataDir": "/../"}, "dataDir"),
    ],
    "sbr": [
        ({"gateways": ["10.1.2"]}, "10.1.2 in gateways"),
        ({"gateways": [""]}, "in gateways"),
        ({"gateways": ["0.0.0.0"]}, "0.0.0.0 is not one of a neighbour in gateways"),
        ({"gateways": ["224.0.0.1"]}, "224.0.0.1 is not one of a neighbour in gateways"),
        ({"gateways": ["::1"]}, "::1 is not one of a neighbour in gateways"),
        ({"gateways": ["10.1.2.1", "10.1.2.1"]}, "multiple IPv4 addresses"),
        ({"gateways": ["10.1.2.1", "fd00::1", "fd00::2"]}, "gateways"),
        ({"table": 0}, "table 0"),
        ({"table": -1}, "table -1"),
        ({"table": 2**32}, f"table {2**32}"),
    ],
    "services": [
        (declared(name=""), 'services[0]: service ""'),
        (declared(name="Web"), 'services[0]: service "Web"'),
        (declared(name="-web"), 'services[0]: service "-web"'),
        (declared(name="a" * 64), "services[0]: service"),
        (declared(name="web\n10.0.0.1 evil"), r'services[0]: service "web\n10.0.0.1 evil"'),
        (declared(name="web,evil"), "services[0]: service"),
        (declared(name="a.b"), "services[0]: service"),
        (declared(name="localhost"), 'services[0]: "localhost" means the host itself'),
        (declared(port=0), "services[0]: port 0"),
        (declared(port=65536), "services[0]: port 65536"),
        (declared(protocol="icmp"), "$.services[0].protocol"),
        (declared(weight=0), "services[0]: weight 0"),
        (declared(metadata={"": "x"}), "services[0]: metadata's key"),
        (declared(metadata={"a b": "x"}), "services[0]: metadata's key"),
        (declared(metadata={"a": "x\ny"}), "services[0]: metadata's a"),
        (declared(metadata={"a": "\x1b[2J"}), "services[0]: metadata's a"),
        (declared(metadata={"a": "x" * 513}), "services[0]: metadata's a"),
        (declared(metadata={f"a{one}": "" for one in range(33)}), "metadata has 33 pairs"),
        ({"services": [SERVICE] * 33}, "services has 33 entries"),
        ({"services": [SERVICE, SERVICE]}, "services[1] declares web, port 8080/tcp again"),
        (declared(check={"type": "exec"}), 'services[0].check.type "exec"'),
        (declared(check={"port": -1}), "services[0].check.port -1"),
        (declared(protocol="udp", check={}), "services[0].check has no port"),
        (declared(check={"type": "http", "path": "ping"}), 'services[0].check.path "ping"'),
        (declared(check={"type": "http", "path": "/ HTTP/1.1\r\nX: y"}), "services[0].check.path"),
        (declared(check={"type": "http", "path": "/" + "x" * 1024}), "services[0].check.path"),
        (declared(check={"type": "http", "host": "a\r\nX: y"}), "services[0].check.host"),
        (declared(check={"intervalSeconds": 0.01}), "services[0].check.intervalSeconds 0.01"),
        (declared(check={"intervalSeconds": 1e9}), "services[0].check.intervalSeconds 1e+09"),
        (declared(check={"timeoutSeconds": 0}), "services[0].check.timeoutSeconds 0"),
        (declared(check={"rise": 0}), "services[0].check.rise 0"),
        (declared(check={"fall": 101}), "services[0].check.fall 101"),
        ({"args": {"cni": declared(name="a b")}}, "args.cni.services[0]: service"),
        ({"runtimeConfig": declared(port=0)}, "runtimeConfig.services[0]: port 0"),
        ({"runtimeConfig": annotated("[{")}, "annotation cni-py.dev/services is no JSON"),
        ({"runtimeConfig": annotated("[{}]")}, "annotation cni-py.dev/services"),
        (
            {"runtimeConfig": annotated('[{"name": "a b", "port": 1}]')},
            "annotation cni-py.dev/services[0]: service",
        ),
    ],
    "vrf": [
        ({}, "vrfname"),
        ({"vrfname": "a-name-of-16-byt"}, "vrfname"),
        ({"vrfname": "a b"}, "vrfname"),
        ({"vrfname": "."}, "vrfname"),
        ({"vrfname": "all"}, "vrfname"),
        ({"vrfname": "eth0"}, "vrfname"),
        ({"vrfname": "blue", "table": -1}, "table -1"),
        ({"vrfname": "blue", "table": 254}, "table 254"),
        ({"vrfname": "blue", "table": 2**32}, f"table {2**32}"),
    ],
    "bandwidth": [
        ({"ingressRate": -1, "ingressBurst": 8000}, "$.ingressRate"),
        ({"ingressRate": 8000}, "ingressBurst is 0"),
        ({"ingressBurst": 8000}, "ingressRate is 0"),
        ({"egressRate": 8000}, "egressBurst is 0"),
        ({"egressRate": 7, "egressBurst": 8000}, "egressRate"),
        ({"egressRate": 8000, "egressBurst": 1}, "egressBurst"),
        ({"ingressRate": 8000, "ingressBurst": 2**36}, "ingressBurst"),
        ({"ingressRate": 2**64, "ingressBurst": 8000}, "ingressRate"),
        ({"ingressRate": 2**63, "ingressBurst": 8000}, "ingressBurst"),
        (LIMIT | {"unshapedSubnets": ["10.0.0.1/33"]}, "$.unshapedSubnets[0]"),
        (LIMIT | {"shapedSubnets": [""]}, "$.shapedSubnets[0]"),
        (
            LIMIT | {"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": ["fd00::/8"]},
            "unshapedSubnets and shapedSubnets",
        ),
    ],
    "dns": [
        ({"domainName": "a b"}, "domainName"),
        ({"domainName": "dns.podman\nserver=192.0.2.1"}, "domainName"),
        ({"domainName": "localhost"}, "domainName"),
        ({"ttl": -1}, "ttl is -1"),
        ({"ttl": 86401}, "ttl is 86401"),
        ({"upstream": ["dns.example"]}, "upstream"),
        ({"upstream": ["9.9.9.9#0"]}, "upstream"),
        ({"upstream": ["9.9.9.9#53\nno-resolv"]}, "upstream"),
        ({"upstream": ["9.9.9.9"], "internal": True}, "upstream"),
        ({"args": {"cni": {"name": "web\n10.0.0.1 bank"}}}, "args.cni.name"),
        ({"args": {"cni": {"name": "--server=192.0.2.1"}}}, "args.cni.name"),
        ({"args": {"cni": {"name": "localhost"}}}, "args.cni.name"),
        ({"args": {"cni": {"aliases": ["web", "web bank"]}}}, "args.cni.aliases"),
        ({"args": {"cni": {"aliases": ["x" * 64]}}}, "args.cni.aliases"),
        ({"args": {"cni": {"aliases": [f"n{one}" for one in range(257)]}}}, "257 names"),
        ({"runtimeConfig": {"aliases": ["web#"]}}, "runtimeConfig.aliases"),
        ({"runtimeConfig": {"aliases": {"net1": ["-web"]}}}, "runtimeConfig.aliases"),
        ({"runtimeConfig": {"aliases": {"net1": "web"}}}, "$.runtimeConfig.aliases"),
        # A network that has no address on this host.
        ({}, "net1 has no address on this host"),
    ],
    "firewall": [
        ({"backend": "x"}, "backend"),
        ({"ingressPolicy": "x"}, "ingressPolicy"),
        ({"backend": "iptables", "iptablesAdminChainName": "a b"}, "iptablesAdminChainName"),
        ({"backend": "iptables", "iptablesAdminChainName": "-A"}, "iptablesAdminChainName"),
        ({"backend": "iptables", "iptablesAdminChainName": "DROP"}, "iptablesAdminChainName"),
        ({"backend": "iptables", "iptablesAdminChainName": "x" * 29}, "iptablesAdminChainName"),
    ],
    "portmap": [
        (mapped(hostPort=0), "host port number: 0"),
        (mapped(hostPort=65536), "host port number: 65536"),
        (mapped(containerPort=-1), "container port number: -1"),
        (mapped(protocol="icmp"), 'protocol "icmp"'),
        (mapped(protocol=""), 'protocol ""'),
        (mapped(hostIP="x"), 'hostIP "x"'),
        (mapped(hostIP="10.0.0.1/24"), 'hostIP "10.0.0.1/24"'),
        (mapped(hostIP="fd00::1"), 'hostIP "fd00::1"'),
        ({"runtimeConfig": {"portMappings": TWICE}}, ":80/tcp"),
        (mapped() | {"backend": "x"}, "backend"),
        (mapped() | {"markMasqBit": 32}, "markMasqBit"),
        (mapped() | {"markMasqBit": -1}, "markMasqBit"),
        (mapped() | {"markMasqBit": 3, "externalSetMarkChain": "X"}, "externalSetMarkChain"),
        (mapped() | {"conditionsV4": ["drop"]}, "conditionsV4"),
        (mapped() | {"conditionsV4": ["ip", "saddr"]}, "conditionsV4"),
        (mapped() | {"backend": "iptables", "externalSetMarkChain": "a b"}, "externalSetMarkChain"),
    ],
    "tap": [
        ({"owner": -1}, "$.owner"),
        ({"group": 2**32}, "$.group"),
        ({"mac": ZERO}, "key mac"),
        ({"mtu": 65522}, "mtu 65522"),
        ({"bridge": "a b"}, "bridge"),
    ],
    "bridge": [
        ({"bridge": ""}, "bridge"),
        ({"bridge": "a b"}, "bridge"),
        ({"bridge": "all"}, "bridge"),
        ({"bridge": "up0"}, "bridge"),
        ({"mtu": 67}, "mtu 67"),
        ({"vlan": 4095}, "key vlan"),
        ({"vlan": -1}, "key vlan"),
        ({"vlanTrunk": [{"minID": 5}]}, "vlanTrunk[0]"),
        ({"vlanTrunk": [{"id": 5}, {"minID": 9, "maxID": 5}]}, "vlanTrunk[1]"),
        ({"vlanTrunk": [{"id": 0}]}, "vlanTrunk[0]"),
        ({"hairpinMode": True, "promiscMode": True}, "hairpinMode and promiscMode"),
        ({"ipMasq": True, "ipMasqBackend": "x"}, "ipMasqBackend"),
        ({"disableContainerInterface": True}, "DisableContainerInterface"),
        ({"runtimeConfig": {"mac": "x"}}, "runtimeConfig.mac"),
        ({"args": {"cni": {"mac": "ff:ff:ff:ff:ff:ff"}}}, "args.cni.mac"),
    ],
    "ptp": [
        ({"mtu": 65536}, "mtu 65536"),
        ({"ipam": {}}, "ipam.type"),
        ({"ipam": {"type": "../bridge"}}, "../bridge"),
        ({"ipMasq": True, "ipMasqBackend": "x"}, "ipMasqBackend"),
    ],
    "macvlan": [
        ({"mode": "x"}, "mode"),
        ({"mtu": 1501}, "MTU 1501"),
        ({"mtu": 67}, "MTU 67"),
        ({"master": "a b"}, "master"),
        ({"mac": ZERO}, "key mac"),
        ({"bcqueuelen": -1}, "bcqueuelen"),
    ],
    "host-device": [
        ({}, '"device"'),
        ({"device": "a b"}, "device"),
        ({"hwaddr": "x"}, "hwaddr"),
        ({"kernelpath": "/etc"}, "kernelpath"),
        ({"runtimeConfig": {"deviceID": "../x"}}, "runtimeConfig.deviceID"),
    ],
    "static": [
        (fixed("10.1.2.9"), "$.ipam.addresses[0].address"),
        (fixed("10.1.2.9/33"), "$.ipam.addresses[0].address"),
        (fixed("10.1.2.9/24", gateway="x"), "$.ipam.addresses[0].gateway"),
        (fixed("10.1.2.9/24", gateway="fd00::1"), "ipam.addresses[0].gateway"),
        (fixed("10.1.2.9/24", "10.1.2.9/16"), "10.1.2.9 is given twice"),
        (fixed("224.0.0.1/24"), "224.0.0.1"),
        (fixed("::/64"), "address ::"),
        ({"runtimeConfig": {"ips": ["0.0.0.0/0"]}}, "address 0.0.0.0"),
    ],
}


@pytest.fixture(scope="module")
def idle() -> Iterator[tuple[Host, Container]]:
    """A host with a container that a main plugin seems to have connected."""
    host = Host.start()
    try:
        uplink(host, "macvlan")
        container = host.container("c1")
        container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
        container.run("ip", "link", "set", "eth0", "up")
        container.run("ip", "addr", "add", "10.1.2.9/24", "dev", "eth0")
        # This folder of portmap's stays.
        host.run("mkdir", "-p", "/run/cni-py/portmap/ports")
        yield host, container
    finally:
        host.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are run without a Python start for each."""
    if Host.mode == "standalone":
        monkeypatch.setattr(Host, "mode", "in-process")


@pytest.mark.parametrize("plugin", CASES)
def test_value_that_cannot_be_meant(idle: tuple[Host, Container], plugin: str) -> None:
    """Refused by ADD before anything happens."""
    host, container = idle
    base: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": plugin}
    ifname = "new0"
    if plugin in NEW:
        base |= NEW[plugin]
    else:
        ifname = "eth0"
        entry = {"name": "eth0", "mac": container.link()["address"], "sandbox": container.netns}
        address = {"interface": 0, "address": "10.1.2.9/24", "gateway": "10.1.2.1"}
        base["prevResult"] = {"cniVersion": "1.1.0", "interfaces": [entry], "ips": [address]}
    before, inside = dump(host), container.run("sh", "-c", INSIDE).stdout
    for keys, words in CASES[plugin]:
        error = refusal(host.call(plugin, "ADD", base | keys, container, ifname))
        said = f"{error['msg']} {error.get('details', '')}"
        assert error["code"] == 7, (keys, error)
        assert words in said, (keys, error)
    assert differences(before, dump(host)) == ""
    assert container.run("sh", "-c", INSIDE).stdout == inside
