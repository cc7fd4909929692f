"""The world of a kernel backend: one host with an `eth0`. Its peers need not exist."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from cluster.backend_battery import Lab, own_subnets
from cni_py.cluster.backend import Announcement, Node
from fixtures.settled import carried
from fixtures.underlay import entered

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.cluster.backend import Backend
    from fixtures.host import Host

_ETH0 = """
link add eth0 mtu 1500 type veth peer name far
link set eth0 addrgenmode none
link set far addrgenmode none
link set far up
link set eth0 up
addr add 192.168.1.10/24 dev eth0
addr add fd00:1:0:1::10/64 dev eth0 nodad
route add default via 192.168.1.254
route add ::/0 via fd00:1:0:1::fe
"""
_THEIRS = """
link add br-theirs type bridge
link set br-theirs addrgenmode none
link set br-theirs up
addr add 10.99.0.1/24 dev br-theirs
route add 10.244.9.0/24 via 10.99.0.9 dev br-theirs
route add fd00::/8 via fd00:1:0:1::fe dev eth0
route add 172.30.0.0/16 via 192.168.1.3 dev eth0
route add 10.244.77.0/24 via 192.168.1.3 dev eth0 proto static
neigh add 192.168.1.3 lladdr 02:00:00:00:00:03 dev eth0 nud permanent
link add theirs type vxlan id 77 dstport 4789 local 192.168.1.10 nolearning
link set theirs addrgenmode none
link set theirs up
neigh add 10.99.1.1 lladdr 02:00:00:00:00:04 dev theirs nud permanent
"""
_LOOK = ("link", "addr", "route", "-6 route", "neigh show nud permanent")
# What is not the same for a device that was made again, or changes by itself.
_PASSING = {
    "permaddr",
    "gc_timer",
    "hello_timer",
    "ifindex",
    "link_index",
    "stats",
    "stats64",
    "valid_life_time",
    "preferred_life_time",
}


class KernelLab(Lab):
    """With what makes the backend, and what each peer says beside its addresses."""

    def __init__(
        self,
        host: Host,
        make: Callable[[], Backend],
        data: Callable[[int, int], Any] | None = None,
    ) -> None:
        self.host, self._make, self._data = host, make, data
        self._name = ""
        # A host of several tests has it already.
        if host.run("sh", "-c", "test -e /sys/class/net/eth0 || echo none").stdout:
            host.run("ip", "-batch", "-", stdin=_ETH0.strip() + "\n")
        # The kernel tells a link's carrier later: what is looked at before is not how it stays.
        carried(host, "eth0")

    @classmethod
    def again(cls, lab: KernelLab, data: Callable[[int, int], Any]) -> KernelLab:
        """The same world, with peers that say something else."""
        other = cls.__new__(cls)
        other.host, other._make, other._data, other._name = lab.host, lab._make, data, ""
        return other

    def make(self) -> Backend:
        with entered(self.host):
            made = self._make()
        self._name = made.name
        return made

    def peer(self, number: int) -> Node:
        said = Announcement(
            self._name or self.backend().name,
            IPv4Address(f"192.168.1.{100 + number}"),
            IPv6Address(f"fd00:1:0:1::{100 + number:x}"),
            self._data and self._data(number, 4),
            self._data and self._data(number, 6),
        )
        return Node(said, *own_subnets(number))

    def world(self) -> Any:
        script = "; echo ,; ".join(f"ip -d -j {one} | grep . || echo []" for one in _LOOK)
        script += "; echo ,; bridge -j fdb"
        shown = self.host.run("sh", "-c", f"echo [; {script}; echo ]").stdout
        return sorted((repr(_lasting(one)) for one in json.loads(shown)), key=str)

    def furnish(self) -> None:
        self.host.run("ip", "-batch", "-", stdin=_THEIRS.strip() + "\n")
        fdb = "fdb add 02:00:00:00:00:04 dev theirs dst 192.168.1.3 self permanent\n"
        self.host.run("bridge", "-batch", "-", stdin=fdb)

    def disturb(self, number: int) -> None:
        self.host.run("ip", "route", "delete", f"10.244.{number}.0/24")


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in sorted(value.items()) if key not in _PASSING}
    if isinstance(value, list):
        return sorted((_lasting(one) for one in value), key=repr)
    return value
