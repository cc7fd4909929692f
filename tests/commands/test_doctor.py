"""`cni-py doctor`: what it finds on hosts that something is wrong with."""

from __future__ import annotations

import fcntl
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fixtures.configs import host_local, ipam, l3
from fixtures.firewalls import attach, drop_by_default, firewall, only_v4
from fixtures.host import BIN, Host
from fixtures.server import CNI_PY
from fixtures.terminal import on_terminal

CONF = "/etc/cni/net.d"
SMALL = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]])
WRONG = ("look", "broken")


def folder(host: Host, path: str) -> Path:
    return Path(f"/proc/{host.holder.pid}/root{path}")


def configure(host: Host, config: dict[str, Any], name: str = "10-net1.conflist") -> None:
    plugins = config.get("plugins", [config])
    whole = {"cniVersion": "1.1.0", "name": config["name"], "plugins": plugins}
    folder(host, f"{CONF}/{name}").write_text(json.dumps(whole))


def examine(host: Host, *arguments: str, status: int | None = None) -> list[dict[str, str]]:
    outcome = host.run(CNI_PY, "doctor", str(BIN), "--json", *arguments, check=False)
    assert "Traceback" not in outcome.stderr, outcome
    findings: list[dict[str, str]] = outcome.json
    wrong = any(one["severity"] in WRONG for one in findings)
    assert outcome.status == (1 if wrong else 0) if status is None else status
    return findings


def of(findings: list[dict[str, str]], subject: str, *severities: str) -> list[str]:
    """The texts of one examination, by default of what is wrong."""
    return [
        one["text"]
        for one in findings
        if one["subject"] == subject and one["severity"] in (severities or WRONG)
    ]


def test_a_host_in_order(host: Host) -> None:
    """One with a container and a server has nothing to look at, and says what was looked at."""
    host.serve()
    configure(host, l3())
    host.add("bridge", l3(), host.container("c1"))
    findings = examine(host)
    assert [one for one in findings if one["severity"] in (*WRONG, "unseen")] == []
    assert of(findings, "addresses", "ok") == [
        "net1: 1 addresses of 10.1.2.1-10.1.2.254 are given, 252 are free"
    ]
    assert of(findings, "leaks", "ok") == ["nothing has outlived its container"]
    text = host.run(CNI_PY, "doctor", str(BIN)).stdout
    assert f"{len(findings)} findings: nothing needs a look" in text


def test_every_finding_that_is_wrong_has_a_remedy(host: Host) -> None:
    host.run("mkdir", "-p", "/var/lib/cni/cni-py")
    host.run("chmod", "777", "/var/lib/cni/cni-py")
    folder(host, f"{CONF}/bad.conf").write_bytes(b"\xff")
    findings = examine(host)
    wrong = [one for one in findings if one["severity"] in WRONG]
    assert len(wrong) >= 3
    assert [one for one in wrong if not one["remedy"]] == []
    quiet = host.run(CNI_PY, "doctor", str(BIN), "-q", check=False).stdout
    assert [one for one in quiet.splitlines() if one[:4] not in ("LOOK", "BAD ", "    ")] == []
    assert quiet.count("\n") == 2 * len(wrong)


def test_missing_features(host: Host) -> None:
    """What a plugin of a configuration needs is worse than what nobody uses."""
    configure(host, ipam(ranges=[[{"subnet": "10.0.0.0/29"}]]) | {"type": "ipvlan"})
    findings = examine(host)
    ipvlan = host.run("ip", "link", "add", "x", "type", "ipvlan", check=False)
    said = [one for one in of(findings, "kernel", "broken") if "ipvlan" in one]
    # Who has it is asked for a link; who has it not knows no such type.
    assert bool(said) == ("Unknown device type" in ipvlan.stderr)
    assert [one for one in of(findings, "kernel", "broken", "note") if "veth" in one] == []


