"""The SQLite file under the embedded queues and tables: connection settings, schema, transactions, errors.

What is committed survives ``kill -9`` and, if the disk keeps its word, a power cut. Threads of one process take turns
at a gate (``gate``). Between processes SQLite's file lock decides, with a busy time-out, so that a writer waits instead
of failing.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from receipt_actors.errors import ConfigurationError, UnavailableError
from receipt_actors.sqlite.gate import Gate

APPLICATION_ID = 0x52634163  #: ``PRAGMA application_id`` of our files: "RcAc"
BUSY_TIMEOUT_SECONDS = 5.0  #: how long another process may hold the file before we call it unavailable
LOCK_POLL_SECONDS = 0.001  #: how often we try for the lock that another process holds
MAX_CHECKED_BYTES = 2**30  #: the largest file that a start checks for damage, which takes a second

_SCHEMA = """
    CREATE TABLE queues (
        queue_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        dead_letter_queue_id INTEGER REFERENCES queues,
        max_receive_count INTEGER
    );
    CREATE TABLE messages (
        row_id INTEGER PRIMARY KEY,
        queue_id INTEGER NOT NULL REFERENCES queues,
        message_id TEXT NOT NULL,
        sent_at_seconds REAL NOT NULL,
        visible_at_seconds REAL NOT NULL,
        received_at_seconds REAL,
        receive_count INTEGER NOT NULL DEFAULT 0,
        receipt TEXT
    );
    CREATE INDEX messages_by_visibility ON messages (queue_id, visible_at_seconds);
    -- Apart from their messages, so that receiving one or extending its visibility does not rewrite a long body.
    CREATE TABLE contents (
        row_id INTEGER PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
        body TEXT NOT NULL,
        body_md5 TEXT NOT NULL,
        attributes TEXT NOT NULL
    );
    CREATE TABLE ledger (
        transaction_id TEXT PRIMARY KEY NOT NULL,
        submission_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        user_id INTEGER NOT NULL,
        receipt_sha256 TEXT NOT NULL,
        product_id TEXT,
        original_transaction_id TEXT,
        environment TEXT NOT NULL,
        source_queue TEXT NOT NULL,
        post_queue TEXT NOT NULL,
        claimed_at_seconds REAL NOT NULL,
        refunded_at_seconds REAL,
        schema_version INTEGER NOT NULL
    ) WITHOUT ROWID;
