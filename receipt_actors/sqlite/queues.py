"""Queues in an SQLite file that keep the promises of SQS's queues, standard and FIFO.

As in SQS, a redrive policy moves a message to the dead-letter queue when it would be received once more than
``max_receive_count`` allows; its id, attributes, first sent time and receive count go along. Only the newest receipt
handle counts: a delete by an older one is confirmed and does nothing, a change of visibility by an older one fails.
Unlike in SQS a message never expires.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from receipt_actors.domain import sqs_rules
from receipt_actors.domain.ports import (
    MAX_BATCH_ENTRIES,
    MAX_VISIBILITY_SECONDS,
    EntryFailure,
    OutgoingMessage,
    ReceivedMessage,
)
from receipt_actors.domain.sqs_rules import DEDUPLICATION_SECONDS, dead_letter_queue_fault, is_fifo
from receipt_actors.errors import ConfigurationError, QueueRefused, QueueUnavailable
from receipt_actors.sqlite.database import Database

CLOCK_STEP_SECONDS = 0.1  #: that the clock may be set back unnoticed
MAX_RECEIVE_COUNT = 1000  #: the largest ``maxReceiveCount`` of a redrive policy (SQS)

#: When the next message of each queue is visible; None: there is none.
_NEXT_VISIBLE_OF_EACH = """
    SELECT name, (SELECT MIN(visible_at_seconds) FROM messages WHERE messages.queue_id = queues.queue_id) FROM queues
"""
#: Row and receipt; a row's number may be used again, its receipt never is.
_RECEIPT_HANDLE = re.compile(r"(?P<row>[0-9]{1,18})\.(?P<receipt>[0-9a-f]{32})")
_INVALID_RECEIPT_HANDLE = EntryFailure(sqs_rules.INVALID_RECEIPT_HANDLE, "not a receipt handle of these queues", True)
#: What ``_message`` reads.
_MESSAGE = (
    "message_id, body, body_md5, attributes, receive_count, sent_at_seconds, NULL, group_id"
    " FROM messages JOIN contents USING (row_id)"
)


#: The next messages of a standard queue.
_NEXT = """
    SELECT row_id, receive_count FROM messages
    WHERE queue_id = :queue AND visible_at_seconds <= :now ORDER BY visible_at_seconds LIMIT :limit
"""
#: The next messages of a FIFO queue, in order: a new row has the greatest number. A hidden message blocks its group.
_NEXT_IN_ORDER = """
    SELECT row_id, receive_count FROM messages AS next INDEXED BY messages_in_order
    WHERE queue_id = :queue AND group_id IS NOT NULL AND visible_at_seconds <= :now AND NOT EXISTS (
        SELECT 1 FROM messages AS hidden INDEXED BY messages_of_groups
        WHERE hidden.queue_id = :queue AND hidden.group_id = next.group_id AND hidden.group_id IS NOT NULL
        AND hidden.visible_at_seconds > :now
    ) ORDER BY row_id LIMIT :limit
