"""dhcp: the daemon's command line, its socket, and what happens when something is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.background import running
from fixtures.configs import ipam
from fixtures.dhcp import (
    SERVER,
    background,
    dhcp,
    dnsmasq,
    kill,
    make_lan,
    scripted,
    start_daemon,
    stored,
    tell,
    until,
    wire,
)
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, refusal
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.background import Background
    from fixtures.host import Host

SOCKET = "/run/cni/dhcp.sock"
REFERENCE = "/usr/lib/cni/dhcp"


@pytest.fixture
def lan(host: Host) -> str:
    return make_lan(host)


@pytest.fixture
def daemon(host: Host, lan: str) -> Iterator[Background]:
    assert lan
    with running(start_daemon(host, "-timeout", "2s", "-resendtimeout", "4s")) as process:
        yield process
        host.delete_all()


def wired(host: Host, name: str = "c1") -> Container:
    container = host.container(name)
    wire(host, container)
    return container


def started(host: Host, verb: str, config: Any, container: Container) -> subprocess.Popen[str]:
    """A call that goes on in the background."""
    env = container.environ(verb) | {"PATH": os.environ["PATH"]}
    if host.server is None:
        env["CNI_PY_SOCKET"] = ""
    kind = config["type"] if config["type"] != "x" else config["ipam"]["type"]
    # The shell makes way: signals reach the executable.
    script = 'echo $$; exec "$0"'
    command = [*host.prefix, "sh", "-c", script, f"{BIN}/{kind}"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    return process


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send the signal to the executable; returns what it printed."""
    assert process.stdout is not None
    os.kill(int(process.stdout.readline()), number)
    printed = process.stdout.read()
    process.wait(30)
    process.stdout.close()
    return printed


# The command line.


def test_socket_and_pidfile(host: Host) -> None:
    """[5.3.2] Only root may connect; both files go with the daemon."""
    daemon = start_daemon(host, "-pidfile", "/run/dhcp.pid")
    with running(daemon):
        modes = host.run("stat", "-c", "%a", SOCKET, "/run/cni", "/run/dhcp.pid").stdout.split()
        assert modes == ["600", "700", "644"]
        assert host.run("cat", "/run/dhcp.pid").stdout == str(daemon.process.pid)
        assert daemon.stop() == 0
    left = host.run("sh", "-c", f"ls {SOCKET} /run/dhcp.pid 2>/dev/null", check=False)
    assert left.stdout == ""


@pytest.mark.parametrize(
    "flags",
    [
        ["-socketpath", "/run/own/dhcp.sock"],
        ["--socketpath=/run/own/dhcp.sock", "-broadcast=false"],
        ["-hostprefix=/run/own", "-socketpath=/dhcp.sock", "-timeout=1m2s", "-resendmax", "500ms"],
    ],
    ids=["blank", "equals", "prefix"],
)
def test_socket_path(host: Host, flags: list[str]) -> None:
    """[5.3.2] Flags as Go reads them; `daemonSocketPath` names the place."""
    with running(start_daemon(host, *flags)) as daemon:
        assert daemon.lines[0]["socket"] == "/run/own/dhcp.sock"
        config = ipam("dhcp", daemonSocketPath="/run/own/dhcp.sock")
        assert host.call("dhcp", "STATUS", config).status == 0
        assert refusal(host.call("dhcp", "STATUS", ipam("dhcp")))["code"] == 50


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["-pidfile", "relative"], 1, 'Error writing pidfile "relative": path not absolute'),
        (["-timeout", "soon"], 2, "invalid duration 'soon': for example 10s"),
        (["-timeout", "0s"], 2, "'0s' is not more than 0"),
        (["-pidfile", "/no/such/folder"], 1, "/no/such/folder: No such file or directory"),
        (["-pidfile", "/run/link"], 1, 'Error writing pidfile "/run/link": Too many levels'),
        (["-unknown"], 2, "unrecognized arguments: -unknown"),
    ],
)
def test_wrong_flags(host: Host, flags: list[str], status: int, text: str) -> None:
    host.run("ln", "-s", "/run/elsewhere", "/run/link")
    done = host.run(f"{BIN}/dhcp", "daemon", *flags, check=False)
    assert done.status == status
    assert text in done.stderr
    assert host.run("ls", SOCKET, "/run/elsewhere", check=False).stdout == ""
    assert host.run("readlink", "/run/link").stdout == "/run/elsewhere\n"


