"""firewall on hosts whose FORWARD drops what other software has not accepted."""

from __future__ import annotations

import pytest

from fixtures.firewalls import attach, blocked, greeted, listening, passes
from fixtures.host import Container, Host
from fixtures.server import CNI_PY

# What `iptables-save -t filter` prints on such hosts, cut to what FORWARD comes by.
DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
UFW = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-forward - [0:0]
:ufw-after-forward - [0:0]
:ufw-reject-forward - [0:0]
:ufw-user-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-reject-forward -j REJECT
COMMIT
"""
KUBE_PROXY = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "x" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "y" -j KUBE-EXTERNAL-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
SETS = {"docker": DOCKER, "ufw": UFW, "kube-proxy": KUBE_PROXY}
every_set = pytest.mark.parametrize("others", SETS)


def load(host: Host, others: str) -> None:
    """As the other software does: its own chains, and FORWARD as it wants it."""
    host.run("iptables-restore", stdin=SETS[others])


def published(host: Host) -> Container:
    """Publish a port of net1's first container; returns a machine outside that uses it."""
    host.run(
        "sh", "-c",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080"
        " -j DNAT --to-destination 10.1.1.2:80",
    )  # fmt: skip
    machine = host.container("outside")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "eth0", "netns", "outside")
    host.run("ip", "link", "set", "uplink", "up")
    host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "uplink")
    machine.run("ip", "link", "set", "eth0", "up")
    machine.run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
    machine.run("ip", "route", "add", "10.1.0.0/16", "via", "192.0.2.1")
    return machine


@every_set
@pytest.mark.parametrize("order", ["loaded before", "loaded after"])
def test_iptables_backend(host: Host, others: str, order: str) -> None:
    """Out, back in, and to published ports, and not to others: whoever was first."""
    if order == "loaded before":
        load(host, others)
    container, isolated = host.container("c1"), host.container("c2")
    attach(host, container, "iptables")
    attach(host, isolated, "iptables", "net2", ingressPolicy="isolated")
    if order == "loaded after":
        # Docker, ufw and kube-proxy put theirs beside what is there.
        lines = SETS[others].splitlines()
        without_policies = [line for line in lines if not line.startswith((":INPUT", ":OUTPUT"))]
        host.run("iptables-restore", "--noflush", stdin="\n".join([*without_policies, ""]))
    listening(container)
    machine = published(host)
    assert passes(container, "192.0.2.2")
    assert passes(isolated, "192.0.2.2")
    assert greeted(machine, "192.0.2.1", 8080)
    assert not greeted(machine, "10.1.1.2")
    # A container that may go anywhere reaches one that does not let others' bridges in.
    assert passes(container, "10.1.2.2")
    assert passes(isolated, "10.1.1.2")


@every_set
def test_isolation_beside_others(host: Host, others: str) -> None:
    """What the others accept does not get through our isolation."""
    load(host, others)
    first, second = host.container("c1"), host.container("c2")
    attach(host, first, "iptables", ingressPolicy="same-bridge")
    attach(host, second, "iptables", "net2", ingressPolicy="same-bridge")
    for other in ("FORWARD", "CNI-ADMIN"):
        host.run("iptables", "-A", other, "-j", "ACCEPT")
    assert blocked(first, "10.1.2.2")


@every_set
def test_nftables_backend(host: Host, others: str) -> None:
    """A verdict of ours accepts for our table alone: who drops by default must accept, too."""
    load(host, others)
    container = host.container("c1")
    attach(host, container, "nftables")
    machine = published(host)
    assert blocked(container, "192.0.2.2")
    host.run("iptables", "-I", "FORWARD", "-s", "10.1.0.0/16", "-j", "ACCEPT")
    host.run("iptables", "-I", "FORWARD", "-d", "10.1.0.0/16", "-m", "conntrack",
             "--ctstate", "RELATED,ESTABLISHED,DNAT", "-j", "ACCEPT")  # fmt: skip
    listening(container)
    assert passes(container, "192.0.2.2")
    assert greeted(machine, "192.0.2.1", 8080)


def test_doctor(host: Host) -> None:
    """It tells of containers that another FORWARD drops."""
    attach(host, host.container("c1"), "nftables")
    told = "drops by default, also IPv4 of containers whose firewall plugin has the backend"
    assert told not in host.run(CNI_PY, "doctor", check=False).stdout
    load(host, "docker")
    assert told in host.run(CNI_PY, "doctor", check=False).stdout


def test_jumps_stay_where_they_are(host: Host) -> None:
    """[W-FW6] An operator's rules stay before ours; isolation stays before what accepts."""
    first, second = host.container("c1"), host.container("c2")
    attach(host, first, "iptables")
    host.run("iptables", "-I", "FORWARD", "-d", "192.0.2.9", "-j", "DROP")
    attach(host, second, "iptables", "net2", ingressPolicy="isolated")
    jumps = [line for line in host.iptables("filter") if line.startswith("-A FORWARD")]
    assert [line.rsplit(" ", 1)[1] for line in jumps] == [
        "CNI-ISOLATION-STAGE-1",
        "DROP",
        "CNI-FORWARD",
    ]
    host.run("iptables", "-D", "FORWARD", "3")
    third = host.container("c3")
    attach(host, third, "iptables")
    jumps = [line for line in host.iptables("filter") if line.startswith("-A FORWARD")]
    assert [line.rsplit(" ", 1)[1] for line in jumps] == [
        "CNI-ISOLATION-STAGE-1",
        "CNI-FORWARD",
        "DROP",
    ]
