"""A bridge whose node has got another subnet while containers live.

They keep their addresses, and the bridge keeps the gateway that they have, beside the new one,
until the last of them is gone. bridge itself refuses to give a bridge a second subnet.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, links, state_files
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.netlink import Netlink
from cni_py.spec.addresses import cidr, parse_cidr
from cni_py.spec.attachment import network_key

from . import bridge_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.spec.addresses import Cidr

FOLDER = "/run/cni-py/cluster/networks"


class Subnets(msgspec.Struct, frozen=True):
    """The subnets that containers of a network may have on this node."""

    network: str
    subnets: tuple[str, ...]


def make_room(
    network: str, bridge: str, subnets: Iterable[Cidr], used: Callable[[], set[str]]
) -> None:
    """Let the bridge have the gateways of the subnets beside those of the ones before.

    `used` tells the subnets of the network's live containers; it is asked only where they differ.
    Of those before that nobody uses, the gateways go. Another's address stays, and bridge reports
    it. Raises CniError.
    """
    now = tuple(str(one.network) for one in subnets)
    path = f"{FOLDER}/{network_key(network)}.json"
    try:
        known = state_files.load(path, Subnets)
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    before = () if known is None else known.subnets
    if before == now:
        return
    # The new ones are noted first: whoever is interrupted knows of both.
    both = tuple(dict.fromkeys((*before, *now)))
    state_files.save(path, msgspec.json.encode(Subnets(network, both)))
    left = _exchanged(bridge, now, [one for one in before if one not in now], used())
    state_files.save(path, msgspec.json.encode(Subnets(network, (*now, *left))))


def _exchanged(bridge: str, now: Iterable[str], before: Iterable[str], used: set[str]) -> list[str]:
    """Add and remove addresses of the bridge; the earlier subnets that are still in use."""
    gateways = {one: _gateway(one) for one in (*before, *now)}
    kept = [one for one in before if one in used]
    with Netlink() as host:
        link = links.get(host, bridge)
        if link is None:
            return kept
        have = [one.address for one in addresses.dump(host, link.ifindex)]
        gone = frozenset({errno.EADDRNOTAVAIL})
        for one in before:
            if one not in kept and gateways[one] in have:
                host.submit(addresses.delete(link.ifindex, link.name, gateways[one], gone))
        ours = set(gateways.values())
        for one in now:
            gateway = gateways[one]
            others = bridge_device.in_the_way(gateway, ours, have)
            if gateway not in have and not others and kept:
                flags = addresses.IFA_F_NODAD if gateway.version == 6 else 0
                host.submit(
                    addresses.add(
                        link.ifindex, link.name, gateway, flags=flags, tolerate=links.PRESENT
                    )
                )
    return kept


def _gateway(subnet: str) -> Cidr:
    """host-local's: the subnet's first address."""
    network = parse_cidr(subnet).network
    return cidr(network.network_address + 1, network.prefixlen)
