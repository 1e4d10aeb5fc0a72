"""``receipt-actors results``: read the answers on a post queue; with ``--delete``, delete what has been written out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import click

from receipt_actors.backends import MAX_RECEIVE_WAIT_SECONDS, look_at_queue, open_queues
from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain
from receipt_actors.cli.options import options_of
from receipt_actors.cli.patient_queues import PatientQueues, QueueReader, last_wait_seconds
from receipt_actors.domain.messages import is_intact, parse_result
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, ReceivedMessage
from receipt_actors.settings import QueueSettings, load_some_settings


@click.command(
    epilog="""\b
Examples:
  # a look at what is there now
  receipt-actors results --database receipts.db
  # take it from the queue
  receipt-actors results --database receipts.db --delete
  # likewise, as answers come
  receipt-actors results --database receipts.db --delete --follow

On SQS a look hides each answer from other readers until it ends, and counts as a delivery of it: on a busy queue give
--max. Of a FIFO queue it shows ten answers of a user at most. On SQLite a look changes nothing.

A reader that closes the pipe early (head) loses what it was handed and did not read: prefer --max.
"""
)
@click.option("--queue", metavar="QUEUE", help="Which of post_queues to read. [default: the only one]")
@click.option("--delete", "deletes", is_flag=True, help="Delete each answer after it was printed.")
@click.option("--follow", is_flag=True, help="With --delete: go on when the queue is empty, until interrupted.")
@click.option("--max", "limit", type=click.IntRange(min=1), metavar="N", help="End after so many answers.")
@options_of(QueueSettings)
def command(
    flags: Mapping[str, object], config: Path | None, queue: str | None, deletes: bool, follow: bool, limit: int | None
) -> int:
    """Print the answers on a post queue, as JSON lines. They stay there, unless --delete is given.

    Each line has the three fields of the answer and submission_id, source_message_id, reason, product_id, environment,
    quantity, revocation_type, revocation_percentage and decided_at_ms (when Apple decided on a refund), null where
    unknown. With --delete an answer is deleted only after it was written, so it is printed again rather than lost. What
    is no answer stays on the queue.
    """
    if follow and not deletes:  # all that it sees would stay hidden from the game's backend
        raise click.UsageError("--follow goes with --delete: a look ends when it has seen what is there.")
    settings = load_some_settings(QueueSettings, flags, config=config)
    queue = _post_queue(queue, settings)
    if settings.backend == "embedded" and not deletes:
        return _look(settings, queue, limit)
    wait_seconds = MAX_RECEIVE_WAIT_SECONDS if follow else last_wait_seconds(settings)
    printed = failed = 0
    with closing(open_queues(settings, create=False)) as queues, QueueReader(PatientQueues(queues), queue) as reader:
        while limit is None or printed < limit:
            room = MAX_BATCH_ENTRIES if limit is None else min(MAX_BATCH_ENTRIES, limit - printed)
            messages = reader.receive(max_messages=room, wait_seconds=wait_seconds)
            if not messages and not follow:
                break
            written: list[str] = []
            try:
                failed += _print(messages, written)
            finally:
                printed += len(written)
                failed += _delete(reader, written) if deletes else 0
    return _ended(printed, failed, deletes=deletes)


def _look(settings: QueueSettings, queue: str, limit: int | None) -> int:
    """Print what a look at an embedded queue shows; it needs no receive, so nothing is hidden or counted."""
    written: list[str] = []
    failed = 0
    for message in look_at_queue(settings, queue):
        if limit is not None and len(written) >= limit:
            break
        failed += _print([message], written)
    return _ended(len(written), failed, deletes=False)


def _ended(printed: int, failed: int, *, deletes: bool) -> int:
    if printed and not deletes:
        complain(f"{printed} answers stay on the queue; --delete deletes what it prints")
    return EXIT_WORLD_FAILED if failed else EXIT_DONE


def _post_queue(queue: str | None, settings: QueueSettings) -> str:
    if queue is None and len(settings.all_post_queues) == 1:
        return settings.all_post_queues[0]
    if queue not in settings.all_post_queues:  # reading the source queue would delete receipts
        found = "" if queue is None else f"{queue} is none of post_queues. "
        raise click.UsageError(f"{found}Give --queue: one of {', '.join(settings.all_post_queues)}.")
    return queue


def _print(messages: Sequence[ReceivedMessage], written: list[str]) -> int:
    """Print the answers, noting the receipt handle of each that was written, and return how many messages are none."""
    failed = 0
    for message in messages:
        result = parse_result(message) if is_intact(message) else None
        if result is None:
            complain(f"message {message.message_id} stays on the queue: it is no answer, or came corrupt")
            failed += 1
        else:
            click.echo(json.dumps(dataclasses.asdict(result)))  # flushed, too
            written.append(message.receipt_handle)
    return failed


def _delete(reader: QueueReader, receipt_handles: Sequence[str]) -> int:
    failures = [failure for failure in reader.delete(receipt_handles) if failure is not None]
    for failure in failures:
        complain(f"an answer could not be deleted and will be printed again: {failure.code}: {failure.detail}")
    return len(failures)
