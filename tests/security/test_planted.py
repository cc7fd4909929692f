"""What stands at a state file's place and is none: what it leads to stays, and no call hangs.

The folders are root's alone (`test_own_folders`); this is the second fence, for a folder that was
given another mode by hand, or a `dataDir` where others can write.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import host_local, l3
from fixtures.host import BIN
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from fixtures.host import Container, Host

OUTSIDE = "/run/outside"
DATA = "/run/data"
_SECONDS = 10

KINDS = {
    "link": f"ln -s {OUTSIDE}/precious {{0}}",
    "link to nothing": f"ln -s {OUTSIDE}/made {{0}}",
    "link as of a record": f"ln -s ../..{OUTSIDE[4:]}/folder/record {{0}}",
    "link to a folder": f"ln -s {OUTSIDE}/folder {{0}}",
    "hard link": f"ln {OUTSIDE}/precious {{0}}",
    "another user's": "echo x > {0}; chown 65534 {0}; chmod 0666 {0}",
    "fifo": "mkfifo {0}",
    "folder": "mkdir {0}; echo full > {0}/full",
}
CHAINS: dict[str, tuple[dict[str, Any], ...]] = {
    "nftables": (
        l3(ipMasq=True, ipam=host_local(dataDir=DATA)),
        {
            "type": "portmap",
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
        },
        {"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400},
        {"type": "sbr"},
    ),
    "iptables": (
        l3(ipMasq=True, ipMasqBackend="iptables", ipam=host_local(dataDir=DATA)),
        {
            "type": "portmap",
            "backend": "iptables",
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
        },
        {"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"},
    ),
}


def call(host: Host, verb: str, config: Any, container: Container) -> tuple[int, dict[str, Any]]:
    """One call, which must end and answer as the protocol says."""
    environ = container.environ(verb)
    if host.server is None:
        environ["CNI_PY_SOCKET"] = ""
    done = subprocess.run(
        [*host.prefix, str(BIN / config["type"])],
        input=json.dumps(config).encode(),
        capture_output=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environ},
        timeout=_SECONDS,
        check=False,
    )
    assert b"Traceback" not in done.stdout + done.stderr, done
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def attach(host: Host, chain: str, container: Container) -> list[dict[str, Any]]:
    """Run the chain as far as it goes; the configurations to DEL with, and the error if any."""
    ran: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for one in CHAINS[chain]:
        config = {"cniVersion": "1.1.0", "name": "net1", **one}
        ran.append(config | ({"prevResult": result} if result else {}))
        status, answer = call(host, "ADD", ran[-1], container)
        if status != 0:
            assert answer["code"] not in (0, 100), answer
            break
        result = answer
    return ran


def detach(host: Host, ran: list[dict[str, Any]], container: Container) -> None:
    for config in reversed(ran):
        call(host, "DEL", config, container)


def places(host: Host, chain: str, container: Container) -> list[str]:
    """The paths that an attachment's state has, or has for a moment: not its folders."""
    lock = "/run/cni-py/attachments/{}"
    before = _files(host)
    ran = attach(host, chain, container)
    made = sorted(_files(host) - before)
    detach(host, ran, container)
    keys = {one.rsplit("/", 1)[1].split(".")[0] for one in made if "/portmap/" in one}
    key = next(one for one in keys if len(one) == 33)
    locks = [lock.format(f"{config['type']}-{key}") for config in ran]
    unfinished = [f"{one}.new" for one in made] + [f"{DATA}/.cni-py/net1/new"]
    return [*made, *unfinished, *locks]


def _files(host: Host) -> set[str]:
    command = ("find", "/run/cni-py", "/run/cni", "/var/lib/cni", DATA, "!", "-type", "d")
    return set(host.run(*command, check=False).stdout.split("\n")) - {""}


def outside(host: Host) -> str:
    """All that there is where planted links lead."""
    listed = host.run("find", OUTSIDE, "-printf", "%p %y %m %s %U\n").stdout
    return listed + host.run("cat", f"{OUTSIDE}/precious", f"{OUTSIDE}/folder/precious").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chain", "kind"),
    [("nftables", kind) for kind in KINDS]
    # Its files are read and written by the same functions.
    + [("iptables", kind) for kind in ("link", "hard link", "fifo")],
)
def test_planted(host: Host, chain: str, kind: str) -> None:
    """At every path in turn: the calls may be refused, and once it is gone all is as ever.

    Each kind stands at every other path, so that each path meets half of the kinds.
    """
    host.serve("--idle-workers", "1")
    host.run("mkdir", "-p", f"{OUTSIDE}/folder", DATA)
    for name in ("precious", "folder/precious", "folder/record.json"):
        path = f"{OUTSIDE}/{name}"
        host.run("tee", path, stdin="precious\n")
        host.run("chmod", "0640", path)
    container = host.container()
    untouched = outside(host)
    wrong = []
    for place in places(host, chain, container)[list(KINDS).index(kind) % 2 :: 2]:
        folder = place.rsplit("/", 1)[0]
        plant = KINDS[kind].format(shlex.quote(place))
        host.run("sh", "-c", f"mkdir -p {folder}; rm -rf {shlex.quote(place)}; {plant}")
        try:
            detach(host, attach(host, chain, container), container)
        except subprocess.TimeoutExpired as error:
            wrong.append(f"{place}: {error.cmd[-1]} does not end")
        if outside(host) != untouched:
            wrong.append(f"{place}: {outside(host)}")
            host.run("sh", "-c", f"rm -f {OUTSIDE}/made; chmod 0640 {OUTSIDE}/precious")
            host.run("tee", f"{OUTSIDE}/precious", stdin="precious\n")
        host.run("sh", "-c", f"rm -rf {shlex.quote(place)} /run/cni-py/*/damaged")
        detach(host, attach(host, chain, container), container)
    assert wrong == []
    assert leaks(host) == []
