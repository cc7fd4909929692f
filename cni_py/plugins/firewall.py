"""firewall: let containers' traffic through the host, isolate their bridges (plugins.md 6.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import firewalld, iptables, links, state_files
from cni_py.kernel.errors import unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.nftables import nftables, nftables_if_installed
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.attachment import Attachment
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, require_none

from . import firewall_iptables, firewall_nftables, firewall_record, firewall_zone, interface
from . import records as kept
from .chained import container_ips
from .evidence import Evidence
from .firewall_record import ISOLATED, OPEN, RECORDS, SAME_BRIDGE, Record
from .teardown import Teardown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.nftables import Command
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

IPTABLES, NFTABLES, FIREWALLD = "iptables", "nftables", "firewalld"
_BACKENDS = (IPTABLES, NFTABLES, FIREWALLD)
_POLICIES = (OPEN, SAME_BRIDGE, ISOLATED)
# What iptables takes for a chain's name, without what it would read otherwise.
_CHAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,27}")
_TAKEN_CHAINS = frozenset(
    {"INPUT", "FORWARD", "OUTPUT", "ACCEPT", "DROP", "RETURN", "QUEUE"}
    | {firewall_iptables.FORWARD, firewall_iptables.STAGE_1, firewall_iptables.STAGE_2}
)


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL reads of containers that no record tells of."""

    firewalld_zone: str = "trusted"
    """firewalld: the zone that gets the addresses as sources."""
    ingress_policy: str = ""
    """Which containers may connect to this one: `open` (also when absent), `same-bridge` or
    `isolated`.
    """


class Config(DelConfig, frozen=True, kw_only=True):
    """firewall's configuration; `""` is as absent."""

    backend: str = ""
    """`firewalld`, `iptables` or `nftables`. None: firewalld if it runs, else iptables if it is
    installed, else nftables.
    """
    iptables_admin_chain_name: str = "CNI-ADMIN"
    """The operator's own chain; nftables has `forward_admin` for it."""


def add(call: Call[Config]) -> Result:
    """Accept the traffic of the container's addresses, and isolate its bridge as configured."""
    result = _previous(call)
    record = _planned(call, result, checked(call))
    stale = RECORDS.load(call.attachment)
    if stale is not None:
        _remove(stale)
    call.scope.enter_context(undone_on_failure(lambda: _remove(record)))
    with step(record.backend), firewall_record.serialised(record):
        RECORDS.save(record)
        firewall_record.hold(record)
        _set_up(record)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Remove what ADD has recorded; without a record, what can be found."""
    record = RECORDS.load(call.attachment)
    if record is not None:
        with step(record.backend):
            _remove(record)
        return
    # The reference plugin's container, or one whose record was lost.
    teardown = Teardown()
    with teardown.step(), step("look for rules"):
        firewall_nftables.forget(call.attachment.key)
    key = call.attachment.key
    lost = _lost(call)
    addresses = lost.addresses
    free = [one for one in addresses if firewall_record.live_holder(one, key) is None]
    if free:
        with teardown.step(), step("look for rules"):
            firewall_iptables.forget_addresses(free, (4, 6))
        with teardown.step(), step("look for rules"):
            firewall_zone.forget(call.config.firewalld_zone, free)
    if lost.bridge:
        with teardown.step(), step("look for isolation"):
            _end_isolation(lost)
    teardown.finish()
    firewall_record.release(lost)
    # One that was damaged, or never finished.
    RECORDS.drop(call.attachment)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    result = _previous(call)
    record = RECORDS.load(call.attachment)
    is_ours = record is not None
    if record is None:
        # Of the reference plugin's container what it has set is looked for.
        record = _planned(call, result, _backend_of_the_reference(checked(call)))
        wanted = _addresses(result, call.ifname)
    else:
        wanted = list(record.addresses)
    interface.require_same("addresses", _addresses(result, call.ifname), wanted)
    interface.require_same("ingressPolicy", call.config.ingress_policy or OPEN, record.policy)
    if IPTABLES in (record.backend, record.isolation):
        firewall_iptables.check(record, is_ours=is_ours)
    if record.uses_nftables:
        firewall_nftables.check(record)
    if record.backend == FIREWALLD:
        firewall_zone.check(record)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, and 51 where containers lack their rules.

    Of iptables' rules only a program can tell, which takes longer than all else.
    """
    with unavailable():
        backend = checked(call)
        if backend == IPTABLES:
            firewall_iptables.require((4,))
    if backend == NFTABLES:
        firewall_nftables.require_rules(call.request.network)


def gc(call: Call[DelConfig], collection: Collection) -> None:  # noqa: ARG001 - a handler's form
    """Remove the rules of the attachments that the collection takes."""
    evidence = Evidence()
    teardown = Teardown()
    for path in RECORDS.taken_damaged(collection):
        # The sign that something is not known goes last.
        with teardown.step():
            _forget_noted(state_files.key_of(path), collection.network)
            state_files.discard(path)
    for record in RECORDS.taken(collection, "firewall rules", evidence.against_record):
        with teardown.step():
            _remove(record)
    with teardown.step():
        firewall_nftables.collect(collection)
    teardown.finish()
    RECORDS.collect(collection, lambda key: evidence.against_record(RECORDS.by_key(key)))


