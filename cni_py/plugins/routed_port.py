"""Containers beyond the 1,023 ports that a bridge can have: routed, like ptp's, in the same subnet.

The host's end is no port of the bridge but has the gateways' addresses itself, and the host a route
through it to the container's. The containers on the bridge look for the address there: the host
answers for it, and forwards (docs/decisions/0018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import links, proxies, routes, sysctl
from cni_py.spec.addresses import cidr
from cni_py.spec.errors import CniError, Code

from . import host_routes, interface

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

    from .veth import Sides

# BR_MAX_PORTS, less the bridge itself.
MAX_PORTS = 1023
# Nodes run some hundred containers: at this number there is still time to do something.
_NEARLY_ALL_PORTS = 972
# What the label says of an attachment that is no port.
RECORD = "routed"


def full(bridge: str) -> CniError:
    """The error where the bridge has all the ports that the kernel allows."""
    msg = f"bridge {bridge} has {MAX_PORTS} ports, the most that the kernel allows"
    details = 'set the key overflow to "routed", or give the network another bridge'
    return CniError(Code.TRY_AGAIN_LATER, msg, details)


def require_room(host: Netlink, bridge: Link) -> None:
    """Raises CniError 51 when the bridge has nearly all of its ports, and 50 when it has all."""
    number = links.count_ports(host, bridge)
    if number >= MAX_PORTS:
        error = full(bridge.name)
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, error.msg, error.details)
    if number >= _NEARLY_ALL_PORTS:
        msg = f"bridge {bridge.name} has {number} of the {MAX_PORTS} ports that the kernel allows"
        details = 'set the key overflow to "routed", or give the network another bridge'
        raise CniError(Code.LIMITED_CONNECTIVITY, msg, details)


def configure(sides: Sides, eth: Link, result: Result, index: int) -> None:
    """Address the container, whose neighbours are all behind its gateways. Raises CniError."""
    host_routes.require_gateways(result)
    first, last = host_routes.through_gateways(eth, result)
    interface.configure(sides, eth, result, index, first=first, last=last)


def lead_to_container(
    host: Netlink, bridge: Link, port: Link, attachment: Attachment, result: Result
) -> None:
    """Route the container's addresses through the host's end, then answer for them on the bridge.

    In this order: an address that the host answers for and has no such route to is left over.
    Raises CniError.
    """
    host_routes.lead_to_container(host, port, attachment, result)
    for version in sorted({one.address.version for one in result.ips}):
        family = "ipv4" if version == 4 else "ipv6"
        # Otherwise the host waits for up to 0.8 s before it answers.
        sysctl.write_if_present(f"net/{family}/neigh/{bridge.name}/proxy_delay", "0")
        if version == 6:
            sysctl.write(f"net/ipv6/conf/{bridge.name}/proxy_ndp", "1")
    host.submit(*(proxies.add(bridge, one.address.ip) for one in result.ips))


def forget_stale(host: Netlink, bridge: str, collection: Collection | None = None) -> None:
    """Stop answering on the bridge for containers that are gone. Raises KernelError."""
    link = links.get(host, bridge)
    if link is None:
        return
    for address in proxies.dump(host, link):
        single = cidr(address, address.max_prefixlen)
        if any(route.link != link.ifindex for route in routes.dump_to(host, single)):
            continue
        what = f"proxy neighbour {address} on {bridge}"
        if collection is None or collection.takes_unowned(what, "no route leads to its container"):
            host.submit(proxies.delete(link, address))


def check(host: Netlink, bridge: Link, port: Link, result: Result, index: int) -> None:
    """Whether the host leads to the container, and answers for it. Raises CniError."""
    own = [one for one in result.ips if one.interface in (None, index)]
    interface.require_same(f"bridge of host end {port.name}", 0, port.master)
    host_routes.check(host, port, own)
    answered = proxies.dump(host, bridge)
    for one in own:
        if one.address.ip not in answered:
            what = f"proxy neighbour {one.address.ip} on {bridge.name}"
            raise interface.differs(what, "present", "missing")
