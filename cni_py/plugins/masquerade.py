"""Masquerading: what leaves a network for elsewhere gets the host's address (plugins.md 2.13).

The nftables backend is one table with static chains, and per container only elements of two maps:

    table inet cni_py {
      map masq4 { type ipv4_addr : verdict }       # 10.1.2.2 comment "<owner>" : goto masq_<hash>
      map masq6 { type ipv6_addr : verdict }
      chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr vmap @masq4
        ip6 saddr vmap @masq6
      }
      chain masq_<hash> {                          # one a network, subnet and what is excluded
        ip daddr { 10.1.2.0/24, 224.0.0.0/4 } return
        masquerade
      }
    }

The iptables backend writes what the reference writes: its chains, rules and comments.
"""

from __future__ import annotations

import errno
import re
from functools import partial
from hashlib import sha512
from ipaddress import collapse_addresses, ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from cni_py.kernel import interruption, iptables, lock
from cni_py.kernel.errors import KernelError
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.nft_table import ADDRESS_TYPE, INET, PROTOCOL, field, is_of, labelled, match
from cni_py.kernel.nftables import COMMENT_BYTES, Command, nftables, nftables_if_installed
from cni_py.spec.addresses import parse_cidr
from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError, Code

from . import flushed, records, veth
from .interface import Held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_py.kernel.nftables import Nftables
    from cni_py.spec.addresses import Cidr
    from cni_py.spec.collection import Collection

    from .evidence import Evidence

NFTABLES, IPTABLES = "nftables", "iptables"
BACKENDS = frozenset({NFTABLES, IPTABLES})

_CHAIN = "postrouting"
_PRIORITY_SRCNAT = 100
_MULTICAST = {4: ip_interface("224.0.0.0/4"), 6: ip_interface("ff00::/8")}
_CHAIN_DIGITS = 16
_IPTABLES_CHAIN_BYTES = 28
_OWNER = re.compile(r'comment "(?P<label>(?P<key>(?P<network>[0-9a-f]{16}-)[0-9a-f]{16})[^"]*)"')
_REFERENCE = {"family": INET.family, "table": "cni_plugins_masquerade"}
_REFERENCE_CHAIN = "masq_checks"


class Record(records.Owned, frozen=True, kw_only=True):
    """What is masqueraded, for when somebody flushes the rules."""

    addresses: tuple[str, ...]
    backend: str
    excluded: tuple[str, ...] = ()


RECORDS = records.Records("/run/cni-py/masquerade", Record)


def choose_backend(configured: str | None) -> str:
    """`ipMasqBackend`, else nftables where its library is, else iptables where that is.

    Raises CniError 7 for another name.
    """
    require_known(configured)
    if configured:
        return configured
    return IPTABLES if nftables_if_installed() is None and iptables.available(4) else NFTABLES


def require_known(configured: str | None) -> None:
    """Raises CniError 7 for an `ipMasqBackend` of another name."""
    if configured and configured not in (NFTABLES, IPTABLES):
        msg = f'unknown ipmasq backend "{configured}"'
        raise CniError(Code.INVALID_CONFIG, msg, f'ipMasqBackend is "{NFTABLES}" or "{IPTABLES}"')


def require_backend(backend: str) -> None:
    """Raises CniError when the backend cannot be used on this host."""
    if backend == NFTABLES:
        nftables()
    elif not iptables.available(4):
        msg = "iptables is not installed"
        raise CniError(Code.INTERNAL, msg, 'install it, or set ipMasqBackend to "nftables"')


def describe(attachment: Attachment, addresses: Sequence[Cidr]) -> list[Command]:
    """The nftables commands of a container's ADD, once its network's chain is there."""
    return _described(attachment, addresses, ())


def _described(
    attachment: Attachment, addresses: Sequence[Cidr], excluded: Sequence[Cidr]
) -> list[Command]:
    return [_element_command("create", attachment, one, excluded) for one in addresses]