def test_folders_that_others_can_write_to(host: Host) -> None:
    host.run("mkdir", "-p", "/run/cni-py")
    host.run("chmod", "777", "/run/cni-py")
    host.run("chmod", "775", CONF)
    host.run("sh", "-c", "echo '{}' > /etc/cni/net.d/1.json && chmod 666 /etc/cni/net.d/1.json")
    found = of(examine(host), "folders")
    assert "/run/cni-py can be written by others: its mode is 0777" in found
    assert "/etc/cni/net.d can be written by others: its mode is 0775" in found
    assert "/etc/cni/net.d/1.json can be written by others: its mode is 0666" in found
    host.run("chmod", "755", "/run/cni-py")


def test_a_remedy_can_be_pasted(host: Host) -> None:
    """Whoever can write into a folder chooses the names in the commands that root is shown."""
    name = f"{CONF}/a;touch pwned;.conf"
    folder(host, name).write_text("{")
    folder(host, name).chmod(0o666)
    folder(host, f"{CONF}/$(x).conf").symlink_to("nowhere")
    remedies = {one["remedy"] for one in examine(host)}
    assert {f"chmod go-w '{name}'", f"cni-py lint '{name}'", f"rm '{CONF}/$(x).conf'"} <= remedies
    assert [one for one in remedies if one.startswith(("rm ", "chmod ")) and "'" not in one] == []


def test_configurations(host: Host) -> None:
    """One that cannot be read, one name twice, and subnets of two networks that overlap."""
    configure(host, l3())
    configure(host, l3(), "20-again.conflist")
    wide = l3(name="wide", bridge="cni1", ipam=host_local([{"subnet": "10.1.0.0/16"}]))
    configure(host, wide, "30-wide.conflist")
    folder(host, f"{CONF}/40-bad.conf").write_text("{")
    found = "\n".join(of(examine(host), "configurations"))
    assert f"{CONF}/40-bad.conf:1:2: error: the text ends inside the object" in found
    assert f'the network "net1" is in {CONF}/10-net1.conflist too' in found
    assert "gives addresses of 10.1.2.0/24 too" in found


def test_ranges_that_are_nearly_full(host: Host) -> None:
    small = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]])
    configure(host, small)
    for number in range(4):
        host.add("host-local", small, host.container(f"c{number}"))
    assert of(examine(host), "addresses") == []
    host.add("host-local", small, host.container("c4"))
    assert of(examine(host), "addresses", "broken") == [
        "net1: 5 addresses of 10.0.0.1-10.0.0.6 are given, none is free: ADD fails"
    ]


def test_leaks(host: Host) -> None:
    """What GC would take away, and the remedy that does."""
    configure(host, l3(), "10-net1.conflist")
    container = host.container("c1")
    host.add("bridge", l3(), container)
    container.delete_netns()
    # The pair goes with the namespace; the address stays.
    findings = examine(host)
    (text,) = of(findings, "leaks")
    assert "bridge of net1 has left 1 things behind: address 10.1.2.2 of id-c1/eth0" in text
    (remedy,) = {one["remedy"] for one in findings if one["subject"] == "leaks"}
    assert remedy == f"cni-py gc {CONF}/10-net1.conflist"
    assert "10.1.2.2" in host.allocated("net1")
    host.run(CNI_PY, "gc", f"{CONF}/10-net1.conflist", "--cni-path", str(BIN))
    assert of(examine(host), "leaks") == []


