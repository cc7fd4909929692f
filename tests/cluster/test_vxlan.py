"""vxlan: the contract, and real packets between hosts."""

from __future__ import annotations

import errno
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cluster.backend_battery import BackendBattery, reconciled, steps
from cluster.kernel_lab import KernelLab
from cluster.nodes import Nodes
from cni_py.cluster.host_gw import HostGatewayBackend
from cni_py.cluster.underlay import Chosen
from cni_py.cluster.vxlan import VxlanBackend, VxlanSettings, device_name
from cni_py.kernel.ethtool import Ethtool
from cni_py.spec.errors import CniError
from fixtures.underlay import Stream, entered, transfers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fixtures.host import Host
    from fixtures.underlay import Underlay

BOTH = frozenset({4, 6})


def vxlan(**keys: Any) -> VxlanBackend:
    return VxlanBackend(VxlanSettings(**keys), Chosen(), BOTH)


def vtep(number: int, version: int) -> Any:
    return {"VNI": 1, "VtepMAC": f"02:00:00:00:0{version}:0{number}"}


class TestVxlan(BackendBattery):
    @pytest.fixture
    def lab(self, host: Host) -> Iterator[KernelLab]:
        with closing(KernelLab(host, vxlan, vtep)) as lab:
            yield lab


@pytest.fixture
def nodes(underlay: Underlay) -> Iterator[Nodes]:
    with closing(Nodes(underlay, vxlan)) as nodes:
        yield nodes


