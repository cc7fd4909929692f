"""Read the inventory of the host that the thread is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from cni_py.kernel import addresses, links, routes, tc
from cni_py.kernel.netlink import Netlink
from cni_py.plugins import ifb
from cni_py.runtime.folders import DEFAULT_FOLDER
from cni_py.spec.attachment import key_in
from cni_py.spec.texts import encodable

from . import configurations, pools
from .attaching import Host, attached
from .checking import problems_of
from .known import read_files
from .model import (
    Allowed,
    Attached,
    Bridge,
    HostLink,
    Inventory,
    Masquerade,
    Network,
    Published,
    Vlan,
)
from .namespaces import Namespaces, interface
from .rules import read_rules
from .sysctls import with_sysctls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .configurations import Configured
    from .model import Pool, Problem


R = TypeVar("R", Published, Masquerade, Allowed)


def read(net_dir: str = DEFAULT_FOLDER) -> Inventory:
    """Everything that is found; `net_dir` has the networks' configurations. Changes nothing.

    Raises CniError where the kernel does not answer; what is damaged or cannot be read otherwise is
    among the inventory's problems.
    """
    problems: list[Problem] = []
    configured = configurations.configured(problems, net_dir)
    cached = list(configurations.kept(problems))
    known = {id(one.configured): one.configured for one in cached if one.configured is not None}
    every = [*configured, *known.values()]
    runs = pools.runs_of(every)
    listings = pools.listings(every)
    files = read_files(cached, listings, problems)
    with Netlink() as netlink:
        host = _host(netlink)
        paths = (path for its in files.known.values() for path in its.paths)
        namespaces = Namespaces(netlink, paths)
        attachments = attached(host, namespaces, files.known, runs)
        rules = read_rules(files.records, problems)
        rest = tuple(_links(host, attachments))
    chains = {one.network.name: one.network.plugins for one in reversed(configured)}
    attachments = tuple(
        replace(
            one,
            plugins=one.plugins or chains.get(one.network, ()),
            names=files.names.get(one.key, ()),
        )
        for one in attachments
    )
    attachments = with_sysctls(attachments, configured, files.known)
    bridges = tuple(_bridges(host, configured, attachments))
    states: dict[str, dict[tuple[str, str], Attached]] = {}
    for one in attachments:
        states.setdefault(one.network, {})[one.container_id, one.ifname] = one
    found = tuple(
        pools.pool(
            name,
            listed,
            runs.get(name, ()),
            {owner: one.state for owner, one in states.get(name, {}).items()},
        )
        for (name, _), listed in sorted(listings.items())
        if listed.allocations or name in runs
    )
    problems += pools.damage(found)
    read = Inventory(
        networks=tuple(_networks(configured, every, attachments, found)),
        bridges=bridges,
        attachments=attachments,
        links=rest,
        pools=found,
        ports=_owned(rules.ports, attachments),
        masquerades=_owned(rules.masquerades, attachments),
        allowed=_owned(rules.allowed, attachments),
    )
    problems += problems_of(read)
    return _encodable(replace(read, problems=tuple(problems)))


def _encodable(inventory: Inventory) -> Inventory:
    """The inventory with texts that UTF-8 has: a link's name or a file's may be any bytes."""
    try:
        msgspec.json.encode(inventory)
    except UnicodeEncodeError:
        return msgspec.convert(encodable(msgspec.to_builtins(inventory)), Inventory)
    return inventory


def _host(netlink: Netlink) -> Host:
    have = links.dump(netlink)
    filtering = any(one.vlan_filtering for one in have)
    vlans = links.bridge_vlans_by_port(netlink) if filtering else {}
    return Host(
        netlink,
        {one.ifindex: one for one in have},
        addresses.dump_all(netlink),
        {index: tuple(map(_vlan, own)) for index, own in vlans.items()},
        tc.dump(netlink),
    )


def _vlan(one: tuple[int, int]) -> Vlan:
    number, flags = one
    return Vlan(
        id=number,
        pvid=bool(flags & links.BRIDGE_VLAN_PVID),
        untagged=bool(flags & links.BRIDGE_VLAN_UNTAGGED),
    )


def _networks(
    configured: Sequence[Configured],
    every: Sequence[Configured],
    attachments: Sequence[Attached],
    found: Sequence[Pool],
) -> Iterator[Network]:
    """Those that are configured, then those that are only attached to or allocated from.

    Of the latter a cache may tell the configuration that they had.
    """
    names = {one.network.name for one in configured}
    yield from (one.network for one in configured)
    known = {one.network.name: one.network for one in every}
    others = {one.network for one in attachments} | {one.network for one in found if one.given}
    for name in sorted(others - names):
        on = {one.host.master for one in attachments if one.network == name and one.host}
        bridge = next(iter(sorted(on - {""})), "")
        yield known.get(name) or Network(name=name, bridge=bridge)


def _bridges(
    host: Host, configured: Sequence[Configured], attachments: Sequence[Attached]
) -> Iterator[Bridge]:
    networks: dict[str, set[str]] = {}
    for one in configured:
        if one.network.bridge:
            networks.setdefault(one.network.bridge, set()).add(one.network.name)
    for each in attachments:
        if each.host is not None and each.host.master:
            networks.setdefault(each.host.master, set()).add(each.network)
    ports: dict[int, list[str]] = {}
    for link in host.links.values():
        ports.setdefault(link.master, []).append(link.name)
    for link in host.links.values():
        if link.kind == "bridge" and link.name in networks:
            own = replace(
                interface(link, have=host.addresses.get(link.ifindex, ())),
                vlans=host.vlans.get(link.ifindex, ()),
            )
            yield Bridge(
                interface=own,
                networks=tuple(sorted(networks[link.name])),
                ports=tuple(sorted(ports.get(link.ifindex, ()))),
                vlan_filtering=link.vlan_filtering,
            )


def _links(host: Host, attachments: Sequence[Attached]) -> Iterator[HostLink]:
    """Uplinks, parents, what else is on the bridges, and blocks."""
    ends = {one.host.ifindex for one in attachments if one.host is not None}
    uplinks = {hop.link for hop in routes.default_hops(host.netlink)}
    parents = {one.inside.parent for one in attachments if one.inside and one.inside.parent}
    bridges = {one.host.master for one in attachments if one.host is not None}
    blocks = host.block_keys(attachments)
    for link in host.links.values():
        master = host.name_of(link.master)
        its = interface(link, have=host.addresses.get(link.ifindex, ()), master=master)
        if link.ifindex in ends:
            continue
        if link.kind == ifb.KIND:
            key = key_in(link.alias) or blocks.get(link.name, "")
            if key:
                yield HostLink(interface=its, role="block", key=key)
        elif link.ifindex in uplinks:
            yield HostLink(interface=its, role="uplink")
        elif link.name in parents:
            yield HostLink(interface=its, role="parent")
        elif master and master in bridges:
            yield HostLink(interface=its, role="port")


def _owned(listed: Sequence[R], attachments: Sequence[Attached]) -> tuple[R, ...]:
    """The rules with their owners, where a key or an address tells what the rule did not."""
    by_key = {one.key: one for one in attachments}
    by_address = {
        address.partition("/")[0]: one for one in attachments for address in one.addresses
    }
    found = []
    for rule in listed:
        owner = by_key.get(rule.key) or by_address.get(rule.address)
        if owner is not None and rule.container_id in ("", owner.container_id):
            own = {"container_id": owner.container_id, "network": owner.network}
            rule = replace(rule, **own, key=owner.key)  # noqa: PLW2901 - completed
        found.append(rule)
    return tuple(found)
