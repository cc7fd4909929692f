"""Known faults of container networking, tried on ours. docs/security.md has the whole table."""

from __future__ import annotations

import ast
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_py.spec.addresses import parse_ip
from fixtures.configs import host_local, l3
from fixtures.host import BIN, ROOT, Host, refusal
from fixtures.ports import ask, bridged, mapping, outside, publish, serving
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Container

backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])

# Sends router advertisements: a default router, and a prefix to make an address of.
ADVERTISE = """
import socket, struct, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
index = socket.if_nametoindex("eth0")
prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 1800, 1800, 0,
    socket.inet_pton(socket.AF_INET6, "2001:db8:bad::"))
packet = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
for _ in range(20):
    s.sendto(packet, ("ff02::1", 0, 0, index))
    time.sleep(0.05)
"""


def accepted(where: Host | Container) -> bool:
    """Whether an advertised address or router is there."""
    shown = where.run("ip", "-6", "addr").stdout + where.run("ip", "-6", "route").stdout
    return "2001:db8:bad" in shown or "proto ra" in shown


def link_local(container: Container) -> None:
    """Give eth0 an address to send from at once."""
    container.run("ip", "addr", "add", "fe80::bad/64", "dev", "eth0", "nodad")


@backends
def test_cve_2019_9946(host: Host, backend: str) -> None:
    """A published port does not take what a service of the cluster has, whoever came first."""
    machine = outside(host)
    service, pod = host.container("c1"), host.container("c2")
    result = host.add("bridge", bridged(), service)
    address = result["ips"][0]["address"].split("/")[0]
    rule = f"-p tcp -m addrtype --dst-type LOCAL --dport 8080 -j DNAT --to {address}:80"
    jump = "-A PREROUTING -j KUBE-SERVICES"
    for command in ("-N KUBE-SERVICES", f"-A KUBE-SERVICES {rule}", jump):
        host.run("iptables", "-t", "nat", *command.split())
    publish(host, pod, mapping(), mapping(8081), backend=backend)
    with serving(service, pod):
        assert ask(machine, "192.0.2.1")[0].split()[0] == "c1"
        assert ask(machine, "192.0.2.1", port=8081)[0].split()[0] == "c2"
    host.run("iptables", "-t", "nat", "-D", "PREROUTING", "-j", "KUBE-SERVICES")
    with serving(service, pod):
        assert ask(machine, "192.0.2.1")[0].split()[0] == "c2"


def test_cve_2020_10749(host: Host) -> None:
    """A container's router advertisements move neither the host's nor its neighbours' routes."""
    config = l3(isGateway=True, ipam=host_local([{"subnet": "fd00:1::/64"}]))
    rogue, victim = host.container("c1"), host.container("c2")
    for container in (rogue, victim):
        host.add("bridge", config, container)
    link_local(rogue)
    rogue.run("python3", "-IS", "-c", ADVERTISE)
    assert not accepted(host)
    assert not accepted(victim)
    # Who listens does hear them.
    victim.run("sh", "-c", "echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra")
    rogue.run("python3", "-IS", "-c", ADVERTISE)
    assert accepted(victim)


@pytest.mark.parametrize("kind", ["../run/evil/own", "/run/evil/own", "..", "a/../../run/evil/own"])
def test_cve_2021_20206(host: Host, kind: str) -> None:
    """A plugin's name is no path: what it leads to is not executed, by any verb."""
    host.run("mkdir", "-p", "/run/evil")
    script = "#!/bin/sh\ntouch /run/ran"
    host.run("sh", "-c", "cat > /run/evil/own; chmod +x /run/evil/own", stdin=script)
    container = host.container()
    for verb in ("ADD", "CHECK", "DEL", "STATUS", "GC"):
        config = l3(ipam={"type": kind}, prevResult={"cniVersion": "1.1.0", "ips": []})
        config["cni.dev/valid-attachments"] = []
        env = {"CNI_PATH": f"{BIN}:/run/evil"}
        assert refusal(host.call("bridge", verb, config, container, env=env))["code"] == 7
    assert host.run("test", "-e", "/run/ran", check=False).status == 1