def test_help(host: Host) -> None:
    done = host.run(f"{BIN}/dhcp", "daemon", "-help")
    for flag in ("pidfile", "hostprefix", "socketpath", "broadcast", "timeout", "resendmax"):
        assert f"-{flag}" in done.stdout


def test_operators_command(host: Host) -> None:
    """`cni-py dhcp-daemon` is the same."""
    command = [*host.prefix, f"{BIN}/cni-py", "dhcp-daemon", "-socketpath", "/run/x.sock"]
    with running(background(command)) as daemon:
        line = daemon.wait_for(lambda line: line["event"] == "listening")
        assert line["socket"] == "/run/x.sock"


def test_second_daemon(host: Host, daemon: Background) -> None:
    """[W-DH9] Refused while the first listens; a stale socket is replaced."""
    done = host.run(f"{BIN}/dhcp", "daemon", check=False)
    assert done.status == 1
    assert f"Error getting listener: {SOCKET}: Address already in use" in done.stderr
    assert host.call("dhcp", "STATUS", ipam("dhcp")).status == 0
    kill(daemon)
    assert host.run("test", "-S", SOCKET).status == 0
    with running(start_daemon(host)):
        assert host.call("dhcp", "STATUS", ipam("dhcp")).status == 0


_ACTIVATE = """
import os, socket, sys
number = int(sys.argv[1])
for index in range(number):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.bind(f"/run/activated{index or ''}")
    one.listen(8)
    os.dup2(one.fileno(), 13 + index)
for index in range(number):
    os.dup2(13 + index, 3 + index)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(number)}
os.execv(sys.argv[2], [sys.argv[2], "daemon"])
"""


def test_socket_activation(host: Host) -> None:
    """[5.3.2] systemd's socket is used, and stays when the daemon ends."""
    start = [*host.prefix, sys.executable, "-c", _ACTIVATE]
    with running(background([*start, "1", f"{BIN}/dhcp"])) as daemon:
        line = daemon.wait_for(lambda line: line["event"] == "listening")
        assert line["socket"] == "/run/activated"
        config = ipam("dhcp", daemonSocketPath="/run/activated")
        assert host.call("dhcp", "STATUS", config).status == 0
        assert daemon.stop() == 0
    assert host.run("test", "-S", "/run/activated").status == 0
    host.run("rm", "/run/activated")
    with running(background([*start, "2", f"{BIN}/dhcp"])) as daemon:
        assert daemon.process.wait(30) == 1
        until(lambda: daemon.noise != [], "it says why")
        assert "Too many (2) FDs passed through socket activation" in daemon.noise[0]


def test_units() -> None:
    """The units name the executable and the socket that are the defaults."""
    folder = BIN.parent / "conf" / "systemd"
    assert f"ListenStream={SOCKET}" in (folder / "cni-dhcp.socket").read_text()
    assert "ExecStart=/opt/cni/bin/dhcp daemon" in (folder / "cni-dhcp.service").read_text()


def test_only_root_may_ask(host: Host, daemon: Background) -> None:
    """Another user is refused by the daemon, should the socket's mode allow it."""
    assert daemon
    host.run("chmod", "777", SOCKET)
    host.run("chmod", "755", "/run/cni")
    ask = (
        f"import socket; s=socket.socket(socket.AF_UNIX); s.connect({SOCKET!r}); print(s.recv(99))"
    )
    done = host.run("setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", ask)
    assert "only root may call the DHCP daemon" in done.stdout


