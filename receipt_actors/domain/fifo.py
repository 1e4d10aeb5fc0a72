"""FIFO queues: how they are told from others, and the two ids that each of their messages needs. Pure.

SQS keeps the order within a *message group*, and for 5 minutes takes a message with a *de-duplication id* that it has
seen for a repetition: it confirms it, and keeps none. So an id must be the same for what may be sent again, for its
confirmation was lost, and another one for whatever tells something new:

======================================  ========================================  =====================================
what is sent                            group                                     the id is a hash of
======================================  ========================================  =====================================
an answer                               its user                                  submission, transaction and status
after a refund, or its reversal         its user                                  these, and Apple's notification
a message for the dead-letter queue     the message's own, else its message id    message id and reason
what is redriven from there             the dead letter's own                     the dead letter's message id
a submission                            its user                                  submission id and body
an alert                                its kind                                  kind and body
======================================  ========================================  =====================================

A submission is its id, its user and its receipt: producers that give an id twice get an answer for each of them.

A dead letter goes by its message id, not by its submission: one that was redriven and failed again, within 5 minutes
and for the same reason, is a letter of its own, and would be lost if it were swallowed.
"""

from __future__ import annotations

import json
from dataclasses import replace

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.domain.values import sha256_hex

FIFO_SUFFIX = ".fifo"  #: of the name of every FIFO queue, and of no other (SQS)
DEDUPLICATION_SECONDS = 5 * 60  #: for which a de-duplication id is remembered (SQS)


def is_fifo(queue: str) -> bool:
    """Tell whether that is the name of a FIFO queue."""
    return queue.endswith(FIFO_SUFFIX)


def deduplication_id(*parts: str) -> str:
    """Return the SHA-256, in hexadecimal, of the parts; whatever they hold, others have another one."""
    return sha256_hex(json.dumps(parts).encode())


def in_group(message: OutgoingMessage, queue: str, group_id: str, *parts: str) -> OutgoingMessage:
    """Give a message for a FIFO queue its group, and a de-duplication id of ``parts``; leave it as it is for others."""
    if not is_fifo(queue):
        return message
    return replace(message, group_id=group_id, deduplication_id=deduplication_id(*parts))


def dead_letter_queue_of(source_queue: str) -> str:
    """Return what a dead-letter queue is called that nobody has named: ``NameDLQ``, ``NameDLQ.fifo``."""
    name = source_queue.removesuffix(FIFO_SUFFIX)
    return f"{name}DLQ{source_queue[len(name) :]}"


def dead_letter_queue_fault(source_queue: str, dead_letter_queue: str) -> str | None:
    """Say why a queue cannot be the dead-letter queue of another, or return None: SQS wants both to be of a kind."""
    if is_fifo(source_queue) == is_fifo(dead_letter_queue):
        return None
    kind = "a FIFO queue (its name ends in .fifo)" if is_fifo(source_queue) else "a standard queue"
    return f"expected {kind}, as {source_queue} is one: SQS wants a dead-letter queue to be of its source queue's kind"
