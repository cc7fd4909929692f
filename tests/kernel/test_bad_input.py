"""Malformed input of every kind: one CNI error that names it, no traceback, nothing changed."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.configs import V4, V6, host_local, ipam, l2, l3, routed
from fixtures.dump import differences, dump
from fixtures.host import Host, Outcome, refusal
from fixtures.leases import blocks, lease
from fixtures.parents import bare, child, uplink

if TYPE_CHECKING:
    from collections.abc import Callable

    Path = tuple[str | int, ...]

pytestmark = pytest.mark.slow

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"}],
    "ips": [{"interface": 0, "address": "10.1.2.9/24", "gateway": "10.1.2.1"}],
    "routes": [{"dst": "192.0.2.0/24", "gw": "10.1.2.1", "mtu": 1400, "table": 100}],
    "dns": {"nameservers": ["192.0.2.53"], "domain": "a", "search": ["b"], "options": ["c"]},
}
SHARED = {
    "capabilities": {"mac": True, "ips": False},
    "dns": PREVIOUS["dns"],
    "prevResult": PREVIOUS,
    "cni.dev/valid-attachments": [{"containerID": "id-c1", "ifname": "eth0"}],
}
ROUTES = [{"dst": "192.0.2.0/24", "gw": "10.1.2.1", "priority": 5, "scope": 0, "advmss": 1200}]
RANGES = [[{**V4[0], "rangeStart": "10.1.2.3", "rangeEnd": "10.1.2.99", "gateway": "10.1.2.1"}], V6]
HOST_LOCAL = host_local(*RANGES, routes=ROUTES, dataDir="/run/own", resolvConf="/etc/hostname")
DELEGATE = {"type": "bridge", "isDefaultGateway": True, "ipMasqExclude": ["10.9.0.0/16"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "bridge": l3(
        isGateway=True,
        isDefaultGateway=True,
        forceAddress=False,
        ipMasq=False,
        ipMasqExclude=["10.9.0.0/16"],
        mtu=1400,
        hairpinMode=True,
        promiscMode=False,
        vlan=0,
        preserveDefaultVlan=True,
        macspoofchk=False,
        enabledad=False,
        disableContainerInterface=False,
        portIsolation=False,
        ipam=HOST_LOCAL,
        args={"cni": {"mac": "02:00:00:00:00:01"}},
        runtimeConfig={"mac": "02:00:00:00:00:02"},
        **SHARED,
    ),
    "firewall": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "firewall",
        "backend": "nftables",
        "iptablesAdminChainName": "ADMIN",
        "firewalldZone": "internal",
        "ingressPolicy": "open",
        **SHARED,
    },
    "host-local": ipam(
        **{key: value for key, value in HOST_LOCAL.items() if key != "type"},
    )
    | {
        "runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/24"}]], "ips": ["10.1.2.9"]},
        "args": {"cni": {"ips": ["10.9.0.7"]}},
    }
    | SHARED,
    "host-device": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "host-device",
        "device": "nic0",
        "hwaddr": "02:00:00:00:00:01",
        "kernelpath": "/sys/devices/virtual/net/nic0",
        "pciBusID": "0000:ff:1f.7",
        "runtimeConfig": {"deviceID": "0000:ff:1f.7"},
        "ipam": HOST_LOCAL,
        **SHARED,
    },
    "loopback": {"cniVersion": "1.1.0", "name": "net1", "type": "loopback", **SHARED},
    "cluster": ipam(
        "cluster",
        pools=["lan"],
        routes=ROUTES,
        dataDir="/run/own",
        resolvConf="/etc/hostname",
        stickySeconds=60,
    )
    | {"runtimeConfig": {"ips": []}, "args": {"cni": {"ips": [], "name": "web"}}}
    | SHARED,
    "overlay": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "overlay",
        "cluster": "default",
        "subnetFile": "/run/own/lease.json",
        "dataDir": "/run/own/flannel",
        "delegate": DELEGATE,
        "ipam": {"type": "host-local", "routes": ROUTES, "dataDir": "/run/own", "resolvConf": ""},
        "runtimeConfig": {"mac": "02:00:00:00:00:02"},
        "args": {"cni": {}},
        **SHARED,
    },
    "ptp": routed(
        ipMasq=False,
        mtu=1400,
        ipam=HOST_LOCAL,
        args={"cni": {"mac": "02:00:00:00:00:01"}},
        runtimeConfig={"mac": "02:00:00:00:00:02"},
        **SHARED,
    ),
    "macvlan": child(
        "macvlan",
        mode="vepa",
        mtu=1400,
        mac="02:00:00:00:00:04",
        bcqueuelen=2000,
        linkInContainer=False,
        ipam=HOST_LOCAL,
        args={"cni": {"mac": "02:00:00:00:00:01"}},
        runtimeConfig={"mac": "02:00:00:00:00:02"},
        **SHARED,
    ),
    "portmap": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "portmap",
        "backend": "nftables",
        "snat": True,
        "masqAll": False,
        "conditionsV4": ["ip", "saddr", "192.0.2.0/24"],
        "conditionsV6": ["ip6", "saddr", "::1"],
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
            ]
        },
        **SHARED,
    },
    "static": ipam(
        "static",
        addresses=[{"address": "10.1.2.9/24", "gateway": "10.1.2.1"}],
        routes=ROUTES,
        dns=PREVIOUS["dns"],
    )
    | {"runtimeConfig": {"ips": ["10.1.2.9/24"]}, "args": {"cni": {"ips": ["10.1.2.8/24"]}}}
    | SHARED,
    "tap": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "tap",
        "multiQueue": True,
        "mtu": 1400,
        "mac": "02:00:00:00:00:01",
        "owner": 7,
        "group": 8,
        "selinuxContext": "system_u:system_r:container_t:s0",
        "bridge": "",
        "ipam": HOST_LOCAL,
        "runtimeConfig": {"mac": "02:00:00:00:00:02"},
        **SHARED,
    },
}  # fmt: skip
# Where nothing is created: the kernel need not have their links, and what comes after another one
# is not tried with everything.
REFUSED = CONFIGS | {
    "bandwidth": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "bandwidth",
        "ingressRate": 8000,
        "ingressBurst": 8000,
        "egressRate": 8000,
        "egressBurst": 8000,
        "unshapedSubnets": ["10.0.0.0/8"],
        "shapedSubnets": [],
        "runtimeConfig": {
            "bandwidth": {
                "ingressRate": 8000,
                "ingressBurst": 8000,
                "egressRate": 8000,
                "egressBurst": 8000,
                "unshapedSubnets": ["10.0.0.0/8"],
                "shapedSubnets": ["fd00::/8"],
            }
        },
        **SHARED,
    },
    "sbr": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "sbr",
        "gateways": ["10.1.2.1"],
        "addSourceHints": True,
        **SHARED,
    },
    "services": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "services",
        "services": [
            {
                "name": "web",
                "port": 8080,
                "protocol": "tcp",
                "weight": 2,
                "metadata": {"version": "2"},
                "check": {"type": "http", "path": "/ping", "intervalSeconds": 1.5, "fall": 2},
            }
        ],
        "args": {"cni": {"services": [{"name": "web", "port": 8080}]}},
        "runtimeConfig": {"services": [{"name": "web", "port": 8080, "check": {"rise": 2}}]},
        **SHARED,
    },
    "tuning": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "tuning",
        "dataDir": "/run/own/tuning",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
        "mac": "02:00:00:00:00:03",
        "promisc": True,
        "mtu": 1400,
        "allmulti": True,
        "txQLen": 100,
        "args": {"cni": {"sysctl": {"net/core/somaxconn": "9"}, "mtu": 1300, "promisc": False}},
        "runtimeConfig": {"mac": "02:00:00:00:00:02"},
        **SHARED,
    },
    "vrf": {
        "cniVersion": "1.1.0",
        "name": "net1",
        "type": "vrf",
        "vrfname": "blue",
        "table": 7,
        **SHARED,
    },
    "ipvlan": child(
        "ipvlan", mode="l3", mtu=1400, linkInContainer=False, ipam={"type": "x"}, **SHARED
    ),
    "vlan": child("vlan", mtu=1400, linkInContainer=False, ipam={"type": "x"}, **SHARED),
}
TRUNK = l2(vlanTrunk=[{"minID": 10, "maxID": 12}, {"id": 20}])
every_plugin = pytest.mark.parametrize("plugin", CONFIGS)
# Objects with any members.
MAPS: tuple[tuple[str | int, ...], ...] = (
    ("capabilities",), ("sysctl",), ("args", "cni", "sysctl"), ("services", 0, "metadata"),
)  # fmt: skip
# Those that come after another plugin, which has made the interface.
CHAINED = ("sbr", "services", "tuning", "vrf")
# The others share their reading, and are tried with fewer examples.
THOROUGH = ("bridge", "host-local")
every_verb = pytest.mark.parametrize(
    ("plugin", "verb"),
    [(one, verb) for one in CONFIGS for verb in (VERBS if one in THOROUGH else ("ADD", "DEL"))],
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of calls: the handlers are run without a Python start for each."""
    if Host.mode == "standalone":
        monkeypatch.setattr(Host, "mode", "in-process")