def set_up(
    attachment: Attachment, addresses: Sequence[Cidr], backend: str, excluded: Sequence[Cidr] = ()
) -> None:
    """Masquerade what comes from `addresses` and goes outside their subnets and what is excluded.

    Raises CniError.
    """
    with lock.changing_rules():
        RECORDS.save(
            Record(
                attachment=attachment,
                addresses=tuple(map(str, addresses)),
                backend=backend,
                excluded=tuple(map(str, excluded)),
            )
        )
        if backend == NFTABLES:
            _add_elements(nftables(), attachment, addresses, excluded)
        else:
            for version in sorted({one.version for one in addresses}):
                own = [one for one in addresses if one.version == version]
                _add_chain(attachment, own, excluded, version)


def tear_down(
    attachment: Attachment, held: Held, *, certain: frozenset[str], possible: frozenset[str]
) -> None:
    """Remove the attachment's masquerading, found by its labels. Raises CniError.

    The addresses are those that ADD has recorded; without a record, what `held` says of them saves
    a search through the maps, and keeps what belongs to the container's other interfaces. `certain`
    are the backends that ADD used. With `possible` ones it may have been any of them, or the
    reference plugin, and one that is not installed is left out.
    """
    with lock.changing_rules():
        record = RECORDS.load(attachment)
        if record is not None:
            # The container may have taken an address off since.
            own = tuple(ip_interface(one) for one in record.addresses)
            held = Held(own=own, others=held.others, known=True)
        # First, for the rules are found without it.
        RECORDS.drop(attachment)
        _tear_down(attachment, held, certain=certain, possible=possible)


def _tear_down(
    attachment: Attachment, held: Held, *, certain: frozenset[str], possible: frozenset[str]
) -> None:
    nft = None
    if NFTABLES in certain:
        nft = nftables()
    elif NFTABLES in possible:
        nft = nftables_if_installed()
    if nft is not None:
        _delete_elements(nft, attachment, held.own)
        if possible:
            _delete_reference_rules(nft, attachment)
    if IPTABLES in certain | possible:
        for version in (4, 6):
            if iptables.available(version):
                _delete_chain(attachment, held, version)


def check(
    attachment: Attachment, addresses: Sequence[Cidr], backend: str, excluded: Sequence[Cidr] = ()
) -> None:
    """Whether every address is masqueraded. Raises CniError naming the first that is not.

    `backend` is the configuration's of now: the record says what ADD has used, and without one it
    may have been the reference plugin, by either.
    """
    record = RECORDS.load(attachment)
    if record is not None:
        backend = record.backend
    for one in addresses:
        there = _is_there(attachment, one, backend, excluded)
        if not there and record is None:
            there = _is_the_references(attachment, one)
        if not there:
            msg = f"masquerading of {one.ip} differs"
            raise CniError(Code.INTERNAL, msg, f"expected a rule of {backend}, found none")


def _is_there(
    attachment: Attachment, address: Cidr, backend: str, excluded: Sequence[Cidr]
) -> bool:
    if backend == NFTABLES:
        listing = _element(nftables(), address)
        own = is_of(listing, attachment.key)
        return own and _chain(attachment, address, excluded) in (listing or "")
    chain = _iptables_chain(attachment)
    jumps = iptables.rules(address.version, "nat", "POSTROUTING") or []
    return any(f"-s {address.ip}/" in line and f"-j {chain}" in line for line in jumps)


def _is_the_references(attachment: Attachment, address: Cidr) -> bool:
    """Whether the reference masquerades the address, by one of its own backends."""
    if iptables.available(address.version) and _is_there(attachment, address, IPTABLES, ()):
        return True
    nft = nftables_if_installed()
    return nft is not None and any(_reference_rules(nft, attachment))


