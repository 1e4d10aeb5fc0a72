"""What holds for the messages of each source queue, out of the settings and of what the queues say of themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from receipt_actors.domain.fifo import dead_letter_queue_fault
from receipt_actors.domain.ports import Queues
from receipt_actors.domain.sources import Source, misuses
from receipt_actors.errors import ConfigurationError, QueueRefused
from receipt_actors.settings import Settings
from receipt_actors.starting import StartPatience
from receipt_actors.stores.apple.opening import policy_of

logger = logging.getLogger(__name__)

MAX_LOOKS = 16  #: at once; a look at a queue of AWS is two requests


def look_at_sources(
    settings: Settings, queues: Queues, patience: StartPatience, *, may_be_missing: bool
) -> list[Source]:
    """Find out the sources' dead-letter queues, which shows that all are there and may be used.

    Raises:
        ConfigurationError: a dead-letter queue is none for its source queue, or is that of several.
        QueueRefused: a source queue does not exist or may not be used; with ``may_be_missing`` only where that is so of
            all of them.
        QueueUnavailable: the queues do not answer, and the patience is over.
    """
    sources: list[Source] = []
    missing: list[QueueRefused] = []
    for of_source, redrive_target in zip(
        settings.every_source, _redrive_targets(settings, queues, patience), strict=True
    ):
        if isinstance(redrive_target, QueueRefused):
            missing.append(redrive_target)
            if not may_be_missing or len(missing) == len(settings.every_source):
                raise redrive_target
            # Should it come back, what can't be answered stays on it until the next start.
            logger.error("the other sources go on without it: %s", redrive_target)
            sources.append(source_of(of_source, of_source.dead_letter_queue, is_first=of_source is settings))
            continue
        dead_letter_queue = of_source.dead_letter_queue or redrive_target
        sources.append(source_of(of_source, dead_letter_queue, is_first=of_source is settings))
        if dead_letter_queue is None:
            logger.warning(
                "queue %s has no redrive policy and dead_letter_queue is not set: messages that cannot be answered "
                "stay on it and come back again and again",
                of_source.source_queue,
            )
    faults = [
        f"dead-letter queue {each.dead_letter_queue}: {fault}"
        for each in sources
        if each.dead_letter_queue and (fault := dead_letter_queue_fault(each.queue, each.dead_letter_queue))
    ]
    faults += [
        f"queue {misuse.source_queue}: found {misuse.setting} {misuse.queue}, expected {misuse.expected}"
        for misuse in misuses([(each.queue, each.post_queues, each.dead_letter_queue) for each in sources])
    ]
    if faults:
        raise ConfigurationError(faults)
    return sources


def _redrive_targets(
    settings: Settings, queues: Queues, patience: StartPatience
) -> Sequence[str | QueueRefused | None]:
    """Ask for the redrive policy of each source queue, several at once; each is asked, whatever the settings say."""

    def look(queue: str) -> str | QueueRefused | None:
        try:
            return patience.ask(queues.dead_letter_queue, queue)
        except QueueRefused as refused:
            return refused

    with ThreadPoolExecutor(MAX_LOOKS) as pool:
        return list(pool.map(look, settings.source_queues))


def source_of(settings: Settings, dead_letter_queue: str | None, *, is_first: bool = True) -> Source:
    """Return what holds for the messages of a source with these settings and this dead-letter queue."""
    return Source(
        settings.source_queue,
        frozenset(settings.post_queues),
        dead_letter_queue,
        policy_of(settings),
        answers_unidentified=settings.unidentified == "reply",
        is_first=is_first,
    )
