"""macspoofchk: frames with a foreign source address do not leave the container."""

from __future__ import annotations

from fixtures.configs import l3
from fixtures.host import Host, refusal
from fixtures.leaks import leaks

CONFIG = l3(macspoofchk=True)


def test_spoofed_frames_are_dropped(host: Host) -> None:
    first, second, free = (host.container(name) for name in ("c1", "c2", "c3"))
    host.add("bridge", CONFIG, first)
    host.add("bridge", CONFIG, second)
    host.add("bridge", l3(), free)
    assert first.reaches("10.1.2.3")
    for container in (first, free):
        mac = "02:00:00:00:00:66" if container is first else "02:00:00:00:00:67"
        container.run("ip", "link", "set", "eth0", "down")
        container.run("ip", "link", "set", "eth0", "address", mac)
        container.run("ip", "link", "set", "eth0", "up")
    assert not first.reaches("10.1.2.3")
    # Without the key, and for everybody else, nothing is filtered.
    assert free.reaches("10.1.2.3")


def test_gone_after_del(host: Host) -> None:
    container = host.container("c1")
    host.add("bridge", CONFIG, container)
    host.add("bridge", CONFIG, container, "net1")
    host.delete("bridge", CONFIG, container)
    assert "if: net1" in host.nft()
    assert "if: eth0" not in host.nft()
    host.delete("bridge", CONFIG, container, "net1")
    assert leaks(host) == []


def test_repeated_add_leaves_one_guard(host: Host) -> None:
    """[W-BR8] The attachment is made again after its namespace went."""
    container = host.container("c1")
    host.add("bridge", CONFIG, container)
    container.delete_netns()
    host.add("bridge", CONFIG, host.container("c1", container.id))
    rules = [line for line in host.nft().splitlines() if "drop" in line]
    assert len(rules) == 1


def test_check_finds_missing_guard(host: Host) -> None:
    """[W-BR10]"""
    container = host.container("c1")
    config = CONFIG | {"prevResult": host.add("bridge", CONFIG, container)}
    assert host.call("bridge", "CHECK", config, container).status == 0
    host.run("nft", "flush set bridge cni_py genuine")
    error = refusal(host.call("bridge", "CHECK", config, container))
    assert "spoof protection of veth" in error["msg"]
