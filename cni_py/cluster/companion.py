"""What else the agent does beside joining the node to others: the command line composes it.

The cluster knows nothing of it but this contract. What goes wrong with a companion is logged, and
it begins again: the node's ways to others do not depend on it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from .agent_log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent_report import Gauge

_AGAIN = 5.0


class Companion(Protocol):
    """Something that runs as long as the agent does, in its event loop."""

    name: str
    """What it is called in the agent's status and log."""

    def told(self) -> str:
        """How it goes, in one line."""

    def gauges(self) -> tuple[Gauge, ...]:
        """The same in numbers, for metrics."""

    async def run(self, leaving: Callable[[], bool]) -> None:
        """Until it is cancelled; if it is `leaving` then, it takes back what it has told others."""


async def accompanied(companion: Companion, leaving: Callable[[], bool]) -> None:
    """Have it run until this is cancelled, again after whatever has ended it."""
    told = ""
    while True:
        try:
            await companion.run(leaving)
            why = "it has ended"
        except Exception as error:  # noqa: BLE001 - the agent goes on whatever it is
            why = str(error) or type(error).__name__
        if why != told:
            log(f"{companion.name} failed", why=why)
            told = why
        await asyncio.sleep(_AGAIN)
