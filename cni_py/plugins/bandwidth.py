"""bandwidth: limit what goes to a container and what it sends (plugins.md 6.2).

It comes after a plugin that has connected the container by a veth pair. What goes to the container
is held back by the host end's queue, what comes from it by that of a block which it is led through.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import links, tc
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Interface

from . import bandwidth_check, ifb, interface
from .bandwidth_config import Config, DelConfig, mistakes, plan_of
from .shaping import CLASSES, DEFAULTS, HANDLE, QUEUE, host_end, leading, sorting, waiting
from .teardown import Teardown

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Request
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

    from .bandwidth_config import Plan

__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]

_NEEDED = ("tbf", "ingress")


def add(call: Call[Config]) -> Result:
    """Limit both directions as configured; the result is the previous one, with the block."""
    plan = plan_of(call.config)
    result = interface.previous(call)
    if not plan.limits:
        return result
    sides = interface.sides_of(call, call.scope)
    port = host_end(sides.host, sides.inside, call.ifname, result)
    if plan.ingress is not None:
        with step("ingress"):
            _limit_ingress(sides.host, port, plan, call)
    if plan.egress is not None:
        with step("egress"):
            block = _limit_egress(sides.host, port, plan, call)
        interfaces = (*result.interfaces, Interface(block.name, block.mac))
        result = msgspec.structs.replace(result, interfaces=interfaces)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Remove the block, then the queues of a host end that our plugins have made.

    Those of another one vanish with it, as with the reference.
    """
    teardown = Teardown()
    with Netlink() as host:
        with teardown.step(), step("ifb"):
            ifb.delete(host, call.attachment, call.prev_result)
        with teardown.step(), step("queues"):
            _delete_queues(host, call.attachment)
    teardown.finish()


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    bandwidth_check.check(call)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed: the kernel lacks what it takes."""
    with unavailable():
        plan = plan_of(call.config)
    with Netlink() as host:
        lacks = tc.missing(host, (*_NEEDED, *(("htb",) if plan.subnets else ())))
    if lacks:
        msg = f"the kernel has no {lacks}"
        details = f"load the module, for instance by `modprobe {lacks}`"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details)


def gc(call: Call[DelConfig], collection: Collection) -> None:  # noqa: ARG001 - a handler's form
    """Remove the blocks that the collection takes. Queues go with their links."""
    with Netlink() as host:
        links.delete_together(host, list(ifb.taken(host, collection)))


# ADD.


def _limit_ingress(host: Netlink, port: Link, plan: Plan, call: Call[Config]) -> None:
    """Give the host end a queue that holds back."""
    link, bucket = (port.ifindex, port.name), plan.ingress
    assert bucket is not None
    if not plan.subnets:
        _claim(host, port, tc.ROOT, tc.tbf(link, HANDLE, bucket), call)
        return
    default = DEFAULTS[plan.shaped]
    _claim(host, port, tc.ROOT, tc.htb(link, HANDLE, default), call)
    host.submit(
        tc.htb_class(link, CLASSES, bucket),
        tc.bfifo(link, CLASSES, QUEUE, waiting(bucket)),
        *(tc.add_filter(link, HANDLE, one) for one in sorting(plan)),
    )


def _limit_egress(host: Netlink, port: Link, plan: Plan, call: Call[Config]) -> Link:
    """Lead what comes in through the host end through a block that holds back."""
    link, bucket = (port.ifindex, port.name), plan.egress
    assert bucket is not None
    _claim(host, port, tc.INGRESS, tc.ingress(link), call)
    name = ifb.create(host, call.attachment, port.mtu)
    call.scope.enter_context(undone_on_failure(lambda: _discard(host, name)))
    block = interface.require_link(host, name)
    host.submit(
        tc.tbf((block.ifindex, name), HANDLE, bucket),
        ifb.finish(block, call.attachment),
        *(tc.add_filter(link, tc.INGRESS_HANDLE, one) for one in leading(plan, block.ifindex)),
    )
    return block


def _discard(host: Netlink, name: str) -> None:
    links.delete(host, name)


def _claim(host: Netlink, port: Link, place: int, request: Request, call: Call[Config]) -> None:
    """Add a qdisc where there must be none; it goes again if the ADD fails later."""
    link = (port.ifindex, port.name)
    try:
        host.submit(request)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        have = tc.get(host, link, place)
        where = "root" if place == tc.ROOT else "ingress"
        msg = f"interface {port.name} has a qdisc at its {where} already"
        kind = "" if have is None else f"it is {have.kind} {tc.shown(have.handle)}; "
        raise CniError(Code.INTERNAL, msg, f"{kind}DEL comes before the next ADD") from error
    undo = partial(host.submit, tc.delete(link, place), *_unqueued(port.name, call.attachment))
    call.scope.enter_context(undone_on_failure(undo))


def _unqueued(name: str, attachment: Attachment) -> tuple[Request, ...]:
    """The request that makes up for what the kernel does to a link when it gets a qdisc.

    A host end of ours has a queue length of 0, which the kernel takes for an oversight then.
    """
    if name != attachment.host_ifname:
        return ()
    return (links.change(name, ("IFLA_TXQLEN", 0))._replace(tolerate=links.GONE),)


# DEL.


def _delete_queues(host: Netlink, attachment: Attachment) -> None:
    """Take off the host end what ADD has put there."""
    name = attachment.host_ifname
    port = links.get(host, name)
    if port is None:
        return
    link = (port.ifindex, name)
    root, arriving = tc.get(host, link, tc.ROOT), tc.get(host, link, tc.INGRESS)
    requests = []
    if root is not None and (root.handle, root.kind in ("tbf", "htb")) == (HANDLE, True):
        requests.append(tc.delete(link, tc.ROOT))
    if arriving is not None and arriving.kind == "ingress":
        requests.append(tc.delete(link, tc.INGRESS))
    if requests:
        host.submit(*requests, *_unqueued(name, attachment))