def restored() -> tuple[list[Command], dict[tuple[int, str], list[str]]]:
    """What masquerades all containers that live, as their ADDs did: nftables' commands, and the
    lines for iptables-restore of each IP version and table. Raises CniError.
    """
    with Netlink() as host:
        attached = veth.attached(host)
    live = [one for one in RECORDS.every() if one.attachment.key in attached]
    return _restored_elements([one for one in live if one.backend == NFTABLES]), {
        (version, "nat"): lines
        for version in (4, 6)
        if (lines := _restored_chains([one for one in live if one.backend == IPTABLES], version))
    }


def require_rules(network: str, backend: str) -> None:
    """For STATUS: raises CniError 51 where nothing masquerades the network's containers."""

    def number() -> int:
        own = [
            one.attachment.key
            for one in RECORDS.every()
            if one.backend == NFTABLES and one.network == network
        ]
        if not own:
            return 0
        with Netlink() as host:
            return len(veth.attached(host).intersection(own))

    if backend == NFTABLES:
        flushed.require_chain(INET, _CHAIN, "masquerading", number)


def collect(collection: Collection, evidence: Evidence) -> None:
    """Remove the masquerading of the attachments that the collection takes."""
    with lock.changing_rules():
        # Before the records, which alone tell without a list whose these are.
        _collect_recorded_chains(collection, evidence)
        RECORDS.collect(collection, evidence.against_pair)
        nft = nftables_if_installed()
        for version in (4, 6):
            if nft is not None:
                _collect_elements(nft, version, collection, evidence)
            if iptables.available(version):
                _collect_chains(version, collection)


def _collect_elements(
    nft: Nftables, version: int, collection: Collection, evidence: Evidence
) -> None:
    for address, label in _elements(nft, version):
        what = f"masquerading of {address} by nftables"
        if collection.takes(what, label, partial(evidence.against_pair, label)):
            _delete_element(nft, version, address)


def _collect_recorded_chains(collection: Collection, evidence: Evidence) -> None:
    for one in list(RECORDS.every()):
        own = tuple(ip_interface(address) for address in one.addresses)
        if one.backend != IPTABLES or not own:
            continue
        what = f"masquerading of {', '.join(str(address.ip) for address in own)} by iptables"
        gone = partial(evidence.against_pair, one.attachment.key)
        if not collection.takes(what, one.attachment, gone):
            continue
        for version in sorted({address.version for address in own}):
            if iptables.available(version):
                _delete_chain(one.attachment, Held(own=own, known=True), version)


def _collect_chains(version: int, collection: Collection) -> None:
    """A container's chain does not tell which of its interfaces it is for."""
    for container_id in sorted(_jumping_containers(collection.network, version)):
        interruption.point()
        attachment = Attachment(collection.network, container_id, "")
        what = f"iptables chain {_iptables_chain(attachment)}, IPv{version}"
        if collection.takes_of_container(what, container_id):
            _delete_chain(attachment, Held(), version)


# nftables.


def _add_elements(
    nft: Nftables, attachment: Attachment, addresses: Sequence[Cidr], excluded: Sequence[Cidr]
) -> None:
    """Create the elements; make what they stand on, or replace a stale owner's, when refused.

    The first attempt is all that happens once the network's chain exists. A refused transaction
    costs the kernel's grace period (12 ms), so nothing is tried that usually fails.
    """
    what = f"masquerade {', '.join(str(one.ip) for one in addresses)}"
    elements = _described(attachment, addresses, excluded)
    try:
        nft.apply(what, *elements)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST):
            raise
    else:
        return
    stale = [one for one in addresses if _is_taken(nft, attachment, one)]
    replaced = [_key_command("delete", one) for one in stale]
    nft.apply(what, *_base(), *_chains(attachment, addresses, excluded), *replaced, *elements)


