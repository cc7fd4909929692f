"""The contract of every executable: environment, stdin, streams, exit status (spec.md 2 to 6)."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.lint import File, lint
from cni_py.lint import Host as LintedHost
from cni_py.spec import located
from fixtures import leases
from fixtures.configs import V4, V6, host_local, ipam, l2, l3, routed
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, Outcome, refusal
from fixtures.parents import child, uplink

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
# Those whose results need a list of interfaces.
VERSIONS_OF = {"bandwidth": VERSIONS[2:], "vrf": VERSIONS[3:]}
CONFIGS: dict[str, dict[str, Any]] = {
    "bandwidth": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "bandwidth",
        "ingressRate": 8_000_000,
        "ingressBurst": 800_000,
        "egressRate": 8_000_000,
        "egressBurst": 800_000,
    },
    "bridge": l3(),
    "cluster": ipam("cluster", pools=["lan"]),
    "dns": {"cniVersion": "1.1.0", "name": "net1", "type": "dns", "internal": True},
    "dnsname": {"cniVersion": "1.1.0", "name": "net1", "type": "dnsname"},
    "dummy": ipam(ranges=[V4]) | {"type": "dummy"},
    "firewall": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "firewall",
        "backend": "nftables",
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.9/24"}]},
    },
    "flannel": leases.overlay("flannel", subnetFile=leases.AGENT),
    "host-device": {"cniVersion": "1.1.0", "name": "net1", "type": "host-device", "device": "x"},
    "host-local": ipam(ranges=[V4]),
    "loopback": {"cniVersion": "1.1.0", "name": "net1", "type": "loopback"},
    "ipvlan": child("ipvlan"),
    "macvlan": child("macvlan"),
    "portmap": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "portmap",
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.9/24"}]},
    },
    "overlay": leases.overlay(),
    "ptp": routed(),
    "sbr": {"cniVersion": "1.1.0", "name": "net1", "type": "sbr"},
    "services": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "services",
        "services": [{"name": "web", "port": 8080}],
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.9/24"}]},
    },
    "static": ipam("static", addresses=[{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}]),
    "tap": ipam(ranges=[V4]) | {"type": "tap"},
    "tuning": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "tuning",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
        "mtu": 1400,
    },
    "vlan": child("vlan"),
    "vrf": {"cniVersion": "1.1.0", "name": "net1", "type": "vrf", "vrfname": "blue"},
}
# An ADD of these needs a kernel that has their links.
IN_VM = ("dummy", "ipvlan", "vlan", "vrf")
# These change the interface that an earlier plugin has made.
CHAINED = ("bandwidth", "dns", "dnsname", "sbr", "tuning", "vrf")
NAMES = ("dns", "dnsname")
# These need its result alone.
LISTED = ("firewall", "portmap", "services")
WITHOUT_ADDRESSES = (*CHAINED, *LISTED, "host-device", "loopback", "static")
# All have one skeleton: these have it tried with a process a call too.
STANDALONE = ("bridge", "host-local", "portmap", "tuning")


def _each(*, attaching: bool) -> pytest.MarkDecorator:
    marks = {
        one: [pytest.mark.warm] * (one not in STANDALONE)
        + [pytest.mark.vm] * (attaching and one in IN_VM)
        for one in CONFIGS
    }
    return pytest.mark.parametrize(
        "plugin", [pytest.param(one, marks=own) for one, own in marks.items()]
    )


every_executable, every_plugin = _each(attaching=False), _each(attaching=True)

ATTACHMENT = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": str(BIN),
}
OWN_NETNS = "/proc/self/ns/net"
OTHER_LEASE = "/run/cni-py/cluster/other.json"


@pytest.fixture
def host(host: Host) -> Host:
    """A host with what configurations name."""
    uplink(host, "macvlan")
    leases.lease(host)
    leases.blocks(host)
    return host


@pytest.fixture(scope="module")
def idle() -> Iterator[Host]:
    """A host for refusals and answers alone: nothing on it may change."""
    host = Host.start()
    try:
        before = dump(host)
        yield host
        assert differences(before, dump(host)) == ""
    finally:
        host.close()


def versions_of(plugin: str) -> list[str]:
    """The protocol's versions that a plugin speaks."""
    return VERSIONS_OF.get(plugin, VERSIONS)


