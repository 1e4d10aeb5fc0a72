"""What the embedded queues and ledger promise beyond the ports: time, wake-ups, many processes, durability."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receipt_actors.domain.ports import Environment, LedgerItem, OutgoingMessage, ReceivedMessage, Tombstone
from receipt_actors.errors import ConfigurationError, LedgerUnavailable, QueueRefused, QueueUnavailable
from receipt_actors.sqlite import EmbeddedLedger, EmbeddedQueues
from receipt_actors.sqlite.database import SCHEMA_VERSION, Database
from tests.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.backends.conftest import ManualClock

REPOSITORY = Path(__file__).parents[2]
QUEUE = "ReceiptsSQS"


@pytest.fixture
def queues(database: Path, clock: ManualClock) -> Iterator[EmbeddedQueues]:
    embedded = EmbeddedQueues(database, clock)
    embedded.create_queue(QUEUE, "DeadLetters", 3)
    yield embedded
    embedded.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def receive(queues: EmbeddedQueues, queue: str = QUEUE, *, wait_seconds: float = 0) -> Sequence[ReceivedMessage]:
    return queues.receive(queue, max_messages=10, wait_seconds=wait_seconds, visibility_timeout_seconds=30)


def drain(queues: EmbeddedQueues, queue: str) -> set[str]:
    bodies: set[str] = set()
    while batch := receive(queues, queue):
        bodies.update(message.body for message in batch)
    return bodies


def long_poll(pool: ThreadPoolExecutor, queues: EmbeddedQueues) -> Future[Sequence[ReceivedMessage]]:
    return pool.submit(receive, queues, wait_seconds=20)


def claim_of(transaction_id: str, submission_id: str = "s") -> LedgerItem:
    return LedgerItem(
        transaction_id, submission_id, "m", 1, "ab" * 32, None, None, Environment.PRODUCTION, "in", "out", 1.0
    )


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_clock_that_is_set_back_hides_nothing(
    queues: EmbeddedQueues, database: Path, clock: ManualClock, is_restarted: bool
) -> None:
    queues.send(QUEUE, [OutgoingMessage("in flight")])
    receive(queues)
    queues.send(QUEUE, [OutgoingMessage("new")])
    clock.advance(-3600)
    with ExitStack() as stack:
        if is_restarted:
            queues = stack.enter_context(closing(EmbeddedQueues(database, clock)))
        assert [message.body for message in receive(queues)] == ["new"]
        clock.advance(29)
        assert receive(queues) == []
        clock.advance(1)
        assert {message.body for message in receive(queues)} == {"in flight", "new"}


# --- receipt handles ----------------------------------------------------------------------------------------------


def test_a_handle_of_a_deleted_message_spares_its_successor(queues: EmbeddedQueues) -> None:
    """Storage is used again, receipt handles are not: a repeated delete never hits a message sent later."""
    queues.send(QUEUE, [OutgoingMessage("first")])
    (first,) = receive(queues)
    queues.delete(QUEUE, [first.receipt_handle])
    queues.send(QUEUE, [OutgoingMessage("second")])
    (second,) = receive(queues)
    assert queues.delete(QUEUE, [first.receipt_handle]) == [None]
    assert queues.change_visibility(QUEUE, [(second.receipt_handle, 0)]) == [None]


# --- long polls ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipt_actors.sqlite.gate.LOOK_SECONDS", 3600)


@pytest.mark.usefixtures("no_polling")
def test_a_send_and_a_hand_back_wake_a_long_poll(queues: EmbeddedQueues, pool: ThreadPoolExecutor) -> None:
    queues.interrupt()
    poll = long_poll(pool, queues)
    queues.send(QUEUE, [OutgoingMessage("x")])
    (message,) = poll.result(PATIENCE_SECONDS)
    poll = long_poll(pool, queues)
    queues.change_visibility(QUEUE, [(message.receipt_handle, 0)])
    assert len(poll.result(PATIENCE_SECONDS)) == 1


def test_the_end_of_a_visibility_wakes_a_long_poll(
    queues: EmbeddedQueues, pool: ThreadPoolExecutor, clock: ManualClock
) -> None:
    queues.send(QUEUE, [OutgoingMessage("x")])
    receive(queues)
    poll = long_poll(pool, queues)
    clock.advance(30)
    assert len(poll.result(PATIENCE_SECONDS)) == 1


@pytest.mark.usefixtures("no_polling")
def test_a_move_wakes_a_long_poll_of_the_dead_letter_queue(
    queues: EmbeddedQueues, pool: ThreadPoolExecutor, clock: ManualClock
) -> None:
    queues.send(QUEUE, [OutgoingMessage("poison")])
    for _ in range(3):
        receive(queues)
        clock.advance(30)
    poll = pool.submit(receive, queues, "DeadLetters", wait_seconds=20)
    assert receive(queues) == []
    assert len(poll.result(PATIENCE_SECONDS)) == 1


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("end", [EmbeddedQueues.interrupt, EmbeddedQueues.close])
def test_long_polls_can_be_interrupted(
    queues: EmbeddedQueues, pool: ThreadPoolExecutor, end: Callable[[EmbeddedQueues], None]
) -> None:
    polls = [long_poll(pool, queues) for _ in range(4)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and wait(polls, timeout=0.01).not_done:
        end(queues)  # again and again: a poll that was not under way yet is not interrupted
    outcomes = [poll.exception(0) or poll.result(0) for poll in polls]
    assert all(outcome == [] or isinstance(outcome, QueueUnavailable) for outcome in outcomes)


# --- several threads, several processes ----------------------------------------------------------------------------

CHILD_IMPORTS = """
import sys
from pathlib import Path
from receipt_actors.sqlite import EmbeddedLedger, EmbeddedNotifications, EmbeddedQueues, EmbeddedRoles
from receipt_actors.domain.ports import Environment, LedgerItem, OutgoingMessage
database, name = Path(sys.argv[1]), sys.argv[2]
def claim_of(transaction_id, submission_id="s"):
    return LedgerItem(
        transaction_id, submission_id, "m", 1, "ab" * 32, None, None, Environment.PRODUCTION, "in", "out", 1.0
    )
