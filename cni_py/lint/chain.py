"""What a network's plugins are together, and what fits a plugin's type but makes no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.plugins import bandwidth_config, bridge_config
from cni_py.plugins.paired import PairedConfig

from .finding import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .finding import Notes
    from .plugin import Checked

# They take what an earlier plugin has made.
CHAINED = frozenset(
    {"bandwidth", "dns", "dnsname", "firewall", "portmap", "sbr", "services", "tuning", "vrf"}
)
# They make an interface.
INTERFACES = frozenset(
    {
        *("bridge", "dummy", "flannel", "host-device", "ipvlan", "loopback", "macvlan", "overlay"),
        *("ptp", "tap", "vlan"),
    }
)
_PAIRS = frozenset({"bridge", "flannel", "overlay", "ptp"})
# They bring their IPAM plugin themselves.
_ADDRESSED = frozenset({"flannel", "overlay"})
_NEED_ADDRESSES = ("portmap", "firewall", "sbr", "services", "dns", "dnsname")
# Bits of one full packet: an MTU of 1500 and a header of Ethernet.
_PACKET_BITS = (1500 + 14) * 8
_LEAST_SENSIBLE_RATE = 10_000


def check(notes: Notes, plugins: Sequence[Checked]) -> None:
    """Note what is wrong with a network's plugins."""
    before: list[str] = []
    for one in plugins:
        if one.type in CHAINED:
            _check_place(notes, one, before)
        before.append(one.type)
        if isinstance(one.typed, PairedConfig):
            _check_pair(notes, one)
        if isinstance(one.typed, bandwidth_config.Config):
            _check_rates(notes, one, one.typed)
        if one.type == "portmap":
            _check_port_mappings(notes, one)
    _check_addresses(notes, plugins)


def _check_place(notes: Notes, one: Checked, before: Sequence[str]) -> None:
    place = one.node.get("type") or one.node
    if not before:
        text = f"{one.type} takes what an earlier plugin has made, and there is none before it"
        notes.error(place, text, "put it after the plugin that makes the interface")
    elif set(before) <= CHAINED:
        text = f"{one.type} comes before any plugin that makes an interface"
        notes.error(place, text, "put it after that plugin")
    elif one.type == "bandwidth" and set(before) <= CHAINED | INTERFACES - _PAIRS:
        made = next(kind for kind in before if kind in INTERFACES)
        text = f"bandwidth limits a veth pair, and {made} makes none"
        notes.error(place, text, "it goes with bridge and ptp")


def _check_addresses(notes: Notes, plugins: Sequence[Checked]) -> None:
    """A plugin that needs addresses after one that has none."""
    first = plugins[0] if plugins else None
    without = INTERFACES - {"loopback"} - _ADDRESSED
    if first is None or first.type not in without or first.ipam:
        return
    if any(one.type not in CHAINED for one in plugins[1:]) or first.typed is None:
        return
    for one in plugins[1:]:
        if one.type in _NEED_ADDRESSES:
            text = f"{one.type} needs addresses, and {first.type} has no `ipam`"
            notes.warn(one.node.get("type") or one.node, text, 'add "ipam": {"type": ...} to it')


def _check_pair(notes: Notes, one: Checked) -> None:
    config = one.typed
    assert isinstance(config, PairedConfig)
    if config.ip_masq and not config.ipam.type:
        place = find(one.node, "ipMasq")
        notes.warn(place, "`ipMasq` does nothing without `ipam`", 'add "ipam": {"type": ...}')
    if not isinstance(config, bridge_config.Config):
        return
    if config.is_default_gateway and _is_false(one, "isGateway"):
        place = find(one.node, "isGateway")
        text = "`isGateway` is false, and `isDefaultGateway` makes it true"
        notes.warn(place, text, "take one of them out")
    for key, wanted in (
        ("isGateway", config.is_gateway),
        ("isDefaultGateway", config.is_default_gateway),
    ):
        if wanted and not config.ipam.type:
            notes.warn(find(one.node, key), f"`{key}` does nothing without `ipam`")


def _is_false(one: Checked, key: str) -> bool:
    node = one.node.get(key)
    return node is not None and node.value is False


def _check_rates(notes: Notes, one: Checked, config: bandwidth_config.Config) -> None:
    rates = (
        ("ingress", config.ingress_rate, config.ingress_burst),
        ("egress", config.egress_rate, config.egress_burst),
    )
    if not any(rate or burst for _, rate, burst in rates):
        if not _brings(one, "bandwidth"):
            text = "bandwidth has no limit, and gets none from the runtime"
            hint = 'set rates, or add "capabilities": {"bandwidth": true}'
            notes.warn(one.node.get("type") or one.node, text, hint)
        return
    for direction, rate, burst in rates:
        if rate and rate < _LEAST_SENSIBLE_RATE:
            text = f"{rate} bits a second are less than one packet a second"
            notes.warn(find(one.node, f"{direction}Rate"), text, "rates are in bits, not in Mbit")
        elif rate and burst and burst < _PACKET_BITS:
            text = f"a burst of {burst} bits lets no full packet pass"
            hint = f"a packet of 1514 bytes has {_PACKET_BITS} bits"
            notes.warn(find(one.node, f"{direction}Burst"), text, hint)


def _check_port_mappings(notes: Notes, one: Checked) -> None:
    if not _brings(one, "portMappings"):
        text = "portmap gets no ports: it does not declare the capability `portMappings`"
        hint = 'add "capabilities": {"portMappings": true}'
        notes.warn(one.node.get("type") or one.node, text, hint)


def _brings(one: Checked, capability: str) -> bool:
    """Whether the runtime passes it, or the configuration has it written down itself."""
    declared: Any = one.node.get("capabilities")
    flag = None if declared is None else declared.get(capability)
    given = one.node.get("runtimeConfig")
    return (flag is not None and flag.value is True) or (
        given is not None and given.get(capability) is not None
    )
