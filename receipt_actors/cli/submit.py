"""``receipt-actors submit``: put messages on the source queue, checked as the consumer will check them."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import click

from receipt_actors.backends import open_queues
from receipt_actors.cli import EXIT_DONE, EXIT_USAGE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.options import options_of
from receipt_actors.cli.patient_queues import PatientQueues
from receipt_actors.cli.terminal import read_receipt
from receipt_actors.domain.messages import SUBMISSION_ID_ATTRIBUTE, Unanswerable, checked_submission
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, OutgoingMessage
from receipt_actors.domain.sending import take_batch
from receipt_actors.domain.sqs_rules import check_send_batch
from receipt_actors.errors import QueueUnavailable
from receipt_actors.settings import QueueSettings, load_source_settings
from receipt_actors.sqlite import EmbeddedQueues


@dataclass(frozen=True, slots=True)
class Entry:
    """One message to send; or, where it has a ``fault``, the reason why it must not be sent."""

    where: str
    message: OutgoingMessage
    fault: str | None

    @property
    def submission_id(self) -> str:
        return self.message.attributes[SUBMISSION_ID_ATTRIBUTE]


@click.command(
    epilog="""\b
Examples:
  # one receipt
  receipt-actors submit --database receipts.db --receipt-file receipt.txt --user-id 42
  # many: one message body a line, if you like with a submission_id beside
  receipt-actors submit --database receipts.db --file messages.jsonl
  # the good lines of a file that has bad ones
  receipt-actors submit --database receipts.db --file messages.jsonl --keep-going
  # the first again, on AWS
  AWS_REGION=eu-west-1 receipt-actors submit --file messages.jsonl

\b
Exit codes:
  0  every message is accepted
  1  some are not: the queue failed, or there were bad lines with --keep-going
  2  bad messages, all of them listed; none was sent
"""
)
@click.option("--receipt-file", metavar="PATH", help="Receipt to submit; - reads standard input.")
@click.option("--user-id", type=int, metavar="N", help="User who submits it.")
@click.option("--post-queue", metavar="QUEUE", help="Queue for the answer. [default: the only one of post_queues]")
@click.option("--submission-id", metavar="ID", help="Name of this submission. [default: a new one]")
@click.option("--transaction-id", metavar="ID", help="Ask about this transaction of the receipt only.")
@click.option("--product-id", metavar="ID", help="Ask about the newest transaction of this product only.")
@click.option("--file", "lines", metavar="PATH", help="JSON lines, a message body each; - reads standard input.")
@click.option("--keep-going", is_flag=True, help="Send the good lines of a file that has bad ones.")
@options_of(QueueSettings)
def command(
    flags: Mapping[str, object],
    config: Path | None,
    receipt_file: str | None,
    lines: str | None,
    keep_going: bool,
    **fields: str | int | None,
) -> int:
    """Put receipts on the source queue.

    Every message is checked as the consumer will check it, then sent with the attribute submission_id: sending it again
    with the same one is harmless. Prints a line for each message that the queue has accepted. Of several source queues,
    --source-queue says which; what it may be answered to is checked by that one's settings.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if (receipt_file is None) == (lines is None):
        raise click.UsageError("Give either --receipt-file or --file.")
    if lines is not None and given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise click.UsageError(f"{flag} goes with --receipt-file; in a file, each line says it for itself.")
    settings = load_source_settings(QueueSettings, flags, config=config)
    if lines is None:
        assert receipt_file is not None
        return _submit([_entry_of_flags(receipt_file, given, settings)], keep_going=False, settings=settings)
    with click.open_file(lines, "rb") as file:
        return _submit(_entries_of_lines(file, settings), keep_going=keep_going, settings=settings)


def _submit(entries: Iterable[Entry], *, keep_going: bool, settings: QueueSettings) -> int:
    if not keep_going:
        entries = list(entries)
        faults = [f"{entry.where}: {entry.fault}" for entry in entries if entry.fault is not None]
        for fault in faults:
            complain(fault)
        if 0 < len(faults) < len(entries):
            bad = f"{len(faults)} of {len(entries)} messages are bad"
            complain(f"nothing was sent: {bad}; --keep-going sends the good lines of the file")
        if faults:
            return EXIT_USAGE
    with closing(open_queues(settings)) as queues:
        failed = _send(entries, PatientQueues(queues), settings.source_queue, isinstance(queues, EmbeddedQueues))
    return EXIT_WORLD_FAILED if failed else EXIT_DONE


