"""Records that are empty, cut off, garbage or no files at all: set aside, and nothing stops."""

import pytest

from fixtures.configs import ipam
from fixtures.dump import differences, dump

FOLDER = "/run/cni-py/portmap"
NETWORK = ipam(ranges=[[{"subnet": "10.1.0.0/24"}]]) | {
    "cniVersion": "1.1.0",
    "type": "bridge",
    "bridge": "cni0",
}
DAMAGES = {
    "empty": "> $1",
    "truncated": "truncate -s 20 $1",
    "garbage": "printf '\\000\\377{' > $1",
    "shape": "echo '[1]' > $1",
    "folder": "rm $1; mkdir $1",
    "link": "rm $1; ln -s /etc/passwd $1",
    "fifo": "rm $1; mkfifo $1",
}


def published(name, port, host, container):
    """A bridge's container with a published port: portmap's configuration and result."""
    result = host.add("bridge", NETWORK, container)
    return {
        "cniVersion": "1.1.0",
        "name": NETWORK["name"],
        "type": "portmap",
        "capabilities": {"portMappings": True},
        "runtimeConfig": {
            "portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
        },
        "prevResult": result,
    } | {"name": name}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record(host, damage):
    """It stops nobody, its port stays the living container's, and DEL finds what it said."""
    first, second = host.container("c1"), host.container("c2")
    config = published(NETWORK["name"], 8080, host, first)
    other = published(NETWORK["name"], 8080, host, second)
    before = dump(host)
    host.add("portmap", config, first)
    (path,) = host.run("find", FOLDER, "-name", "*.json").stdout.split()
    host.run("sh", "-c", damage, "sh", path)
    refused = host.call("portmap", "ADD", other, second)
    assert "host port" in refused.json["msg"], refused
    assert f"{path} is damaged" in refused.stderr
    assert host.call("portmap", "CHECK", config, first).status == 0
    assert host.call("portmap", "STATUS", config).status == 0
    # Without what the runtime may have lost too.
    host.delete("portmap", config | {"runtimeConfig": {}}, first)
    host.attachments.pop((config["name"], first.id, "eth0", "portmap"), None)
    host.run("sh", "-c", f"find {FOLDER} -name damaged -exec rmdir {{}} +")
    host.add("portmap", other, second)
    host.delete("portmap", other, second)
    left = [
        one
        for one in differences(before, dump(host)).splitlines()
        if "cni-py" in one and "lock" not in one and not one.endswith("/ports")
    ]
    assert left == []


# host-local: what is no file is in nobody's way.

STORE = "/var/lib/cni/networks"
INDEX = f"{STORE}/.cni-py/net1"
PLACES = {
    "lock": f"{STORE}/net1/lock",
    "last": f"{STORE}/net1/last_reserved_ip.0",
    "address": f"{STORE}/net1/10.0.0.2",
    "state": f"{INDEX}/state",
    "unfinished state": f"{INDEX}/state.new",
    "entry": f"{INDEX}/owners/*",
    "used": f"{INDEX}/used/*",
    "owners": f"{INDEX}/owners",
    "used maps": f"{INDEX}/used",
}
NO_FILES = {
    "folder": "mkdir $1; touch $1/one",
    "link": "ln -s /etc/passwd $1",
    "dangling link": "ln -s /nowhere/at/all $1",
    "fifo": "mkfifo $1",
    "device": "mknod $1 c 1 3",
}
SMALL = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]])


VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_in_host_locals_folders(host, place, verb):
    """Each verb goes on; the living keep their addresses, and GC leaves nothing of the rest."""
    living, other = host.container("c1"), host.container("c2")
    host.add("host-local", SMALL, living)
    before = without_content(dump(host))
    # Each verb with another kind: all of them a place.
    kinds = list(NO_FILES.values())
    if place in ("owners", "used maps"):
        kinds.remove(NO_FILES["folder"])
    make = kinds[(list(PLACES).index(place) + VERBS.index(verb)) % len(kinds)]
    path = PLACES[place]
    host.run("sh", "-c", f"set -- $(ls -d {path} || echo {path}); rm -rf $1; {make}")
    listed = {"cni.dev/valid-attachments": [{"containerID": living.id, "ifname": "eth0"}]}
    checked = SMALL | {"prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/29"}]}}
    config = {"CHECK": checked, "GC": SMALL | listed}.get(verb, SMALL)
    caller = other if verb in ("ADD", "DEL") else living
    done = host.call("host-local", verb, config, caller)
    assert done.status == 0, done
    if place in ("lock", "state", "owners", "used maps"):
        assert "damaged" in done.stderr
    assert host.allocated("net1")["10.0.0.2"] == f"{living.id}\r\neth0"
    assert host.call("host-local", "ADD", SMALL, living).json["code"] == 999
    if verb != "ADD":
        host.add("host-local", SMALL, other)
    host.delete("host-local", SMALL, other)
    host.run("sh", "-c", f"rmdir {INDEX}/new {INDEX}/state.new", check=False)
    host.call("host-local", "GC", SMALL | listed)
    assert differences(before, without_content(dump(host))) == ""
    host.delete("host-local", SMALL, living)
    assert host.allocated("net1") == {}


def without_content(dumped):
    """Of files the names alone, and none of locks or bits: they come and go."""
    names = [line.split()[-1] for line in dumped["files"]]
    kept = [one for one in names if not one.startswith("/run/cni-py") and "/used/" not in one]
    return dumped | {"files": kept}


CUT_OFF = {
    "empty": "> $1",
    "id cut off": "truncate -s 4 $1",
    "interface cut off": "truncate -s 9 $1",
    "garbage": "printf '\\377\\000{[' > $1",
}


@pytest.mark.parametrize("rescan", [False, True])
@pytest.mark.parametrize("damage", CUT_OFF.values(), ids=CUT_OFF)
def test_an_address_whose_file_was_cut_off(host, damage, rescan):
    """It stays the living container's, and is free after its DEL."""
    first, second = host.container("c1"), host.container("c2")
    host.add("host-local", SMALL, first)
    address = f"{STORE}/net1/10.0.0.2"

    def spoil():
        host.run("sh", "-c", damage, "sh", address)
        if rescan:
            host.run("touch", f"{STORE}/net1/other")
            host.run("rm", f"{STORE}/net1/other")

    spoil()
    wanted = SMALL | {"runtimeConfig": {"ips": ["10.0.0.2"]}}
    refused = host.call("host-local", "ADD", wanted, second)
    assert refused.json["msg"].startswith("requested IP address 10.0.0.2 is not available")
    spoil()
    host.delete("host-local", SMALL, first)
    assert host.allocated("net1") == {}
    host.add("host-local", wanted, second)
    # Nobody is there any more: another one gets it.
    second.delete_netns()
    host.run("sh", "-c", "> $1", "sh", address)
    host.add("host-local", wanted, first)
    assert host.allocated("net1") == {"10.0.0.2": "id-c1\r\neth0"}
