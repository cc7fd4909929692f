"""dns: its dnsmasq, whatever happens to it, and the servers that other names are asked of."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import dns.message
import pytest

from fixtures.dump import differences, dump
from fixtures.host import BIN, Host, refusal
from fixtures.named import GATEWAY, call, join, leave, named
from fixtures.resolver import ask, ask_until, own_etc, resolv_conf, socket_in, upstream

FOLDER = "/run/cni-py/dns/net1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are run without a Python start for each call."""
    if Host.mode == "standalone":
        monkeypatch.setattr(Host, "mode", "in-process")


def kill(host: Host, number: int = signal.SIGKILL) -> int:
    """Strike the network's dnsmasq; its number."""
    (pid,) = host.name_servers()
    os.kill(pid, number)
    return pid


def wait_for_end(host: Host) -> None:
    deadline = time.monotonic() + 10
    while host.name_servers():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def bind(taken: socket.socket) -> None:
    """A process's sockets are closed a little after it is seen to have ended."""
    deadline = time.monotonic() + 10
    while True:
        try:
            taken.bind((GATEWAY, 53))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        else:
            return


def test_other_names_are_asked_of_the_hosts_resolvers_as_they_are_now(host: Host) -> None:
    own_etc(host)
    resolv_conf(host, "192.0.2.53")
    network, web = named(), host.container("web")
    with (
        upstream(host, "192.0.2.53", www_example="198.51.100.1") as first,
        upstream(host, "192.0.2.54", www_example="198.51.100.2") as second,
    ):
        join(host, network, web, "web")
        assert ask(web, GATEWAY, "www.example").records == ["198.51.100.1"]
        assert ask(web, GATEWAY, "gone.example").code == "NXDOMAIN"
        resolv_conf(host, "192.0.2.54")
        ask_until(web, GATEWAY, "www.example", lambda told: told.records == ["198.51.100.2"])
        # Nothing of the network's names is told to others.
        for name in ("web", "nobody", "nobody.cni.internal"):
            ask(web, GATEWAY, name)
        ask(web, GATEWAY, "10.1.2.77", "PTR")
        # It asks each server for a name of its own making, which a loop would bring back.
        asked = {one for one in first.asked + second.asked if not one.endswith(".test")}
        assert asked == {"www.example", "gone.example"}


def test_servers_of_the_configuration(host: Host) -> None:
    network, web = named(upstream=["192.0.2.53"]), host.container("web")
    with upstream(host, "192.0.2.53", www_example="198.51.100.1"):
        join(host, network, web, "web")
        assert ask(web, GATEWAY, "www.example").records == ["198.51.100.1"]


def test_a_resolver_at_a_loopback_address(host: Host) -> None:
    """As systemd-resolved's: it is the host's own, which only the host reaches."""
    own_etc(host)
    resolv_conf(host, "127.0.0.53")
    network, web = named(), host.container("web")
    with upstream(host, "127.0.0.53", www_example="198.51.100.1"):
        join(host, network, web, "web")
        assert ask(web, GATEWAY, "www.example").records == ["198.51.100.1"]


def test_a_resolv_conf_that_leads_back_to_us(host: Host) -> None:
    """The gateway itself, and two networks each of which asks the other."""
    own_etc(host)
    resolv_conf(host, GATEWAY, "10.1.3.1")
    one, other = named("net1"), named("other")
    other["plugins"][0]["ipam"]["ranges"] = [[{"subnet": "10.1.3.0/24"}]]
    web, client = host.container("web"), host.container("client")
    join(host, one, web, "web")
    join(host, other, client, "client")
    for name in ("www.example", "b.example", "c.example"):
        told = ask_until(web, GATEWAY, name, lambda told: told.records == [])
        assert told.code in ("REFUSED", "SERVFAIL")
    assert ask(web, GATEWAY, "web").records == ["10.1.2.2"]
    assert ask(client, "10.1.3.1", "client").records == ["10.1.3.2"]


def test_an_upstream_that_says_nothing_keeps_no_name_of_ours_waiting(host: Host) -> None:
    network, web = named(upstream=["192.0.2.53"]), host.container("web")
    with upstream(host, "192.0.2.53") as server:
        server.silent = True
        join(host, network, web, "web")
        with socket_in(web, socket.AF_INET, socket.SOCK_DGRAM) as flooding:
            for number in range(500):
                query = dns.message.make_query(f"n{number}.example", "A")
                flooding.sendto(query.to_wire(), (GATEWAY, 53))
            assert ask(web, GATEWAY, "web").records == ["10.1.2.2"]
            assert ask(web, GATEWAY, "web.cni.internal", tcp=True).records == ["10.1.2.2"]


