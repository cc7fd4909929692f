"""Agents as processes on several hosts, with a real etcd and real packets."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fixtures.agents import Cluster
from fixtures.underlay import Stream, eventually, reaches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.underlay import Underlay

pytestmark = [pytest.mark.slow]


@pytest.fixture
def cluster(underlay: Underlay) -> Iterator[Cluster]:
    with closing(Cluster.start(underlay)) as cluster:
        yield cluster


def cross(cluster: Cluster, one: int, other: int) -> None:
    members = cluster.underlay.members
    for version in (4, 6):
        assert reaches(members[one], members[other], version), (one, other, version, cluster.told())


def test_containers_reach_one_another(cluster: Cluster) -> None:
    cluster.containers()
    cluster.join()
    cluster.settle()
    for one, other in ((1, 2), (1, 3), (3, 2)):
        cross(cluster, one, other)
    assert cluster.etcd.keys() == sorted(
        ["config", *(f"subnets/10.244.{n}.0-24&fd00:244:0:{n}::-64" for n in (1, 2, 3))]
    )
    value = cluster.etcd.value("subnets/10.244.1.0-24&fd00:244:0:1::-64")
    assert (value["PublicIP"], value["PublicIPv6"]) == ("192.168.1.1", "fd00:1:0:1::1")
    assert value["BackendType"] == "vxlan"
    assert value["BackendData"]["VNI"] == 1
    told = cluster.agents[1].file()
    assert told is not None
    assert (told.ipv4_network, told.ipv4_subnet) == ("10.244.0.0/16", "10.244.1.0/24")
    assert (told.mtu, told.lease, told.code) == (1430, "held", 0)
    assert cluster.agents[1].problem() == 0

    # Stopped and started, or killed: nobody notices, and the subnet is the same.
    members = cluster.underlay.members
    with Stream(members[1], members[2]) as stream:
        cluster.agents[1].restart()
        assert cluster.agents[1].has_told("subnet", 2)
        cluster.agents[1].restart(signal.SIGKILL)
        assert cluster.agents[1].has_told("subnet", 3)
        cluster.settle()
    assert stream.lost == []
    assert [one["subnets"] for one in cluster.agents[1].events("subnet")] == [
        "10.244.1.0/24 and fd00:244:0:1::/64"
    ] * 3

    # Given back: the others forget it, and nothing is left on the host.
    cluster.agents[3].ask("/release", "POST")
    assert cluster.agents[3].process.wait(20) == 0
    assert cluster.agents[3].file() is None
    assert cluster.underlay.members[3].host.link("flannel.1") is None
    assert eventually(lambda: cluster.agents[1].peers() == ["10.244.2.0/24 and fd00:244:0:2::/64"])
