"""MAC spoof protection: a port sends with its container's hardware address, or not at all.

table bridge cni_py {
set guarded { type ifname }                       # "veth1234" comment "<owner>"
set genuine { type ifname . ether_addr }          # "veth1234" . 02:00:...  comment "<owner>"
chain prerouting {
type filter hook prerouting priority -300
iifname @guarded iifname . ether saddr != @genuine drop
}
}
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any

from cni_py.kernel import lock
from cni_py.kernel.errors import KernelError
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.nft_table import BRIDGE, labelled, match, meta
from cni_py.kernel.nftables import Command, nftables, nftables_if_installed
from cni_py.spec.errors import CniError, Code

from . import records, veth

if TYPE_CHECKING:
    from cni_py.kernel.nftables import Nftables
    from cni_py.spec.attachment import Attachment
    from cni_py.spec.collection import Collection

    from .evidence import Evidence

_GUARDED, _GENUINE = "guarded", "genuine"
_PRIORITY_FIRST = -300
_IIFNAME = meta("iifname")
_SOURCE: dict[str, Any] = {"payload": {"protocol": "ether", "field": "saddr"}}

# The reference plugin's (plugins.md 2.14): a chain pair a container, in a table of its own.
_REFERENCE = {"family": "bridge", "table": "nat"}


class Record(records.Owned, frozen=True, kw_only=True):
    """The address that ADD found, for when somebody flushes the rules: the container can change
    that of its interface.
    """

    mac: str


RECORDS = records.Records("/run/cni-py/spoof-check", Record)


def set_up(attachment: Attachment, mac: str) -> None:
    """Let the attachment's host end pass frames from `mac` only. Raises CniError."""
    with lock.changing_rules():
        RECORDS.save(Record(attachment=attachment, mac=mac))
        _set_up(attachment, mac)


def restored() -> tuple[list[Command], dict[tuple[int, str], list[str]]]:
    """What guards the ports of all containers that live, as their ADDs did; nothing of iptables'.

    Raises CniError.
    """
    with Netlink() as host:
        attached = veth.attached(host)
    live = [one for one in RECORDS.every() if one.attachment.key in attached]
    if not live:
        return [], {}
    elements = [one for record in live for one in _both("add", record.attachment, record.mac)]
    return [*_base(), *elements], {}


def _both(verb: str, attachment: Attachment, mac: str) -> list[Command]:
    port = attachment.host_ifname
    return [
        BRIDGE.element(verb, _GUARDED, labelled(port, attachment)),
        BRIDGE.element(verb, _GENUINE, labelled({"concat": [port, mac]}, attachment)),
    ]


def _set_up(attachment: Attachment, mac: str) -> None:
    nft = nftables()
    what = f"guard {attachment.host_ifname} against spoofing"
    elements = _both("create", attachment, mac)
    try:
        nft.apply(what, *elements)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST):
            raise
        _delete_elements(nft, attachment)
        nft.apply(what, *_base(), *elements)


def tear_down(attachment: Attachment, *, certain: bool) -> None:
    """Forget the attachment's port. Raises CniError.

    Unless it is `certain` that ADD guarded it, the reference plugin's chains are looked for too,
    and nothing is done where nftables is not installed.
    """
    with lock.changing_rules():
        # First, for the rules are found without it.
        RECORDS.drop(attachment)
        nft = nftables() if certain else nftables_if_installed()
        if nft is not None:
            _delete_elements(nft, attachment)
            if not certain:
                _delete_reference_chains(nft, attachment)


def check(attachment: Attachment, mac: str) -> None:
    """Whether the port is guarded. Raises CniError."""
    nft = nftables()
    name = attachment.host_ifname
    for set_name, key in ((_GUARDED, f'"{name}"'), (_GENUINE, f'"{name}" . {mac}')):
        if BRIDGE.listing(nft, set_name, key) is None:
            msg = f"spoof protection of {name} differs"
            details = f"expected {key} in the set {set_name}, found none"
            raise CniError(Code.INTERNAL, msg, details)


def collect(collection: Collection, evidence: Evidence) -> None:
    """Forget the ports of the attachments that the collection takes."""
    with lock.changing_rules():
        RECORDS.collect(collection, evidence.against_pair)
        nft = nftables_if_installed()
        if nft is None:
            return
        # In this order: DEL looks no further where a port is not guarded.
        for set_name in (_GENUINE, _GUARDED):
            for key, label in BRIDGE.elements(nft, "set", set_name):
                what = f"element {key} of the nftables set {set_name}"
                if collection.takes(what, label, partial(evidence.against_pair, label)):
                    _delete(nft, set_name, key)


def _base() -> list[Command]:
    types: dict[str, Any] = {_GUARDED: "ifname", _GENUINE: ["ifname", "ether_addr"]}
    chain = BRIDGE.hook("prerouting", "filter", "prerouting", _PRIORITY_FIRST)
    guarded = match(_IIFNAME, f"@{_GUARDED}")
    spoofed = match({"concat": [_IIFNAME, _SOURCE]}, f"@{_GENUINE}", "!=")
    return [
        BRIDGE.add(),
        *({"add": {"set": {**BRIDGE.named(name), "type": of}}} for name, of in types.items()),
        {"add": {"chain": chain}},
        {"flush": {"chain": BRIDGE.named("prerouting")}},
        BRIDGE.rule("prerouting", guarded, spoofed, {"drop": None}),
    ]


def _delete_elements(nft: Nftables, attachment: Attachment) -> None:
    """The port's own elements; the hardware address is known only from the set itself."""
    name = attachment.host_ifname
    if BRIDGE.listing(nft, _GUARDED, f'"{name}"') is None:
        return
    for key, comment in BRIDGE.elements(nft, "set", _GENUINE):
        if comment and isinstance(key, dict) and key.get("concat", [""])[0] == name:
            _delete(nft, _GENUINE, key)
    _delete(nft, _GUARDED, name)


def _delete(nft: Nftables, set_name: str, key: Any) -> None:
    BRIDGE.delete_element(nft, f"remove {key} of the set {set_name}", set_name, key)


def _delete_reference_chains(nft: Nftables, attachment: Attachment) -> None:
    """The jump and the two chains that the reference plugin made for the container."""
    reference = f"{attachment.container_id}-{attachment.ifname}"
    command = {"list": {"chain": {**_REFERENCE, "name": "PREROUTING"}}}
    commands: list[Command] = []
    for item in nft.listed("list the reference plugin's jumps", command) or ():
        rule = item.get("rule", {})
        if rule.get("comment") == f"macspoofchk-{reference}":
            jump = {**_REFERENCE, "chain": "PREROUTING", "handle": rule["handle"]}
            commands.append({"delete": {"rule": jump}})
    if commands:
        chains = (f"cni-br-iface-{reference}", f"cni-br-iface-{reference}-mac")
        named = [{"chain": {**_REFERENCE, "name": name}} for name in chains]
        commands += [{"flush": one} for one in named] + [{"delete": one} for one in named]
        nft.apply(f"remove the reference plugin's spoof check of {reference}", *commands)
