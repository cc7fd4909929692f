"""Which instance is next: by turns or by weight, and none that has just failed; pure.

By weight it is smooth weighted round-robin, as nginx has it: of weights 5, 1, 1 the sequence is
a a b a c a a, not a a a a a b c. The first is drawn by lot: many clients that ask once do not all
ask the same one.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_py.services.instance import Instance

By = Literal["weight", "turn"]
"""`weight`: by the instances' weights; `turn`: all alike."""

# Seconds for which an instance that has failed is passed over: at first, and at most.
FIRST_PENALTY = 0.5
LONGEST_PENALTY = 30.0


class Choice:
    """Chooses among the instances of one service, whichever there are each time."""

    def __init__(self, lot: random.Random | None = None) -> None:
        self._lot = lot or random.Random()  # noqa: S311 - no secret
        # How much each is owed, by id.
        self._owed: dict[str, float] = {}
        # Of those that are owed as much, who is first: the same each round.
        self._rank: dict[str, float] = {}
        # How often each has failed in a row, and until when it is passed over.
        self._failed: dict[str, tuple[int, float]] = {}

    def next(self, instances: Sequence[Instance], by: By, now: float) -> Instance | None:
        """The one whose turn it is; None where all have just failed, or there is none."""
        ids = {one.id for one in instances}
        self._owed = {name: owed for name, owed in self._owed.items() if name in ids}
        self._rank = {name: rank for name, rank in self._rank.items() if name in ids}
        self._failed = {name: one for name, one in self._failed.items() if name in ids}
        fit = [one for one in instances if self._until(one) <= now]
        if not fit:
            return None
        shares = {one.id: one.weight if by == "weight" else 1 for one in fit}
        first = None if self._owed else self._lot.choices(fit, [*shares.values()])[0]
        for name, share in shares.items():
            self._owed[name] = self._owed.get(name, 0.0) + share
            self._rank.setdefault(name, self._lot.random())
        if first is not None:
            self._rank[first.id] = 1.0
        chosen = first or max(fit, key=lambda one: (self._owed[one.id], self._rank[one.id]))
        self._owed[chosen.id] -= sum(shares.values())
        return chosen

    def worked(self, instance: Instance) -> None:
        """It has answered."""
        self._failed.pop(instance.id, None)

    def failed(self, instance: Instance, now: float) -> None:
        """It has not: it is passed over for a while, and for longer each time."""
        count = self._failed.get(instance.id, (0, 0.0))[0] + 1
        # Not a larger power than is needed: a count can grow for days.
        penalty = min(FIRST_PENALTY * 2.0 ** min(count - 1, 16), LONGEST_PENALTY)
        self._failed[instance.id] = (count, now + penalty)

    def again(self, instances: Sequence[Instance]) -> float:
        """When the first of those that have failed may be tried again; infinity without one."""
        return min(map(self._until, instances), default=float("inf"))

    def _until(self, instance: Instance) -> float:
        return self._failed.get(instance.id, (0, float("-inf")))[1]
