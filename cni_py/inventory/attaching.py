"""Attachments: what labels, files and namespaces say of each, put together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from cni_py.kernel import routes
from cni_py.plugins import ifb
from cni_py.spec.attachment import Attachment, key_in, read_label
from cni_py.spec.results import DNS, Result

from .known import Known
from .model import CNI_PY, REFERENCE, Attached, Interface, Namespace, Route, State
from .namespaces import interface
from .pools import with_prefix
from .rates import rates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cni_py.kernel.addresses import Address
    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.tc import Qdisc
    from cni_py.spec import results

    from .model import Vlan
    from .namespaces import Inside, Namespaces
    from .pools import Runs

# How a label names a container whose id was cut off.
_CUT_OFF = re.compile(r"net: (?P<network>.*?), if: (?P<ifname>.*?), id: (?P<id>.*)")


class Host(NamedTuple):
    """The host's side: its links, and their addresses, VLANs and queues by index."""

    netlink: Netlink
    links: Mapping[int, Link]
    addresses: Mapping[int, Sequence[Address]]
    vlans: Mapping[int, tuple[Vlan, ...]]
    queues: Mapping[int, Sequence[Qdisc]]

    def name_of(self, index: int) -> str:
        """A link's name, `""` where there is none."""
        return self.links[index].name if index in self.links else ""

    def block_keys(self, attachments: Iterable[Attached]) -> dict[str, str]:
        """The keys of attachments by the name that their block has, also the reference's."""
        return {name: one.key for one in attachments for name in ifb.names(one.attachment)}


class Place(NamedTuple):
    """Where an attachment was found: its host end, and the namespace with its interface."""

    port: Link | None = None
    inside: Inside | None = None
    link: Link | None = None


def attached(
    host: Host,
    namespaces: Namespaces,
    known: Mapping[Attachment, Known],
    runs: Mapping[str, Runs],
) -> tuple[Attached, ...]:
    """All attachments, in order of network, container and interface."""
    places = dict(_labelled(host, namespaces, known))
    held = {
        (str(one.address), its.attachment.ifname): its.attachment
        for its in known.values()
        for one in its.allocations
    }
    places |= {
        attachment: place
        for attachment, place in _unlabelled(host, namespaces, held)
        if attachment not in places
    }
    blocks = {one.name: one for one in host.links.values() if one.kind == ifb.KIND}
    by_key = {key_in(one.alias): one for one in blocks.values() if key_in(one.alias)}
    found = []
    for attachment in {**known, **places}:
        its = known.get(attachment) or Known(attachment)
        place = places.get(attachment) or _by_path(host, namespaces, its)
        block = by_key.get(attachment.key) or blocks.get(ifb.names(attachment)[0])
        one = _attached(host, namespaces, its, place, runs.get(attachment.network, ()))
        if place.port is not None:
            one = replace(one, rates=rates(host.netlink, place.port, block, host.queues))
        found.append(one)
    return tuple(sorted(found, key=lambda one: one.attachment))


# Where they are.


def _labelled(
    host: Host, namespaces: Namespaces, known: Mapping[Attachment, Known]
) -> Iterator[tuple[Attachment, Place]]:
    """Those whose host end, or interface in a container, has our label."""
    by_key = {one.key: one for one in known}
    for port in host.links.values():
        owner = _owner(port, by_key) if port.kind == "veth" else None
        if owner is not None:
            yield owner, _paired(namespaces, port)
    for inside in namespaces.inside.values():
        for link in inside.links:
            owner = _owner(link, by_key)
            # A host in a namespace has host ends of its own.
            if owner is not None and owner.ifname == link.name:
                yield owner, Place(None, inside, link)


def _owner(link: Link, by_key: Mapping[str, Attachment]) -> Attachment | None:
    key = key_in(link.alias)
    if not key:
        return None
    found = read_label(link.alias) or by_key.get(key)
    if found is None:
        cut = _CUT_OFF.search(link.alias)
        found = None if cut is None else Attachment(cut["network"], cut["id"], cut["ifname"])
    return found


def _paired(namespaces: Namespaces, port: Link) -> Place:
    inside = None if port.peer_netnsid is None else namespaces.by_id.get(port.peer_netnsid)
    if inside is None:
        return Place(port)
    link = next((one for one in inside.links if one.ifindex == port.peer_index), None)
    return Place(port, inside, link)


def _unlabelled(
    host: Host, namespaces: Namespaces, held: Mapping[tuple[str, str], Attachment]
) -> Iterator[tuple[Attachment, Place]]:
    """The reference plugins': an interface has an address that host-local gave to its owner."""
    for inside in namespaces.inside.values():
        for link in inside.links:
            for one in inside.addresses.get(link.ifindex, ()):
                attachment = held.get((str(one.address.ip), link.name))
                if attachment is not None and not key_in(link.alias):
                    yield attachment, Place(_port_of(host, inside, link), inside, link)


def _port_of(host: Host, inside: Inside, link: Link) -> Link | None:
    """The host end of a container's veth; None for anything else."""
    port = host.links.get(link.peer_index) if link.kind == "veth" else None
    if port is None or port.kind != "veth" or port.peer_index != link.ifindex:
        return None
    return port if port.peer_netnsid == inside.namespace.id else None


def _by_path(host: Host, namespaces: Namespaces, its: Known) -> Place:
    """By the path that files name: what has the interface's name there and is nobody else's."""
    for path in dict.fromkeys(its.paths):
        inside = namespaces.by_path.get(path)
        link = None if inside is None else inside.named(its.attachment.ifname)
        if (
            inside is not None
            and link is not None
            and key_in(link.alias) in ("", its.attachment.key)
        ):
            return Place(_port_of(host, inside, link), inside, link)
    return Place()


