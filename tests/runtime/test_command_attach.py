"""`cni-py add`, `check`, `del` and `status`: beside cnitool, and what they say when they fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.cnitool import CNITOOL, NET_D, cni_py, cnitool, configure
from fixtures.configs import host_local
from fixtures.dump import dump, left_behind
from fixtures.host import BIN
from fixtures.leaks import leaks
from fixtures.reference import reference
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Host

BRIDGE = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": host_local(),
}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
PUBLISHED = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
_SECONDS = 20


def cache(host: Host) -> dict[str, Any]:
    """The cached results, by their files' names."""
    found = host.files("/var/lib/cni/results")
    return {name.rpartition("/")[2]: json.loads(text) for name, text in found.items()}


@pytest.mark.parametrize("tools", [(CNITOOL, CNI_PY), (CNI_PY, CNITOOL)], ids=["theirs", "ours"])
@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
def test_beside_cnitool(host: Host, tools: tuple[str, str], version: str) -> None:
    """[K-10]: what one adds the other checks and deletes, by the same id and cache."""
    configure(host, "net", BRIDGE, PORTMAP, cniVersion=version)
    container = host.container("c1")
    first, second = tools
    result = cnitool(host, "add", "net", container, tool=first, **PUBLISHED)
    assert result.json["ips"][0]["address"] == "10.1.2.2/24"
    [(name, record)] = cache(host).items()
    assert name == f"net-{record['containerId']}-eth0"
    assert record["containerId"].startswith("cnitool-")
    assert record["capabilityArgs"] == PUBLISHED
    assert record["result"] == result.json
    if version != "0.3.1":
        cnitool(host, "check", "net", container, tool=second, **PUBLISHED)
    cnitool(host, "del", "net", container, tool=second, **PUBLISHED)
    cnitool(host, "del", "net", container, tool=first)
    assert cache(host) == {}
    assert leaks(host) == []


def test_plugins_of_the_reference(host: Host) -> None:
    """By both tools, and with ours behind them in the chain."""
    theirs = reference(host, "bridge").path
    configure(host, "net", BRIDGE, {"type": "tuning", "mtu": 1400})
    host.run("mkdir", "/run/bin")
    host.run("ln", "-s", f"{BIN}/tuning", "/run/bin/tuning")
    container = host.container("c1")
    for first, second in ((CNITOOL, CNI_PY), (CNI_PY, CNITOOL)):
        path = f"/run/bin:{theirs}"
        cnitool(host, "add", "net", container, tool=first, path=path)
        assert container.link()["mtu"] == 1400
        cnitool(host, "check", "net", container, tool=second, path=path)
        cnitool(host, "del", "net", container, tool=second, path=path)
        assert cache(host) == {}
        assert leaks(host) == []


def test_same_record(host: Host) -> None:
    """What each keeps; older cnitools do not know `netns`, and write an empty `dns`."""
    configure(host, "net", {"type": "loopback"})
    container = host.container("c1")
    records = []
    for tool in (CNITOOL, CNI_PY):
        env = {"CNI_ARGS": "IgnoreUnknown=1;K=V"}
        cnitool(host, "add", "net", container, tool=tool, env=env, mac="x")
        [(name, record)] = cache(host).items()
        record["result"].pop("dns", None)
        records.append((name, {"netns": container.netns} | record))
        cnitool(host, "del", "net", container, tool=tool, env=env)
    assert records[0] == records[1]


def test_whole_life(host: Host) -> None:
    """Everything by options; what is not said again is as add had it."""
    configure(host, "net", BRIDGE, PORTMAP)
    container = host.container("c1")
    options = ("--container", "box", "-i", "net0", "--args", "IgnoreUnknown=1")
    options += ("--port", "8080:80", "--port", "127.0.0.1:5353:53/udp")
    # A name of `ip netns` is as good as its path.
    result = cni_py(host, "add", "net", "c1", *options)
    assert result.stdout.startswith('{\n    "cniVersion": "1.0.0"')
    assert result.json["interfaces"][-1]["sandbox"] == container.netns
    [record] = cache(host).values()
    assert record["cniArgs"] == [["IgnoreUnknown", "1"]]
    assert record["capabilityArgs"]["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
    ]
    who = ("net", "--container", "box", "-i", "net0")
    assert cni_py(host, "check", *who).stdout == ""
    assert cni_py(host, "check", *who, "--json").json == {
        "network": "net", "container": "box", "netns": container.netns, "ifname": "net0",
    }  # fmt: skip
    container.run("ip", "addr", "flush", "dev", "net0")
    failed = cni_py(host, "check", *who, check=False)
    assert failed.status == 1
    assert failed.stderr.startswith("cni-py check: plugin 1 of 2, bridge: ")
    assert "(code 999, internal)" in failed.stderr
    host.run("rm", f"{NET_D}/net.conflist")
    configure(host, "other", BRIDGE)
    deleted = cni_py(host, "del", *who)
    assert deleted.stderr == "cni-py del: net has no configuration any more: as cached\n"
    assert leaks(host) == []
    assert cache(host) == {}


