"""For STATUS: whether somebody has flushed rules that containers need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import lock, nft_table
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.kernel.nft_table import Table


def require_chain(table: Table, chain: str, what: str, number_of: Callable[[], int]) -> None:
    """Raises CniError 51 where the chain is gone that containers' rules are reached through.

    `number_of` counts the network's containers that live and have such rules; it is asked only when
    the chain is not there.
    """
    if nft_table.has_chain(table, chain) or not number_of():
        return
    # An ADD may have written its record, and not yet made the rules.
    with lock.restoring_rules():
        number = 0 if nft_table.has_chain(table, chain) else number_of()
    if number:
        msg = f"somebody has flushed the rules of {what}: {number} containers that live lack them"
        details = (
            f"the chain {chain} in the table {table} is gone; `cni-py firewall restore` makes the "
            "rules again, `cni-py serve --restore-rules` does so by itself"
        )
        raise CniError(Code.LIMITED_CONNECTIVITY, msg, details)
