"""`cni-py plan`: it says what add then does, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.cnitool import NET_D, cni_py, configure
from fixtures.configs import host_local
from fixtures.dump import differences, dump
from fixtures.host import BIN, ROOT
from fixtures.leaks import leaks
from fixtures.reference import reference

if TYPE_CHECKING:
    from fixtures.host import Host, Outcome

BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": host_local()}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def plan(host: Host, *arguments: str, status: int = 0, **env: str) -> Any:
    """The plan, for which nothing has changed."""
    before = dump(host)
    outcome = cni_py(host, "plan", *arguments, "--json", check=False, **env)
    assert differences(before, dump(host)) == ""
    assert (outcome.status, outcome.stderr) == (status, ""), outcome
    return outcome.json


def added(outcome: Outcome) -> Any:
    """A result but for what the kernel picks."""
    document = outcome.json
    for one in document["interfaces"]:
        del one["mac"]
        one.pop("mtu", None)
    return document


def conflicts(planned: Any) -> list[str]:
    return [
        *planned["conflicts"],
        *(text for one in planned["plugins"] for text in one["conflicts"]),
    ]


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("full", ("--port", "8080:80", "--args", "IgnoreUnknown=1")),
        ("layer2", ()),
        ("fixed", ()),
        ("routed", ()),
        ("tap", ()),
        ("tuned", ()),
        ("second", ()),
    ],
)
def test_add_does_what_was_planned(host: Host, network: str, options: tuple[str, ...]) -> None:
    """Twice: the second container gets the next address, on the bridge that is there."""
    for path in sorted((ROOT / "conf").glob("*.conflist")):
        host.run("sh", "-c", f"cat > {NET_D}/{path.name}", stdin=path.read_text())
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    host.run("ip", "link", "set", "eth0", "up")
    for name in ("c1", "c2"):
        if name == "c2" and network != "full":
            break
        host.container(name)
        planned = plan(host, network, name, *options)
        for one in planned["result"]["interfaces"]:
            one.pop("mac", None)
        assert planned["result"] == added(cni_py(host, "add", network, name, *options))
        options = ()
    if network == "full":
        steps = {one["text"] for one in planned["plugins"][0]["steps"]}
        assert "cni2 is there, number of its ports: 1" in steps
        cni_py(host, "del", network, "c2")
    cni_py(host, "del", network, "c1")
    assert leaks(host) == []


def test_what_is_said(host: Host) -> None:
    """For a person: every kind of step, in the order of the chain."""
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 1400}
    firewall = {"type": "firewall", "backend": "nftables", "ingressPolicy": "same-bridge"}
    bandwidth = {"type": "bandwidth", "ingressRate": 8000, "ingressBurst": 80000}
    bridge = {**BRIDGE, "ipMasq": True, "macspoofchk": True, "isDefaultGateway": True}
    configure(host, "net", bridge, PORTMAP, firewall, bandwidth, tuning, {"type": "sbr"})
    host.container("c1")
    said = cni_py(host, "plan", "net", "c1", "--port", "8080:80").stdout
    expected = """1. bridge
   bridge      cni0 is made
   veth        VETH on the host (port of cni0) and eth0 in /run/netns/c1
   rule        only the container's hardware address may send (nftables)
   address     10.1.2.2/24, gateway 10.1.2.1 (host-local)
   route       0.0.0.0/0 via 10.1.2.1 in /run/netns/c1
   gateway     cni0 gets 10.1.2.1/24
   sysctl      net.ipv4.ip_forward from 0 to 1, on the host
   masquerade  what leaves 10.1.2.0/24 from 10.1.2.2 (nftables)
2. portmap
   port        :8080/tcp leads to 10.1.2.2:80 (nftables)
3. firewall
   rule        what 10.1.2.2 sends and gets is accepted (nftables)
   rule        new connections from other networks are not: ingressPolicy same-bridge
