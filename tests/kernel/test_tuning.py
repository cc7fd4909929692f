"""tuning: sysctls and attributes of the container's interface, and how they come back (6.4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.configs import l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, refusal
from fixtures.reference import reference
from fixtures.settled import settled

MAC = "c2:b0:57:49:47:f1"
FOLDER = "/run/cni/tuning"
ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
ARP = "net/ipv4/conf/eth0/arp_filter"
# A.14
EXAMPLE: dict[str, Any] = {
    "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
    "mac": MAC,
    "mtu": 1454,
    "promisc": True,
    "txQLen": 2000,
}


def attached(host: Host, name: str = "c1", ifname: str = "eth0", ips: Any = ()) -> Container:
    """A container with an interface, as a plugin before in the chain leaves it."""
    container = host.container(name)
    pair = ("type", "veth", "peer", "name", "far0")
    container.run("ip", "link", "add", ifname, *pair)
    for link in (ifname, "far0"):
        container.run("ip", "link", "set", link, "up")
    for address in ips:
        container.run("ip", "addr", "add", address, "dev", ifname, "nodad")
    settled(container, ips)
    return container


def tuned(container: Container, *, ifname: str = "eth0", ips: Any = (), **keys: Any) -> Any:
    """A configuration in the chain, behind what has made the interface."""
    mac = container.link(ifname)["address"]
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "veth0", "mac": "02:00:00:00:00:01"},
            {"name": ifname, "mac": mac, "sandbox": container.netns},
            {"name": ifname, "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/other"},
        ],
        "routes": [{"dst": "192.0.2.0/24"}],
    }
    if ips:
        previous["ips"] = [{"interface": 1, "address": one} for one in ips]
    base = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", "prevResult": previous}
    return base | keys


def state(container: Container, ifname: str = "eth0") -> dict[str, Any]:
    """All that tuning may change, and addresses and routes."""
    link = container.link(ifname)
    commands = {
        "addresses": f"ip -o addr show dev {ifname} | cut -d ' ' -f 2- | grep -v fe80: || true",
        "routes": "(ip route show table all; ip -6 route show table all) | grep -vE 'fe80:|ff00:'"
        " || true",
        "sysctls": f"cd /proc/sys/net; grep -s . ipv*/conf/{ifname}/* ipv4/*"
        " | grep -v stable_secret; cat core/somaxconn",
    }
    shown = {kind: container.run("sh", "-c", text).stdout for kind, text in commands.items()}
    flags = {one for one in ("PROMISC", "ALLMULTI") if one in link["flags"]}
    kept = {key: link[key] for key in ("address", "mtu")}
    # It is left out where it is 0.
    return {**kept, "txqlen": link.get("txqlen", 0), "flags": flags, **shown}


def files(host: Host, folder: str = FOLDER) -> list[str]:
    return host.run("sh", "-c", f"ls -A {folder} 2>/dev/null", check=False).stdout.split()


def test_worked_example(host: Host) -> None:
    """[A.14] Everything is set, the result says so, CHECK agrees, DEL takes all of it back."""
    container = attached(host)
    config = tuned(container, **EXAMPLE)
    before = state(container)
    result = host.add("tuning", config, container)
    expected = json.loads(json.dumps(config["prevResult"]))
    expected["interfaces"][1] |= {"mac": MAC, "mtu": 1454}
    assert result == expected | {"cniVersion": "1.1.0"}
    after = state(container)
    assert (after["address"], after["mtu"], after["txqlen"]) == (MAC, 1454, 2000)
    assert after["flags"] == {"PROMISC"}
    assert container.sysctl(ARP) == "1"
    checked = config | {"prevResult": result}
    assert host.call("tuning", "CHECK", checked, container).status == 0
    assert host.run("stat", "-c", "%a", f"{FOLDER}/id-c1_eth0.json", FOLDER).stdout.split() == [
        "600",
        "700",
    ]
    host.delete("tuning", checked, container)
    assert state(container) == before
    assert files(host) == []


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "1.0.0"])
def test_older_versions(host: Host, version: str) -> None:
    """[6.4] A result without interfaces is passed on, one with them has the new address."""
    container = attached(host)
    config = tuned(container, ips=["10.1.2.9/24"], mac=MAC) | {"cniVersion": version}
    if version == "0.1.0":
        config["prevResult"] = {"ip4": {"ip": "10.1.2.9/24"}}
    else:
        config["prevResult"]["cniVersion"] = version
        for one in config["prevResult"]["ips"]:
            one.update({"version": "4"} if version == "0.3.1" else {})
    result = host.add("tuning", config, container)
    assert result["cniVersion"] == version
    assert [one["mac"] for one in result.get("interfaces", ())][1:2] in ([], [MAC])
    assert ("interfaces" in result) == (version != "0.1.0")
    assert container.link()["address"] == MAC


KEYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mac": ({"mac": "C2-B0-57-49-47-F1"}, {"address": MAC}),
    "mac of CNI_ARGS": ({"CNI_ARGS": f"MAC={MAC}", "mac": "02:00:00:00:00:99"}, {"address": MAC}),
    "runtimeConfig.mac": (
        {"runtimeConfig": {"mac": MAC}, "CNI_ARGS": "MAC=02:00:00:00:00:99"},
        {"address": MAC},
    ),
    "args.cni.mac": (
        {"args": {"cni": {"mac": MAC}}, "runtimeConfig": {"mac": "02:00:00:00:00:99"}},
        {"address": MAC},
    ),
    "mtu": ({"mtu": 9000}, {"mtu": 9000}),
    "args.cni.mtu": ({"args": {"cni": {"mtu": 1400}}, "mtu": 9000}, {"mtu": 1400}),
    "promisc": ({"promisc": True}, {"flags": {"PROMISC"}}),
    "args.cni.promisc": ({"args": {"cni": {"promisc": False}}, "promisc": True}, {"flags": set()}),
    "allmulti": ({"allmulti": True}, {"flags": {"ALLMULTI"}}),
    "args.cni.allmulti": ({"args": {"cni": {"allmulti": True}}}, {"flags": {"ALLMULTI"}}),
    "txQLen": ({"txQLen": 0}, {"txqlen": 0}),
    "args.cni.txQLen": ({"args": {"cni": {"txQLen": 77}}, "txQLen": 5}, {"txqlen": 77}),
    "dataDir": ({"dataDir": "/run/elsewhere", "mtu": 1400}, {"mtu": 1400}),
    "other case": ({"MTU": 1400, "TxqLen": 6}, {"mtu": 1400, "txqlen": 6}),
    "nothing": ({}, {}),
}


def test_attributes(host: Host) -> None:
    """[6.4] Each key alone, what wins, and that everything else is left."""
    container = attached(host)
    before = state(container)
    for name, (keys, expected) in KEYS.items():
        env = {"CNI_ARGS": keys["CNI_ARGS"]} if "CNI_ARGS" in keys else {}
        own = {key: value for key, value in keys.items() if key != "CNI_ARGS"}
        config = tuned(container, **own)
        result = host.add("tuning", config, container, env=env)
        after = state(container)
        assert after == before | expected | {"sysctls": after["sysctls"]}, name
        changed = expected not in ({}, {"flags": set()})
        assert files(host, keys.get("dataDir", FOLDER)) == ["id-c1_eth0.json"] * changed, name
        checked = config | {"prevResult": result}
        assert host.call("tuning", "CHECK", checked, container, env=env).status == 0
        host.delete("tuning", config, container, env=env)
        assert state(container) == before, name
        assert files(host, keys.get("dataDir", FOLDER)) == []


def test_former_flags_stay(host: Host) -> None:
    """What was on before is on after DEL, and what is turned off comes back."""
    container = attached(host)
    container.run("ip", "link", "set", "eth0", "promisc", "on", "allmulticast", "on")
    before = state(container)
    config = tuned(container, promisc=True, allmulti=False)
    host.add("tuning", config, container)
    assert state(container)["flags"] == {"PROMISC"}
    host.delete("tuning", config, container)
    assert state(container) == before


SYSCTLS = {
    "dots": ("net.ipv4.conf.eth0.arp_filter", "1", ARP),
    "slashes": ("net/ipv4/conf/eth0/arp_filter", "1", ARP),
    "mixed": ("net/ipv4.conf/IFNAME.arp_filter", "1", ARP),
    "IFNAME": ("net.ipv4.conf.IFNAME.arp_filter", "1", ARP),
    "neighbours": ("net.ipv4.neigh.IFNAME.ucast_solicit", "7", "net/ipv4/neigh/eth0/ucast_solicit"),
    "of the namespace": ("net.core.somaxconn", "77", "net/core/somaxconn"),
    "numbers": ("net.ipv4.ip_local_port_range", "2000 3000", "net/ipv4/ip_local_port_range"),
    "a list": ("net.ipv4.ip_local_reserved_ports", "8000,8001", "net/ipv4/ip_local_reserved_ports"),
    "write only": ("net.ipv4.route.flush", "1", ""),
}


@pytest.mark.parametrize("place", ["sysctl", "args.cni.sysctl"])
def test_sysctls(host: Host, place: str) -> None:
    """[W-TU1, W-TU2] Any spelling, in the configuration or in args alone; DEL restores them."""
    container = attached(host)
    before = state(container)
    for case, (key, value, path) in SYSCTLS.items():
        keys = {"sysctl": {key: value}}
        config = tuned(container, **(keys if place == "sysctl" else {"args": {"cni": keys}}))
        host.add("tuning", config, container)
        if path:
            shown = container.sysctl(path).replace("\t", " ")
            assert shown == ("8000-8001" if case == "a list" else value)
        assert host.call("tuning", "CHECK", config, container).status == 0
        host.delete("tuning", config, container)
        assert state(container) == before, case


def test_args_override_sysctls(host: Host) -> None:
    """[6.4] Also in another spelling."""
    container = attached(host)
    asked = {"net/ipv4/conf/eth0/arp_filter": "0", "net.core.somaxconn": "99"}
    config = tuned(
        container, sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"}, args={"cni": {"sysctl": asked}}
    )
    host.add("tuning", config, container)
    assert (container.sysctl(ARP), container.sysctl("net/core/somaxconn")) == ("0", "99")


def test_dotted_interface(host: Host) -> None:
    """[6.4] A dot in the interface's name is none between names."""
    container = attached(host, ifname="eth0.5")
    for key in ("net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/eth0.5/arp_filter"):
        config = tuned(container, ifname="eth0.5", sysctl={key: "1"})
        host.add("tuning", config, container, "eth0.5")
        assert container.sysctl("net/ipv4/conf/eth0.5/arp_filter") == "1"
        host.delete("tuning", config, container, "eth0.5")
        assert container.sysctl("net/ipv4/conf/eth0.5/arp_filter") == "0"


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "outside": ({"sysctl": {"kernel.panic": "1"}}, 7, 'invalid net sysctl key: "kernel.panic"'),
    "net alone": ({"sysctl": {"net": "1"}}, 7, 'invalid net sysctl key: "net"'),
    "up": ({"sysctl": {"net/../kernel/panic": "1"}}, 7, "invalid net sysctl key"),
    "missing": ({"sysctl": {"net.core.nothing": "1"}}, 999, "read sysctl net/core/nothing"),
    "a folder": ({"sysctl": {"net.ipv4.conf": "1"}}, 999, "read sysctl net/ipv4/conf"),
    "value": (
        {"sysctl": {"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.arp_filter": "x"}},
        999,
        "set sysctl net/ipv4/conf/eth0/arp_filter to x: Invalid argument",
    ),
    "two spellings": (
        {"sysctl": {"net.core.somaxconn": "1", "net/core/somaxconn": "2"}},
        7,
        "duplicated sysctl keys are not allowed",
    ),
    "IFNAME twice": (
        {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv4/conf/eth0/arp_filter": "1"}},
        7,
        "duplicated sysctl keys are not allowed",
    ),
    "mac": ({"mac": "02:00:00:00:00"}, 7, 'invalid mac "02:00:00:00:00"'),
    "mac of many": ({"mac": "01:00:5e:00:00:01"}, 7, "it is no address of one interface"),
    "mtu": ({"mtu": 67}, 7, "invalid mtu 67"),
    "negative mtu": ({"mtu": -1}, 7, "invalid mtu -1"),
    "mtu of args": ({"args": {"cni": {"mtu": 70000}}}, 7, "invalid mtu 70000"),
    "mtu for IPv6": ({"mtu": 1279}, 7, "invalid mtu 1279: the interface has the address fd00:1::2"),
    "txQLen": ({"txQLen": -1}, 7, "invalid txQLen -1"),
    "long txQLen": ({"txQLen": 2**32}, 7, "invalid txQLen 4294967296"),
    "no prevResult": ({"prevResult": None}, 7, "Required prevResult missing"),
    "dataDir": ({"dataDir": "a\0b", "mtu": 1400}, 7, "dataDir contains NUL"),
    "dataDir is a file": ({"dataDir": "/proc/version", "mtu": 1400}, 999, "/proc/version"),
    "CNI_ARGS": ({"CNI_ARGS": "MAC=x"}, 7, 'invalid mac "x"'),
    "unknown CNI_ARGS": ({"CNI_ARGS": "X=x"}, 4, "ARGS: unknown args"),
}  # fmt: skip


