"""services: what a container declares is written down, and gone with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.configs import l3
from fixtures.dump import differences, dump
from fixtures.host import Container, Host, refusal
from fixtures.leases import agent_running

FOLDER = "/run/cni-py/services"
WEB = {"name": "web", "port": 8080}
API = {"name": "api", "port": 9090, "metadata": {"version": "2"}, "check": {"type": "http"}}


def declared(result: Any = None, *services: Any, **keys: Any) -> dict[str, Any]:
    """A configuration in the chain."""
    config = {"cniVersion": "1.1.0", "name": "net1", "type": "services", "services": services}
    return config | keys | ({"prevResult": result} if result else {})


def attached(host: Host, name: str = "c1") -> tuple[Container, Any]:
    """A container on a bridge, and the result so far."""
    container = host.container(name)
    return container, host.add("bridge", l3(), container)


def files(host: Host) -> list[str]:
    return host.run("sh", "-c", f"ls {FOLDER} 2>/dev/null", check=False).stdout.split()


def written(host: Host) -> list[Any]:
    """What the declarations say."""
    texts = [host.run("cat", f"{FOLDER}/{one}").stdout for one in files(host)]
    return [json.loads(one)["declaration"] for one in texts]


def test_one_life(host: Host) -> None:
    """The result is passed on; the file is root's alone; CHECK sees it, DEL removes it."""
    container, result = attached(host)
    config = declared(result, WEB, API)
    assert host.add("services", config, container) == result
    (one,) = written(host)
    assert one["attachment"] == ["net1", "id-c1", "eth0"]
    assert one["addresses"] == [result["ips"][0]["address"].partition("/")[0]]
    assert one["services"] == [WEB, API]
    assert host.run("stat", "-c", "%a %u", f"{FOLDER}/{files(host)[0]}").stdout == "600 0\n"
    assert host.call("services", "CHECK", config, container).status == 0
    for _ in range(2):
        assert host.call("services", "DEL", config, container).status == 0
        assert files(host) == []
    error = refusal(host.call("services", "CHECK", config, container))
    assert error["msg"] == "the declaration of services differs"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, ["web"]),
        ({"args": {"cni": {"services": [API]}}}, ["api"]),
        ({"args": {"cni": {"services": []}}}, []),
        ({"runtimeConfig": {"services": [API]}, "args": {"cni": {"services": [WEB]}}}, ["api"]),
        (
            {
                "runtimeConfig": {
                    "io.kubernetes.cri.pod-annotations": {
                        "other": "x",
                        "cni-py.dev/services": json.dumps([API]),
                    }
                },
                "args": {"cni": {"services": [WEB]}},
            },
            ["api"],
        ),
    ],
)
def test_who_declares(host: Host, keys: dict[str, Any], names: list[str]) -> None:
    """The capability, then the annotation, then args, then the network's own."""
    container, result = attached(host)
    host.add("services", declared(result, WEB) | keys, container)
    found = [service["name"] for one in written(host) for service in one["services"]]
    assert found == names
    assert host.call("services", "CHECK", declared(result, WEB) | keys, container).status == 0


def test_again_with_other_services(host: Host) -> None:
    """The last ADD counts; CHECK tells what differs."""
    container, result = attached(host)
    host.add("services", declared(result, WEB), container)
    host.add("services", declared(result, API), container)
    assert [one["services"] for one in written(host)] == [[API]]
    error = refusal(host.call("services", "CHECK", declared(result, WEB), container))
    assert error["details"] == "expected web 8080/tcp, found api 9090/tcp"
    host.add("services", declared(result), container)
    assert files(host) == []


def test_without_an_address(host: Host) -> None:
    """Nobody could be led to it."""
    container, result = attached(host)
    before = dump(host)
    config = declared({**result, "ips": []}, WEB)
    error = refusal(host.call("services", "ADD", config, container))
    assert (error["code"], error["msg"]) == (7, "No IP addresses supplied on interface: eth0")
    assert differences(before, dump(host)) == ""


def test_status(host: Host) -> None:
    """51 where nobody reads the declarations, 50 where ADD would refuse them."""
    error = refusal(host.call("services", "STATUS", declared(None, WEB)))
    assert error["code"] == 51
    assert error["details"] == "cni-py agent --services keeps them"
    with agent_running(host):
        assert host.call("services", "STATUS", declared(None, WEB)).status == 0
        error = refusal(host.call("services", "STATUS", declared(None, WEB | {"port": 0})))
        assert error["code"] == 50
    assert refusal(host.call("services", "STATUS", declared(None, WEB)))["code"] == 51


def test_gc(host: Host) -> None:
    """By the list; without one, what has lost its namespace."""
    made = [attached(host, name) for name in ("c1", "c2", "c3")]
    for container, result in made:
        host.add("services", declared(result, WEB), container)
    valid = [{"containerID": one, "ifname": "eth0"} for one in ("id-c2", "id-c3")]
    config = declared(None, WEB) | {"cni.dev/valid-attachments": valid}
    assert host.call("services", "GC", config).status == 0
    assert sorted(one["attachment"][1] for one in written(host)) == ["id-c2", "id-c3"]
    host.call("bridge", "DEL", l3(), made[1][0])
    host.run("ip", "netns", "delete", "c2")
    assert host.call("services", "GC", declared(None, WEB)).status == 0
    assert [one["attachment"][1] for one in written(host)] == ["id-c3"]


def test_damaged(host: Host) -> None:
    """DEL does without what it cannot read, and nothing stays."""
    container, result = attached(host)
    host.add("services", declared(result, WEB), container)
    host.run("tee", f"{FOLDER}/{files(host)[0]}", stdin='{"attachment": [')
    assert host.call("services", "DEL", declared(result, WEB), container).status == 0
    assert host.run("find", FOLDER, "-type", "f").stdout == ""