def test_who_holds_a_lock(host: Host) -> None:
    host.add("host-local", SMALL, host.container("c1"))
    lock = os.open(folder(host, "/var/lib/cni/networks/net1/lock"), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = "\n".join(of(examine(host), "locks", "note", "look"))
        assert f"/var/lib/cni/networks/net1/lock is held by process {os.getpid()} (" in text
    finally:
        os.close(lock)
    assert of(examine(host), "locks", "ok", "note", "look") == ["nobody holds a lock"]


def test_other_rules(host: Host) -> None:
    """A FORWARD that drops is worse where nobody accepts the containers in it."""
    host.add("bridge", only_v4(), container := host.container("c1"))
    drop_by_default(host)
    assert of(examine(host), "other rules") == []
    configure(host, only_v4())
    found = of(examine(host), "other rules")
    assert any("drops IPv4 by default, and net1 has no firewall plugin" in one for one in found)
    configure(host, {"name": "net1", "plugins": [only_v4(), firewall("iptables")]})
    assert of(examine(host), "other rules") == []
    host.delete("bridge", only_v4(), container)
    attach(host, host.container("c2"), "nftables")
    found = of(examine(host), "other rules")
    assert any("also IPv6 of containers whose firewall plugin" in one for one in found)


def test_a_table_of_nftables_that_drops(host: Host) -> None:
    hook = "{ type filter hook forward priority 5; policy drop; }"
    host.run("nft", f"add table ip strict; add chain ip strict pass {hook}")
    assert of(examine(host), "other rules") == [
        "the chain ip strict pass of nftables drops what is forwarded unless it accepts it itself"
    ]


def test_docker_is_noticed(host: Host) -> None:
    host.run("iptables", "-N", "DOCKER-USER")
    assert any("Docker" in one for one in of(examine(host), "other rules", "note"))


@pytest.mark.parametrize(
    ("place", "managed", "left"),
    [
        ("/run/NetworkManager/devices", "[device]\nmanaged=true\n", "[device]\nmanaged=false\n"),
        ("/run/systemd/netif/links", "ADMIN_STATE=configured\n", "ADMIN_STATE=unmanaged\n"),
    ],
)
def test_a_manager_with_our_links(host: Host, place: str, managed: str, left: str) -> None:
    configure(host, l3())
    host.add("bridge", l3(), host.container("c1"))
    host.run("mkdir", "-p", place)
    index = host.ip("link", "show", "dev", "cni0")[0]["ifindex"]
    (folder(host, place) / str(index)).write_text(managed)
    (text,) = of(examine(host), "network managers")
    assert "manages cni0" in text
    (folder(host, place) / str(index)).write_text(left)
    assert of(examine(host), "network managers") == []


def test_parameters(host: Host) -> None:
    host.add("bridge", l3(isDefaultGateway=True), host.container("c1"))
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    (text,) = of(examine(host), "parameters")
    assert text == "IPv4 is not forwarded (net.ipv4.ip_forward is 0) with 1 containers"


def test_without_root(host: Host) -> None:
    """It looks at what it may, and says what it could not look at."""
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    outcome = host.run(*nobody, CNI_PY, "doctor", str(BIN), "--json", check=False)
    assert "Traceback" not in outcome.stderr
    findings = outcome.json
    unseen = {one["subject"] for one in findings if one["severity"] == "unseen"}
    assert {"kernel", "addresses", "leaks"} <= unseen
    assert of(findings, "installation", "ok")


def test_a_pipe_that_closes(host: Host) -> None:
    piped = f"{CNI_PY} doctor {BIN} | head -1"
    outcome = host.run("sh", "-c", piped)
    assert outcome.stderr == ""
    assert outcome.stdout.count("\n") == 1


SECRETS = ("hunter2-in-args", "hunter2-token", "hunter2-unknown", "hunter2-nested", "hunter2-env")


def test_bundle(host: Host) -> None:
    """The archive has what a report needs, and none of the secrets that stand around."""
    plugin = l3() | {
        "args": {"cni": {"labels": [{"key": "x", "value": SECRETS[0]}]}},
        "apiToken": SECRETS[1],
        "vendor": {"setting": SECRETS[2], "list": [{"deep": SECRETS[3]}]},
    }
    configure(host, plugin)
    # A message that repeats a value, and one that a foreign rule has in its comment.
    configure(host, {"name": "bad", "plugins": [l3(mtu=SECRETS[1])]}, "20-bad.conflist")
    args = {"CNI_ARGS": f"IgnoreUnknown=1;PASSWORD={SECRETS[4]}"}
    host.add("bridge", l3(), host.container("c1"), env=args)
    host.run("nft", f'add table ip other; add chain ip other c {{ comment "{SECRETS[2]}"; }}')
    host.run("mkdir", "-p", "/run/cni-py/deferred")
    name = "00000000000000000001-0123456789abcdef"
    folder(host, f"/run/cni-py/deferred/{name}").write_text(f"CNID1 CNI_ARGS=K={SECRETS[4]}")
    outcome = host.run(CNI_PY, "doctor", str(BIN), "--bundle", "/run/report.tar.gz", check=False)
    assert "wrote /run/report.tar.gz" in outcome.stderr
    path = folder(host, "/run/report.tar.gz")
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        files = {one.name.partition("/")[2]: archive.extractfile(one) for one in archive}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    assert {name: one for name, one in texts.items() for secret in SECRETS if secret in one} == {}
    config = json.loads(texts["configurations/10-net1.conflist"])["plugins"][0]
    assert config["bridge"] == "cni0"
    assert config["ipam"]["ranges"] == [[{"subnet": "10.1.2.0/24"}]]
    assert config["apiToken"] == "<redacted>"
    assert config["vendor"]["list"] == [{"deep": "<redacted>"}]
    assert "cni0" in texts["links.json"]
    assert "10.1.2.2" in texts["allocations.json"]
    assert json.loads(texts["doctor.json"])
    assert "cni-py " in texts["versions.txt"]
    # It is never written over.
    again = host.run(CNI_PY, "doctor", str(BIN), "--bundle", "/run/report.tar.gz", check=False)
    assert "File exists" in again.stderr
    host.run("rm", "-r", "/run/cni-py/deferred")


def test_what_cannot_be_looked_at(host: Host) -> None:
    """An examination that cannot be made does not keep the next one from being made."""
    host.run("mount", "--bind", "/dev/null", "/proc/locks")
    host.add("host-local", SMALL, host.container("c1"))
    assert {one["subject"] for one in examine(host)} >= {"locks", "network managers"}


def test_a_bar_while_a_person_waits(host: Host) -> None:
    """On a terminal alone, and it is gone when the answer is there."""
    seen = on_terminal(host, CNI_PY, "doctor", str(BIN))
    assert b"examinations" in seen.raw
    assert "examinations" not in seen.text
    assert "examinations" not in host.run(CNI_PY, "doctor", str(BIN), check=False).stderr


CRI = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "{}"\nconf_dir = "{}"\n'


@pytest.mark.root
def test_containerd(host: Host, tmp_path: Path) -> None:
    """Other executables than ours, none, ours; other configurations; a protocol too new for it."""
    assert of(examine(host), "containerd", "note") == ["containerd is not running"]
    host.run("sh", "-c", "mkdir /run/containerd && touch /run/containerd/containerd.sock")
    host.run("mount", "-n", "-t", "tmpfs", "none", "/etc/containerd")
    configure(host, l3())
    file = folder(host, "/etc/containerd/config.toml")

    others = tmp_path / "others"
    others.mkdir()
    file.write_text(CRI.format(others, CONF))
    assert of(examine(host), "containerd", "broken")[0] == (
        f"containerd looks for plugins in {others}, and finds none"
    )
    for name in ("bridge", "ptp"):
        (others / name).write_text("#!/bin/sh\n")
    assert of(examine(host), "containerd", "look") == [
        f"containerd runs {others}/bridge and 1 more, not cni-py's"
    ]
    file.write_text(CRI.format(BIN, CONF))
    findings = examine(host)
    assert of(findings, "containerd", "ok") == [f"containerd runs cni-py's plugins in {BIN}"]
    (refused,) = of(findings, "containerd", "broken")
    assert f"{CONF}/10-net1.conflist has cniVersion 1.1.0" in refused
    file.write_text(CRI.format(BIN, "/etc/other"))
    assert of(examine(host), "containerd") == [
        f"containerd reads configurations from /etc/other, not from {CONF}"
    ]
    file.write_text('disabled_plugins = ["cri"]\n')
    assert of(examine(host), "containerd", "note") == [
        "containerd's CRI is disabled: no kubelet can use it"
    ]
    file.write_text("version = = 2\n")
    assert len(of(examine(host), "containerd", "unseen")) == 1