def test_refused_and_nothing_changes(host: Host) -> None:
    """[W-TU2, W-TU4] One error that names it; nothing has changed, also not what was right."""
    ips = ["10.1.2.9/24", "fd00:1::2/64"]
    container = attached(host, ips=ips)
    # The folder stays.
    host.run("mkdir", "-p", FOLDER)
    before = state(container), dump(host)
    for keys, code, text in REFUSED.values():
        env = {"CNI_ARGS": keys["CNI_ARGS"]} if "CNI_ARGS" in keys else {}
        own = {key: value for key, value in keys.items() if key != "CNI_ARGS"}
        config = tuned(container, ips=ips, **({"promisc": True, "allmulti": True} | own))
        error = refusal(host.call("tuning", "ADD", config, container, env=env))
        assert (error["code"], text in error["msg"]) == (code, True), error
        assert state(container) == before[0], error
    assert differences(before[1], dump(host)) == ""


@pytest.mark.parametrize("place", ["sysctl", "args"])
def test_key_that_stands_twice(host: Host, place: str) -> None:
    """[W-TU4] A JSON object may have a member twice: the decoder would take the last one."""
    container = attached(host)
    config = tuned(container, x=5)
    object_ = '{"net.core.somaxconn": "1", "net.core.somaxconn": "2"}'
    member = f'"sysctl": {object_}'
    if place == "args":
        member = f'"args": {{"cni": {{"SYSCTL": {object_}}}}}'
    text = json.dumps(config).replace('"x": 5', member)
    error = refusal(host.call("tuning", "ADD", text, container))
    assert (error["code"], error["msg"]) == (7, "duplicated sysctl keys are not allowed")