def ready(host: Host, plugin: str, container: Container, ifname: str = "eth0") -> dict[str, Any]:
    """The plugin's configuration, once there is what its ADD needs: an interface, or a device."""
    config = CONFIGS[plugin]
    if plugin == "host-device":
        device = f"nic{len(host.ip('link'))}"
        host.run("ip", "link", "add", device, "type", "veth", "peer", f"far-{device}")
        return config | {"device": device}
    if plugin not in CHAINED:
        return config
    port = f"port{len(host.ip('link'))}"
    inside = ("name", ifname, "netns", container.netns.rsplit("/", 1)[1])
    host.run("ip", "link", "add", port, "up", "type", "veth", "peer", *inside)
    if plugin in NAMES:
        host.run("ip", "addr", "add", "10.1.2.1/24", "dev", port)
    container.run("ip", "link", "set", ifname, "up")
    container.run("ip", "addr", "add", "10.1.2.9/24", "dev", ifname)
    mac = container.link(ifname)["address"]
    interfaces = [{"name": port}, {"name": ifname, "mac": mac, "sandbox": container.netns}]
    ips = [{"interface": 1, "address": "10.1.2.9/24", "gateway": "10.1.2.1"}]
    result = {"cniVersion": "1.1.0", "interfaces": interfaces, "ips": ips}
    return config | {"prevResult": result}


def run(host: Host, plugin: str, verb: str, stdin: str | bytes = "", **env: str) -> Outcome:
    """An executable with exactly this environment: nothing is left out."""
    environ = {"CNI_COMMAND": verb, **ATTACHMENT, **env}
    return host.run(f"{BIN}/{plugin}", stdin=stdin, env=environ, check=False)


def code_and_msg(outcome: Outcome) -> tuple[int, str]:
    error = refusal(outcome)
    return error["code"], error["msg"]


@every_executable
def test_without_a_command(idle: Host, plugin: str) -> None:
    """[2.4] [O-02] [E-02] A person who runs it learns what it is; empty is as unset."""
    for env in ({}, {"CNI_COMMAND": "", "CNI_CONTAINERID": "-"}):
        outcome = idle.run(f"{BIN}/{plugin}", env=env)
        assert outcome.stdout == ""
        first, second = outcome.stderr.splitlines()
        assert first.startswith(f"CNI {plugin} plugin v1.9.1+cni-py.")
        assert second == f"CNI protocol versions supported: {', '.join(versions_of(plugin))}"
        assert outcome.stderr.endswith("\n")


REQUIRED = {
    "ADD": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
    "CHECK": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
    "DEL": ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
    "GC": ["CNI_PATH"],
    "STATUS": ["CNI_PATH"],
}


@every_executable
@pytest.mark.parametrize("verb", REQUIRED)
def test_required_variables(idle: Host, plugin: str, verb: str) -> None:
    """[2.1] [E-01] Each required variable by its name, and all of them in the table's order."""
    names = REQUIRED[verb]
    for missing in [[one] for one in names] + [names]:
        outcome = run(idle, plugin, verb, **dict.fromkeys(missing, ""))
        expected = f"required env variables [{','.join(missing)}] missing"
        assert code_and_msg(outcome) == (4, expected)
        assert outcome.status == 1


