"""Changing over a live node, to ours and back, under containerd and under podman.

docs/migration.md has the steps. What runs goes on: a TCP connection to an old container, through a
published port where there is one, loses nothing. Each is deleted by the other's executables.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools.containerd import Containerd
from tools.podman import Podman

from fixtures.host import Container, Host
from fixtures.leaks import leaks
from fixtures.ports import UPLINK, outside
from fixtures.reference import folders
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.slow]

EACH_RELEASE = pytest.mark.parametrize("release", folders("bridge"))
ECHO = ("nc", "-ll", "-p", "80", "-e", "cat")
LIST = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipMasqBackend": "iptables",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/16"}]]},
        },
        {"type": "firewall"},
        {"type": "tuning", "mtu": 1400},
    ],
}

# Numbers go there and come back until the input ends: then says how many.
TALK = """
import select, socket, sys, time
deadline = time.monotonic() + 20
while True:
    try:
        peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.1)
lines = peer.makefile()
count = 0
while True:
    peer.sendall(b"%d\\n" % count)
    assert lines.readline() == f"{count}\\n"
    if not count:
        print("talking", flush=True)
    count += 1
    if count > 10 and select.select([sys.stdin], [], [], 0.02)[0]:
        break
"""


@contextmanager
def talk(client: Host | Container, address: str, port: int) -> Iterator[None]:
    """A connection that lives as long as the context, and on which nothing may be lost."""
    script = ("python3", "-IS", "-c", TALK, address, str(port))
    command = (
        client.command(*script) if isinstance(client, Container) else [*client.prefix, *script]
    )
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "talking\n"
            yield
            process.communicate("", timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0


def actions(host: Host, command: str) -> set[str]:
    """What `install` or `uninstall` has done."""
    done = host.run(CNI_PY, command, "--json").json
    return {one["action"] for one in done}


def nothing_left(host: Host) -> bool:
    deadline = time.monotonic() + 10
    while leaks(host) and time.monotonic() < deadline:
        time.sleep(0.05)
    return leaks(host) == []


@EACH_RELEASE
def test_containerd(host: Host, tmp_path: Path, image: Path, release: str) -> None:
    """With iptables meanwhile, as the guide has it: each takes away all of the other's."""
    folder, conf = tmp_path / "bin", tmp_path / "net.d"
    shutil.copytree(release, folder)
    conf.mkdir()
    (conf / "10-pods.conflist").write_text(json.dumps(LIST))
    with (
        tempfile.TemporaryDirectory(prefix="ctr") as scratch,
        Containerd(
            host.prefix, scratch=Path(scratch), bin_dir=folder, conf_dir=conf, image=image
        ) as containerd,
    ):
        containerd.run("old", *ECHO)
        containerd.run("short", "sleep", "1000")
        old = host_address(containerd, "old")
        with talk(host, old, 80):
            assert "kept" in actions(host, "install")
            containerd.remove("short")
            containerd.run("new", "sleep", "1000")
            assert "1 packets received" in containerd.exec("new", "ping", "-c", "1", old)
            assert "mtu 1400" in containerd.exec("new", "ip", "link", "show", "eth0")
            assert actions(host, "uninstall") >= {"restored"}
            containerd.remove("new")
            assert set(host.allocated("pods")) == {old}
            # ctr's DEL comes without a namespace, where the reference leaves masquerading [W-BR3].
            # The namespace goes a moment later, and only then is its container known as dead.
            deadline = time.monotonic() + 10
            while "10.85.0.4" in (rules := "\n".join(host.iptables())):
                assert time.monotonic() < deadline, rules
                host.run(CNI_PY, "gc", "/etc/cni/net.d/10-pods.conflist")
            assert f"{old}/32" in rules
            actions(host, "install")
        containerd.remove("old")
        assert nothing_left(host)


def host_address(containerd: Containerd, name: str) -> str:
    shown = containerd.exec(name, "ip", "addr", "show", "eth0")
    return shown.split("inet ")[1].split("/")[0]


@EACH_RELEASE
def test_podman(host: Host, image: Path, release: str) -> None:
    """With our default, nftables: what the reference's DEL leaves of it goes with `cni-py gc`."""
    host.run("cp", "-r", f"{release}/.", "/opt/cni/bin/")
    machine = outside(host)
    own, _ = UPLINK[4]
    podman = Podman(host, image, plugins="/opt/cni/bin")
    podman("network", "create", "shop")
    podman.run("old", *ECHO, network="shop", publish=["8080:80"])
    podman.run("short", "sleep", "1000", network="shop", publish=["8081:80"])
    with talk(machine, own, 8080):
        assert "kept" in actions(host, "install")
        podman.remove("short")
        assert "8081" not in "\n".join(host.iptables())
        podman.run("new", *ECHO, network="shop", publish=["8082:80"])
        with talk(machine, own, 8082):
            assert "restored" in actions(host, "uninstall")
        # The reference finds no chain of its own, which podman tells.
        podman.remove("new")
        host.run(CNI_PY, "gc", "/etc/cni/net.d/shop.conflist")
        assert "8082" not in host.nft()
        actions(host, "install")
    podman.remove("old")
    podman("network", "rm", "shop")
    assert nothing_left(host)
