"""cni-py serve --restore-rules: flushed rules are made again by themselves."""

from __future__ import annotations

import pytest

from fixtures.dump import differences, dump
from fixtures.firewalld import Firewalld
from fixtures.firewalls import attach, elements, passes
from fixtures.host import Host

# The second is what other software of iptables does.
FLUSHES = {
    "nft": "nft flush ruleset",
    "iptables-restore": """nft delete table inet cni_py
printf '*filter\nCOMMIT\n' | tee /run/ruleset | iptables-restore
ip6tables-restore </run/ruleset""",
}


def rules(host: Host) -> dict[str, list[str]]:
    dumped = dump(host)
    return {kind: sorted(dumped[kind]) for kind in ("nft", "iptables")}


def restored(line: dict) -> bool:
    return line["event"] == "rules restored"


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize("flush", FLUSHES)
def test_flushed_rules_come_back(host: Host, backend: str, flush: str) -> None:
    server = host.serve("--restore-rules")
    assert server.wait_for(restored)["errors"] == []
    container = host.container("c1")
    attach(host, container, backend, ingressPolicy="isolated")
    before, seen = rules(host), len(server.lines)
    host.run("sh", "-c", FLUSHES[flush], check=False)
    line = server.wait_for(restored, seen)
    assert line["errors"] == []
    assert line[backend] > 0
    assert differences(before, rules(host)) == ""
    # Its own changes do not make it do so again, nor do those of calls.
    seen = len(server.lines)
    attach(host, host.container("c2"), backend, "net2", ingressPolicy="isolated")
    assert passes(container, "10.1.1.1")
    assert not any(restored(one) for one in server.lines[seen:])


def test_off_by_default(host: Host) -> None:
    server = host.serve()
    container = host.container("c1")
    attach(host, container, "nftables")
    host.run("nft", "flush", "ruleset")
    assert passes(container, "10.1.1.1")
    assert elements(host, "forward4") == []
    assert not any(restored(one) for one in server.lines)


@pytest.mark.slow
def test_firewalld_reloads_and_starts_anew(host: Host) -> None:
    daemon = Firewalld(host)
    try:
        server = host.serve("--restore-rules")
        server.wait_for(restored)
        container = host.container("c1")
        attach(host, container, "firewalld", ingressPolicy="same-bridge")
        own = daemon.sources()
        assert own == ["10.1.1.2/32", "fd00:1::2/128"]
        for action in (daemon.reload, daemon.restart):
            seen = len(server.lines)
            action()
            server.wait_for(lambda line: restored(line) and line["firewalld"] == 2, seen)
            assert daemon.sources() == own
            assert elements(host, "isolation_bridges") == ["br-net1"]
        host.delete_all()
    finally:
        daemon.stop()