def test_broadcast(host: Host, lan: str) -> None:
    """[W-DH1] `-broadcast` asks for answers by broadcast until there is an address."""
    with running(start_daemon(host, "-broadcast")), scripted(host, lan) as server:
        container = wired(host)
        host.add("dhcp", ipam("dhcp"), container)
        host.delete("dhcp", ipam("dhcp"), container)
        release = server.wait_for(lambda line: line["type"] == "release")
        flags = [server.of("type", kind)[0]["flags"] for kind in ("discover", "request")]
        assert flags == ["8000", "8000"]
        assert release["flags"] == "0000"


def test_hostprefix(host: Host, lan: str) -> None:
    """[5.3.2] Paths of namespaces and of leases are below the prefix."""
    host.run("sh", "-c", "mkdir -p /run/root/run && ln -s ../../netns /run/root/run/netns")
    flags = ("-hostprefix", "/run/root", "-socketpath", "/run/dhcp.sock")
    with running(start_daemon(host, *flags)), scripted(host, lan):
        config = ipam("dhcp", daemonSocketPath="/run/root/run/dhcp.sock")
        container = wired(host)
        assert host.add("dhcp", config, container)["ips"][0]["address"] == "10.9.0.50/24"
        assert len(host.files("/run/root/var/lib/cni/cni-py/dhcp")) == 1
        host.delete("dhcp", config, container)


# Something is missing.


def test_no_daemon(host: Host) -> None:
    """[W-G2] ADD says how to start it, STATUS is not ready; DEL and GC have nothing to do."""
    container = wired_without_lan(host)
    error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container))
    assert error["code"] == 11
    expected = f"error dialing DHCP daemon: {SOCKET}: No such file or directory"
    assert error["msg"] == expected
    assert "dhcp daemon" in error["details"]
    error = refusal(host.call("dhcp", "STATUS", ipam("dhcp")))
    assert (error["code"], error["msg"]) == (50, expected)
    assert host.call("dhcp", "DEL", ipam("dhcp"), container).status == 0
    gc = ipam("dhcp") | {"cni.dev/valid-attachments": []}
    assert host.call("dhcp", "GC", gc).status == 0


def wired_without_lan(host: Host) -> Container:
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
    return container


def test_bridge_without_daemon(host: Host, lan: str) -> None:
    """[W-G8] A failed ADD leaves nothing; STATUS of the main plugin tells it too."""
    assert lan
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call("bridge", "ADD", dhcp(), container))
    assert error["code"] == 11
    assert differences(before, dump(host)) == ""
    assert refusal(host.call("bridge", "STATUS", dhcp()))["code"] == 50
    assert host.call("bridge", "DEL", dhcp(), container).status == 0


def test_daemon_is_gone(host: Host, lan: str, daemon: Background) -> None:
    """DEL fails while there is a lease that nobody can give back; so does GC of its network."""
    with scripted(host, lan) as server:
        container = wired(host)
        assert host.call("dhcp", "ADD", ipam("dhcp"), container).status == 0
        kill(daemon)
        error = refusal(host.call("dhcp", "DEL", ipam("dhcp"), container))
        assert (error["code"], error["msg"]) == (
            11, f"error dialing DHCP daemon: {SOCKET}: Connection refused",
        )  # fmt: skip
        gc = ipam("dhcp") | {"cni.dev/valid-attachments": []}
        assert refusal(host.call("dhcp", "GC", gc))["code"] == 11
        assert host.call("dhcp", "GC", gc | {"name": "other"}).status == 0
        with running(start_daemon(host)):
            assert host.call("dhcp", "DEL", ipam("dhcp"), container).status == 0
            server.wait_for(lambda line: line["type"] == "release")
    assert stored(host) == []


def test_silent_server(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH10] ADD fails within the daemon's limit, says what was tried, and leaves nothing."""
    assert daemon
    with scripted(host, lan, offer=False) as server:
        container = host.container("c1")
        before = dump(host)
        error = refusal(host.call("bridge", "ADD", dhcp(), container))
        assert error["code"] == 11
        assert error["msg"] == "no DHCP lease for interface eth0 within 4 s"
        assert error["details"] == "no server has answered"
        assert len(server.of("type", "discover")) == 3
        assert differences(before, dump(host)) == ""
        assert stored(host) == []