def test_no_query_is_lost_while_names_change(host: Host) -> None:
    network = named(internal=True)
    web, other = host.container("web"), host.container("other")
    join(host, network, web, "web")
    asked = wrong = 0
    done = threading.Event()

    def flood() -> None:
        nonlocal asked, wrong
        query = dns.message.make_query("web", "A")
        with socket_in(web, socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.connect((GATEWAY, 53))
            made.settimeout(5)
            while not done.is_set():
                query.id = asked & 0xFFFF
                made.send(query.to_wire())
                answer = dns.message.from_wire(made.recv(4096))
                asked += 1
                wrong += [str(one[0]) for one in answer.answer] != ["10.1.2.2"]

    asking = threading.Thread(target=flood)
    asking.start()
    try:
        result = join(host, network, other, "other")
        for number in range(5):
            outcome = call(host, "ADD", network, other, f"n{number}", prevResult=result)
            assert outcome.status == 0, outcome
            assert ask(web, GATEWAY, f"n{number}").records == ["10.1.2.3"]
        leave(host, network, other)
        assert ask(web, GATEWAY, "n4").code == "NXDOMAIN"
    finally:
        done.set()
        asking.join()
    assert (asked > 0, wrong) == (True, 0)


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS", "GC"])
def test_the_next_call_starts_one_that_was_killed(host: Host, verb: str) -> None:
    network, web = named(), host.container("web")
    result = join(host, network, web, "web")
    pid = kill(host)
    wait_for_end(host)
    keys = {"cni.dev/valid-attachments": [{"containerID": web.id, "ifname": "eth0"}]}
    keys = keys if verb == "GC" else {} if verb == "STATUS" else {"prevResult": result}
    outcome = call(host, verb, network, None if verb in ("GC", "STATUS") else web, "web", **keys)
    assert outcome.status == 0, outcome
    assert host.name_servers() not in ([], [pid])
    assert ask(web, GATEWAY, "web").records == ["10.1.2.2"]


def test_a_server_process_restarts_one_that_was_killed_in_a_flood(host: Host) -> None:
    host.serve("--restore-rules")
    network, web = named(), host.container("web")
    join(host, network, web, "web")
    with socket_in(web, socket.AF_INET, socket.SOCK_DGRAM) as flooding:
        query = dns.message.make_query("web", "A").to_wire()
        for number in range(2000):
            if number == 1000:
                kill(host)
            flooding.sendto(query, (GATEWAY, 53))
    told = ask_until(web, GATEWAY, "web", lambda told: told.records != [])
    assert told.records == ["10.1.2.2"]
    leave(host, network, web)
    assert host.name_servers() == []


def test_one_that_does_not_answer_is_told_and_all_is_undone(host: Host) -> None:
    network, web, other = named(), host.container("web"), host.container("other")
    join(host, network, web, "web")
    main = network["plugins"][0] | {"name": "net1", "cniVersion": "1.1.0"}
    result = host.add("bridge", main, other)
    before = dump(host)
    pid = kill(host, signal.SIGSTOP)
    error = refusal(call(host, "ADD", network, other, "other", prevResult=result))
    os.kill(pid, signal.SIGCONT)
    assert error["code"] == 11
    assert "does not answer when asked for other" in error["msg"]
    assert error["details"] == f"dnsmasq is process {pid} (dnsmasq), which is stopped"
    assert differences(before, dump(host)) == ""
    told = ask_until(web, GATEWAY, "other.cni.internal", lambda told: told.records == [])
    assert told.code == "NXDOMAIN"


def test_a_number_that_is_somebody_elses_is_left_alone(host: Host) -> None:
    """The file of the process's number lies: its process is not signalled."""
    network, web = named(), host.container("web")
    join(host, network, web, "web")
    kill(host)
    wait_for_end(host)
    other = host.holder.pid
    host.run("sh", "-c", f"echo {other} > {FOLDER}/dnsmasq.pid")
    leave(host, network, web)
    assert host.holder.poll() is None
    assert host.name_servers() == []


def test_a_port_that_somebody_has_is_told_with_its_process(host: Host) -> None:
    network, web = named(), host.container("web")
    main = network["plugins"][0] | {"name": "net1", "cniVersion": "1.1.0"}
    result = host.add("bridge", main, web)
    before = dump(host)
    with socket_in(host, socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((GATEWAY, 53))
        error = refusal(call(host, "ADD", network, web, "web", prevResult=result))
    assert error["msg"].startswith(f"port 53 of {GATEWAY} is taken by process {os.getpid()} (")
    assert differences(before, dump(host)) == ""
    assert call(host, "ADD", network, web, "web", prevResult=result).status == 0
    kill(host)
    wait_for_end(host)
    with socket_in(host, socket.AF_INET, socket.SOCK_DGRAM) as taken:
        bind(taken)
        error = refusal(call(host, "STATUS", network))
    assert error["code"] == 50
    assert error["msg"].startswith(f"port 53 of {GATEWAY} is taken by process {os.getpid()} (")
    assert call(host, "DEL", network, web).status == 0


def test_without_dnsmasq_the_package_is_named(host: Host) -> None:
    empty = "/run/empty"
    host.run("mkdir", empty)
    host.run("mount", "--bind", "/dev/null", "/usr/sbin/dnsmasq")
    network, web = named(), host.container("web")
    main = network["plugins"][0] | {"name": "net1", "cniVersion": "1.1.0"}
    result = host.add("bridge", main, web)
    error = refusal(call(host, "STATUS", network))
    assert (error["code"], error["msg"]) == (50, "dnsmasq is not installed")
    assert "dnsmasq-base" in error["details"]
    error = refusal(call(host, "ADD", network, web, "web", prevResult=result))
    assert (error["code"], error["msg"]) == (999, "dnsmasq is not installed")
    assert call(host, "DEL", network, web).status == 0


@pytest.mark.root
def test_it_runs_as_nobody_special_and_reads_no_more_than_it_needs(host: Host) -> None:
    network, web = named(), host.container("web")
    join(host, network, web, "web")
    (pid,) = host.name_servers()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) & ~(1 << 10) == 0
    modes = "/run/cni-py /run/cni-py/dns /run/cni-py/dns/net1 /run/cni-py/dns/net1/hosts"
    listed = host.run("sh", "-c", f"stat --format %a {modes}").stdout.split()
    assert listed[1:] == ["711", "711", "755"]
    assert int(listed[0], 8) & 0o722 == 0o700
    own = host.run("sh", "-c", f"stat --format %a {FOLDER}/*.json {FOLDER}/*.conf").stdout.split()
    assert set(own) == {"600"}
    # As systemd-tmpfiles leaves it when a package is upgraded.
    host.run("chmod", "700", "/run/cni-py")
    other = host.container("other")
    join(host, network, other, "other")
    assert ask(web, GATEWAY, "other").records == ["10.1.2.3"]


@pytest.mark.root
def test_it_outlives_the_control_group_of_its_starter(host: Host) -> None:
    """As that of a unit, whose processes systemd ends with it."""
    network, web = named(), host.container("web")
    host.run("mount", "-n", "-t", "cgroup2", "none", "/sys/fs/cgroup")
    join(host, network, web, "web")
    kill(host)
    wait_for_end(host)
    config = network["plugins"][1] | {"name": "net1", "cniVersion": "1.1.0"}
    unit = f"/sys/fs/cgroup/unit-{host.holder.pid}"
    script = f"mkdir {unit}; echo $$ > {unit}/cgroup.procs; exec {BIN}/dns"
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN), "CNI_PY_SOCKET": ""}
    host.run("sh", "-c", script, stdin=json.dumps(config), env=env)
    (pid,) = host.name_servers()
    assert host.run("cat", f"{unit}/cgroup.procs").stdout == ""
    assert host.run("cat", f"/proc/{pid}/cgroup").stdout.endswith("0::/cni-py-dns\n")
    host.run("rmdir", unit)
    leave(host, network, web)


