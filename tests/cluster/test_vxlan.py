"""vxlan: the contract, and real packets between hosts."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cluster.backend_battery import BackendBattery
from cluster.kernel_lab import KernelLab
from cni_py.cluster.underlay import Chosen
from cni_py.cluster.vxlan import VxlanBackend, VxlanSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Host

BOTH = frozenset({4, 6})


class TestVxlan(BackendBattery):
    @pytest.fixture
    def lab(self, host: Host) -> Iterator[KernelLab]:
        with closing(
            KernelLab(
                host,
                lambda: VxlanBackend(VxlanSettings(), Chosen(), BOTH),
                lambda number, version: {"VNI": 1, "VtepMAC": f"02:00:00:00:0{version}:0{number}"},
            )
        ) as lab:
            yield lab
