"""Names of files that are no UTF-8, or that would drive a terminal: no traceback, no escape."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Host
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from collections.abc import Iterator

NET_D, NETWORKS = "/etc/cni/net.d", "/var/lib/cni/networks"
NAMES = (b"b\xffd", b"e\x1b]0;pwn\x07\x1b[31mx")


@pytest.fixture
def littered(host: Host) -> Iterator[Host]:
    """A host with such names wherever commands look."""
    root = f"/proc/{host.holder.pid}/root".encode()
    for name in NAMES:
        os.mkdir(root + NETWORKS.encode() + b"/" + name)
        with open(root + NETWORKS.encode() + b"/" + name + b"/10.1.0.2", "wb") as file:
            file.write(name + b"\r\neth0")
        # More digits than Python makes a number of.
        with open(root + NETWORKS.encode() + b"/" + name + b"/10.1.0.3", "wb") as file:
            file.write(b"g" + b"1" * 5000 + b"\r\neth0")
        with open(root + NET_D.encode() + b"/" + name + b".conflist", "wb") as file:
            file.write(b"{bad")
        with open(root + b"/run/netns/" + name, "wb"):
            pass
    with open(root + NET_D.encode() + b"/10-net1.conflist", "w") as file:
        config = {**l3(), "type": "bridge", "bridge": "br\x1b[31m"}
        json.dump({"cniVersion": "1.1.0", "name": "net1", "plugins": [config]}, file)
    yield host
    host.run("find", NETWORKS, "-mindepth", "1", "-delete")


COMMANDS = (
    ("ipam", "list"),
    ("ipam", "show", os.fsdecode(NAMES[1])),
    ("ipam", "release", "10.1.0.2", "--network", os.fsdecode(NAMES[1]), "--force", "--dry-run"),
    ("ipam", "repair", "--dry-run"),
    ("show",),
    ("graph",),
    ("doctor", str(BIN)),
    ("lint", NET_D),
    ("lint", f"{NET_D}/{os.fsdecode(NAMES[0])}.conflist"),
    ("plan", "net1", os.fsdecode(NAMES[0])),
    ("status", "nobody"),
    ("gc", "net1", "--dry-run"),
    ("trace", os.fsdecode(NAMES[1]), "host"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=[one[0] for one in COMMANDS])
def test_names_do_no_harm(littered: Host, command: tuple[str, ...]) -> None:
    for options in ((), ("--json",)):
        outcome = littered.run(CNI_PY, *command, *options, check=False)
        assert "Traceback" not in outcome.stderr, outcome
        for text in (outcome.stdout, outcome.stderr):
            assert "\x1b" not in text
            assert "\x07" not in text
        if options and outcome.stdout:
            json.loads(outcome.stdout)


def test_a_network_that_is_not_there_carries_nothing_out(host: Host) -> None:
    """GC carries deferred DELs out once it knows what it was asked for."""
    folder = f"/proc/{host.holder.pid}/root/run/cni-py/deferred"
    os.makedirs(folder, 0o700)
    with open(f"{folder}/{1:020}-{1:016x}", "w") as file:
        file.write("damaged: it would be set aside")
    before = sorted(os.listdir(folder))
    outcome = host.run(CNI_PY, "gc", "nobody", check=False)
    assert outcome.status == 1
    assert sorted(os.listdir(folder)) == before
    host.run("rm", "-r", "/run/cni-py/deferred")


def test_a_namespace_without_an_ipv4_table(host: Host) -> None:
    """A fresh namespace has no main table: there are no routes then, and that is no error."""
    host.run("ip", "netns", "add", "fresh")
    outcome = host.run("ip", "netns", "exec", "fresh", CNI_PY, "show", check=False)
    assert outcome.status == 0, outcome