@backends
def test_cve_2025_67499(host: Host, backend: str) -> None:
    """A published port is the host's alone: what passes through to others on that port passes."""
    machine = outside(host)
    pod, other = host.container("c1"), host.container("c2")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    publish(host, pod, mapping(80), network=bridged(ipMasq=True), backend=backend)
    host.add("bridge", bridged(ipMasq=True), other)
    with serving(pod, machine):
        assert ask(other, "192.0.2.2", port=80)[0].split()[0] == "outside"
        assert ask(pod, "192.0.2.2", port=80)[0].split()[0] == "outside"
        assert ask(host, "192.0.2.2", port=80)[0].split()[0] == "outside"
        assert ask(machine, "192.0.2.1", port=80)[0].split()[0] == "c1"


@backends
def test_cve_2020_8554(host: Host, backend: str) -> None:
    """A hostIP that is not the host's takes nobody's traffic (also GHSA-phqm-jgc3-qf8g)."""
    machine = outside(host)
    machine.run("ip", "addr", "add", "198.51.100.7/32", "dev", "eth0")
    host.run("ip", "route", "add", "198.51.100.7", "via", "192.0.2.2")
    pod, other = host.container("c1"), host.container("c2")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    network = bridged(ipMasq=True)
    publish(host, pod, mapping(80, hostIP="198.51.100.7"), network=network, backend=backend)
    host.add("bridge", network, other)
    with serving(pod, machine):
        for client in (host, other, pod):
            assert ask(client, "198.51.100.7", port=80)[0].split()[0] == "outside"


@backends
def test_cve_2020_8558(host: Host, backend: str) -> None:
    """A neighbour reaches neither what listens on the host's 127.0.0.1 nor what is published there.

    Also moby#45610.
    """
    machine, pod = outside(host), host.container("c1")
    publish(host, pod, mapping(8080, hostIP="127.0.0.1"), backend=backend)
    machine.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    machine.run("ip", "route", "add", "127.0.0.1", "via", "192.0.2.1", "src", "192.0.2.2")
    pod.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    for container in (machine, pod):
        container.run("ip", "addr", "flush", "dev", "lo")
    pod.run("ip", "route", "add", "127.0.0.1", "via", "10.1.2.1")
    with serving(pod, host):
        assert ask(host, "127.0.0.1")[0].split()[0] == "c1"
        for client in (machine, pod):
            for port in (80, 8080):
                answer = ask(client, "127.0.0.1", port=port, seconds=1)
                assert answer[0] in ("TimeoutError", "ConnectionRefusedError"), (client, port)


def test_cve_2021_30465(host: Host) -> None:
    """The container's namespace is what CNI_NETNS was when the call began, whatever is there later.

    The path is exchanged for the host's own while the IPAM plugin runs.
    """
    host.run("mkdir", "-p", "/run/slow")
    script = (
        '#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\n'
        "ln -sfn /proc/1/ns/net /run/path\n"
        'echo \'{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}\'\n'
    )
    host.run("sh", "-c", "cat > /run/slow/slow; chmod +x /run/slow/slow", stdin=script)
    host.path = f"/run/slow:{BIN}"
    container, other = host.container("c1"), host.container("c2")
    host.run("ln", "-s", container.netns, "/run/path")
    config = l3(ipam={"type": "slow"})
    host.run("sed", "-i", f"s,/proc/1/ns/net,{other.netns},", "/run/slow/slow")
    host.add("bridge", config, container, env={"CNI_NETNS": "/run/path"})
    host.attachments.clear()
    assert container.addresses() == ["10.1.2.99/24"]
    assert [one["ifname"] for one in other.ip("link")] == ["lo"]
    host.delete("bridge", config, container)


