"""dns: containers of a network find one another by name (docs/decisions/0048-names.md).

A dnsmasq on the network's gateway addresses answers; a container's names are a file that it
watches. ADD returns once the names are answered, DEL once they no longer are.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, links, netns, state_files
from cni_py.kernel.errors import unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.names import asking, dnsmasq, publishing
from cni_py.names import network as kept
from cni_py.names.network import Network
from cni_py.spec.attachment import is_key
from cni_py.spec.errors import CniError, Code, require_none
from cni_py.spec.results import DNS

from . import interface, records
from .chained import container_ips
from .dns_config import Config, DelConfig, mistakes, names_of, upstream_of
from .evidence import Evidence

if TYPE_CHECKING:
    from cni_py.kernel.links import Link
    from cni_py.names.messages import Answer
    from cni_py.spec.addresses import IP
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]

_ANSWERED_SECONDS = 6.0
_GONE_SECONDS = 2.0


class Record(records.Record, frozen=True, kw_only=True):
    """Whose names a file has; it is the file's first line."""


def add(call: Call[Config]) -> Result:
    """Have the container's names answered on the network; the result says by whom."""
    result = interface.previous(call)
    require_none(mistakes(call))
    ips, servers = _placed(call, result)
    with interface.require_netns(call, open_netns(call.netns)) as container:
        record = Record(attachment=call.attachment, sandbox=records.sandbox_of(container))
    entries = [(str(one), names_of(call)) for one in ips]
    with step("dns"):
        dnsmasq.program()
        with dnsmasq.changing():
            call.scope.enter_context(undone_on_failure(lambda: _withdraw(call)))
            network = _network(call, result, servers)
            dnsmasq.require(network)
            publishing.publish(network, call.attachment.key, entries, _note(record))
    with step("dns answer"):
        for server in servers:
            _require_answer(network, server, entries)
    dns = DNS(
        nameservers=tuple(servers),
        domain=network.domain,
        search=tuple(dict.fromkeys((network.domain, *result.dns.search))),
        options=result.dns.options,
    )
    return msgspec.structs.replace(result, dns=dns)


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Take the container's names back; with the last one's the server ends."""
    with step("dns"):
        _withdraw(call)


def check(call: Call[Config]) -> None:
    """Whether the names are kept as ADD has, and are answered. Raises CniError."""
    result = interface.previous(call)
    require_none(mistakes(call))
    ips, servers = _placed(call, result)
    name = call.request.network
    stored = kept.load(name)
    found = None
    if stored is not None:
        with dnsmasq.changing():
            dnsmasq.require(stored)
        try:
            found = publishing.published(stored, call.attachment.key)
        except state_files.DamagedError as error:
            raise interface.differs("the file of the names", "a file", str(error)) from error
    if stored is None or found is None:
        msg = f"dns: nothing is kept of {call.container_id} in {kept.folder_of(name)}"
        raise CniError(Code.INTERNAL, msg, "start the container anew")
    interface.require_same("domainName", call.config.domain, stored.domain)
    entries = [(str(one), names_of(call)) for one in ips]
    interface.require_same("names", publishing.lines_of(stored, entries), found[1])
    missing = [one for one in servers if one not in stored.addresses]
    if missing:
        raise interface.differs("the server's addresses", missing[0], ", ".join(stored.addresses))
    for server in servers:
        _require_answer(stored, server, entries)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed. A server that has died is started."""
    with unavailable():
        require_none(mistakes(call))
        dnsmasq.program()
        stored = kept.load(call.request.network)
        if stored is None:
            return
        with dnsmasq.changing():
            stored = kept.load(call.request.network)
            if stored is not None:
                dnsmasq.require(stored)
        if stored is not None:
            for server in stored.addresses:
                _require_answer(stored, server, [])


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Take back the names of the attachments that the collection takes.

    A server that nobody needs ends; one that is needed and has died is started.
    """
    name = call.request.network
    if not os.path.isdir(kept.folder_of(name)):
        return
    evidence = Evidence()
    with dnsmasq.changing():
        network = _stored(name)
        for source in _attached(network):
            why = partial(_against, evidence, network, source)
            if collection.takes(f"names {network.hosts}/{source}", source, why):
                publishing.withdraw(network, source)
        if not _attached(network):
            if collection.takes_unowned(f"names {network.folder}", "no container is left"):
                dnsmasq.retire(name)
        elif not collection.dry and network.addresses:
            dnsmasq.require(network)


# Where the server is.


def _placed(call: Call[Config], result: Result) -> tuple[list[IP], list[str]]:
    """The container's addresses, and where a server on this host reaches it. Raises CniError 7."""
    ips = container_ips(result, call.ifname)
    own = _host_addresses(result)
    servers = []
    for one in ips:
        near = [other for other in own if other in one.address.network and other != one.address.ip]
        servers += [one.gateway] if one.gateway in own else near[:1]
    if not servers:
        msg = f"network {call.request.network} has no address on this host to answer names at"
        gateways = ", ".join(str(one.gateway) for one in ips if one.gateway is not None)
        details = f"its gateway is {gateways}" if gateways else "it has no gateway"
        details += ": put dns after bridge with isGateway, ptp or overlay"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    listed = [one.address.ip for one in ips]
    return list(dict.fromkeys(listed)), list(dict.fromkeys(map(str, servers)))


