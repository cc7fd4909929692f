"""A lock whose holder is stopped: the call ends in time, names it, and leaves nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni_py.kernel import iptables, lock
from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError
from fixtures.configs import ipam, l3
from fixtures.dump import dump, left_behind
from fixtures.host import refusal
from fixtures.ports import mapping
from fixtures.settled import carried

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Container, Host

CALLS = "/run/cni-py/attachments"
_SECONDS = 10
_HOLD = """
import fcntl, os, signal, sys
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(file, int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGSTOP)
"""


class Lock(NamedTuple):
    """Where a lock is, and the chain whose last plugin needs it."""

    path: str
    chain: list[dict[str, Any]]
    # Undoing an ADD does not need the lock too.
    is_undone: bool = True


def call_of(
    plugin: str, network: str = "net1", container: str = "id-c1", name: str = "eth0"
) -> str:
    """The file that only one call on an attachment has at a time."""
    return f"{CALLS}/{plugin}-{Attachment(network, container, name).key}"


STORE = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]]) | {"type": "host-local"}
BRIDGE = l3(isGateway=True, enabledad=False)
MASQUERADED = BRIDGE | {"ipMasq": True}
PORTMAP = {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": [mapping()]}}
FIREWALL = {"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"}
LOCKS = {
    "store": Lock("/var/lib/cni/networks/net1/lock", [STORE]),
    "store behind a bridge": Lock("/var/lib/cni/networks/net1/lock", [BRIDGE]),
    "call": Lock(call_of("bridge"), [BRIDGE]),
    "namespace": Lock("/run/netns/c1", [BRIDGE, {"type": "sbr"}]),
    "masquerade": Lock(CALLS, [MASQUERADED]),
    "spoof check": Lock(CALLS, [BRIDGE | {"macspoofchk": True}]),
    "ports": Lock(CALLS, [BRIDGE, PORTMAP]),
    "shared chains": Lock("/run/cni-py/portmap", [BRIDGE, PORTMAP | {"backend": "iptables"}]),
    "localhost": Lock("/run/cni-py/portmap/localnet", [BRIDGE, PORTMAP], is_undone=False),
    "rules": Lock(CALLS, [BRIDGE, FIREWALL]),
    "isolation": Lock("/run/cni-py/firewall", [BRIDGE, FIREWALL]),
}


@pytest.fixture
def host(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Its calls are forks of this process: the limits are short ones."""
    monkeypatch.setattr(lock, "_SECONDS", 0.3)
    monkeypatch.setattr(iptables, "_LOCK_SECONDS", 1)
    host.mode = "in-process"  # type: ignore[misc]
    return host


@contextmanager
def held(host: Host, path: str, kind: int = 2) -> Iterator[int]:
    """A process that holds the lock, and is stopped; its number."""
    host.run("sh", "-c", 'mkdir -p "${1%/*}"; test -e $1 || : > $1', "sh", path)
    command = [*host.prefix, sys.executable, "-c", _HOLD, path, str(kind)]
    with subprocess.Popen(command) as holder:
        try:
            end = time.monotonic() + _SECONDS
            while ") T " not in Path(f"/proc/{holder.pid}/stat").read_text():
                assert time.monotonic() < end
                assert holder.poll() is None
            yield holder.pid
        finally:
            os.kill(holder.pid, signal.SIGKILL)


def configured(one: dict[str, Any], result: Any) -> dict[str, Any]:
    config = {"cniVersion": "1.1.0", "name": "net1", **one}
    return config if result is None else config | {"prevResult": result}


def attached(host: Host, container: Container, chain: list[dict[str, Any]]) -> Any:
    result: Any = None
    for one in chain:
        result = host.add(one["type"], configured(one, result), container)
    return result


def detached(host: Host, container: Container, chain: list[dict[str, Any]], result: Any) -> None:
    for one in reversed(chain):
        host.delete(one["type"], configured(one, result), container)