def _restored_elements(live: Sequence[Record]) -> list[Command]:
    """Everything from the table on; elements that differ from what is wanted are replaced."""
    if not live:
        return []
    nft = nftables()
    have = {address: comment for version in (4, 6) for address, comment in _elements(nft, version)}
    commands = _base()
    made = set()
    for record in live:
        excluded = tuple(map(parse_cidr, record.excluded))
        for one in map(parse_cidr, record.addresses):
            name = _chain(record.attachment, one, excluded)
            if name not in made:
                made.add(name)
                commands += _chains(record.attachment, [one], excluded)
            label = record.attachment.label(COMMENT_BYTES)
            if have.get(str(one.ip), label) != label:
                commands.append(_key_command("delete", one))
            commands.append(_element_command("add", record.attachment, one, excluded))
    return commands


def _is_taken(nft: Nftables, attachment: Attachment, address: Cidr) -> bool:
    """Whether there is an element of the address. Raises CniError if its owner is alive.

    A network gives an address once, so an owner of the same network is gone; of another network
    with the same subnet it is gone when no host end has its label.
    """
    listing = _element(nft, address)
    if listing is None:
        return False
    found = _OWNER.search(listing)
    if found is not None and not attachment.key.startswith(found["network"]):
        with Netlink() as host:
            alive = veth.is_attached(host, found["key"])
        if alive:
            msg = f"{address.ip} is already masqueraded for a container of another network"
            details = f"{found['label']}: two networks with ipMasq cannot share a subnet"
            raise CniError(Code.INTERNAL, msg, details)
    return True


def _base() -> list[Command]:
    """The table, the maps, and the chain that looks addresses up in them."""
    commands = [INET.add()]
    lookups = []
    for version in PROTOCOL:
        described = {"type": ADDRESS_TYPE[version], "map": "verdict"}
        commands.append({"add": {"map": {**INET.named(f"masq{version}"), **described}}})
        vmap = {"key": field(version, "saddr"), "data": f"@masq{version}"}
        lookups.append(INET.rule(_CHAIN, {"vmap": vmap}))
    chain = INET.hook(_CHAIN, "nat", "postrouting", _PRIORITY_SRCNAT)
    # Flushed and filled again in the same transaction: adding alone would double the rules.
    return [
        *commands,
        {"add": {"chain": chain}},
        {"flush": {"chain": INET.named(_CHAIN)}},
        *lookups,
    ]


def _chains(
    attachment: Attachment, addresses: Iterable[Cidr], excluded: Sequence[Cidr]
) -> list[Command]:
    commands: list[Command] = []
    for one in addresses:
        name = _chain(attachment, one, excluded)
        others = [other.network for other in excluded if other.version == one.version]
        # nftables refuses networks that overlap.
        within: list[Any] = [one.network, *others]
        within = list(collapse_addresses(within))
        subnets = [*within, _MULTICAST[one.version].network]
        inside = match(
            field(one.version, "daddr"), {"set": [_prefix(subnet) for subnet in subnets]}
        )
        comment = f"net: {attachment.network}, subnet: {one.network}"
        commands += [
            {"add": {"chain": {**INET.named(name), "comment": comment[:COMMENT_BYTES]}}},
            {"flush": {"chain": INET.named(name)}},
            INET.rule(name, inside, {"return": None}),
            INET.rule(name, {"masquerade": None}),
        ]
    return commands


def _prefix(subnet: Any) -> dict[str, Any]:
    return {"prefix": {"addr": str(subnet.network_address), "len": subnet.prefixlen}}


def _chain(attachment: Attachment, address: Cidr, excluded: Sequence[Cidr]) -> str:
    """One chain a network, subnet and what is excluded; the hash keeps the name within nftables'
    letters.
    """
    networks = [address, *(one for one in excluded if one.version == address.version)]
    identity = "\0".join([attachment.network, *(str(one.network) for one in networks)])
    digest = sha512(identity.encode()).hexdigest()
    return f"masq_{digest[:_CHAIN_DIGITS]}"


