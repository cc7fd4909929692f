"""wireguard: the contract, and real packets between hosts, encrypted."""

from __future__ import annotations

import stat
from base64 import b64decode, b64encode
from contextlib import closing, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from cluster.backend_battery import BackendBattery, reconciled, steps
from cluster.kernel_lab import KernelLab
from cluster.nodes import Nodes
from cni_py.cluster.underlay import Chosen
from cni_py.cluster.wireguard import WireGuardBackend, WireGuardSettings
from cni_py.kernel import links
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.wireguard import Client
from cni_py.spec.errors import CniError
from fixtures.capture import capture
from fixtures.underlay import entered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures.host import Host
    from fixtures.underlay import Underlay

BOTH = frozenset({4, 6})
vm = pytest.mark.vm


def wireguard(folder: Path, name: str = "key", **keys: Any) -> WireGuardBackend:
    return WireGuardBackend(WireGuardSettings(**keys), Chosen(), BOTH, str(folder / name))


def public(number: int, version: int) -> Any:
    del version
    return {"PublicKey": b64encode(bytes([number]) * 32).decode()}


class WireGuardLab(KernelLab):
    def world(self) -> Any:
        with entered(self.host), closing(Netlink()) as netlink, closing(Client()) as client:
            devices = links.dump(netlink, "wireguard")
            return [super().world(), [repr(client.read(one.ifindex)) for one in devices]]


@pytest.fixture
def lab(host: Host, tmp_path: Path) -> Iterator[KernelLab]:
    with closing(WireGuardLab(host, partial(wireguard, tmp_path), public)) as lab:
        yield lab


@vm
class TestWireGuard(BackendBattery):
    pass


@vm
def test_the_key_stays_and_nobody_else_reads_it(lab: KernelLab, tmp_path: Path) -> None:
    said = lab.backend().announce()
    assert said.data == said.data6
    key = tmp_path / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    assert lab.backend().tear_down().done
    assert lab.backend().announce() == said
    assert key.read_text() == before
    # What is no key is set aside: the node has another one from now on.
    key.write_text("no key")
    assert lab.backend().announce().data != said.data
    assert (tmp_path / "damaged" / "key").read_text() == "no key"
    assert len(b64decode(key.read_text())) == 32


@vm
def test_nothing_leaves_unencrypted_where_the_device_is_gone(lab: KernelLab) -> None:
    view = lab.view(lab.peer(1))
    reconciled(lab, view)
    for to in ("10.244.1.2", "10.244.200.1", "fd00:244:0:1::2"):
        lab.host.run("ip", "route", "get", to)
    lab.host.run("ip", "link", "delete", "flannel-wg")
    lab.host.run("ip", "link", "delete", "flannel-wg-v6")
    for to in ("10.244.1.2", "10.244.200.1", "fd00:244:0:1::2"):
        assert lab.host.run("ip", "route", "get", to, check=False).status != 0
    reconciled(lab, lab.view(lab.peer(1)))
    assert steps(lab.backend(), view) == []


@vm
@pytest.mark.parametrize("mode", ["separate", "auto", "ipv6"])
def test_containers_reach_one_another_and_nobody_reads_along(
    underlay: Underlay, tmp_path: Path, mode: str
) -> None:
    number = count()
    psk = b64encode(bytes(range(32))).decode()

    def make() -> WireGuardBackend:
        return wireguard(tmp_path, f"key-{next(number)}", mode=mode, psk=psk)

    with closing(Nodes(underlay, make, 1420)) as nodes:
        nodes.reconcile()
        with capture(underlay.router, "h1") as captured:
            nodes.cross(1, 2)
            captured.wait_for(lambda frame: len(frame) > 1400)
        # No frame is of a container, in an IPv4 or an IPv6 header.
        assert not [one for one in captured.frames if one[26:28] == b"\x0a\xf4"]
        assert not [one for one in captured.frames if one[22:26] == b"\xfd\x00\x02\x44"]
        nodes.cross(1, 3)
        # 2 has another key from now on, 3 is gone.
        nodes.start(make, 2)
        nodes.known.pop(3)
        nodes.reconcile(1, 2)
        nodes.cross(1, 2)
        nodes.are_apart(1, 3)


def test_a_psk_that_is_none_is_refused_and_not_told(host: Host, tmp_path: Path) -> None:
    with entered(host), pytest.raises(CniError, match="PSK is no key") as refused:
        wireguard(tmp_path, psk="hunter2")
    assert (refused.value.code, "hunter2" in str(refused.value)) == (7, False)


def test_a_kernel_without_it_says_so(lab: KernelLab) -> None:
    backend = lab.backend()
    with suppress(CniError):
        # This one has it.
        assert backend.announce().data
        return
    with pytest.raises(CniError, match="this kernel has no devices of the kind wireguard") as told:
        backend.announce()
    assert told.value.code == 50
