"""Much of everything: a clear answer, in bounded time and memory."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.spec.limits import MOST_DELEGATE_BYTES, MOST_INPUT_BYTES
from fixtures.configs import ipam, l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, Host, refusal
from fixtures.ports import ask, bridged, mapping, outside, portmap, serving

if TYPE_CHECKING:
    from fixtures.host import Container

MIB = 1024 * 1024
# Of address space, in KiB; an ordinary ADD has a third of it.
_MOST_KIB = 400 * 1024
_MEASURED = f'ulimit -v {_MOST_KIB}; exec "$0"'


def call(
    host: Host, config: bytes, container: Container, *, path: str = str(BIN)
) -> dict[str, Any]:
    """What an ADD by bridge answers that has no server, and little memory."""
    environ = container.environ("ADD", path=path) | {"CNI_PY_SOCKET": ""}
    done = host.run(
        *("sh", "-c", _MEASURED, f"{BIN}/bridge"), stdin=config, env=environ, check=False
    )
    answer: dict[str, Any] = done.json
    return answer


def test_input_of_a_hundred_megabytes(host: Host) -> None:
    """No more is read than the limit."""
    container = host.container()
    config = json.dumps(l3(padding="x" * (100 * MIB))).encode()
    answer = call(host, config, container)
    assert answer["code"] == 5
    assert answer["msg"] == f"the network configuration has more than {MOST_INPUT_BYTES} bytes"


def test_input_without_an_end(host: Host) -> None:
    """The server's worker too ends such a call, and the launcher, which keeps a DEL's input."""
    host.serve()
    container = host.container()
    command = f"exec {BIN}/bridge < /dev/zero"
    for verb in ("ADD", "DEL"):
        done = host.run("sh", "-c", command, env=container.environ(verb), check=False)
        answer = json.loads(done.stdout)
        assert answer["code"] == 5
        assert f"more than {MOST_INPUT_BYTES} bytes" in answer["msg"]
    host.add("bridge", l3(), container)


def test_the_largest_input(host: Host) -> None:
    """What is just within the limit works; GC's list of 60,000 is a third of it."""
    container = host.container()
    config = l3(padding="")
    config["padding"] = "x" * (MOST_INPUT_BYTES - len(json.dumps(config)))
    assert len(json.dumps(config)) == MOST_INPUT_BYTES
    host.add("bridge", config, container)
    valid = [{"containerID": f"{number:064x}", "ifname": "eth0"} for number in range(60_000)]
    valid.append({"containerID": container.id, "ifname": "eth0"})
    collected = json.dumps(l3() | {"cni.dev/valid-attachments": valid})
    assert len(collected) < MOST_INPUT_BYTES // 2
    assert host.call("bridge", "GC", collected).status == 0
    assert container.addresses() == ["10.1.2.2/24"]


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"ipam":[{"x":'])
def test_deep_nesting(host: Host, opening: str) -> None:
    """A million levels are an error of the decoder, not of the stack."""
    container = host.container()
    for config in (opening * 1_000_000, '{"name":"net1","args":' + opening * 1_000_000):
        error = refusal(host.call("bridge", "ADD", config, container))
        assert error["code"] in (6, 7)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ('"mtu": 1e400', 6),
        ('"mtu": 1e300', 7),
        ('"mtu": -1', 7),
        ('"mtu": 1' + "0" * 5000, 6),
        ('"vlan": 18446744073709551617', 7),
        ('"mtu": NaN', 6),
        ('"mtu": 1.5', 7),
        ('"mtu": true', 7),
    ],
)
def test_numbers(host: Host, keys: str, code: int) -> None:
    config = json.dumps(l3())[:-1] + f", {keys}}}"
    container = host.container()
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", config, container))
    assert error["code"] == code, error
    assert len(error["msg"]) + len(error.get("details", "")) < 500
    assert differences(before, dump(host)) == ""


