"""A frame over a bridge: from port to port, to the host, or from the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from cni_py.inventory.model import Attached
    from cni_py.kernel.links import Link
    from cni_py.spec.addresses import IP

    from .packet import Packet
    from .walk import Walk

_CALLED_FOR = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


def pass_on(walk: Walk, packet: Packet, *, bridge: Link, port: Link | None, hop: IP) -> NoReturn:
    """Pass the frame on to whoever has the address `hop`; `port` is None for the host's own.

    Raises Ended: somebody else's way goes on from here, or none.
    """
    host = walk.spaces.host
    if not bridge.up:
        walk.stop("host", "bridge", f"{bridge.name} is down", f"ip link set {bridge.name} up")
    if port is not None:
        walk.bridge_through("prerouting", packet._replace(iif=port.name))
    if port is not None and host.owns(hop):
        _require_vlan(walk, bridge, port, bridge)
        walk.bridge_through("input", packet._replace(iif=port.name))
        walk.say(host, "bridge", f"comes in through {bridge.name} (port {port.name})")
        walk.receive(host, packet, bridge)
    target = _holder(walk, bridge, hop)
    if target is None or target.host is None:
        text = f"nobody on {bridge.name} has the address {hop}: it is asked for in vain"
        remedy = f"is the container there? cni-py ipam show; ip neigh show {hop}"
        walk.stop("host", "neighbour", text, remedy)
    outer = host.links[target.host.ifindex]
    _require_passage(walk, bridge, port, outer)
    if port is None:
        walk.bridge_through("output", packet._replace(oif=outer.name))
    else:
        packet = _between_ports(walk, packet, bridge, port, outer)
    walk.bridge_through("postrouting", packet._replace(oif=outer.name))
    walk.say(host, "bridge", f"{bridge.name} passes it on to {outer.name}")
    walk.enter(packet, target)


def _between_ports(walk: Walk, packet: Packet, bridge: Link, port: Link, outer: Link) -> Packet:
    """From one port to another: the rules of IP see it only where br_netfilter has them do so."""
    host = walk.spaces.host
    if not host.sysctl(_CALLED_FOR[packet.version]):
        walk.bridge_through("forward", packet._replace(iif=port.name, oif=outer.name))
        return packet
    walk.say(host, "bridge", "br_netfilter has it pass the rules of IP", effect="note")
    seen = packet._replace(iif=bridge.name, oif="", dnat=False, snat=False)
    changed = walk.ip_through("prerouting", seen)
    if changed.destination != packet.destination:
        walk.after_prerouting(host, changed, bridge)
    walk.bridge_through("forward", packet._replace(iif=port.name, oif=outer.name))
    changed = walk.ip_through("forward", changed._replace(oif=bridge.name))
    return walk.ip_through("postrouting", changed)


def _holder(walk: Walk, bridge: Link, hop: IP) -> Attached | None:
    """The container on the bridge that has an address."""
    for one in walk.spaces.attachments:
        outer = None if one.host is None else walk.spaces.host.links.get(one.host.ifindex)
        if outer is None or outer.master != bridge.ifindex:
            continue
        if str(hop) in (each.partition("/")[0] for each in one.addresses):
            return one
    return None


def _require_passage(walk: Walk, bridge: Link, port: Link | None, outer: Link) -> None:
    if not outer.up:
        walk.stop("host", "bridge", f"{outer.name} is down", f"ip link set {outer.name} up")
    if port is not None and port.isolated and outer.isolated:
        text = f"{port.name} and {outer.name} are isolated from one another on {bridge.name}"
        walk.stop("host", "bridge", text, '"portIsolation" of the network keeps them apart')
    if port is not None and port.ifindex == outer.ifindex and not outer.hairpin:
        text = f"{outer.name} sends nothing back to where it came from: hairpin mode is off"
        walk.stop("host", "bridge", text, '"hairpinMode": true in the network')
    _require_vlan(walk, bridge, port, outer)


def _require_vlan(walk: Walk, bridge: Link, port: Link | None, target: Link) -> None:
    """What comes in untagged gets the port's PVID, and leaves through ports of that VLAN."""
    if not bridge.vlan_filtering:
        return
    vlans = walk.spaces.vlans
    coming, going = port or bridge, vlans.get(target.ifindex, ())
    own = next((one for one, is_pvid in vlans.get(coming.ifindex, ()) if is_pvid), None)
    if own is None:
        text = f"{coming.name} takes no untagged frames: it has no PVID"
        walk.stop("host", "vlan", text, f"bridge vlan add dev {coming.name} vid VLAN pvid untagged")
    if own not in {one for one, _ in going}:
        text = f"{coming.name} is in VLAN {own}, {target.name} is not"
        walk.stop("host", "vlan", text, "bridge vlan show; the networks' keys `vlan` differ")
