"""The server's own life: stop, reload, sockets, what it counts and logs, what it keeps."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, Host
from fixtures.server import Server

from .conftest import SLOW_CONFIG, Held, start, until


def flood(host: Host, during: object, rounds: int = 3, width: int = 6) -> list[dict[str, object]]:
    """ADDs and DELs in waves, `during` called in the middle of each; asserts that none fails."""
    assert host.server is not None
    for number in range(rounds):
        containers = [host.container(f"f{number}x{index}") for index in range(width)]
        for verb in ("ADD", "DEL"):
            calls = [start(host, verb, l3(), one) for one in containers]
            during()
            for call in calls:
                output, errors = call.communicate(timeout=60)
                assert call.returncode == 0, (verb, output, errors)
    return host.server.lines


@pytest.mark.parametrize("times", [1, 3])
def test_reload_loses_no_call(served: Host, server: Server, times: int) -> None:
    """SIGHUP executes the program anew; the socket outlives that."""

    def reload() -> None:
        for _ in range(times):
            seen = len(server.lines)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(lambda line: line["event"] == "listening", seen)

    flood(served, reload)
    assert server.process.poll() is None


def test_reload_while_a_call_hangs(served: Host, server: Server, held: Held) -> None:
    """The others do not wait for it, it ends as if nothing had been, and leaves no zombie."""
    worker = held.worker()
    seen = len(server.lines)
    server.process.send_signal(signal.SIGHUP)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda line: line["event"] == "listening", seen)
    container = served.container("c1")
    served.add("bridge", l3(), container)
    server.wait_for(lambda line: line.get("container") == container.id, seen)
    served.run("touch", "/run/go")
    status, result = held.outcome()
    assert (status, result["ips"][0]["address"]) == (0, "10.1.2.99/24")
    served.delete("bridge", SLOW_CONFIG, held.container, env={"CNI_PATH": f"{BIN}:/run/slow"})

    until(lambda: worker not in server.workers())


def test_stop_loses_no_call(served: Host) -> None:
    """SIGTERM: what has begun ends, what has not is done without the server."""

    def restart() -> None:
        assert served.server is not None
        served.server.process.terminate()
        assert served.server.process.wait(30) == 0
        served.serve()

    flood(served, restart, rounds=2)


def test_stop_removes_the_sockets(served: Host, server: Server) -> None:
    served.stop_serving()
    assert server.process.returncode == 0
    assert served.run("find", "/run/cni-py", "-type", "s").stdout == ""


def test_sockets_of_systemd(served: Host) -> None:
    """LISTEN_FDS: the sockets are systemd's, and stay when the server ends (sd_listen_fds(3))."""
    served.stop_serving()
    activate = (
        "import os, socket, sys\n"
        "os.makedirs('/run/cni-py', exist_ok=True)\n"
        "kinds = {'cni': socket.SOCK_SEQPACKET, 'metrics': socket.SOCK_STREAM}\n"
        "listening = []\n"
        "for name, kind in kinds.items():\n"
        "    one = socket.socket(socket.AF_UNIX, kind)\n"
        "    one.bind(f'/run/cni-py/{name}.sock')\n"
        "    one.listen()\n"
        "    listening.append(os.dup(one.fileno()))\n"
        "high = [os.dup2(fd, 50 + index) for index, fd in enumerate(listening)]\n"
        "for index, fd in enumerate(high):\n"
        "    os.dup2(fd, 3 + index)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    server = Server(served.prefix, through=[sys.executable, "-c", activate])
    served.server = server
    container = served.container("c1")
    served.add("bridge", l3(), container)
    server.wait_for(lambda line: line.get("container") == container.id)
    seen = len(server.lines)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda line: line["event"] == "listening", seen)
    served.delete("bridge", l3(), container)
    assert server.metric("cni_py_calls_total") == 1
    served.stop_serving()
    sockets = served.run("find", "/run/cni-py", "-type", "s", "-printf", "%f ").stdout.split()
    assert sorted(sockets) == ["cni.sock", "metrics.sock"]


def test_counts(served: Host, server: Server) -> None:
    """Prometheus' text: calls by plugin, verb and code, and a histogram in milliseconds."""
    container = served.container("c1")
    served.add("bridge", l3(), container)
    served.call("bridge", "ADD", "{}", container)
    served.delete("bridge", l3(), container)
    server.wait_for(lambda line: line.get("verb") == "DEL")
    text = server.metrics()
    assert 'cni_py_calls_total{plugin="bridge",verb="ADD",code=""} 1' in text
    assert 'cni_py_calls_total{plugin="bridge",verb="ADD",code="7"} 1' in text
    assert 'cni_py_call_milliseconds_count{plugin="bridge",verb="ADD"} 2' in text
    assert 'cni_py_call_milliseconds_bucket{plugin="bridge",verb="DEL",le="+Inf"} 1' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .*|\w+(\{[^}]*\})? [0-9.]+", line), line


