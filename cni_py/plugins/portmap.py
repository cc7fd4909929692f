"""portmap: ports of the host lead to a container's (plugins.md 6.1)."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, conntrack, iptables, links, lock, routes
from cni_py.kernel.errors import unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.nft_table import INET
from cni_py.kernel.nftables import nftables_if_installed
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.errors import CniError, require_none

from . import (
    flushed,
    interface,
    localnet,
    port_claims,
    port_iptables,
    port_nftables,
    records,
    veth,
)
from .evidence import Evidence
from .port_mappings import (
    IPTABLES,
    NFTABLES,
    RECORDS,
    Config,
    DelConfig,
    Record,
    backend_of,
    conditions_of,
    mapped,
    mark_of,
    mistakes,
    require_backend,
)
from .teardown import Teardown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.kernel.conntrack import Flow
    from cni_py.kernel.links import Link
    from cni_py.kernel.nftables import Command
    from cni_py.kernel.routes import Way
    from cni_py.spec.addresses import Cidr
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

    from .port_mappings import Mapped
    from .records import Sandbox

    _Ways = dict[int, tuple[Way | None, Link | None]]
    _Finder = Callable[[Netlink, Mapped], Iterable[Flow]]

__all__ = [
    "Config",
    "DelConfig",
    "add",
    "check",
    "delete",
    "gc",
    "mistakes",
    "restored",
    "status",
]

# Protocols without a first packet that the kernel would know: a flow stays with its old end.
_FLUSHED = ("udp", "sctp")
# Links of these kinds lead to containers; others only if the previous result has them.
_CONTAINER_SIDE = ("bridge", "veth", "tun")
# What can be named in a rule as it is.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@+-]+")


def add(call: Call[Config]) -> Result:
    """Forward the ports; the previous result is passed on as it came."""
    result = interface.previous(call)
    require_none(mistakes(call))
    if not call.config.runtime_config.port_mappings:
        return result
    with interface.require_netns(call, open_netns(call.netns)) as container:
        record = _planned(call, result, records.sandbox_of(container))
    require_backend(record.backend, record.versions)
    attachment = call.attachment
    wanted = port_claims.without_own(attachment, record.mappings)
    if not wanted:
        return result
    record = msgspec.structs.replace(record, mappings=tuple(wanted))
    port_claims.require_free(attachment, wanted)
    earlier = RECORDS.load(attachment)
    if earlier is not None:
        _tear_down(earlier)
    call.scope.enter_context(undone_on_failure(lambda: delete(call)))
    with lock.changing_rules():
        RECORDS.save(record)
        for dead in port_claims.claim(attachment, wanted):
            _tear_down(dead)
        with step("ports"):
            _set_up(record)
        if record.interface:
            with step("localhost"):
                localnet.allow(record.interface, attachment.key, _guard)
    with step("conntrack"):
        _forget_flows(record, _stale_flows)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Undo an ADD: what its record says, or without one what has the container's labels."""
    record = RECORDS.load(call.attachment)
    with step("ports"), lock.changing_rules():
        if record is not None:
            _tear_down(record)
        elif call.config.runtime_config.port_mappings or _may_have_rules(call.attachment):
            _tear_down_unrecorded(call.attachment)
            RECORDS.drop(call.attachment)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    result = interface.previous(call)
    require_none(mistakes(call))
    if not call.config.runtime_config.port_mappings:
        return
    record = RECORDS.load(call.attachment)
    if record is None:
        record = _planned(call, result, records.NOWHERE)
        wanted = port_claims.without_own(call.attachment, record.mappings)
        record = msgspec.structs.replace(record, mappings=tuple(wanted))
    if not record.mappings:
        return
    if (
        record.sandbox is records.NOWHERE
        and record.backend == NFTABLES
        and _has_iptables_chain(call)
    ):
        # The reference's, whose default it is.
        record = msgspec.structs.replace(record, backend=IPTABLES)
    backend = port_nftables if record.backend == NFTABLES else port_iptables
    backend.check(record)
    if record.interface:
        what = f"route_localnet of {record.interface}"
        if not localnet.is_allowed(record.interface):
            raise interface.differs(what, "1", "0")
        if record.sandbox is not records.NOWHERE and not _is_guarded(record.interface):
            raise interface.differs(f"guard of {record.interface}", "a rule that drops", "none")


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, and 51 where published ports are not."""
    with unavailable():
        require_none(mistakes(call))
        backend = backend_of(call.config)
        require_backend(backend, (4,))
    if backend == NFTABLES:
        flushed.require_chain(
            INET, port_nftables.MAPPING_CHAIN, "published ports", partial(_published, call)
        )


def _published(call: Call[Config]) -> int:
    """How many containers of the network live and have ports in nftables' maps."""
    own = [one for one in RECORDS.every() if one.network == call.request.network]
    return sum(one.backend == NFTABLES and one.sandbox.is_alive() for one in own)


