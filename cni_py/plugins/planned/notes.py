"""What is noted of an ADD that is planned, and what the handlers share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.ipam.delegation import MODULES, is_ours
from cni_py.kernel import addresses, executables, links, sysctl
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.plugins import paired
from cni_py.spec.attachment import network_key
from cni_py.spec.call import typed_call
from cni_py.spec.errors import CniError
from cni_py.spec.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.addresses import Cidr
    from cni_py.spec.call import Call


class Step(msgspec.Struct, frozen=True):
    """One thing that ADD would make, set or use: `kind` is a word, `text` says it."""

    kind: str
    text: str


class Notes:
    """What one plugin's ADD would do, and what is in its way.

    `unknown` says what cannot be known before it is done, such as the address that a server gives.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.conflicts: list[str] = []
        self.unknown: list[str] = []

    def step(self, kind: str, text: str) -> None:
        """Note what ADD would do."""
        self.steps.append(Step(kind, text))

    def conflict(self, text: str) -> None:
        """Note what would make ADD fail, or the network not work."""
        self.conflicts.append(text)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Note the error that ends the block as a conflict."""
        try:
            yield
        except CniError as error:
            self.conflict(str(error))


@contextmanager
def inside(call: Call[Any], notes: Notes) -> Iterator[Netlink | None]:
    """A socket in the container, None without one, which is a conflict already."""
    container = None
    with notes.refusals():
        container = open_netns(call.netns)
    if container is None:
        yield None
        return
    with container:
        with container.entered():
            netlink = Netlink()
        with netlink:
            yield netlink


def new_interface(call: Call[Any], notes: Notes) -> None:
    """The container must not have the interface."""
    with inside(call, notes) as netlink:
        if netlink is not None and links.get(netlink, call.ifname) is not None:
            notes.conflict(f"interface {call.ifname} already exists in {call.netns}")


def decided(call: Call[Any], notes: Notes) -> Result:
    """What the IPAM plugin would give; an empty result where there is none, or nobody can know."""
    name = call.config.ipam.type
    if not name:
        return Result()
    path = executables.find(name, call.request.environment.path)
    if name not in MODULES or not is_ours(path):
        notes.step("address", f"asks {path}, of which nothing is known")
        notes.unknown.append(f"which address {name} gives")
        return Result()
    if name == "dhcp":
        notes.step("address", f"asks a DHCP server through {call.ifname}")
        notes.unknown.append("which address the DHCP server gives")
        return Result()
    result = _planned(name, call)
    for one in result.ips:
        gateway = "" if one.gateway is None else f", gateway {one.gateway}"
        notes.step("address", f"{one.address}{gateway} ({name})")
    return result


def _planned(name: str, call: Call[Any]) -> Result:
    if name == "host-local":
        from cni_py.ipam import host_local

        return host_local.plan(typed_call(call.request, host_local.Config))
    if name == "cluster":
        from cni_py.ipam import cluster

        return cluster.plan(typed_call(call.request, cluster.Config))
    from cni_py.ipam import static

    # It keeps nothing: the ADD is the plan.
    return static.add(typed_call(call.request, static.Config))


def routes(result: Result, where: str, notes: Notes) -> None:
    """The routes that the result has for the container; the kernel takes none twice."""
    seen = set()
    for one in result.routes:
        gateway = one.gw or next(
            (ip.gateway for ip in result.ips if ip.address.version == one.dst.version), None
        )
        via = "" if gateway is None else f" via {gateway}"
        notes.step("route", f"{one.dst}{via} in {where}")
        key = (one.dst.network, gateway, one.table or 0, one.priority)
        if key in seen:
            notes.conflict(f"route {one.dst}{via} is there twice: the kernel refuses the second")
        seen.add(key)


def forwarding(versions: Iterable[int], notes: Notes) -> None:
    """The host is made to forward."""
    for version in sorted(set(versions)):
        key = paired.FORWARDING[version]
        have = sysctl.read(key)
        if have != "1":
            notes.step("sysctl", f"{key.replace('/', '.')} from {have} to 1, on the host")


def overlaps(call: Call[Any], ips: Iterable[Cidr], own: Iterable[str], notes: Notes) -> None:
    """Other links of the host must not have addresses of the subnets; `own` are the network's."""
    ours, prefix = set(own), f"{network_key(call.request.network)}-"
    with Netlink() as host:
        named = {one.ifindex: one for one in links.dump(host)}
        have = addresses.dump_all(host)
    for index, listed in have.items():
        link = named.get(index)
        if link is None or link.name in ours or link.alias.startswith(prefix):
            continue
        for other in (one.address for one in listed):
            for ip in ips:
                if not other.is_link_local and _meet(ip, other):
                    notes.conflict(f"{ip.network} overlaps with {other} of {link.name} on the host")


def _meet(one: Cidr, other: Cidr) -> bool:
    return one.version == other.version and one.network.overlaps(other.network)