@pytest.mark.parametrize(
    ("told", "details"),
    [
        ({"request": "nak", "text": "not here"}, f"the server {SERVER} refused: not here"),
        ({"request": "nak", "text": "a\x07"}, f"the server {SERVER} refused"),
        ({"request": "silent"}, f"the server {SERVER} did not answer the request for its offer"),
        ({"server": "0.0.0.0", "request": "silent"}, "the server 0.0.0.0 did not answer"),
    ],
    ids=["nak", "nak-unprintable", "silent", "no-server"],
)
def test_unwilling_server(
    host: Host, lan: str, daemon: Background, told: dict[str, Any], details: str
) -> None:
    """[W-DH10] The error says what the server did last."""
    assert daemon
    with scripted(host, lan, **told) as server:
        container = wired(host)
        error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container))
        assert error["details"].startswith(details)
        # It is not asked without a pause.
        assert len(server.lines) < 30


def test_slow_server(host: Host, lan: str, daemon: Background) -> None:
    """A server that does not hear the first messages."""
    with scripted(host, lan, offer=False) as server:
        container = wired(host)
        process = started(host, "ADD", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "discover")
        tell(server, offer=True)
        assert process.stdout is not None
        process.stdout.readline()
        assert json.loads(process.stdout.read())["ips"][0]["address"] == "10.9.0.50/24"
        process.wait(30)
        process.stdout.close()
        host.delete("dhcp", ipam("dhcp"), container)
    assert daemon.of("event", "failed") == []


@pytest.mark.slow
def test_stopped_daemon(host: Host, daemon: Background) -> None:
    """[W-DH10] One that does not answer: code 11 after 10 seconds, no longer."""
    container = wired_without_lan(host)
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container))
        assert error["code"] == 11
        assert error["msg"] == f"the DHCP daemon at {SOCKET} did not answer within 10 s"
        assert error["details"].startswith(f"it is process {daemon.process.pid} (")
        assert error["details"].endswith(", which is stopped")
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    until(lambda: host.call("dhcp", "STATUS", ipam("dhcp")).status == 0, "it goes on")


def test_daemon_ends_during_an_add(host: Host, lan: str, daemon: Background) -> None:
    """The runtime hears of it; nothing is kept."""
    with scripted(host, lan, offer=False) as server:
        container = wired(host)
        process = started(host, "ADD", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "discover")
        assert daemon.stop() == 0
        assert process.stdout is not None
        process.stdout.readline()
        error = json.loads(process.stdout.read())
        assert (error["code"], error["msg"]) == (11, "the DHCP daemon is ending")
        process.wait(30)
        process.stdout.close()
    assert stored(host) == []


# Interrupted.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_while_it_waits(
    host: Host, lan: str, daemon: Background, number: signal.Signals
) -> None:
    """[W-DH10] The runtime gives up, or is gone: the daemon asks no more."""
    with scripted(host, lan, offer=False) as server:
        container = wired(host)
        process = started(host, "ADD", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "discover")
        printed = interrupt(process, number)
        if number == signal.SIGTERM:
            assert json.loads(printed)["code"] == 11
        check = ipam("dhcp") | {"prevResult": {"cniVersion": "1.1.0"}}
        error = refusal(host.call("dhcp", "CHECK", check, container))
        assert error["details"] == "the daemon does not know it"
        tell(server, offer=True)
        # The next ADD finds nothing in its way.
        host.add("dhcp", ipam("dhcp"), container)
        host.delete("dhcp", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "release")
        assert len(server.of("type", "request")) == 1
    assert daemon.of("event", "failed") == []


