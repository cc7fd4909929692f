"""bridge ADD: what the kernel has afterwards, and whether packets flow."""

from __future__ import annotations

from fixtures.configs import l3
from fixtures.host import Host


def test_two_containers_reach_each_other(host: Host) -> None:
    first, second = host.container("c1"), host.container("c2")
    host.add("bridge", l3(), first)
    host.add("bridge", l3(), second)
    assert first.addresses() == ["10.1.2.2/24"]
    assert second.addresses() == ["10.1.2.3/24"]
    assert first.reaches("10.1.2.3")