ALLOWED = {
    "^net.ipv4.conf.IFNAME.[a-z_]*$": (True, False),
    r"net\.ipv4\.conf\.eth0\.arp_filter": (True, False),
    "net/ipv4/conf/IFNAME/arp_filter": (True, False),
    "\n\n net.core.somaxconn \n": (False, True),
    "net.core": (False, False),
    "somaxconn": (False, False),
    "net.ipv4.conf.IFNAME.arp_filter\nnet.core.*": (True, True),
    "": (False, False),
}


def test_allowlist(host: Host) -> None:
    """[W-TU4] Whole keys in any spelling; without the file everything below net is allowed."""
    container = attached(host)
    cases = [
        ({key: "1"}, 0)
        for key in ("net/ipv4/conf/IFNAME/arp_filter", "net.ipv4.conf.eth0.arp_filter")
    ]
    cases += [({"net.core.somaxconn": "1"}, 1)]
    host.run("mkdir", "-p", "/etc/cni/tuning")
    for lines, expected in ALLOWED.items():
        host.run("tee", ALLOWLIST, stdin=lines)
        for sysctl, index in cases:
            config = tuned(container, sysctl=sysctl, dataDir="/run/tuning")
            for verb in ("ADD", "STATUS"):
                outcome = host.call("tuning", verb, config, container)
                assert (outcome.status == 0) == expected[index], (lines, sysctl, outcome)
                if outcome.status:
                    (key,) = sysctl
                    assert outcome.json["msg"] == f"Sysctl {key} is not allowed"
                    assert outcome.json["code"] == (7 if verb == "ADD" else 50)
            host.delete("tuning", config, container)
    host.run("tee", ALLOWLIST, stdin="net.(")
    error = refusal(host.call("tuning", "ADD", tuned(container, sysctl=cases[0][0]), container))
    assert error["msg"] == f'"net.(" in {ALLOWLIST} is not a regular expression'
    host.run("rm", ALLOWLIST)