def examples(count: int) -> Callable[..., Any]:
    """The same examples in every run; one host serves them all."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# A look at all that can change takes longer than a call.
_REFUSED_TOGETHER = 6


class Watched:
    """A host and a container, on which a failing call must change nothing at all."""

    def __init__(self, host: Host, plugin: str) -> None:
        self.host, self.plugin = host, plugin
        uplink(host, "macvlan")
        self.container = host.container("c1")
        # What the configurations name as host-local's folder.
        host.run("mkdir", "/run/own")
        # What the agent would have written.
        if plugin == "overlay":
            lease(host, "/run/own/lease.json")
        if plugin == "cluster":
            blocks(host)
        if plugin == "host-device":
            host.run("ip", "link", "add", "nic0", "type", "veth", "peer", "name", "far0")
            # The folder of its records stays.
            host.run("mkdir", "-p", "/var/lib/cni/cni-py/host-device")
        if plugin in CHAINED:
            self.container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
            self.container.run("ip", "link", "set", "eth0", "up")
            self.container.run("ip", "addr", "add", "10.1.2.9/24", "dev", "eth0")
            # The folders of what they keep stay.
            kept = ("/run/own/tuning", "/run/cni/tuning", "/run/cni-py/sbr", "/run/cni-py/services")
            host.run("mkdir", "-p", *kept)
        if plugin == "portmap":
            # What is made once, for all.
            for verb in ("ADD", "DEL"):
                outcome = host.call(plugin, verb, CONFIGS[plugin], self.container)
                assert outcome.status == 0, outcome
        self.state = self._state()
        self.refused: list[tuple[str, Any, Outcome]] = []

    def _state(self) -> dict[str, list[str]]:
        script = "ip addr | grep -v inet6; ip rule; ip route show table all"
        inside = self.container.run("sh", "-c", script).stdout.splitlines()
        dumped = {**dump(self.host), "inside": inside}
        # The kernel marks the routes of a bridge that lost its last port, but later; the index of
        # host-local's files may be written again for what was taken and given back.
        return {
            kind: [one.replace(" linkdown", "").rstrip() for one in lines if "/.cni-py/" not in one]
            for kind, lines in dumped.items()
        }

    def call(self, verb: str, config: Any, **env: str) -> Outcome:
        """One call; a successful ADD is taken down again."""
        outcome = self.host.call(self.plugin, verb, config, self.container, env=env)
        assert "Traceback" not in outcome.stderr, (verb, config, outcome)
        if outcome.status == 0:
            if verb == "ADD":
                removed = self.host.call(self.plugin, "DEL", config, self.container, env=env)
                assert (removed.status, removed.stdout) == (0, ""), (config, removed)
            self.state, self.refused = self._state(), []
            return outcome
        assert outcome.status == 1
        assert outcome.json["msg"].strip()
        self.refused.append((verb, config, outcome))
        if len(self.refused) == _REFUSED_TOGETHER:
            before, self.state = self.state, self._state()
            found = differences(before, self.state)
            assert found == "", (self.refused, found)
            self.refused = []
        return outcome


def copied(value: Any) -> Any:
    """A copy that shares nothing, not even with itself."""
    return json.loads(json.dumps(value))


def paths(value: Any, prefix: Path = ()) -> list[Path]:
    """The path of every value below the root."""
    items = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [one for key, item in items for one in ((*prefix, key), *paths(item, (*prefix, key)))]


def holder(config: Any, path: Path) -> Any:
    """What the last step of a path is a key of."""
    for step in path[:-1]:
        config = config[step]
    return config


def jsonpath(path: Path) -> str:
    return "$" + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 4095, 70000, 2**31, 2**32, -(2**31) - 1, 2**63, 2**64, 2**200,
    1.5, -0.0, 1e300, "", " ", "x", "0", "-1", "\0", "a\0b", "\n", "\u00e9\u2028\U0001f600", "a/b",
    "..", "%s{}", "/dev/null", "/proc/self/mem", "10.1.2.0/24", "10.1.2.5", "::1", "::/0",
    "0.0.0.0/0", "10.1.2.999/24", "10.1.2.5/33", "02:00:00:00:00:09", "y" * 300,
    [], [None], [[]], [{}], [0], ["x"], {}, {"": ""}, {"cni": []}, {"a": {"b": [1]}},
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, config: dict[str, Any]) -> dict[str, Any]:
    """`config` with one to three members replaced, taken away or moved."""
    config = copied(config)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(config) or [("name",)]))
        target = holder(config, path)
        if draw(st.booleans()) or isinstance(target, list):
            target[path[-1]] = copied(draw(st.sampled_from(ODD)))
        else:
            del target[path[-1]]
    return config


@every_verb
def test_mutated_configuration(host: Host, plugin: str, verb: str) -> None:
    """[J-03] [P-03] [GE-04] [DL-04] Refused with an error, or by chance still right."""
    watched = Watched(host, plugin)

    count = 30 if verb == "ADD" else 15

    @examples(count if plugin in THOROUGH else count // 3)
    @given(mutated(CONFIGS[plugin]))
    def check(config: dict[str, Any]) -> None:
        outcome = watched.call(verb, config)
        if outcome.status:
            assert outcome.json["code"] in (1, 6, 7, 50, 999), (config, outcome)

    check()


def wrong(value: Any) -> Any:
    """A value of a type that nothing takes in place of `value`."""
    if isinstance(value, (int, bool)):
        return "5"
    return {"a": 1} if isinstance(value, list) else [5]


def expected(path: Path) -> tuple[int, str]:
    """The code and the path that a wrong type at `path` is reported with."""
    if path[0] == "prevResult":
        return 6, jsonpath(path[1:]) if path[1:] else "prevResult"
    for folder in MAPS:
        if path[: len(folder)] == folder and path != folder:
            # The decoder does not tell which member of a map it is.
            return 7, f"{jsonpath(folder)}[...]"
    return 6 if path[0] in ("name", "cniVersion") else 7, jsonpath(path)


@pytest.mark.parametrize("plugin", REFUSED)
def test_wrong_types_are_named(host: Host, plugin: str) -> None:
    """[J-03] [GE-04] Each key of a wrong type: the code, its path and its value."""
    watched = Watched(host, plugin)
    cases = [(REFUSED[plugin], one) for one in paths(REFUSED[plugin])]
    if plugin == "bridge":
        # Apart from the others, since not every kernel has VLAN filtering.
        cases += [(TRUNK, one) for one in paths(TRUNK) if one[0] == "vlanTrunk"]
    for base, path in cases:
        if path[0] == "cni.dev/valid-attachments" or path == ("prevResult", "cniVersion"):
            continue
        config = copied(base)
        target = holder(config, path)
        target[path[-1]] = value = wrong(target[path[-1]])
        error = refusal(watched.call("ADD", config))
        code, where = expected(path)
        text = f"{error['msg']} {error.get('details', '')}"
        assert error["code"] == code, (path, error)
        assert where in text, (path, error)
        if "[...]" not in where and path != ("prevResult",):
            assert json.dumps(value, separators=(",", ":")) in text, (path, error)


@every_plugin
def test_unknown_keys_are_accepted(host: Host, plugin: str) -> None:
    """[GE-04] [AR-01] [P-04] Anywhere, and whatever is in them."""
    watched = Watched(host, plugin)
    base = CONFIGS[plugin]
    objects = [()] + [one for one in paths(base) if isinstance(holder(base, (*one, "")), dict)]
    anything = st.recursive(
        st.sampled_from([one for one in ODD if not isinstance(one, int) or one < 2**63]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner),
        max_leaves=6,
    )
    keys = st.text(string.printable + "\u00e9", max_size=8).map("x-{}".format)
    # Every member of `capabilities` is a name and a bool.
    places = st.sampled_from([one for one in objects if one[:1] != ("capabilities",)])

    @examples(30 if plugin in THOROUGH else 10)
    @given(st.lists(st.tuples(places, keys, anything), min_size=1, max_size=4))
    def check(added: list[tuple[Path, str, Any]]) -> None:
        config = copied(base)
        for path, key, value in added:
            holder(config, (*path, ""))[key] = value
        outcome = watched.call("ADD", config)
        assert outcome.status == 0, (added, outcome)

    check()


@every_verb
def test_damaged_text(host: Host, plugin: str, verb: str) -> None:
    """[2.2] [trap 5] [J-02] What no JSON parser should take, and what one must."""
    watched = Watched(host, plugin)
    text = json.dumps(CONFIGS[plugin]).encode()
    deep = 100_000
    refused = [
        text[: len(text) // 2],
        text + text,
        b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16-le"),
        text.replace(b"net1", b"net\xff"),
        text.replace(b"net1", b"net\\ud800"),
        text.replace(b"net1", b"net\n1"),
        text.replace(b"{", b"{,", 1),
        text.replace(b"{", b"{'a': 1,", 1),
        *(text.replace(b"{", b'{"x": %s,' % one, 1) for one in (b"NaN", b"-Infinity", b"1e999")),
        *(text.replace(b"{", b'{"x": %s,' % one, 1) for one in (b"01", b"0x1", b"True", b"//")),
        text.replace(b"{", b'{"x": ' + b"[" * deep + b"]" * deep + b",", 1),
        text.replace(b"{", b'{"x": ' + b'{"y":' * deep, 1),
        b"[" * deep,
        bytes(range(256)) * 1000,
    ]
    for one in refused:
        error = refusal(watched.call(verb, one))
        assert error["code"] == 6, (one[:80], error)
        assert error["msg"].startswith("error unmarshall network config: ")
        assert len(error["msg"]) < 300
    long = b"x" * 1_000_000
    accepted = [
        b" \t\r\n" + text + b"\n" * 1000,
        text.replace(b"{", b'{"name": "other", "name": 5,', 1),
        text.replace(b"{", b'{"x-a": "%s", "x-%s": 1,' % (long, long), 1),
        text.replace(b"{", b'{"x-a": ' + b"[" * 100 + b"]" * 100 + b",", 1),
        text.replace(b"{", b'{"x-a": [' + b"0," * 200_000 + b"0],", 1),
    ]
    for one in accepted:
        outcome = watched.call(verb, one)
        # There is nothing yet that CHECK could find.
        assert outcome.status == 0 or (verb, outcome.json["code"]) == ("CHECK", 999), one[:80]


@every_plugin
def test_long_strings(host: Host, plugin: str) -> None:
    """[GE-04] A megabyte in place of each string."""
    watched = Watched(host, plugin)
    for path in paths(CONFIGS[plugin]):
        config = copied(CONFIGS[plugin])
        target = holder(config, path)
        if not isinstance(target[path[-1]], str):
            continue
        target[path[-1]] = "y" * 1_000_000
        outcome = watched.call("ADD", config)
        if outcome.status:
            assert outcome.json["code"] in (1, 6, 7, 999), (path, outcome.json["code"])


def text_without_nul(maximum: int) -> st.SearchStrategy[str]:
    """Any text, also bytes that are no UTF-8."""
    some = string.ascii_letters + "0123456789._-/: %\t\n\u00e9\u2003\u001c"
    characters = st.sampled_from(some) | st.sampled_from(["\udcff", "\udc80"])
    return st.text(characters, min_size=1, max_size=maximum)


@every_plugin
def test_environment(host: Host, plugin: str) -> None:
    """[2.1] [2.2] [5.1] [5.3] Random variables: refused by the rules, each in its order."""
    watched = Watched(host, plugin)
    config = CONFIGS[plugin]
    space = re.compile(r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")

    @examples(25)
    @given(
        st.sampled_from(["ADD", "CHECK", "DEL"]),
        text_without_nul(4) | st.just("id-c1"),
        text_without_nul(18) | st.just("eth0"),
        text_without_nul(6) | st.just(watched.container.netns),
        text_without_nul(6) | st.just(host.path),
    )
    def check(verb: str, container_id: str, ifname: str, netns: str, path: str) -> None:
        env = {"CNI_CONTAINERID": container_id, "CNI_IFNAME": ifname, "CNI_NETNS": netns}
        outcome = watched.call(verb, config, **env, CNI_PATH=path)
        bad_id = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", container_id) is None
        bad_ifname = (
            len(os.fsencode(ifname)) > 15
            or ifname in (".", "..")
            or re.search("[/:]", ifname) is not None
            or space.search(ifname) is not None
        )
        if bad_id:
            error = refusal(outcome)
            assert (error["code"], error["msg"]) == (4, "invalid characters in containerID")
            assert error["details"] == container_id
        elif bad_ifname:
            error = refusal(outcome)
            assert (error["code"], error["msg"][:15]) == (4, "interface name ")
        elif outcome.status:
            assert outcome.json["code"] in (4, 7, 8, 999), outcome
            assert "containerID" not in outcome.json["msg"]

    check()


KNOWN = {
    "bridge": "MAC=02:00:00:00:00:09",
    "host-local": "IP=10.1.2.8",
    "macvlan": "MAC=02:00:00:00:00:09",
    "static": "IP=10.1.2.7/24",
}
BARE = {
    "macvlan": bare("macvlan"),
    "bridge": l2(),
    "host-local": ipam(ranges=[V4]),
    "static": ipam("static", addresses=[{"address": "10.1.2.9/24"}]),
}


@pytest.mark.parametrize("plugin", KNOWN)
def test_cni_args(host: Host, plugin: str) -> None:
    """[CA-02] [CA-03] [CA-04] [CA-08] One wrong pair refuses all; code 4 names the pairs."""
    watched = Watched(host, plugin)
    pairs = [
        KNOWN[plugin], "A=1", "A=", "=", "=1", "A", "a=b=c", "", "ip=1", "K8S_POD_NAME=a-b",
        "B=\u00e9", "IgnoreUnknown=1", "IgnoreUnknown=TRUE", "IgnoreUnknown=0", "IgnoreUnknown=yes",
        "IgnoreUnknown=", "ignoreunknown=1",
    ]  # fmt: skip

    @examples(50)
    @given(st.lists(st.sampled_from(pairs), min_size=1, max_size=4, unique=True))
    def check(chosen: list[str]) -> None:
        text = ";".join(chosen)
        outcome = watched.call("ADD", BARE[plugin], CNI_ARGS=text)
        msg = _refusal_of(plugin, chosen) if text else ""
        if msg:
            assert (refusal(outcome)["code"], outcome.json["msg"]) == (4, msg)
        else:
            assert outcome.status == 0, (text, outcome)

    check()


def _refusal_of(plugin: str, pairs: list[str]) -> str:
    ignore, unknown = False, []
    for pair in pairs:
        if pair.count("=") != 1:
            return f'ARGS: invalid pair "{pair}"'
        key, value = pair.split("=")
        if key == "IgnoreUnknown":
            if value.lower() not in ("1", "true", "0", "false"):
                cause = f"boolean unmarshal error: invalid input {value.lower()}"
                return f'ARGS: error parsing value of pair "{pair}": {cause}'
            ignore = value.lower() in ("1", "true")
        elif pair != KNOWN[plugin]:
            unknown.append(f'"{pair}"')
    return "" if ignore or not unknown else f"ARGS: unknown args [{' '.join(unknown)}]"


@st.composite
def almost(draw: st.DrawFn, texts: list[str]) -> str:
    """One of the texts with up to two characters put in, taken out or replaced."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        put = draw(st.text("0123456789abf:./%- \u0661", max_size=1))
        text = text[:place] + put + text[place + draw(st.integers(0, 1)) :]
    return text