@pytest.mark.parametrize("kept", [False, True])
def test_caller_that_dies_with_the_lease(
    host: Host, lan: str, daemon: Background, kept: bool
) -> None:
    """[W-G8] Until it has said that the result is out, its end gives the lease back."""
    assert daemon
    with scripted(host, lan) as server:
        container = wired(host)
        asked = {
            "say": "acquire",
            "attachment": ["net1", container.id, "eth0"],
            "netns": container.netns,
            "options": {},
        }
        ask = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX)\n"
            f"s.connect({SOCKET!r}); s.send(sys.stdin.buffer.read()); f = s.makefile('rb')\n"
            "print(f.readline(), f.readline())\n"
        )
        ask += 's.send(b\'{"say": "kept"}\\n\')\n' if kept else ""
        done = host.run(sys.executable, "-c", ask, stdin=json.dumps(asked) + "\n")
        assert '"say":"begun"' in done.stdout
        assert '"say":"found"' in done.stdout
        if kept:
            assert len(stored(host)) == 1
            assert host.call("dhcp", "DEL", ipam("dhcp"), container).status == 0
        server.wait_for(lambda line: line["type"] == "release")
        until(lambda: stored(host) == [], "the lease is still on disk")


def test_unwritable_result(host: Host, lan: str, daemon: Background) -> None:
    """[W-G8] What cannot be reported is given back."""
    assert daemon
    with scripted(host, lan) as server:
        container = wired(host)
        env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
        command = ("sh", "-c", f"{BIN}/dhcp >/dev/full")
        done = host.run(*command, stdin=json.dumps(ipam("dhcp")), env=env, check=False)
        assert done.status == 1
        server.wait_for(lambda line: line["type"] == "release")
        assert stored(host) == []


def test_bridge_fails_after_the_lease(host: Host, lan: str, daemon: Background) -> None:
    """[W-G8] A later failure of the main plugin gives the lease back while it can be sent."""
    assert daemon
    host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "cni0")
    with scripted(host, lan) as server:
        container = host.container("c1")
        before = dump(host)
        error = refusal(host.call("bridge", "ADD", dhcp(isGateway=True), container))
        assert error["msg"] == '"cni0" already has an IP address different from 10.9.0.1/24'
        server.wait_for(lambda line: line["type"] == "release")
        assert differences(before, dump(host)) == ""
        assert leaks(host) == []


# DEL, CHECK, GC.


@pytest.mark.parametrize("netns", ["", "/run/netns/missing", "/run/file"])
def test_delete_without_namespace(host: Host, lan: str, daemon: Background, netns: str) -> None:
    """[A.19] The lease is released all the same: the daemon knows the interface."""
    assert daemon
    host.run("touch", "/run/file")
    with scripted(host, lan) as server:
        container = wired(host)
        assert host.call("dhcp", "ADD", ipam("dhcp"), container).status == 0
        for _ in range(2):
            done = host.call("dhcp", "DEL", ipam("dhcp"), container, env={"CNI_NETNS": netns})
            assert done.status == 0
        server.wait_for(lambda line: line["type"] == "release")
        assert stored(host) == []


def test_delete_after_the_namespace(host: Host, lan: str, daemon: Background) -> None:
    """No message can be sent any more: the lease is forgotten."""
    with scripted(host, lan):
        container = host.container("c1")
        host.add("bridge", dhcp(), container)
        container.delete_netns()
        host.delete("bridge", dhcp(), container)
        assert stored(host) == []
        assert daemon.of("event", "released")[0]["told"] is False


def test_delete_with_a_wrong_configuration(host: Host, lan: str, daemon: Background) -> None:
    """[W-HL5] Options that ADD would refuse keep no lease."""
    assert daemon
    with scripted(host, lan) as server:
        container = wired(host)
        assert host.call("dhcp", "ADD", ipam("dhcp"), container).status == 0
        wrong = ipam("dhcp", request=[{"option": "no-such"}], provide=7, priority=-1)
        assert refusal(host.call("dhcp", "ADD", wrong, container))["code"] == 7
        assert host.call("dhcp", "DEL", wrong, container).status == 0
        server.wait_for(lambda line: line["type"] == "release")


def test_address_goes_before_the_release(host: Host, lan: str, daemon: Background) -> None:
    """[W-G3] Nobody has the address any more when it is given back."""
    assert daemon
    with scripted(host, lan) as server:
        container = wired(host)
        host.add("dhcp", ipam("dhcp"), container)
        container.run("ip", "addr", "add", "10.9.0.50/24", "dev", "eth0")
        container.run("ip", "addr", "add", "10.9.0.51/24", "dev", "eth0")
        host.delete("dhcp", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "release")
        assert "10.9.0.50/24" not in container.addresses()


