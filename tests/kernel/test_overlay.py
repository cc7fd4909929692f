"""overlay: what a node's lease becomes, and what happens when it changes or is gone."""

from __future__ import annotations

import json
from contextlib import contextmanager
from ipaddress import ip_address
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import leases
from fixtures.capture import capture
from fixtures.host import Container, Host, refusal
from fixtures.leases import AGENT, ENVIRONMENT, FLANNEL, lease, overlay

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT = {"delegate": {"isDefaultGateway": True}}


def passes(host: Host, plugin: str, config: Any, container: Container, result: Any) -> None:
    """CHECK finds nothing."""
    outcome = host.call(plugin, "CHECK", config | {"prevResult": result}, container)
    assert outcome.status == 0, outcome


def routes(host: Any, *arguments: str) -> dict[str, Any]:
    return {one["dst"]: one for one in host.ip(*arguments, "route")}


def test_the_lease_becomes_a_bridge(host: Host) -> None:
    """Address, MTU, gateway, the route to the cluster's network; containers reach one another."""
    lease(host, **leases.V6)
    first, second = host.container("c1"), host.container("c2")
    config = overlay(**DEFAULT)
    result = host.add("overlay", config, first)
    host.add("overlay", config, second)
    assert [one["address"] for one in result["ips"]] == ["10.1.2.2/24", "fd00:1::2/64"]
    assert first.link()["mtu"] == 1450
    assert set(routes(first)) == {"default", "10.1.0.0/16", "10.1.2.0/24"}
    assert routes(first)["10.1.0.0/16"]["gateway"] == "10.1.2.1"
    assert "fd00:1::/56" in routes(first, "-6")
    for address in ("10.1.2.3", "fd00:1::3", "10.1.2.1"):
        assert first.reaches(address), address
    passes(host, "overlay", config, first, result)
    assert host.call("overlay", "STATUS", config, None).json["code"] == 51  # No agent runs.


def test_ptp_by_flannels_file(host: Host) -> None:
    """flannel's type, file and keys; flanneld masquerades itself, so nothing does here."""
    leases.text(host, FLANNEL, ENVIRONMENT.replace("IPMASQ=false", "IPMASQ=true"))
    config = overlay("flannel", delegate={"type": "ptp"}, ipam={"routes": [{"dst": "0.0.0.0/0"}]})
    container = host.container()
    result = host.add("flannel", config, container)
    assert {"10.1.0.0/16", "default"} <= set(routes(container))
    assert container.link()["mtu"] == 1450
    assert "masquerade" not in host.nft()
    passes(host, "flannel", config, container, result)
    assert host.call("flannel", "STATUS", config, None).status == 0


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_only_what_leaves_the_cluster_is_masqueraded(host: Host, kind: str, backend: str) -> None:
    """Packets to another node keep the container's address, those to elsewhere do not."""
    lease(host)
    container = host.container()
    for name, address in (("peer", "10.9.0.1/24"), ("away", "192.0.2.1/24")):
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}0")
        host.run("ip", "address", "add", address, "dev", name)
        for one in (name, f"{name}0"):
            host.run("ip", "link", "set", one, "up")
        neighbour = address.replace(".1/24", ".2")
        mac = "02:00:00:00:00:09"
        host.run("ip", "neigh", "add", neighbour, "lladdr", mac, "dev", name)
    host.run("ip", "route", "add", "10.1.7.0/24", "via", "10.9.0.2")
    config = overlay(
        delegate={"type": kind, "ipMasqBackend": backend},
        ipam={"routes": [{"dst": "0.0.0.0/0"}]},
    )
    host.add("overlay", config, container)
    for port, target, source in (
        ("peer0", "10.1.7.5", "10.1.2.2"),
        ("away0", "192.0.2.2", "192.0.2.1"),
    ):
        ends = ip_address(source).packed + ip_address(target).packed
        with capture(host, port) as seen:
            container.run("busybox", "ping", "-c", "1", "-W", "1", target, check=False)
            seen.wait_for(lambda frame: frame[26:34] == ends)  # noqa: B023 - called at once


def test_del_needs_no_lease(host: Host) -> None:
    """The lease's file is gone, and another configuration has come: DEL undoes what ADD did."""
    lease(host)
    first, second = host.container("c1"), host.container("c2")
    config = overlay(**DEFAULT)
    host.add("overlay", config, first)
    host.add("overlay", config, second)
    host.run("rm", AGENT)
    host.delete("overlay", config, first)
    assert len(host.ports()) == 1
    assert list(host.allocated("net1")) == ["10.1.2.3"]
    # The record knows that it was a bridge.
    host.delete("overlay", overlay(delegate={"type": "ptp"}), second)
    assert host.ports() == []
    assert host.files("/run/cni-py/overlay") == {}


