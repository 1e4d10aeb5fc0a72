"""A source queue, and what holds for the messages that come from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from receipt_actors.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class Source:
    """A source queue and its rules. Those who work on a message are given the one that it came from."""

    queue: str
    post_queues: frozenset[str]  #: all that a message from here may name for its answer
    dead_letter_queue: str | None  #: None: what can't be answered stays where it is
    policy: Policy
    answers_unidentified: bool = False  #: INVALID, rather than move what Apple refuses without a transaction id
    is_first: bool = True  #: its actors go by plain names; those of others have the queue's in theirs


@dataclass(frozen=True, slots=True)
class Misuse:
    """A queue that a source may not use so, beside the others."""

    source_queue: str  #: whose setting it is
    setting: str
    queue: str
    expected: str  #: instead


def misuses(uses: Sequence[tuple[str, frozenset[str], str | None]]) -> Iterator[Misuse]:
    """Say what can't work. ``uses`` has the source queue, post queues and dead-letter queue of each source."""
    sources = {queue for queue, _, _ in uses}
    posts = {post for _, post_queues, _ in uses for post in post_queues}
    owners: dict[str, str] = {}  # of dead-letter queues
    for source, post_queues, dead_letter_queue in uses:
        for queue in sorted((post_queues & sources) - {source}):
            expected = "queues that no receipts are taken from: an answer sent there would come back as a receipt"
            yield Misuse(source, "post_queues", queue, expected)
        if dead_letter_queue is None:
            continue
        owner = owners.setdefault(dead_letter_queue, source)
        if dead_letter_queue in sources | posts:
            expected = "a queue that is neither a source queue nor a post queue, of any source"
            yield Misuse(source, "dead_letter_queue", dead_letter_queue, expected)
        elif owner != source:
            expected = f"another one than that of {owner}: nobody could tell what to redrive to which"
            yield Misuse(source, "dead_letter_queue", dead_letter_queue, expected)