def test_delete_during_an_add(host: Host, lan: str, daemon: Background) -> None:
    """The ADD hears of it, and nothing is kept."""
    with scripted(host, lan, offer=False) as server:
        container = wired(host)
        process = started(host, "ADD", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "discover")
        # As a bridge that is taken down meanwhile does: the lock is each executable's own.
        ask = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX)\n"
            f"s.connect({SOCKET!r}); s.send(sys.stdin.buffer.read()); print(s.recv(999))"
        )
        asked = {"say": "release", "attachment": ["net1", container.id, "eth0"]}
        done = host.run(sys.executable, "-c", ask, stdin=json.dumps(asked) + "\n")
        assert "done" in done.stdout
        assert process.stdout is not None
        process.stdout.readline()
        error = json.loads(process.stdout.read())
        assert (error["code"], error["msg"]) == (11, "the attachment was deleted during its ADD")
        process.wait(30)
        process.stdout.close()
    assert stored(host) == []
    assert daemon.of("event", "defect") == []


def test_name_that_is_not_utf8(host: Host, daemon: Background) -> None:
    """[5.3] Refused by ADD; DEL has nothing to give back."""
    assert daemon
    container = host.container("c1")
    env = {"CNI_IFNAME": "e\udcff"}
    assert refusal(host.call("dhcp", "ADD", ipam("dhcp"), container, env=env))["code"] == 4
    assert host.call("dhcp", "DEL", ipam("dhcp"), container, env=env).status == 0
    check = ipam("dhcp") | {"prevResult": {"cniVersion": "1.1.0"}}
    error = refusal(host.call("dhcp", "CHECK", check, container, env=env))
    assert "has no lease" in error["msg"]


def test_check(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH6] Each difference is named, and nothing is asked of the server."""
    with scripted(host, lan) as server:
        container = wired(host)
        result = host.add("dhcp", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "request")
        asked = len(server.lines)

        def checked(**keys: Any) -> tuple[str, str]:
            config = ipam("dhcp") | {"prevResult": result | keys}
            error = refusal(host.call("dhcp", "CHECK", config, container))
            return error["msg"], error.get("details", "")

        good = ipam("dhcp") | {"prevResult": result}
        assert host.call("dhcp", "CHECK", good, container).status == 0
        assert checked(ips=[{"address": "10.9.0.51/24"}]) == (
            "dhcp: address 10.9.0.50/24 of the lease is not in prevResult",
            "prevResult has 10.9.0.51/24",
        )
        assert checked(ips=[]) == (
            "dhcp: address 10.9.0.50/24 of the lease is not in prevResult",
            "prevResult has no address",
        )
        assert checked(ips=[{"address": "10.9.0.50/24", "gateway": "10.9.0.2"}]) == (
            "dhcp: the gateway of 10.9.0.50/24 differs",
            f"leased {SERVER}, prevResult has 10.9.0.2",
        )
        host.delete("dhcp", ipam("dhcp"), container)
        server.wait_for(lambda line: line["type"] == "release")
        assert checked()[0] == "dhcp: container id-c1 has no lease for eth0"
        assert len(server.lines) == asked + 1
    assert stored(host) == []
    assert len(daemon.of("event", "bound")) == 1


def test_gc(host: Host, lan: str, daemon: Background) -> None:
    """[W-DH4, G-07] Leases of the network's attachments that do not live; no list, nothing."""
    assert daemon
    with dnsmasq(host, lan):
        for name in ("c1", "c2"):
            host.add("bridge", dhcp(), host.container(name))
        third = host.container("c3")
        host.add("bridge", dhcp(name="net2"), third)
        assert host.call("bridge", "GC", dhcp()).status == 0
        assert len(stored(host)) == 3
        valid = [{"containerID": "id-c2", "ifname": "eth0"}]
        gc = dhcp() | {"cni.dev/valid-attachments": valid}
        assert host.call("bridge", "GC", gc).status == 0
        left = sorted(one["attachment"] for one in stored(host))
        assert left == [["net1", "id-c2", "eth0"], ["net2", "id-c3", "eth0"]]