def gc(call: Call[DelConfig], collection: Collection) -> None:  # noqa: ARG001 - a handler's form
    """Remove the mappings of the attachments that the collection takes."""
    evidence = Evidence()
    teardown = Teardown()
    for record in RECORDS.taken(collection, "port mappings", evidence.against_record):
        with teardown.step(), lock.changing_rules():
            _tear_down(record)
    if nftables_if_installed() is not None:
        with teardown.step():
            port_nftables.collect(collection)
    with teardown.step():
        port_iptables.collect(collection)

    def against(key: str) -> str:
        """A crash leaves a record as long as anything else."""
        if RECORDS.is_damaged(key):
            return ""
        record = RECORDS.by_key(key)
        return evidence.against_record(record) if record else "no record tells of its mappings"

    for name, key in list(localnet.users()):
        if collection.takes(f"route_localnet of {name}", key, partial(against, key)):
            with teardown.step():
                localnet.forbid(name, key, _unguard)
    port_claims.release_all(lambda key, what: collection.takes(what, key, partial(against, key)))
    if not collection.dry:
        port_claims.tidy()
        with teardown.step():
            _remove_shared()
        with teardown.step():
            _forbid_lost()
    teardown.finish()


def restored() -> tuple[list[Command], dict[tuple[int, str], list[str]]]:
    """What rebuilds the rules of all containers that live, from their records.

    Commands for nftables, and lines for `iptables-restore --noflush` by (IP version, table). Both
    may be applied to what is intact, and to what somebody has flushed. Raises CniError.
    """
    alive = [one for one in RECORDS.every() if one.sandbox.is_alive()]
    nft = nftables_if_installed() is not None
    by_nftables = [one for one in alive if one.backend == NFTABLES]
    lines = port_iptables.restored(one for one in alive if one.backend == IPTABLES)
    guarded = {one.interface: localnet.was_off(one.interface) for one in alive if one.interface}
    if not nft:
        raw = [one for name in sorted(guarded) for one in port_iptables.missing_guards(name)]
        return [], {**lines, **({(4, "raw"): raw} if raw else {})}
    if not by_nftables and not guarded:
        return [], lines
    return port_nftables.restored(by_nftables, guarded), lines


# ADD.


def _planned(call: Call[Config], result: Result, sandbox: Sandbox) -> Record:
    """Everything that the configuration asks for, checked. Raises CniError."""
    config, attachment = call.config, call.attachment
    mappings, own = mapped(config, result, call.ifname)
    chain, bit = mark_of(config)
    with Netlink() as host:
        ways: _Ways = {one.version: _way(host, one) for one in own}
    is_by_ipv4 = any(one.version == 4 for one in mappings)
    sources = []
    for one in own:
        _, link = ways[one.version]
        # Neighbours on a bridge answer each other past the host; others are routed through it.
        is_shared = link is not None and link.kind == "bridge"
        network = one.network if is_shared else f"{one.ip}/{one.ip.max_prefixlen}"
        sources.append(str(network))
    return Record(
        attachment=attachment,
        sandbox=sandbox,
        backend=backend_of(config),
        mappings=tuple(mappings),
        addresses=tuple(map(str, own)),
        sources=tuple(sources),
        snat=config.snat,
        masq_all=config.masq_all,
        mark_chain=chain,
        mark_bit=bit,
        conditions=conditions_of(config),
        interface=_localnet_interface(config, result, ways) if is_by_ipv4 else "",
    )


def _way(host: Netlink, address: Cidr) -> tuple[Way | None, Link | None]:
    way = routes.way_to(host, address.ip)
    return way, links.get_by_index(host, way.link) if way is not None else None


def _localnet_interface(config: Config, result: Result, ways: _Ways) -> str:
    """The host's interface to the container, which is to pass packets from 127.0.0.1; or `""`.

    Never one that leads elsewhere too: the parent of a macvlan is an interface to the outside.
    """
    way, link = ways.get(4, (None, None))
    if not config.snat or way is None or link is None or not way.is_neighbour:
        return ""
    listed = {one.name for one in result.interfaces if not one.sandbox}
    is_of_container = link.kind in _CONTAINER_SIDE or link.name in listed
    return link.name if is_of_container and _PLAIN_NAME.fullmatch(link.name) else ""


def _set_up(record: Record) -> None:
    if record.backend == IPTABLES:
        port_iptables.set_up(record)
        return
    if record.conditions:
        parsed = port_nftables.parse_conditions(record)
        record = msgspec.structs.replace(record, parsed=parsed)
        RECORDS.save(record)
    key = record.attachment.key
    port_nftables.set_up(record, lambda label: label.startswith(key) or _is_dead(label))


def _is_dead(label: str) -> bool:
    """Whether the owner that a label names is gone. Without a record its interface tells."""
    key = label.partition(",")[0]
    record = RECORDS.by_key(key)
    if record is not None:
        return not record.sandbox.is_alive()
    if RECORDS.is_damaged(key):
        return False
    with Netlink() as host:
        return not veth.is_attached(host, key)


# DEL.


