"""`cni-py ipam`, on folders of ours and of the reference's host-local."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fixtures.calls import Outcome
from fixtures.configs import ipam, l3
from fixtures.host import Container, Host
from fixtures.reference import reference
from fixtures.server import CNI_PY

NETWORKS = "/var/lib/cni/networks"
NET = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]])
DUAL = ipam(ranges=[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]])


def run(host: Host, *arguments: str, status: int = 0, stdin: str = "") -> Outcome:
    outcome = host.run(CNI_PY, "ipam", *arguments, check=False, stdin=stdin)
    assert outcome.status == status, outcome
    assert "Traceback" not in outcome.stderr
    return outcome


def rows(host: Host, *arguments: str, status: int = 0) -> Any:
    return json.loads(run(host, *arguments, "--json", status=status).stdout)


def folder(host: Host, path: str = f"{NETWORKS}/net1") -> Path:
    return Path(f"/proc/{host.holder.pid}/root{path}")


def bare(host: Host, name: str) -> Container:
    """A container without a namespace that anybody could look for."""
    return Container(host, name, "/run/netns/none")


def given(host: Host, config: dict[str, Any], container: Container) -> list[str]:
    result = host.add("host-local", config, container)
    return [one["address"].partition("/")[0] for one in result["ips"]]


def test_list(host: Host) -> None:
    """Ranges come from the configuration; what nobody configures is listed all the same."""
    assert run(host, "list").stdout == f"no addresses were ever given in {NETWORKS}\n"
    folder(host, "/etc/cni/net.d/10-net1.conflist").write_text(
        json.dumps({"cniVersion": "1.1.0", "name": "net1", "plugins": [DUAL]})
    )
    given(host, DUAL, host.container("c1"))
    given(host, {**NET, "name": "other"}, host.container("c2"))
    four, six, other = rows(host, "list")
    assert four == {
        "network": "net1",
        "range_set": 0,
        "first": "10.0.0.1",
        "last": "10.0.0.6",
        "subnet": "10.0.0.0/29",
        "size": 6,
        "given": 1,
        "reserved": 1,
        "free": 4,
        "last_reserved": "10.0.0.2",
    }
    assert (six["subnet"], six["given"], six["last_reserved"]) == ("fd00::/64", 1, "fd00::2")
    assert (other["network"], other["subnet"], other["given"]) == ("other", "", 1)
    lines = run(host, "list").stdout.splitlines()
    assert lines[0].split() == ["NETWORK", "RANGE", "SUBNET", "GIVEN", "FREE", "RESERVED", "LAST"]
    assert lines[1].split() == [
        "net1", "10.0.0.1-10.0.0.6", "10.0.0.0/29", "1", "4", "1", "10.0.0.2"
    ]  # fmt: skip


def test_list_with_a_configuration_that_cannot_be_read(host: Host) -> None:
    folder(host, "/etc/cni/net.d/10-bad.conflist").write_bytes(b"\xff{")
    given(host, NET, host.container("c1"))
    outcome = run(host, "list", status=1)
    assert "10.0.0.2" in outcome.stdout
    assert outcome.stderr.startswith("cni-py ipam list: /etc/cni/net.d/10-bad.conflist: ")


def test_show(host: Host) -> None:
    """Each address's owner, and why it is alive, gone, or not known to be either."""
    alive, dead = host.container("c1"), host.container("c2")
    given(host, NET, alive)
    given(host, NET, dead)
    dead.delete_netns()
    nobodys = reference(host, "host-local")
    nobodys.add("host-local", NET, bare(host, "id-c3"))
    damaged = folder(host) / "10.0.0.6"
    damaged.write_text("\0\1")
    by = {one["address"]: one for one in rows(host, "show", "net1")}
    assert {address: one["state"] for address, one in by.items()} == {
        "10.0.0.2": "alive",
        "10.0.0.3": "gone",
        "10.0.0.4": "unknown",
        "10.0.0.6": "damaged",
    }
    assert by["10.0.0.2"]["container"] == "id-c1"
    assert by["10.0.0.2"]["netns"] == "/run/netns/c1"
    assert by["10.0.0.3"]["why"] == "its namespace /run/netns/c2 is gone"
    assert by["10.0.0.4"]["why"] == "nobody recorded its namespace"
    text = run(host, "show", "net1").stdout
    assert "id-c2      eth0" in text
    assert "gone: its namespace /run/netns/c2 is gone" in text
    damaged.unlink()


