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