# What they are.


def _attached(host: Host, namespaces: Namespaces, its: Known, place: Place, runs: Runs) -> Attached:
    result = Result() if its.cached is None else its.cached.result
    given = tuple(with_prefix(str(one.address), runs) for one in its.allocations)
    expected = tuple(str(one.address) for one in _own_ips(result, its.attachment.ifname)) or given
    namespace, state, why = _state(namespaces, its, place)
    inside = _inside(host, place)
    evidence, files = list(its.evidence), tuple(dict.fromkeys(its.files))
    if place.port is not None and key_in(place.port.alias):
        evidence.insert(0, f"label of {place.port.name}")
    elif place.link is not None and key_in(place.link.alias):
        evidence.insert(0, f"label of {place.link.name} in the container")
    by_us = its.by_cni_py or any(one.startswith("label") for one in evidence)
    live = () if place.link is None or place.inside is None else place.inside.routes
    names = {its.attachment.ifname}
    return Attached(
        network=its.attachment.network,
        container_id=its.attachment.container_id,
        ifname=its.attachment.ifname,
        key=its.attachment.key,
        maker=CNI_PY if by_us else REFERENCE,
        state=state,
        why=why,
        namespace=namespace,
        host=None if place.port is None else _host_end(host, place.port),
        inside=inside,
        addresses=expected if inside is None else inside.addresses,
        expected=expected,
        expected_routes=tuple(map(_expected_route, result.routes)),
        expected_mac=_mac(result, its.attachment.ifname),
        gateways=tuple(dict.fromkeys(str(one.gateway) for one in result.ips if one.gateway)),
        routes=tuple(one for one in live if one.dev in names),
        dns=result.dns or DNS(),
        plugins=_chain(its),
        since=its.since,
        evidence=tuple(evidence),
        files=files,
    )


def _own_ips(result: Result, ifname: str) -> Iterator[Any]:
    for one in result.ips:
        index = one.interface
        is_known = index is not None and 0 <= index < len(result.interfaces)
        if not is_known or result.interfaces[index or 0].name == ifname:
            yield one


def _mac(result: Result, ifname: str) -> str:
    own = (one.mac for one in result.interfaces if one.sandbox and one.name == ifname)
    return next(own, "")


def _expected_route(one: results.Route) -> Route:
    return Route(
        destination=str(one.dst.network),
        gateway="" if one.gw is None else str(one.gw),
        table=routes.MAIN_TABLE if one.table is None else one.table,
        metric=one.priority,
        mtu=one.mtu,
    )


def _chain(its: Known) -> tuple[str, ...]:
    configured = None if its.cached is None else its.cached.configured
    return () if configured is None else configured.network.plugins


def _state(namespaces: Namespaces, its: Known, place: Place) -> tuple[Namespace | None, State, str]:
    """The namespace, the state, and why it is that."""
    if place.inside is not None and place.inside.namespace.why:
        return place.inside.namespace, "unknown", place.inside.namespace.why
    if place.link is not None and place.inside is not None:
        return place.inside.namespace, *_of_link(place.link)
    if place.port is not None:
        if place.inside is not None:
            why = f"{place.inside.namespace.path} has no peer of {place.port.name}"
            return place.inside.namespace, "missing", why
        # A pair dies with either of its ends' namespaces: so there is one.
        state, why = _of_link(place.port)
        seen = "its namespace cannot be seen from here"
        return None, state, f"{why}; {seen}" if why else seen
    return _by_files(namespaces, its)


def _of_link(link: Link) -> tuple[State, str]:
    if not link.up:
        return "down", f"{link.name} is down"
    if link.operstate in ("DOWN", "LOWERLAYERDOWN"):
        return "down", f"{link.name} has no carrier"
    return "up", ""


def _by_files(namespaces: Namespaces, its: Known) -> tuple[Namespace | None, State, str]:
    """Of one that the kernel has no interface of."""
    cookies = {
        one.sandbox.cookie
        for one in its.allocations
        if one.sandbox is not None and one.sandbox.cookie is not None
    }
    why = ""
    for path in dict.fromkeys(its.paths):
        inside = namespaces.by_path.get(path)
        if inside is None:
            why = f"its namespace {path} is gone"
        elif inside.namespace.why:
            return inside.namespace, "unknown", inside.namespace.why
        elif cookies and inside.namespace.cookie not in (None, *cookies):
            why = f"{path} is another namespace by now"
        else:
            missing = f"{path} has no interface {its.attachment.ifname} of it"
            return inside.namespace, "missing", missing
    if why:
        return None, "gone", why
    return None, "unknown", "no file says where its namespace was"


def _host_end(host: Host, port: Link) -> Interface:
    own = interface(
        port,
        have=host.addresses.get(port.ifindex, ()),
        master=host.name_of(port.master),
    )
    return replace(own, vlans=host.vlans.get(port.ifindex, ()))


def _inside(host: Host, place: Place) -> Interface | None:
    if place.link is None or place.inside is None:
        return None
    link, inside = place.link, place.inside
    index = {one.ifindex: one.name for one in inside.links}
    parent = ""
    if link.kind != "veth" and link.peer_index:
        # Without a number of a namespace it is in the container's own.
        abroad = link.peer_netnsid is not None
        parent = host.name_of(link.peer_index) if abroad else index.get(link.peer_index, "")
    return interface(
        link,
        have=inside.addresses.get(link.ifindex, ()),
        master=index.get(link.master, ""),
        parent=parent,
    )