def test_looking_changes_nothing(host: Host) -> None:
    """Nor does it make an index beside the reference's files."""
    nobodys = reference(host, "host-local")
    container = bare(host, "id-c1")
    nobodys.add("host-local", NET, container)
    (folder(host) / "10.0.0.5").write_text("")
    before = host.files()
    for command in (["list"], ["show", "net1"], ["release", "10.0.0.2", "--dry-run", "--force"]):
        run(host, *command)
    run(host, "repair", "--dry-run", status=1)
    assert host.files() == before
    assert not folder(host, f"{NETWORKS}/.cni-py").exists()
    (folder(host) / "10.0.0.5").unlink()


def test_release_of_a_living_container(host: Host) -> None:
    """Is refused without --force."""
    container = host.container("c1")
    given(host, l3(), container)
    outcome = run(host, "release", "10.1.2.2", status=1)
    assert outcome.stderr == (
        "cni-py ipam release: 10.1.2.2 of net1 may be in use by id-c1 "
        "(its namespace /run/netns/c1 is there): --force releases it all the same\n"
    )
    assert "10.1.2.2" in host.allocated("net1")
    assert run(host, "release", "10.1.2.2", "--force").stdout == (
        "released 10.1.2.2 of id-c1 on net1\n"
    )
    assert host.allocated("net1") == {}


def test_release_of_one_address_of_two(host: Host) -> None:
    """The other stays its owner's, and DEL frees it."""
    container = host.container("c1")
    four, six = given(host, DUAL, container)
    container.delete_netns()
    (released,) = rows(host, "release", four)
    assert released["address"] == four
    assert list(host.allocated("net1")) == [six]
    # The address is free to be given, and the index in order.
    again = {**NET, "args": {"cni": {"ips": [four]}}}
    assert given(host, again, host.container("c2")) == [four]
    host.delete("host-local", DUAL, container)
    assert list(host.allocated("net1")) == [four]


def test_release_by_container(host: Host) -> None:
    """All that it holds on every network; a beginning that two have is refused."""
    for name in ("abc1", "abc2"):
        container = Container(host, name, host.container(name).netns)
        given(host, DUAL, container)
        given(host, {**NET, "name": "other"}, container)
        container.delete_netns()
    outcome = run(host, "release", "abc", status=2)
    assert "2 containers begin with 'abc': abc1, abc2" in outcome.stderr
    assert "is no address" in run(host, "release", "abd", status=1).stderr
    (one,) = rows(host, "release", "abc1", "--network", "other", "--dry-run")
    assert one["network"] == "other"
    assert len(rows(host, "release", "abc1")) == 3
    assert {one.partition("\r\n")[0] for one in host.allocated("net1").values()} == {"abc2"}


def test_release_of_an_address_on_two_networks(host: Host) -> None:
    for name in ("net1", "net2"):
        container = host.container(name)
        given(host, {**NET, "name": name}, container)
        container.delete_netns()
    outcome = run(host, "release", "10.0.0.2", status=1)
    assert "10.0.0.2 is given on net1, net2: say which with --network" in outcome.stderr
    run(host, "release", "10.0.0.2", "--network", "net2")
    assert (len(host.allocated("net1")), len(host.allocated("net2"))) == (1, 0)


def test_release_from_the_references_folder(host: Host) -> None:
    """[5.1.3] It takes --force, and the reference goes on with what is left."""
    nobodys = reference(host, "host-local")
    nobodys.add("host-local", NET, bare(host, "id-c1"))
    assert "nobody recorded its namespace" in run(host, "release", "10.0.0.2", status=1).stderr
    run(host, "release", "10.0.0.2", "--force")
    assert host.allocated("net1") == {}
    nobodys.add("host-local", NET, bare(host, "id-c2"))
    assert list(host.allocated("net1")) == ["10.0.0.3"]