def test_a_key_that_stands_twice(host: Host) -> None:
    """The last one counts, as for the reference; a name of a network is checked after that."""
    config = '{"name":"net1",' + json.dumps(l3(name="../x"))[1:]
    assert refusal(host.call("bridge", "ADD", config, host.container()))["code"] == 7
    container = host.container("c2")
    host.call("bridge", "DEL", json.dumps(l3())[:-1] + ',"name":"net1"}', container)


SCRIPTS = {
    "stdout": "exec yes",
    "json without an end": "printf '{\"cniVersion\":\"'; exec yes ''",
    "both": "yes >&2 & exec yes",
}


@pytest.fixture
def hostile(host: Host) -> Host:
    """A host whose IPAM plugin is a script that the test writes."""
    host.run("mkdir", "-p", "/run/hostile")
    return host


def install(host: Host, script: str) -> str:
    """Make it the delegate `hostile`; the CNI_PATH."""
    text = f'#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\n{script}\n'
    host.run("sh", "-c", "cat > /run/hostile/hostile; chmod +x /run/hostile/hostile", stdin=text)
    return f"/run/hostile:{BIN}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_delegate_that_writes_without_an_end(hostile: Host, script: str) -> None:
    """It is ended at the limit, and the ADD is undone."""
    path = install(hostile, SCRIPTS[script])
    container = hostile.container()
    config = json.dumps(l3(ipam={"type": "hostile"})).encode()
    answer = call(hostile, config, container, path=path)
    assert f"it wrote more than {MOST_DELEGATE_BYTES} bytes to stdout" in answer["msg"]
    assert hostile.ports() == []
    assert "eth0" not in [one["ifname"] for one in container.ip("link")]


def test_delegate_with_much_to_say_on_stderr(hostile: Host) -> None:
    """What is more than the limit is dropped, and the call goes on."""
    address = '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.99/24"}]}'
    path = install(hostile, f"yes | head -c {300 * MIB} >&2; echo '{address}'")
    container = hostile.container()
    config = l3(ipam={"type": "hostile"})
    answer = call(hostile, json.dumps(config).encode(), container, path=path)
    assert answer["ips"][0]["address"] == "10.1.2.99/24"
    hostile.path = path
    hostile.delete("bridge", config, container)


def test_delegate_that_never_ends(hostile: Host) -> None:
    """The runtime's SIGTERM, or the server's limit for a call, ends both; nothing stays."""
    hostile.serve("--call-seconds", "1")
    hostile.path = install(hostile, "exec sleep 1000")
    container = hostile.container()
    error = refusal(hostile.call("bridge", "ADD", l3(ipam={"type": "hostile"}), container))
    assert error["code"] == 11
    assert hostile.ports() == []
    running = hostile.run("sh", "-c", "ps -eo args | grep -c '[s]leep 1000'", check=False)
    assert running.stdout.strip() == "0"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_ten_thousand_ports(host: Host, backend: str) -> None:
    """They work, in seconds, and DEL takes all of them away."""
    machine, container = outside(host), host.container()
    result = host.add("bridge", bridged(), container)
    ports = [mapping(20_000 + number) for number in range(10_000)]
    config = portmap(*ports, prevResult=result, backend=backend)
    before = time.monotonic()
    host.add("portmap", config, container)
    taken = time.monotonic() - before
    with serving(container):
        assert ask(machine, "192.0.2.1", port=29_999) == ["c1 192.0.2.2"]
    before = time.monotonic()
    host.delete("portmap", config, container)
    taken += time.monotonic() - before
    assert taken < 60
    assert "29999" not in host.nft()


def test_many_addresses_asked_for(host: Host) -> None:
    """A pod that asks for 10,000 addresses gets a refusal, and none of them."""
    asked = [f"10.1.{number // 250}.{number % 250 + 2}/16" for number in range(10_000)]
    config = ipam(ranges=[[{"subnet": "10.1.0.0/16"}]]) | {"args": {"cni": {"ips": asked}}}
    error = refusal(host.call("host-local", "ADD", config, host.container()))
    assert error["code"] == 7
    assert host.allocated("net1") == {}