def kept(host: Host, before: Any, path: str) -> list[str]:
    """What differs, but for the lock itself."""
    return [one for one in left_behind(host, before) if not one.endswith(path)]


def refused(
    host: Host, verb: str, one: dict[str, Any], container: Container, whose: int
) -> dict[str, Any]:
    """A call that cannot have a lock: it ends in time, with a code that says to try again."""
    start = time.monotonic()
    error = refusal(host.call(one["type"], verb, one, container))
    assert time.monotonic() - start < 5
    assert error["code"] == 11
    assert f"held by process {whose} (python" in error["details"]
    return error


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_that_nobody_gives_back(host: Host, name: str) -> None:
    """ADD and DEL end with its name and its holder's, and DEL works once it is free."""
    path, chain, is_undone = LOCKS[name]
    container = host.container("c1")
    # What the first container of a host leaves for all that come.
    detached(host, container, chain, attached(host, container, chain))
    result = attached(host, container, chain[:-1])
    before = dump(host)
    config = configured(chain[-1], result)
    with held(host, path) as holder:
        error = refused(host, "ADD", config, container, holder)
        assert f"the lock {path} was not free within" in error["msg"]
        assert error["details"].endswith("), which is stopped")
        assert (kept(host, before, path) == []) == is_undone
    host.delete(config["type"], config, container)
    assert kept(host, before, path) == []
    host.add(config["type"], config, container)
    with held(host, path) as holder:
        error = refused(host, "DEL", config, container, holder)
        assert f"the lock {path} was not free within" in error["msg"]
    host.delete(config["type"], config, container)
    assert kept(host, before, path) == []
    detached(host, container, chain[:-1], result)


def test_the_bridge_does_not_wait_for_its_namespaces_lock(host: Host) -> None:
    """It is waited for for a second; only an unused bridge stays without it."""
    container = host.container("c1")
    host.run("sh", "-c", f"touch /run/own; mount --bind /proc/{host.holder.pid}/ns/net /run/own")
    with held(host, "/run/own"):
        start = time.monotonic()
        host.add("bridge", BRIDGE, container)
        assert time.monotonic() - start < 5
        host.delete("bridge", BRIDGE, container)
    host.run("umount", "/run/own")


def test_the_lock_of_xtables(host: Host) -> None:
    """iptables' own limit is 10 s; it does not say whose the lock is, and we do."""
    # What the names lead to.
    host.run("mount", "--bind", "/usr/sbin/xtables-legacy-multi", "/usr/sbin/xtables-nft-multi")
    container = host.container("c1")
    config = configured(FIREWALL | {"backend": "iptables"}, host.add("bridge", BRIDGE, container))
    carried(host)
    before = dump(host)
    with held(host, "/run/xtables.lock") as holder:
        error = refused(host, "ADD", config, container, holder)
        assert "/run/xtables.lock is held by" in error["details"]
    host.run("umount", "/usr/sbin/xtables-nft-multi")
    host.delete("firewall", config, container)
    assert kept(host, before, "/run/xtables.lock") == []


def test_what_was_waited_for_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoing needs the same locks: the call does not wait for each of them anew."""
    monkeypatch.setattr(lock, "_SECONDS", 1.0)
    (tmp_path / "lock").touch()
    files = [os.open(tmp_path / "lock", os.O_RDONLY) for _ in range(2)]
    fcntl.flock(files[0], fcntl.LOCK_EX)
    waited = []
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(CniError, match="was not free within 1 s") as caught:
            lock.take_lock(files[1], str(tmp_path / "lock"))
        assert caught.value.details.startswith(f"held by process {os.getpid()} (")
        waited.append(time.monotonic() - start)
    assert waited[0] >= 1.0
    assert waited[1] < 0.5
    fcntl.flock(files[0], fcntl.LOCK_UN)
    lock.take_lock(files[1], str(tmp_path / "lock"))
    for file in files:
        os.close(file)
