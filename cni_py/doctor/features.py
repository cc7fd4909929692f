"""Which plugins cannot work for want of something in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import features
from cni_py.kernel.errors import KernelError

from .finding import broken, fine, note, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.inventory.configurations import Configured

    from .examinations import Places
    from .finding import Finding


class _Need(NamedTuple):
    """What a feature is for, and the module that has it."""

    plugins: tuple[str, ...]
    what: str
    module: str = ""


_NEEDS = {
    "link veth": _Need(("bridge", "ptp"), "veth pairs", "veth"),
    "link bridge": _Need(("bridge",), "bridges", "bridge"),
    "link dummy": _Need(("dummy",), "dummy links", "dummy"),
    "link macvlan": _Need(("macvlan",), "macvlan links", "macvlan"),
    "link ipvlan": _Need(("ipvlan",), "ipvlan links", "ipvlan"),
    "link vlan": _Need(("vlan",), "VLAN links", "8021q"),
    "link vrf": _Need(("vrf",), "VRFs", "vrf"),
    "link ifb": _Need(("bandwidth",), "ifb links", "ifb"),
    "bridge VLANs": _Need((), "VLANs on bridges (`vlan` and `vlanTrunk` of bridge)"),
    "tun": _Need(("tap",), "tap devices", "tun"),
    "shaping": _Need(("bandwidth",), "traffic shaping"),
    "IPv6": _Need((), "IPv6"),
    "policy routing": _Need(("sbr",), "policy routing"),
    "conntrack": _Need(("portmap",), "connection tracking's netlink", "nf_conntrack_netlink"),
    "nft": _Need(("portmap", "firewall"), "nftables", "nf_tables"),
    "nft filter": _Need(("firewall",), "nftables' filtering", "nf_tables"),
    "nft connection tracking": _Need(("firewall",), "nftables' `ct`", "nft_ct"),
    "nft nat": _Need(("portmap",), "nftables' NAT", "nft_chain_nat"),
    "nft masquerade": _Need((), "nftables' masquerading (`ipMasq`)", "nft_masq"),
    "nft fib": _Need(("portmap",), "nftables' `fib`", "nft_fib_inet"),
    "nft bridge": _Need(("firewall",), "nftables' family bridge", "nft_meta_bridge"),
}
_IPTABLES = _Need((), 'the iptables backends (`"backend": "iptables"`)')


def examine(places: Places) -> Iterator[Finding]:
    """Try each feature, where this is root."""
    try:
        missing = features.missing()
    except KernelError as error:
        yield unseen(f"the kernel's features cannot be tried: {error.msg}", "sudo cni-py doctor")
        return
    used = _used_types(places.configured)
    if not missing:
        yield fine("the kernel has all that the plugins need")
    elif not any(one in used for name in missing for one in _need(name).plugins):
        yield fine("the kernel has what the configured plugins need")
    for name, said in missing.items():
        need = _need(name)
        text = f"this kernel has no {need.what}"
        if need.plugins:
            text += f", so that {' and '.join(need.plugins)} cannot work"
        text += f" ({said})"
        remedy = f"modprobe {need.module}" if need.module else ""
        affected = sorted(used.intersection(need.plugins))
        if affected:
            yield broken(f"{text}; configured are {', '.join(affected)}", remedy)
        else:
            yield note(text, remedy)


def _need(name: str) -> _Need:
    return _IPTABLES if name.startswith("iptables") else _NEEDS[name]


def _used_types(configured: Iterable[Configured]) -> frozenset[str]:
    """The plugins, and IPAM plugins, that some configuration names."""
    networks = [one.network for one in configured]
    return frozenset(kind for one in networks for kind in (*one.plugins, one.ipam))
