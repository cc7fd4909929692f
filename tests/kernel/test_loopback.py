"""loopback: a container's `lo` (plugins.md 3.7)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest

from fixtures.configs import l3
from fixtures.dump import differences, dump
from fixtures.host import Container, Host, refusal

CONFIG = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}
V4, V6 = "127.0.0.1/8", "::1/128"


def lo(container: Container) -> tuple[bool, list[str]]:
    """Whether `lo` is up, and its addresses."""
    shown = container.ip("addr", "show", "dev", "lo")[0]
    listed = [f"{one['local']}/{one['prefixlen']}" for one in shown["addr_info"]]
    return "UP" in shown["flags"], listed


def test_worked_example(host: Host) -> None:
    """[A.18] [A-01] Up, with the addresses of both families; CNI_IFNAME is not looked at."""
    container = host.container("c1")
    assert lo(container) == (False, [])
    before = dump(host)
    result = host.add("loopback", CONFIG, container, "eth7")
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/c1"}],
        "ips": [{"interface": 0, "address": V4}, {"interface": 0, "address": V6}],
    }
    assert lo(container) == (True, [V4, V6])
    assert container.reaches("127.0.0.1")
    assert container.reaches("::1")
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize("scope", ["all", "default", "lo"])
def test_ipv6_that_was_disabled(host: Host, scope: str) -> None:
    """[W-LO1] `::1` is there whatever the container's parameters said before."""
    container = host.container("c1")
    container.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
    result = host.add("loopback", CONFIG, container)
    assert [one["address"] for one in result["ips"]] == [V4, V6]
    assert lo(container) == (True, [V4, V6])
    if scope == "all":
        assert container.sysctl("net/ipv6/conf/default/disable_ipv6") == "1"


def test_every_address_is_reported(host: Host) -> None:
    """[W-LO1] Not the first of each family alone."""
    container = host.container("c1")
    for address in ("127.0.0.53/8", "127.9.0.1/32"):
        container.run("ip", "addr", "add", address, "dev", "lo")
    result = host.add("loopback", CONFIG, container)
    listed = [one["address"] for one in result["ips"]]
    assert listed == [V4, "127.0.0.53/8", "127.9.0.1/32", V6]


@pytest.mark.parametrize("address", ["192.0.2.1/32", "2001:db8::1/128"])
def test_foreign_address(host: Host, address: str) -> None:
    """[3.7] Refused by name, and `lo` stays as it was."""
    container = host.container("c1")
    container.run("ip", "addr", "add", address, "dev", "lo")
    before = lo(container)
    error = refusal(host.call("loopback", "ADD", CONFIG, container))
    assert error["code"] == 999
    assert error["msg"] == f'loopback interface found with non-loopback address "{address}"'
    assert lo(container) == before


def test_result_in_every_version(host: Host) -> None:
    """[A-05] [R-01] The configuration's version and its shape."""
    container = host.container("c1")
    results = {
        version: host.add("loopback", CONFIG | {"cniVersion": version}, container)
        for version in ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
    }
    for version in ("0.1.0", "0.2.0"):
        expected = {"ip4": {"ip": V4}, "ip6": {"ip": V6}, "dns": {}}
        assert results[version] == {"cniVersion": version, **expected}
    interface = {"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/c1"}
    four = {"version": "4", "interface": 0, "address": V4}
    six = {"version": "6", "interface": 0, "address": V6}
    for version in ("0.3.0", "0.3.1", "0.4.0"):
        expected = {"interfaces": [interface], "ips": [four, six], "dns": {}}
        assert results[version] == {"cniVersion": version, **expected}
    assert results["1.0.0"] == results["1.1.0"] | {"cniVersion": "1.0.0"}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_as_the_reference(host: Host, version: str) -> None:
    """[3.7] The same interface, addresses and link as Debian's plugin, in both directions.

    That release of it leaves out `ips[].version`, and writes an empty `dns` in 1.0.0.
    """
    config = CONFIG | {"cniVersion": version}
    reference = replace(host, path="/usr/lib/cni")
    ours, theirs = host.container("ours"), host.container("theirs")
    result = host.add("loopback", config, ours)
    other = reference.call("loopback", "ADD", config, theirs).json
    assert other["interfaces"] == [result["interfaces"][0] | {"sandbox": theirs.netns}]
    without_family = [
        {key: value for key, value in one.items() if key != "version"} for one in result["ips"]
    ]
    assert other["ips"] == without_family
    assert lo(theirs) == lo(ours)
    if version != "0.3.1":
        assert host.call("loopback", "CHECK", config, theirs).status == 0
        assert reference.call("loopback", "CHECK", config, ours).status == 0
    host.delete("loopback", config, theirs)
    reference.delete("loopback", config, ours)
    assert not lo(theirs)[0]
    assert not lo(ours)[0]