def restored() -> tuple[list[Command], dict[tuple[int, str], list[str]]]:
    """What lets the containers through that live, and isolates them, as their ADDs did: nftables'
    commands, and the lines for iptables-restore of each IP version and table. Raises CniError.
    """
    live = firewall_record.live_records()
    commands = firewall_nftables.restoring(live)
    lines = {}
    for version in (4, 6):
        listed = [
            one
            for one in live
            if IPTABLES in (one.backend, one.isolation) and version in one.versions
        ]
        if listed:
            lines[version, "filter"] = firewall_iptables.restoring(listed, version)
    return commands, lines


def lost_sources() -> list[Record]:
    """The living containers whose addresses firewalld has to have. Raises CniError."""
    return [one for one in firewall_record.live_records() if one.backend == FIREWALLD]


# What is to be set.


def _previous(call: Call[Config]) -> Result:
    if call.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "missing prevResult from earlier plugin")
    return call.prev_result


def checked(call: Call[Config]) -> str:
    """Check what types cannot say; returns the backend, which can be used. Raises CniError."""
    require_none(mistakes(call))
    backend = call.config.backend or _default_backend()
    if backend == NFTABLES:
        nftables()
    elif backend == FIREWALLD:
        firewalld.require().close()
    return backend


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    if config.ingress_policy not in ("", *_POLICIES):
        msg = f'unknown ingress policy: "{config.ingress_policy}"'
        details = f"ingressPolicy is one of {', '.join(_POLICIES)}"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="ingressPolicy")
    if config.backend not in ("", *_BACKENDS):
        msg = f'unknown backend: "{config.backend}"'
        details = f"backend is one of {', '.join(_BACKENDS)}"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="backend")
    chain = config.iptables_admin_chain_name
    if not _CHAIN_NAME.fullmatch(chain) or chain in _TAKEN_CHAINS:
        msg = f'iptablesAdminChainName "{chain}" cannot be the name of a chain'
        details = "up to 28 letters, digits, `_`, `-`, `.`, `:`; none of the plugin's own chains"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="iptablesAdminChainName")
    if not config.firewalld_zone:
        msg, details = "firewalldZone is empty", "it names a zone"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="firewalldZone")


def _backend_of_the_reference(backend: str) -> str:
    """What it has used where the list may have another backend by now: it has no nftables."""
    if backend == NFTABLES and iptables.available(4):
        chain = iptables.rules(4, "filter", firewall_iptables.FORWARD)
        return IPTABLES if chain else backend
    return backend


def _default_backend() -> str:
    """The reference's choice, and nftables where iptables is not installed."""
    found = firewalld.running()
    if found is not None:
        found.close()
        return FIREWALLD
    return IPTABLES if iptables.available(4) or nftables_if_installed() is None else NFTABLES


def _planned(call: Call[Config], result: Result, backend: str) -> Record:
    """What ADD is to set, checked as far as it can be. Raises CniError."""
    config, attachment = call.config, call.attachment
    addresses = tuple(_addresses(result, call.ifname))
    policy = config.ingress_policy or OPEN
    bridge = port = isolation = ""
    if policy != OPEN:
        isolation = _isolation_backend(backend)
        bridge, port = _reached_through(result, policy)
        if isolation == IPTABLES:
            firewall_iptables.require_plain(bridge)
    with interface.require_netns(call, open_netns(call.netns)) as container:
        sandbox = kept.sandbox_of(container)
    record = Record(
        attachment=attachment,
        sandbox=sandbox,
        backend=backend,
        addresses=addresses,
        admin_chain=config.iptables_admin_chain_name if backend == IPTABLES else "",
        zone=config.firewalld_zone if backend == FIREWALLD else "",
        policy=policy,
        bridge=bridge,
        port=port if policy == ISOLATED else "",
        isolation=isolation,
    )
    if IPTABLES in (backend, isolation):
        firewall_iptables.require(record.versions)
    return _with_port(record)


def _with_port(record: Record) -> Record:
    """Without a port where the IP rules see bridged frames too, or nothing can see them."""
    if not record.port:
        return record
    seen = firewall_nftables.sees_bridged(record.versions)
    if not seen and nftables_if_installed() is None:
        msg = "ingressPolicy isolated cannot be enforced between the ports of a bridge"
        details = "install the package libnftables1, or load br_netfilter"
        raise CniError(Code.INTERNAL, msg, details)
    return record.without_port() if seen else record


def _isolation_backend(backend: str) -> str:
    """iptables' own; with firewalld nftables, whose rules its reload leaves alone."""
    if backend == FIREWALLD:
        return IPTABLES if nftables_if_installed() is None else NFTABLES
    return backend


