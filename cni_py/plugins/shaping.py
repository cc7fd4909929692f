"""The shape of a limit: which queues and filters a plan comes to, on which link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import links, tc
from cni_py.kernel.tc import Filter
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.tc import Bucket
    from cni_py.spec.results import Result

    from .bandwidth_config import Plan

# 1: for the queue at a root, as the reference has it; 1:1 for the class of what is limited, 2: for
# that one's queue.
HANDLE, CLASSES, QUEUE = tc.handle(1), tc.handle(1, 1), tc.handle(2)
# The class of what no filter takes, by `Plan.shaped`. Class 0 holds nothing back.
DEFAULTS = {False: 1, True: 0}

# The largest packet, with the headers of each segment that it will be cut into. TBF cuts what is
# too large for it, a queue of bytes drops it, and whoever has sent it sends the same again.
_LARGEST_PACKET = 72 * 1024

_EVERYTHING = 3
_PRIORITIES = {4: 1, 6: 2}


def host_end(host: Netlink, inside: Netlink, ifname: str, result: Result) -> Link:
    """The host end of the container's interface, which the result lists. Raises CniError."""
    if not result.interfaces:
        raise CniError(Code.INVALID_CONFIG, "no interfaces provided", "prevResult has none")
    eth = links.get(inside, ifname)
    if eth is None or eth.kind != "veth" or not eth.peer_index:
        kind = "it does not exist" if eth is None else f"its kind is {eth.kind or 'none'}"
        msg = f"container interface {ifname} has no veth peer"
        raise CniError(Code.INTERNAL, msg, f"{kind}; only veth pairs can be limited")
    port = links.get_by_index(host, eth.peer_index)
    if port is None or port.kind != "veth" or port.peer_index != eth.ifindex:
        msg = f"veth peer with index {eth.peer_index} is not in host ns"
        raise CniError(Code.INTERNAL, msg, f"the peer of container interface {ifname}")
    if not any(one.name == port.name and not one.sandbox for one in result.interfaces):
        msg = "no veth peer of container interface found in host ns"
        raise CniError(Code.INTERNAL, msg, f"prevResult does not list {port.name}")
    return port


def waiting(bucket: Bucket) -> int:
    """The bytes that may wait in a class's queue: as in TBF's, but one packet at least."""
    return min(max(bucket.limit, bucket.burst + _LARGEST_PACKET), tc.MAX_U32)


def sorting(plan: Plan) -> list[Filter]:
    """The filters by which the host end's queue tells what is limited: by who has sent it."""
    class_id = CLASSES if plan.shaped else HANDLE
    return list(_of_subnets(plan, tc.SOURCE, class_id, 0))


def leading(plan: Plan, block: int) -> list[Filter]:
    """The filters that lead what is limited to the block: by who is to get it."""
    everything = Filter(1, tc.ETH_P_ALL, CLASSES, tc.ANYTHING, block)
    if not plan.subnets:
        return [everything]
    if plan.shaped:
        return list(_of_subnets(plan, tc.DESTINATION, CLASSES, block))
    passing = _of_subnets(plan, tc.DESTINATION, CLASSES, 0)
    return [*passing, everything._replace(priority=_EVERYTHING)]


def _of_subnets(
    plan: Plan, offsets: dict[int, int], class_id: int, redirect: int
) -> Iterator[Filter]:
    for one in plan.subnets:
        keys = tc.keys_of(one, offsets[one.version])
        protocol = tc.ETH_P_IP[one.version]
        yield Filter(_PRIORITIES[one.version], protocol, class_id, keys, redirect)
