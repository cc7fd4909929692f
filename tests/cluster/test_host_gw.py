"""host-gw: the contract, and real packets between hosts."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cluster.backend_battery import BackendBattery
from cluster.kernel_lab import KernelLab
from cni_py.cluster.host_gw import HostGatewayBackend
from cni_py.cluster.underlay import Chosen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Host

BOTH = frozenset({4, 6})


class TestHostGateway(BackendBattery):
    @pytest.fixture
    def lab(self, host: Host) -> Iterator[KernelLab]:
        with closing(KernelLab(host, lambda: HostGatewayBackend(Chosen(), BOTH))) as lab:
            yield lab
