"""host-local beside the reference plugin: the same answers, the same files, in either's hands.

The reference is Debian's package containernetworking-plugins.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fixtures.configs import ipam
from fixtures.host import Container, refusal

# The newest version of the protocol that the reference speaks.
OLDER = {"cniVersion": "1.0.0"}
SMALL = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]]) | OLDER
NETWORKS = "/var/lib/cni/networks"


@pytest.fixture
def go(host):
    """The same host, with the reference's executables."""
    return replace(host, path="/usr/lib/cni")


def folder(host, path=f"{NETWORKS}/net1"):
    """A folder of the host, as this process sees it."""
    return Path(f"/proc/{host.holder.pid}/root{path}")


def box(host, name):
    """A container whose namespace does not matter."""
    return Container(host, name, f"/run/netns/{name}")


def add(host, name, config=SMALL):
    (given,) = host.add("host-local", config, box(host, name))["ips"]
    return given["address"].partition("/")[0]


# What both refuse, in the same words, and what only ours adds: the place.

HOST_BITS = (
    "Network has host bits set. For a subnet mask of length 24 the network address is 10.0.0.0"
)
INVALID = [
    ([[]], "invalid range set 0: empty range set", "ipam.ranges[0] has at least one range"),
    ([], "no IP ranges specified", "ipam.ranges has at least one range set"),
    (
        [[{"subnet": "10.0.0.0/31"}]],
        "invalid range set 0: Network 10.0.0.0/31 too small to allocate from",
        "ipam.ranges[0][0].subnet needs at least 2 host bits",
    ),
    (
        [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/127"}]],
        "invalid range set 1: Network fd00::/127 too small to allocate from",
        "ipam.ranges[1][0].subnet needs at least 2 host bits",
    ),
    (
        [[{"subnet": "10.0.0.9/24"}]],
        f"invalid range set 0: {HOST_BITS}",
        "ipam.ranges[0][0].subnet is 10.0.0.9/24",
    ),
    (
        [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]],
        "invalid range set 0: RangeStart 10.0.1.1 not in network 10.0.0.0/24",
        "ipam.ranges[0][0].rangeStart",
    ),
    (
        [[{"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}]],
        "invalid range set 0: RangeEnd fd00::1 not in network 10.0.0.0/24",
        "ipam.ranges[0][0].rangeEnd",
    ),
    (
        [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}]],
        "invalid range set 0: RangeStart 10.0.0.9 not in network 10.0.0.0/24",
        "ipam.ranges[0][0] ends before it starts",
    ),
    (
        [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]],
        "invalid range set 0: mixed address families",
        "ipam.ranges[0] has IPv4 and IPv6 subnets: give each its own range set",
    ),
    (
        [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"}]],
        "invalid range set 0: subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.126 overlap",
        "ipam.ranges[0]",
    ),
    (
        [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]],
        "range set 0 overlaps with 1",
        "ipam.ranges[0] and ipam.ranges[1]",
    ),
]
INVALID_FOR_US = [
    (
        [[{"subnet": "10.0.0.0/24", "gateway": "fd00::1"}]],
        "invalid range set 0: gateway fd00::1 is not of the family of 10.0.0.0/24",
        "ipam.ranges[0][0].gateway",
    ),
    (
        [[{"rangeStart": "10.0.0.1"}]],
        "invalid configuration: $.ipam.ranges[0][0]: Object missing required field `subnet`",
        'got {"rangeStart":"10.0.0.1"}',
    ),
    (
        [[{"subnet": "10.0.0.0"}]],
        "invalid configuration: $.ipam.ranges[0][0].subnet: invalid CIDR address: 10.0.0.0",
        'got "10.0.0.0"',
    ),
]


@pytest.mark.parametrize(("ranges", "msg", "details"), INVALID)
def test_invalid_ranges(host, go, ranges, msg, details):
    """[5.1.2] Code 7, the reference's words, and where it is wrong; nothing is made on disk."""
    config = ipam(ranges=ranges)
    for verb in ("ADD", "CHECK", "STATUS"):
        error = refusal(host.call("host-local", verb, config, box(host, "a")))
        assert (error["code"], error["msg"], error["details"]) == (7, msg, details)
    assert list(folder(host, NETWORKS).iterdir()) == []
    theirs = refusal(go.call("host-local", "ADD", config | OLDER, box(host, "a")))
    assert theirs["msg"] == msg


@pytest.mark.parametrize(("ranges", "msg", "details"), INVALID_FOR_US)
def test_invalid_ranges_that_the_reference_misreads(host, ranges, msg, details):
    """[5.1.2] Code 7 and the JSON path."""
    error = refusal(host.call("host-local", "ADD", ipam(ranges=ranges), box(host, "a")))
    assert (error["code"], error["msg"], error["details"]) == (7, msg, details)


# The same calls, each to both.


