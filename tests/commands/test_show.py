"""`cni-py show` on a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import json
import re

import pytest

from fixtures.furnished import API, WEB
from fixtures.host import BIN, Host, Outcome
from fixtures.terminal import on_terminal

CNI_PY = str(BIN / "cni-py")
GONE = (
    "dead: its namespace /run/netns/deadead is gone and it still has 10.40.0.6/28: "
    "cni-py gc takes away what is left of it"
)


def show(host: Host, *arguments: str) -> Outcome:
    return host.run(CNI_PY, "show", *arguments, check=False)


def table(text: str, name: str) -> list[str]:
    """The rows of a section, with its head first."""
    return text.split(f"{name}\n", 1)[1].split("\n\n", 1)[0].splitlines()


@pytest.mark.parametrize("columns", [80, 200])
def test_tables_fit_the_terminal(looked_at, columns):
    screen = on_terminal(looked_at.host, CNI_PY, "show", columns=columns)
    assert screen.status == 1
    # Nothing was wrapped by the terminal itself: each line that was printed is one on the screen.
    assert len(screen.raw.rstrip().split(b"\r\n")) == len(screen.lines)
    heads = [line for line in screen.lines if line.isupper() and " " not in line]
    assert heads == ["NETWORKS", "BRIDGES", "CONTAINERS", "ADDRESSES", "PORTS", "PROBLEMS"]
    rows = table(screen.text, "CONTAINERS")
    web = r"up +8f3a61c09e57 +full +eth0 +veth[0-9a-f]{11} +10\.87\.0\.2/16 +[0-9]+ (s|min)"
    assert [line for line in rows if re.fullmatch(web, line)]
    assert [line for line in rows if "probe" in line and "macvlan on up0" in line]
    assert [line for line in rows if line.startswith("gone") and "dead" in line]
    assert "…" not in screen.text


def test_a_narrow_terminal_cuts_and_folds(looked_at):
    screen = on_terminal(looked_at.host, CNI_PY, "show", "--full", columns=80)
    assert f"{WEB[:8]}" in screen.text
    assert WEB not in screen.text
    assert "…" in screen.text
    assert max(map(len, screen.lines)) <= 80
    wide = on_terminal(looked_at.host, CNI_PY, "show", "--full", columns=200)
    assert WEB in wide.text
    assert {"RULES", "RATES", "DNS"} <= set(wide.lines)


def test_colours_are_for_terminals_that_want_them(looked_at):
    host = looked_at.host
    assert b"\x1b[" in on_terminal(host, CNI_PY, "show").raw
    assert b"\x1b[3" not in on_terminal(host, CNI_PY, "show", NO_COLOR="1").raw
    assert "\x1b" not in show(host).stdout


def test_a_pipe_gets_a_line_for_each(looked_at):
    rows = table(show(looked_at.host, "--section", "containers").stdout, "CONTAINERS")
    head, *rest = rows
    assert head.split() == [
        "state",
        "container",
        "network",
        "if",
        "host",
        "end",
        "addresses",
        "since",
    ]
    assert len(rest) == 8
    (web,) = [line for line in rest if WEB[:12] in line and "full" in line]
    assert "10.87.0.2/16,fd87::2/64" in web


def test_sections(looked_at):
    text = show(
        looked_at.host, "--section", "ports", "--section", "rates", "--section", "dns"
    ).stdout
    assert [line for line in text.splitlines() if line.isupper()] == ["PORTS", "RATES", "DNS"]
    ports = [line.split() for line in table(text, "PORTS")[1:]]
    assert ["0.0.0.0:5353", "udp", "10.87.0.3:53", API[:12], "nftables", "yes"] in ports
    assert ["[::]:8080", "tcp", "[fd87::2]:80", WEB[:12], "nftables", "yes"] in ports
    (web,) = [line for line in table(text, "RATES") if WEB[:12] in line and "eth0" in line]
    assert web.endswith("8 Mbit/s    4 Mbit/s")
    assert [line for line in table(text, "DNS") if "10.40.0.1" in line and "svc.local" in line]


def test_pools(looked_at):
    rows = [line.split() for line in table(show(looked_at.host).stdout, "ADDRESSES")[1:]]
    # Of 10.40.0.0/28 the network, the gateway and the broadcast address are nobody's.
    assert ["backend", "10.40.0.0/28", "10.40.0.1", "10.40.0.14", "5", "13", "38%", "1"] in rows
    assert [
        "full",
        "fd87::/64",
        "fd87::1",
        "fd87::ffff:ffff:ffff:ffff",
        "2",
        "2^64",
        "<1%",
        "-",
    ] in rows


def test_of_one_network(looked_at):
    for arguments in (("--network", "backend"), ("backend",), ("backend0",)):
        text = show(looked_at.host, *arguments).stdout
        rows = table(text, "CONTAINERS")[1:]
        assert {line.split()[2] for line in rows} == {"backend"}, arguments
        assert "cni2" not in text
        assert "8080" not in text


def test_container_in_depth(looked_at):
    host, containers = looked_at
    screen = on_terminal(host, CNI_PY, "show", WEB[:6], columns=100)
    assert screen.status == 0
    text = re.sub(r"\s+", " ", screen.text)
    eth0 = containers[WEB].link("eth0")
    port = next(one for one in host.ports("cni2") if one["ifindex"] == eth0["link_index"])
    for fact in (
        f"container {WEB}",
        "eth0 on network full up",
        "eth1 on network backend up",
        "addresses 10.87.0.2/16, fd87::2/64",
        f"interface eth0 (veth, index {eth0['ifindex']}), {eth0['address']}, MTU 1500, up",
        f"host end {port['ifname']} (veth, index {port['ifindex']}), {port['address']}",
        "on cni2, hairpin",
        f"namespace {containers[WEB].netns}, inode ",
        "gateway 10.87.0.1, fd87::1",
        "routes 0.0.0.0/0 via 10.87.0.1 10.87.0.0/16 fd87::/64 ::/0 via fd87::1",
        "ports 0.0.0.0:8080 -> 10.87.0.2:80/tcp (nftables)",
        "masquerade 10.87.0.2, fd87::2 (nftables)",
        "policy same-bridge on cni2",
        "limits to the container 8 Mbit/s, burst 100 kB",
        "from the container 4 Mbit/s, burst 100 kB (bwp",
        "sysctls net.ipv4.conf.eth0.arp_filter = 1",
        "DNS servers 10.40.0.1 search svc.local",
        "made by cni-py: bridge, portmap, firewall, bandwidth, tuning",
        "/var/lib/cni/networks/full/10.87.0.2",
    ):
        assert fact in text, fact
    assert max(map(len, screen.lines)) <= 100


def test_json_of_a_container(looked_at):
    found = json.loads(show(looked_at.host, WEB, "--json").stdout)
    assert {one["container_id"] for one in found["attachments"]} == {WEB}
    assert {one["name"] for one in found["networks"]} == {"full", "backend"}
    assert {one["host_port"] for one in found["ports"]} == {8080}
    assert {it["container_id"] for one in found["pools"] for it in one["given"]} == {WEB}
    assert found["problems"] == []


def test_containers_and_networks_together(looked_at):
    found = json.loads(show(looked_at.host, "db-0", API, "lan", "--json").stdout)
    assert {one["container_id"] for one in found["attachments"]} == {"db-0", API, "probe"}
    pools = {one["network"]: one["given"] for one in found["pools"]}
    assert {one["container_id"] for one in pools["full"]} == {API}
    assert {one["container_id"] for one in pools["backend"]} == {"db-0"}
    text = show(looked_at.host, "db-0", "lan").stdout
    assert text.startswith("container db-0\n")
    assert "10.40.0.3/28" in text
    assert [line.split()[1] for line in table(text, "CONTAINERS")[1:]] == ["probe"]


def test_what_does_not_fit_is_told(looked_at):
    done = show(looked_at.host)
    assert done.status == 1
    assert table(done.stdout, "PROBLEMS") == [
        "db-2: eth0 is down",
        GONE,
    ]
    assert show(looked_at.host, "db-1").status == 0
    alone = show(looked_at.host, "db-2")
    assert (alone.status, alone.stdout.splitlines()[-1]) == (1, "! eth0 is down")


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("8f3a", 2, f"2 containers begin with '8f3a': {WEB}, {API}"),
        ("backnd", 1, "no container, network or bridge is named 'backnd': did you mean backend?"),
        ("dib-1", 1, "no container, network or bridge is named 'dib-1': did you mean db-1?"),
        ("\x1b[31m\n", 1, None),
    ],
)
def test_names_that_are_nothing_or_several(looked_at, name, status, said):
    done = show(looked_at.host, name)
    assert (done.status, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert said is None or done.stderr == f"cni-py show: {said}\n"


def test_network_that_is_none(looked_at):
    done = show(looked_at.host, "--network", "ful")
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr == "cni-py show: no network is named 'ful': did you mean full?\n"


def test_reader_that_goes_away(looked_at):
    done = looked_at.host.run("sh", "-c", f"{CNI_PY} show --full | head -1")
    assert done.stderr == ""
    assert done.stdout.startswith("3 networks, 2 bridges, 7 containers, 1 down, 1 gone")


def test_without_root(looked_at):
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    for command in ("show", "graph"):
        done = looked_at.host.run(*nobody, CNI_PY, command, check=False)
        assert (done.status, done.stdout) == (1, "")
        said = "looking into containers' namespaces needs root: try again with sudo"
        assert done.stderr == f"cni-py {command}: {said}\n"


def test_hostile_names_reach_no_terminal(host):
    """libcni's cache is others' file: what is in it is shown, and never interpreted."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e<b>[red]\n"
    kept = {
        "kind": "cniCacheV1",
        "containerId": "x",
        "ifName": "eth0",
        "networkName": "n",
        "netns": evil,
        "config": "",
        "result": {"cniVersion": "1.0.0", "dns": {"nameservers": [evil], "domain": evil}},
    }
    host.run("mkdir", "-p", "/var/lib/cni/results")
    host.run("sh", "-c", "cat > /var/lib/cni/results/n-x-eth0", stdin=json.dumps(kept))
    for arguments in (("show",), ("show", "x"), ("show", "--full"), ("graph",)):
        screen = on_terminal(host, CNI_PY, *arguments, columns=200, NO_COLOR="1")
        assert b"\x1b]" not in screen.raw, arguments
        assert b"\x1b[2J" not in screen.raw, arguments
        assert b"\x07" not in screen.raw, arguments
        assert "\u202e".encode() not in screen.raw, arguments
    assert "<b>[red]" in on_terminal(host, CNI_PY, "show", "x", columns=200).text
