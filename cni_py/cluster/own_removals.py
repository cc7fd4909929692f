"""Which of the kernel's reports that something has gone are of what this process took away."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING

from .state import Forwarding, Neighbour, Route

if TYPE_CHECKING:
    from cni_py.kernel.changes import Change
    from cni_py.spec.addresses import Network

    from .plan import Thing


class OwnRemovals:
    """What is about to be reported, until it is; used from two threads.

    A report says of a neighbour only which link it was on, so they are counted. One that never
    comes could stand for somebody else's later: `forget` ends that.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._routes: set[Network] = set()
        # FDB entries are neighbours too.
        self._neighbours: Counter[int] = Counter()

    def expect(self, thing: Thing, link: int) -> None:
        """It is going to be removed from the link with that index."""
        with self._lock:
            if isinstance(thing, Route):
                self._routes.add(thing.destination)
            elif isinstance(thing, (Neighbour, Forwarding)):
                self._neighbours[link] += 1

    def has(self, change: Change) -> bool:
        """Whether the report is of one of them, which is through then."""
        with self._lock:
            if not change.gone:
                return False
            if change.kind == "route" and change.destination in self._routes:
                self._routes.discard(change.destination)
                return True
            if change.kind == "neighbour" and self._neighbours[change.link] > 0:
                self._neighbours[change.link] -= 1
                return True
            return False

    def forget(self) -> None:
        """Nothing is on its way any more."""
        with self._lock:
            self._routes.clear()
            self._neighbours.clear()