@pytest.mark.parametrize("umask", ["0", "022", "077"])
def test_cve_2024_33522(host: Host, umask: str) -> None:
    """What is installed is nobody's to change, and has no set-user-id bit."""
    host.run("sh", "-c", f"umask {umask}; exec {CNI_PY} install /opt/cni/bin/new")
    listed = host.run("find", "/opt/cni/bin/new", "-printf", "%m %U %p\n").stdout.splitlines()
    assert len(listed) > 20
    for line in listed:
        mode, user, name = line.split(" ")
        assert (int(mode, 8) & ~0o755, user) == (0, "0"), name
        if name.startswith("/opt/cni/bin/new/") and not name.endswith("record.json"):
            assert stat.S_IMODE(int(mode, 8)) == 0o755, name


def test_cve_2024_24790() -> None:
    """An IPv4 address in IPv6's clothes is the IPv4 address, wherever one is read."""
    assert str(parse_ip("::ffff:127.0.0.1")) == "127.0.0.1"
    assert parse_ip("::ffff:127.0.0.1").is_loopback


def test_cve_2026_32241() -> None:
    """No text reaches a shell: none is started."""
    found = []
    for path in (*(ROOT / "cni_py").rglob("*.py"), *(ROOT / "plugins").glob("[a-z-]*[!c]")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            shell = any(one.arg == "shell" for one in node.keywords)
            if shell or name in ("os.system", "os.popen", "eval", "exec", "pickle.loads"):
                found.append(f"{path.name}:{node.lineno}: {name}")
    assert found == []


def test_cve_2026_41184(host: Host) -> None:
    """Keys that are not ours, where secrets may stand, appear in no error and no log."""
    server = host.serve()
    container = host.container()
    config = l3(token="s3cret", args={"org.example": {"password": "s3cret"}}, mtu=-1)
    env = {"CNI_ARGS": "IgnoreUnknown=1;T=s3cret"}
    outcome = host.call("bridge", "ADD", config, container, env=env)
    refusal(outcome)
    good = config | {"mtu": 1400}
    host.add("bridge", good, container)
    host.delete("bridge", good, container)
    server.wait_for(lambda line: line.get("verb") == "DEL")
    said = outcome.stdout + outcome.stderr + json.dumps(server.lines) + "".join(server.noise)
    assert "s3cret" not in said


def test_no_code_is_found_in_the_callers_place(host: Host) -> None:
    """Neither the working folder nor PYTHON* of the caller leads to code; TMPDIR to no file."""
    evil = "/run/evil"
    names = "sitecustomize usercustomize json os msgspec cni_py nftables ctypes encodings"
    code = 'echo \'open("/run/ran", "w")\''
    script = f"mkdir -p {evil}; for name in {names}; do {code} > {evil}/$name.py; done"
    host.run("sh", "-c", script)
    before = host.run("ls", "-R", evil).stdout
    env = {
        "PYTHONPATH": evil,
        "PYTHONHOME": evil,
        "PYTHONSTARTUP": f"{evil}/json.py",
        "PYTHONPLATLIBDIR": evil,
        "PYTHONINSPECT": "1",
        "PYTHONUSERBASE": evil,
        "HOME": evil,
        "TMPDIR": evil,
        "CNI_PY_SOCKET": "",
    }
    container = host.container()
    for executable in sorted(Path(BIN).glob("[a-z]*")):
        if executable.name == "cni-py":
            continue
        environ = env | container.environ("VERSION")
        command = ("sh", "-c", f"cd {evil}; exec {executable}")
        assert host.run(*command, env=environ).json["cniVersion"] == "1.1.0"
    environ = env | container.environ("ADD")
    host.run("sh", "-c", f"cd {evil}; exec {BIN}/bridge", env=environ, stdin=json.dumps(l3()))
    host.delete("bridge", l3(), container)
    assert host.run("test", "-e", "/run/ran", check=False).status == 1
    assert host.run("ls", "-R", evil).stdout == before
