"""State that was lost or damaged as a whole: what the kernel shows is enough for DEL and GC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.dump import dump, left_behind
from fixtures.firewalls import BACKENDS, firewall, network

if TYPE_CHECKING:
    from fixtures.host import Container, Host

RECORDS = "/run/cni-py"
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def listed(*living: Container) -> dict[str, Any]:
    """What a runtime says lives."""
    valid = [{"containerID": one.id, "ifname": "eth0"} for one in living]
    return {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}


def spoiled(host: Host, folder: str, name: str = "*.json") -> None:
    """Every record in a folder has been cut off."""
    found = host.run("find", folder, "-maxdepth", "1", "-name", name).stdout.split()
    assert found
    host.run("truncate", "-s", "20", *found)


def forgotten(host: Host, container: Container, plugin: str) -> None:
    """A test's end does not delete it again."""
    for key in [one for one in host.attachments if one[1] == container.id and one[3] == plugin]:
        del host.attachments[key]


# firewall.


def ended(host: Host, verb: str, config: Any, gone: Container, living: Container) -> None:
    """By its DEL without a result, or by a GC whose list has the other one."""
    if verb == "DEL":
        host.delete("firewall", config, gone)
    else:
        assert host.call("firewall", "GC", config | listed(living)).status == 0
        forgotten(host, gone, "firewall")


@every_backend
@pytest.mark.parametrize("verb", ["DEL", "GC"])
@pytest.mark.parametrize("policy", ["", "same-bridge", "isolated"])
def test_a_damaged_record_of_firewall(host: Host, backend: str, verb: str, policy: str) -> None:
    """What it held goes with it: DEL gets no result, GC only the list."""
    first, second = host.container("c1"), host.container("c2")
    config = firewall(backend, ingressPolicy=policy)
    result = {one.id: host.add("bridge", network(), one) for one in (first, second)}
    # The chains that all share stay.
    host.add("firewall", config | {"prevResult": result[first.id]}, first)
    host.delete("firewall", config | {"prevResult": result[first.id]}, first)
    before = dump(host)
    host.add("firewall", config | {"prevResult": result[first.id]}, first)
    spoiled(host, f"{RECORDS}/firewall")
    ended(host, verb, config, first, second)
    assert left_behind(host, before) == []


@every_backend
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_isolation_stays_the_living_containers(host: Host, backend: str, verb: str) -> None:
    """A damaged record's end takes nothing from others of the bridge."""
    first, second = host.container("c1"), host.container("c2")
    config = firewall(backend, ingressPolicy="isolated")
    for one in (second, first):
        with_result = config | {"prevResult": host.add("bridge", network(), one)}
        if one is first:
            before = dump(host)
        host.add("firewall", with_result, one)
    path = host.run("grep", "-rl", "--include=*.json", first.id, f"{RECORDS}/firewall").stdout
    host.run("truncate", "-s", "20", path.strip())
    ended(host, verb, config, first, second)
    assert left_behind(host, before) == []


# tuning and dhcp.


@pytest.mark.parametrize("is_listed", [True, False])
def test_gc_clears_what_was_set_aside_of_tuning(host: Host, is_listed: bool) -> None:
    """Of attachments that do not live, whichever network they are of."""
    first = host.container("c1")
    before = dump(host)
    config = {"name": "net1", "type": "tuning", "cniVersion": "1.1.0"}
    folder = {"dataDir": "/run/tuning"}
    host.run("mkdir", "/run/tuning")
    host.run("touch", "/run/tuning/id-c1_eth0.json")
    valid = listed(first) if is_listed else listed()
    assert host.call("tuning", "GC", config | folder | valid).status == 0
    found = host.run("find", "/run/tuning", "-type", "f").stdout.split()
    assert found == ["/run/tuning/damaged/id-c1_eth0.json"] * is_listed
    host.run("rm", "-r", "/run/tuning")
    assert left_behind(host, before) == []