def test_logs_a_line_a_call(served: Host, server: Server) -> None:
    """Container, network, verb, milliseconds, code, and the caller's trace."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    container = served.container("c1", "pod-17")
    served.add("bridge", l3(), container, env={"TRACEPARENT": trace})
    line = server.wait_for(lambda line: line.get("container") == "pod-17")
    assert (line["event"], line["plugin"], line["verb"]) == ("call", "bridge", "ADD")
    assert line["network"] == "net1"
    assert line["traceparent"] == trace
    assert line["milliseconds"] > 0
    assert {"ipam", "veth"} <= set(line["steps"])
    served.call("bridge", "DEL", "{", container)
    refused = server.wait_for(lambda line: line.get("code") == 6)
    assert refused["verb"] == "DEL"


def test_workers_have_nothing_of_one_another(served: Host, server: Server) -> None:
    """A waiting worker has its streams, its channel, and its library's socket: nothing else."""
    served.add("bridge", l3(), served.container("c1"))
    until(lambda: len(server.workers()) == 4)
    for pid in server.workers():
        until(lambda pid=pid: "rehearsal" not in open_files(pid))
        sockets = [one for one in open_files(pid).split() if one.startswith("socket:")]
        assert len(sockets) <= 3, open_files(pid)


def test_workers_of_a_burst_go_again(served: Host, server: Server) -> None:
    """Calls that wait get more workers; when the burst is over the usual four stay."""
    containers = [served.container(f"c{index}") for index in range(16)]
    for verb in ("ADD", "DEL"):
        calls = [start(served, verb, l3(), one) for one in containers]
        for call in calls:
            output, _ = call.communicate(timeout=60)
            assert call.returncode == 0, output
        if verb == "DEL":
            assert server.metric("cni_py_workers_idle") > 4
    until(lambda: len(server.workers()) == 4)


def open_files(pid: int) -> str:
    folder = Path(f"/proc/{pid}/fd")
    return " ".join(os.readlink(folder / name) for name in os.listdir(folder))


@pytest.mark.slow
def test_memory_does_not_grow(served: Host, server: Server) -> None:
    """After the first thousand calls, three thousand more add nothing."""
    client = (
        "import os, subprocess, sys\n"
        "env = {'CNI_COMMAND': 'VERSION'}\n"
        "for _ in range(int(sys.argv[1])):\n"
        f"    subprocess.run(['{BIN}/bridge'], env=env, stdout=subprocess.DEVNULL, check=True)\n"
    )

    def calls(number: int) -> int:
        """Serve calls; the server's resident memory afterwards, in KiB."""
        served.run(sys.executable, "-I", "-c", client, str(number))
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    before = calls(1000)
    assert calls(3000) - before < 128
    assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < 40


def test_acts_where_the_caller_stands(served: Host) -> None:
    """A call from another namespace than the server's works in that namespace."""
    elsewhere = served.container("elsewhere")
    container = served.container("c1")
    env = container.environ("ADD")
    elsewhere.run(f"{BIN}/bridge", stdin=json.dumps(l3(ipMasq=True)), env=env)
    assert served.link("cni0") is None
    assert elsewhere.link("cni0")["ifname"] == "cni0"
    assert "10.1.2.2" in elsewhere.run("nft", "list", "ruleset").stdout
    elsewhere.run(
        f"{BIN}/bridge", stdin=json.dumps(l3(ipMasq=True)), env=env | {"CNI_COMMAND": "DEL"}
    )
    assert "10.1.2.2" not in elsewhere.run("nft", "list", "ruleset").stdout


def test_relative_paths_are_the_callers(served: Host) -> None:
    """The call has the caller's working directory."""
    script = '#!/bin/sh\npwd >&2\necho \'{"ips":[{"address":"10.1.2.98/24"}]}\'\n'
    served.run("sh", "-c", "cat > /run/slow/where; chmod +x /run/slow/where", stdin=script)
    container = served.container("c1")
    config = l3(ipam={"type": "where"})
    env = container.environ("ADD", path="/run/slow")
    command = f"cd /run/slow && {BIN}/bridge"
    outcome = served.run("sh", "-c", command, stdin=json.dumps(config), env=env)
    assert outcome.stderr == "/run/slow\n"
    served.run(f"{BIN}/bridge", stdin=json.dumps(config), env=env | {"CNI_COMMAND": "DEL"})