"""


class _Queue(NamedTuple):
    queue_id: int
    dead_letter_queue_id: int | None
    max_receive_count: int | None


class EmbeddedQueues:
    """``Queues`` in the SQLite file ``database``; several threads and processes may use it at once.

    ``clock`` gives the UNIX time in seconds that visibility timeouts are measured with. When it is set back, messages
    stay hidden no longer than before. Passing trouble with the file (held by another process for over 5 s, disk full,
    I/O error, corruption) is ``QueueUnavailable``. The constructor raises ``ConfigurationError`` for a file that cannot
    be used at all.
    """

    def __init__(self, database: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(database, QueueUnavailable)
        self._clock = clock
        # What follows is guarded by the database's gate.
        self._interruptions = 0
        self._offsets: dict[str, float] = {}  # of the clock when each queue was last looked at
        self._offset = clock() - time.monotonic()  # at the last look around
        self._seen_version: int | None = None  # of the file, likewise

    def create_queue(self, name: str, dead_letter_queue: str | None = None, max_receive_count: int = 20) -> None:
        """Create the queue, and its dead-letter queue, unless they exist.

        An existing queue takes the redrive policy over; ``dead_letter_queue=None`` leaves what policy it has. Raises
        ``ConfigurationError`` for a name that SQS would not allow and a ``max_receive_count`` outside 1 to 1,000.
        """
        self.create_queues({name: dead_letter_queue}, max_receive_count)

    def create_queues(
        self,
        dead_letter_queues: Mapping[str, str | None],
        max_receive_count: int = 20,
        *,
        changes_policies: bool = True,
    ) -> None:
        """Create each queue with its dead-letter queue, as ``create_queue`` does; all of them or none.

        Without ``changes_policies`` a queue that exists stays as it is.
        """
        faults = [fault for queue in dead_letter_queues.items() for fault in _faults(*queue)]
        if not 1 <= max_receive_count <= MAX_RECEIVE_COUNT:
            faults.append(f"max_receive_count {max_receive_count}: expected 1 to {MAX_RECEIVE_COUNT}")
        if faults:
            raise ConfigurationError(faults)
        create = "INSERT OR IGNORE INTO queues (name) VALUES (?)"
        with self._database.transaction() as connection:
            kept = set() if changes_policies else {name for (name,) in connection.execute("SELECT name FROM queues")}
            for name, dead_letter_queue in dead_letter_queues.items():
                if name in kept:
                    continue
                connection.execute(create, (name,))
                if dead_letter_queue is not None:
                    connection.execute(create, (dead_letter_queue,))
                    connection.execute(
                        "UPDATE queues SET max_receive_count = ?, dead_letter_queue_id ="
                        " (SELECT queue_id FROM queues WHERE name = ?) WHERE name = ?",
                        (max_receive_count, dead_letter_queue, name),
                    )

    def receive(
        self, queue: str, *, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> Sequence[ReceivedMessage]:
        """Receive; a long poll ends early on ``interrupt`` and ``close``, with nothing."""
        if not 1 <= max_messages <= MAX_BATCH_ENTRIES:
            raise ValueError(f"max_messages {max_messages}: expected 1 to {MAX_BATCH_ENTRIES}")
        deadline = time.monotonic() + wait_seconds
        with self._database.gate:
            interruptions = self._interruptions
            while interruptions == self._interruptions:
                now = self._clock()
                offset = now - time.monotonic()
                if offset < self._offsets.get(queue, math.inf) - CLOCK_STEP_SECONDS:
                    self._forget_the_future(queue, now)
                self._offsets[queue] = offset
                next_visible_at = self._next_visible_at(queue, now)
                if next_visible_at is not None and next_visible_at <= now:
                    received = self._take(queue, max_messages, now, visibility_timeout_seconds)
                    if received:
                        return received
                    continue  # all of them went to the dead-letter queue, or another process was faster
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                pause = remaining if next_visible_at is None else min(remaining, next_visible_at - now)
                # A FIFO queue may have more to give though the next visible message is the same.
                known = object() if is_fifo(queue) else next_visible_at
                self._database.gate.wait(queue, pause, known, self._look_around)
        return []

    def _look_around(self) -> None:
        """Wake threads for changes by other processes or connections, and for a clock that was set."""
        offset = self._clock() - time.monotonic()
        if abs(offset - self._offset) > CLOCK_STEP_SECONDS:
            self._database.gate.tell_all()
        self._offset = offset
        with self._database.connection() as connection:
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._seen_version:
                self._seen_version = version
                self._database.gate.tell_news(dict(connection.execute(_NEXT_VISIBLE_OF_EACH)))

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
        failures = sqs_rules.check_send_batch(queue, messages)
        with self._database.transaction() as connection:
            queue_id = _find(connection, queue).queue_id
            now = self._clock()
            for message, failure in zip(messages, failures, strict=True):
                if failure is None and _is_new(connection, queue_id, message.deduplication_id, now):
                    _insert(connection, queue_id, message, now)
        self._tell(queue)
        return failures

    def delete(self, queue: str, receipt_handles: Sequence[str]) -> Sequence[EntryFailure | None]:
        if crowd := sqs_rules.check_handle_batch(len(receipt_handles)):
            return crowd
        with self._database.transaction() as connection:
            queue_id = _find(connection, queue).queue_id
            failures = [_delete(connection, queue_id, receipt_handle) for receipt_handle in receipt_handles]
        if is_fifo(queue):
            self._tell(queue)  # what is behind them in their groups can be received
        return failures

    def change_visibility(self, queue: str, changes: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
        if crowd := sqs_rules.check_handle_batch(len(changes)):
            return crowd
        with self._database.transaction() as connection:
            queue_id = _find(connection, queue).queue_id
            now = self._clock()
            results = [_change_visibility(connection, queue_id, handle, seconds, now) for handle, seconds in changes]
        self._tell(queue)
        return results

    def dead_letter_queue(self, queue: str) -> str | None:
        select = "SELECT name FROM queues WHERE queue_id = ?"
        with self._database.connection() as connection:
            row = connection.execute(select, (_find(connection, queue).dead_letter_queue_id,)).fetchone()
            return row[0] if row else None

    def approximate_number_of_messages(self, queue: str) -> int:
        with self._database.connection() as connection:
            count: int = connection.execute(
                "SELECT COUNT(*) FROM messages WHERE queue_id = ? AND visible_at_seconds <= ?",
                (_find(connection, queue).queue_id, self._clock()),
            ).fetchone()[0]
            return count

    def interrupt(self) -> None:
        """End the long polls under way, with nothing. Later ones wait as usual."""
        with self._database.gate:
            self._interruptions += 1
            self._database.gate.tell_all()

    def close(self) -> None:
        """Interrupt, and close the file; any later call is ``QueueUnavailable``. May be called twice."""
        with self._database.gate:  # no receive begins in between
            self.interrupt()
            self._database.close()

    def _tell(self, queue: str) -> None:
        with self._database.gate:
            self._database.gate.tell(queue)

    def _forget_the_future(self, queue: str, now: float) -> None:
        """Set the times of messages that are later than ``now`` to now: the clock was set back.

        Else they would stay hidden until the clock is there again.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE messages SET received_at_seconds = min(received_at_seconds, :now), visible_at_seconds ="
                " iif(receipt IS NULL, :now, :now + visible_at_seconds - received_at_seconds)"
                " WHERE queue_id = :queue AND visible_at_seconds > :now"
                " AND (receipt IS NULL OR received_at_seconds > :now)",
                {"queue": _find(connection, queue).queue_id, "now": now},
            )

    def _next_visible_at(self, queue: str, now: float) -> float | None:
        with self._database.connection() as connection:
            queue_id = _find(connection, queue).queue_id
            after = -math.inf
            if is_fifo(queue):  # a visible message may be blocked by a hidden one
                if _next(connection, queue, queue_id, 1, now):
                    return now
                after = now
            next_visible_at: float | None = connection.execute(
                "SELECT MIN(visible_at_seconds) FROM messages WHERE queue_id = ? AND visible_at_seconds > ?",
                (queue_id, after),
            ).fetchone()[0]
            return next_visible_at

    def _take(self, name: str, max_messages: int, now: float, visibility_timeout_seconds: int) -> list[ReceivedMessage]:
        with self._database.transaction() as connection:
            queue = _find(connection, name)
            rows = _next(connection, name, queue.queue_id, max_messages, now)
            received = []
            for row_id, receive_count in rows:
                if queue.max_receive_count is not None and receive_count >= queue.max_receive_count:
                    connection.execute(
                        "UPDATE messages SET queue_id = ?, visible_at_seconds = ?, receipt = NULL WHERE row_id = ?",
                        (queue.dead_letter_queue_id, now, row_id),
                    )
                else:
                    received.append(_receive(connection, row_id, now, visibility_timeout_seconds))
        if len(received) < len(rows):
            with self._database.gate:
                self._database.gate.tell_all()  # also threads that wait for the dead-letter queue
        return received