def _host_addresses(result: Result) -> list[IP]:
    """The addresses of the host's interfaces of the result; of all, where it names none (0.2.0)."""
    with Netlink() as host:
        if not result.interfaces:
            found = [one for own in addresses.dump_all(host).values() for one in own]
        else:
            named = [one.name for one in result.interfaces if not one.sandbox and one.name]
            present: list[Link] = [link for name in named if (link := links.get(host, name))]
            found = [one for link in present for one in addresses.dump(host, link.ifindex)]
    ips = [one.address.ip for one in found]
    return [one for one in ips if not one.is_link_local and not one.is_loopback]


def _network(call: Call[Config], result: Result, servers: list[str]) -> Network:
    """What the network's server is to be told: also where its other containers look for it."""
    config, name = call.config, call.request.network
    new = Network(
        name=name,
        domain=config.domain,
        addresses=tuple(servers),
        subnets=tuple(
            dict.fromkeys(str(one.address.network) for one in container_ips(result, call.ifname))
        ),
        upstream=upstream_of(config),
        ttl=config.ttl,
        cookie=netns.cookie(),
        boot=records.boot_id(),
    )
    stored = kept.load(name)
    if stored is None or (stored.cookie, stored.boot) != (new.cookie, new.boot):
        return new
    before = stored.addresses
    if not set(servers) <= set(before):
        with Netlink() as host:
            dumped = addresses.dump_all(host).values()
            present = {str(one.address.ip) for own in dumped for one in own}
        before = tuple(one for one in before if one in present)
    return msgspec.structs.replace(
        new,
        addresses=tuple(dict.fromkeys((*before, *new.addresses))),
        subnets=tuple(dict.fromkeys((*stored.subnets, *new.subnets))),
    )


# What it answers.


def _require_answer(network: Network, server: str, entries: list[tuple[str, list[str]]]) -> None:
    """Wait until a server answers for the first name; without names, until it answers at all.

    Raises CniError 11, which says what is in the way.
    """
    lines = publishing.lines_of(network, entries)
    text, (name, *_) = next(iter(lines.items()), (server, [network.domain]))
    address = ip_address(text)

    def is_right(answer: Answer) -> bool:
        return not lines or answer.is_cut_off or address in answer.addresses

    found = asking.wait(server, name, address, is_right, _ANSWERED_SECONDS)
    if found is not None and is_right(found):
        return
    said = "does not answer" if found is None else "answers otherwise"
    msg = f"the DNS server {server} of network {network.name} {said} when asked for {name}"
    raise CniError(Code.TRY_AGAIN_LATER, msg, dnsmasq.trouble(network))


def _withdraw(call: Call[Config] | Call[DelConfig]) -> None:
    """Take the attachment's names back, and wait until they are answered no more."""
    name, source = call.request.network, call.attachment.key
    if not os.path.isdir(kept.folder_of(name)):
        return
    entries: dict[str, list[str]] = {}
    with dnsmasq.changing():
        network = _stored(name)
        try:
            found = publishing.published(network, source)
            entries = {} if found is None else found[1]
        except state_files.DamagedError:
            # It goes in any case.
            entries = {}
        publishing.withdraw(network, source)
        if not _attached(network):
            dnsmasq.retire(name)
            return
        one = dnsmasq.running(name)
        if one is None:
            return
        one.close()
    for server in network.addresses if entries else ():
        _await_absence(network, server, entries)


def _await_absence(network: Network, server: str, entries: dict[str, list[str]]) -> None:
    """A server that does not answer does not keep DEL from its end: nothing is left on disk."""
    text, (name, *_) = next(iter(entries.items()))
    try:
        address = ip_address(text)
    except ValueError:
        return
    found = asking.wait(
        server, name, address, lambda one: address not in one.addresses, _GONE_SECONDS
    )
    if found is None or address in found.addresses:
        sys.stderr.write(
            f"cni-py: {server} may answer for {name} still: {dnsmasq.trouble(network)}\n"
        )


# What is kept.


def _stored(name: str) -> Network:
    """What is kept of the network; where that was lost, its folders alone."""
    return kept.load(name) or Network(name=name, domain="", addresses=())


def _attached(network: Network) -> list[str]:
    """The keys of the attachments that have names."""
    return [one for one in publishing.sources(network) if is_key(one)]


def _note(record: Record) -> str:
    # An interface's name may have any letters: in a note they are escaped.
    text = json.dumps(msgspec.to_builtins(record), separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")


def _against(evidence: Evidence, network: Network, source: str) -> str:
    """Why nobody can use the names; `""` where somebody may, or nobody knows."""
    try:
        found = publishing.published(network, source)
        record = msgspec.json.decode(found[0] if found else b"", type=Record)
    except (state_files.DamagedError, msgspec.DecodeError):
        return ""
    return evidence.against_record(record) if record.attachment.key == source else ""
