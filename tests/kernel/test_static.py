"""static: the addresses that the configuration or the runtime names (plugins.md 5.2)."""

from dataclasses import replace

import pytest

from fixtures.configs import ipam
from fixtures.host import Container, refusal

FULL = ipam(
    "static",
    addresses=[
        {"address": "10.1.0.5/24", "gateway": "10.1.0.1"},
        {"address": "2001:DB8::5/64"},
    ],
    routes=[{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.9"}],
    dns={"nameservers": ["192.0.2.1"], "domain": "d", "search": ["s"], "options": ["o"]},
)
ONE = ipam("static", addresses=[{"address": "10.1.0.5/24"}])
ARGS = {"CNI_ARGS": "IP=10.2.0.5/24,fd00::5/64;GATEWAY=fd00::1,10.2.0.1"}


def box(host):
    """A container whose namespace does not matter."""
    return Container(host, "c1", "/run/netns/c1")


def call(host, verb, config, **env):
    return host.call("static", verb, config, box(host), env=env)


def addresses(host, config, **env):
    """What an ADD gives: each address with its gateway."""
    listed = host.add("static", config, box(host), env=env)["ips"]
    return [(one["address"], one.get("gateway")) for one in listed]


def refused(host, config, verb="ADD", **env):
    error = refusal(call(host, verb, config, **env))
    return error["code"], error["msg"], error.get("details")


def test_result(host):
    """[5.2] Addresses keep their host part; routes and dns as configured; nothing on disk."""
    assert host.add("static", FULL, box(host)) == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.1.0.5/24", "gateway": "10.1.0.1"},
            {"address": "2001:db8::5/64"},
        ],
        "routes": FULL["ipam"]["routes"],
        "dns": FULL["ipam"]["dns"],
    }
    host.delete("static", FULL, box(host))
    assert host.files("/var/lib/cni") == {}


def test_args_add_to_the_configured(host):
    """[5.2] CNI_ARGS IP; each gets the GATEWAY that is in its subnet, the configured ones none."""
    assert addresses(host, ONE, CNI_ARGS=ARGS["CNI_ARGS"]) == [
        ("10.1.0.5/24", None),
        ("10.2.0.5/24", "10.2.0.1"),
        ("fd00::5/64", "fd00::1"),
    ]
    spaced = "IgnoreUnknown=1;K8S_POD_NAME=p;IP= 10.2.0.5/24 , 10.3.0.5/24;GATEWAY= 10.1.0.1"
    assert addresses(host, ipam("static"), CNI_ARGS=spaced) == [
        ("10.2.0.5/24", None),
        ("10.3.0.5/24", None),
    ]


def test_the_runtimes_addresses_replace(host):
    """[5.2] args.cni.ips all that came before, and the capability `ips` those; an empty list no."""
    metadata = ONE | {"args": {"cni": {"ips": ["10.4.0.5/24"]}}}
    assert addresses(host, metadata, **ARGS) == [("10.4.0.5/24", None)]
    both = metadata | {"runtimeConfig": {"ips": ["10.5.0.5/24", "fd00::9/64"]}}
    assert addresses(host, both, **ARGS) == [("10.5.0.5/24", None), ("fd00::9/64", None)]
    empty = ONE | {"args": {"cni": {"ips": []}}, "runtimeConfig": {"ips": []}}
    assert addresses(host, empty) == [("10.1.0.5/24", None)]


def test_refusals(host):
    """[5.2] [5.1.2] What is wrong, and where it stands."""
    text = "the 'ip' field is expected to be in CIDR notation, got: '10.2.0.5'"
    wrong = {"CNI_ARGS": "IP=10.2.0.5"}
    assert refused(host, ONE, **wrong) == (7, text, "in CNI_ARGS IP")
    wrong = {"CNI_ARGS": "IP=10.2.0.5/24;GATEWAY=10.2.0"}
    gateway = "invalid gateway address: 10.2.0"
    assert refused(host, ONE, **wrong) == (7, gateway, "in CNI_ARGS GATEWAY")
    text = "an entry in the 'ips' field is NOT in CIDR notation, got: '10.2.0.5'"
    wrong = ONE | {"args": {"cni": {"ips": ["10.2.0.5"]}}}
    assert refused(host, wrong) == (7, text, "in args.cni.ips")
    wrong = ONE | {"runtimeConfig": {"ips": ["10.2.0.5"]}}
    assert refused(host, wrong) == (7, text, "in runtimeConfig.ips")
    wrong = ipam("static", addresses=[{"address": "10.1.0.5/24"}, {"address": "10.1.0.5"}])
    code, msg, details = refused(host, wrong)
    assert (code, details) == (7, 'got "10.1.0.5"')
    assert "$.ipam.addresses[1].address: invalid CIDR address: 10.1.0.5" in msg
    wrong = ipam("static", addresses=[{"address": "10.1.0.5/24", "gateway": "10.1"}])
    assert "$.ipam.addresses[0].gateway: invalid IP address: 10.1" in refused(host, wrong)[1]
    two = ipam("static", addresses=[{"address": "10.1.0.5/24"}, {"address": "10.1.0.6/24"}])
    text = "CNI version 0.2.0 does not support more than 1 address per family"
    assert refused(host, two | {"cniVersion": "0.2.0"})[:2] == (7, text)
    assert len(addresses(host, two)) == 2


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS"])
def test_ipam_missing(host, verb):
    """[5.2]"""
    config = {"cniVersion": "1.1.0", "name": "net1", "type": "x"}
    assert refused(host, config, verb)[:2] == (7, "IPAM config missing 'ipam' key")
    if verb == "STATUS":
        assert call(host, verb, ONE).status == 0


