"""What a start finds out about the source queues.

Passing trouble (a throttled request, a 500, no connection) does not end a start: systemd or ECS would only start the
program again. Lasting trouble (no such queue, no permission, wrong settings) ends it at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import tenacity

from receipt_actors.domain.policy import Source, misuses
from receipt_actors.domain.ports import Queues
from receipt_actors.domain.sqs_rules import dead_letter_queue_fault
from receipt_actors.errors import ConfigurationError, QueueRefused, UnavailableError
from receipt_actors.settings import Settings
from receipt_actors.stores.apple.opening import policy_of

logger = logging.getLogger(__name__)

START_SECONDS = 30.0  #: for all calls of one start together; a parent gives its workers 60 s
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 3.0
MAX_LOOKS = 16  #: at once; a look at a queue of AWS is two requests


def start_retrying(pause: Callable[[float], None] = time.sleep, seconds: float = START_SECONDS) -> tenacity.Retrying:
    """Return the retries of one start, for so long in all. Several threads may use it.

    ``pause`` waits so many seconds; an error that it raises ends the call. The last error is raised as it came.
    """
    ends_at = time.monotonic() + seconds
    untold = iter([True])

    def tell(state: tenacity.RetryCallState) -> None:
        if next(untold, False):  # of the first trouble only
            error = None if state.outcome is None else state.outcome.exception()
            logger.warning("the start has to wait, and asks again for up to %g s: %s", seconds, error)

    return tenacity.Retrying(
        stop=lambda state: time.monotonic() + state.upcoming_sleep > ends_at,
        wait=tenacity.wait_exponential(multiplier=FIRST_PAUSE_SECONDS, max=MAX_PAUSE_SECONDS)
        + tenacity.wait_random(0, FIRST_PAUSE_SECONDS),
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, UnavailableError) and error.may_pass),
        before_sleep=tell,
        sleep=pause,
        reraise=True,
    )


def look_at_sources(
    settings: Settings, queues: Queues, retrying: tenacity.Retrying, *, may_be_missing: bool
) -> list[Source]:
    """Ask for the sources' dead-letter queues, which shows that all sources are there and may be used.

    Raises:
        ConfigurationError: a dead-letter queue does not fit its source queue, or has several.
        QueueRefused: a source queue does not exist or may not be used; with ``may_be_missing`` only if all are so.
        QueueUnavailable: the queues did not answer in time.
    """

    def look(queue: str) -> str | QueueRefused | None:
        try:
            return retrying(queues.dead_letter_queue, queue)
        except QueueRefused as refused:
            return refused

    with ThreadPoolExecutor(MAX_LOOKS) as pool:
        redrive_targets = list(pool.map(look, settings.source_queues))
    missing = [target for target in redrive_targets if isinstance(target, QueueRefused)]
    if missing and (not may_be_missing or len(missing) == len(redrive_targets)):
        raise missing[0]
    sources: list[Source] = []
    for of_source, target in zip(settings.every_source, redrive_targets, strict=True):
        dead_letter_queue = of_source.dead_letter_queue
        if isinstance(target, QueueRefused):
            # If it comes back, what can't be answered stays on it until the next start.
            logger.error("the other sources go on without it: %s", target)
        else:
            dead_letter_queue = dead_letter_queue or target
            if dead_letter_queue is None:
                logger.warning(
                    "queue %s has no redrive policy and dead_letter_queue is not set: messages that cannot be answered "
                    "stay on it and come back again and again",
                    of_source.source_queue,
                )
        sources.append(source_of(of_source, dead_letter_queue, is_first=of_source is settings))
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


def source_of(settings: Settings, dead_letter_queue: str | None, *, is_first: bool = True) -> Source:
    """Return the source of these settings and this dead-letter queue."""
    return Source(
        settings.source_queue,
        frozenset(settings.post_queues),
        dead_letter_queue,
        policy_of(settings),
        answers_unidentified=settings.unidentified == "reply",
        is_first=is_first,
    )
