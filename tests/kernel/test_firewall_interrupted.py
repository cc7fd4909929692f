"""firewall ended at any moment: all or nothing, and DEL removes what a kill has left."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.firewalls import attach, elements, firewall, network
from fixtures.host import BIN, Host
from fixtures.leaks import leaks

BACKENDS = ["nftables", "iptables"]
# What changes something, or starts what does.
CALLS = "sendto,sendmsg,flock,rename,mkdir,unlink,rmdir,close,vfork,clone3"
STEPS = 6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_signals(host: Host, backend: str, number: signal.Signals, verb: str) -> None:
    host.stop_serving()
    container = host.container("c1")
    result = host.add("bridge", network(), container)
    config = firewall(backend, ingressPolicy="isolated") | {"prevResult": result}
    env = container.environ(verb) | {"CNI_PY_SOCKET": ""}
    stdin = json.dumps(config)
    trace = ["strace", "-qq", "-o", "/run/trace", "-e", f"trace={CALLS}"]
    if verb == "DEL":
        host.add("firewall", config, container)
    host.run(*trace, f"{BIN}/firewall", stdin=stdin, env=env)
    names = [
        match[1]
        for line in host.run("cat", "/run/trace").stdout.splitlines()
        if (match := re.match(r"(\w+)\(", line))
    ]
    moments = [(name, names[: index + 1].count(name)) for index, name in enumerate(names)]
    # Python's own start is not of interest.
    moments = moments[len(moments) // 2 :]
    for name, which in moments[:: max(1, len(moments) // STEPS)]:
        host.call("firewall", "ADD" if verb == "DEL" else "DEL", config, container)
        inject = f"inject={name}:signal={number.name}:when={which}"
        done = host.run(*trace, "-e", inject, f"{BIN}/firewall", stdin=stdin, env=env, check=False)
        if verb == "ADD" and done.status > 0 and number is signal.SIGTERM:
            assert left(host) == [], (name, which)
        host.delete("firewall", config, container)
        assert left(host) == [], (name, which)


def left(host: Host) -> list[str]:
    """What of the container's is left besides its interface."""
    found = [one for one in leaks(host) if "record /run/cni-py/firewall" in one or "lock" in one]
    found += map(str, elements(host, "forward4") + elements(host, "isolation_pairs"))
    for version in (4, 6):
        lines = host.iptables("filter", version)
        found += [one for one in lines if "::2" in one or "10.1." in one or "br-net1" in one]
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_at_once(host: Host, backend: str) -> None:
    """Adds and deletes of two bridges at the same time: each has its rules, then none has."""
    containers = [host.container(f"c{number}") for number in range(8)]
    configs = []
    for index, container in enumerate(containers):
        name = ("net1", "net2")[index % 2]
        result = host.add("bridge", network(name), container)
        policy = ("isolated", "same-bridge")[index % 4 // 2]
        configs.append(firewall(backend, name, ingressPolicy=policy) | {"prevResult": result})
    with ThreadPoolExecutor(8) as pool:
        for verb in ("ADD", "CHECK", "DEL"):
            calls = [
                pool.submit(host.call, "firewall", verb, config, container)
                for config, container in zip(configs, containers, strict=True)
            ]
            for call in calls:
                assert call.result().status == 0, (verb, call.result())
    assert left(host) == []


def test_restoring_while_containers_come_and_go(host: Host) -> None:
    """Records and rules change together, so a restore brings nothing back that has gone."""
    from fixtures.server import CNI_PY

    container = host.container("c1")
    config = attach(host, container, "nftables")
    with ThreadPoolExecutor(2) as pool:
        restores = pool.submit(
            lambda: [host.run(CNI_PY, "firewall", "restore").status for _ in range(8)]
        )
        while not restores.done():
            host.delete("firewall", config, container)
            assert elements(host, "forward4") == []
            host.add("firewall", config, container)
            assert len(elements(host, "forward4")) == 1
        assert restores.result() == [0] * 8