"""


def start_child(database: Path, program: str, name: str = "child") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD_IMPORTS + program, str(database), name],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_share_the_claims(database: Path) -> None:
    program = """
ledger = EmbeddedLedger(database)
print(*(number for number in range(200) if ledger.claim(claim_of(str(number), name)) is None))
"""
    children = [start_child(database, program, f"child-{number}") for number in range(3)]
    won = {
        f"child-{number}": child.communicate(timeout=PATIENCE_SECONDS)[0].split()
        for number, child in enumerate(children)
    }
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sorted(chain.from_iterable(won.values())) == sorted(str(number) for number in range(200))

    ledger = EmbeddedLedger(database)
    owners = {number: ledger.get(str(number)) for number in range(200)}
    ledger.close()
    assert all(owner is not None and str(number) in won[owner.submission_id] for number, owner in owners.items())


def test_whoever_waits_notices_what_another_process_does_to_its_queue(database: Path, pool: ThreadPoolExecutor) -> None:
    queues = EmbeddedQueues(database)
    queues.create_queues({"Sent": None, "HandedBack": None, "Group.fifo": None, "Empty": None})
    queues.send("HandedBack", [OutgoingMessage("handed back")])
    queues.send("Group.fifo", [OutgoingMessage("before", {}, "g", "1"), OutgoingMessage("behind", {}, "g", "2")])
    (handed_back,) = receive(queues, "HandedBack")
    (before,) = queues.receive("Group.fifo", max_messages=1, wait_seconds=0, visibility_timeout_seconds=600)
    polls = {
        queue: pool.submit(receive, queues, queue, wait_seconds=20)
        for queue in ("Empty", "Sent", "HandedBack", "Group.fifo")
    }
    child = start_child(
        database,
        f"""