def test_each_interface_has_its_own_record(host: Host) -> None:
    """flannel's plugin keeps one file a container: the second DEL of two fails there."""
    lease(host)
    container = host.container()
    config = overlay()
    host.add("overlay", config, container, "eth0")
    host.add("overlay", config, container, "eth1")
    host.run("rm", AGENT)
    host.delete("overlay", config, container, "eth0")
    assert [one["ifname"] for one in container.ip("link") if one["ifname"] != "lo"] == ["eth1"]
    host.delete("overlay", config, container, "eth1")
    assert host.ports() == []


def test_the_record_stays_until_the_undoing_succeeded(host: Host) -> None:
    """A delegate that fails its DEL is asked again, with what it got at ADD."""
    lease(host)
    folder = "/run/foreign"
    script = f"""#!/bin/sh
cat >{folder}/seen.$CNI_COMMAND
[ $CNI_COMMAND = ADD ] && echo '{{"cniVersion": "1.1.0", "ips": []}}'
[ $CNI_COMMAND != DEL ] || [ ! -e {folder}/broken ]
"""
    host.run("mkdir", folder)
    leases.text(host, f"{folder}/weird", script)
    host.run("chmod", "755", f"{folder}/weird")
    host.run("touch", f"{folder}/broken")
    host.path = f"{folder}:{host.path}"
    container = host.container()
    config = overlay(delegate={"type": "weird", "own": 1})
    assert host.call("overlay", "ADD", config, container).status == 0
    host.run("rm", AGENT)
    assert host.call("overlay", "DEL", config, container).status == 1
    assert len(host.files("/run/cni-py/overlay")) == 1
    host.run("rm", f"{folder}/broken")
    assert host.call("overlay", "DEL", overlay(), container).status == 0
    assert host.files("/run/cni-py/overlay") == {}
    seen = json.loads(host.run("cat", f"{folder}/seen.DEL").stdout)
    assert (seen["own"], seen["ipam"]["ranges"]) == (1, [[{"subnet": "10.1.2.0/24"}]])


@pytest.mark.parametrize("keys", [{}, {"dataDir": "/run/kept"}])
def test_a_container_of_flannels_plugin_is_deleted(host: Host, keys: dict[str, Any]) -> None:
    """What that plugin had kept says what to undo, and goes then."""
    folder = keys.get("dataDir", "/var/lib/cni/flannel")
    container = host.container("c1", "cid1")
    made = {
        "cniVersion": "0.3.1", "name": "net1", "type": "bridge", "bridge": "cni0",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]},
    }  # fmt: skip
    assert host.call("bridge", "ADD", made, container).status == 0
    leases.text(host, f"{folder}/cid1", json.dumps(made))
    config = overlay("flannel", delegate={"type": "ptp"}, **keys)
    assert host.call("flannel", "DEL", config, container).status == 0
    assert host.ports() == []
    assert host.files(folder) == {}


def test_what_the_runtime_brings_is_the_delegates(host: Host) -> None:
    leases.text(host, FLANNEL, ENVIRONMENT)
    container = host.container()
    config = overlay("flannel", runtimeConfig={"mac": "02:00:00:00:00:42"})
    result = host.add("flannel", config, container)
    assert container.link()["address"] == "02:00:00:00:00:42"
    passes(host, "flannel", config, container, result)


def test_another_subnet_while_containers_live(host: Host) -> None:
    """The old gateway stays as long as somebody has it; CHECK and STATUS tell of the old ones."""
    lease(host)
    old, new, last = host.container("c1"), host.container("c2"), host.container("c3")
    config = overlay(**DEFAULT)
    with agent(host):
        before = host.add("overlay", config, old)
        lease(host, ipv4Subnet="10.1.9.0/24")
        after = host.add("overlay", config, new)
        assert after["ips"][0]["address"] == "10.1.9.2/24"
        assert old.reaches("10.1.2.1")
        assert old.reaches("10.1.9.2")
        assert new.reaches("10.1.2.2")
        error = refusal(host.call("overlay", "CHECK", config | {"prevResult": before}, old))
        assert "this node's subnet differs" in error["msg"]
        passes(host, "overlay", config, new, after)
        error = refusal(host.call("overlay", "STATUS", config, None))
        assert (error["code"], error["details"]) == (51, f"start them anew: {old.id}")
        host.delete("overlay", config, old)
        assert host.call("overlay", "STATUS", config, None).status == 0
        lease(host, ipv4Subnet="10.1.10.0/24")
        host.delete("overlay", config, new)
        host.add("overlay", config, last)
    addresses = host.ip("address", "show", "dev", "cni0")[0]["addr_info"]
    assert [one["local"] for one in addresses if one["family"] == "inet"] == ["10.1.10.1"]


