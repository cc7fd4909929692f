"""Rules that somebody else has flushed are made again (`cni-py serve --restore-rules`).

Events alone tell: nftables' of deleted tables, and firewalld's that it has reloaded or started. A
reload is a burst of them, so it is waited until they end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.kernel import firewalld
from cni_py.kernel.rule_events import RuleEvents

if TYPE_CHECKING:
    from collections.abc import Callable

# After the last event, and after the first one at most.
_QUIET_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0


class Source(NamedTuple):
    """Something to wait for: a file, and whether what it brings asks for the rules."""

    file: Any
    asks: Callable[[], bool]


class Watch:
    """When the rules have to be made again."""

    def __init__(self) -> None:
        events = RuleEvents()
        self.sources = [Source(events.socket, events.lost)]
        reloads = firewalld.reloads()
        if reloads is not None:
            self.sources.append(Source(reloads.socket, reloads.happened))
        self._first = self._last = 0.0

    def note(self) -> None:
        """Rules are missing, or may be."""
        self._last = time.monotonic()
        self._first = self._first or self._last

    @property
    def due(self) -> float:
        """When to restore, as `time.monotonic` counts; 0 for never."""
        if not self._first:
            return 0.0
        return min(self._last + _QUIET_SECONDS, self._first + _PATIENCE_SECONDS)

    def take(self) -> bool:
        """Whether to restore now; once for all events so far."""
        if not self._first or time.monotonic() < self.due:
            return False
        self._first = self._last = 0.0
        return True
