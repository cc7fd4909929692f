"""What a node may claim of the cluster: subnets that nobody else has, and a host's address."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP, Network


class Taken:
    """Subnets of one family that do not overlap, by their first addresses, and whose they are."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._whose: list[tuple[int, str]] = []

    def add(self, subnet: Network, whose: str) -> None:
        """Enter a subnet that overlaps none that is there."""
        start = int(subnet.network_address)
        at = bisect_left(self._starts, start)
        self._starts.insert(at, start)
        self._whose.insert(at, (int(subnet.broadcast_address), whose))

    def by(self, subnet: Network) -> str:
        """Whose subnet overlaps it; `""` if none does."""
        at = bisect_left(self._starts, int(subnet.network_address))
        if at < len(self._starts) and self._starts[at] <= int(subnet.broadcast_address):
            return self._whose[at][1]
        if at and self._whose[at - 1][0] >= int(subnet.network_address):
            return self._whose[at - 1][1]
        return ""


def is_part(subnet: Network, network: Network) -> bool:
    """Whether a subnet lies in the network, and is not all of it.

    Of whatever length: that of the cluster's configuration can have been changed.
    """
    return (
        subnet.prefixlen > network.prefixlen
        and subnet.network_address in network
        and subnet.version == network.version
    )


def is_no_hosts(address: IP) -> bool:
    """Whether no host can be reached by the address from another one."""
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return True
    # fe80::/10 needs a link to mean anything; 240.0.0.0/4 has the broadcast address.
    return address.is_link_local if address.version == 6 else address.is_reserved