def _faults(name: str, dead_letter_queue: str | None) -> Iterator[str]:
    names = [name] if dead_letter_queue is None else [name, dead_letter_queue]
    for each in names:
        if fault := sqs_rules.queue_name_fault(each):
            yield f"queue {each!r}: {fault}"
    if dead_letter_queue is not None and (kinds := dead_letter_queue_fault(name, dead_letter_queue)):
        yield f"queue {dead_letter_queue!r}: {kinds}"
    if name == dead_letter_queue:
        yield f"queue {name!r}: a queue cannot be its own dead-letter queue"


def _find(connection: sqlite3.Connection, name: str) -> _Queue:
    row = connection.execute(
        "SELECT queue_id, dead_letter_queue_id, max_receive_count FROM queues WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        raise QueueRefused(name, "does not exist in this database; create it first")
    return _Queue(*row)


def _next(connection: sqlite3.Connection, name: str, queue_id: int, limit: int, now: float) -> list[tuple[int, int]]:
    """Return row and receive count of the next messages that can be received."""
    parameters = {"queue": queue_id, "now": now, "limit": limit}
    return connection.execute(_NEXT_IN_ORDER if is_fifo(name) else _NEXT, parameters).fetchall()


def _is_new(connection: sqlite3.Connection, queue_id: int, deduplication_id: str | None, now: float) -> bool:
    """Remember a message; return False for a repetition. A future time is from a clock since set back: ignored."""
    if deduplication_id is None:
        return True
    too_old = now - DEDUPLICATION_SECONDS
    connection.execute("DELETE FROM deduplications WHERE sent_at_seconds <= ? OR sent_at_seconds > ?", (too_old, now))
    return bool(
        connection.execute(
            "INSERT OR IGNORE INTO deduplications VALUES (?, ?, ?)", (queue_id, deduplication_id, now)
        ).rowcount
    )


def _insert(connection: sqlite3.Connection, queue_id: int, message: OutgoingMessage, now: float) -> None:
    row_id = connection.execute(
        "INSERT INTO messages (queue_id, message_id, sent_at_seconds, visible_at_seconds, group_id)"
        " VALUES (?, ?, ?, ?, ?)",
        (queue_id, str(uuid.uuid4()), now, now, message.group_id),
    ).lastrowid
    connection.execute(
        "INSERT INTO contents (row_id, body, body_md5, attributes) VALUES (?, ?, ?, ?)",
        (row_id, message.body, sqs_rules.body_md5(message.body), json.dumps(dict(message.attributes))),
    )


def look(path: Path, queue: str) -> Iterator[ReceivedMessage]:
    """Yield the visible messages, without receipt handles, and change nothing. Raises as ``EmbeddedQueues.receive``."""
    last_row_id = 0
    with closing(Database(path, QueueUnavailable)) as database:
        while True:
            # A page at a time: while a statement reads, SQLite's write-ahead log only grows.
            with database.connection() as connection:
                rows = connection.execute(
                    f"SELECT row_id, {_MESSAGE}"  # nosec B608 # a constant
                    " WHERE queue_id = ? AND visible_at_seconds <= ? AND row_id > ? ORDER BY row_id LIMIT 100",
                    (_find(connection, queue).queue_id, time.time(), last_row_id),
                ).fetchall()
            if not rows:
                return
            for last_row_id, *fields in rows:  # noqa: B007 # the next page begins after it
                yield _message(fields, receipt_handle="")


def _receive(
    connection: sqlite3.Connection, row_id: int, now: float, visibility_timeout_seconds: int
) -> ReceivedMessage:
    receipt = uuid.uuid4().hex
    connection.execute(
        "UPDATE messages SET receive_count = receive_count + 1, receipt = ?, received_at_seconds = ?,"
        " visible_at_seconds = ? WHERE row_id = ?",
        (receipt, now, now + visibility_timeout_seconds, row_id),
    )
    row = connection.execute(f"SELECT {_MESSAGE} WHERE row_id = ?", (row_id,)).fetchone()  # nosec B608 # a constant
    return _message(row, f"{row_id}.{receipt}")


def _message(row: Sequence[Any], receipt_handle: str) -> ReceivedMessage:
    message_id, body, body_md5, attributes, *rest = row
    return ReceivedMessage(message_id, receipt_handle, body, body_md5, json.loads(attributes), *rest)


def _delete(connection: sqlite3.Connection, queue_id: int, receipt_handle: str) -> EntryFailure | None:
    match = _RECEIPT_HANDLE.fullmatch(receipt_handle)
    if match is None:
        return _INVALID_RECEIPT_HANDLE
    connection.execute(
        "DELETE FROM messages WHERE row_id = ? AND queue_id = ? AND receipt = ?",
        (int(match["row"]), queue_id, match["receipt"]),
    )
    return None


def _change_visibility(
    connection: sqlite3.Connection, queue_id: int, receipt_handle: str, seconds: int, now: float
) -> EntryFailure | None:
    match = _RECEIPT_HANDLE.fullmatch(receipt_handle)
    if match is None:
        return _INVALID_RECEIPT_HANDLE
    if fault := sqs_rules.visibility_fault(seconds):
        return fault
    row = connection.execute(
        "SELECT received_at_seconds FROM messages"
        " WHERE row_id = ? AND queue_id = ? AND receipt = ? AND visible_at_seconds > ?",
        (int(match["row"]), queue_id, match["receipt"], now),
    ).fetchone()
    if row is None:
        detail = "the message is deleted, visible again, or was received again"
        return EntryFailure(sqs_rules.MESSAGE_NOT_IN_FLIGHT, detail, True)
    if now + seconds > row[0] + MAX_VISIBILITY_SECONDS:
        detail = f"total visibility timeout beyond the limit of {MAX_VISIBILITY_SECONDS} seconds since the receive"
        return EntryFailure(sqs_rules.INVALID_PARAMETER, detail, True)
    connection.execute(
        "UPDATE messages SET visible_at_seconds = ? WHERE row_id = ?", (now + seconds, int(match["row"]))
    )
    return None