def test_release_asks_on_a_terminal(host: Host) -> None:
    """Whatever is not a yes changes nothing; --yes asks nothing."""
    container = host.container("c1")
    given(host, NET, container)
    container.delete_netns()
    typed = f"echo n | script -qec '{CNI_PY} ipam release 10.0.0.2' /dev/null"
    outcome = host.run("sh", "-c", typed, check=False)
    assert "release 10.0.0.2 of id-c1 on net1? [y/N]" in outcome.stdout
    assert "nothing was changed" in outcome.stdout
    assert outcome.status == 1
    assert "10.0.0.2" in host.allocated("net1")
    host.run("script", "-qec", f"{CNI_PY} ipam release 10.0.0.2 --yes", "/dev/null")
    assert host.allocated("net1") == {}


def test_release_takes_the_lock(host: Host) -> None:
    container = host.container("c1")
    given(host, NET, container)
    container.delete_netns()
    lock = os.open(folder(host) / "lock", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        waiting = ("timeout", "2", CNI_PY, "ipam", "release", "10.0.0.2")
        assert host.run(*waiting, check=False).status == 124
        assert "10.0.0.2" in host.allocated("net1")
    finally:
        os.close(lock)
    run(host, "release", "10.0.0.2")


def test_repair(host: Host) -> None:
    """Files of nobody go, a living owner's is mended, what is of an earlier boot is freed."""
    alive, gone = host.container("c1"), host.container("c2")
    given(host, NET, alive)
    given(host, NET, gone)
    files = folder(host)
    (files / "10.0.0.2").write_text("")
    (files / "10.0.0.3").write_text("")
    (files / "10.0.0.5").write_bytes(b"\xff\xfe")
    (files / "10.0.0.6").write_text("id-old\r\neth0")
    os.utime(files / "10.0.0.6", (1, 1))
    gone.delete_netns()
    expected = {
        ("mend", "10.0.0.2"),
        ("take away", "10.0.0.3"),
        ("take away", "10.0.0.5"),
        ("free", "10.0.0.6"),
        ("make the index anew", ""),
    }
    would = rows(host, "repair", "--dry-run", status=1)
    assert {(one["action"], one["address"]) for one in would["changes"]} == expected
    done = rows(host, "repair")
    assert done == would
    assert host.allocated("net1") == {"10.0.0.2": "id-c1\r\neth0"}
    assert run(host, "repair", "net1").stdout == "net1: nothing to repair\n"
    run(host, "repair", "--dry-run")
    host.run("rm", "-rf", f"{NETWORKS}/.cni-py/net1/damaged")


def test_repair_lists_what_is_given_twice(host: Host) -> None:
    for name in ("net1", "net2"):
        given(host, {**NET, "name": name}, host.container(name))
    twice = rows(host, "repair", status=1)["duplicates"]
    places = [f"{NETWORKS}/{one}/10.0.0.2" for one in ("net1", "net2")]
    assert twice == [{"what": "10.0.0.2 is given twice", "where": places}]
    (folder(host) / "10.0.0.4").write_text("id-net1\r\neth0")
    twice = rows(host, "repair", "net1", status=1)["duplicates"]
    assert twice[1]["what"] == "id-net1/eth0 holds 2 addresses, and net1 gives 1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "net9"), "has no network 'net9': there are net1"),
        (("show", "../net1"), "has no network '../net1'"),
        (("show", ".cni-py"), "has no network '.cni-py'"),
        (("show", "link"), "has no network 'link'"),
        (("release", "10.0.0.2", "--network", "net9"), "has no network 'net9'"),
        (("repair", "net9"), "has no network 'net9'"),
    ],
)
def test_a_network_that_is_not_there(host: Host, arguments: tuple[str, ...], said: str) -> None:
    given(host, NET, host.container("c1"))
    host.run("ln", "-s", "net1", f"{NETWORKS}/link")
    outcome = run(host, *arguments, status=2)
    assert said in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_another_folder(host: Host) -> None:
    config = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]], dataDir="/run/elsewhere")
    given(host, config, host.container("c1"))
    (one,) = rows(host, "show", "net1", "--data-dir", "/run/elsewhere")
    assert one["address"] == "10.0.0.2"
    assert run(host, "list").stdout.startswith("no addresses")


def test_without_root(host: Host) -> None:
    command = ("setpriv", "--reuid", "65534", "--clear-groups", CNI_PY, "ipam", "list")
    outcome = host.run(*command, check=False)
    assert outcome.status == 1
    assert outcome.stderr == (
        "cni-py ipam list: looking at allocations needs root: try again with sudo\n"
    )
