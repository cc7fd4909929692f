"""The contract of a store: what the hosts of a cluster agree through.

A store maps keys to values. Each change gets the next *revision*; what changed together has the
same one. A record under a lease goes when the lease ends. Implementations: `etcd`, `sqlite`; the
tests in `tests/cluster/test_battery.py` say the same of both.

Every call has a deadline and raises StoreError: Unavailable, where nothing was changed, or Unsure.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .closing import Closing
from .store_errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

# Of the keys and values in one transaction. etcd refuses a request above 1.5 MiB by default.
MOST_BYTES = 1 << 20
# Conditions, and changes, in one transaction; etcd's `--max-txn-ops` is twice that.
MOST_STEPS = 64
# Seconds that a call may take unless it is said otherwise.
DEADLINE = 5.0
# While the store can be reached, a watch yields at least this often, in seconds.
PROGRESS = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """A key's value, and its history in numbers."""

    key: str
    value: bytes
    created: int
    """The revision that made the key; it has been there since."""
    modified: int
    """The revision of its last change."""
    version: int
    """How often it was put since it was made: 1 or more."""
    lease: int = 0
    """The lease that it ends with; 0 for none."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All records below a prefix at one revision, sorted by key."""

    records: tuple[Record, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Absent:
    """Condition: there is no such key."""

    key: str


@dataclass(frozen=True, slots=True)
class AtRevision:
    """Condition: the key was last changed by this revision."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True)
class AtVersion:
    """Condition: the key has this version."""

    key: str
    version: int


@dataclass(frozen=True, slots=True)
class HasValue:
    """Condition: the key is there and has this value."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class UnderLease:
    """Condition: the key is there and ends with this lease; 0: with none."""

    key: str
    lease: int


Condition = Absent | AtRevision | AtVersion | HasValue | UnderLease


@dataclass(frozen=True, slots=True)
class Put:
    """Change: give the key this value, to end with a lease unless that is 0."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a transaction."""

    done: bool
    """Whether every condition held, and so every change was made."""
    revision: int
    """The store's revision afterwards; that of the changes, if any key changed."""
    found: tuple[Record, ...] = ()
    """If not `done`: the records that the conditions' keys have, in that order."""


@dataclass(frozen=True, slots=True)
class Event:
    """One key's change: it has this record now, or, with `record` None, is gone."""

    key: str
    record: Record | None
    revision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a watch has to say: all events up to a revision, in order, each once."""

    revision: int
    """Everything below the prefix up to here has been told: where a later watch goes on."""
    events: tuple[Event, ...] = ()
    """May be none: the store has nothing new. What changed together is never torn apart."""
    lost: str = ""
    """Why the store is out of reach just now; `""` where it is not. The watch goes on trying."""


class Store(Closing):
    """One store. Use it as an asynchronous context manager, within one event loop.

    Calls may run at once. `close` ends all: no task, thread or file is left.
    """

    @abstractmethod
    async def get(self, key: str, *, seconds: float = DEADLINE) -> Record | None:
        """The key's record after every change that has been answered; None without one."""

    @abstractmethod
    async def list(self, prefix: str, *, seconds: float = DEADLINE) -> Snapshot:
        """The newest records of all keys that begin with `prefix`.

        Where they come in several answers, each has so many seconds.
        """

    async def list_keys(self, prefix: str, *, seconds: float = DEADLINE) -> Snapshot:
        """The same with empty values, where these are not needed: they are most of an answer."""
        found = await self.list(prefix, seconds=seconds)
        return Snapshot(tuple(replace(one, value=b"") for one in found.records), found.revision)

    async def transact(
        self,
        conditions: Sequence[Condition],
        puts: Sequence[Put] = (),
        deletes: Sequence[str] = (),
        *,
        seconds: float = DEADLINE,
    ) -> Outcome:
        """Make all changes in one revision, if all conditions hold; else none.

        No key may be changed twice, and all puts under a lease have the same one. Raises LeaseLost
        if that is gone, TooLarge.
        """
        _refuse_excess(conditions, puts, deletes)
        return await self._transact(conditions, puts, deletes, seconds)

    @abstractmethod
    async def _transact(
        self,
        conditions: Sequence[Condition],
        puts: Sequence[Put],
        deletes: Sequence[str],
        seconds: float,
    ) -> Outcome: ...

    @abstractmethod
    async def grant(self, ttl: int, *, seconds: float = DEADLINE) -> int:
        """Make a lease that ends `ttl` seconds from now, at least 1, unless renewed: its number.

        etcd has a least ttl of its own (some seconds) and gives that where less was asked for.
        """

    @abstractmethod
    async def renew(self, lease: int, *, seconds: float = DEADLINE) -> float:
        """Begin the lease's ttl anew: how many seconds it has. Raises LeaseLost."""

    @abstractmethod
    async def time_left(self, lease: int, *, seconds: float = DEADLINE) -> float:
        """The seconds until the lease ends, by the store's clock. Raises LeaseLost."""

    @abstractmethod
    async def revoke(self, lease: int, *, seconds: float = DEADLINE) -> None:
        """End the lease and remove its keys in one revision; one that is gone is no error."""

    @abstractmethod
    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch, None]:
        """Every change after a revision of keys that begin with `prefix`, as batches, without end.

        `after` is the revision of a Snapshot or of the last Batch of an earlier watch. The watch
        outlives the store's restarts: it connects again, and goes on where it was. Raises
        Compacted, Denied. Whoever stops early calls its `aclose` (`contextlib.aclosing`).
        """


def _refuse_excess(
    conditions: Sequence[Condition], puts: Sequence[Put], deletes: Sequence[str]
) -> None:
    changed = [*(put.key for put in puts), *deletes]
    if not all(changed) or len(set(changed)) < len(changed):
        raise ValueError(f"a key is empty or changed twice: {', '.join(sorted(changed))}")
    if len({put.lease for put in puts} - {0}) > 1:
        raise ValueError("the puts of one transaction have several leases")
    if max(len(conditions), len(changed)) > MOST_STEPS:
        raise TooLarge(f"more than {MOST_STEPS} conditions or changes at once")
    values = [put.value for put in puts]
    values += [one.value for one in conditions if isinstance(one, HasValue)]
    size = sum(map(len, changed)) + sum(len(one.key) for one in conditions)
    if size + sum(map(len, values)) > MOST_BYTES:
        raise TooLarge(f"more than {MOST_BYTES} bytes at once")