def test_network_by_its_file(host: Host) -> None:
    configure(host, "net", BRIDGE)
    host.run("mv", f"{NET_D}/net.conflist", "/run/some.conflist")
    host.container("c1")
    for verb in ("add", "check", "del"):
        cni_py(host, verb, "/run/some.conflist", "c1")
    assert leaks(host) == []


def test_relative_folders(host: Host) -> None:
    """As cnitool takes them."""
    configure(host, "net", {"type": "loopback"})
    host.container("c1")
    script = f"cd {BIN.parent} && {CNI_PY} add net c1 && {CNI_PY} del net c1"
    host.run("sh", "-c", script, env={"CNI_PATH": f"nowhere:{BIN.name}"})


def test_failed_add_is_undone(host: Host) -> None:
    """And what an earlier add has made is not."""
    configure(host, "net", BRIDGE, {"type": "nope"})
    host.container("c1")
    before = dump(host)
    failed = cni_py(host, "add", "net", "c1", check=False)
    assert failed.status == 1
    assert failed.stdout == ""
    assert 'plugin 2 of 2, nope: failed to find plugin "nope" in path' in failed.stderr
    assert "and it could not be undone" in failed.stderr
    assert not [one for one in left_behind(host, before) if "veth" in one]
    kept = cni_py(host, "add", "net", "c1", "--keep-failed", check=False)
    assert kept.status == 1
    assert host.ports() != []
    configure(host, "net", BRIDGE)
    cni_py(host, "del", "net", "c1")
    cni_py(host, "add", "net", "c1")
    again = cni_py(host, "add", "net", "c1", check=False)
    assert "it is attached already: cni-py del net /run/netns/c1" in again.stderr
    cni_py(host, "check", "net", "c1")
    cni_py(host, "del", "net", "c1")
    assert leaks(host) == []


def test_interrupted_add(host: Host) -> None:
    """The plugin is ended, and everything undone: exit status 130."""
    script = "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\ntouch /run/began\nexec sleep 60\n"
    host.run("sh", "-c", "cat > /opt/cni/bin/hangs; chmod 755 /opt/cni/bin/hangs", stdin=script)
    configure(host, "net", BRIDGE, {"type": "hangs"})
    host.container("c1")
    env = {"PATH": os.environ["PATH"], "CNI_PATH": f"{BIN}:/opt/cni/bin"}
    command = [*host.prefix, CNI_PY, "add", "net", "c1"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + _SECONDS
    while host.run("test", "-e", "/run/began", check=False).status:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=_SECONDS)
    assert (process.returncode, said) == (130, "cni-py add: the call was given up\n")
    assert host.ports() == []
    assert leaks(host) == []
    cni_py(host, "del", "net", "c1", CNI_PATH=env["CNI_PATH"])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "nte", "c1"), 1, "did you mean net?; there are: net"),
        (("add", "net", "c9"), 1, "no network namespace at /run/netns/c9: ip netns add c9"),
        (("add", "net", "/run/x"), 1, "at /run/x: NETNS is a path such as /run/netns/NAME"),
        (("add", "net", "c1", "--port", "80"), 2, "write [IP:]HOST:CONTAINER[/tcp|udp|sctp]"),
        (("add", "net", "c1", "--port", "1:2"), 2, "no plugin of net has the capability portMa"),
        (("add", "net", "c1", "--cap", "mac=x"), 2, "--cap mac: x is no JSON"),
        (("add", "net", "c1", "--args", "K"), 2, 'invalid CNI_ARGS pair "K": write KEY=VALUE'),
        (("add", "net", "c1", "--container", "a/b"), 1, "invalid characters in containerID; a/b"),
        (("add", "net", "c1", "-i", "x" * 16), 1, "interface name is too long"),
        (("add", "net", "c1", "--cni-path", "/none"), 1, "cni-py install FOLDER writes ours"),
        (("add", "net"), 2, "Missing argument 'NETNS'"),
        (("del", "net"), 2, "say which container: NETNS, or --container"),
        (("check", "net", "--container", "c9"), 1, "no network namespace at a path that is not"),
        (("add", "/run/none.conflist", "c1"), 2, "/run/none.conflist: cannot be read: No such"),
        (("add", "/dev/full", "c1"), 2, "/dev/full: cannot be read: it is no file"),
        (("status", "net", "--net-dir", "/none"), 1, "--net-dir or NETCONFPATH names another one"),
        (("status", "broken"), 1, "/etc/cni/net.d/05.conflist: error parsing"),
    ],
)
def test_what_is_said(host: Host, arguments: tuple[str, ...], status: int, said: str) -> None:
    """One line, nothing on stdout, and nothing changed."""
    host.run("mkdir", "-m", "700", "/var/lib/cni/results")
    configure(host, "net", BRIDGE)
    host.run("tee", f"{NET_D}/05.conflist", stdin="{")
    host.container("c1")
    before = dump(host)
    failed = cni_py(host, *arguments, check=False)
    assert (failed.status, failed.stdout) == (status, ""), failed
    assert said in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert left_behind(host, before) == []