@contextmanager
def agent(host: Host) -> Iterator[None]:
    """Something holds the lock that a running agent holds."""
    command = ["flock", f"{AGENT}.lock", "sh", "-c", "echo; exec cat"]
    with Popen([*host.prefix, *command], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lease": "lost", "code": 50, "msg": "the lease was lost", "details": "etcd"}, "lost"),
        ({"heldUntil": 1.0}, "has not been renewed in time"),
        ({"ipv4Subnet": ""}, "is no node's lease"),
        ({"ipv4Subnet": "10.2.0.0/24"}, "is no node's lease"),
        ({"ipv4Subnet": "x"}, "is no node's lease"),
        ({"mtu": 70000}, "is no node's lease"),
    ],
)
def test_no_lease(host: Host, keys: dict[str, Any], said: str) -> None:
    """STATUS says 50 with the reason, and ADD fails with nothing changed."""
    lease(host, **keys)
    container = host.container()
    for verb, code in (("ADD", (6, 11)), ("STATUS", (50,))):
        error = refusal(host.call("overlay", verb, overlay(), container))
        assert said in error["msg"]
        assert error["code"] in code
    assert host.ports() == []


@pytest.mark.parametrize("content", ["", "FLANNEL_MTU=x\n", "\0", "A" * 70000, "FLANNEL_SUBNET=\n"])
def test_nonsense_of_flanneld(host: Host, content: str) -> None:
    leases.text(host, FLANNEL, content)
    error = refusal(host.call("flannel", "ADD", overlay("flannel"), host.container()))
    assert (error["code"], error["msg"]) == (6, f"{FLANNEL} is no node's lease")


def test_a_link_is_not_followed(host: Host) -> None:
    host.run("mkdir", "-p", "/run/flannel")
    leases.text(host, "/run/other", ENVIRONMENT)
    host.run("ln", "-s", "/run/other", FLANNEL)
    error = refusal(host.call("flannel", "ADD", overlay("flannel"), host.container()))
    assert error["code"] == 6


def test_a_lease_of_an_earlier_boot(host: Host) -> None:
    """The file stayed over a boot, and nobody holds what it says."""
    leases.text(host, FLANNEL, ENVIRONMENT)
    host.run("touch", "-d", "2001-01-01", FLANNEL)
    error = refusal(host.call("flannel", "STATUS", overlay("flannel"), None))
    assert (error["code"], error["details"]) == (50, "is flanneld running?")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"delegate": {"name": "x"}}, "'delegate' dictionary must not have 'name' field"),
        ({"delegate": {"ipam": {}}}, "'delegate' dictionary must not have 'ipam' field"),
        ({"delegate": {"type": 7}}, "must have (string) 'type' field"),
        ({"delegate": {"type": "flannel"}}, "which makes no interface"),
        ({"delegate": {"type": "../x"}}, "invalid plugin name"),
        ({"delegate": {"hairpinMode": "yes"}}, "delegate: $.delegate.hairpinMode"),
        ({"delegate": {"vlan": 5000}}, "delegate: invalid VLAN ID 5000"),
        ({"delegate": {"ipMasqExclude": 7}}, "ipMasqExclude"),
        ({"ipam": {"type": "dhcp"}}, "need host-local"),
        ({"subnetFile": "x"}, 'subnetFile "x" is not an absolute path'),
        ({"cluster": "../x"}, "is no name of a cluster"),
    ],
)
def test_refusals(host: Host, keys: dict[str, Any], said: str) -> None:
    lease(host)
    error = refusal(host.call("overlay", "ADD", overlay(**keys), host.container()))
    assert (error["code"], said in error["msg"]) == (7, True), error


def test_a_foreign_bridge_may_not_masquerade(host: Host) -> None:
    """It knows nothing of the cluster's network, so its masquerading would hide the containers."""
    lease(host)
    host.run("mkdir", "/run/foreign")
    leases.text(host, "/run/foreign/bridge", "#!/bin/sh\n")
    host.run("chmod", "755", "/run/foreign/bridge")
    host.path = f"/run/foreign:{host.path}"
    error = refusal(host.call("overlay", "ADD", overlay(), host.container()))
    assert error["code"] == 7
    assert error["msg"].startswith("/run/foreign/bridge would masquerade")


def test_gc(host: Host) -> None:
    """What is not listed goes, with its record; what is listed stays."""
    lease(host)
    first, second = host.container("c1"), host.container("c2")
    config = overlay()
    host.add("overlay", config, first)
    host.add("overlay", config, second)
    host.run("rm", AGENT)
    listed = [{"containerID": second.id, "ifname": "eth0"}]
    outcome = host.call("overlay", "GC", config | {"cni.dev/valid-attachments": listed}, None)
    assert outcome.status == 0, outcome
    assert len(host.ports()) == 1
    assert list(host.allocated("net1")) == ["10.1.2.3"]
    assert len(host.files("/run/cni-py/overlay")) == 1
