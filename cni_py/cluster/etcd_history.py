"""Whether the etcd that answers is still the one it was, or was restored from a backup; pure.

A restored etcd begins a new history at an older revision: its revisions mean something else. What
an answer to a read of the newest state says can never be older than what was known before it was
asked: revision and term only grow, and the cluster's id stays (raft; etcd's "Disaster recovery").
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Floor(NamedTuple):
    """What was known when a read was sent."""

    number: int = 0
    cluster: int = 0
    term: int = 0
    revision: int = 0


class History:
    """Which history the answers are of: `number` is another one after each restore."""

    def __init__(self) -> None:
        self.floor = Floor()
        # The history that the newest list was of.
        self.last_listed = 0

    @property
    def number(self) -> int:
        """The current history's."""
        return self.floor.number

    def listed(self) -> None:
        """A list was answered: watches from now on begin in this history."""
        self.last_listed = self.number

    def note(self, floor: Floor, header: Any) -> None:
        """Take the header of an answer, and the floor when it was asked for."""
        if floor.number != self.number:
            return
        new = Floor(self.number, header.cluster_id, header.raft_term, header.revision)
        other = floor.cluster not in (0, new.cluster)
        if other or new.term < floor.term or new.revision < floor.revision:
            self.floor = new._replace(number=self.number + 1)
        else:
            term, revision = max(new.term, self.floor.term), max(new.revision, self.floor.revision)
            self.floor = new._replace(term=term, revision=revision)
