"""Which deferred DELs the server has carried out, and when (decision 29)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import deferred
from cni_py.spec.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0


class _Failure(NamedTuple):
    """How often one has failed, and when it is tried again."""

    times: int
    again: float


class Backlog:
    """Those that wait. One of an attachment at a time, oldest first; what fails is tried again.

    Times are `time.monotonic`'s.
    """

    def __init__(self, log: Callable[[dict[str, object]], None]) -> None:
        self._log = log
        self._ready: list[str] = []
        self._running: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self.number = 0
        self.next_look = 0.0

    @property
    def failing(self) -> int:
        """How many have been tried in vain."""
        return len(self._failures)

    @property
    def is_tried(self) -> bool:
        """Whether each of those that were seen has been tried."""
        return not self._ready and not self._running

    def look(self, now: float) -> None:
        """See what is there. A launcher may write one at any time, also as the server starts."""
        self.next_look = now + LOOK_SECONDS
        try:
            names = deferred.pending(tidy=True)
        except CniError as error:
            self._log({"event": "deferred DELs cannot be seen", "error": str(error)})
            return
        self.number = len(names)
        self._failures = {name: self._failures[name] for name in names if name in self._failures}
        self._ready = [
            name
            for name in names
            if name not in self._running
            and (name not in self._failures or self._failures[name].again <= now)
        ]

    def take(self, most: int) -> str | None:
        """The next one to carry out; None where there is none, or `most` run already."""
        if not self._ready or len(self._running) >= most:
            return None
        busy = {deferred.key_of(name) for name in self._running}
        for name in self._ready:
            if deferred.key_of(name) not in busy:
                self._ready.remove(name)
                self._running.add(name)
                return name
            busy.add(deferred.key_of(name))
        return None

    def ended(self, name: str, now: float, error: str) -> None:
        """One has been carried out, or has failed; without a word of its worker too."""
        self._running.discard(name)
        if not error:
            self._failures.pop(name, None)
            self.number = max(0, self.number - 1)
            return
        times = self._failures[name].times + 1 if name in self._failures else 1
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** (times - 1), _LONGEST_PAUSE_SECONDS)
        self._failures[name] = _Failure(times, now + pause)
        line: dict[str, object] = {"event": "deferred DEL fails", "file": name, "error": error}
        self._log({**line, "times": times, "again_in_seconds": pause})
