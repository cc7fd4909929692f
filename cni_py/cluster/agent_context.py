"""What the agent's tasks share while the network's configuration stays the same."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import agent_backend
from .records import Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agent_report import Counters
    from .agent_state import AgentState
    from .backend import Announcement
    from .flannel import NodeLease, Subnets
    from .flannel_network import Network
    from .store import Store

# Seconds between attempts at what has failed: at first, and at most.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


def apart(pause: float) -> float:
    """A pause that is another one on each node: what failed for all is not tried by all at once."""
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


@dataclass
class Context:
    """`publish` is called when there is something new to tell."""

    store: Store
    network: Network
    state: AgentState
    counters: Counters
    publish: Callable[[], None]
    said: Announcement | None = None
    """What the backend announces of this node."""
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    """All records have been read once."""
    claimed: asyncio.Event = field(default_factory=asyncio.Event)
    """This node has, or has had, a lease."""
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    """What the backend is shown may have changed."""
    own_stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """There is a reason to look at this node's own record."""

    def __post_init__(self) -> None:
        self.records = Records(self.state.settings.grace)

    def key(self, name: str) -> str:
        """The whole key of a name below the prefix."""
        return f"{self.state.settings.prefix}/{name}"

    def lease(self, subnets: Subnets) -> NodeLease:
        """The node's lease with those subnets, as it is to be announced now."""
        assert self.said is not None
        return agent_backend.lease_of(self.said, subnets)
