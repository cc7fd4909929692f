"""The sandbox of conf/systemd/cni-py.service holds what the work needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.sandbox import Sandbox
from fixtures.server import Server

from .conftest import until

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.host import Host

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


@pytest.mark.slow
def test_what_the_work_needs(host: Host, tmp_path: Path) -> None:
    sandbox = Sandbox("cni-py.service", tmp_path / "trace")
    host.stop_serving()
    through = list(sandbox.through)
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
    until(lambda: sandbox.has_ended(server.process.pid))
    entered = {
        flag
        for name, text in sandbox.calls()
        if name in ("unshare", "setns")
        for flag in re.findall(r"CLONE_NEW\w+", text)
    }
    assert entered <= {"CLONE_NEWNET"}
