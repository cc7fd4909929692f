"""What `cni-py show --json` finds on a host: the inventory, beside what the kernel says."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from fixtures.chains import RATES, attach, bridged, configure, full, keep, uplink
from fixtures.configs import host_local
from fixtures.dump import differences, dump
from fixtures.host import BIN, Host
from fixtures.leases import blocks, lease
from fixtures.named import join, named
from fixtures.reference import reference
from fixtures.settled import vanished

PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}


def shown(host: Host, *arguments: str) -> dict[str, Any]:
    """The inventory, which reading has not changed."""
    before = dump(host)
    done = host.run(str(BIN / "cni-py"), "show", "--json", *arguments, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.status, done.stderr) == (1 if found["problems"] else 0, "")
    assert differences(before, dump(host)) == ""
    return found


def only(found: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """The one that has these values."""
    matching = [one for one in found if keys.items() <= one.items()]
    assert len(matching) == 1, (keys, found)
    return matching[0]


def test_host_without_anything(host):
    found = shown(host)
    assert [key for key, value in found.items() if value] == []


def test_names(host):
    network = named()
    configure(host, network)
    join(host, network, host.container("c1"), "web", "api.shop")
    join(host, network, host.container("c2"), "db")
    found = shown(host)
    one = only(found["attachments"], container_id="id-c1")
    assert one["names"] == ["web", "api.shop"]
    assert "dns's names" in one["evidence"]
    assert f"/run/cni-py/dns/net1/hosts/{one['key']}" in one["files"]
    table = host.run(str(BIN / "cni-py"), "show", "--section", "dns").stdout
    assert [("web" in line, "db" in line) for line in table.splitlines() if "id-c" in line] == [
        (True, False), (False, True)
    ]  # fmt: skip
    told = host.run(str(BIN / "cni-py"), "show", "id-c1").stdout
    assert "web, api.shop" in told
    path = f"/run/cni-py/dns/net1/hosts/{one['key']}"
    host.run("tee", path, stdin="# nonsense\n10.1.2.2 web\n")
    assert [it["subject"] for it in shown(host)["problems"]] == [path]


def test_attachment_with_everything(host):
    uplink(host)
    network = full()
    configure(host, network)
    container = host.container("web", container_id="f00d")
    attach(host, network, container, cached=True, portMappings=[PORT], bandwidth=RATES)
    found = shown(host)
    (one,) = found["attachments"]
    port = host.ports("cni2")[0]
    assert (one["network"], one["container_id"], one["ifname"]) == ("full", "f00d", "eth0")
    assert (one["maker"], one["state"], one["why"]) == ("cni-py", "up", "")
    assert one["host"]["name"] == port["ifname"]
    assert (one["host"]["master"], one["host"]["hairpin"]) == ("cni2", True)
    assert one["inside"]["mac"] == container.link()["address"]
    assert one["addresses"] == container.addresses() == one["expected"]
    assert one["namespace"]["path"] == container.netns
    assert {"destination": "0.0.0.0/0", "gateway": "10.87.0.1"}.items() <= one["routes"][0].items()
    assert [(rate["direction"], rate["bits"]) for rate in one["rates"]] == [
        ("to", 8_000_000),
        ("from", 4_000_000),
    ]
    assert one["plugins"] == ["bridge", "portmap", "firewall", "bandwidth", "tuning"]
    assert one["gateways"] == ["10.87.0.1", "fd87::1"]
    host.run("ls", *one["files"])
    bridge = only(found["bridges"], networks=["full"])
    assert bridge["ports"] == [port["ifname"]]
    assert bridge["interface"]["addresses"] == ["10.87.0.1/16", "fd87::1/64"]
    assert only(found["links"], role="uplink")["interface"]["name"] == "up0"
    assert only(found["links"], role="block")["key"] == one["key"]
    published = only(found["ports"], version=4)
    assert (published["host_port"], published["address"]) == (8080, "10.87.0.2")
    assert (published["active"], published["known"], published["key"]) == (True, True, one["key"])
    assert {it["address"] for it in found["masquerades"]} == {"10.87.0.2", "fd87::2"}
    assert {it["policy"] for it in found["allowed"]} == {"same-bridge"}
    assert found["problems"] == []


def test_pool_counts_what_is_given(host):
    network = bridged("small", ipam=host_local([{"subnet": "10.9.9.0/29"}]))
    configure(host, network)
    for name in ("a", "b"):
        attach(host, network, host.container(name))
    (pool,) = shown(host)["pools"]
    # .1 is the gateway, .7 the broadcast address.
    assert [(one["size"], one["given"]) for one in pool["ranges"]] == [(5, 2)]
    assert [(one["address"], one["container_id"], one["state"]) for one in pool["given"]] == [
        ("10.9.9.2", "id-a", "up"),
        ("10.9.9.3", "id-b", "up"),
    ]
    assert pool["last_reserved"] == {"0": "10.9.9.3"}


def test_networks_across_hosts(host):
    """Their ranges are this node's: of its lease, and of its blocks of a pool."""
    delegate = {"bridge": "cni2", "isDefaultGateway": True}
    mesh = {"type": "overlay", "delegate": delegate, "ipam": {"dataDir": "/run/mesh"}}
    segment = bridged("seg", ipam={"type": "cluster", "pools": ["lan"]}, isDefaultGateway=False)
    networks = [{"cniVersion": "1.0.0", "name": "mesh", "plugins": [mesh]}, segment]
    configure(host, *networks)
    # Before the node has anything there are networks all the same.
    assert only(shown(host)["networks"], name="mesh")["bridge"] == "cni2"
    lease(host)
    blocks(host, "10.1.8.0/28", "10.1.9.0/28")
    for one in networks:
        attach(host, one, host.container(f"c-{one['name']}", container_id=one["name"]))
    found = shown(host)
    assert found["problems"] == []
    assert only(found["networks"], name="mesh")["ipam"] == "host-local"
    assert only(found["networks"], name="seg")["ipam"] == "cluster"
    (run,) = only(found["pools"], network="mesh", folder="/run/mesh/mesh")["ranges"]
    assert (run["subnet"], run["given"], run["size"]) == ("10.1.2.0/24", 1, 253)
    runs = only(found["pools"], network="seg")["ranges"]
    assert [(one["subnet"], one["first"], one["given"], one["size"]) for one in runs] == [
        ("10.1.0.0/16", "10.1.8.0", 1, 16), ("10.1.0.0/16", "10.1.9.0", 0, 16),
    ]  # fmt: skip
    one = only(found["attachments"], container_id="mesh")
    assert one["maker"] == "cni-py"
    assert any(path.startswith("/run/cni-py/overlay/") for path in one["files"])
    listed = json.loads(host.run(str(BIN / "cni-py"), "ipam", "list", "--json").stdout)
    assert [(one["first"], one["free"]) for one in listed] == [("10.1.8.0", 15), ("10.1.9.0", 16)]


