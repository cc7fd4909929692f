"""GC: what it takes away, what it spares, and the dry run that says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.dump import differences, dump
from fixtures.host import BIN
from fixtures.leaks import leaks
from fixtures.server import CNI_PY
from fixtures.settled import vanished

if TYPE_CHECKING:
    from fixtures.host import Container, Host

NETWORK = {"cniVersion": "1.1.0", "name": "net1"}
BRIDGE = l3(isGateway=True, ipMasq=True, macspoofchk=True, enabledad=False)
CHAIN: list[dict[str, Any]] = [
    BRIDGE,
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    {"type": "firewall", "backend": "nftables", "ingressPolicy": "same-bridge"},
    {"type": "bandwidth", "egressRate": 1000000, "egressBurst": 1000000},
    {"type": "tuning", "mtu": 1400},
]
PORT = 8000


def attach(host: Host, container: Container, chain: list[dict[str, Any]] = CHAIN) -> None:
    """As a runtime does: each with the result of the one before."""
    result: Any = None
    for one in chain:
        result = host.add(one["type"], configured(one, container, result), container)


def configured(one: dict[str, Any], container: Container, result: Any) -> dict[str, Any]:
    config = {**NETWORK, **one}
    if result is not None:
        config["prevResult"] = result
    if one["type"] == "portmap":
        number = int(container.id.rpartition("c")[2])
        mapping = {"hostPort": PORT + number, "containerPort": 80, "protocol": "tcp"}
        config["runtimeConfig"] = {"portMappings": [mapping]}
    return config


def collect(host: Host, *options: str, chain: Any = CHAIN, status: int = 0) -> list[Any]:
    """`cni-py gc --json`: what each plugin found."""
    document = json.dumps({**NETWORK, "plugins": chain})
    command = (CNI_PY, "gc", "-", "--json", "--cni-path", str(BIN), *options)
    outcome = host.run(*command, stdin=document, check=False)
    assert outcome.status == status, outcome
    return [one for part in json.loads(outcome.stdout) for one in part["found"]]


@pytest.fixture
def three(host: Host) -> tuple[Container, ...]:
    """Containers with the whole chain, of which the second one's namespace has vanished."""
    containers = tuple(host.container(f"c{number}") for number in (1, 2, 3))
    for one in containers:
        attach(host, one)
    vanished(host, containers[1], ports=2)
    return containers


def forget(host: Host, container: Container) -> None:
    for key in [one for one in host.attachments if one[1] == container.id]:
        del host.attachments[key]


def kinds(found: list[Any]) -> set[str]:
    return {one["what"].split()[0] for one in found}


def test_without_a_list(host: Host, three: tuple[Container, ...]) -> None:
    """[G-07, W-G1] What outlived its container goes, by evidence; who lives keeps everything."""
    before = dump(host)
    found = collect(host, "--dry-run")
    assert differences(before, dump(host)) == ""
    assert kinds(found) == {
        "record", "element", "masquerading", "address", "port", "firewall", "claim", "block",
        "former", "route_localnet",
    }  # fmt: skip
    assert {one["whose"] for one in found} <= {"id-c2/eth0", ""}
    reasons = {one["why"] for one in found}
    assert "its namespace /run/netns/c2 is gone" in reasons
    assert "its host end is gone" in reasons
    gone = collect(host)
    assert kinds(gone) >= {"masquerading", "address", "port", "firewall", "block", "former"}
    assert collect(host) == []
    assert not [one for one in leaks(host) if "id-c2" in one]
    forget(host, three[1])
    # The living have all that they had.
    for one in (three[0], three[2]):
        for plugin, config, container, _ in host.attachments.values():
            if container is one and plugin != "tuning":
                result = last_result(host, one)
                checked = config | {"prevResult": result}
                outcome = host.call(plugin, "CHECK", checked, one)
                assert outcome.status == 0, outcome
    assert three[0].reaches(three[2].addresses()[0].split("/")[0])


def last_result(host: Host, container: Container) -> Any:
    return next(
        config["prevResult"]
        for plugin, config, one, _ in host.attachments.values()
        if one is container and plugin == "tuning"
    )