def _element_command(
    verb: str, attachment: Attachment, address: Cidr, excluded: Sequence[Cidr]
) -> Command:
    verdict = {"goto": {"target": _chain(attachment, address, excluded)}}
    key = labelled(str(address.ip), attachment)
    return INET.element(verb, f"masq{address.version}", [key, verdict])


def _key_command(verb: str, address: Cidr) -> Command:
    return INET.element(verb, f"masq{address.version}", str(address.ip))


def _element(nft: Nftables, address: Cidr) -> str | None:
    return INET.listing(nft, f"masq{address.version}", str(address.ip))


def _delete_elements(nft: Nftables, attachment: Attachment, addresses: Sequence[Cidr]) -> None:
    """Delete the attachment's elements, which need not be of `addresses`: a container can change
    the addresses that it has.
    """
    found = 0
    for one in addresses:
        listing = _element(nft, one)
        if is_of(listing, attachment.key):
            _delete_element(nft, one.version, str(one.ip))
            found += 1
    if addresses and found == len(addresses):
        return
    for version in (4, 6):
        for address, comment in _elements(nft, version):
            if comment.startswith(attachment.key):
                _delete_element(nft, version, address)


def _delete_element(nft: Nftables, version: int, address: str) -> None:
    INET.delete_element(nft, f"stop masquerading {address}", f"masq{version}", address)


def _elements(nft: Nftables, version: int) -> list[tuple[str, str]]:
    """The (address, comment) of every element that has a comment."""
    return [one for one in INET.elements(nft, "map", f"masq{version}") if one[1]]


def _delete_reference_rules(nft: Nftables, attachment: Attachment) -> None:
    """The reference plugin's own nftables rules: one a container, with the same label (2.13)."""
    for handle in list(_reference_rules(nft, attachment)):
        rule = {**_REFERENCE, "chain": _REFERENCE_CHAIN, "handle": handle}
        nft.apply("delete the reference plugin's rule", {"delete": {"rule": rule}})


def _reference_rules(nft: Nftables, attachment: Attachment) -> Iterator[int]:
    """The handles of the attachment's rules by the reference plugin."""
    command = {"list": {"chain": {**_REFERENCE, "name": _REFERENCE_CHAIN}}}
    for item in nft.listed("list the reference plugin's rules", command) or ():
        rule = item.get("rule", {})
        if rule.get("comment", "").startswith(attachment.key):
            yield rule["handle"]


# iptables.


def _iptables_chain(attachment: Attachment) -> str:
    text = f"{attachment.network}{attachment.container_id}"
    digest = sha512(text.encode(errors="surrogateescape")).hexdigest()
    return f"CNI-{digest}"[:_IPTABLES_CHAIN_BYTES]


def _comment(attachment: Attachment) -> str:
    """The reference's comment: `name: "<network>" id: "<container id>"` (H-03)."""
    text = f'name: "{attachment.network}" id: "{attachment.container_id}"'
    return f"-m comment --comment {iptables.quoted(text)}"


def _add_chain(
    attachment: Attachment, addresses: Sequence[Cidr], excluded: Sequence[Cidr], version: int
) -> None:
    chain = _iptables_chain(attachment)
    what = f"masquerade {', '.join(str(one.ip) for one in addresses)}"
    accept, masquerade, jumps = _chain_rules(attachment, addresses, excluded, version)
    accept = [f"-A {chain} {one}" for one in accept]
    masquerade = f"-A {chain} {masquerade}"
    jumps = [f"-A POSTROUTING {one}" for one in jumps]
    try:
        iptables.restore(version, "nat", [f"-N {chain}", *accept, masquerade, *jumps], what)
    except iptables.IptablesError:
        have = iptables.rules(version, "nat", chain)
        if have is None:
            raise
        # The chain's name has no interface in it: another interface of the container is using it,
        # or a crash left it. Its rules stay, ours go before its masquerading.
        present = {line.split(" -d ")[1].split()[0] for line in have if " -d " in line}
        missing = [
            line.replace(f"-A {chain}", f"-I {chain} 1")
            for line in accept
            if line.split(" -d ")[1].split()[0] not in present
        ]
        end = [] if any("MASQUERADE" in line for line in have) else [masquerade]
        iptables.restore(version, "nat", [*missing, *end, *jumps], what)


