"""ipip: the contract, and real packets between hosts."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from cluster.backend_battery import BackendBattery
from cluster.kernel_lab import KernelLab
from cluster.nodes import Nodes
from cni_py.cluster.ipip import IpipBackend, IpipSettings
from cni_py.cluster.underlay import Chosen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Host
    from fixtures.underlay import Underlay

BOTH = frozenset({4, 6})
vm = pytest.mark.vm


def ipip(**keys: Any) -> IpipBackend:
    return IpipBackend(IpipSettings(**keys), Chosen(), BOTH)


@pytest.fixture
def lab(host: Host) -> Iterator[KernelLab]:
    with closing(KernelLab(host, ipip)) as lab:
        yield lab


@vm
class TestIpip(BackendBattery):
    pass


@vm
@pytest.mark.parametrize("direct", [False, True])
def test_containers_reach_one_another(underlay: Underlay, *, direct: bool) -> None:
    with closing(Nodes(underlay, lambda: ipip(directrouting=direct), 1460)) as nodes:
        nodes.reconcile()
        nodes.cross(1, 2)
        nodes.cross(1, 3)
        routes = {one["dst"]: one["dev"] for one in underlay.members[1].host.ip("route")}
        assert routes["10.244.2.0/24"] == ("eth0" if direct else "flannel.ipip")
        assert routes["10.244.3.0/24"] == "flannel.ipip"


@vm
def test_another_address_makes_the_device_anew(underlay: Underlay) -> None:
    with closing(Nodes(underlay, ipip, 1460)) as nodes:
        nodes.reconcile()
        lines = """addr del 192.168.1.1/24 dev eth0
addr add 192.168.1.11/24 dev eth0
route add default via 192.168.1.254
"""
        nodes.underlay.members[1].host.run("ip", "-batch", "-", stdin=lines)
        nodes.start(ipip, 1)
        nodes.reconcile()
        nodes.cross(1, 3)


def test_a_kernel_without_it_says_so(lab: KernelLab) -> None:
    report = lab.backend().reconcile(lab.view(lab.peer(1)))
    text = "this kernel has no devices of the kind ipip"
    messages = [one.msg for one in report.failed]
    assert messages == [] or text in messages
    # Not one for each peer.
    assert len(messages) <= 4
    lab.backend().tear_down()