queues = EmbeddedQueues(database)
queues.send("Sent", [OutgoingMessage("sent")])
queues.change_visibility("HandedBack", [("{handed_back.receipt_handle}", 0)])
queues.delete("Group.fifo", ["{before.receipt_handle}"])
""",
    )
    assert child.wait(timeout=PATIENCE_SECONDS) == 0
    child.communicate()
    told = {queue: polls[queue].result(PATIENCE_SECONDS) for queue in ("Sent", "HandedBack", "Group.fifo")}
    assert {queue: message.body for queue, (message,) in told.items()} == {
        "Sent": "sent",
        "HandedBack": "handed back",
        "Group.fifo": "behind",
    }
    queues.interrupt()
    assert polls["Empty"].result(PATIENCE_SECONDS) == []
    queues.close()


def test_what_was_confirmed_survives_kill_9(database: Path) -> None:
    program = f"""
queues, ledger = EmbeddedQueues(database), EmbeddedLedger(database)
queues.create_queue("{QUEUE}")
queues.create_queue("Deleted")
for number in range(1_000_000):
    assert ledger.claim(claim_of(str(number))) is None
    assert queues.send("{QUEUE}", [OutgoingMessage(str(number))]) == [None]
    assert queues.send("Deleted", [OutgoingMessage(str(number))]) == [None]
    (message,) = queues.receive("Deleted", max_messages=1, wait_seconds=0, visibility_timeout_seconds=0)
    assert queues.delete("Deleted", [message.receipt_handle]) == [None]
    print(number, flush=True)