def read_cidr(text: str) -> str | None:
    """What `text` means by the reference's rules; None when it is refused."""
    address, _, length = text.partition("/")
    if not re.fullmatch("[0-9]{1,3}", length) or not re.fullmatch("[0-9A-Fa-f:.]+", address):
        return None
    try:
        ip, bits = ipaddress.ip_address(address), int(length)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip, bits = ip.ipv4_mapped, bits - 96
        return str(ipaddress.ip_interface((ip, bits))) if bits >= 0 else None
    except ValueError:
        return None


def is_for_an_interface(text: str) -> bool:
    ip = ipaddress.ip_interface(text).ip
    return not (ip.is_unspecified or ip.is_multicast)


def test_addresses(host: Host) -> None:
    """[P-01] [R-03] [J-04] Near misses of addresses: read as the reference does, or named."""
    watched = Watched(host, "static")
    texts = ["10.1.2.9/24", "192.0.2.255/32", "fd00:1::5/64", "::ffff:10.1.2.9/120", "::1/128"]

    @examples(60)
    @given(almost(texts))
    def check(text: str) -> None:
        outcome = watched.call("ADD", ipam("static", addresses=[{"address": text}]))
        meaning = read_cidr(text)
        if meaning is None:
            error = refusal(outcome)
            shown = json.dumps(text, ensure_ascii=False)
            assert (error["code"], error["details"]) == (7, f"got {shown}")
            assert f"$.ipam.addresses[0].address: invalid CIDR address: {text}" in error["msg"]
        elif is_for_an_interface(meaning):
            assert outcome.json["ips"] == [{"address": meaning}]
        else:
            error = refusal(outcome)
            said = f"address {ipaddress.ip_interface(meaning).ip} is not one of an interface"
            assert (error["code"], error["msg"]) == (7, said)

    check()


