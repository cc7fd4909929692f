"""bandwidth's CHECK: every parameter of every queue, filter and block."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from cni_py.kernel import tc

from . import ifb, interface
from .bandwidth_config import plan_of
from .shaping import CLASSES, DEFAULTS, HANDLE, QUEUE, host_end, leading, sorting, waiting

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.tc import Bucket, Filter, Qdisc
    from cni_py.spec.call import Call
    from cni_py.spec.results import Result

    from .bandwidth_config import Config, Plan


def check(call: Call[Config]) -> None:
    """Compare what ADD set with what is there. Raises CniError naming the difference."""
    plan = plan_of(call.config)
    result = interface.previous(call)
    if not plan.limits:
        return
    with ExitStack() as stack:
        host, inside, _ = interface.sides_of(call, stack)
        port = host_end(host, inside, call.ifname, result)
        if plan.ingress is not None:
            _check_ingress(host, port, plan, plan.ingress)
        if plan.egress is not None:
            _check_egress(host, port, _block(host, call, result), plan, plan.egress)


def _block(host: Netlink, call: Call[Config], result: Result) -> Link:
    """The attachment's block, which is as the result says where that lists it."""
    block = next(ifb.of_attachment(host, call.attachment, result), None)
    if block is None:
        names = " or ".join(ifb.names(call.attachment))
        raise interface.differs(f"ifb {names} of the attachment", "present", "missing")
    for one in result.interfaces:
        if one.name == block.name and not one.sandbox:
            interface.check_link(host, one, ifb.KIND)
    return block


def _check_ingress(host: Netlink, port: Link, plan: Plan, bucket: Bucket) -> None:
    link = (port.ifindex, port.name)
    if not plan.subnets:
        _check_bucket(host, port, bucket)
        return
    root = _require(host, port, tc.ROOT, "htb", HANDLE)
    where = f"of {port.name}"
    default, found = DEFAULTS[plan.shaped], tc.default_of_htb(root)
    interface.require_same(f"default class {where}", f"1:{default}", f"1:{found:x}")
    shaped = tc.get_class(host, link, CLASSES)
    if shaped is None:
        raise interface.differs(f"class {tc.shown(CLASSES)} {where}", "present", "missing")
    ticks = min(bucket.ticks, tc.MAX_U32)
    rate, burst, ceiling, ceiling_burst = tc.rate_of_class(shaped)
    interface.require_same(f"rate in bytes/s {where}", bucket.rate, rate)
    interface.require_same(f"highest rate in bytes/s {where}", bucket.rate, ceiling)
    interface.require_same(f"burst in ticks {where}", ticks, burst)
    interface.require_same(f"burst of the highest rate in ticks {where}", ticks, ceiling_burst)
    queue = _require(host, port, CLASSES, "bfifo", QUEUE)
    interface.require_same(f"limit in bytes {where}", waiting(bucket), tc.limit_of_bfifo(queue))
    _check_filters(host, port, HANDLE, sorting(plan))


def _check_egress(host: Netlink, port: Link, block: Link, plan: Plan, bucket: Bucket) -> None:
    interface.require_same(f"state of {block.name}", "up", interface.state_of(block))
    interface.require_same(f"mtu of {block.name}", port.mtu, block.mtu)
    _check_bucket(host, block, bucket)
    _require(host, port, tc.INGRESS, "ingress", tc.INGRESS_HANDLE)
    _check_filters(host, port, tc.INGRESS_HANDLE, leading(plan, block.ifindex))


def _check_bucket(host: Netlink, link: Link, bucket: Bucket) -> None:
    root = _require(host, link, tc.ROOT, "tbf", HANDLE)
    rate, limit, ticks = tc.bucket_of_tbf(root)
    interface.require_same(f"rate in bytes/s of {link.name}", bucket.rate, rate)
    interface.require_same(f"limit in bytes of {link.name}", bucket.limit, limit)
    # Of more ticks the kernel tells the low 32 bits of its own reckoning.
    if bucket.ticks <= tc.MAX_U32:
        interface.require_same(f"burst in ticks of {link.name}", bucket.ticks, ticks)


def _require(host: Netlink, link: Link, parent: int, kind: str, own: int) -> Qdisc:
    """The qdisc that there must be."""
    have = tc.get(host, (link.ifindex, link.name), parent)
    place = {tc.ROOT: "root", tc.INGRESS: "ingress"}.get(parent, f"class {tc.shown(parent)}")
    found = "none" if have is None else f"{have.kind} {tc.shown(have.handle)}"
    expected = f"{kind} {tc.shown(own)}"
    interface.require_same(f"qdisc at the {place} of {link.name}", expected, found)
    assert have is not None
    return have


def _check_filters(host: Netlink, port: Link, parent: int, expected: list[Filter]) -> None:
    have = tc.filters(host, (port.ifindex, port.name), parent)
    what = f"filters of {port.name} at {tc.shown(parent)}"
    listed = (sorted(map(_described, one)) for one in (expected, have))
    wanted, found = ("; ".join(one) or "none" for one in listed)
    interface.require_same(what, wanted, found)


def _described(one: Filter) -> str:
    keys = " and ".join(f"{value:08x}/{mask:08x} at {at}" for mask, value, at in one.keys)
    target = f"to link {one.redirect}" if one.redirect else f"to {tc.shown(one.class_id)}"
    return f"priority {one.priority} protocol {one.protocol:04x} {keys} {target}"
