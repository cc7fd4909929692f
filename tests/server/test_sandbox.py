"""The sandbox of conf/systemd/cni-py.service holds what the work needs.

systemd itself is not run: capabilities are taken away by setpriv(1), executable memory that can
be written by prctl(2), and the system calls that are made are compared with those of the unit.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import ROOT
from fixtures.server import Server

from .conftest import until

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.host import Host

UNIT = (ROOT / "conf" / "systemd" / "cni-py.service").read_text().replace("\\\n", " ")
# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (Linux 6.3); an older kernel refuses, and that is all.
NO_EXEC_GAIN = """import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
CHAIN: list[dict[str, Any]] = [
    l3(isGateway=True, ipMasq=True),
    {
        "type": "portmap",
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
    },
    {"type": "firewall", "backend": "iptables"},
    {"type": "bandwidth", "egressRate": 1000000, "egressBurst": 1000000},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400},
]


def setting(name: str) -> list[str]:
    return [
        one for line in re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE) for one in line.split()
    ]


def allowed() -> set[str]:
    """The system calls of the unit's filter, sets resolved by systemd."""
    found: set[str] = set()
    wanted = setting("SystemCallFilter")
    while wanted:
        one = wanted.pop()
        if one.startswith("@"):
            command = ["systemd-analyze", "--no-pager", "syscall-filter", one]
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            wanted += [
                line.strip()
                for line in listed.splitlines()[1:]
                if line[:1] == " " and "#" not in line
            ]
        else:
            found.add(one)
    return found


@pytest.mark.slow
def test_what_the_work_needs(host: Host, tmp_path: Path) -> None:
    kept = ",".join(
        f"+{one.removeprefix('CAP_').lower()}" for one in setting("CapabilityBoundingSet")
    )
    trace = tmp_path / "trace"
    host.stop_serving()
    through = [
        *("strace", "-D", "-f", "-q", "-o", str(trace), "-e", "signal=none"),
        *("setpriv", "--bounding-set", f"-all,{kept}", "--no-new-privs"),
        *(sys.executable, "-c", NO_EXEC_GAIN),
    ]
    server = Server(host.prefix, "--restore-rules", "--idle-workers", "1", through=through)
    host.server = server
    container, result = host.container("c1"), None
    configs = []
    for one in CHAIN:
        config = {"cniVersion": "1.1.0", "name": "net1", **one}
        config |= {"prevResult": result} if result else {}
        result = host.add(one["type"], config, container)
        configs.append(config)
    tap = {"cniVersion": "1.1.0", "name": "net2", "type": "tap"}
    host.add("tap", tap, container, "tap0")
    assert container.reaches("10.1.2.1")
    host.delete("tap", tap, container, "tap0")
    for one in reversed(configs):
        host.delete(one["type"], one | {"prevResult": result}, container)
    host.stop_serving()
    # What traces it ends a moment after it.
    ended = re.compile(rf"^{server.process.pid} +\+\+\+ exited", re.MULTILINE)
    until(lambda: ended.search(trace.read_text(errors="replace")) is not None)
    lines = re.findall(r"^\d+ +(\w+)\((.*)", trace.read_text(errors="replace"), re.MULTILINE)
    assert len(lines) > 1000
    assert {name for name, _ in lines} - allowed() - {"prctl", "execve"} == set()
    families = {text.partition(",")[0] for name, text in lines if name in ("socket", "socketpair")}
    assert families <= set(setting("RestrictAddressFamilies"))
    entered = {
        flag
        for name, text in lines
        if name in ("unshare", "setns")
        for flag in re.findall(r"CLONE_NEW\w+", text)
    }
    assert entered <= {"CLONE_NEWNET"}
    opened = {
        path
        for name, text in lines
        if name == "openat"
        for path in re.findall(r'"(/dev/[^"]*)"', text)
    }
    opened = {one for one in opened if not one.startswith("/dev/shm/")}
    assert opened <= {"/dev/null", "/dev/net/tun", "/dev/urandom"}
