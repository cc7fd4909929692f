"""`make demo-cluster`: three hosts on a simulated underlay, a real etcd, six containers.

Each host is a network and mount namespace, two of them on one link and one behind a router. Nothing
of the machine's own network changes, and nothing is left.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.agents import COMMAND, Cluster
from fixtures.host import BIN
from fixtures.underlay import Underlay

if TYPE_CHECKING:
    from fixtures.host import Container, Host

_NETWORK = "10.244.0.0/16"


def main() -> None:
    began = time.monotonic()
    with closing(Underlay.start((1, 1, 2))) as underlay:
        print("three hosts: 192.168.1.1 and 192.168.1.2 on one link, 192.168.2.3 behind a router")
        with closing(Cluster.start(underlay, EnableIPv6=False)) as cluster:
            print(f"an etcd at {cluster.etcd.endpoints}; the network is {_NETWORK}, by vxlan")
            cluster.join(fixed=False)
            cluster.settle()
            for number, agent in cluster.agents.items():
                told = agent.file()
                assert told is not None
                print(f"host {number} has leased {told.ipv4_subnet}, MTU {told.mtu}")
            containers = attached(cluster)
            asked(containers)
            print("\nhost 2 in its agent's words:\n")
            print(cluster.agents[2].host.run(COMMAND, "agent", "status").stdout.rstrip())
            taken_down(cluster)
    print(f"\n{time.monotonic() - began:.1f} s; nothing is left")


def attached(cluster: Cluster) -> list[tuple[Container, str]]:
    """Two containers on each host, with their addresses."""
    found = []
    print()
    for number, agent in cluster.agents.items():
        plugin, config = delegated(cluster, number)
        for name in (f"h{number}a", f"h{number}b"):
            container = agent.host.container(name)
            result = agent.host.add(plugin, config, container)
            address = result["ips"][0]["address"].partition("/")[0]
            print(f"host {number}: container {name} has {address}, by the plugin {plugin}")
            found.append((container, address))
    return found


def delegated(cluster: Cluster, number: int) -> tuple[str, dict[str, Any]]:
    """The plugin and its configuration: overlay, which reads the lease, where there is one."""
    common = {"cniVersion": "1.1.0", "name": "cluster"}
    if (BIN / "overlay").exists():
        return "overlay", {**common, "type": "overlay", "delegate": {"isDefaultGateway": True}}
    told = cluster.agents[number].file()
    assert told is not None
    ranges = [[{"subnet": told.ipv4_subnet}]]
    ipam = {"type": "host-local", "ranges": ranges}
    more = {"isDefaultGateway": True, "mtu": told.mtu, "ipam": ipam}
    return "bridge", {**common, "type": "bridge", **more}


def asked(containers: list[tuple[Container, str]]) -> None:
    """Each asks each other one, once with a packet as large as the MTU allows."""
    print("\nfrom \\ to  " + " ".join(f"{name_of(one):>6}" for one, _ in containers))
    missing = 0
    for source, _ in containers:
        row = []
        for target, address in containers:
            if target is source:
                row.append("-")
                continue
            ping = ("busybox", "ping", "-c", "1", "-W", "2", "-s", "1422", address)
            done = source.run(*ping, check=False)
            milliseconds = done.stdout.partition("time=")[2].partition(" ")[0]
            row.append(milliseconds[:5] if done.status == 0 else "none")
            missing += done.status != 0
        print(f"{name_of(source):<10} " + " ".join(f"{one:>6}" for one in row))
    assert not missing, f"{missing} pairs do not reach each other"
    print("all reach one another; echoes of 1450 bytes, in milliseconds")


def name_of(container: Container) -> str:
    return Path(container.netns).name


def taken_down(cluster: Cluster) -> None:
    for agent in cluster.agents.values():
        agent.host.delete_all()
        agent.release()
        left = _left(agent.host)
        assert not left, left
    keys = cluster.etcd.keys()
    assert keys == ["config"], keys


def _left(host: Host) -> list[str]:
    """What of agent and plugins is left, but the bridge, which stays for the next container."""
    routes = host.run("ip", "route").stdout.splitlines()
    own = [one for one in routes if "10.244." in one and "dev cni0" not in one]
    return own + (["flannel.1"] if host.link("flannel.1") else [])


if __name__ == "__main__":
    main()