FAILING = {
    "sysctl": {"sysctl": {"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.arp_filter": "x"}},
    "mtu": {"mtu": 65535, "mac": MAC, "promisc": True, "sysctl": {"net.core.somaxconn": "77"}},
    "without IPv6": {
        "mtu": 65535,
        "sysctl": {"net.ipv6.conf.IFNAME.disable_ipv6": "1"},
    },
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("earlier", [False, True])
def test_failed_add_reverts_all(host: Host, case: str, earlier: bool) -> None:
    """[W-TU2] Also addresses and routes that IPv6 takes along, and what an earlier ADD has kept."""
    container = host.container("c1")
    # 1500 is a macvlan's limit, its parent's MTU.
    container.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0")
    container.run("ip", "link", "add", "eth0", "link", "up0", "type", "macvlan")
    for link in ("up0", "far0", "eth0"):
        container.run("ip", "link", "set", link, "up")
    for address in ("10.1.2.9/24", "fd00:1::2/64"):
        container.run("ip", "addr", "add", address, "dev", "eth0", "nodad")
    settled(container, ["fd00:1::2/64"])
    container.run("ip", "route", "add", "default", "via", "10.1.2.1")
    container.run("ip", "-6", "route", "add", "default", "via", "fd00:1::1")
    first = state(container)
    kept = {}
    if earlier:
        host.add("tuning", tuned(container, allmulti=True, txQLen=5), container)
        kept = host.files(FOLDER)
    before = state(container)
    config = tuned(container, **FAILING[case])
    assert host.call("tuning", "ADD", config, container).status == 1
    assert state(container) == before
    assert files(host) == ["id-c1_eth0.json"] * earlier
    if earlier:
        assert host.files(FOLDER) == kept
        host.delete("tuning", config, container)
        assert state(container) == first


def test_result_that_cannot_be_written(host: Host) -> None:
    """[W-G8]"""
    container = attached(host)
    before = state(container)
    env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
    stdin = json.dumps(tuned(container, **EXAMPLE))
    script = f"{BIN}/tuning > /dev/full"
    assert host.run("sh", "-c", script, stdin=stdin, env=env, check=False).status == 1
    assert state(container) == before
    assert files(host) == []


def test_repeated_add_keeps_the_first_values(host: Host) -> None:
    """[W-TU3] Also with other values, and a second tuning in the chain."""
    container = attached(host)
    before = state(container)
    for keys in (EXAMPLE, EXAMPLE, {"mtu": 1300, "allmulti": True, "mac": "02:00:00:00:00:99"}):
        config = tuned(container, **keys)
        host.add("tuning", config, container)
    assert state(container)["mtu"] == 1300
    for _ in range(2):
        host.delete("tuning", config, container)
        assert state(container) == before
    assert files(host) == []


@pytest.mark.parametrize("whose", ["ours", "the reference's"])
def test_file_of_an_earlier_container(host: Host, whose: str) -> None:
    """[W-TU3] A restarted container has the same id: what was kept of the first one is stale."""
    maker = host if whose == "ours" else reference(host, "tuning")
    config = {"mac": MAC, "mtu": 1400, "sysctl": {"net.core.somaxconn": "77"}}
    container = attached(host)
    outcome = maker.call("tuning", "ADD", tuned(container, **config), container)
    assert outcome.status == 0, outcome
    container.delete_netns()
    container = attached(host)
    before = state(container)
    host.add("tuning", tuned(container, **config), container)
    host.delete("tuning", tuned(container, **config), container)
    assert state(container) == before


def test_interface_was_replaced(host: Host) -> None:
    """[W-TU3] Its successor keeps what it is; what is the namespace's is restored."""
    container = attached(host)
    sysctls = {"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.arp_filter": "1"}
    somaxconn = container.sysctl("net/core/somaxconn")
    config = tuned(container, mtu=1400, sysctl=sysctls)
    host.add("tuning", config, container)
    container.run("ip", "link", "del", "eth0")
    container.run("ip", "link", "add", "eth0", "mtu", "1300", "type", "veth")
    container.run("sysctl", "-qw", "net.ipv4.conf.eth0.arp_filter=1")
    host.delete("tuning", config, container)
    assert container.link()["mtu"] == 1300
    assert container.sysctl(ARP) == "1"
    assert container.sysctl("net/core/somaxconn") == somaxconn
    assert files(host) == []


@pytest.mark.parametrize("netns", ["there", "empty", "missing", "plain file", "other", "damaged"])
def test_del_matrix(host: Host, netns: str) -> None:
    """[A.19, W-TU3] The file never stays; a namespace that is another one is left."""
    container = attached(host)
    config = tuned(container, **EXAMPLE)
    before = state(container)
    host.add("tuning", config, container)
    env = {"CNI_NETNS": ""} if netns == "empty" else {}
    if netns == "damaged":
        host.run("tee", f"{FOLDER}/id-c1_eth0.json", stdin='{"mtu": "x"')
    elif netns not in ("there", "empty"):
        container.delete_netns()
    if netns == "plain file":
        host.run("touch", container.netns)
    elif netns == "other":
        container = attached(host)
        container.run("ip", "link", "set", "eth0", "mtu", "1300")
    for one in (config | {"prevResult": None, "sysctl": {"kernel.x": ""}, "mac": "x"}, config):
        host.delete("tuning", one, container, env=env)
    assert files(host) == []
    if netns in ("there", "empty"):
        assert state(container) == before
    elif netns == "other":
        assert container.link()["mtu"] == 1300


def test_del_reports_what_cannot_be_restored(host: Host) -> None:
    """[W-TU3] Everything else is, and the file stays for another attempt."""
    container = host.container("c1")
    container.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0")
    container.run("ip", "link", "add", "eth0", "link", "up0", "type", "macvlan")
    before = state(container)
    config = tuned(container, mtu=1400, mac=MAC)
    host.add("tuning", config, container)
    container.run("ip", "link", "set", "up0", "mtu", "1400")
    error = refusal(host.call("tuning", "DEL", config, container))
    assert "set the mtu of eth0 to 1500" in error["msg"]
    assert container.link()["address"] == before["address"]
    assert files(host) == ["id-c1_eth0.json"]
    container.run("ip", "link", "set", "up0", "mtu", "1500")
    host.delete("tuning", config, container)
    assert container.link()["mtu"] == 1500


DRIFTS = {
    "ip link set eth0 address 02:00:00:00:00:99": "mac of interface eth0",
    "ip link set eth0 mtu 1300": "mtu of interface eth0",
    "ip link set eth0 promisc off": "promisc of interface eth0",
    "ip link set eth0 allmulticast off": "allmulti of interface eth0",
    "ip link set eth0 txqueuelen 3": "txQLen of interface eth0",
    "sysctl -w net.ipv4.conf.eth0.arp_filter=0": "sysctl net.ipv4.conf.IFNAME.arp_filter",
    "ip link set eth0 name eth1": "interface eth0",
}


def test_drift_is_named(host: Host) -> None:
    container = attached(host)
    config = tuned(container, allmulti=True, **EXAMPLE)
    config |= {"prevResult": host.add("tuning", config, container)}
    del config["sysctl"]
    for drift, expected in DRIFTS.items():
        if drift.startswith("sysctl"):
            config["sysctl"] = EXAMPLE["sysctl"]
        if drift.endswith("eth1"):
            del config["sysctl"]
            container.run("ip", "link", "set", "eth0", "down")
        container.run("sh", "-c", drift)
        error = refusal(host.call("tuning", "CHECK", config, container))
        assert error["msg"] == f"{expected} differs"
        if not drift.endswith("eth1"):
            host.add("tuning", config, container)
            assert host.call("tuning", "CHECK", config, container).status == 0


def test_status(host: Host) -> None:
    """[W-G2]"""
    good = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", **EXAMPLE}
    assert host.call("tuning", "STATUS", good).status == 0
    for bad in ({"sysctl": {"kernel.x": "1"}}, {"mtu": -1}, {"mac": "x"}):
        assert refusal(host.call("tuning", "STATUS", good | bad))["code"] == 50


def test_gc(host: Host) -> None:
    """[W-G1, W-TU3] Stale files go, what still lives is restored; the reference's files stay."""
    lost, kept, lives = (attached(host, name) for name in ("c1", "c2", "c3"))
    before = state(lives)
    config = tuned(lost, mtu=1400)
    for container in (lost, kept, lives):
        host.add("tuning", tuned(container, mtu=1400), container)
    host.add("tuning", tuned(kept, mtu=1400) | {"name": "net2"}, kept, "far0")
    host.run("tee", f"{FOLDER}/foreign_eth0.json", stdin='{"mtu": 1500}')
    lost.delete_netns()
    valid = [{"containerID": kept.id, "ifname": "eth0"}]
    assert host.call("tuning", "GC", config).status == 0
    assert len(files(host)) == 4
    outcome = host.call("tuning", "GC", config | {"cni.dev/valid-attachments": valid})
    assert outcome.status == 0, outcome
    assert files(host) == ["foreign_eth0.json", "id-c2_eth0.json", "id-c2_far0.json"]
    assert state(lives) == before
    assert kept.link()["mtu"] == 1400
    host.run("rm", f"{FOLDER}/foreign_eth0.json")


def test_neighbours_learn_the_new_address(host: Host) -> None:
    """[W-BR8] In a chain after bridge the change is told to the neighbours by the kernel."""
    container, other = host.container("c1"), host.container("c2")
    bridged = l3(ipam={"type": "static", "addresses": [{"address": "10.1.2.9/24"}]})
    result = host.add("bridge", bridged, container)
    away = bridged | {"ipam": {"type": "static", "addresses": [{"address": "10.1.2.8/24"}]}}
    host.add("bridge", away, other)
    assert other.reaches("10.1.2.9")
    config = tuned(container, mac=MAC, mtu=1400) | {"prevResult": result}
    tuned_result = host.add("tuning", config, container)
    own = next(one for one in tuned_result["interfaces"] if one["name"] == "eth0")
    assert (own["mac"], own["mtu"]) == (MAC, 1400)
    assert other.ip("neigh", "show", "10.1.2.9")[0]["lladdr"] == MAC
    assert other.reaches("10.1.2.9")
    host.delete("tuning", config, container)
    assert other.reaches("10.1.2.9")


SHARED = {
    "mac": {"mac": MAC},
    "all": {**EXAMPLE, "allmulti": True},
    "args": {"args": {"cni": {"mtu": 1400, "txQLen": 9}}},
    "sysctl alone": {"sysctl": {"net.core.somaxconn": "77"}},
}


@pytest.mark.parametrize("case", SHARED)
def test_beside_the_reference(host: Host, case: str) -> None:
    """The same result, state and file; each checks and takes down what the other has set."""
    theirs = reference(host, "tuning")
    host.run("mkdir", "-p", FOLDER)
    seen = []
    for made_by, other in ((theirs, host), (host, theirs)):
        container = attached(host)
        container.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:77")
        before = state(container)
        config = tuned(container, **SHARED[case])
        # It changes the interface of every sandbox of the result [W-TU5].
        del config["prevResult"]["interfaces"][2]
        outcome = made_by.call("tuning", "ADD", config, container)
        assert outcome.status == 0, outcome
        result = outcome.json
        for one in result["interfaces"]:
            # The reference does not tell [W-TU5].
            one.pop("mtu", None)
        stored = {
            name: {key: value for key, value in json.loads(text).items() if key != "cni-py"}
            for name, text in host.files(FOLDER).items()
        }
        seen.append((result, state(container), {key: one for key, one in stored.items() if one}))
        checked = config | {"prevResult": outcome.json}
        assert other.call("tuning", "CHECK", checked, container).status == 0
        outcome = other.call("tuning", "DEL", checked, container)
        assert outcome.status == 0, outcome
        after = state(container)
        # It does not restore sysctls [W-TU2].
        assert after | {"sysctls": ""} == before | {"sysctls": ""}
        host.delete("tuning", config, container)
        container.delete_netns()
        assert files(host) == []
    assert seen[0] == seen[1]