def _send(entries: Iterable[Entry], queues: PatientQueues, source_queue: str, is_all_or_nothing: bool) -> int:
    """Send the good entries, tell of each whether it is accepted, and return how many entries are not."""
    remaining = iter(entries)
    accepted = failed = 0
    while batch := list(islice(remaining, MAX_BATCH_ENTRIES)):
        for entry in batch:
            if entry.fault is not None:
                complain(f"{entry.where}: {entry.fault}")
                failed += 1
        waiting = deque(entry for entry in batch if entry.fault is None)
        while part := take_batch(waiting, lambda entry: entry.message.size_bytes):
            try:
                outcomes = queues.send(source_queue, [entry.message for entry in part])
            except QueueUnavailable:
                complain(_after_a_failure(accepted, part, is_all_or_nothing))
                raise
            for entry, failure in zip(part, outcomes, strict=True):
                if failure is None:
                    accepted += 1
                    click.echo(f"{entry.submission_id} accepted")
                else:
                    failed += 1
                    why = f"{failure.code}: {failure.detail}"
                    complain(f"{entry.where}: {entry.submission_id} is not accepted: {why}")
    if not accepted and not failed:
        complain("there were no messages to send")
    return failed


def _after_a_failure(accepted: int, part: Sequence[Entry], is_all_or_nothing: bool) -> str:
    """Say which messages are on the queue. A transaction of SQLite that failed has sent nothing."""
    first = part[0].where
    if is_all_or_nothing:
        return f"{accepted} messages are accepted; {first} and all after it are not: send the file again from there"
    rest = f"from {first} on, {len(part)} may be accepted or not, and the rest is not"
    return f"{accepted} messages are accepted; {rest}: to send these again is harmless with the same submission_id"


def _entry_of_flags(receipt_file: str, given: Mapping[str, str | int], settings: QueueSettings) -> Entry:
    body = dict(given)
    submission_id = body.pop(SUBMISSION_ID_ATTRIBUTE, None)
    if "user_id" not in body:
        raise click.UsageError("Give --user-id: every answer belongs to a user.")
    if "post_queue" not in body:
        if len(settings.post_queues) > 1:
            raise click.UsageError(f"Give --post-queue: one of {', '.join(settings.post_queues)}.")
        body["post_queue"] = settings.post_queues[0]
    text = json.dumps({"receipt": read_receipt(receipt_file), **body}, separators=(",", ":"))
    return _entry(receipt_file, text, submission_id, settings)


def _entries_of_lines(file: IO[bytes], settings: QueueSettings) -> Iterator[Entry]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _entry_of_line(f"line {number}", line.strip(), settings)


def _entry_of_line(where: str, line: bytes, settings: QueueSettings) -> Entry:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Entry(where, OutgoingMessage(""), f"expected UTF-8, found byte {line[error.start]:#04x}")
    entry = _entry(where, text, None, settings)
    if entry.fault is not None or SUBMISSION_ID_ATTRIBUTE not in text:
        return entry
    try:
        body = json.loads(text)
    except ValueError as error:  # an integer of thousands of digits, in a key that the consumer ignores
        return Entry(where, entry.message, str(error))
    if SUBMISSION_ID_ATTRIBUTE not in body:
        return entry
    submission_id = body.pop(SUBMISSION_ID_ATTRIBUTE)
    return _entry(where, json.dumps(body, separators=(",", ":")), submission_id, settings)


def _entry(where: str, body: str, submission_id: object, settings: QueueSettings) -> Entry:
    if submission_id is None:
        submission_id = str(uuid.uuid4())
    if not isinstance(submission_id, str):
        return Entry(where, OutgoingMessage(body), "submission_id: expected a string")
    checked = checked_submission(body, submission_id, settings.post_queues, settings.source_queue)
    if isinstance(checked, Unanswerable):
        return Entry(where, OutgoingMessage(body), f"{checked.reason}: {checked.detail}")
    _submission, message = checked
    (failure,) = check_send_batch(settings.source_queue, [message])
    return Entry(where, message, None if failure is None else f"{failure.code}: {failure.detail}")