def test_container_whose_namespace_is_gone(host):
    network = bridged("net1", bridge="cni0")
    container = host.container()
    attach(host, network, container)
    vanished(host, container, 0)
    (one,) = shown(host)["attachments"]
    assert (one["state"], one["inside"], one["host"]) == ("gone", None, None)
    assert one["why"] == "its namespace /run/netns/c1 is gone"
    assert one["addresses"] == ["10.1.2.2"]


def test_path_with_another_namespace_by_now(host):
    network = bridged("net1", bridge="cni0")
    container = host.container()
    attach(host, network, container)
    vanished(host, container, 0)
    host.run("ip", "netns", "add", "c1")
    (one,) = shown(host)["attachments"]
    assert (one["state"], one["why"]) == ("gone", "/run/netns/c1 is another namespace by now")


def test_interface_that_is_down(host):
    container = host.container()
    attach(host, bridged("net1"), container)
    container.run("ip", "link", "set", "eth0", "down")
    (one,) = shown(host)["attachments"]
    assert (one["state"], one["why"]) == ("down", "eth0 is down")


def test_namespace_without_a_path_is_found_by_its_process(host):
    """A runtime may have unmounted the path; a process is in the namespace still."""
    container = host.container()
    attach(host, bridged("net1"), container)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    waiting = container.command("sh", "-c", "echo inside; exec cat")
    with subprocess.Popen(waiting, **pipes) as process:
        assert process.stdout.readline() == b"inside\n"
        host.run("umount", container.netns)
        (one,) = shown(host)["attachments"]
        assert (one["state"], one["namespace"]["pids"]) == ("up", [process.pid])
        assert one["namespace"]["path"] == f"/proc/{process.pid}/ns/net"
        assert one["addresses"] == ["10.1.2.2/24"]
        process.communicate(b"")


def test_children_of_a_parent(host):
    uplink(host)
    network = {
        "cniVersion": "1.0.0",
        "name": "lan",
        "plugins": [{"type": "macvlan", "master": "up0", "ipam": host_local()}],
    }
    attach(host, network, host.container())
    found = shown(host)
    (one,) = found["attachments"]
    assert (one["state"], one["host"]) == ("up", None)
    assert (one["inside"]["kind"], one["inside"]["parent"]) == ("macvlan", "up0")


def test_what_the_reference_attached_from_kernel_and_allocation(host):
    theirs = reference(host, "bridge")
    network = bridged("theirs", ipMasq=True)
    container = theirs.container()
    attach(theirs, network, container)
    (one,) = shown(host)["attachments"]
    assert (one["maker"], one["state"], one["container_id"]) == ("reference", "up", container.id)
    assert one["host"]["name"] == host.ports("br-theirs")[0]["ifname"]
    theirs.delete_all()


def test_what_the_reference_attached_from_the_cache(host):
    """Without host-local, only libcni knows whose an interface is."""
    theirs = reference(host, "bridge")
    network = bridged("theirs", ipam={}, isDefaultGateway=False)
    container = theirs.container()
    result = attach(theirs, network, container, cached=True)
    (one,) = shown(host)["attachments"]
    assert (one["maker"], one["state"], one["evidence"]) == ("reference", "up", ["libcni's cache"])
    assert one["host"]["name"] == result["interfaces"][1]["name"]
    theirs.delete_all()


