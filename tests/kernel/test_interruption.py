"""A runtime that gives up at any moment: one answer, and all or nothing."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import BIN
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from fixtures.calls import Outcome
    from fixtures.host import Container, Host

# System calls by which a call changes something, or takes or gives back what others wait for.
CALLS = "sendto,flock,setns,link,unlink,utimensat,sendmsg,socket,close"
FULL = l3(isDefaultGateway=True, ipMasq=True, macspoofchk=True, enabledad=False)
# So many moments of a call are tried.
STEPS = 12


def traced(host: Host, container: Container, verb: str, config: Any, *options: str) -> Outcome:
    """Run bridge under strace on the host, without a server."""
    trace = ("strace", "-qq", "-o", "/run/trace", "-e", f"trace={CALLS}")
    env = container.environ(verb) | {"CNI_PY_SOCKET": ""}
    command = (*trace, *options, f"{BIN}/bridge")
    return host.run(*command, stdin=json.dumps(config), env=env, check=False)


def moments(host: Host, container: Container, verb: str, config: Any) -> list[tuple[str, int]]:
    """System calls of a verb from its first message to the kernel on, as (name, which one)."""
    assert traced(host, container, verb, config).status == 0
    lines = host.run("cat", "/run/trace").stdout.splitlines()
    counts: dict[str, int] = {}
    found = []
    begun = False
    for line in lines:
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        name = match[1]
        counts[name] = counts.get(name, 0) + 1
        begun = begun or name == "sendto"
        if begun:
            found.append((name, counts[name]))
    return found


def interrupted(
    host: Host, container: Container, verb: str, config: Any, moment: tuple[str, int]
) -> Outcome:
    name, number = moment
    inject = f"inject={name}:signal={signal.SIGTERM.name}:when={number}"
    return traced(host, container, verb, config, "-e", inject)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_add(host: Host, backend: str) -> None:
    """[W-G5, W-G8] SIGTERM at each change that an ADD makes: attached with a result, or nothing."""
    config = FULL | {"ipMasqBackend": backend}
    container = host.container("c1")
    found = moments(host, container, "ADD", config)
    assert host.call("bridge", "DEL", config, container).status == 0
    host.run("ip", "link", "delete", "cni0")
    outcomes = set()
    for moment in found[:: max(1, len(found) // STEPS)]:
        outcome = interrupted(host, container, "ADD", config, moment)
        outcomes.add(outcome.status)
        if outcome.status == 0:
            assert outcome.json["ips"], moment
            assert host.call("bridge", "DEL", config, container).status == 0
            host.run("ip", "link", "delete", "cni0")
        else:
            assert outcome.status == 1, (moment, outcome)
            expected = (11, "interrupted by SIGTERM")
            assert (outcome.json["code"], outcome.json["msg"]) == expected, moment
        assert leaks(host) == [], moment
        assert host.link("cni0") is None, moment
    assert outcomes == {0, 1}


@pytest.mark.slow
def test_delete(host: Host) -> None:
    """SIGTERM during a DEL: it says so, and the next one does the rest."""
    container = host.container("c1")
    assert host.call("bridge", "ADD", FULL, container).status == 0
    found = moments(host, container, "DEL", FULL)
    outcomes = set()
    for moment in found[:: max(1, len(found) // STEPS)]:
        assert host.call("bridge", "ADD", FULL, container).status == 0
        outcome = interrupted(host, container, "DEL", FULL, moment)
        outcomes.add(outcome.status)
        if outcome.status != 0:
            assert outcome.json["code"] == 11, (moment, outcome)
            assert host.call("bridge", "DEL", FULL, container).status == 0
        assert leaks(host) == [], moment
    assert outcomes == {0, 1}


@pytest.mark.slow
def test_killed_while_it_creates(host: Host) -> None:
    """SIGKILL at messages to the kernel: the next GC, or the next DEL, finds what is there."""
    container = host.container("c1")
    found = [one for one in moments(host, container, "ADD", FULL) if one[0] == "sendto"]
    gc = FULL | {"cni.dev/valid-attachments": []}
    assert host.call("bridge", "DEL", FULL, container).status == 0
    for index, (name, number) in enumerate(found[:: max(1, len(found) // STEPS)]):
        inject = f"inject={name}:signal=SIGKILL:when={number}"
        # The second one finds the rules in place, and has less to do.
        assert traced(host, container, "ADD", FULL, "-e", inject).status in (-signal.SIGKILL, 0)
        if index % 2:
            assert host.call("bridge", "DEL", FULL, container).status == 0
        else:
            assert host.call("bridge", "GC", gc).status == 0
        host.run("sh", "-c", "rm -f /run/cni-py/attachments/*")
        assert [one for one in leaks(host) if "cni0" not in one] == [], (name, number)
        assert host.ports() == [], (name, number)


def test_foreign_delegate_that_ignores_the_signal(host: Host) -> None:
    """The executable is ended, by force in the end, and what it began is asked to be undone."""
    host.run("mkdir", "/run/bin")
    script = (
        "#!/bin/sh\necho $CNI_COMMAND >> /run/verbs\n"
        "[ \"$CNI_COMMAND\" = ADD ] || exit 0\ntrap '' TERM\necho $$ > /run/started\n"
        "while :; do sleep 1; done\n"
    )
    host.run("sh", "-c", "cat > /run/bin/deaf; chmod +x /run/bin/deaf", stdin=script)
    container = host.container("c1")
    env = container.environ("ADD", path="/run/bin") | {"CNI_PY_SOCKET": ""}
    run = f"{BIN}/bridge & while ! [ -s /run/started ]; do :; done; kill -TERM $!; wait $!; echo $?"
    config = json.dumps(l3(ipam={"type": "deaf"}))
    host.run("sh", "-c", "cat > /run/config", stdin=config)
    run = run.replace("bridge &", "bridge < /run/config > /run/out &")
    assert host.run("sh", "-c", run, env=env).stdout == "1\n"
    assert json.loads(host.run("cat", "/run/out").stdout)["msg"] == "interrupted by SIGTERM"
    assert host.run("cat", "/run/verbs").stdout.split() == ["ADD", "DEL"]
    pid = host.run("cat", "/run/started").stdout.strip()
    assert not Path(f"/proc/{pid}").exists()
    assert leaks(host) == []