# Bad input.


@pytest.mark.parametrize(
    ("keys", "msg"),
    [
        ({"request": [{"option": "no-such"}]}, 'Can not parse option "no-such"'),
        ({"request": [{"option": "0"}]}, 'Can not parse option "0"'),
        ({"request": [{"option": "256"}]}, 'Can not parse option "256"'),
        ({"request": [{}]}, 'Can not parse option ""'),
        ({"provide": [{"option": "53", "value": "x"}]}, "ipam.provide[0].option 53 cannot be"),
        ({"provide": [{"option": "12", "value": "x" * 256}]}, "ipam.provide[0] is 256 bytes long"),
        ({"provide": [{"value": "x"}]}, "invalid configuration: $.ipam.provide[0]"),
        ({"priority": -1}, "invalid ipam.priority -1"),
        ({"request": "121"}, "invalid configuration: $.ipam.request"),
    ],
)
def test_bad_configuration(host: Host, keys: dict[str, Any], msg: str) -> None:
    """Refused before the daemon is asked, by ADD and by STATUS."""
    container = Container(host, "c1", "/run/netns/c1")
    error = refusal(host.call("dhcp", "ADD", ipam("dhcp", **keys), container))
    assert error["code"] == 7
    assert error["msg"].startswith(msg)


def test_no_ipam(host: Host) -> None:
    """[W-DH9] No crash."""
    config = {"cniVersion": "1.1.0", "name": "net1", "type": "dhcp"}
    container = host.container("c1")
    for verb in ("ADD", "STATUS"):
        error = refusal(host.call("dhcp", verb, config, container))
        assert error["msg"] == "IPAM config missing 'ipam' key"
    assert host.call("dhcp", "DEL", config, container).status == 0


def test_missing_interface(host: Host, daemon: Background) -> None:
    assert daemon
    container = host.container("c1")
    error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container))
    assert (error["code"], error["msg"]) == (
        4, "interface eth0 does not exist in /run/netns/c1",
    )  # fmt: skip
    missing = Container(host, "c2", "/run/netns/c2")
    error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), missing))
    assert error["msg"] == 'CNI_NETNS "/run/netns/c2" is not a network namespace'
    error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container, "lo"))
    assert error["msg"] == "interface lo has no Ethernet address"


@pytest.mark.parametrize("text", [b"", b"{}\n", b"\xff\n", b'{"say":"acquire"}\n', b"x" * 4096])
def test_noise_on_the_socket(host: Host, daemon: Background, text: bytes) -> None:
    """The daemon goes on."""
    assert daemon
    send = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(2)\n"
        f"s.connect({SOCKET!r}); s.send(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)\n"
        "print(s.recv(999))"
    )
    host.run(sys.executable, "-c", send, stdin=text)
    assert host.call("dhcp", "STATUS", ipam("dhcp")).status == 0
    assert daemon.of("event", "defect") == []


def test_long_socket_path(host: Host) -> None:
    config = ipam("dhcp", daemonSocketPath="/run/" + "x" * 200)
    assert refusal(host.call("dhcp", "STATUS", config))["code"] == 50


# Beside the reference.


def test_without_descriptors(host: Host, lan: str, daemon: Background) -> None:
    """The caller waits until the daemon has some again, and the log is not filled meanwhile."""
    container = wired_without_lan(host)
    pid = str(daemon.process.pid)
    limits = host.run("prlimit", "--pid", pid, "--nofile", "--raw", "--noheadings", "-o", "SOFT")
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    with scripted(host, lan):
        host.run("prlimit", "--pid", pid, f"--nofile={used}:")
        waiting = started(host, "STATUS", ipam("dhcp"), container)
        daemon.wait_for(lambda line: line["event"] == "accept failed")
        # A second attempt shows that there was a first one, and a pause.
        daemon.wait_for(lambda line: line["event"] == "accept failed", len(daemon.lines))
        host.run("prlimit", "--pid", pid, f"--nofile={limits.stdout.strip()}:")
        assert waiting.wait(30) == 0
    assert waiting.stdout is not None
    waiting.stdout.close()
    assert len(daemon.of("event", "accept failed")) <= 4


