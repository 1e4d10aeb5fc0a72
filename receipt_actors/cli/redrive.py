"""``receipt-actors redrive``: move dead letters back to the source queue, each as the submission that it was.

The console's redrive gives a message a new id, so a submission's earlier claim looks like another's. This one sends a
copy with the attributes ``submission_id`` and ``submitted_at``, and deletes the dead letter only when the copy is
confirmed. Killed in between, it leaves both: that is harmless, for they are the same submission.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import click

from receipt_actors.backends import open_queues
from receipt_actors.cli import EXIT_DONE, EXIT_USAGE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.options import options_of
from receipt_actors.cli.patient_queues import PatientQueues, QueueReader, last_wait_seconds
from receipt_actors.cli.terminal import SlowProgress
from receipt_actors.domain.messages import is_intact, redriven_message, submission_id_of
from receipt_actors.domain.ports import OutgoingMessage, Queues, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sqs_rules import dead_letter_queue_fault, is_fifo
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import QueueSettings, load_source_settings

NO_REASON = "none"  #: of what the queue itself moved, after too many deliveries


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters to move: those that satisfy every kind of condition that was given."""

    reasons: frozenset[str]
    message_ids: frozenset[str]
    submission_ids: frozenset[str]

    def __contains__(self, message: ReceivedMessage) -> bool:
        """Tell whether the message is wanted; its id is that on the dead-letter queue, or that on the source queue."""
        message_ids = {message.message_id, message.attributes.get("source_message_id")}
        return (
            (not self.reasons or _reason(message) in self.reasons)
            and (not self.message_ids or not self.message_ids.isdisjoint(message_ids))
            and (not self.submission_ids or submission_id_of(message) in self.submission_ids)
        )


@dataclass(slots=True)
class Tally:
    """What became of the dead letters."""

    selected: Counter[str] = field(default_factory=Counter)  #: by reason
    moved: int = 0
    failed: int = 0
    left: int = 0  #: not selected
    came_back: int = 0  #: of a submission that this very run has moved
    behind: int = 0  #: not looked at: a FIFO queue gives nothing of a group of which some are left


@click.command(
    epilog="""\b
Examples:
  # what is there, and why
  receipt-actors redrive --database receipts.db --dry-run
  # Apple did not know what it said; now it does
  receipt-actors redrive --database receipts.db --reason receipt_malformed --reason unknown_status
  # all of it
  receipt-actors redrive --database receipts.db --all
  # one message, by the id that the logs show
  receipt-actors redrive --database receipts.db --message-id 5fea7756-0ea4-451a-a703-a558b933e274

It may be interrupted or killed at any time, and started again.

Without a filter and without --all nothing is moved: it prints what --dry-run prints, and exits with code 2.

A FIFO queue shows ten letters of a user at most while any of them is left there: what is behind is not looked at.
"""
)
@click.option(
    "--reason",
    "reasons",
    type=click.Choice([*(reason.value for reason in Reason), NO_REASON]),
    multiple=True,
    metavar="REASON",
    help=f"Only what was moved for this reason; {NO_REASON} for what the queue itself gave up. May be repeated.",
)
@click.option("--message-id", "message_ids", multiple=True, metavar="ID", help="Only this message. May be repeated.")
@click.option(
    "--submission-id", "submission_ids", multiple=True, metavar="ID", help="Only this submission. May be repeated."
)
@click.option("--all", "moves_all", is_flag=True, help="Move every dead letter; needed where there is no filter.")
@click.option("--dry-run", is_flag=True, help="Move nothing; count what would be moved, by reason.")
@options_of(QueueSettings)
def command(
    flags: Mapping[str, object],
    config: Path | None,
    reasons: Sequence[str],
    message_ids: Sequence[str],
    submission_ids: Sequence[str],
    moves_all: bool,
    dry_run: bool,
) -> int:
    """Move messages from the dead-letter queue back to the source queue.

    A message keeps its submission id and the time when it was first sent: what was answered OK is answered OK again,
    and what had not expired then has not expired now. The others are hidden from other readers meanwhile. Of several
    source queues, --source-queue says which; each has a dead-letter queue of its own.
    """
    has_filter = bool(reasons or message_ids or submission_ids)
    if moves_all and has_filter:
        raise click.UsageError("Give either --all or a filter.")
    selection = Selection(frozenset(reasons), frozenset(message_ids), frozenset(submission_ids))
    is_undecided = not (moves_all or has_filter or dry_run)
    settings = load_source_settings(QueueSettings, flags, config=config)
    with closing(open_queues(settings, create=False)) as opened:
        dead_letter_queue = _dead_letter_queue(opened, settings)
        queues = PatientQueues(opened)
        tally = Tally()
        try:
            with QueueReader(queues, dead_letter_queue) as dead_letters:
                redrive = _Redrive(queues, settings.source_queue, dead_letters, tally)
                redrive.run(selection, dry_run=dry_run or is_undecided, wait_seconds=last_wait_seconds(settings))
                if is_fifo(dead_letter_queue):
                    tally.behind = opened.approximate_number_of_messages(dead_letter_queue)
        except BaseException:
            if tally.moved:
                complain(f"{tally.moved} messages were moved before this:")
            raise
    _print(tally, dead_letter_queue, dry_run=dry_run or is_undecided)
    if is_undecided:
        complain("nothing was moved: give --all, or a filter (--reason, --message-id, --submission-id)")
        return EXIT_USAGE
    return EXIT_WORLD_FAILED if tally.failed else EXIT_DONE