"""
    child = start_child(database, program)
    assert child.stdout is not None
    for _ in range(40):
        last = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    assert child.wait(timeout=PATIENCE_SECONDS) == -signal.SIGKILL
    last = max([last, *(int(line) for line in child.stdout.read().splitlines())])
    child.communicate()

    queues, ledger = EmbeddedQueues(database), EmbeddedLedger(database)
    reported = {str(number) for number in range(last + 1)}
    assert all(ledger.get(number) == claim_of(number) for number in reported)
    assert reported <= drain(queues, QUEUE)
    assert not reported & drain(queues, "Deleted")
    ledger.close()
    queues.close()


def test_a_commit_waits_for_the_disk(database: Path) -> None:
    """A power cut cannot be staged here; the setting that outlives one can be read: FULL, with a write-ahead log."""
    with closing(Database(database, LedgerUnavailable)) as file, file.connection() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_held_by_another_is_unavailable(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receipt_actors.sqlite.database.BUSY_TIMEOUT_SECONDS", 0.05)
    queues, ledger = EmbeddedQueues(database), EmbeddedLedger(database)
    queues.create_queue(QUEUE)
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(QueueUnavailable, match="locked"):
        queues.send(QUEUE, [OutgoingMessage("x")])
    with pytest.raises(LedgerUnavailable, match="locked"):
        ledger.claim(claim_of("1"))
    holder.execute("ROLLBACK")
    holder.close()
    assert queues.send(QUEUE, [OutgoingMessage("x")]) == [None]
    assert ledger.claim(claim_of("1")) is None
    ledger.close()
    queues.close()


def test_an_interrupt_as_a_transaction_begins_leaves_none_open(
    queues: EmbeddedQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("receipt_actors.sqlite.database._begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queues.send(QUEUE, [OutgoingMessage("x")])
    assert queues.send(QUEUE, [OutgoingMessage("y")]) == [None]
    assert drain(queues, QUEUE) == {"y"}


def test_an_interrupt_before_the_first_statement_of_a_transaction_leaves_none_open(queues: EmbeddedQueues) -> None:
    interrupted = queues._database.transaction()
    interrupted.__enter__()  # and its with statement never begins
    assert queues.send(QUEUE, [OutgoingMessage("x")]) == [None]
    assert drain(queues, QUEUE) == {"x"}
    queues.close()
    del interrupted  # a closed database has nothing to roll back: pytest would tell of an error


def test_a_full_disk_is_unavailable_and_takes_nothing_half(database: Path) -> None:
    with closing(Database(database, QueueUnavailable)) as file:
        with file.connection() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        def insert(*names: str) -> None:
            with file.transaction() as connection:
                connection.executemany("INSERT INTO queues (name) VALUES (?)", [(name,) for name in names])

        with pytest.raises(QueueUnavailable, match="full"):
            insert("small", "x" * 100_000)
        insert("later")
        with file.connection() as connection:
            assert connection.execute("SELECT name FROM queues").fetchall() == [("later",)]


def test_a_corrupt_file_is_unavailable(database: Path) -> None:
    with closing(EmbeddedLedger(database)) as ledger:
        for number in range(200):
            ledger.claim(claim_of(str(number)))
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(size - 4096))
    with (
        closing(EmbeddedLedger(database)) as ledger,
        pytest.raises(LedgerUnavailable, match=f"{database.name}.*malformed"),
    ):
        ledger.claim(claim_of("new"))


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_deleted_while_it_is_used_is_unavailable(database: Path, is_replaced: bool) -> None:
    with closing(EmbeddedQueues(database)) as queues, closing(EmbeddedLedger(database)) as ledger:
        queues.create_queue(QUEUE)
        queues.send(QUEUE, [OutgoingMessage("x")])
        elsewhere = database.rename(database.with_suffix(".elsewhere"))
        if is_replaced:
            database.touch()
        with pytest.raises(QueueUnavailable, match="deleted, moved or replaced"):
            receive(queues)
        with pytest.raises(LedgerUnavailable, match=f"{database.name}.*restart"):
            ledger.claim(claim_of("1"))
        elsewhere.rename(database)
        assert ledger.claim(claim_of("1")) is None
        assert [message.body for message in receive(queues)] == ["x"]


def test_a_closed_adapter_is_unavailable(database: Path) -> None:
    queues, ledger = EmbeddedQueues(database), EmbeddedLedger(database)
    for adapter in (queues, ledger, queues, ledger):
        adapter.close()
    with pytest.raises(QueueUnavailable, match="closed"):
        receive(queues)
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.claim(claim_of("1"))


# --- what cannot be opened -----------------------------------------------------------------------------------------


def refusal(database: Path) -> str:
    """Open the file for queues and for a ledger; both must refuse it with the same single fault."""
    faults: set[str] = set()
    for adapter in (EmbeddedQueues, EmbeddedLedger):
        with pytest.raises(ConfigurationError) as error:
            adapter(database)
        faults.update(error.value.faults)
    (fault,) = faults
    assert str(database) in fault
    return fault


def test_what_is_no_place_for_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Directories are not made: a mistyped path must not start an empty ledger. Another's tables stay unmixed.

    SQLite's ``:memory:`` would forget the claims, and would be another database for each adapter.
    """
    assert "it is a directory" in refusal(tmp_path)
    assert "create it" in refusal(tmp_path / "missing" / "receipts.db")
    assert not (tmp_path / "missing").exists()
    assert "write-ahead log" in refusal(Path(":memory:"))
    notes, recipes = tmp_path / "notes.txt", tmp_path / "recipes.db"
    notes.write_text("these are my notes\n" * 500)
    with closing(sqlite3.connect(recipes)) as other, other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    for file, words in ((notes, "not an SQLite database"), (recipes, "another program")):
        before = file.read_bytes()
        assert words in refusal(file)
        assert file.read_bytes() == before


# --- FIFO queues ---


@pytest.fixture
def fifo(queues: EmbeddedQueues) -> str:
    queues.create_queue("q.fifo", "d.fifo", 3)
    return "q.fifo"


def test_a_repetition_after_five_minutes_is_a_message(queues: EmbeddedQueues, clock: ManualClock, fifo: str) -> None:
    message = OutgoingMessage("x", {}, "a", "id")
    for seconds, count in ((0, 1), (299, 1), (1, 2), (299, 2)):
        clock.advance(seconds)
        assert queues.send(fifo, [message]) == [None]
        assert queues.approximate_number_of_messages(fifo) == count
    clock.advance(-3600)  # an id of the future is not believed: rather an answer too many
    queues.send(fifo, [message])
    assert len(receive(queues, fifo)) == count + 1