@pytest.mark.skipif(not os.path.exists(REFERENCE), reason="no reference plugins")
def test_plugin_of_the_reference(host: Host, daemon: Background) -> None:
    """Its plugin hears that the daemon is another one."""
    assert daemon
    container = wired_without_lan(host)
    host.path = "/usr/lib/cni"
    config = ipam("dhcp") | {"cniVersion": "1.0.0"}
    error = refusal(host.call("dhcp", "ADD", config, container))
    host.path = str(BIN)
    assert "cni-py's DHCP daemon does not speak Go's net/rpc" in error["msg"]


@pytest.mark.skipif(not os.path.exists(REFERENCE), reason="no reference plugins")
def test_daemon_of_the_reference(host: Host) -> None:
    """Our plugin says whose daemon it met."""
    container = wired_without_lan(host)
    with running(background([*host.prefix, REFERENCE, "daemon", "-socketpath", SOCKET])):
        until(lambda: host.run("test", "-S", SOCKET, check=False).status == 0, "no socket")
        error = refusal(host.call("dhcp", "ADD", ipam("dhcp"), container))
        assert error["code"] == 50
        assert error["msg"] == f"what listens at {SOCKET} is not cni-py's DHCP daemon"
        assert error["details"].startswith("the reference plugin's daemon does")


@pytest.mark.skipif(not os.path.exists(REFERENCE), reason="no reference plugins")
def test_in_place_of_the_reference(host: Host, lan: str) -> None:
    """[A.17] The same client identifier, hence the same address, and the same result.

    What its daemon has leased, ours does not know: CHECK says so, DEL succeeds.
    """
    container = wired(host)
    container.run("ip", "link", "set", "eth0", "up")
    config = ipam("dhcp") | {"cniVersion": "1.0.0"}
    with dnsmasq(host, lan):
        with running(background([*host.prefix, REFERENCE, "daemon"])):
            until(lambda: host.run("test", "-S", SOCKET, check=False).status == 0, "no socket")
            host.path = "/usr/lib/cni"
            theirs = host.call("dhcp", "ADD", config, container).json
            host.path = str(BIN)
        with running(start_daemon(host)):
            check = config | {"prevResult": theirs}
            error = refusal(host.call("dhcp", "CHECK", check, container))
            assert error["details"] == "the daemon does not know it"
            assert host.call("dhcp", "DEL", config, container).status == 0
            ours = host.add("dhcp", config, container)
            assert {key: ours[key] for key in ("ips", "routes")} == {
                key: theirs[key] for key in ("ips", "routes")
            }
            host.delete("dhcp", config, container)


def test_foreign_delegate(host: Host, lan: str) -> None:
    """[W-G3] Another executable named dhcp is asked before the interface goes, too."""
    assert lan
    host.run("mkdir", "/run/bin")
    script = (
        "#!/bin/sh\nexec 3>&1 >&2\n"
        "echo $CNI_COMMAND $(nsenter --net=$CNI_NETNS ip -br link show dev eth0 | wc -l) "
        ">> /run/seen\n"
        '[ $CNI_COMMAND = ADD ] && echo \'{"cniVersion": "1.1.0", '
        '"ips": [{"address": "10.9.0.7/24"}]}\' >&3\nexit 0\n'
    )
    host.run("sh", "-c", "cat > /run/bin/dhcp; chmod +x /run/bin/dhcp", stdin=script)
    container = host.container("c1")
    env = {"CNI_PATH": "/run/bin"}
    host.add("bridge", dhcp(), container, env=env)
    host.delete("bridge", dhcp(), container, env=env)
    assert host.run("cat", "/run/seen").stdout.splitlines() == ["ADD 1", "DEL 1"]
