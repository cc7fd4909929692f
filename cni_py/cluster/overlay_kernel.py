"""A node's kernel as overlays see it: what of ours is there, and carrying operations out.

Ours are the links with the alias `cni-py: overlay` and what is on them, and the main table's routes
of protocol 67 (decision 43). Sockets stay in the namespace in which this was made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, ip_tunnels, links, marked_routes, neighbours, vxlan, wireguard
from cni_py.kernel.ethtool import Ethtool
from cni_py.kernel.marked_routes import DEFAULT_PRIORITY, MarkedRoute
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
        return [one for one in marked_routes.dump(self.netlink) if one.protocol != PROTOCOL]

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
        return frozenset(
            Route(one.destination, names.get(one.link, f"#{one.link}"), one.gateway, one.onlink)
            for one in found
            if one.unicast and one.priority == DEFAULT_PRIORITY[one.destination.version]
        )

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
            self._change(operation.device)
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
        elif isinstance(shape, Tunnel) and shape.local.version == 4:
            request = ip_tunnels.create(
                device.name, device.kind, shape.local, mtu=device.mtu, group=_UNFINISHED
            )
        else:
            request = wireguard.create(device.name, mtu=device.mtu, group=_UNFINISHED)
        self.netlink.submit(request)
        link = links.get(self.netlink, device.name)
        if link is None:
            raise CniError(Code.TRY_AGAIN_LATER, f"{device.name} has gone as soon as it was made")
        self._indices[device.name] = link.ifindex
        self.netlink.submit(
            addresses.no_link_local(link.ifindex, link.name), links.set_owner(link.name, LABEL)
        )

    def _change(self, device: Device) -> None:
        changes: list[tuple[str, object]] = [("IFLA_MTU", device.mtu)]
        if device.mac:
            changes.append(("IFLA_ADDRESS", device.mac))
        if device.checksums is not None:
            self._ethtool.leave_checksums(device.name, device.checksums)
        self.netlink.submit(links.change(device.name, *changes))
        self.netlink.submit(links.set_up(device.name))

    def _address(self, operation: Address) -> None:
        name, address = operation.device.name, operation.address
        index = self._indices[name]
        if operation.add:
            flags = addresses.IFA_F_NODAD if address.version == 6 else 0
            request = addresses.add(index, name, address, flags=flags, tolerate=links.PRESENT)
        else:
            request = addresses.delete(index, name, address)
        self.netlink.submit(request)

    def _thing(self, operation: Put | Remove) -> None:
        thing, what = operation.thing, operation.what
        index = self._indices.get(thing.link)
        if index is None:
            raise CniError(Code.TRY_AGAIN_LATER, f"{what}: there is no link {thing.link}")
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
    if link.kind in (ip_tunnels.IPIP, ip_tunnels.SIT):
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
    route = MarkedRoute(thing.destination, index, thing.gateway, thing.onlink, PROTOCOL)
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