4. bandwidth
   limit       8000 bit/s to the container
5. tuning
   sysctl      net.ipv4.conf.all.log_martians = 1, now 0
   interface   eth0: MTU 1400
6. sbr
   route       what comes from 10.1.2.2 leaves by eth0: a rule and a table in /run/netns/c1
Nothing is in the way.
"""
    name = next(word for word in said.split() if word.startswith("veth") and word != "veth")
    assert said.split("\n", 2)[2] == expected.replace("VETH", name)


def test_addresses_of_host_local(host: Host) -> None:
    """After the last one given, round the range; taken ones with their holder; none left."""
    small = {"subnet": "10.1.2.0/29"}
    config = {"cniVersion": "1.0.0", "name": "net", "type": "x", "ipam": host_local([small])}
    configure(host, "net", {**BRIDGE, "ipam": host_local([small])})
    host.container("c1")

    def address() -> str:
        return plan(host, "net", "c1")["result"]["ips"][0]["address"]

    assert address() == "10.1.2.2/29"
    others = [host.container(f"o{number}") for number in range(5)]
    for number, other in enumerate(others[:4]):
        host.add("host-local", config, other)
        assert address() == f"10.1.2.{number + 3}/29"
    host.delete("host-local", config, others[1])
    assert address() == "10.1.2.6/29"
    host.add("host-local", config, others[4])
    assert address() == "10.1.2.3/29"
    # Without the index, as the reference leaves it.
    host.run("rm", "-r", "/var/lib/cni/networks/.cni-py")
    assert address() == "10.1.2.3/29"
    wanted = ("--args", "IgnoreUnknown=1", "--args", "IP=10.1.2.4")
    asked = plan(host, "net", "c1", *wanted, status=1)
    [said] = conflicts(asked)
    assert "10.1.2.4 is not available" in said
    assert "container id-o2 holds it" in said
    host.add("host-local", config, host.container("o5"))
    [said] = conflicts(plan(host, "net", "c1", status=1))
    assert said.startswith("no IP addresses available in range set")


def test_what_is_in_the_way(host: Host) -> None:
    """Everything at once, each with its name."""
    configure(host, "net", {**BRIDGE, "bridge": "dull"}, PORTMAP)
    container = host.container("c1")
    host.run("ip", "link", "add", "dull", "type", "ifb")
    host.run("ip", "link", "add", "lan", "type", "bridge")
    host.run("ip", "addr", "add", "10.1.0.7/16", "dev", "lan")
    container.run("ip", "link", "add", "eth0", "type", "bridge")
    said = conflicts(plan(host, "net", "c1", status=1))
    assert said == [
        "dull already exists but is not a bridge: it is ifb",
        "interface eth0 already exists in /run/netns/c1",
        "10.1.2.0/24 overlaps with 10.1.0.7/16 of lan on the host",
    ]
    configure(host, "net", {**BRIDGE, "bridge": "lan"}, PORTMAP)
    said = conflicts(plan(host, "net", "c1", "-i", "eth1", status=1))
    assert said == ["lan has 10.1.0.7/16, and not 10.1.2.1/24: forceAddress replaces it"]
    configure(host, "net", BRIDGE)
    assert conflicts(plan(host, "net", "c9", status=1)) == [
        "there is no network namespace at /run/netns/c9",
        "10.1.2.0/24 overlaps with 10.1.0.7/16 of lan on the host",
    ]


def test_port_that_is_taken(host: Host) -> None:
    configure(host, "net", BRIDGE, PORTMAP)
    for name in ("c1", "c2"):
        host.container(name)
    cni_py(host, "add", "net", "c1", "--port", "8080:80")
    [again] = plan(host, "net", "c1", status=1)["conflicts"]
    assert again == "the result cache has this attachment already: cni-py del net /run/netns/c1"
    [said] = conflicts(plan(host, "net", "c2", "--port", "8080:81", "--port", "8081:81", status=1))
    assert "8080" in said
    assert conflicts(plan(host, "net", "c2", "--port", "8081:81")) == []
    cni_py(host, "del", "net", "c1")
    assert leaks(host) == []


def test_plugins_of_others(host: Host) -> None:
    """Nothing is known of them, nor of what comes after; what is not there is in the way."""
    theirs = reference(host, "bridge").path
    host.run("mkdir", "/run/bin")
    host.run("ln", "-s", f"{BIN}/portmap", "/run/bin/portmap")
    configure(host, "net", BRIDGE, PORTMAP)
    host.container("c1")
    planned = plan(host, "net", "c1", "--port", "80:80", CNI_PATH=f"/run/bin:{theirs}")
    first, second = planned["plugins"]
    assert (first["known"], first["steps"]) == (False, [])
    assert first["unknown"] == [f"what {theirs}/bridge does: it is not cni-py's"]
    assert second["unknown"][0].startswith("after plugin 1, of which not all is known: ")
    assert planned["result"] is None
    missing = plan(host, "net", "c1", CNI_PATH="/run/bin", status=1)
    assert conflicts(missing)[0].startswith('failed to find plugin "bridge"')
    configure(host, "dhcp", {"type": "bridge", "ipam": {"type": "dhcp"}})
    [asks] = [
        one["text"]
        for one in plan(host, "dhcp", "c1")["plugins"][0]["steps"]
        if one["kind"] == "address"
    ]
    assert asks == "asks a DHCP server through eth0"


def test_damaged_state_stays(host: Host) -> None:
    """What a call would set aside is left where it is, and said."""
    configure(host, "net", BRIDGE, PORTMAP)
    host.container("c1")
    host.container("c2")
    cni_py(host, "add", "net", "c1", "--port", "8080:80")
    script = "for one in $(find /run/cni-py/portmap -maxdepth 1 -type f); do echo { > $one; done"
    host.run("sh", "-c", script)
    before = dump(host)
    said = cni_py(host, "plan", "net", "c2", "--port", "8080:80", check=False)
    assert differences(before, dump(host)) == ""
    assert "and stays: nothing is changed now" in said.stderr
    cni_py(host, "del", "net", "c1")


def test_every_plugin_has_a_plan() -> None:
    from cni_py.plugins.planned import HANDLERS
    from cni_py.skel import EXECUTABLES

    assert set(EXECUTABLES) - set(HANDLERS) == {"cluster", "dhcp", "host-local", "static"}


def test_route_that_is_there_twice(host: Host) -> None:
    """isDefaultGateway brings one, and add fails for the other."""
    ipam = host_local(routes=[{"dst": "0.0.0.0/0"}])
    configure(host, "net", {**BRIDGE, "isDefaultGateway": True, "ipam": ipam})
    host.container("c1")
    [said] = conflicts(plan(host, "net", "c1", status=1))
    assert said.startswith("route 0.0.0.0/0 via 10.1.2.1 is there twice")
    failed = cni_py(host, "add", "net", "c1", check=False)
    assert "File exists" in failed.stderr


def test_bad_configuration(host: Host) -> None:
    """What add would refuse is in the way, by the plugin that would refuse it."""
    tuning = {"type": "tuning", "mtu": 5, "txQLen": -1}
    configure(host, "net", BRIDGE, tuning, {"type": "firewall", "backend": "nftables"})
    host.container("c1")
    planned = plan(host, "net", "c1", status=1)
    assert [bool(one["conflicts"]) for one in planned["plugins"]] == [False, True, False]
    said = planned["plugins"][1]["conflicts"]
    assert len(said) == 2
    assert "mtu" in said[0].lower()
    assert "txQLen" in said[1]
    # It adds nothing to the result that it passes on.
    assert planned["plugins"][2]["steps"][0]["text"].startswith("what 10.1.2.2 sends and gets")
    assert planned["result"] is None