def _restored_chains(live: Sequence[Record], version: int) -> list[str]:
    """The lines for what is missing of the containers' chains and jumps."""
    listed = [
        (record, own)
        for record in live
        if (own := [one for one in map(parse_cidr, record.addresses) if one.version == version])
    ]
    if not listed:
        return []
    have = iptables.chains(version, "nat")
    lines = []
    for record, addresses in listed:
        attachment = record.attachment
        excluded = tuple(map(parse_cidr, record.excluded))
        chain = _iptables_chain(attachment)
        if chain not in have:
            have[chain] = []
            lines.append(f"-N {chain}")
        accept, masquerade, jumps = _chain_rules(attachment, addresses, excluded, version)
        rules = have[chain]
        for rule in accept:
            if rule not in rules:
                lines.append(f"-I {chain} 1 {rule}")
                rules.append(rule)
        if masquerade not in rules:
            lines.append(f"-A {chain} {masquerade}")
            rules.append(masquerade)
        present = have.get("POSTROUTING", [])
        lines += [f"-A POSTROUTING {one}" for one in jumps if one not in present]
    return lines


def _chain_rules(
    attachment: Attachment, addresses: Sequence[Cidr], excluded: Sequence[Cidr], version: int
) -> tuple[list[str], str, list[str]]:
    """A chain's rules before its last, the last, and the jumps to it, as iptables lists them."""
    chain, comment = _iptables_chain(attachment), _comment(attachment)
    inside = [*addresses, *(one for one in excluded if one.version == version)]
    accept = [f"-d {one.network} {comment} -j ACCEPT" for one in inside]
    masquerade = f"! -d {_MULTICAST[version].network} {comment} -j MASQUERADE"
    jumps = [f"-s {one.ip}/{one.max_prefixlen} {comment} -j {chain}" for one in addresses]
    return accept, masquerade, jumps


def _delete_chain(attachment: Attachment, held: Held, version: int) -> None:
    """Remove the attachment's jumps, and the chain when no other interface's jump is left.

    The chain's name has no interface in it. Where the interface's own addresses are not known, all
    jumps are its own but those from addresses of the container's other interfaces.
    """
    chain = _iptables_chain(attachment)
    jumps = [
        line
        for line in iptables.rules(version, "nat", "POSTROUTING") or ()
        if line.endswith(f"-j {chain}")
    ]
    own, others = ({str(one.ip) for one in listed} for listed in (held.own, held.others))
    mine = [
        one for one in jumps if (_source(one) in own if held.known else _source(one) not in others)
    ]
    what = f"stop masquerading container {attachment.container_id}"
    deletions = [line.replace("-A POSTROUTING", "-D POSTROUTING", 1) for line in mine]
    if len(mine) < len(jumps):
        if deletions:
            iptables.restore(version, "nat", deletions, what)
    elif jumps or iptables.rules(version, "nat", chain) is not None:
        last = [f"-F {chain}", f"-X {chain}"]
        iptables.restore(version, "nat", [*deletions, *last], what)


def _jumping_containers(network: str, version: int) -> set[str]:
    """The containers of the network that have jumps, by the comments on them (H-03)."""
    begin = iptables.quoted(f'name: "{network}" id: "')[:-1]
    found = set()
    for line in iptables.rules(version, "nat", "POSTROUTING") or ():
        _, comment, rest = line.partition(begin)
        if comment:
            found.add(rest.split("\\")[0])
    return found


def _source(line: str) -> str:
    """The address after `-s` in a rule line."""
    fields = line.split()
    return str(ip_address(fields[fields.index("-s") + 1].split("/")[0])) if "-s" in fields else ""
