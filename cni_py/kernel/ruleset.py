"""nftables' whole ruleset, of whoever made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .nftables import nftables

if TYPE_CHECKING:
    from collections.abc import Iterator

# What iptables-nft makes; nobody else is to touch these.
_IPTABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})


class BaseChain(NamedTuple):
    """A chain that packets come to by themselves."""

    family: str
    table: str
    name: str
    hook: str
    priority: int
    drops: bool

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"

    @property
    def is_iptables(self) -> bool:
        """Whether iptables-nft shows it too."""
        own = self.name.isupper() and self.table in _IPTABLES
        return own and self.family in ("ip", "ip6")


def objects() -> list[dict[str, Any]]:
    """Every table, chain, rule, set and map, as libnftables-json(5) has them. Raises CniError."""
    return nftables().listed("list the ruleset", {"list": {"ruleset": None}}) or []


def base_chains() -> list[BaseChain]:
    """The base chains of every table. Raises CniError."""
    listed = nftables().listed("list the chains", {"list": {"chains": None}}) or []
    return list(_base_chains(listed))


def _base_chains(listed: list[dict[str, Any]]) -> Iterator[BaseChain]:
    for chain in (one["chain"] for one in listed if "chain" in one):
        if "hook" in chain:
            yield BaseChain(
                chain["family"],
                chain["table"],
                chain["name"],
                chain["hook"],
                chain["prio"],
                chain.get("policy") == "drop",
            )