def test_containers_reach_one_another_also_behind_a_router(nodes: Nodes) -> None:
    nodes.reconcile()
    for one, other in ((1, 2), (1, 3)):
        nodes.cross(one, other)
    device = nodes.underlay.members[1].host.link("flannel.1")
    assert device is not None
    assert device["mtu"] == 1450
    data = device["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["learning"]) == (1, 8472, False)
    device6 = nodes.underlay.members[1].host.link("flannel-v6.1")
    assert device6 is not None
    assert device6["mtu"] == 1430


def test_no_packet_is_lost_while_other_peers_come_change_and_go(nodes: Nodes) -> None:
    nodes.reconcile()
    one, two = (nodes.underlay.members[number] for number in (1, 2))
    third = nodes.known.pop(3)
    moved = {**nodes.known, 3: type(third)(nodes.known[2].said, third.subnet, third.subnet6)}
    with Stream(one, two) as stream, Stream(one, two, 6) as stream6:
        for known in ({**nodes.known}, {**nodes.known, 3: third}, moved, {**nodes.known}):
            nodes.known = known
            assert nodes.reconcile(1, 2)[1].done
    assert (stream.lost, stream6.lost) == ([], [])


def test_hosts_on_one_link_need_no_tunnel_where_that_is_asked_for(underlay: Underlay) -> None:
    with closing(Nodes(underlay, lambda: vxlan(directrouting=True))) as nodes:
        nodes.reconcile()
        routes = underlay.members[1].host.ip("route")
        by = {one["dst"]: (one["dev"], one.get("gateway")) for one in routes}
        assert by["10.244.2.0/24"] == ("eth0", "192.168.1.2")
        assert by["10.244.3.0/24"] == ("flannel.1", "10.244.3.0")
        for one, other in ((1, 2), (1, 3)):
            nodes.cross(one, other)


def test_a_node_that_comes_back_puts_right_what_changed_meanwhile(nodes: Nodes) -> None:
    nodes.reconcile()
    host = nodes.underlay.members[1].host
    # While its agent is away, 2 leaves and 3 gets another address.
    nodes.known.pop(2)
    renumbered = nodes.underlay.members[3]
    renumbered.host.run(
        "ip",
        "-batch",
        "-",
        stdin="""addr del 192.168.2.3/24 dev eth0
addr add 192.168.2.33/24 dev eth0
route add default via 192.168.2.254
""",
    )
    nodes.start(vxlan, 1, 3)
    nodes.reconcile(1, 3)
    nodes.cross(1, 3)
    assert [one["dst"] for one in host.ip("route") if one.get("dev") == "flannel.1"] == [
        "10.244.3.0/24"
    ]
    fdb = [one for one in host.bridge("fdb") if one["ifname"] == "flannel.1"]
    assert [one["dst"] for one in fdb] == ["192.168.2.33"]


def test_a_large_vni_is_announced_as_flannel_keeps_it(underlay: Underlay) -> None:
    with closing(Nodes(underlay, lambda: vxlan(vni=70_000))) as nodes:
        assert nodes.known[1].said.data["VNI"] == 70_000 & 0xFFFF
        nodes.reconcile(1, 2)
        link = nodes.underlay.members[1].host.link(device_name(70_000, 4))
        assert link is not None
        data = link["linkinfo"]["info_data"]
        assert data["id"] == 70_000
        nodes.cross(1, 2)


def test_the_mtu_follows_the_underlays(nodes: Nodes) -> None:
    nodes.reconcile()
    one, two = (nodes.underlay.members[number] for number in (1, 2))
    for member in (one, two):
        member.set_mtu(1400)
    assert any("set the MTU of flannel.1" in step for step in nodes.reconcile()[1].done)
    assert nodes.backends[1].mtu() == 1330
    # The containers have their former MTU: they are told by ICMP, each stream anew.
    for version in (4, 6):
        assert transfers(one, two, version)
    nodes.cross(1, 2, 1330)


def test_a_smaller_mtu_on_the_way_is_no_trouble(nodes: Nodes) -> None:
    nodes.reconcile()
    # The router's interface to link 2, beyond what hosts can see.
    nodes.underlay.router.run("ip", "link", "set", "link2", "mtu", "1400")
    for version in (4, 6):
        assert transfers(*(nodes.underlay.members[number] for number in (1, 3)), version)


def test_no_one_else_changes_the_mac_address_or_makes_checksums(nodes: Nodes) -> None:
    nodes.reconcile()
    host = nodes.underlay.members[1].host
    # 3 is NET_ADDR_SET: systemd-udevd and NetworkManager leave it as it is.
    assert host.run("cat", "/sys/class/net/flannel.1/addr_assign_type").stdout.strip() == "3"
    with entered(host), closing(Ethtool()) as ethtool:
        assert ethtool.leaves_checksums("flannel.1") is False
        ethtool.leave_checksums("flannel.1", True)
        assert steps(nodes.backends[1], nodes.view(1)) == ["set who makes checksums of flannel.1"]
        nodes.reconcile(1)
        assert ethtool.leaves_checksums("flannel.1") is False


def test_another_vni_and_another_backend_take_over(nodes: Nodes) -> None:
    nodes.reconcile()
    for make, left in (
        (lambda: vxlan(vni=2), {"flannel.2", "flannel-v6.2"}),
        (lambda: HostGatewayBackend(Chosen(), BOTH), set()),
    ):
        nodes.start(make, 1, 2)  # type: ignore[arg-type]
        nodes.known.pop(3, None)
        nodes.reconcile(1, 2)
        nodes.cross(1, 2)
        links = {one["ifname"] for one in nodes.underlay.members[1].host.ip("link")}
        assert {one for one in links if one.startswith("flannel")} == left


def test_a_device_whose_maker_was_killed_is_made_again(host: Host) -> None:
    with closing(KernelLab(host, vxlan, vtep)) as lab:
        host.run("ip", "link", "add", "flannel.1", "group", str(0x4F766C79), "type", "vxlan",
                 "id", "1", "dstport", "8472", "local", "192.168.1.10")  # fmt: skip
        reconciled(lab, lab.view(lab.peer(1)))
        device = host.link("flannel.1")
        assert device is not None
        assert (device["ifalias"], device["group"]) == ("cni-py: overlay", "default")


def test_a_device_of_somebody_else_stays_and_is_named(host: Host) -> None:
    with closing(KernelLab(host, vxlan, vtep)) as lab:
        view = lab.view(lab.peer(1))
        host.run("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472",
                 "local", "192.168.1.10")  # fmt: skip
        before = lab.world()
        with pytest.raises(CniError, match=r"there is a link flannel\.1 that is not cni-py's"):
            lab.backend().reconcile(view)
        assert lab.world() == before
        assert not lab.backend().tear_down().done
        assert lab.world() == before


def test_a_vni_that_another_device_has_is_told_by_the_kernel(host: Host) -> None:
    with closing(KernelLab(host, vxlan, vtep)) as lab:
        host.run("ip", "link", "add", "theirs", "type", "vxlan", "id", "1", "dstport", "8472",
                 "local", "192.168.1.10")  # fmt: skip
        report = lab.backend().reconcile(lab.view(lab.peer(1)))
        errors = [one for one in report.failed if getattr(one, "errno", 0) == errno.EEXIST]
        assert errors
        assert "create vxlan flannel.1" in errors[0].msg


@pytest.mark.parametrize(("mtu", "message"), [
    (1349, r"the MTU of eth0 is 1349: too small for IPv6 in vxlan"),
    (600, r"the MTU of eth0 is 600: too small for IPv4 in vxlan"),
])  # fmt: skip
def test_an_underlay_with_too_small_an_mtu_is_refused(host: Host, mtu: int, message: str) -> None:
    versions = frozenset({6}) if mtu > 1000 else frozenset({4})
    make = lambda: VxlanBackend(VxlanSettings(), Chosen(), versions)  # noqa: E731
    with closing(KernelLab(host, make, vtep)) as lab:
        host.run("ip", "link", "set", "eth0", "mtu", str(mtu))
        with pytest.raises(CniError, match=message):
            lab.backend().mtu()


def test_peers_whose_mac_address_belongs_to_another(host: Host) -> None:
    with closing(KernelLab(host, vxlan, lambda _, version: vtep(1, version))) as lab:
        view = lab.view(lab.peer(1), lab.peer(2))
        report = lab.backend().reconcile(view)
        assert list(report.refused) == [lab.peer(2).name]
        assert "that of an older lease" in report.refused[lab.peer(2).name]
    own = view.own.said
    with closing(
        KernelLab.again(lab, lambda _, version: own.data if version == 4 else own.data6)
    ) as lab:
        report = lab.backend().reconcile(lab.view(lab.peer(1)))
        assert "this node's or that of an older lease" in report.refused[lab.peer(1).name]


def test_names_of_devices_fit() -> None:
    for vni in (1, 65535, 2**24 - 1):
        names = [device_name(vni, version) for version in (4, 6)]
        assert all(len(one) <= 15 and str(vni) in one for one in names)
        assert len(set(names)) == 2
