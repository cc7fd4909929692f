"""What goes wrong with a store. Each text is one line that says which store and why."""

from __future__ import annotations


class StoreError(Exception):
    """A store did not do what it was asked for."""


class Unavailable(StoreError):  # noqa: N818 - what it is
    """Nobody answered in time, or the store has no leader. Nothing was changed."""


class Unsure(Unavailable):
    """The answer was lost: the change may have been made. Read before trying again."""


class Denied(StoreError):  # noqa: N818 - what it is
    """The store does not let this user, password or certificate do that."""


class Full(StoreError):  # noqa: N818 - what it is
    """The store has no room for more, until its operator makes some. Nothing was changed."""


class TooLarge(StoreError):  # noqa: N818 - what it is
    """More than a store takes at once (`store.MOST_BYTES`, `MOST_STEPS`). Nothing was changed."""


class LeaseLost(StoreError):  # noqa: N818 - what it is
    """The store has no such lease any more: the keys under it are gone, or others' by now."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"the store has no lease {lease:x} any more")
        self.lease = lease


class Compacted(StoreError):  # noqa: N818 - what it is
    """The store cannot tell what has changed since a revision: list, compare, watch from there.

    Its history has been cut off (`etcdctl compact`), or it is another one: a backup was restored.
    """

    def __init__(self, after: int, why: str) -> None:
        super().__init__(f"what has changed since revision {after} is not known: {why}")
        self.after = after