def test_ports_of_the_reference_in_both_backends(host):
    theirs = reference(host, "portmap")
    for number, backend in enumerate(("iptables", "nftables")):
        network = bridged(f"net{number}", ipam=host_local([{"subnet": f"10.1.{number}.0/24"}]))
        network["plugins"].append(
            {"type": "portmap", "backend": backend, "capabilities": {"portMappings": True}}
        )
        mapping = {"hostPort": 9000 + number, "containerPort": 80, "protocol": "udp"}
        attach(theirs, network, theirs.container(f"c{number}"), portMappings=[mapping])
    found = shown(host)["ports"]
    for number, backend in enumerate(("iptables", "nftables")):
        one = only(found, host_port=9000 + number)
        assert (one["backend"], one["maker"], one["known"]) == (backend, "reference", False)
        assert (one["protocol"], one["address"]) == ("udp", f"10.1.{number}.2")
        assert (one["container_id"], one["network"]) == (f"id-c{number}", f"net{number}")
    theirs.delete_all()
    # It leaves the chains that all share.
    for table in ("iptables", "ip6tables"):
        host.run("sh", "-c", f"{table} -t nat -F && {table} -t nat -X")


def test_rules_that_somebody_flushed(host):
    network = full()
    container = host.container()
    attach(host, network, container, portMappings=[PORT])
    host.run("nft", "flush", "ruleset")
    found = shown(host)
    assert {one["active"] for one in found["ports"]} == {False}
    assert {one["active"] for one in found["masquerades"]} == {False}
    assert {one["subject"] for one in found["problems"]} == {container.id}
    assert "cni-py firewall restore" in found["problems"][0]["text"]
    host.run(str(BIN / "cni-py"), "firewall", "restore")


def test_damage_is_told_and_passed_over(host):
    network = full()
    attach(host, network, host.container(), portMappings=[PORT])
    odd = {"kind": "cniCacheV1", "containerId": "a", "ifName": "b", "networkName": "c"}
    odd |= {"config": "e30=", "result": {"ips": 7}}
    damaged = {
        "/var/lib/cni/results/random": b"\xff\x00" * 5000,
        "/var/lib/cni/results/c-a-b": json.dumps(
            odd | {"config": "e30=", "result": {"ips": 7}}
        ).encode(),
        "/etc/cni/net.d/broken.conf": b"[",
    }
    host.run("mkdir", "-p", "/var/lib/cni/results/folder")
    for path, content in damaged.items():
        host.run("sh", "-c", f"cat > {path}", stdin=content)
    host.run("ln", "-s", "/etc/shadow", "/var/lib/cni/networks/full/10.87.0.9")
    host.run("sh", "-c", "cd /run/cni-py/portmap && truncate -s 20 *.json")
    found = shown(host)
    subjects = " ".join(f"{one['subject']} {one['text']}" for one in found["problems"])
    for path in ("portmap/", "results/folder", "10.87.0.9", *damaged):
        assert path in subjects, (path, subjects)
    assert only(found["attachments"], network="full")["state"] == "up"
    # The kernel has the port's rule still.
    assert only(found["ports"], version=4)["known"] is False
    host.run("rm", "-r", "/var/lib/cni/results", "/var/lib/cni/networks/full/10.87.0.9")


def test_cache_of_an_attachment_that_is_gone(host):
    network = bridged("net1")
    container = host.container()
    path = keep(host, network, container, "eth0", {"cniVersion": "1.0.0"})
    (one,) = shown(host)["attachments"]
    assert (one["state"], one["files"]) == ("missing", [path])
    container.delete_netns()
    (one,) = shown(host)["attachments"]
    assert one["state"] == "gone"


def test_names_that_are_no_text(host):
    """The kernel takes any bytes for a link's name."""
    attach(host, bridged("net1", bridge="cni0"), host.container())
    name = r"$(printf '\377x')"
    host.run(
        "sh", "-c", f"ip link add {name} type veth peer name y; ip link set {name} master cni0"
    )
    found = shown(host)
    assert r"\udcffx" in only(found["bridges"], networks=["net1"])["ports"]
    assert host.run(str(BIN / "cni-py"), "graph", "--format", "html").status == 0


def test_configurations_elsewhere(host):
    """`--net-dir` names the folder, as for every command."""
    host.run("mkdir", "-p", "/run/nets")
    config = {"cniVersion": "1.1.0", "name": "there", "plugins": [{"type": "loopback"}]}
    host.run("tee", "/run/nets/10.conflist", stdin=json.dumps(config))
    assert shown(host)["networks"] == []
    (network,) = shown(host, "--net-dir", "/run/nets")["networks"]
    assert (network["name"], network["file"]) == ("there", "/run/nets/10.conflist")