def test_no_address_at_all(host):
    """[5.2] Allowed here, where the protocol's version can say it."""
    assert host.add("static", ipam("static"), box(host)) == {"cniVersion": "1.1.0"}
    error = refusal(call(host, "ADD", ipam("static") | {"cniVersion": "0.2.0"}))
    assert error["msg"] == "cannot convert: no valid IP addresses"


def test_check(host):
    """[W-ST1] Each address and its gateway stand in prevResult: an absent one is an error."""
    result = host.add("static", FULL, box(host))

    def checked(*ips, config=FULL):
        return config | {"prevResult": result | {"ips": list(ips)}}

    first, second = result["ips"]
    foreign = {"address": "192.0.2.9/24"}
    for fine in (
        checked(first, second),
        checked(foreign, second, first),
        checked(first | {"gateway": "10.1.0.7"}, config=ONE),
    ):
        outcome = call(host, "CHECK", fine)
        assert outcome.status == 0, outcome
    assert refused(host, checked(first), "CHECK") == (
        999,
        "static: address 2001:db8::5/64 is not in prevResult",
        "prevResult has 10.1.0.5/24",
    )
    wrong = checked(first | {"address": "10.1.0.5/16"}, second)
    assert refused(host, wrong, "CHECK")[1] == "static: address 10.1.0.5/24 is not in prevResult"
    text = "static: Failed to match addr 10.1.0.5/24: its gateway differs"
    for gateway, shown in (({"gateway": "10.1.0.7"}, "10.1.0.7"), ({}, "none")):
        wrong = checked({"address": "10.1.0.5/24"} | gateway, second)
        details = f"configured 10.1.0.1, prevResult has {shown}"
        assert refused(host, wrong, "CHECK") == (999, text, details)
    assert refused(host, FULL, "CHECK")[:2] == (7, "Required prevResult missing")


def test_del_and_gc_read_nothing(host):
    """[5.2] [W-G2] Whatever the configuration has become."""
    broken = {"cniVersion": "1.1.0", "name": "net1", "type": "x", "ipam": {"addresses": 7}}
    for _ in range(2):
        assert call(host, "DEL", broken, CNI_ARGS="not;args").status == 0
    assert call(host, "GC", broken | {"cni.dev/valid-attachments": []}).status == 0


MAPPED = {"address": "10.1.0.5/24", "gateway": "::ffff:10.1.0.1"}
CASES = {
    "full": (FULL, ""),
    "host part": (ipam("static", addresses=[{"address": "fd00::1:0:5/127"}]), ""),
    "single address": (ipam("static", addresses=[{"address": "192.0.2.1/32"}]), ""),
    "mapped": (ipam("static", addresses=[MAPPED]), ""),
    "args": (ONE, ARGS["CNI_ARGS"]),
    "args alone": (ipam("static"), ARGS["CNI_ARGS"]),
    "unknown args": (ONE, "FOO=1"),
    "gateway of no subnet": (ONE, "IP=10.2.0.5/24;GATEWAY=10.3.0.1"),
    "gateway alone": (ONE, "GATEWAY=10.1.0.1"),
    "wrong args": (ONE, "IP=10.2.0.5/33"),
    "wrong gateway": (ONE, "GATEWAY=x"),
    "metadata": (FULL | {"args": {"cni": {"ips": ["10.4.0.5/24"]}}}, ARGS["CNI_ARGS"]),
    "wrong metadata": (FULL | {"args": {"cni": {"ips": ["10.4.0.5"]}}}, ""),
    "capability": (FULL | {"runtimeConfig": {"ips": ["fd00::5/64", "10.4.0.5/24"]}}, ""),
    "wrong capability": (FULL | {"runtimeConfig": {"ips": ["x"]}}, ""),
    "spelling": (ipam("static", ADDRESSES=[{"address": "10.1.0.5/24", "GATEWAY": "10.1.0.1"}]), ""),
    "no address": (ipam("static"), ""),
}  # fmt: skip


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.0.0"])
def test_the_same_as_the_reference(host, version):
    """[5.2] Debian's plugin and ours: the same JSON, and the same words where both refuse."""
    reference = replace(host, path="/usr/lib/cni")
    refusals = 0
    for name, (newest, args) in CASES.items():
        config = newest | {"cniVersion": version}
        ours, theirs = (call(one, "ADD", config, CNI_ARGS=args) for one in (host, reference))
        assert ours.status == theirs.status, (name, ours, theirs)
        if theirs.status == 0:
            assert plain(ours.json) == plain(theirs.json), name
            continue
        refusals += 1
        assert theirs.json["msg"] == ours.json["msg"], name
    assert refusals >= 5


def plain(result):
    """Without the empty members that the reference's version writes."""
    return {key: value for key, value in result.items() if value not in ({}, None)}