def test_a_long_poll_does_not_spin_on_a_blocked_group(
    queues: EmbeddedQueues, clock: ManualClock, fifo: str, pool: ThreadPoolExecutor
) -> None:
    queues.send(fifo, [OutgoingMessage("a1", {}, "a", "1"), OutgoingMessage("a2", {}, "a", "2")])
    (first,) = queues.receive(fifo, max_messages=1, wait_seconds=0, visibility_timeout_seconds=30)
    looks = 0
    next_visible_at = queues._next_visible_at

    def count(queue: str, now: float) -> float | None:
        nonlocal looks
        looks += 1
        return next_visible_at(queue, now)

    queues._next_visible_at = count  # type: ignore[method-assign]
    assert receive(queues, fifo, wait_seconds=0.5) == []
    assert looks < 20
    poll = pool.submit(receive, queues, fifo, wait_seconds=PATIENCE_SECONDS)
    queues.delete(fifo, [first.receipt_handle])
    assert [message.body for message in poll.result(PATIENCE_SECONDS)] == ["a2"]


# --- files that older versions wrote ---

VERSION_1 = Path(__file__).with_name("database_version_1.sql")


@pytest.fixture
def old_database(database: Path) -> Path:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(VERSION_1.read_text(encoding="utf-8"))
    return database