DNS = {"nameservers": ["192.0.2.53"], "domain": "a.example", "search": ["b"], "options": ["c"]}
IPS = [
    {"interface": 1, "address": "198.51.100.9/25"},
    {"interface": 1, "address": "2001:db8::5/64", "gateway": "2001:db8::1"},
]
ROUTES = [{"dst": "0.0.0.0/0", "priority": 50, "table": 0}, {"dst": "::/0", "gw": "2001:db8::fe"}]
OLD = {
    "ip4": {"ip": "198.51.100.9/25", "routes": [{"dst": "0.0.0.0/0"}]},
    "ip6": {"ip": "2001:db8::5/64", "gateway": "2001:db8::1", "routes": [ROUTES[1]]},
    "dns": DNS,
}
MIDDLE = {
    "interfaces": [{"name": "br7"}, {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/x"}],
    "ips": [{"version": family, **one} for family, one in zip("46", IPS, strict=True)],
    "routes": ROUTES,
    "dns": DNS,
}
NEW = {
    "interfaces": [{"name": "br7"}, {"name": "eth0", "mtu": 1450, "sandbox": "/x", "pciID": "p"}],
    "ips": IPS,
    "routes": ROUTES,
    "dns": DNS,
}
PREVIOUS = {
    "0.1.0": OLD, "0.2.0": OLD, "0.3.0": MIDDLE, "0.3.1": MIDDLE, "0.4.0": MIDDLE,
    "1.0.0": NEW, "1.1.0": NEW,
}  # fmt: skip


@pytest.mark.parametrize("version", PREVIOUS)
@pytest.mark.parametrize("embedded", ["own", "", None, "family"])
def test_previous_result_is_passed_on(host: Host, version: str, embedded: str | None) -> None:
    """[A-03] [PR-04] [PR-05] [PR-07] As it came, relabelled with the configuration's version."""
    content = PREVIOUS[version]
    family = [one for one, other in PREVIOUS.items() if other is content and one != version]
    label = {"own": version, "family": family[0]}.get(embedded or "", embedded)
    config = CONFIG | {"cniVersion": version, "prevResult": {"cniVersion": label, **content}}
    result = host.add("loopback", config, host.container("c1"))
    assert result == {"cniVersion": version, **content}


@pytest.mark.parametrize(
    ("version", "previous", "msg"),
    [
        (
            "1.1.0",
            {"cniVersion": "0.4.0", "ips": []},
            'result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is "0.4.0"',
        ),
        (
            "0.4.0",
            {"cniVersion": "1.0.0"},
            'result type supports [0.3.0 0.3.1 0.4.0] but unmarshalled CNIVersion is "1.0.0"',
        ),
        (
            "0.2.0",
            {"cniVersion": "0.3.0"},
            'result type supports [ 0.1.0 0.2.0] but unmarshalled CNIVersion is "0.3.0"',
        ),
        ("1.1.0", [], "expected a result object, got array"),
        ("1.1.0", {"ips": [{"address": "10.0.0.1"}]}, "$.ips[0].address: invalid CIDR address"),
        ("1.1.0", {"ips": [{"address": None}]}, "$.ips[0]: Object missing required field `address"),
        ("1.1.0", {"ips": 5}, "$.ips: Expected `array`, got `int`"),
        ("1.1.0", {"interfaces": [{"name": True}]}, "$.interfaces[0].name: Expected `str`"),
    ],
)
def test_previous_result_that_cannot_be_read(
    host: Host, version: str, previous: Any, msg: str
) -> None:
    """[PR-04] [P-02] [P-06] ADD and CHECK refuse it before they act, DEL does without it."""
    container = host.container("c1")
    config = CONFIG | {"cniVersion": version, "prevResult": previous}
    for verb in ("ADD", "CHECK") if version >= "0.4.0" else ("ADD",):
        error = refusal(host.call("loopback", verb, config, container))
        assert error["code"] == 6
        assert error["msg"].startswith(f"could not parse prevResult: {msg}")
    assert lo(container) == (False, [])
    host.delete("loopback", config, container)


def test_empty_previous_result(host: Host) -> None:
    """[PR-06] `{}` is a result, `null` is none."""
    container = host.container("c1")
    assert host.add("loopback", CONFIG | {"prevResult": {}}, container) == {"cniVersion": "1.1.0"}
    result = host.add("loopback", CONFIG | {"prevResult": None}, container)
    assert result["interfaces"][0]["name"] == "lo"


def test_after_bridge(host: Host) -> None:
    """[PR-01] [A-04] In a chain, bridge's result is the chain's."""
    container = host.container("c1")
    result = host.add("bridge", l3(), container)
    assert host.add("loopback", CONFIG | {"prevResult": result}, container) == result
    assert lo(container)[0]


def test_check(host: Host) -> None:
    """[C-03] [C-04] Up right after ADD; a link that somebody set down is named."""
    container = host.container("c1")
    result = host.add("loopback", CONFIG, container)
    for keys in ({"prevResult": result}, {}):
        outcome = host.call("loopback", "CHECK", CONFIG | keys, container)
        assert (outcome.status, outcome.stdout) == (0, ""), outcome
    container.run("ip", "link", "set", "lo", "down")
    error = refusal(host.call("loopback", "CHECK", CONFIG | {"prevResult": result}, container))
    assert (error["code"], error["msg"]) == (999, "loopback interface is down")
    assert "/run/netns/c1" in error["details"]


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize("netns", ["/run/netns/missing", "/run/netns/plain", "/run", "relative"])
def test_without_a_namespace(host: Host, verb: str, netns: str) -> None:
    """[W-G4] Code 4 names the variable and the path, and the path is left alone."""
    host.run("touch", "/run/netns/plain")
    before = dump(host)
    error = refusal(host.call("loopback", verb, CONFIG, Container(host, "c1", netns)))
    assert error["code"] == 4
    assert f'CNI_NETNS "{netns}" is not a network namespace' in error["msg"]
    assert differences(before, dump(host)) == ""


def test_other_kinds_of_namespaces(host: Host) -> None:
    """[N-03] A namespace file of another kind is no network namespace."""
    container = Container(host, "c1", "/proc/self/ns/uts")
    assert refusal(host.call("loopback", "ADD", CONFIG, container))["code"] == 4
    host.delete("loopback", CONFIG, container)


def test_delete_sets_it_down(host: Host) -> None:
    """[DL-01] [DL-03] What ADD set up, and no more than that, as often as one likes."""
    container = host.container("c1")
    host.add("loopback", CONFIG, container)
    for _ in range(2):
        host.delete("loopback", CONFIG, container)
        assert lo(container)[0] is False


def test_add_twice(host: Host) -> None:
    """[W-G20] A second ADD finds `lo` up and says the same."""
    container = host.container("c1")
    first = host.add("loopback", CONFIG, container)
    assert host.add("loopback", CONFIG, container) == first


def test_namespace_of_a_process(host: Host) -> None:
    """[A-08] CNI_NETNS may be a process's entry, as CRI-O and cnitool give it."""
    command = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*host.prefix, *command], **streams) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        container = Container(host, "c1", f"/proc/{process.pid}/ns/net")
        result = host.add("loopback", CONFIG, container)
        assert result["interfaces"][0]["sandbox"] == container.netns
        assert lo(container)[0]
        process.stdin.close()
    # The process is gone, and with it the path.
    host.delete("loopback", CONFIG, container)
