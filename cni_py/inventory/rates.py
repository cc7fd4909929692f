"""The bandwidth plugin's limits, from the queues that hold back (tc(8))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cni_py.kernel import tc
from cni_py.plugins.shaping import CLASSES

from .model import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.tc import Qdisc

_BITS = 8


def rates(
    host: Netlink, port: Link, block: Link | None, queues: Mapping[int, Sequence[Qdisc]]
) -> tuple[Rate, ...]:
    """The limits of a host end, and of the block that leads what comes from it. Raises KernelError.

    `queues` are all links' (`tc.dump`).
    """
    found = []
    for one in queues.get(port.ifindex, ()):
        if one.kind == "tbf":
            found.append(_rate("to", *_tbf(one), port.name))
        elif one.kind == "htb":
            limited = tc.get_class(host, (port.ifindex, port.name), CLASSES)
            if limited is not None:
                rate, _, ticks, _ = tc.rate_of_class(limited)
                found.append(_rate("to", rate, ticks, port.name))
    if block is not None:
        own = (one for one in queues.get(block.ifindex, ()) if one.kind == "tbf")
        found += [_rate("from", *_tbf(one), block.name) for one in own]
    return tuple(found)


def _tbf(one: Qdisc) -> tuple[int, int]:
    rate, _, ticks = tc.bucket_of_tbf(one)
    return rate, ticks


def _rate(direction: Literal["to", "from"], rate: int, ticks: int, link: str) -> Rate:
    burst = rate * ticks * tc.TICK_NANOSECONDS // 10**9
    return Rate(direction=direction, bits=rate * _BITS, burst_bytes=burst, link=link)
