"""aws-vpc: the contract, with moto's EC2, and what a VPC has that a kernel has not."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from cluster.backend_battery import BackendBattery, own_subnets, reconciled, steps
from cluster.kernel_lab import KernelLab
from cni_py.cluster import backends
from cni_py.cluster.aws_routes import Mark, parse_mark
from cni_py.cluster.aws_vpc import AwsVpcBackend, AwsVpcSettings
from cni_py.cluster.backend import View
from cni_py.cluster.underlay import Chosen
from cni_py.spec.errors import CniError
from fixtures.ec2 import Cloud, Moto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Host

BOTH = frozenset({4, 6})
OWN, OWN6 = "10.244.0.0/24", "fd00:244::/64"
NETWORKS = "10.244.0.0/16 fd00:244::/48"


class AwsLab(KernelLab):
    """An instance with an `eth0` that the VPC knows."""

    # Each node makes its own route.
    peers_matter = False

    def __init__(self, host: Host, cloud: Cloud) -> None:
        super().__init__(host, self.aws)
        self.cloud = cloud
        self.settings = AwsVpcSettings()
        self.grace = 0.0
        host.run("ip", "link", "set", "eth0", "address", cloud.mac)

    def aws(self) -> AwsVpcBackend:
        return AwsVpcBackend(self.settings, Chosen(), BOTH, self.grace)

    def world(self) -> Any:
        return super().world(), self.cloud.routes(), self.cloud.own()

    def furnish(self) -> None:
        super().furnish()
        theirs, _ = self.cloud.add_interface()
        other, _ = self.cloud.add_interface("10.99.0.0/16")
        for destination, target in (
            ("10.244.9.0/24", theirs),
            ("10.244.8.0/24", other),
            ("10.99.1.0/24", other),
            ("172.30.0.0/16", self.cloud.interface),
            ("fd00:244:0:9::/64", theirs),
        ):
            self.cloud.add_route(destination, target)

    def disturb(self, number: int) -> None:
        del number
        self.cloud.delete_route(OWN)
        self.cloud.client.modify_network_interface_attribute(
            NetworkInterfaceId=self.cloud.interface, SourceDestCheck={"Value": True}
        )


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    with closing(Moto()) as moto:
        yield moto


@pytest.fixture
def cloud(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with closing(Cloud(moto)) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture
def lab(quiet_host: Host, cloud: Cloud) -> Iterator[AwsLab]:
    with closing(AwsLab(quiet_host, cloud)) as lab:
        yield lab


class TestAwsVpc(BackendBattery):
    @pytest.fixture
    def lab(self, host: Host, cloud: Cloud) -> Iterator[AwsLab]:
        with closing(AwsLab(host, cloud)) as lab:
            yield lab


def test_a_node_makes_its_own_routes_and_is_as_before_in_the_end(lab: AwsLab) -> None:
    before = lab.cloud.own()
    reconciled(lab, lab.view(lab.peer(1)))
    routes = lab.cloud.routes()
    assert {routes[OWN], routes[OWN6]} == {lab.cloud.interface}
    assert "10.244.1.0/24" not in routes
    assert lab.cloud.own() == (False, {"cni-py:overlay": f"{NETWORKS} source-dest-check"})
    assert not lab.backend().tear_down().failed
    assert lab.cloud.own() == before


def test_a_check_that_was_off_stays_off(lab: AwsLab) -> None:
    lab.cloud.client.modify_network_interface_attribute(
        NetworkInterfaceId=lab.cloud.interface, SourceDestCheck={"Value": False}
    )
    reconciled(lab, lab.view())
    assert not lab.backend().tear_down().failed
    assert lab.cloud.own() == (False, {})


def test_each_configured_table_gets_the_routes(lab: AwsLab) -> None:
    first, second = lab.cloud.add_table(), lab.cloud.add_table()
    lab.settings = AwsVpcSettings((first, second))
    reconciled(lab, lab.view())
    for table in (first, second):
        assert lab.cloud.routes(table)[OWN] == lab.cloud.interface
    assert OWN not in lab.cloud.routes()


def test_the_own_subnets_table_comes_before_the_main_one(lab: AwsLab) -> None:
    table = lab.cloud.add_table()
    lab.cloud.client.associate_route_table(RouteTableId=table, SubnetId=lab.cloud.subnet)
    reconciled(lab, lab.view())
    assert lab.cloud.routes(table)[OWN] == lab.cloud.interface
    assert OWN not in lab.cloud.routes()


def test_a_wrong_route_of_ours_is_replaced(lab: AwsLab) -> None:
    other, _ = lab.cloud.add_interface(NETWORKS)
    lab.cloud.add_route(OWN, other)
    assert f"replace the route to {OWN} in {lab.cloud.table}" in steps(lab.backend(), lab.view())
    reconciled(lab, lab.view())
    assert lab.cloud.routes()[OWN] == lab.cloud.interface


def test_a_blackhole_is_replaced(lab: AwsLab) -> None:
    gone, _ = lab.cloud.add_interface()
    lab.cloud.add_route(OWN, gone)
    lab.cloud.delete_interface(gone)
    reconciled(lab, lab.view())
    assert lab.cloud.routes()[OWN] == lab.cloud.interface


def test_a_route_of_others_in_the_way_is_told_and_left(lab: AwsLab) -> None:
    theirs, _ = lab.cloud.add_interface()
    lab.cloud.add_route(OWN, theirs)
    view = lab.view()
    with pytest.raises(CniError, match=f"somebody else has a route to {OWN}") as caught:
        lab.backend().reconcile(view)
    assert caught.value.code == 50
    assert theirs in caught.value.details
    assert lab.cloud.routes()[OWN] == theirs


def test_routes_of_nodes_that_are_gone_go_and_those_of_others_stay(lab: AwsLab) -> None:
    left, _ = lab.cloud.add_interface(NETWORKS)
    gone, _ = lab.cloud.add_interface()
    stopped, _ = lab.cloud.add_interface()
    foreign, _ = lab.cloud.add_interface()
    there = {
        "10.244.1.0/24": left,
        "10.244.2.0/24": left,
        "fd00:244:0:2::/64": left,
        "10.244.3.0/24": gone,
        "10.245.3.0/24": gone,
        "10.244.4.0/24": foreign,
        "10.245.2.0/24": left,
        "10.244.5.0/24": stopped,
    }
    for destination, target in there.items():
        lab.cloud.add_route(destination, target)
    lab.cloud.delete_interface(gone)
    # A blackhole, but its interface is there.
    lab.cloud.dark.add(stopped)
    reconciled(lab, lab.view(lab.peer(1)))
    routes = lab.cloud.routes()
    stale = {"10.244.2.0/24", "fd00:244:0:2::/64", "10.244.3.0/24"}
    assert {one for one in there if one not in routes} == stale


def test_what_may_be_a_new_nodes_is_left_for_a_while(lab: AwsLab) -> None:
    other, _ = lab.cloud.add_interface(NETWORKS)
    lab.cloud.add_route("10.244.2.0/24", other)
    lab.grace = 3600.0
    reconciled(lab, lab.view())
    assert "10.244.2.0/24" in lab.cloud.routes()


def test_a_subnet_that_the_node_had_before_goes(lab: AwsLab) -> None:
    reconciled(lab, lab.view())
    view = lab.view()
    reconciled(lab, replace(view, own=replace(view.own, subnet=own_subnets(7)[0])))
    routes = lab.cloud.routes()
    assert OWN not in routes
    assert routes["10.244.7.0/24"] == lab.cloud.interface


def test_another_network_leaves_nothing_of_the_former_one(lab: AwsLab) -> None:
    view = lab.view()
    reconciled(lab, view)
    subnet, network = ip_network("10.9.1.0/24"), ip_network("10.9.0.0/16")
    other = View(replace(view.own, subnet=subnet), (), network, view.network6)
    reconciled(lab, other)
    routes = lab.cloud.routes()
    assert OWN not in routes
    assert routes["10.9.1.0/24"] == lab.cloud.interface
    assert parse_mark(lab.cloud.own()[1]["cni-py:overlay"]).networks == {network, view.network6}
    assert steps(lab.backend(), other) == []


def test_throttling_is_sat_out(lab: AwsLab) -> None:
    lab.cloud.refused = {"CreateRoute": [(503, "RequestLimitExceeded")] * 2}
    reconciled(lab, lab.view())
    assert lab.cloud.seen.count("CreateRoute") == 4


def test_throttling_without_end_is_told_as_passing(lab: AwsLab) -> None:
    view = lab.view()
    lab.cloud.refused = {"DescribeNetworkInterfaces": [(503, "RequestLimitExceeded")] * 4}
    with pytest.raises(CniError, match="too busy") as caught:
        lab.backend().plan(view)
    assert caught.value.code == 11


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RouteLimitExceeded", "table (50 unless told)"),
        ("UnauthorizedOperation", "AWS does not let this node create route 10.244.0.0/24"),
    ],
)
def test_what_somebody_has_to_change_is_told(lab: AwsLab, code: str, message: str) -> None:
    view = lab.view()
    lab.cloud.refused = {"CreateRoute": [(400, code)]}
    backend = lab.backend()
    failed = backend.reconcile(view).failed
    assert [one.code for one in failed] == [50]
    assert message in str(failed[0])
    # The other route was not kept from being made.
    assert OWN6 in lab.cloud.routes()


def test_a_table_of_another_vpc_is_refused(lab: AwsLab, moto: Moto) -> None:
    with closing(Cloud(moto)) as other:
        lab.settings = AwsVpcSettings(other.table)
        with pytest.raises(CniError, match="is not in this node's VPC"):
            lab.backend().plan(lab.view())


def test_an_interface_that_the_vpc_does_not_know(lab: AwsLab) -> None:
    lab.host.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    with pytest.raises(CniError, match="no network interface with the MAC address") as caught:
        lab.backend().plan(lab.view())
    assert caught.value.code == 50


def test_metadata_is_asked_again_and_then_missed(lab: AwsLab) -> None:
    lab.cloud.no_metadata = 2
    assert lab.backend().plan(lab.view()).steps
    lab.cloud.no_metadata = 3
    with pytest.raises(CniError, match="cannot be asked: status 503"):
        lab.backend().plan(lab.view())


def test_what_a_kernel_backend_has_left_goes(lab: AwsLab) -> None:
    lab.host.run("ip", "route", "add", "10.244.5.0/24", "via", "192.168.1.5", "proto", "67")
    reconciled(lab, lab.view())
    assert "10.244.5.0/24" not in lab.host.run("ip", "route").stdout


@pytest.mark.parametrize("given", ["rtb-x", ["rtb-01234567", "../"], 7])
def test_a_table_that_cannot_be(given: object) -> None:
    with pytest.raises(CniError, match=r"RouteTableID|routetableid") as caught:
        backends.make({"Type": "aws-vpc", "RouteTableID": given}, Chosen(), BOTH)
    assert caught.value.code == 7


def test_the_tag_is_read_as_it_is_written() -> None:
    mark = Mark(frozenset(map(ip_network, NETWORKS.split())), was_checked=True)
    assert parse_mark(str(mark)) == mark
    assert parse_mark("x 10.244.0.1/16 source") == Mark(frozenset(), was_checked=False)
