"""host-local: which address is given, what lies on disk, what each verb says (plugins.md 5.1)."""

import json
from pathlib import Path

import pytest

from fixtures.configs import ipam
from fixtures.host import Container, refusal

SMALL = [[{"subnet": "10.0.0.0/29"}]]
DUAL = [[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/126"}]]
NETWORKS = "/var/lib/cni/networks"


def folder(host, path=f"{NETWORKS}/net1"):
    """A folder of the host, as this process sees it."""
    return Path(f"/proc/{host.holder.pid}/root{path}")


def box(host, name):
    """A container whose namespace does not matter."""
    return Container(host, name, f"/run/netns/{name}")


def add(host, name, ranges=SMALL, ifname="eth0", env=None, **keys):
    """The addresses that an ADD gives."""
    config = ipam(ranges=ranges) | keys
    result = host.add("host-local", config, box(host, name), ifname, env)
    return [one["address"] for one in result["ips"]]


def refused(host, config, name="z", verb="ADD", env=None):
    """Code, msg and details of a refusal."""
    error = refusal(host.call("host-local", verb, config, box(host, name), env=env))
    return error["code"], error["msg"], error.get("details")


def test_round_robin(host):
    """[A.13] An address that was freed is given again only when all others were."""
    assert add(host, "a") == ["10.0.0.2/29"]
    assert add(host, "b") == ["10.0.0.3/29"]
    host.delete("host-local", ipam(ranges=SMALL), box(host, "a"))
    given = [add(host, name)[0] for name in "cdef"]
    assert given == ["10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29", "10.0.0.2/29"]
    msg = "no IP addresses available in range set: 10.0.0.1-10.0.0.6"
    assert refused(host, ipam(ranges=SMALL)) == (999, msg, "range set 0: all of its 6 are taken")


def test_an_attachment_is_container_and_interface(host):
    """[A.13] The same one twice is refused, another interface of the container is not."""
    assert add(host, "a") == ["10.0.0.2/29"]
    code, msg, _ = refused(host, ipam(ranges=SMALL), "a")
    assert code == 999
    assert msg == "10.0.0.2 has been allocated to a, duplicate allocation is not allowed"
    assert add(host, "a", ifname="eth1") == ["10.0.0.3/29"]
    host.delete("host-local", ipam(ranges=SMALL), box(host, "a"))
    assert host.allocated("net1") == {"10.0.0.3": "a\r\neth1"}


def test_two_sets(host):
    """[A.13] [5.1.3] Both families in one folder, a marker each; the files to the byte."""
    assert add(host, "a", DUAL) == ["10.0.0.2/29", "fd00::2/126"]
    content = {one.name: one.read_bytes() for one in folder(host).iterdir()}
    assert content == {
        "10.0.0.2": b"a\r\neth0",
        "fd00::2": b"a\r\neth0",
        "last_reserved_ip.0": b"10.0.0.2",
        "last_reserved_ip.1": b"fd00::2",
        "lock": b"",
    }
    modes = {one.name: one.stat().st_mode & 0o777 for one in folder(host).iterdir()}
    assert {mode for name, mode in modes.items() if name != "lock"} == {0o600}
    assert modes["lock"] == 0o750 & ~0o022
    assert folder(host).stat().st_mode & 0o777 == 0o755
    assert add(host, "b", DUAL) == ["10.0.0.3/29", "fd00::3/126"]
    # IPv6 has no broadcast address: the set is full only now.
    assert "fd00::1-fd00::3" in refused(host, ipam(ranges=DUAL))[1]


def test_two_ranges_in_a_set(host):
    """[A.13] One after the other, then round to the first; the result has each one's gateway."""
    ranges = [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]
    config = ipam(ranges=ranges)
    for name, address in (("a", "10.0.0.2"), ("b", "10.0.1.2")):
        (given,) = host.add("host-local", config, box(host, name))["ips"]
        assert given == {"address": f"{address}/30", "gateway": f"{address[:-1]}1"}
    assert "10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2" in refused(host, config)[1]
    host.delete("host-local", config, box(host, "a"))
    assert add(host, "c", ranges) == ["10.0.0.2/30"]


def test_ipam_missing(host):
    """[5.1.1]"""
    config = {"cniVersion": "1.1.0", "name": "net1", "type": "x"}
    for verb in ("ADD", "CHECK", "STATUS"):
        assert refused(host, config, verb=verb)[:2] == (7, "IPAM config missing 'ipam' key")


def test_sets_from_three_places(host):
    """[5.1.1] Of the runtime first, then of the older form, then of `ranges`."""
    config = ipam(
        subnet="10.1.0.0/24",
        rangeStart="10.1.0.9",
        rangeEnd="10.1.0.10",
        gateway="10.1.0.9",
        ranges=[[{"subnet": "10.2.0.0/24"}]],
        routes=[{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.0.77", "mtu": 1400}],
    ) | {"runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]}}
    assert host.add("host-local", config, box(host, "a")) == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.3.0.2/24", "gateway": "10.3.0.1"},
            {"address": "10.1.0.10/24", "gateway": "10.1.0.9"},
            {"address": "10.2.0.2/24", "gateway": "10.2.0.1"},
        ],
        "routes": config["ipam"]["routes"],
    }
    wrong = ipam(subnet="10.1.0.1/24") | {"runtimeConfig": {"ipRanges": [[{"subnet": "::/64"}]]}}
    assert refused(host, wrong)[2] == "ipam.subnet is 10.1.0.1/24"
    wrong = ipam(subnet="10.1.0.0/24") | {"runtimeConfig": {"ipRanges": [[]]}}
    assert refused(host, wrong)[2] == "runtimeConfig.ipRanges[0] has at least one range"


REQUESTS = [
    ({"env": {"CNI_ARGS": "IP=10.0.0.5"}}, "CNI_ARGS IP"),
    ({"env": {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.0.0.5/24"}}, "CNI_ARGS IP"),
    ({"args": {"cni": {"ips": ["10.0.0.5"]}}}, "args.cni.ips"),
    ({"runtimeConfig": {"ips": ["10.0.0.5/24"]}}, "runtimeConfig.ips"),
]


@pytest.mark.parametrize(("how", "source"), REQUESTS)
def test_a_requested_address(host, how, source):
    """[5.1.1] [W-HL7] By each route; what cannot be given is refused with its reason."""

    def ask(text):
        keys = json.loads(json.dumps(how).replace("10.0.0.5", text))
        env = keys.pop("env", None)
        return refused(host, ipam(ranges=SMALL) | keys, env=env)

    assert add(host, "a", **how) == ["10.0.0.5/29"]
    assert ask("10.0.0.5")[1:] == (
        "requested IP address 10.0.0.5 is not available in range set 10.0.0.1-10.0.0.6",
        "container a holds it",
    )
    assert ask("10.0.0.1")[:2] == (7, "requested ip 10.0.0.1 is subnet's gateway")
    missed = (7, "failed to allocate all requested IPs: 10.0.0.7")
    assert ask("10.0.0.7")[:2] == missed
    assert ask("10.0.0.x") == (7, ask("10.0.0.x")[1], f"in {source}")
    assert ask("10.0.0.x")[1].startswith("invalid IP address 10.0.0.x")
    assert list(host.allocated("net1")) == ["10.0.0.5"]
    # The next one follows the requested one, as in the reference.
    assert add(host, "b") == ["10.0.0.6/29"]


def test_requested_addresses_of_several_routes(host):
    """[5.1.1] [5.1.4] They add up, one for each set; one too many gives all back."""
    keys = {"args": {"cni": {"ips": ["fd00::3"]}}, "env": {"CNI_ARGS": "IP=10.0.0.4"}}
    assert add(host, "a", DUAL, **keys) == ["10.0.0.4/29", "fd00::3/126"]
    config = ipam(ranges=DUAL) | {"runtimeConfig": {"ips": ["10.0.0.5", "10.0.0.6", "fd00::2"]}}
    code, msg, details = refused(host, config)
    assert (code, msg) == (7, "failed to allocate all requested IPs: 10.0.0.6")
    assert details == "each range set gives one address: 10.0.0.1-10.0.0.6; fd00::1-fd00::3"
    assert list(host.allocated("net1")) == ["10.0.0.4", "fd00::3"]


def test_gateways_are_skipped(host):
    """[5.1.4] [W-HL7] Each range's own, and those of the other ranges of its set."""
    ranges = [
        [
            {"subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.4", "gateway": "10.0.0.3"},
            {"subnet": "10.0.1.0/30", "gateway": "10.0.0.2"},
        ]
    ]
    given = [add(host, name, ranges)[0] for name in "abcd"]
    assert given == ["10.0.0.1/29", "10.0.0.4/29", "10.0.1.1/30", "10.0.1.2/30"]
    assert refused(host, ipam(ranges=ranges))[0] == 999
    asked = {"runtimeConfig": {"ips": ["10.0.0.2"]}}
    assert refused(host, ipam(ranges=ranges) | asked)[1] == (
        "requested ip 10.0.0.2 is subnet's gateway"
    )


def test_network_and_broadcast_address_when_asked_for(host):
    """[5.1.2] An explicit start or end may be one of them."""
    ranges = [[{"subnet": "10.0.0.0/30", "rangeStart": "10.0.0.0", "rangeEnd": "10.0.0.3"}]]
    given = [add(host, name, ranges)[0] for name in "abc"]
    assert given == ["10.0.0.0/30", "10.0.0.2/30", "10.0.0.3/30"]


def test_resolv_conf(host):
    """[5.1.4] Its content is the result's `dns`; without the file nothing is allocated."""
    folder(host, "/run/resolv").write_text("nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n")
    config = ipam(ranges=SMALL, resolvConf="/run/resolv")
    assert host.add("host-local", config, box(host, "a"))["dns"] == {
        "nameservers": ["192.0.2.1"],
        "search": ["a", "b"],
        "options": ["ndots:2"],
    }
    msg = "cannot read ipam.resolvConf /run/none: No such file or directory"
    assert refused(host, ipam(ranges=SMALL, resolvConf="/run/none"))[:2] == (7, msg)
    assert list(host.allocated("net1")) == ["10.0.0.2"]


def test_old_protocol_versions(host):
    """[5.1.2] One address a family before 0.3.0."""
    config = ipam(ranges=DUAL) | {"cniVersion": "0.2.0"}
    result = host.add("host-local", config, box(host, "a"))
    assert result["ip4"] == {"ip": "10.0.0.2/29", "gateway": "10.0.0.1"}
    assert result["ip6"] == {"ip": "fd00::2/126", "gateway": "fd00::1"}
    config["ipam"]["ranges"] = [[{"subnet": "10.0.0.0/29"}], [{"subnet": "10.0.1.0/29"}]]
    msg = "CNI version 0.2.0 does not support more than 1 address per family"
    assert refused(host, config)[:2] == (7, msg)


def test_an_add_that_fails_gives_all_back(host):
    """[W-HL3] Neither an address nor a place in the order is lost to it."""
    ranges = [[{"subnet": "10.0.0.0/29"}], [{"subnet": "10.0.1.0/30"}]]
    assert add(host, "a", ranges) == ["10.0.0.2/29", "10.0.1.2/30"]
    msg = "no IP addresses available in range set: 10.0.1.1-10.0.1.2"
    before = {one.name: one.read_bytes() for one in folder(host).iterdir()}
    assert refused(host, ipam(ranges=ranges))[:2] == (999, msg)
    assert {one.name: one.read_bytes() for one in folder(host).iterdir()} == before
    assert add(host, "b", ranges[:1]) == ["10.0.0.3/29"]


@pytest.mark.parametrize(
    "broken",
    [
        {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.1/99"}]]}},
        {"ipam": {"type": "host-local", "ranges": 5, "routes": "x", "resolvConf": []}},
        {"ipam": {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]}},
        {"ipam": {"type": "host-local"}, "runtimeConfig": 7, "args": [1]},
        {"ipam": None},
    ],
)
def test_del_needs_no_ranges(host, broken):
    """[W-HL5] What ADD gave is released whatever the configuration has become."""
    add(host, "a", DUAL)
    add(host, "b", DUAL)
    host.delete("host-local", ipam() | broken, box(host, "a"), env={"CNI_ARGS": "not;args"})
    assert host.allocated("net1") == {"10.0.0.3": "b\r\neth0", "fd00::3": "b\r\neth0"}


def test_del_of_the_unknown(host):
    """[W-HL5] Succeeds, twice too, and makes no folders."""
    config = ipam(ranges=SMALL)
    host.delete("host-local", config, box(host, "a"))
    assert list(folder(host, NETWORKS).iterdir()) == []
    add(host, "b")
    for _ in range(2):
        host.delete("host-local", config, box(host, "a"))
    assert host.allocated("net1") == {"10.0.0.2": "b\r\neth0"}
    for _ in range(2):
        host.delete("host-local", config, box(host, "b"))
    assert host.allocated("net1") == {}


def test_check_compares_addresses(host):
    """[W-HL6] Each address of prevResult that lies in the ranges is this attachment's."""
    config = ipam(ranges=SMALL)
    result = host.add("host-local", config, box(host, "a"))
    add(host, "b")

    def checked(*addresses):
        ips = [{"address": one} for one in addresses]
        return config | {"prevResult": result | {"ips": ips}}

    for fine in (("10.0.0.2/29",), ("10.0.0.2/29", "192.0.2.9/24")):
        outcome = host.call("host-local", "CHECK", checked(*fine), box(host, "a"))
        assert outcome.status == 0, outcome
    msg = "host-local: address 10.0.0.{} is not allocated to a"
    wrong = refused(host, checked("10.0.0.2/29", "10.0.0.3/29"), "a", "CHECK")
    assert wrong == (999, msg.format(3), "its file names container b")
    wrong = refused(host, checked("10.0.0.4/29"), "a", "CHECK")
    assert wrong == (999, msg.format(4), "its file names nobody")
    missing = "host-local: Failed to find address added by container c"
    assert refused(host, checked("10.0.0.2/29"), "c", "CHECK")[:2] == (999, missing)
    # Written over in place: the folder's time does not tell.
    (folder(host) / "10.0.0.2").write_bytes(b"b\r\neth1")
    wrong = refused(host, checked("10.0.0.2/29"), "a", "CHECK")
    assert wrong == (999, msg.format(2), "its file names container b")
    (folder(host) / "10.0.0.2").unlink()


def test_check_before_anything_was_allocated(host):
    """[W-HL6] Fails and makes no folders."""
    msg = "host-local: Failed to find address added by container z"
    error = refused(host, ipam(ranges=SMALL) | {"prevResult": {}}, verb="CHECK")
    assert error == (999, msg, f"{NETWORKS}/net1 does not exist")
    assert list(folder(host, NETWORKS).iterdir()) == []


def test_status(host):
    """[W-G2] Code 50 when an ADD would find no address, or no folder to write to."""
    config = ipam(ranges=[[{"subnet": "10.0.0.0/30"}]])
    assert host.call("host-local", "STATUS", config).status == 0
    add(host, "a", config["ipam"]["ranges"])
    msg = "no IP addresses available in range set: 10.0.0.1-10.0.0.2"
    assert refused(host, config, verb="STATUS")[:2] == (50, msg)
    host.delete("host-local", config, box(host, "a"))
    assert host.call("host-local", "STATUS", config).status == 0
    unusable = ipam(ranges=SMALL, dataDir="/proc/none")
    code, msg, _ = refused(host, unusable, verb="STATUS")
    assert (code, msg) == (50, "create the folder /proc/none/net1: No such file or directory")
    assert refused(host, unusable)[:2] == (999, msg)


def test_gc(host):
    """[W-G1] [W-HL1] Frees what is not listed, of this network only; without a list nothing."""
    for name in "abc":
        add(host, name)
    add(host, "a", ifname="eth1")
    host.add("host-local", ipam(ranges=SMALL) | {"name": "net2"}, box(host, "a"))
    listed = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth1"}]
    config = ipam(ranges=[])
    assert host.call("host-local", "GC", config).status == 0
    assert len(host.allocated("net1")) == 4
    config |= {"cni.dev/valid-attachments": listed}
    assert host.call("host-local", "GC", config).status == 0
    assert host.allocated("net1") == {"10.0.0.2": "a\r\neth0"}
    assert host.allocated("net2") == {"10.0.0.2": "a\r\neth0"}
    assert add(host, "d") == ["10.0.0.6/29"]


def test_a_folder_of_ones_own(host):
    """[5.1.1] `dataDir`: absolute, and all is in it."""
    config = ipam(ranges=SMALL, dataDir="/run/addresses")
    host.add("host-local", config, box(host, "a"))
    assert (folder(host, "/run/addresses/net1") / "10.0.0.2").read_bytes() == b"a\r\neth0"
    assert list(folder(host, NETWORKS).iterdir()) == []
    msg = 'ipam.dataDir "addresses" is not an absolute path'
    for verb in ("ADD", "DEL"):
        assert refused(host, ipam(ranges=SMALL, dataDir="addresses"), verb=verb)[:2] == (7, msg)