def test_refusal_as_json(host: Host) -> None:
    configure(host, "net", {"type": "loopback"}, {"type": "bridge", "mtu": "big"})
    host.container("c1")
    failed = cni_py(host, "add", "net", "c1", "--json", check=False)
    [error] = failed.json["errors"]
    assert {key: error[key] for key in ("network", "plugin", "place", "code", "meaning")} == {
        "network": "net", "plugin": "bridge", "place": 2, "code": 7, "meaning": "invalid config",
    }  # fmt: skip
    assert "mtu" in error["msg"]
    assert failed.stderr.startswith("cni-py add: plugin 2 of 2, bridge: ")


def test_status(host: Host) -> None:
    configure(host, "net", BRIDGE, PORTMAP, cniVersion="1.1.0")
    assert cni_py(host, "status", "net").stdout == "net is ready: bridge, portmap\n"
    assert cni_py(host, "status", "net", "unused", "--json").json["plugins"] == [
        "bridge",
        "portmap",
    ]
    configure(host, "bad", {**BRIDGE, "ipam": {"type": "nope"}}, cniVersion="1.1.0")
    failed = cni_py(host, "status", "bad", check=False)
    assert failed.status == 1
    assert "plugin 1 of 1, bridge: failed to find plugin" in failed.stderr


def test_gc_by_name(host: Host) -> None:
    """A network's name is as good as its file, drop-in plugins included."""
    configure(host, "net", BRIDGE)
    host.run("sh", "-c", f"mkdir {NET_D}/net; cat > {NET_D}/net/10.conf", stdin='{"type": "nope"}')
    found = cni_py(host, "gc", "net", "--dry-run", "--json").json
    assert [one["type"] for one in found] == ["bridge", "nope"]
    unknown = cni_py(host, "gc", "nte", "--dry-run", check=False)
    assert "did you mean net?" in unknown.stderr


def test_damaged_cache(host: Host) -> None:
    """check says so, del does without."""
    configure(host, "net", BRIDGE)
    host.container("c1")
    cni_py(host, "add", "net", "c1")
    [name] = cache(host)
    host.run("tee", f"/var/lib/cni/results/{name}", stdin='{"kind": ')
    failed = cni_py(host, "check", "net", "c1", check=False)
    assert failed.status == 1
    assert f"/var/lib/cni/results/{name} is damaged: " in failed.stderr
    cni_py(host, "del", "net", "c1")
    assert leaks(host) == []
    assert cache(host) == {}
    host.run("tee", f"/var/lib/cni/results/{name}", stdin="")
    cni_py(host, "add", "net", "c1")
    cni_py(host, "check", "net", "c1")
    cni_py(host, "del", "net", "c1")


def test_without_root(host: Host) -> None:
    configure(host, "net", BRIDGE)
    command = ("setpriv", "--reuid", "65534", "--clear-groups", CNI_PY, "add", "net", "c1")
    failed = host.run(*command, check=False)
    if failed.status == 126 or "Permission denied" in failed.stderr:
        pytest.skip("nobody cannot run the installed program here")
    assert (failed.status, failed.stderr) == (
        1, "cni-py add: attaching a container needs root: try again with sudo\n",
    )  # fmt: skip
