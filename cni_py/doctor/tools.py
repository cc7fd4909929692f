"""The programs and libraries that backends need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import iptables
from cni_py.kernel.nftables import nftables
from cni_py.spec.errors import CniError

from .finding import broken, fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding


def examine(_places: Places) -> Iterator[Finding]:
    """Look for libnftables, and for which iptables there is."""
    try:
        nftables()
    except CniError as error:
        yield broken(error.msg, error.details or "apt-get install libnftables1")
    else:
        yield fine("libnftables can be loaded")
    if not (iptables.available(4) and iptables.available(6)):
        needed = 'needed for ipMasqBackend "iptables" only: apt-get install iptables'
        yield look("iptables is not installed", needed)
        return
    variants = {version: iptables.variant(version) for version in (4, 6)}
    if variants[4] != variants[6]:
        remedy = "update-alternatives --config iptables; update-alternatives --config ip6tables"
        text = f"iptables is the variant {variants[4] or '?'}, ip6tables {variants[6] or '?'}"
        yield look(text, remedy)
    else:
        yield fine(f"iptables and ip6tables are installed ({variants[4] or 'an old one'})")
    yield from _mixed(variants[4])


def _mixed(variant: str) -> Iterator[Finding]:
    """Rules of both variants hold at once, and each shows its own alone."""
    other = "legacy" if variant == "nf_tables" else "nft"
    for version in (4, 6):
        number = iptables.rules_of_variant(version, other)
        if number is None:
            continue
        if number:
            name = f"ip{'6' * (version == 6)}tables-{other}"
            text = f"{number} rules of {name} hold beside those of {variant or 'iptables'}, and a "
            text += "packet has to pass both"
            yield look(text, f"{name}-save")
        else:
            yield note(f"no rules of the other variant of IPv{version} iptables ({other})")
