"""What is struck: each plugin in a chain in which it has everything to do, and the host for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fixtures.background import running
from fixtures.configs import V4, V6, host_local
from fixtures.dhcp import dnsmasq, make_lan, start_daemon
from fixtures.leases import ENVIRONMENT, agent_running, blocks, lease, text
from fixtures.leases import V6 as LEASE_V6
from fixtures.parents import uplink

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from fixtures.host import Container, Host

Config = dict[str, Any]

_NETWORK = {"cniVersion": "1.1.0", "name": "net1"}
# Where also a server in a container sees it.
_SUBNET_FILE = "/run/cni-py/cluster/subnet.env"
_NIC_MAC = "02:00:00:00:0a:01"


@dataclass(frozen=True)
class Scenario:
    """A chain of plugins; what the host and each container need before.

    `target` is the place of the plugin that is struck. `outlives`: what it is about survives the
    container's namespace, so that this may vanish before the host is cleaned up. `tells`: a GC
    without a list can know that what is left is nobody's (docs/decisions/0007). `stock`: the kernel
    must be Debian's, for the kinds that others lack. `theirs`: the reference can be put through it.
    What `prepare` starts ends with the stack.
    """

    name: str
    chain: tuple[Config, ...]
    target: int
    prepare: Callable[[Host, ExitStack], None] = lambda _, __: None
    furnish: Callable[[Container], None] = lambda _: None
    outlives: bool = True
    tells: bool = True
    stock: bool = False
    theirs: bool = True

    @property
    def configs(self) -> list[Config]:
        return [_NETWORK | one for one in self.chain]

    @property
    def plugin(self) -> str:
        plugin: str = self.chain[self.target]["type"]
        return plugin


def _bridge(**keys: Any) -> Config:
    ipam = host_local(V4, V6)
    return {"type": "bridge", "bridge": "cni0", "enabledad": False, "ipam": ipam, **keys}


def _uplink(host: Host, _: ExitStack) -> None:
    uplink(host, "macvlan")


def _dhcp(host: Host, stack: ExitStack) -> None:
    stack.enter_context(dnsmasq(host, make_lan(host)))
    stack.enter_context(running(start_daemon(host)))


def _lease(host: Host, stack: ExitStack) -> None:
    """A lease, and the lock that says that an agent runs."""
    lease(host, **LEASE_V6)
    stack.enter_context(agent_running(host))


def _kept(host: Host, stack: ExitStack) -> None:
    stack.enter_context(agent_running(host))


def _subnet_env(host: Host, _: ExitStack) -> None:
    text(host, _SUBNET_FILE, ENVIRONMENT)


def _blocks(host: Host, _: ExitStack) -> None:
    blocks(host)


def _nic(container: Container) -> None:
    """A device of the host, which the container gets."""
    host = container.host
    host.run("ip", "link", "add", "nic0", "type", "veth", "peer", "name", "far0")
    host.run("ip", "link", "set", "nic0", "address", _NIC_MAC, "mtu", "1400", "up")


_FULL = _bridge(isDefaultGateway=True, ipMasq=True, macspoofchk=True)
_PLAIN = _bridge(isGateway=True)
_MAPPINGS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
]
_PORTS = {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": _MAPPINGS}}
_FIREWALL = {"type": "firewall", "ingressPolicy": "isolated"}
_RATES = {"ingressRate": 10**7, "ingressBurst": 10**6, "egressRate": 10**7, "egressBurst": 10**6}
_BANDWIDTH = {"type": "bandwidth", **_RATES}
_TUNING = {
    "type": "tuning",
    "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
    "mac": "02:00:00:00:00:77",
    "mtu": 1300,
    "promisc": True,
    "allmulti": True,
}
_MACVLAN = {"type": "macvlan", "master": "up0", "ipam": host_local()}
_HOST_DEVICE = {"type": "host-device", "device": "nic0", "ipam": host_local()}
_DHCP = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "dhcp"}}
_PTP = {"type": "ptp", "ipMasq": True, "ipam": host_local(V4, V6, routes=[{"dst": "0.0.0.0/0"}])}
_SERVICES = {"type": "services", "services": [{"name": "web", "port": 8080, "check": {}}]}
_OVERLAY = {"type": "overlay", "delegate": {"bridge": "cni2", "isDefaultGateway": True}}
_FLANNEL = {"type": "flannel", "subnetFile": _SUBNET_FILE}
_CLUSTER = {"type": "bridge", "bridge": "cni0", "ipam": {"type": "cluster", "pools": ["lan"]}}
# The chain of conf/12-full.conflist: what a strike at one of its plugins leaves to the others.
_CHAIN = (_FULL, _PORTS, _FIREWALL | {"backend": "nftables"}, _BANDWIDTH, _TUNING)

SCENARIOS = (
    Scenario("bridge", (_FULL,), 0),
    Scenario("bridge, iptables", (_FULL | {"ipMasqBackend": "iptables"},), 0, tells=False),
    Scenario("ptp", (_PTP,), 0),
    Scenario("macvlan", (_MACVLAN,), 0, prepare=_uplink),
    Scenario("tap", ({"type": "tap", "ipam": host_local()},), 0),
    Scenario("host-device", (_HOST_DEVICE,), 0, furnish=_nic, outlives=False),
    Scenario("portmap, iptables", (_PLAIN, _PORTS | {"backend": "iptables"}), 1),
    Scenario("firewall, iptables", (_PLAIN, _FIREWALL | {"backend": "iptables"}), 1),
    # The daemon forgets by itself what has lost its interface, a while later.
    Scenario("dhcp", (_DHCP,), 0, prepare=_dhcp, tells=False, theirs=False),
    Scenario("overlay", (_OVERLAY,), 0, prepare=_lease, theirs=False),
    Scenario("flannel", (_FLANNEL,), 0, prepare=_subnet_env, theirs=False),
    Scenario("cluster", (_CLUSTER,), 0, prepare=_blocks, theirs=False),
    Scenario("sbr", (_FULL, {"type": "sbr"}), 1),
    Scenario("services", (_PLAIN, _SERVICES), 1, prepare=_kept, theirs=False),
    Scenario("dns", (_PLAIN, {"type": "dns", "args": {"cni": {"name": "web"}}}), 1, theirs=False),
    *(
        Scenario(f"chain: {one['type']}", _CHAIN, place)
        for place, one in enumerate(_CHAIN)
        if place
    ),
    Scenario("vlan", (_MACVLAN | {"type": "vlan", "vlanId": 100},), 0, prepare=_uplink, stock=True),
    Scenario("ipvlan", (_MACVLAN | {"type": "ipvlan"},), 0, prepare=_uplink, stock=True),
    Scenario("dummy", ({"type": "dummy", "ipam": host_local()},), 0, stock=True),
    Scenario("vrf", (_FULL, {"type": "vrf", "vrfname": "blue"}), 1, stock=True),
)