def test_a_new_domain_is_taken_up_by_the_next_add(host: Host) -> None:
    web, other = host.container("web"), host.container("other")
    join(host, named(), web, "web")
    network = named(domainName="new.test", ttl=9)
    join(host, network, other, "other")
    told = ask(web, GATEWAY, "other.new.test")
    assert (told.records, told.ttl) == (["10.1.2.3"], 9)
    assert ask(web, GATEWAY, "web").records == ["10.1.2.2"]
    assert len(host.name_servers()) == 1


def test_a_thousand_names_on_one_network(host: Host) -> None:
    """Published as other sources do; an ADD among them is answered, and writes one file."""
    network, web = named(internal=True), host.container("web")
    join(host, network, web, "web")
    script = (
        f'i=0; while [ $i -lt 1000 ]; do echo "10.8.$((i / 250)).$((i % 250 + 1)) n$i"'
        f" > {FOLDER}/x; chmod 644 {FOLDER}/x; mv {FOLDER}/x {FOLDER}/hosts/n$i; i=$((i + 1)); done"
    )
    host.run("sh", "-c", script)
    client = host.container("client")
    join(host, network, client, "client")
    assert ask(client, GATEWAY, "client").records == ["10.1.2.3"]
    told = ask_until(client, GATEWAY, "n999", lambda told: told.records != [])
    assert told.records == ["10.8.3.250"]
    leave(host, network, web)
    assert ask(client, GATEWAY, "web.cni.internal").code == "NXDOMAIN"
    leave(host, network, client)
    assert host.name_servers() == []