"""

#: Version 2. A claim must not pass by a tombstone, so a program that knows none refuses the file.
_REFUNDS = """
    CREATE TABLE tombstones (
        transaction_id TEXT PRIMARY KEY NOT NULL,
        refunded_at_seconds REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE notifications (
        notification_uuid TEXT PRIMARY KEY NOT NULL,
        recorded_at_seconds REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX notifications_by_age ON notifications (recorded_at_seconds);
    CREATE TABLE refund_reversals (
        transaction_id TEXT PRIMARY KEY NOT NULL,
        reversed_at_seconds REAL NOT NULL,
        recorded_at_seconds REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX refund_reversals_by_age ON refund_reversals (recorded_at_seconds);
"""

#: What nodes agree on. If it was dropped it is made anew: nodes know what was in it.
ROLE_GROUPS = """
    CREATE TABLE IF NOT EXISTS role_groups (
        name TEXT PRIMARY KEY NOT NULL,
        version INTEGER NOT NULL,
        content TEXT NOT NULL
    ) WITHOUT ROWID;
"""

#: Version 3: roles, and FIFO queues. A program that does not know these would deliver a group out of order. The indexes
#: begin with what a receive asks for: the oldest rows, and what is hidden of a group.
_ROLES_AND_FIFO = f"""
    {ROLE_GROUPS}
    ALTER TABLE messages ADD COLUMN group_id TEXT;
    CREATE INDEX messages_in_order ON messages (queue_id, row_id) WHERE group_id IS NOT NULL;
    CREATE INDEX messages_of_groups ON messages (queue_id, group_id, visible_at_seconds) WHERE group_id IS NOT NULL;
    CREATE TABLE deduplications (
        queue_id INTEGER NOT NULL REFERENCES queues,
        deduplication_id TEXT NOT NULL,
        sent_at_seconds REAL NOT NULL,
        PRIMARY KEY (queue_id, deduplication_id)
    ) WITHOUT ROWID;
    CREATE INDEX deduplications_by_age ON deduplications (sent_at_seconds);
"""

#: Version 4: how many were bought, and how much was refunded.
_QUANTITIES = """
    ALTER TABLE ledger ADD COLUMN quantity INTEGER;
    ALTER TABLE ledger ADD COLUMN revocation_type TEXT;
    ALTER TABLE ledger ADD COLUMN revocation_percentage INTEGER;
    ALTER TABLE tombstones ADD COLUMN revocation_type TEXT;
    ALTER TABLE tombstones ADD COLUMN revocation_percentage INTEGER;
"""

#: The scripts that turn a file of each version into one of the next, from an empty file on.
_SCRIPTS = (_SCHEMA, _REFUNDS, _ROLES_AND_FIFO, _QUANTITIES)
SCHEMA_VERSION = len(_SCRIPTS)  #: ``PRAGMA user_version``

#: Primary result codes that may pass, perhaps by an operator's hand; any other is a bug of ours.
_NOT_WRITABLE_CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY)
_UNAVAILABLE_CODES = (
    *_NOT_WRITABLE_CODES,
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
)

_gates: WeakValueDictionary[str, Gate] = WeakValueDictionary()
_gates_lock = threading.Lock()


class Database:
    """One connection to the file, used by one thread at a time.

    All of this process on the same file share ``gate``. ``transaction`` and ``connection`` hold it; wait at it for
    changes by others.
    """

    def __init__(self, path: Path, unavailable: type[UnavailableError]) -> None:
        """Open or create the file; passing trouble is raised as ``unavailable``.

        Raises ``ConfigurationError`` for a missing directory, a file that cannot be written, is no database, is
        another program's, or has the schema of a newer version.
        """
        self._path = path
        self._unavailable = unavailable
        self._closed = False
        self.gate = _gate(path)
        with self.gate:
            self._connection = _open(path, unavailable)
            self._identity = _identity(path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection inside a write transaction, which any error rolls back."""
        with self.connection() as connection:
            # An interrupt between this generator and the body of its with statement leaves a transaction behind.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            try:
                _begin(connection)  # which an interrupt may find when it has begun
                yield connection
                connection.execute("COMMIT")
            finally:
                if not self._closed and connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for single reads, each of which sees the last commit."""
        with self.gate:
            if self._closed:
                raise self._unavailable(f"database {self._path}: closed")
            # A file that was deleted or replaced while open would be written and vanish with its last process, claims
            # and all. The look takes 2 us.
            if _identity(self._path) != self._identity:
                raise self._unavailable(
                    f"database {self._path}: it has been deleted, moved or replaced since it was opened; "
                    "move it back, or restart to use what is there now"
                )
            try:
                yield self._connection
            except (sqlite3.Error, TypeError, ValueError) as error:
                if _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise _damaged(self._path, self._unavailable, str(error)) from error
                if _primary_code(error) in _UNAVAILABLE_CODES:
                    raise self._unavailable(_describe(self._path, error)) from error
                self._raise_if_damaged("integrity_check", error)  # a row that is not what was written; or a bug of ours
                raise

    def check(self) -> None:
        """Have SQLite look for damage, unless the file is too large for that."""
        with self.connection():
            if self._path.stat().st_size <= MAX_CHECKED_BYTES:
                self._raise_if_damaged("quick_check", None)

    def _raise_if_damaged(self, check: str, cause: Exception | None) -> None:
        """Raise ``unavailable`` if SQLite finds the file damaged; if not, the error is a bug of ours."""
        try:
            finding = str(self._connection.execute(f"PRAGMA {check}(1)").fetchone()[0])
        except sqlite3.Error as error:
            finding = str(error)
        if finding != "ok":
            told = finding.removeprefix("*** in database main ***").strip().partition("\n")[0]
            raise _damaged(self._path, self._unavailable, told) from cause

    def close(self) -> None:
        """Close the connection; later use is ``unavailable``. May be called twice."""
        with self.gate:
            self._closed = True
            self._connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode; None if there is no file to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _gate(path: Path) -> Gate:
    with _gates_lock:
        return _gates.setdefault(os.path.realpath(path), Gate())


def _open(path: Path, unavailable: type[UnavailableError]) -> sqlite3.Connection:
    if not path.parent.is_dir():
        raise _fault(path, f"there is no directory {path.parent}", "create it, or set `database` to another path")
    if path.is_dir():
        raise _fault(path, "it is a directory", "set `database` to the path of a file")
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        with ExitStack() as closed_on_error:
            closed_on_error.callback(connection.close)
            _prepare(path, connection)
            closed_on_error.pop_all()
        return connection
    except sqlite3.Error as error:
        code = _primary_code(error)
        if code == sqlite3.SQLITE_NOTADB:
            wish = "put a backup in its place if it was one; else set `database` to another path"
            raise _fault(path, "the file is not an SQLite database", wish) from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise _damaged(path, unavailable, str(error)) from error
        if code in _NOT_WRITABLE_CODES:
            wish = "this user needs to write the file and its directory; change their permissions or `database`"
            raise _fault(path, f"it cannot be written ({error})", wish) from error
        if code in _UNAVAILABLE_CODES:
            raise unavailable(_describe(path, error)) from error
        raise


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    # Every commit waits for the disk. That costs 0.13 ms a commit on a virtual SSD against 0.02 ms for NORMAL, which
    # may forget the last commits in a power cut. A claim is money, and queues commit once a batch of ten.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    _begin(connection)
    application_id, version, tables = (
        connection.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT COUNT(*) FROM sqlite_master")
    )
    if application_id == 0 and tables == 0:  # a new file
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        version = 0
    elif application_id != APPLICATION_ID:
        raise _fault(path, "it is a database of another program", "set `database` to a path of its own")
    elif not 1 <= version <= SCHEMA_VERSION:
        found = f"its schema has version {version}, this program knows version {SCHEMA_VERSION}"
        raise _fault(path, found, "run the version of receipt_actors that wrote it, or set `database` to a new path")
    if version < SCHEMA_VERSION:  # within the open transaction: another process sees all of it or nothing
        for statement in ";".join(_SCRIPTS[version:]).split(";"):  # ``executescript`` would commit first
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
    # SQLite answers BUSY here without waiting if others open the file meanwhile.
    mode = _execute_when_free(connection, "PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise _fault(path, f"no write-ahead log there (journal mode {mode!r})", "use a file on a local disk")


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock, which another process may hold.

    SQLite's own wait backs off to 100 ms a sleep, so that under load some processes wait for seconds. Short even sleeps
    give every process the same chance.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        _execute_when_free(connection, "BEGIN IMMEDIATE")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000:.0f}")


def _execute_when_free(connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(LOCK_POLL_SECONDS)


def _fault(path: Path, found: str, wish: str) -> ConfigurationError:
    return ConfigurationError([f"database {path}: {found}; {wish}"])


def _damaged(path: Path, unavailable: type[UnavailableError], finding: str) -> UnavailableError:
    return unavailable(
        f"database {path}: the file is damaged: {finding}; stop every process that uses it, and put a backup in its "
        "place, or what sqlite3's .recover can read of it",
        may_pass=False,
    )


def _describe(path: Path, error: Exception) -> str:
    return f"database {path}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"


def _primary_code(error: Exception) -> int | None:
    """Return the low byte of SQLite's extended result code; None for an error of Python's own module."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
