"""Whether something answers, by the checks so far; pure.

It changes its mind only after `rise` or `fall` checks in a row, so that one packet that is lost
takes nothing out, and one answer of something that flaps brings nothing in.
"""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """At first nothing is known, and it is not healthy."""

    rise: int
    fall: int
    healthy: bool = False
    against: int = 0
    """How many of the last checks, in a row, were against what it is."""

    def after(self, *, answered: bool) -> Health:
        """What it is after one more check."""
        if answered == self.healthy:
            return msgspec.structs.replace(self, against=0)
        against = self.against + 1
        if against < (self.fall if self.healthy else self.rise):
            return msgspec.structs.replace(self, against=against)
        return msgspec.structs.replace(self, healthy=answered, against=0)
