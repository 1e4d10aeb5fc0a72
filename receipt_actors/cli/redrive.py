"""``receipt-actors redrive``: move dead letters back to the source queue, each as the submission that it was.

A copy keeps the submission's id and time, which the console's redrive would lose. The dead letter is deleted when the
copy is confirmed; killed in between, it leaves both, which is harmless: they are the same submission.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import click

from receipt_actors.backends import open_queues
from receipt_actors.cli import EXIT_DONE, EXIT_USAGE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.options import options_of
from receipt_actors.cli.patient_queues import PatientQueues, QueueReader, last_wait_seconds
from receipt_actors.cli.terminal import choice, progress_bar
from receipt_actors.domain.messages import is_intact, redriven_message, submission_id_of
from receipt_actors.domain.ports import OutgoingMessage, Queues, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sqs_rules import dead_letter_queue_fault, is_fifo
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import QueueSettings, load_source_settings

NO_REASON = "none"  #: of what the queue itself moved, after too many deliveries
#: What became of the dead letters.
MOVED, LEFT, FAILED = "moved", "not selected", "failed"
CAME_BACK = "of submissions that were moved just now and came back"
_ALWAYS = (MOVED, LEFT)  # told even if there are none


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
    type=choice([*Reason, NO_REASON]),
    multiple=True,
    metavar="REASON",
    help=f"Only for this reason; {NO_REASON}: moved by the queue itself. May be repeated.",
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
    is_undecided = not (moves_all or has_filter or dry_run)
    settings = load_source_settings(QueueSettings, flags, config=config)

    def is_wanted(message: ReceivedMessage) -> bool:
        ids = {message.message_id, message.attributes.get("source_message_id")}
        return (
            (not reasons or _reason(message) in reasons)
            and (not message_ids or not ids.isdisjoint(message_ids))
            and (not submission_ids or submission_id_of(message) in submission_ids)
        )

    with closing(open_queues(settings, create=False)) as opened:
        name = _dead_letter_queue(opened, settings)
        queues = PatientQueues(opened)
        counts: Counter[str] = Counter()
        try:
            with QueueReader(queues, name) as dead_letters:
                redrive = _Redrive(queues, settings.source_queue, dead_letters, counts)
                selected = redrive.run(
                    is_wanted, is_dry=dry_run or is_undecided, wait_seconds=last_wait_seconds(settings)
                )
                # A FIFO queue gives nothing of a group of which some are left.
                behind = opened.approximate_number_of_messages(name) if is_fifo(name) else 0
        except BaseException:
            if counts[MOVED]:
                complain(f"{counts[MOVED]} messages were moved before this:")
            raise
    if behind:
        complain(f"{behind} messages were not looked at: they stand behind others of their groups that are left")
    if dry_run or is_undecided:
        for reason, count in selected.most_common():
            click.echo(f"{reason} {count}")
        if not selected:
            complain(f"{name}: nothing to move")
    else:
        told = [
            f"{counts[what]} {what}" for what in (MOVED, LEFT, CAME_BACK, FAILED) if counts[what] or what in _ALWAYS
        ]
        click.echo(f"{name}: {', '.join(told)}")
    if is_undecided:
        complain("nothing was moved: give --all, or a filter (--reason, --message-id, --submission-id)")
        return EXIT_USAGE
    return EXIT_WORLD_FAILED if counts[FAILED] else EXIT_DONE


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

    def __init__(
        self, queues: PatientQueues, source_queue: str, dead_letters: QueueReader, counts: Counter[str]
    ) -> None:
        self._queues = queues
        self._source_queue = source_queue
        self._dead_letters = dead_letters
        self._counts = counts
        self._seen: set[str] = set()  # message ids; SQS may deliver one twice
        self._moved: set[str] = set()  # submission ids; what is unanswerable still comes back while we run

    def run(self, is_wanted: Callable[[ReceivedMessage], bool], *, is_dry: bool, wait_seconds: float) -> Counter[str]:
        from rich.console import Console

        reasons: Counter[str] = Counter()
        with progress_bar(Console(stderr=True), transient=True) as progress:
            task = progress.add_task("looking through the dead-letter queue", total=None)
            while messages := self._dead_letters.receive(wait_seconds=wait_seconds):
                selected = [message for message in messages if self._is_selected(message, is_wanted)]
                reasons.update(map(_reason, selected))
                if not is_dry:
                    self._move(selected)
                progress.advance(task, len(messages))
        return reasons

    def _is_selected(self, message: ReceivedMessage, is_wanted: Callable[[ReceivedMessage], bool]) -> bool:
        if message.message_id in self._seen:
            return False
        self._seen.add(message.message_id)
        if not is_intact(message):
            self._fail(message, "this copy came corrupt")
        elif not is_wanted(message):
            self._counts[LEFT] += 1
        elif submission_id_of(message) in self._moved:
            self._counts[CAME_BACK] += 1
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
        self._moved.update(map(submission_id_of, sent))
        outcomes = self._dead_letters.delete([message.receipt_handle for message in sent])
        for message, failure in zip(sent, outcomes, strict=True):
            if failure is None:
                self._counts[MOVED] += 1
            else:
                self._fail(message, f"its copy was sent, but it could not be deleted: {failure.code}: {failure.detail}")

    def _fail(self, message: ReceivedMessage, detail: str) -> None:
        complain(f"message {message.message_id} is not moved: {detail}")
        self._counts[FAILED] += 1


def _reason(message: ReceivedMessage) -> str:
    return message.attributes.get("reason", NO_REASON)