@every_executable
@pytest.mark.parametrize(
    ("env", "msg"),
    [
        ({"CNI_IFNAME": "a-name-of-16-byt"}, "interface name is too long"),
        ({"CNI_IFNAME": "a-name-of-14-b\u00e9"}, "interface name is too long"),
        ({"CNI_NETNS": "", "CNI_IFNAME": "a-name-of-16-byt"}, "interface name is too long"),
        ({"CNI_IFNAME": "."}, "interface name is . or .."),
        ({"CNI_IFNAME": "a b"}, "interface name contains / or : or whitespace characters"),
        ({"CNI_IFNAME": "eth0\n"}, "interface name contains / or : or whitespace characters"),
        ({"CNI_IFNAME": "a\u2003b"}, "interface name contains / or : or whitespace characters"),
        ({"CNI_CONTAINERID": "-a"}, "invalid characters in containerID"),
        ({"CNI_CONTAINERID": "a b"}, "invalid characters in containerID"),
        ({"CNI_CONTAINERID": "a\n", "CNI_PATH": ""}, "invalid characters in containerID"),
        ({"CNI_CONTAINERID": "a%"}, "invalid characters in containerID"),
        ({"CNI_CONTAINERID": "\u00e9"}, "invalid characters in containerID"),
        ({"CNI_CONTAINERID": "-", "CNI_IFNAME": "."}, "invalid characters in containerID"),
    ],
)
def test_invalid_names(idle: Host, plugin: str, env: dict[str, str], msg: str) -> None:
    """[2.2] [5.1] [5.3] An invalid value is told before a missing one and before stdin."""
    for verb in ("ADD", "CHECK", "DEL"):
        outcome = run(idle, plugin, verb, "{", **env)
        assert code_and_msg(outcome) == (4, msg)
        if "CNI_CONTAINERID" in env:
            assert outcome.json["details"] == env["CNI_CONTAINERID"]


@every_plugin
def test_names_at_the_limit(host: Host, plugin: str) -> None:
    """[5.1] [5.3] One character is an id, 15 bytes are an interface's name."""
    container = host.container("c1", "a")
    name = "a-name-of-15-by"
    host.add(plugin, ready(host, plugin, container, name), container, name)


@every_executable
@pytest.mark.parametrize(
    ("verb", "stdin", "expected"),
    [
        ("NOP", json.dumps(l2()), (4, "unknown CNI_COMMAND: NOP")),
        ("add", json.dumps(l2()), (4, "unknown CNI_COMMAND: add")),
        ("NOP", "{}", (7, "missing network name")),
        ("ADD", "{}", (7, "missing network name")),
        ("ADD", "null", (7, "missing network name")),
        ("ADD", '{"name":""}', (7, "missing network name")),
        ("ADD", '{"name":null}', (7, "missing network name")),
        ("ADD", '{"name":"a b"}', (7, "invalid characters found in network name")),
        ("ADD", '{"name":"a\\n"}', (7, "invalid characters found in network name")),
        ("ADD", '{"name":"../a"}', (7, "invalid characters found in network name")),
    ],
)
def test_configuration_checks(
    idle: Host, plugin: str, verb: str, stdin: str, expected: tuple[int, str]
) -> None:
    """[2.2] The order of the checks, which holds for unknown verbs too."""
    assert code_and_msg(run(idle, plugin, verb, stdin)) == expected


UNDECODABLE = [
    "",
    "{",
    "[]",
    "5",
    '{"name":5}',
    '{"name":"a"}x',
    '\ufeff{"name":"a"}',
    '{"name":"a","b":NaN}',
    b'{"name":"\xff"}',
    '{"name":"a"}'.encode("utf-16"),
]


