"""A node's kernel as overlays see it: what of ours is there, and carrying operations out.

Ours are the links with the alias `cni-py: overlay` and what is on them, and the main table's routes
of protocol 67 (decision 43). Sockets stay in the namespace in which this was made.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, ip_tunnels, links, marked_routes, neighbours, vxlan, wireguard
from cni_py.kernel.errors import KernelError
from cni_py.kernel.ethtool import Ethtool
from cni_py.kernel.marked_routes import DEFAULT_PRIORITY, UNICAST, UNREACHABLE, MarkedRoute
from cni_py.kernel.neighbours import Entry
from cni_py.kernel.netlink import Netlink
from cni_py.spec.errors import CniError, Code

from .plan import Address, ChangeDevice, CreateDevice, DeleteDevice, Put, Remove
from .state import (
    Device,
    Forwarding,
    Keys,
    Neighbour,
    Route,
    State,
    Tunnel,
    Tunnel6,
    Tunneled,
    Unfinished,
    Vxlan,
    WireGuard,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Request

    from .plan import Operation, Thing
    from .state import Shape

LABEL = "cni-py: overlay"
# Not in iproute2's rt_protos, nor one that a routing daemon is known to use.
PROTOCOL = 67

# Preferred to nothing.
_LAST_PRIORITY = 2**32 - 1

# The group of a link from its creation until it has its label.
_UNFINISHED = 0x4F766C79


@dataclass(frozen=True, slots=True)
class Present:
    """What is there of ours, and how links are called that are not."""

    state: State
    others: frozenset[str]


class OverlayKernel:
    """The namespace that the thread is in as this is made."""

    def __init__(self) -> None:
        """Raises KernelError."""
        self.netlink = Netlink()
        self._ethtool = Ethtool()
        self._wireguard = wireguard.Client()
        self._indices: dict[str, int] = {}

    def close(self) -> None:
        """Close the sockets."""
        self.netlink.close()
        self._ethtool.close()
        self._wireguard.close()

    def look(self) -> Present:
        """What is there. Raises KernelError."""
        every = links.dump(self.netlink)
        self._indices = {one.name: one.ifindex for one in every}
        names = {one.ifindex: one.name for one in every}
        ours = [one for one in every if _is_ours(one)]
        devices = {one.name: self._device(one) for one in ours}
        state = State(devices, self._routes(names))
        for one in ours:
            state = self._with(state, one)
        return Present(state, frozenset(self._indices) - devices.keys())

    def routes_of_others(self) -> list[MarkedRoute]:
        """The main table's routes that are not ours. Raises KernelError."""
        return marked_routes.dump(self.netlink, but=PROTOCOL)

    def public_key(self, name: str) -> bytes:
        """What the kernel computes of a WireGuard device's private key. Raises KernelError."""
        return self._wireguard.read(self._indices[name]).public

    def index_of(self, name: str) -> int:
        """The index of a link when it was last seen, 0 if it was not."""
        return self._indices.get(name, 0)

    def _device(self, link: Link) -> Device:
        shape = _shape(link)
        is_vxlan = isinstance(shape, Vxlan)
        return Device(
            link.name,
            link.kind,
            shape,
            link.mtu,
            link.mac if is_vxlan else "",
            frozenset(one.address for one in addresses.dump(self.netlink, link.ifindex)),
            link.up,
            self._ethtool.leaves_checksums(link.name) if is_vxlan else None,
        )

    def _routes(self, names: Mapping[int, str]) -> frozenset[Route]:
        found = marked_routes.dump(self.netlink, protocol=PROTOCOL)
        # The index says the same of a link that has gone meanwhile.
        self._indices |= {f"#{one.link}": one.link for one in found}
        through = {
            Route(
                one.destination,
                names.get(one.link, f"#{one.link}"),
                one.gateway,
                one.onlink,
                one.encap,
            )
            for one in found
            if one.kind == UNICAST and one.priority == DEFAULT_PRIORITY[one.destination.version]
        }
        last = {
            Route(one.destination, "")
            for one in found
            if one.kind == UNREACHABLE and one.priority == _LAST_PRIORITY
        }
        return frozenset(through | last)

    def _with(self, state: State, link: Link) -> State:
        """The state and what is on one of our links."""
        name, index = link.name, link.ifindex
        if link.kind == vxlan.KIND:
            known = [Neighbour(name, *one) for one in neighbours.permanent(self.netlink, index)]
            entries = neighbours.forwardings(self.netlink, index)
            sent = [Forwarding(name, one.mac, one.address) for one in entries]
            return replace(
                state,
                neighbours=state.neighbours | frozenset(known),
                forwardings=state.forwardings | frozenset(sent),
            )
        if link.kind == wireguard.KIND:
            device = self._wireguard.read(index)
            peers = [
                Tunneled(
                    name, one.public, one.host, one.port, one.allowed, one.preshared,
                    one.keepalive, one.is_settled,
                )
                for one in device.peers
            ]  # fmt: skip
            return replace(
                state,
                keys=state.keys | {Keys(name, device.private, device.port)},
                tunneled=state.tunneled | frozenset(peers),
            )
        return state

    def carry_out(self, operation: Operation) -> None:
        """Do it. Raises KernelError."""
        if isinstance(operation, CreateDevice):
            self._create(operation.device)
        elif isinstance(operation, DeleteDevice):
            links.delete(self.netlink, operation.device.name)
        elif isinstance(operation, ChangeDevice):
            self._change(operation.device, operation.changed)
        elif isinstance(operation, Address):
            self._address(operation)
        else:
            self._thing(operation)

    def _create(self, device: Device) -> None:
        shape = device.shape
        if isinstance(shape, Vxlan):
            made = vxlan.Vxlan(shape.vni, shape.port, shape.local, shape.learning, shape.gbp)
            request = vxlan.create(
                device.name, made, mac=device.mac, mtu=device.mtu, group=_UNFINISHED
            )
        elif isinstance(shape, Tunnel):
            request = ip_tunnels.create_ipip(
                device.name, shape.local, mtu=device.mtu, group=_UNFINISHED
            )
        elif isinstance(shape, Tunnel6):
            request = ip_tunnels.create_ip6tnl(device.name, mtu=device.mtu, group=_UNFINISHED)
        else:
            request = wireguard.create(device.name, mtu=device.mtu, group=_UNFINISHED)
        try:
            self.netlink.submit(request)
        except KernelError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            msg = f"this kernel has no devices of the kind {device.kind}"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, str(error)) from error
        link = links.get(self.netlink, device.name)
        if link is None:
            raise CniError(Code.TRY_AGAIN_LATER, f"{device.name} has gone as soon as it was made")
        self._indices[device.name] = link.ifindex
        self.netlink.submit(
            addresses.no_link_local(link.ifindex, link.name), links.set_owner(link.name, LABEL)
        )
        if device.checksums is not None:
            self._ethtool.leave_checksums(device.name, device.checksums)

    def _change(self, device: Device, changed: tuple[str, ...]) -> None:
        """Only what differs: a MAC address that is set again takes all neighbours away too."""
        self._index(device.name)
        if "mtu" in changed:
            self.netlink.submit(links.change(device.name, ("IFLA_MTU", device.mtu)))
        if "mac" in changed and device.mac:
            self.netlink.submit(links.change(device.name, ("IFLA_ADDRESS", device.mac)))
        if "checksums" in changed and device.checksums is not None:
            self._ethtool.leave_checksums(device.name, device.checksums)
        if "up" in changed:
            self.netlink.submit(links.set_up(device.name))

    def _address(self, operation: Address) -> None:
        name, address = operation.device.name, operation.address
        index = self._index(name)
        if operation.add:
            flags = addresses.IFA_F_NODAD if address.version == 6 else 0
            request = addresses.add(index, name, address, flags=flags, tolerate=links.PRESENT)
        else:
            request = addresses.delete(index, name, address)
        self.netlink.submit(request)

    def _index(self, name: str) -> int:
        if name not in self._indices:
            # The same words for all that should be on it: they are told once.
            raise CniError(Code.TRY_AGAIN_LATER, f"there is no link {name}")
        return self._indices[name]

    def _thing(self, operation: Put | Remove) -> None:
        thing = operation.thing
        index = self._index(thing.link) if thing.link else 0
        if isinstance(thing, (Keys, Tunneled)):
            self._wireguard.submit(_of_wireguard(operation, thing, index))
            return
        self.netlink.submit(_request(operation, thing, index))