class Pair:
    """Both plugins, each with a data folder of its own, on one host."""

    def __init__(self, host, base):
        self.host, self.base = host, base
        self.sides = {"ours": host, "theirs": replace(host, path="/usr/lib/cni")}

    def call(self, verb, name, config, ifname="eth0", args=""):
        """One call of both, which must come to the same; returns the addresses."""
        outcomes = {}
        for side, host in self.sides.items():
            config["ipam"]["dataDir"] = f"{self.base}/{side}"
            env = {"CNI_ARGS": args}
            outcomes[side] = host.call("host-local", verb, config, box(host, name), ifname, env)
        ours, theirs = outcomes["ours"], outcomes["theirs"]
        assert ours.status == theirs.status, outcomes
        assert self.files("ours") == self.files("theirs")
        if theirs.status != 0:
            # The reference says at which of its steps: `failed to allocate for range 0: ...`.
            assert theirs.json["msg"].endswith(ours.json["msg"]), outcomes
        elif verb == "ADD":
            assert without_empty_dns(ours.json) == without_empty_dns(theirs.json)
            return ours.json
        return None

    def files(self, side):
        network = folder(self.host, f"{self.base}/{side}/net1")
        if not network.exists():
            return {}
        # Not the modes: Debian's version is one of those that wrote 0644.
        content = {one.name: one.read_bytes() for one in network.iterdir()}
        # A folder without addresses is as good as none: ours makes it later, for fewer verbs.
        return {} if set(content) == {"lock"} else content


def without_empty_dns(result):
    return {key: value for key, value in result.items() if (key, value) != ("dns", {})}


CONFIGS = {
    "one range": ipam(ranges=[[{"subnet": "10.0.0.0/29"}]]),
    "older form": ipam(
        subnet="10.0.0.0/24", rangeStart="10.0.0.9", rangeEnd="10.0.0.12", gateway="10.0.0.10"
    ),
    "older form and ranges": ipam(subnet="10.0.0.0/24", ranges=[[{"subnet": "10.0.1.0/24"}]]),
    "two ranges": ipam(ranges=[[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]),
    "dual stack": ipam(ranges=[[{"subnet": "10.0.0.0/24"}], [{"subnet": "2001:DB8::/64"}]]),
    "small IPv6": ipam(ranges=[[{"subnet": "fd00::/126"}]]),
    "middle of IPv6": ipam(ranges=[[{"subnet": "fd00::/64", "rangeStart": "fd00::ffff:fffe"}]]),
    "gateway elsewhere": ipam(ranges=[[{"subnet": "10.0.0.0/29", "gateway": "192.0.2.1"}]]),
    "network address": ipam(ranges=[[{"subnet": "10.0.0.0/30", "rangeStart": "10.0.0.0"}]]),
    "broadcast address": ipam(ranges=[[{"subnet": "10.0.0.0/30", "rangeEnd": "10.0.0.3"}]]),
    "mapped IPv6": ipam(ranges=[[{"subnet": "10.0.0.0/29", "rangeStart": "::ffff:10.0.0.4"}]]),
    "spelling": ipam(RANGES=[[{"Subnet": "10.0.0.0/29", "RANGESTART": "10.0.0.3"}]]),
    "routes": ipam(
        subnet="10.0.0.0/29", routes=[{"dst": "0.0.0.0/0"}, {"dst": "fd00::/8", "gw": "fd00::1"}]
    ),
    "runtime's ranges": ipam(subnet="10.0.0.0/29")
    | {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/29"}]]}},
    "requested by metadata": ipam(subnet="10.0.0.0/29") | {"args": {"cni": {"ips": ["10.0.0.4"]}}},
    "requested by capability": ipam(ranges=[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]])
    | {"runtimeConfig": {"ips": ["fd00::9/64", "10.0.0.6"]}},
    "0.2.0": ipam(subnet="10.0.0.0/29", routes=[{"dst": "0.0.0.0/0"}]) | {"cniVersion": "0.2.0"},
    "0.4.0": ipam(subnet="fd00::/64") | {"cniVersion": "0.4.0"},
    "resolv.conf": ipam(subnet="10.0.0.0/29", resolvConf="/run/resolv"),
}


TWICE = "ADD a "
STEPS = ("ADD a", "ADD b", TWICE, "DEL a", "ADD c", "DEL b", "ADD d", "ADD e", "DEL z")


@pytest.mark.parametrize("which", CONFIGS)
def test_the_same_results_and_files(host, which):
    """[5.1.2] [5.1.3] [5.1.4] Over a sequence of ADDs and DELs that fills small ranges."""
    folder(host, "/run/resolv").write_text("search a b\nnameserver 192.0.2.1 x\ndomain c\n#\n")
    config = json.loads(json.dumps(CONFIGS[which]))
    if config["cniVersion"] == "1.1.0":
        config |= OLDER
    pair = Pair(host, "/run/pair")
    for step in STEPS:
        # Ours refuses an attachment that is there, also where it asks for an address (W-HL7).
        if step != TWICE or "requested" not in which:
            pair.call(*step.split(), config)


steps = st.tuples(
    st.sampled_from(("ADD", "ADD", "ADD", "DEL", "DEL")),
    st.sampled_from("abcd"),
    st.sampled_from(("eth0", "eth0", "net1")),
    st.sampled_from(("", "", "IP=10.0.0.3", "IP=10.0.1.2/30", "IP=10.0.0.1")),
)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(steps, min_size=4, max_size=9))
def test_any_sequence(host, sequence):
    """[5.1.4] [5.1.5] Against the reference, with requested addresses; then all is released."""
    config = ipam(ranges=[[{"subnet": "10.0.0.0/29"}, {"subnet": "10.0.1.0/30"}]]) | OLDER
    base = f"/run/{len(list(folder(host, '/run').iterdir()))}"
    pair = Pair(host, base)
    held = set()
    for verb, name, ifname, args in sequence:
        # Ours refuses an attachment that is there, also where it asks for an address (W-HL7).
        if verb == "ADD" and (name, ifname) in held and args:
            continue
        result = pair.call(verb, name, config, ifname, args if verb == "ADD" else "")
        if result is not None:
            held.add((name, ifname))
        elif verb == "DEL":
            held.discard((name, ifname))