def schema_of(database: Path) -> tuple[int, list[str]]:
    with closing(sqlite3.connect(database)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        statements = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return version, sorted(" ".join(statement.split()) for (statement,) in statements)


def test_an_old_file_goes_on_to_be_used(old_database: Path) -> None:
    with closing(EmbeddedLedger(old_database)) as ledger, closing(EmbeddedQueues(old_database)) as queues:
        claim, refunded = (ledger.get(f"100000004617881{number}") for number in (7, 8))
        assert isinstance(claim, LedgerItem)
        assert isinstance(refunded, LedgerItem)
        assert (claim.submission_id, claim.refunded_at_seconds) == ("s-1", None)
        assert (claim.quantity, claim.schema_version, claim.revocation_percentage) == (None, 1, None)
        assert refunded.refunded_at_seconds == 1_700_000_100.0
        assert ledger.claim(replace(claim, submission_id="another")) == claim
        assert ledger.mark_refunded(claim.transaction_id, 5.0) == replace(claim, refunded_at_seconds=5.0)
        assert ledger.mark_refunded("unclaimed", 5.0) == Tombstone("unclaimed", 5.0)
        (message,) = receive(queues)
        assert message.attributes == {"submission_id": "s-7"}


def test_many_may_open_an_old_file_at_once(old_database: Path, pool: ThreadPoolExecutor) -> None:
    opened = list(pool.map(EmbeddedLedger, [old_database] * 8))
    for ledger in opened:
        assert ledger.get("1000000046178817") is not None
        ledger.close()
    new = old_database.with_name("new.db")
    EmbeddedLedger(new).close()
    assert schema_of(old_database) == schema_of(new)
    assert schema_of(new)[0] == SCHEMA_VERSION


def test_an_old_file_that_cannot_be_brought_up_to_date_stays_as_it_is(old_database: Path) -> None:
    with closing(sqlite3.connect(old_database)) as connection:
        connection.execute("CREATE TABLE refund_reversals (surprise TEXT)")
    before = schema_of(old_database)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        EmbeddedLedger(old_database)
    assert schema_of(old_database) == before


def test_a_schema_that_never_was_is_refused(old_database: Path) -> None:
    for version in (0, -1, 99):
        with closing(sqlite3.connect(old_database)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        assert f"version {version}" in refusal(old_database)


def test_a_file_that_this_user_may_not_write_is_refused() -> None:
    """The refusal says what to change. (root may write anything, so a child process becomes somebody else.)"""
    with tempfile.TemporaryDirectory() as directory:  # pytest's own directories are closed to other users
        database = Path(directory) / "receipts.db"
        EmbeddedLedger(database).close()
        database.chmod(0o444)
        Path(directory).chmod(0o555)
        program = """
import os
from receipt_actors.errors import ConfigurationError
if os.geteuid() == 0:
    os.setuid(65534)
try:
    EmbeddedLedger(database)
except ConfigurationError as error:
    print(*error.faults)
"""
        child = start_child(database, program)
        said, _ = child.communicate(timeout=PATIENCE_SECONDS)
        Path(directory).chmod(0o755)
    assert "cannot be written" in said and "permissions" in said


# --- the making of queues -------------------------------------------------------------------------------------------


def test_several_queues_are_created_together_or_not_at_all(queues: EmbeddedQueues) -> None:
    with pytest.raises(ConfigurationError) as caught:
        queues.create_queues({"A": "A", "B": None, "C D": None})
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["queue 'A'", "queue 'C D'"]
    with pytest.raises(QueueRefused):
        queues.dead_letter_queue("B")
    queues.create_queues({"A": "ADead", "B": None})
    assert (queues.dead_letter_queue("A"), queues.dead_letter_queue("B")) == ("ADead", None)


def test_creating_a_queue_again_keeps_its_messages_and_changes_its_policy_where_that_is_wanted(
    queues: EmbeddedQueues, clock: ManualClock
) -> None:
    queues.send(QUEUE, [OutgoingMessage("x")])
    queues.create_queue(QUEUE)
    assert queues.dead_letter_queue(QUEUE) == "DeadLetters"
    assert len(receive(queues)) == 1
    queues.create_queues({"Plain": None})
    wanted = {QUEUE: "Elsewhere", "Plain": "Elsewhere", "New": "Newer", "Newer": "NewerDead"}
    queues.create_queues(wanted, 1, changes_policies=False)
    assert [queues.dead_letter_queue(each) for each in wanted] == ["DeadLetters", None, "Newer", "NewerDead"]
    queues.create_queue(QUEUE, "Elsewhere", 1)
    clock.advance(30)
    assert receive(queues) == []
    assert len(receive(queues, "Elsewhere")) == 1


@pytest.mark.parametrize(
    ("name", "dead_letter_queue", "max_receive_count"),
    [
        ("a b", None, 20),
        ("", None, 20),
        (".fifo", None, 20),
        ("q.fifo", "d", 20),
        ("q", "d.fifo", 20),
        ("q", "https://x/1/q", 20),
        ("q", "q", 20),
        ("q", "d", 0),
    ],
)
def test_a_queue_that_cannot_be_is_refused(
    queues: EmbeddedQueues, name: str, dead_letter_queue: str | None, max_receive_count: int
) -> None:
    """Names are SQS's, so that an installation can move there; nothing is created by a refused call."""
    with pytest.raises(ConfigurationError):
        queues.create_queue(name, dead_letter_queue, max_receive_count)
    with pytest.raises(QueueRefused):
        queues.approximate_number_of_messages(name)


# --- properties -----------------------------------------------------------------------------------------------------


@given(bodies=st.lists(st.text(st.characters(), max_size=8), min_size=1, max_size=10))
@settings(max_examples=100, deadline=None)
def test_any_text_is_kept_as_it_is_or_refused(tmp_path_factory: pytest.TempPathFactory, bodies: list[str]) -> None:
    with closing(EmbeddedQueues(tmp_path_factory.getbasetemp() / "any_text.db")) as queues:
        queues.create_queue(QUEUE)
        failures = queues.send(QUEUE, [OutgoingMessage(body) for body in bodies])
        messages = receive(queues)
        queues.delete(QUEUE, [message.receipt_handle for message in messages])
    sent = [body for body, failure in zip(bodies, failures, strict=True) if failure is None]
    assert sorted(message.body for message in messages) == sorted(sent)
    assert all(failure is None or failure.sender_fault for failure in failures)
