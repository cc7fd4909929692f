"""Other software's rules that containers' packets meet (docs/firewall.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import firewalld, iptables, ruleset
from cni_py.plugins import firewall_record
from cni_py.spec.errors import CniError

from .finding import fine, look, note, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.inventory.configurations import Configured

    from .examinations import Places
    from .finding import Finding

# A chain that each has in iptables, and what it means for containers.
_KNOWN = {
    "DOCKER-USER": "Docker filters what is forwarded: DOCKER-USER comes before our rules, perhaps",
    "KUBE-FORWARD": "kube-proxy has its rules here",
    "KUBE-SERVICES": "kube-proxy balances services here",
    "ufw-before-forward": "ufw has its rules here",
    "cali-FORWARD": "Calico has its rules here",
    "FLANNEL-FWD": "flannel has its rules here",
}


def examine(places: Places) -> Iterator[Finding]:
    """Look at iptables, nftables and firewalld."""
    yield from _iptables(places)
    yield from _nftables()
    if (running := firewalld.running()) is not None:
        with running:
            yield note(
                "firewalld is running: with the firewall plugin containers are in its zone "
                "`trusted`, without it in that of their bridge"
            )


def _iptables(places: Places) -> Iterator[Finding]:
    records = firewall_record.live_records()
    by_table = {
        one for record in records if record.backend == "nftables" for one in record.versions
    }
    unfiltered = _without_firewall(places.configured)
    said = set()
    for version in (4, 6):
        if not iptables.available(version):
            continue
        try:
            if not iptables.can_be_listed(version, "filter"):
                yield fine(f"IPv{version} iptables has no rules")
                continue
            chains = iptables.chains(version, "filter")
            drops = iptables.forward_drops(version)
        except CniError as error:
            yield unseen(f"the rules of IPv{version} iptables cannot be listed: {error.details}")
            continue
        said |= {text for chain, text in _KNOWN.items() if chain in chains}
        if not drops:
            yield fine(f"FORWARD of IPv{version} iptables accepts by default")
        elif version in by_table:
            text = f"FORWARD of iptables drops by default, also IPv{version} of containers whose "
            text += "firewall plugin has the backend nftables"
            yield look(text, 'set its backend to "iptables", or accept the containers in FORWARD')
        elif unfiltered:
            text = (
                f"FORWARD of iptables drops IPv{version} by default, and {', '.join(unfiltered)} "
            )
            text += "has no firewall plugin that accepts its containers"
            yield look(text, 'add {"type": "firewall", "backend": "iptables"} to its plugins')
        else:
            yield note(f"FORWARD of IPv{version} iptables drops what no rule accepts")
    for text in sorted(said):
        yield note(text)


def _without_firewall(configured: Iterable[Configured]) -> list[str]:
    """Networks whose containers are forwarded, with nobody who accepts that."""
    return [
        one.name
        for one in (each.network for each in configured)
        if {"bridge", "flannel", "overlay", "ptp"}.intersection(one.plugins)
        and "firewall" not in one.plugins
    ]


def _nftables() -> Iterator[Finding]:
    try:
        chains = ruleset.base_chains()
    except CniError as error:
        yield unseen(f"the chains of nftables cannot be listed: {error}", "sudo cni-py doctor")
        return
    dropping = [
        one for one in chains if one.drops and one.hook == "forward" and not one.is_iptables
    ]
    for one in dropping:
        text = f"the chain {one} of nftables drops what is forwarded unless it accepts it itself"
        accept = f"nft insert rule {one} ip saddr SUBNET accept"
        yield look(text, f"accept the containers in it (docs/firewall.md): {accept}")
    if not dropping:
        yield fine("no chain of nftables drops what is forwarded by default")