def test_gc_clears_what_was_set_aside_of_dhcp(host: Host) -> None:
    """Of the network's attachments that do not live."""
    folder = "/var/lib/cni/cni-py/dhcp/damaged"
    living, gone = host.container("c1"), host.container("c2")
    keys = {}
    for one in (living, gone):
        host.add("bridge", l3(), one)
        alias = host.run("sh", "-c", 'ip -j link | grep -o \'"ifalias":"[^,]*\'').stdout
        keys[one.id] = [line.split('"')[-1] for line in alias.split("\n") if "-" in line]
    assert len(set(keys[gone.id])) == 2
    host.run("mkdir", "-p", folder)
    for key in keys[gone.id]:
        host.run("touch", f"{folder}/{key}.json")
    config = {"name": l3()["name"], "type": "dhcp", "ipam": {"type": "dhcp"}}
    done = host.call("dhcp", "GC", config | listed(living))
    assert done.status == 0
    left = host.run("ls", folder).stdout.split()
    assert left == [f"{key}.json" for key in keys[living.id]]
    host.run("rm", "-r", "/var/lib/cni/cni-py")


# /run is empty all at once.


CHAIN: list[dict[str, Any]] = [
    l3(isGateway=True, ipMasq=True, macspoofchk=True, enabledad=False),
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    {"type": "firewall", "ingressPolicy": "isolated"},
    {"type": "bandwidth", "egressRate": 1000000, "egressBurst": 1000000},
    {"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
]


def configured(backend: str, one: dict[str, Any], container: Container, result: Any) -> Any:
    config = {"cniVersion": "1.1.0", "name": "net1", **one}
    if one["type"] in ("portmap", "firewall"):
        config["backend"] = backend
    if one["type"] == "portmap":
        number = 8000 + int(container.id.rpartition("c")[2])
        mapping = {"hostPort": number, "containerPort": 80, "protocol": "tcp"}
        config["runtimeConfig"] = {"portMappings": [mapping]}
    return config if result is None else config | {"prevResult": result}


def attached(host: Host, backend: str, container: Container) -> Any:
    """The chain's ADD; its result."""
    result: Any = None
    for one in CHAIN:
        config = configured(backend, one, container, result)
        result = host.add(one["type"], config, container)
    return result


def detached(host: Host, backend: str, container: Container, result: Any) -> None:
    """The chain's DEL, in the runtime's order."""
    for one in reversed(CHAIN):
        host.delete(one["type"], configured(backend, one, container, result), container)


@every_backend
@pytest.mark.parametrize("is_gone", [False, True], ids=["alive", "gone"])
def test_run_has_vanished(host: Host, backend: str, is_gone: bool) -> None:
    """DEL finds everything by what the kernel shows, and spares what other containers need."""
    first, second = host.container("c1"), host.container("c2")
    # What the first container of a host leaves for all that come.
    detached(host, backend, first, attached(host, backend, first))
    host.run("rm", "-rf", RECORDS, "/run/cni")
    before = dump(host)
    results = {one.id: attached(host, backend, one) for one in (first, second)}
    host.run("rm", "-rf", RECORDS, "/run/cni")
    if is_gone:
        first.delete_netns()
    detached(host, backend, first, results[first.id])
    (address,) = (one["address"].split("/")[0] for one in results[second.id]["ips"])
    left = dump(host)
    for one in ("8002", address, "cni0"):
        assert any(one in line for line in left["nft"]), one
    assert host.sysctl("net/ipv4/conf/cni0/route_localnet") == "1"
    detached(host, backend, second, results[second.id])
    assert [one for one in left_behind(host, before) if "/run/netns/c1" not in one] == []


@every_backend
def test_modes(host: Host, backend: str) -> None:
    """[decision 32] Nobody but root reads what there is of an attachment."""
    first = host.container("c1")
    result = attached(host, backend, first)
    index = "/var/lib/cni/networks/.cni-py/net1"
    files = host.run("find", RECORDS, "/run/cni", index, "-type", "f", "-perm", "/177").stdout
    assert files == ""
    # What is in one of these needs no more.
    folders = [RECORDS, "/run/cni", index, "-mindepth", "1", "-maxdepth", "1", "-type", "d"]
    assert host.run("find", *folders, "-perm", "/077").stdout == ""
    assert len(host.run("find", *folders).stdout.split()) == 8
    detached(host, backend, first, result)