def _tear_down(record: Record) -> None:
    """Take away what the record says; the record goes when all of it is gone. Raises CniError."""
    key = record.attachment.key
    teardown = Teardown()
    with teardown.step():
        backend = port_nftables if record.backend == NFTABLES else port_iptables
        backend.tear_down(record)
    with teardown.step():
        _forget_flows(record, _own_flows)
    if record.interface:
        with teardown.step():
            localnet.forbid(record.interface, key, _unguard)
    teardown.finish()
    port_claims.release(record.attachment, record.mappings)
    if port_iptables.is_in_use():
        _remove_shared()
    RECORDS.drop(record.attachment)


def _tear_down_unrecorded(attachment: Attachment) -> None:
    """Look for the container's rules in all backends: the reference plugin's too (W-PM4)."""
    teardown = Teardown()
    if nftables_if_installed() is not None:
        with teardown.step():
            port_nftables.forget(attachment)
            port_nftables.delete_reference_rules(attachment)
    with teardown.step():
        port_iptables.forget(attachment)
    for name, key in list(localnet.users()):
        if key == attachment.key:
            with teardown.step():
                localnet.forbid(name, key, _unguard)
    port_claims.release_all(lambda key, _: key == attachment.key)
    with teardown.step():
        _remove_shared()
    with teardown.step():
        _forbid_lost()
    teardown.finish()


def _forbid_lost() -> None:
    """Put the interfaces back whose files are lost, once no port is mapped that may need them."""
    if nftables_if_installed() is None:
        return
    used = {name for name, _ in localnet.users()}
    lost = [one for one in port_nftables.guarded() if one[0] not in used]
    if lost and not port_nftables.maps_any(4) and not port_iptables.maps_any(4):
        for name, was_off in lost:
            localnet.forbid_lost(name, _unguard, was_off=was_off)


def _may_have_rules(attachment: Attachment) -> bool:
    """Whether ports may be mapped, when nobody says so any more: by the reference plugin (W-PM3),
    or by us, and the record was damaged or lost.

    One look at the names of nf_tables' chains: no process is started for a container without ports.
    """
    if RECORDS.is_damaged(attachment.key):
        return True
    names = [port_iptables.chain_of(attachment), port_nftables.REFERENCE_CHAIN]
    if not os.path.isdir(RECORDS.folder):
        names.append(port_nftables.MAPPING_CHAIN)
    return nftables_if_installed() is not None and port_nftables.chains_named(names)


def _has_iptables_chain(call: Call[Config]) -> bool:
    chain = port_iptables.chain_of(call.attachment)
    return iptables.available(4) and iptables.rules(4, "nat", chain) is not None


def _remove_shared() -> None:
    with port_iptables.sharing():
        if not port_claims.are_any():
            port_iptables.remove_shared()


# Flows that were there before.


def _forget_flows(record: Record, found: _Finder) -> None:
    """Have the kernel forget the flows of ports whose protocols have no beginning.

    Where it cannot, they last until they have been silent for minutes: no reason to fail.
    """
    ports = [one for one in record.mappings if one.protocol in _FLUSHED]
    if not ports:
        return
    try:
        with conntrack.opened() as netlink:
            flows = [flow for one in ports for flow in found(netlink, one)]
            conntrack.forget(netlink, flows)
    except CniError as error:
        sys.stderr.write(f"cni-py: flows to mapped ports stay: {error}\n")


def _stale_flows(netlink: Netlink, one: Mapped) -> Iterable[Flow]:
    """The flows to the host's port that lead elsewhere; those through the host stay (W-PM7)."""
    destination = ip_address(one.host_ip) if one.host_ip else None
    flows = conntrack.to_port(
        netlink, one.version, one.protocol, one.host_port, destination=destination
    )
    own = (ip_address(one.address), one.container_port)
    flows = [flow for flow in flows if (flow.answering, flow.answering_port) != own]
    if not flows or destination is not None:
        return flows
    with Netlink() as host:
        have = addresses.dump_all(host, version=one.version).values()
    local = {held.address.ip for listed in have for held in listed}
    return [flow for flow in flows if flow.destination in local or flow.destination.is_loopback]


def _own_flows(netlink: Netlink, one: Mapped) -> Iterable[Flow]:
    """The flows through the port that the container answers."""
    address = ip_address(one.address)
    flows = conntrack.to_port(netlink, one.version, one.protocol, one.host_port, answering=address)
    return [flow for flow in flows if flow.answering_port == one.container_port]


# The guard is the host's own matter: one kind a host, whatever the containers' backends are.


def _guard(name: str) -> None:
    if nftables_if_installed() is None:
        port_iptables.guard(name)
    else:
        port_nftables.guard(name, was_off=localnet.was_off(name))


def _unguard(name: str) -> None:
    (port_iptables if nftables_if_installed() is None else port_nftables).unguard(name)


def _is_guarded(name: str) -> bool:
    if nftables_if_installed() is None:
        return port_iptables.is_guarded(name)
    return port_nftables.is_guarded(name)