def _addresses(result: Result, ifname: str) -> list[str]:
    found = (str(one.address.ip) for one in container_ips(result, ifname))
    return list(dict.fromkeys(found))


def _reached_through(result: Result, policy: str) -> tuple[str, str]:
    """The host's interface that leads to the container, and the container's port on a bridge.

    The bridge, or the interface of a VLAN on it; with ptp the pair's own end (W-FW6).
    """
    names = [one.name for one in result.interfaces if not one.sandbox and one.name]
    with Netlink() as host:
        found = [link for link in (links.get(host, name) for name in names) if link is not None]
    if not found:
        msg = f"interface needs to be set for ingress policy {policy}"
        details = f"no interface of prevResult is on the host: {', '.join(names) or 'it has none'}"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    bridge = next((one for one in found if one.kind == "bridge"), None)
    if bridge is None:
        return found[0].name, ""
    ports = [one for one in found if one.kind == "veth" and not _is_vlan(one, bridge)]
    port = next(iter(ports), None)
    if port is not None and port.master != bridge.ifindex:
        msg = f"ingressPolicy {policy} cannot be enforced for {port.name}"
        details = f"the container is routed: it is on no port of the bridge {bridge.name}"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    vlan = next((one for one in found if _is_vlan(one, bridge)), bridge)
    return vlan.name, "" if port is None else port.name


def _is_vlan(link: Link, bridge: Link) -> bool:
    return link.name.startswith(f"{bridge.name}.")


# Setting and removing it.


def _set_up(record: Record) -> None:
    """Isolation first: nothing gets through before it."""
    if record.uses_nftables:
        firewall_nftables.set_up(record)
    if IPTABLES in (record.backend, record.isolation):
        firewall_iptables.set_up(record)
    if record.backend == FIREWALLD:
        firewall_zone.set_up(record)


def _lost(call: Call[Config] | Call[DelConfig]) -> Record:
    """What can be known of an attachment without its record: of no backend.

    Beside a damaged record it is noted what it held. Without one the previous result tells it.
    """
    prev, policy = call.prev_result, call.config.ingress_policy or OPEN
    addresses = () if prev is None else tuple(_addresses(prev, call.ifname))
    bridge = ""
    if RECORDS.is_damaged(call.attachment.key):
        noted, bridge, policy = firewall_record.noted(call.attachment.key)
        addresses = tuple(dict.fromkeys((*addresses, *noted)))
    elif prev is not None and policy != OPEN:
        bridge = _once_reached_through(prev, policy)
        if bridge and firewall_record.has_other_ports(bridge, call.attachment):
            # What they ask for was lost too.
            bridge = ""
    return _of_no_backend(call.attachment, addresses, bridge, policy)


def _of_no_backend(
    attachment: Attachment, addresses: tuple[str, ...], bridge: str, policy: str
) -> Record:
    return Record(
        attachment=attachment,
        sandbox=kept.NOWHERE,
        backend="",
        addresses=addresses,
        policy=policy if bridge else OPEN,
        bridge=bridge,
    )


def _forget_noted(key: str, network: str) -> None:
    """Take away what is noted of an attachment whose damaged record GC has taken."""
    addresses, bridge, policy = firewall_record.noted(key)
    lost = _of_no_backend(Attachment(network, "", ""), addresses, bridge, policy)
    free = [one for one in addresses if firewall_record.live_holder(one, key) is None]
    if free:
        firewall_iptables.forget_addresses(free, (4, 6))
    firewall_record.release_noted(key)
    if bridge:
        _end_isolation(lost)


def _once_reached_through(result: Result, policy: str) -> str:
    """The bridge, which may be gone; `""` where none is named."""
    try:
        return _reached_through(result, policy)[0]
    except CniError:
        return next((one.name for one in result.interfaces if not one.sandbox), "")


def _end_isolation(lost: Record) -> None:
    """Take away the isolation of the bridge that nobody else asks for, whoever has set it."""
    with firewall_record.serialised(lost):
        if nftables_if_installed() is not None:
            firewall_nftables.tear_down(msgspec.structs.replace(lost, isolation=NFTABLES))
        there = [one for one in lost.addresses if iptables.available(6 if ":" in one else 4)]
        if there:
            isolated = msgspec.structs.replace(lost, isolation=IPTABLES, addresses=tuple(there))
            firewall_iptables.tear_down(isolated, ())


def _remove(record: Record) -> None:
    """Remove an attachment's rules, but for what other containers share. Raises CniError."""
    key = record.attachment.key
    free = [one for one in record.addresses if firewall_record.live_holder(one, key) is None]
    teardown = Teardown()
    with firewall_record.serialised(record):
        if record.backend == FIREWALLD:
            with teardown.step():
                firewall_zone.forget(record.zone, free)
        if IPTABLES in (record.backend, record.isolation):
            with teardown.step():
                firewall_iptables.tear_down(record, free)
        if record.uses_nftables:
            with teardown.step():
                firewall_nftables.tear_down(record)
        teardown.finish()
        firewall_record.release(record)
        RECORDS.drop(record.attachment)