def test_with_a_list(host: Host, three: tuple[Container, ...]) -> None:
    """[G-01] What the runtime does not list goes, also what lives: it has said so."""
    before = dump(host)
    found = collect(host, "--dry-run", "--valid", "id-c1/eth0")
    assert differences(before, dump(host)) == ""
    assert {one["whose"].partition("/")[0] for one in found} <= {"id-c2", "id-c3", ""}
    assert {one["why"] for one in found} == {
        "not among the attachments that the runtime lists as valid"
    }
    assert "veth" in kinds(found)
    collect(host, "--valid", "id-c1/eth0")
    assert len(host.ports()) == 1
    assert list(host.allocated("net1").values()) == ["id-c1\r\neth0"]
    forget(host, three[1])
    forget(host, three[2])
    collect(host, "--none-valid")
    forget(host, three[0])
    assert leaks(host) == []


def test_through_the_protocol(host: Host) -> None:
    """[G-07, G-08] Both keys, and neither: what goes is told on stderr with the reason."""
    lost, alive, kept = (host.container(f"c{number}") for number in (1, 2, 3))
    for one in (lost, alive, kept):
        host.add("bridge", BRIDGE, one)
    vanished(host, lost, ports=2)
    outcome = host.call("bridge", "GC", BRIDGE)
    assert outcome.status == 0, outcome
    assert "address 10.1.2.2 of id-c1/eth0: its namespace /run/netns/c1 is gone" in outcome.stderr
    assert len(host.allocated("net1")) == 2
    forget(host, lost)
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    outcome = host.call("bridge", "GC", BRIDGE | {"cni.dev/attachments": valid})
    assert "of id-c2/eth0: not among the attachments" in outcome.stderr
    assert len(host.allocated("net1")) == len(host.ports()) == 1
    forget(host, alive)
    assert host.call("bridge", "GC", BRIDGE | {"cni.dev/valid-attachments": valid}).stderr == ""


def test_foreign_delegate(host: Host) -> None:
    """[G-04, G-07] It takes a missing list for an empty one: then it is not called at all."""
    script = "#!/bin/sh\necho $CNI_COMMAND >> /run/verbs\n"
    host.run("mkdir", "/run/bin")
    host.run("sh", "-c", "cat > /run/bin/foreign; chmod +x /run/bin/foreign", stdin=script)
    config = BRIDGE | {"ipam": {"type": "foreign"}}
    env = {"CNI_PATH": "/run/bin"}
    assert "not passed on to /run/bin/foreign" in host.call("bridge", "GC", config, env=env).stderr
    assert host.run("ls", "/run/verbs", check=False).status != 0
    listed = config | {"cni.dev/valid-attachments": []}
    assert host.call("bridge", "GC", listed, env=env).status == 0
    assert host.run("cat", "/run/verbs").stdout == "GC\n"


def test_an_earlier_boot(host: Host) -> None:
    """[W-HL1] A dry run tells what is of an earlier boot, and leaves it for the next call."""
    container = host.container("c1")
    host.add("bridge", BRIDGE, container)
    owners = "/var/lib/cni/networks/.cni-py/net1"
    boot = host.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()
    edit = f"find {owners} -type f | xargs sed -i s/{boot}/00000000-0000-0000-0000-000000000000/"
    host.run("sh", "-c", edit)
    found = collect(host, "--dry-run", chain=[BRIDGE])
    assert [(one["what"], one["why"]) for one in found] == [
        ("address 10.1.2.2 of id-c1", "it is of an earlier boot")
    ]
    assert list(host.allocated("net1")) == ["10.1.2.2"]
    collect(host, chain=[BRIDGE])
    assert host.allocated("net1") == {}


@pytest.mark.parametrize(
    ("text", "msg"),
    [
        ("{", "error parsing configuration list: Input data was truncated"),
        ("[]", "error parsing configuration list: expected an object, got array"),
        ('{"name": "net1", "plugins": 5}', "invalid plugins type int"),
        ('{"plugins": [{"type": "bridge"}]}', "error parsing configuration list: no name"),
    ],
)
def test_bad_configuration(host: Host, text: str, msg: str) -> None:
    host.run("tee", "/run/bad", stdin=text)
    outcome = host.run(CNI_PY, "gc", "/run/bad", check=False)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert msg in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_bad_list(host: Host) -> None:
    host.run("tee", "/run/net1", stdin=json.dumps(BRIDGE))
    outcome = host.run(CNI_PY, "gc", "/run/net1", "--valid", "c1", check=False)
    assert outcome.status == 2
    assert "c1 is no attachment" in outcome.stderr