def _is_ours(link: Link) -> bool:
    return link.alias == LABEL or (link.group == _UNFINISHED and not link.alias)


def _shape(link: Link) -> Shape:
    if link.alias != LABEL:
        return Unfinished()
    if link.kind == vxlan.KIND:
        found = vxlan.read(link)
        if found is not None and found.local is not None:
            return Vxlan(found.vni, found.port, found.local, found.gbp, found.learning)
    if link.kind == ip_tunnels.IP6TNL and ip_tunnels.is_told_by_routes(link):
        return Tunnel6()
    if link.kind == ip_tunnels.IPIP:
        local = ip_tunnels.local_of(link)
        if local is not None:
            return Tunnel(local)
    return WireGuard() if link.kind == wireguard.KIND else Unfinished()


def _request(operation: Put | Remove, thing: Thing, index: int) -> Request:
    what, add = operation.what, isinstance(operation, Put)
    if isinstance(thing, Neighbour):
        entry = Entry(thing.address, thing.mac)
        return (neighbours.put if add else neighbours.remove)(index, entry, what)
    if isinstance(thing, Forwarding):
        entry = Entry(thing.host, thing.mac)
        return (neighbours.forward if add else neighbours.forget)(index, entry, what)
    assert isinstance(thing, Route)
    route = MarkedRoute(
        thing.destination, index, thing.gateway, thing.onlink, PROTOCOL, encap=thing.encap
    )
    if not thing.link:
        route = route._replace(priority=_LAST_PRIORITY, kind=UNREACHABLE)
    if isinstance(operation, Put):
        return marked_routes.put(route, what, replace=operation.instead_of is not None)
    return marked_routes.remove(route, what)


def _of_wireguard(operation: Put | Remove, thing: Keys | Tunneled, index: int) -> Request:
    what = operation.what
    if isinstance(thing, Keys):
        return wireguard.set_keys(index, thing.private, thing.port, what)
    peer = wireguard.Peer(
        thing.public, thing.host, thing.port, thing.allowed, thing.preshared, thing.keepalive
    )
    if isinstance(operation, Put):
        return wireguard.put(index, peer, what)
    return wireguard.remove(index, thing.public, what)
