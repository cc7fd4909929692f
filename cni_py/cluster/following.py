"""From one view to the next without a look at the kernel, where all is as the one before asked.

Only the peers that have changed are planned for, by the same pure functions as all of them. That
comes to the same as long as these have nothing in common with the others; where they have, or
anybody is refused, it takes a whole comparison.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from .contenders import Contenders
from .plan import operations
from .vetting import subnets_of, vetted

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from .backend import Node, View
    from .kernel_backend import Wanted
    from .plan import Operation, Thing
    from .state import State
    from .underlay import Underlay

    Wanting = Callable[[View, Iterable[Node], Underlay], Wanted]


class Followed:
    """What all is as it should be for: `state` is what `view` asks for, and refuses nobody."""

    def __init__(self, view: View, under: Underlay, state: State) -> None:
        self.view, self.under = view, under
        self._state = state
        self._contenders: Contenders | None = None
        self._keys: set[Hashable] = set()

    def operations(self, after: View, backend: str, wanted: Wanting) -> list[Operation] | None:
        """What leads to what `after` asks for; None where only a whole comparison can tell.

        Once that is so this is of no use any more; else it is about `after` from now on.
        """
        if replace(self.view, peers=()) != replace(after, peers=()):
            return None
        before, now = map(id, self.view.peers), frozenset(map(id, after.peers))
        known = frozenset(before)
        gone = [one for one in self.view.peers if id(one) not in now]
        new = [one for one in after.peers if id(one) not in known]
        if not self._claim(gone, new):
            return None
        believed, refused = vetted(replace(after, peers=new), backend)
        bare, mine, theirs = (wanted(after, peers, self.under) for peers in ((), believed, gone))
        if refused or mine.refused or theirs.refused:
            return None
        of_all = _keys(bare.state)
        self._keys -= _keys(theirs.state) - of_all
        coming = _keys(mine.state) - of_all
        if not self._keys.isdisjoint(coming):
            return None
        self._keys |= coming
        self.view = after
        return operations(mine.state, theirs.state)

    def _claim(self, gone: list[Node], new: list[Node]) -> bool:
        """Whether those that come have subnets of their own, when those that go have none."""
        if self._contenders is None:
            self._contenders = Contenders()
            for peer in self.view.peers:
                self._contenders.add(peer.name, subnets_of(peer), ())
            # Keys of routes are slow to hash: not again and again as long as nothing changes.
            self._keys = _keys(self._state)
        for peer in gone:
            self._contenders.remove(peer.name, subnets_of(peer), ())
        for peer in new:
            if self._contenders.of(subnets_of(peer), ()):
                return False
            self._contenders.add(peer.name, subnets_of(peer), ())
        return True


def _keys(state: State) -> set[Hashable]:
    things: Iterator[Thing] = chain(
        state.routes, state.neighbours, state.forwardings, state.keys, state.tunneled
    )
    return {(type(one), one.key) for one in things}