@every_executable
@pytest.mark.parametrize("verb", ["NOP", "ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_undecodable_stdin(idle: Host, plugin: str, verb: str) -> None:
    """[2.2] [trap 5] Code 6 for what is not one JSON object."""
    for stdin in UNDECODABLE:
        code, msg = code_and_msg(run(idle, plugin, verb, stdin))
        assert (code, msg[:33]) == (6, "error unmarshall network config: "), stdin


@every_executable
def test_stdin_that_cannot_be_read(idle: Host, plugin: str) -> None:
    """[2.2] Closed, or open for writing alone: code 5."""
    for redirection in ("<&-", "0> /dev/null"):
        command = ("sh", "-c", f'exec "$0" {redirection}', f"{BIN}/{plugin}")
        outcome = idle.run(*command, env={"CNI_COMMAND": "ADD", **ATTACHMENT}, check=False)
        code, msg = code_and_msg(outcome)
        assert (code, msg[:26]) == (5, "error reading from stdin: ")


@every_executable
@pytest.mark.parametrize(
    ("verb", "version", "code", "msg"),
    [
        ("ADD", "1.1", 1, "incompatible CNI versions"),
        ("ADD", "9.9.9", 1, "incompatible CNI versions"),
        ("DEL", "v1.1.0", 1, "incompatible CNI versions"),
        ("ADD", "garbage", 1, "incompatible CNI versions"),
        ("ADD", 1, 6, "decoding version from network config: wrong type at $.cniVersion"),
        ("CHECK", "0.3.1", 1, "config version does not allow CHECK"),
        ("CHECK", None, 1, "config version does not allow CHECK"),
        ("CHECK", "1.0", 1, "incompatible CNI versions"),
        ("CHECK", "1.2.0", 1, "plugin version does not allow CHECK"),
        ("GC", "1.0.0", 1, "config version does not allow GC"),
        ("GC", "2.0.0", 1, "plugin version does not allow GC"),
        ("STATUS", "1.0.0", 1, "config version does not allow STATUS"),
        ("STATUS", "1.1.1", 1, "plugin version does not allow STATUS"),
        ("STATUS", "1.x.0", 6, 'failed to convert minor version part "x": invalid syntax'),
        ("GC", "1.1.0.0", 6, 'invalid version "1.1.0.0": too many parts'),
        ("CHECK", 1.0, 6, "decoding version from network config: wrong type at $.cniVersion"),
    ],
)  # fmt: skip
def test_version_gate(
    idle: Host, plugin: str, verb: str, version: object, code: int, msg: str
) -> None:
    """[2.3] [D-02] [D-04] [VS-05] Exact membership; three verbs compare numbers before."""
    outcome = run(idle, plugin, verb, json.dumps(CONFIGS[plugin] | {"cniVersion": version}))
    assert code_and_msg(outcome) == (code, msg)
    assert outcome.json["cniVersion"] == "1.1.0"
    if msg == "incompatible CNI versions":
        listed = " ".join(f'"{one}"' for one in versions_of(plugin))
        assert outcome.json["details"] == f'config is "{version}", plugin supports [{listed}]'


@every_executable
def test_version_answer(idle: Host, plugin: str) -> None:
    """[VR-01] [VR-02] [O-05] [E-03] One line at once, whatever stdin and the environment are."""
    environ = {"CNI_COMMAND": "VERSION", "CNI_CONTAINERID": "-", "CNI_IFNAME": "a b"}
    expected = {"cniVersion": "1.1.0", "supportedVersions": versions_of(plugin)}
    held_open = subprocess.Popen(
        [*idle.prefix, f"{BIN}/{plugin}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
    )
    assert held_open.wait(20) == 0
    assert held_open.stdin is not None
    assert held_open.stdout is not None
    with held_open.stdin, held_open.stdout:
        line = held_open.stdout.read().decode()
    assert line == json.dumps(expected, separators=(",", ":")) + "\n"
    closed = ("sh", "-c", 'exec "$0" <&-', f"{BIN}/{plugin}")
    assert idle.run(*closed, env=environ).stdout == line
    assert idle.run(f"{BIN}/{plugin}", stdin="{", env=environ).stdout == line


@every_plugin
def test_no_attachment_in_gc_and_status(host: Host, plugin: str) -> None:
    """[E-03] [S-06] [G-06] What these verbs do not use is not looked at."""
    config = ready(host, plugin, host.container()) | {"cni.dev/valid-attachments": []}
    with leases.agent_running(host):
        for verb in ("GC", "STATUS"):
            odd = {"CNI_CONTAINERID": "-", "CNI_IFNAME": "a b"}
            outcome = run(host, plugin, verb, json.dumps(config), **odd)
            assert (outcome.status, outcome.stdout) == (0, ""), outcome


@every_plugin
def test_own_namespace_is_refused(host: Host, plugin: str) -> None:
    """[N-01] [N-06] [W-G5] ADD answers before it acts; DEL frees what there is, then answers."""
    msg = "plugin's netns and netns from CNI_NETNS should not be the same"
    container = host.container("c1")
    stale = Container(host, container.id, f"/proc/{host.holder.pid}/ns/net")
    config = ready(host, plugin, container)
    before = dump(host)
    for own in (OWN_NETNS, stale.netns):
        outcome = host.call(plugin, "ADD", config, container, env={"CNI_NETNS": own})
        assert code_and_msg(outcome) == (8, msg)
    assert differences(before, dump(host)) == ""
    host.add(plugin, config, container)
    assert code_and_msg(host.call(plugin, "DEL", config, stale)) == (8, msg)
    assert host.allocated("net1") == {}
    assert "UP" in host.ip("link", "show", "lo")[0]["flags"]


@pytest.mark.parametrize("plugin", ["host-local", "loopback", "static"])
def test_own_namespace_on_request(host: Host, plugin: str) -> None:
    """[N-02] [N-01] Only `TRUE` in any case and `1` allow it; CHECK never asks."""
    container = Container(host, "c1", OWN_NETNS)
    config = CONFIGS[plugin]
    for value in ("yes", "true ", "0"):
        env = {"CNI_NETNS_OVERRIDE": value}
        assert refusal(host.call(plugin, "ADD", config, container, env=env))["code"] == 8
    for value in ("TrUe", "1"):
        env = {"CNI_NETNS_OVERRIDE": value}
        result = host.add(plugin, config, container, env=env)
        outcome = host.call(plugin, "CHECK", config | {"prevResult": result}, container)
        assert (outcome.status, outcome.stdout) == (0, ""), outcome
        host.delete(plugin, config, container, env=env)


# Queues on a pair that another one has made go with the pair (docs/decisions/0025).
@pytest.mark.parametrize(
    "plugin",
    [
        pytest.param(one, marks=[pytest.mark.vm] * (one in IN_VM))
        for one in CONFIGS
        if one != "bandwidth"
    ],
)
def test_delete_whatever_is_left(host: Host, plugin: str) -> None:
    """[DL-02] [DL-03] [DL-04] [N-03] Twice, without prevResult, and with any kind of CNI_NETNS."""
    container = host.container("c1")
    config = ready(host, plugin, container)
    result = host.add(plugin, config, container)
    host.delete(plugin, config | {"prevResult": result}, container)
    host.delete(plugin, config, container)
    host.run("touch", "/run/netns/plain")
    for netns in ("", "/run/netns/missing", "/run/netns/plain", "/run/netns/plain/below"):
        host.add(plugin, config, container)
        host.delete(plugin, config, Container(host, container.id, netns))
        host.delete(plugin, config, container)
    host.add(plugin, config, container)
    container.delete_netns()
    host.delete(plugin, config, container)
    host.delete(plugin, config | {"prevResult": "damaged"}, container)
    assert host.allocated("net1") == {}


@every_plugin
def test_collecting(host: Host, plugin: str) -> None:
    """[G-01] [G-02] [G-06] [G-07] [G-08] [G-09] The dead go, the living and other networks stay."""
    containers = [host.container(name) for name in ("alive", "dead", "other")]
    for container, network in zip(containers, ("net1", "net1", "net2"), strict=True):
        config = ready(host, plugin, container) | {"name": network}
        if plugin == "bridge":
            config["bridge"] = f"br-{network}"
        elif plugin == "vlan":
            config["vlanId"] = len(host.attachments) + 1
        elif plugin in ("ipvlan", "ptp") and network == "net2":
            # The children of one parent must differ in their addresses, and routes to them.
            config["ipam"] = host_local(V6)
        elif network == "net2" and plugin in ("overlay", "flannel"):
            leases.lease(host, OTHER_LEASE, ipv4Subnet="10.1.3.0/24")
            key, value = (
                ("cluster", "other") if plugin == "overlay" else ("subnetFile", OTHER_LEASE)
            )
            config |= {key: value, "delegate": {"bridge": "cni2"}}
        elif network == "net2" and plugin == "cluster":
            leases.blocks(host, "10.1.3.0/24", pool="other")
            config["ipam"] = {"type": "cluster", "pools": ["other"]}
        elif plugin in NAMES and network == "net2":
            # A name server has an address of its own.
            gateway, port = "10.1.3.1", config["prevResult"]["interfaces"][0]["name"]
            host.run("ip", "addr", "add", f"{gateway}/24", "dev", port)
            config["prevResult"]["ips"][0]["gateway"] = gateway
        host.add(plugin, config, container)
    full = dump(host)
    alive = [{"containerID": "id-alive", "ifname": "eth0"}]
    both = [*alive, {"containerID": "id-dead", "ifname": "eth0"}]
    config = CONFIGS[plugin] | ({"bridge": "br-net1"} if plugin == "bridge" else {})
    for keys in (
        {},
        {"cni.dev/valid-attachments": None},
        {"cni.dev/valid-attachments": both},
        {"cni.dev/valid-attachments": both, "cni.dev/attachments": []},
    ):
        outcome = host.call(plugin, "GC", config | keys)
        assert (outcome.status, outcome.stdout) == (0, "")
        assert differences(full, dump(host)) == "", keys
    refused = refusal(host.call(plugin, "GC", config | {"cni.dev/valid-attachments": [{}]}))
    assert refused["code"] == 7
    assert differences(full, dump(host)) == ""
    for keys in ({"cni.dev/attachments": alive}, {"cni.dev/valid-attachments": alive}):
        outcome = host.call(plugin, "GC", config | keys)
        assert (outcome.status, outcome.stdout) == (0, "")
    with_addresses = plugin not in WITHOUT_ADDRESSES
    assert len(host.allocated("net1")) == len(host.allocated("net2")) == with_addresses
    assert len(host.ports("br-net1")) == len(host.ports("br-net2")) == (plugin == "bridge")


def test_result_that_cannot_be_written(host: Host) -> None:
    """[O-07] [W-G8] ADD undoes itself when nobody can read its result, and says why on stderr."""
    container = host.container("c1")
    environ = {"CNI_COMMAND": "ADD", **ATTACHMENT}
    for plugin in ("bridge", "host-local"):
        for redirection in ("> /dev/full", ">&-"):
            command = ("sh", "-c", f'exec "$0" {redirection}', f"{BIN}/{plugin}")
            stdin = json.dumps(CONFIGS[plugin])
            outcome = host.run(*command, stdin=stdin, env=environ, check=False)
            assert outcome.status == 1
            assert "error writing the result to stdout" in outcome.stderr
            assert "Traceback" not in outcome.stderr
            assert host.allocated("net1") == {}
            assert host.ports() == []
            assert [one["ifname"] for one in container.ip("link")] == ["lo"]


PLUGIN = """
import ctypes, os, subprocess, sys
from cni_py.spec.config import PluginConfig as Config, PluginConfig as DelConfig
from cni_py.spec.errors import CniError
from cni_py.spec.results import Result
def add(call):
    print("printed")
    os.write(1, b"written")
    ctypes.CDLL(None).puts(b"of a library")
    subprocess.run(["echo", "of a child"])
    return Result()
def delete(call):
    raise ValueError("a defect")
def check(call):
    try:
        raise CniError(123, "the cause", "and more")
    except CniError as error:
        raise ValueError("hidden") from error
def status(call):
    try:
        raise CniError(123, "unrelated")
    except CniError:
        raise ValueError("what counts")
def gc(call, valid):
    sys.exit("left")
"""


@pytest.fixture
def authored(host: Host) -> str:
    """The executable of a plugin that somebody else wrote with the skeleton, since 0.4.0."""
    text = (BIN / ".cni-py" / "static").read_text()
    head, marker, tail = text.partition("from cni_py.skel import main")
    assert marker
    assert 'main("static")' in tail
    text = (
        f"{head}from cni_py import skel\nsys.path.append('/run')\n"
        'skel.EXECUTABLES["own"] = skel.Executable("own_plugin", "0.4.0")\n'
        'sys.exit(skel.main("own"))\n'
    )
    for name, content in (("own", text), ("own_plugin.py", PLUGIN)):
        host.run("tee", f"/run/{name}", stdin=content)
    host.run("chmod", "+x", "/run/own")
    return "/run/own"


def test_one_document_on_stdout(host: Host, authored: str) -> None:
    """[O-06] [trap 15] What a plugin, a library or a child prints ends up on stderr."""
    outcome = host.call(authored, "ADD", CONFIGS["static"], host.container())
    assert outcome.json == {"cniVersion": "1.1.0"}
    assert outcome.stdout == json.dumps(outcome.json, indent=4)
    for text in ("printed", "written", "of a library", "of a child"):
        assert text in outcome.stderr


@pytest.mark.parametrize(("verb", "status"), [("ADD", 0), ("DEL", 1)])
@pytest.mark.parametrize("closed", ["2>&-", "<&3 2>&-"])
def test_closed_standard_error(
    host: Host, authored: str, verb: str, status: int, closed: str
) -> None:
    """[O-06] What would go there does not get into the document."""
    host.run("tee", "/run/config", stdin=json.dumps(CONFIGS["static"]))
    env = host.container().environ(verb)
    command = f"exec 3</run/config; exec {authored} <&3 {closed}"
    outcome = host.run("sh", "-c", command, env=env, check=False)
    assert outcome.status == status
    assert outcome.stdout == json.dumps(outcome.json, indent=4)


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("DEL", {"code": 999, "msg": "a defect"}),
        ("CHECK", {"code": 123, "msg": "the cause", "details": "and more"}),
        ("STATUS", {"code": 999, "msg": "what counts"}),
        ("GC", {"code": 999, "msg": "left"}),
    ],
)
def test_errors_of_a_callback(
    host: Host, authored: str, verb: str, expected: dict[str, Any]
) -> None:
    """[D-05] [trap 16] [trap 17] A cause that is a CNI error speaks; else 999, with a traceback."""
    config = CONFIGS["static"] | {"cni.dev/valid-attachments": []}
    outcome = host.call(authored, verb, config, host.container())
    assert refusal(outcome) == {"cniVersion": "1.1.0", **expected}
    assert "Traceback" in outcome.stderr


def test_version_that_the_plugin_is_too_new_for(host: Host, authored: str) -> None:
    """[2.3] [7.1] A missing version is 0.1.0, which this plugin does not speak."""
    for version in (None, "", "0.3.1"):
        config = CONFIGS["static"] | {"cniVersion": version}
        error = refusal(host.call(authored, "ADD", config, Container(host, "c1", "/run/netns/c1")))
        assert (error["code"], error["msg"]) == (1, "incompatible CNI versions")
        shown = version or "0.1.0"
        listed = '"0.4.0" "1.0.0" "1.1.0"'
        assert error["details"] == f'config is "{shown}", plugin supports [{listed}]'
        assert error["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "static"])
def test_missing_version_is_the_oldest(host: Host, plugin: str) -> None:
    """[7.1] [A-05] Absent, null and empty configurations' versions give a result of 0.1.0."""
    for version in (None, ""):
        container = host.container(f"c-{version}")
        result = host.add(plugin, CONFIGS[plugin] | {"cniVersion": version}, container)
        assert result["cniVersion"] == "0.1.0"
        assert result["ip4"]["ip"].startswith("10.1.2.")


def test_without_an_address_in_an_old_version(host: Host) -> None:
    """[R-05] [D2] [W-G8] What a result of 0.2.0 cannot say is refused, and nothing stays."""
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", l2(cniVersion="0.2.0"), container))
    assert "cannot convert: no valid IP addresses" in error["msg"]
    config = ipam("static", addresses=[]) | {"cniVersion": "0.2.0"}
    error = refusal(host.call("static", "ADD", config, container))
    assert "cannot convert: no valid IP addresses" in error["msg"]
    assert differences(before, dump(host)) == ""


@every_executable
def test_lint_finds_no_error(plugin: str) -> None:
    """`cni-py lint` complains of nothing that works."""
    config = {key: value for key, value in CONFIGS[plugin].items() if key != "prevResult"}
    chained = plugin in (*CHAINED, *LISTED)
    listed = {
        "cniVersion": "1.1.0",
        "name": "net1",
        "plugins": [*([l3()] if chained else []), config],
    }
    if plugin in ("host-local", "static"):
        listed["plugins"] = [l3() | {"ipam": config["ipam"]}]
    file = File("a.conflist", located.parse(json.dumps(listed).encode()))
    assert [str(one) for one in lint([file], LintedHost()) if one.severity == "error"] == []
