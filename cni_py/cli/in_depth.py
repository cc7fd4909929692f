"""`cni-py show CONTAINER`: everything that is known of one container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import facts
from .output import printable, printable_lines
from .overview import STYLES

if TYPE_CHECKING:
    from rich.console import Console

    from cni_py.inventory.model import Inventory


def print_container(console: Console, inventory: Inventory, container_id: str) -> None:
    """A head, a block for each interface, and what does not fit."""
    from rich.table import Table
    from rich.text import Text

    mine = inventory.of(containers=frozenset({container_id}))
    told = facts(mine)
    console.print(Text.assemble("container ", (printable(container_id), "bold")))
    console.print()
    for one in mine.attachments:
        title = Text.assemble(
            (printable(one.ifname), "bold"),
            " on network ",
            (printable(one.network), "bold"),
            "  ",
            (one.state, STYLES[one.state]),
            f"  ({printable(one.why)})" if one.why else "",
        )
        console.print(title)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in told(one):
            table.add_row(Text(f"  {name}", style="dim"), Text(printable_lines(text)))
        console.print(table)
        console.print()
    for problem in mine.problems:
        console.print(Text.assemble(("! ", "bold red"), printable(problem.text)))