def test_ranges(host: Host) -> None:
    """[5.1.2] Random ranges: an address inside them, or a refusal that names path or value."""
    watched = Watched(host, "host-local")
    subnets = [
        "10.1.2.0/24", "10.1.2.64/29", "10.1.2.1/24", "10.1.2.0/31", "fd00:1::/64", "fd00:1::/127"
    ]  # fmt: skip
    places = [
        "10.1.2.0", "10.1.2.1", "10.1.2.66", "10.1.2.255", "10.1.3.1", "fd00:1::5",
        "::ffff:10.1.2.65",
    ]  # fmt: skip
    place = almost(places) | st.sampled_from(["", None])
    optional = {"rangeStart": place, "rangeEnd": place, "gateway": place}
    one = st.fixed_dictionaries({"subnet": almost(subnets)}, optional=optional)

    @examples(60)
    @given(st.lists(st.lists(one, max_size=2), max_size=2))
    def check(sets: list[list[dict[str, Any]]]) -> None:
        outcome = watched.call("ADD", ipam(ranges=sets))
        if outcome.status:
            error = outcome.json
            exhausted = error["msg"].startswith("no IP addresses available in range set")
            assert error["code"] == (999 if exhausted else 7), error
            assert "ipam.ranges" in f"{error['msg']} {error.get('details')}" or exhausted, error
            return
        for ranges, given_out in zip(sets, outcome.json["ips"], strict=True):
            address = ipaddress.ip_interface(given_out["address"])
            assert any(_inside(address, one) for one in ranges), (sets, given_out)
            assert given_out["gateway"] != str(address.ip)

    check()


def _inside(address: Any, one: dict[str, Any]) -> bool:
    subnet = ipaddress.ip_network(read_cidr(one["subnet"]) or "")
    low = one.get("rangeStart") or str(subnet[1])
    high = one.get("rangeEnd") or str(subnet[-1])
    first, last = (
        read_cidr(f"{text}/128" if ":" in text else f"{text}/32") for text in (low, high)
    )
    limits = [int(ipaddress.ip_interface(text or "").ip) for text in (first, last)]
    return address.network == subnet and limits[0] <= int(address.ip) <= limits[1]