def _dead_letter_queue(queues: Queues, settings: QueueSettings) -> str:
    name = settings.dead_letter_queue or queues.dead_letter_queue(settings.source_queue)
    if name is None:
        wish = "a redrive policy; give --dead-letter-queue where another queue is used"
        raise ConfigurationError([f"queue {settings.source_queue}: found no dead-letter queue, expected {wish}"])
    if fault := dead_letter_queue_fault(settings.source_queue, name):
        raise ConfigurationError([f"dead-letter queue {name}: {fault}"])
    return name


class _Redrive:
    """One pass over the dead-letter queue. What it does not delete is visible again when the reader ends."""

    def __init__(self, queues: PatientQueues, source_queue: str, dead_letters: QueueReader, tally: Tally) -> None:
        self._queues = queues
        self._source_queue = source_queue
        self._dead_letters = dead_letters
        self._tally = tally
        self._seen: set[str] = set()  # message ids; SQS may deliver one twice
        self._moved: set[str] = set()  # submission ids; what is unanswerable still comes back while we run

    def run(self, selection: Selection, *, dry_run: bool, wait_seconds: float) -> None:
        """Go on until there is nothing left to receive."""
        with SlowProgress("looking through the dead-letter queue") as progress:
            while messages := self._dead_letters.receive(wait_seconds=wait_seconds):
                selected = [message for message in messages if self._is_selected(message, selection)]
                self._tally.selected.update(_reason(message) for message in selected)
                if not dry_run:
                    self._move(selected)
                progress.advance(len(messages))

    def _is_selected(self, message: ReceivedMessage, selection: Selection) -> bool:
        if message.message_id in self._seen:
            return False
        self._seen.add(message.message_id)
        if not is_intact(message):
            self._fail(message, "this copy came corrupt")
        elif message not in selection:
            self._tally.left += 1
        elif submission_id_of(message) in self._moved:
            self._tally.came_back += 1
        else:
            return True
        return False

    def _move(self, messages: Sequence[ReceivedMessage]) -> None:
        copies: list[tuple[ReceivedMessage, OutgoingMessage]] = []
        for message in messages:
            copy = redriven_message(message, self._source_queue)
            if copy is None:
                self._fail(message, "it leaves no room for its submission id")
            else:
                copies.append((message, copy))
        sent: list[ReceivedMessage] = []
        outcomes = self._queues.send(self._source_queue, [copy for _, copy in copies])
        for (message, _), failure in zip(copies, outcomes, strict=True):
            if failure is None:
                sent.append(message)
            else:
                self._fail(message, f"{failure.code}: {failure.detail}")
        self._moved.update(submission_id_of(message) for message in sent)
        self._delete(sent)

    def _delete(self, sent: Sequence[ReceivedMessage]) -> None:
        outcomes = self._dead_letters.delete([message.receipt_handle for message in sent])
        for message, failure in zip(sent, outcomes, strict=True):
            if failure is None:
                self._tally.moved += 1
            else:
                self._fail(message, f"its copy was sent, but it could not be deleted: {failure.code}: {failure.detail}")

    def _fail(self, message: ReceivedMessage, detail: str) -> None:
        complain(f"message {message.message_id} is not moved: {detail}")
        self._tally.failed += 1


def _reason(message: ReceivedMessage) -> str:
    return message.attributes.get("reason", NO_REASON)


def _print(tally: Tally, dead_letter_queue: str, *, dry_run: bool) -> None:
    if tally.behind:
        complain(f"{tally.behind} messages were not looked at: they stand behind others of their groups that are left")
    if dry_run:
        for reason, count in tally.selected.most_common():
            click.echo(f"{reason} {count}")
        if not tally.selected:
            complain(f"{dead_letter_queue}: nothing to move")
        return
    parts = [f"{tally.moved} moved", f"{tally.left} not selected"]
    if tally.came_back:
        parts.append(f"{tally.came_back} of submissions that were moved just now and came back")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    click.echo(f"{dead_letter_queue}: {', '.join(parts)}")
