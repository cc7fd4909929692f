"""The tables of the store in one file, and each change of them; nothing here waits for a loop.

All methods are for one thread. A change and what it says to watches is one transaction of SQLite. A
lease ends by the clock that runs since the machine's start, and with the machine: whoever next
opens, reads or polls the store takes away what was under it.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_py.kernel.boot_clock import now
from cni_py.kernel.own_folders import not_own

from .key_range import key_bytes, range_end
from .store import Absent, AtRevision, AtVersion, Event, HasValue, Outcome, Record, UnderLease
from .store_errors import Compacted, Denied, Full, LeaseLost, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .store import Condition, Put

# Revisions whose changes can still be told; that and as many again, before some go.
_KEPT = 10_000
# Revisions in one answer to a watch.
_STEP = 1_000
_LARGEST_ID = (1 << 62) - 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_TABLES = """
CREATE TABLE IF NOT EXISTS state (
  one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, first INTEGER NOT NULL
);
INSERT OR IGNORE INTO state VALUES (1, 1, 0);
CREATE TABLE IF NOT EXISTS records (
  key BLOB PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
  version INTEGER NOT NULL, lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leased ON records (lease) WHERE lease <> 0;
CREATE TABLE IF NOT EXISTS changes (
  modified INTEGER NOT NULL, key BLOB NOT NULL, value BLOB, created INTEGER, version INTEGER,
  lease INTEGER, PRIMARY KEY (modified, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
  id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL, ends REAL NOT NULL, boot TEXT NOT NULL
);
"""
_COLUMNS = "key, value, created, modified, version, lease"


class Tables:
    """The store's file, open."""

    def __init__(self, path: str, *, create: bool = True) -> None:
        self._path = path
        self._create = create
        self._boot = _BOOT_ID.read_text().strip()
        self._connection: sqlite3.Connection | None = None
        self._place = (0, 0)
        # Another one each time that there is another file at the path.
        self.number = -1

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, key: str) -> Record | None:
        """The key's record."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM records WHERE key = ?", key_bytes(key))  # noqa: S608
        return _record(rows[0]) if rows else None

    def listing(self, prefix: str) -> tuple[list[Record], int]:
        """The records below a prefix, and the revision."""
        where, values = _below(prefix)
        query = f"SELECT {_COLUMNS} FROM records WHERE {where} ORDER BY key"  # noqa: S608
        return [*map(_record, self._rows(query, *values))], self.revision()

    def revision(self) -> int:
        """The newest revision."""
        return int(self._rows("SELECT revision FROM state")[0][0])

    def transact(
        self, conditions: Sequence[Condition], puts: Sequence[Put], deletes: Sequence[str]
    ) -> Outcome:
        """See Store."""
        keys = dict.fromkeys(one.key for one in conditions)
        found = {key: self.get(key) for key in keys}
        if not all(_holds(one, found[one.key]) for one in conditions):
            there = tuple(one for one in found.values() if one is not None)
            return Outcome(done=False, revision=self.revision(), found=there)
        for lease in {put.lease for put in puts} - {0}:
            self._lease(lease)
        gone = [key for key in deletes if self.get(key) is not None]
        if not puts and not gone:
            return Outcome(done=True, revision=self.revision())
        revision = self._next_revision()
        for put in puts:
            old = self.get(put.key)
            created, version = (old.created, old.version + 1) if old else (revision, 1)
            self._set(Record(put.key, put.value, created, revision, version, put.lease))
        for key in gone:
            self._remove(key_bytes(key), revision)
        self._trim(revision)
        return Outcome(done=True, revision=revision)

    def changes(self, prefix: str, after: int) -> tuple[list[Event], int]:
        """What has changed since a revision, and up to which one. Raises Compacted."""
        [(newest, first)] = self._rows("SELECT revision, first FROM state")
        if after + 1 < first:
            raise Compacted(after, f"history begins at {first}")
        if after > newest:
            raise Compacted(after, "the store has another history: was a backup restored?")
        upto = min(newest, after + _STEP)
        where, values = _below(prefix)
        query = f"SELECT {_COLUMNS} FROM changes WHERE modified > ? AND modified <= ? AND {where}"  # noqa: S608
        rows = self._rows(f"{query} ORDER BY modified, key", after, upto, *values)
        return [_event(row) for row in rows], upto

    def compact(self, revision: int) -> None:
        """Forget what was changed before a revision."""
        self._run("DELETE FROM changes WHERE modified < ?", revision)
        self._run("UPDATE state SET first = max(first, ?)", revision)

    def grant(self, ttl: int) -> int:
        """See Store."""
        lease = random.randint(1, _LARGEST_ID)  # noqa: S311 - no secret
        ends = now() + ttl
        self._run("INSERT INTO leases VALUES (?, ?, ?, ?)", lease, ttl, ends, self._boot)
        return lease

    def renew(self, lease: int) -> float:
        """See Store."""
        ttl, _ = self._lease(lease)
        self._run("UPDATE leases SET ends = ? WHERE id = ?", now() + ttl, lease)
        return float(ttl)

    def time_left(self, lease: int) -> float:
        """See Store."""
        return max(self._lease(lease)[1] - now(), 0.0)

    def revoke(self, lease: int) -> None:
        """See Store."""
        rows = self._rows("SELECT key FROM records WHERE lease = ?", lease)
        if rows:
            revision = self._next_revision()
            for (key,) in rows:
                self._remove(key, revision)
        self._run("DELETE FROM leases WHERE id = ?", lease)

    def _lease(self, lease: int) -> tuple[int, float]:
        rows = self._rows("SELECT ttl, ends FROM leases WHERE id = ?", lease)
        if not rows:
            raise LeaseLost(lease)
        ttl, ends = rows[0]
        return ttl, ends

    def _set(self, record: Record) -> None:
        row = (key_bytes(record.key), record.value, record.created, record.modified, record.version)
        marks = "?, ?, ?, ?, ?, ?"
        self._run(f"REPLACE INTO records ({_COLUMNS}) VALUES ({marks})", *row, record.lease)  # noqa: S608
        self._run(f"INSERT INTO changes ({_COLUMNS}) VALUES ({marks})", *row, record.lease)  # noqa: S608

    def _remove(self, key: bytes, revision: int) -> None:
        self._run("DELETE FROM records WHERE key = ?", key)
        self._run("INSERT INTO changes (modified, key) VALUES (?, ?)", revision, key)

    def _next_revision(self) -> int:
        rows = self._rows("UPDATE state SET revision = revision + 1 RETURNING revision")
        return int(rows[0][0])

    def _trim(self, revision: int) -> None:
        [(first,)] = self._rows("SELECT first FROM state")
        if revision - first > 2 * _KEPT:
            self.compact(revision - _KEPT)

    @contextmanager
    def reading(self, seconds: float) -> Iterator[None]:
        """One state of the store for all that the block reads, without what has ended."""
        with _judged(self._path):
            self._begin("BEGIN", seconds)
            ended = self._ended()
        if ended:
            self._run("ROLLBACK")
            with self.writing(seconds):
                pass
            self._run("BEGIN")
        try:
            with _judged(self._path):
                yield
        finally:
            self._run("ROLLBACK")

    @contextmanager
    def writing(self, seconds: float) -> Iterator[None]:
        """All changes of the block in one transaction, alone; none if it fails."""
        with _judged(self._path):
            self._begin("BEGIN IMMEDIATE", seconds)
            try:
                for lease in self._ended():
                    self.revoke(lease)
                yield
                self._run("COMMIT")
            except BaseException:
                if self._connection is not None and self._connection.in_transaction:
                    self._run("ROLLBACK")
                raise

    def _ended(self) -> list[int]:
        query = "SELECT id FROM leases WHERE ends <= ? OR boot <> ?"
        return [one for (one,) in self._rows(query, now(), self._boot)]

    def _begin(self, how: str, seconds: float) -> None:
        connection = self._opened()
        connection.execute(f"PRAGMA busy_timeout = {max(int(seconds * 1000), 1)}")
        connection.execute(how)

    def _opened(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now."""
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if self._connection is not None and status and self._place == _place(status):
            return self._connection
        self.close()
        self._make()
        connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection = connection
        connection.execute("PRAGMA busy_timeout = 5000")
        connection.execute("PRAGMA journal_mode = WAL")
        # What a power cut takes is a lease's or a client's that has ended with it.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        self._place = _place(os.stat(self._path, follow_symlinks=False))
        self.number += 1
        return connection

    def _make(self) -> None:
        """The file, of mode 0600, in a folder that is nobody else's. Raises Denied."""
        folder = os.path.dirname(self._path)
        if not self._create:
            os.stat(self._path)
        os.makedirs(folder, 0o700, exist_ok=True)
        if problem := not_own(folder):
            raise Denied(f"{folder} {problem}")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise Denied(f"{self._path} is no file of this user")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Denied(f"{self._path} is open to others: its mode is not 0600")

    def _rows(self, query: str, *values: object) -> list[Any]:
        assert self._connection is not None
        return self._connection.execute(query, values).fetchall()

    def _run(self, statement: str, *values: object) -> None:
        assert self._connection is not None
        self._connection.execute(statement, values)


@contextmanager
def _judged(path: str) -> Iterator[None]:
    """What SQLite and the system say, as the contract's errors."""
    try:
        yield
    except sqlite3.Error as error:
        text = f"{path}: {error}"
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL:
                raise Full(text) from None
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                raise Denied(text) from None
            case _:
                raise Unavailable(text) from None
    except PermissionError as error:
        raise Denied(f"{path}: {error.strerror}") from None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None


def _holds(condition: Condition, found: Record | None) -> bool:
    match condition:
        case Absent():
            return found is None
        case AtRevision(modified=modified):
            return (found.modified if found else 0) == modified
        case AtVersion(version=version):
            return (found.version if found else 0) == version
        case HasValue(value=value):
            return found is not None and found.value == value
        case UnderLease(lease=lease):
            return found is not None and found.lease == lease


def _below(prefix: str) -> tuple[str, tuple[bytes, ...]]:
    """A condition on the column `key`, and its values."""
    start = key_bytes(prefix)
    end = range_end(start)
    if end == b"\0":
        return "key >= ?", (start,)
    return "key >= ? AND key < ?", (start, end)


def _record(row: tuple[object, ...]) -> Record:
    key, *rest = row
    assert isinstance(key, bytes)
    return Record(key.decode("utf-8", "surrogateescape"), *rest)  # type: ignore[arg-type]


def _event(row: tuple[object, ...]) -> Event:
    record = _record(row)
    gone = row[1] is None
    return Event(record.key, None if gone else record, record.modified)


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