# One folder, used by both.


def test_either_releases_what_the_other_allocated(host, go):
    """[5.1.3] [5.1.5]"""
    assert [add(host, "a"), add(go, "b"), add(host, "c")] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    go.delete("host-local", SMALL, box(host, "a"))
    host.delete("host-local", SMALL, box(host, "b"))
    assert host.allocated("net1") == {"10.0.0.4": "c\r\neth0"}


def test_what_the_reference_frees_is_given_again(host, go):
    """[W-HL2] The index notices: no address stays taken, none is given twice."""
    assert [add(host, name) for name in "abcde"] == [f"10.0.0.{n}" for n in range(2, 7)]
    go.delete("host-local", SMALL, box(host, "c"))
    assert add(host, "f") == "10.0.0.4"
    go.delete("host-local", SMALL, box(host, "a"))
    go.delete("host-local", SMALL, box(host, "b"))
    assert add(go, "g") == "10.0.0.2"
    assert add(host, "h") == "10.0.0.3"
    assert refusal(host.call("host-local", "STATUS", SMALL | {"cniVersion": "1.1.0"}))["code"] == 50


def test_what_the_reference_wrote_is_checked_collected_and_released(host, go):
    """[5.1.5] [W-HL6]"""
    result = go.add("host-local", SMALL, box(host, "a"))
    add(go, "b")
    checked = SMALL | {"prevResult": result}
    assert host.call("host-local", "CHECK", checked, box(host, "a")).status == 0
    error = refusal(host.call("host-local", "CHECK", checked, box(host, "b")))
    assert error["msg"] == "host-local: address 10.0.0.2 is not allocated to b"
    again = refusal(host.call("host-local", "ADD", SMALL, box(host, "a")))
    assert again["details"].startswith("interface eth0 in an unknown namespace")
    valid = [{"containerID": "a", "ifname": "eth0"}]
    listed = SMALL | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    assert host.call("host-local", "GC", listed).status == 0
    assert host.allocated("net1") == {"10.0.0.2": "a\r\neth0"}
    host.delete("host-local", SMALL, box(host, "a"))
    assert host.allocated("net1") == {}
    # What ours allocated passes the reference's own CHECK.
    result = host.add("host-local", SMALL, box(host, "c"))
    assert (
        go.call("host-local", "CHECK", SMALL | {"prevResult": result}, box(host, "c")).status == 0
    )


def test_del_of_a_file_of_long_ago(host):
    """[5.1.5] It names the container alone, and goes when none names the interface too."""
    folder(host).mkdir()
    (folder(host) / "10.0.0.4").write_bytes(b"a\n")
    (folder(host) / "10.0.0.5").write_bytes(b"a\r\neth0")
    host.delete("host-local", SMALL, box(host, "a"))
    assert list(host.allocated("net1")) == ["10.0.0.4"]
    host.delete("host-local", SMALL, box(host, "a"))
    assert host.allocated("net1") == {}


def test_forty_at_once(host, go):
    """[W-HL3] Ours and the reference's at the same time: forty addresses."""
    config = ipam(ranges=[[{"subnet": "10.2.0.0/24"}]]) | OLDER
    hosts = [(host, go)[number % 2] for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        given = list(pool.map(add, hosts, map("c{}".format, range(40)), [config] * 40))
    assert len(set(given)) == 40
    allocated = host.allocated("net1")
    assert allocated == {one: f"c{number}\r\neth0" for number, one in enumerate(given)}
    with ThreadPoolExecutor(40) as pool:
        others = [hosts[1 - number % 2] for number in range(40)]
        boxes = [box(host, f"c{number}") for number in range(40)]
        list(pool.map(lambda one, container: one.delete("host-local", config, container),
            others, boxes))  # fmt: skip
    assert host.allocated("net1") == {}
    host.attachments.clear()
    # Where the reference came last, our index learns of it now.
    host.delete("host-local", config, box(host, "c0"))
