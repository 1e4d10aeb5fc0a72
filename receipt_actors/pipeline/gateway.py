"""``Gateway``: the base of every actor that owns access to a service.

It owns the waiting requests and those under way, a pool of I/O threads (for clients that can only block), retries and
the breaker. Each request gets one answer: the service's, or a ``GatewayFailure``. A crash forgets the requests under
way; their callers are notified and ask the successor.

A message whose requests fail while others are answered is a **suspect** (``domain.sending``). Suspects have a small
share of the requests under way, and say nothing about the service. A redelivered suspect is tried once; but as often
as any other for a minute after a suspect was answered, for then the service may fail at random.

While the breaker is open requests are **kept**, uncounted: an outage costs no attempts. Each try sends a new request
(``in_flight`` lets a message in for it) and a kept one, or a suspect where there is nothing else. A gateway whose
limits are all lent to others cannot try, and forgets the outage.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, ClassVar, TypeAlias

import cachetools

from receipt_actors.domain.ports import BackgroundCalls
from receipt_actors.domain.sending import Breaker, InTurn, RateLimit, RetryPolicy, is_held_against, suspects_at_once
from receipt_actors.errors import QueueRefused, UnavailableError
from receipt_actors.otp import (
    TIMEOUT,
    BlockingPool,
    Crash,
    ExitReason,
    From,
    GenServer,
    IdleTimeout,
    Receive,
    Receiving,
    Reply,
    Timer,
)
from receipt_actors.pipeline.protocol import (
    IN_FLIGHT,
    Broken,
    DescribeService,
    Done,
    GaveUp,
    ObeyLimits,
    Refused,
    ServiceAvailable,
    ServiceUnavailable,
)
from receipt_actors.telemetry.incidents import INCIDENTS, IncidentKind, Noticed
from receipt_actors.telemetry.overview import ServiceOverview
from receipt_actors.telemetry.statistics import statistics_of

logger = logging.getLogger(__name__)

REMEMBERED_SUSPECTS = 10_000
SUSPICION_SECONDS = 60 * 60  #: four of the longest pauses between two deliveries
SUSPECTS_TURN = 4  #: where other requests wait too, every fourth one may be a suspect's
INNOCENCE_SECONDS = 60.0  #: after an answer to a suspect, in which those that come again are tried as often as ever
LAST_PAUSE_SECONDS = 5.0  #: between tries that are no longer counted, for nobody knows whose fault the failures are

#: What every callback of a gateway returns: dispatch once no message waits, so that all that has arrived by then goes
#: into the same batches, at no delay. A callback that has the answer to a call returns ``IdleTimeout(0, answer)``.
DISPATCH = IdleTimeout(0)

#: A blocking function and its arguments, to be run on an I/O thread.
BlockingCall: TypeAlias = tuple[Callable[..., object], Sequence[object]]


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way: who waits for the answer, and how often it has been tried."""

    request: Any
    from_: From
    attempts: int = 0
    number: int = 0  #: of the request that was sent last, among the gateway's
    has_failed: bool = False
    failed_since: int = 0  #: see ``is_held_against``
    is_suspect: bool = False
    was_suspect: bool = False  #: in a delivery before this one
    sent_at_seconds: float = 0.0  #: monotonic; of the first one of a batch, when that was sent last


class CallsOnThreads:
    """``BackgroundCalls`` on a pool of threads, which ``close`` ends after the calls that they are in."""

    def __init__(self, pool: BlockingPool) -> None:
        self._pool = pool
        self.close = pool.close

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        def call() -> None:
            try:
                outcome = method(*args, **keywords)
            except BaseException as error:  # noqa: BLE001 - it is the outcome, and whose that is decides
                outcome = error
            done(outcome)

        if not self._pool.submit(call):
            done(RuntimeError(f"pool {self._pool.name} is closed"))


class ToItself(From):
    """Stands for a caller where the gateway itself wants the answer."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[object], None]) -> None:
        self._take = take

    def is_wanted(self) -> bool:
        return True

    def reply(self, value: object) -> None:
        self._take(value)


class _Due(Enum):
    """To itself, as is a ``Job`` whose pause is over."""

    SEND_WITHIN_RATE = "the next request is within the rate limit now"
    SEND_GATHERED = "what has gathered is sent now, full or not"
    TRY = "the breaker's pause is over"


class Gateway(GenServer):
    """See the module. A subclass says what a batch is, how it is called, and what its answer means."""

    trap_exit: ClassVar[bool] = True
    isolates: ClassVar[bool] = False
    """Whether a single message may be what the service chokes on, each time anew; its ``message_of`` stays the same."""
    drops_unwanted: ClassVar[bool] = True
    """Whether a request is not made any more once the actor that asked has ended."""
    batch_entries: ClassVar[int] = 1
    """How many jobs ``take_batch`` takes at most."""
    pace_seconds: ClassVar[float] = 0.0
    """How long after a request the next one that is not full leaves."""
    finishes_on_shutdown: ClassVar[bool] = False
    """Whether what waits is still done when the supervisor ends the actor."""
    source_queue: str | None = None
    """The only source that an outage of this service is about; None: it is about all."""

    def __init__(
        self, service: str, concurrency: int, retry: RetryPolicy, background: BackgroundCalls | None = None
    ) -> None:
        self.service = service
        self._statistics = statistics_of(self.system)
        self._concurrency = concurrency
        self._retry = retry
        self._rate: RateLimit | None = None
        self._waits_for_rate = False
        self._next_partial_at_seconds = -inf  # monotonic; until then what is no full batch gathers
        self._is_gathering = False
        self._is_finishing = False
        self._threads = CallsOnThreads(self.system.new_blocking_pool(service, concurrency))
        self._calls: BackgroundCalls = self._threads if background is None else background
        self._ready: deque[Job] | InTurn[Job] = deque()
        self._suspects: deque[Job] = deque()  # whose pause is over
        self._kept: deque[Job] = deque()  # what failed while the breaker is open, and is no suspect
        self._under_way = 0
        self._suspects_under_way = 0
        self._sent = 0  # requests since the start
        self._last_answered = 0  # the highest number of a request that was answered
        self._known_suspects: cachetools.TTLCache[Hashable, bool] = cachetools.TTLCache(
            REMEMBERED_SUSPECTS, SUSPICION_SECONDS, timer=self.clock.monotonic
        )
        self._suspects_answered_at_seconds = -inf  # monotonic
        self._retries = 0  # since the start
        self._unavailable_since_seconds: float | None = None  # UNIX time; since the breaker opened
        self._pausing: dict[Job, None] = {}  # what is tried again when its pause is over
        self._breaker = Breaker()
        self._new_tries = 0  # so many requests that were never made are sent though the breaker is open
        self._try_timer: Timer | None = None
        self._yielding: list[From] = []  # who waits for no more to be under way than the limits allow

    def take_batch(self) -> list[Job]:
        """Take the jobs of one call from the front; one job unless overridden."""
        return [self._ready.popleft()]

    def leaves_at_once(self) -> bool:
        """Return whether the next batch should not wait for others; something is ready."""
        return len(self._ready) >= self.batch_entries

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        """Return the client's call for the batch."""
        raise NotImplementedError

    def carry_out(self, batch: tuple[Job, ...]) -> None:
        """Have the batch carried out; its ``handle_reply`` or failure follows."""
        function, args = self.blocking_call(batch)
        self.run_async(batch, self._calls.begin, function, args, {})

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        """Answer each job of the batch, or ``retry`` it."""
        raise NotImplementedError

    def message_of(self, job: Job) -> Hashable:
        """Return the message's identity, by which the breaker counts."""
        return id(job.from_)

    def trouble_in(self, answer: Any) -> UnavailableError | None:
        """Return the service's own trouble in an answer; ``settle`` gets all other answers."""
        return None

    def answered_at_seconds(self, answer: Any) -> float:
        """Return the monotonic time at which the answer came."""
        return self.clock.monotonic()

    @property
    def stops_receiving(self) -> bool:
        """Whether an outage of this service stops receiving, now."""
        return True

    @property
    def concurrency(self) -> int:
        return self._concurrency

    @property
    def rate(self) -> RateLimit | None:
        return self._rate

    def init(self) -> Any:
        self.cast(IN_FLIGHT, ServiceAvailable(self.service))

    def terminate(self, reason: ExitReason) -> Receiving | None:
        if self.finishes_on_shutdown and not isinstance(reason, Crash):
            return self._finish()
        self._threads.close()
        return None

    def _finish(self) -> Receiving:
        self._is_finishing = True
        self._dispatch()
        while self._under_way:
            reply = yield Receive(lambda message: isinstance(message, Reply))
            if reply.failure is None:
                self.handle_reply(reply.label, reply.value)
            else:
                self.handle_failure(reply.label, reply.failure)
            self._dispatch()
        self._threads.close()

    @property
    def waiting(self) -> int:
        return len(self._ready) + len(self._pausing) + len(self._kept) + len(self._suspects)

    @property
    def is_idle(self) -> bool:
        return not self.ref.process.unanswered_calls

    def outside_view(self) -> ServiceOverview:
        is_available = self._breaker.is_closed
        return ServiceOverview(
            self.service,
            is_available,
            self.waiting,
            self._under_way,
            self._retries,
            None if is_available else self._unavailable_since_seconds,
        )

    def describe_state(self) -> dict[str, object]:
        return {
            **super().describe_state(),
            "breaker": "closed" if self._breaker.is_closed else "open",
            "failures_in_a_row": self._breaker.failures,
            "suspects": len(self._suspects) + self._suspects_under_way,
            "concurrency": self.concurrency,
            "rate_per_second": None if self.rate is None else self.rate.per_second,
        }

    def handle_call(self, request: Any, from_: From) -> Any:
        if isinstance(request, DescribeService):
            is_available = self._breaker.is_closed
            return IdleTimeout(0, ServiceAvailable(self.service) if is_available else self._outage())
        if isinstance(request, ObeyLimits):
            self._yielding.append(from_)
            self._rate = self.rate or self._rate  # what has been used counts by the new rate from now on,
            self._waits_for_rate = False  # and the pause may be another one
            return DISPATCH
        self.accept(Job(request, from_))
        return DISPATCH

    def accept(self, job: Job) -> None:
        if self.isolates and not job.has_failed and self.message_of(job) in self._known_suspects:
            job.is_suspect = job.was_suspect = job.has_failed = True
            job.failed_since = self._sent
        if not job.is_suspect:
            self._ready.append(job)
        elif self._breaker.is_closed and len(self._suspects) >= suspects_at_once(self.concurrency):
            job.from_.reply(GaveUp(f"{self.service}: too many messages fail while others are answered"))
        else:
            self._suspects.append(job)

    def _dispatch(self) -> None:
        if self._yielding and self._under_way <= self.concurrency:
            if self.concurrency == 0:
                self._forget_outage()
            for from_ in self._yielding:
                from_.reply(Done())
            self._yielding.clear()
        if not self._breaker.is_closed:
            self._try_new()
            return
        while self._under_way < self.concurrency:
            if self._is_suspects_turn():
                if self._must_wait_for_rate():
                    return
                self._send_alone(self._suspects)
            elif not self._ready or self._must_gather() or self._must_wait_for_rate() or self._send_next() is None:
                return

    def _is_suspects_turn(self) -> bool:
        if not self._suspects or self._suspects_under_way >= suspects_at_once(self.concurrency):
            return False
        return not self._ready or self._sent % SUSPECTS_TURN == 0

    def _must_gather(self) -> bool:
        if self.pace_seconds <= 0 or self._is_finishing or self.leaves_at_once():
            return False
        wait_seconds = self._next_partial_at_seconds - self.clock.monotonic()
        if wait_seconds > 0 and not self._is_gathering:
            self._is_gathering = True
            self.send_after(wait_seconds, _Due.SEND_GATHERED)
        return wait_seconds > 0

    def _must_wait_for_rate(self) -> bool:
        rate = self.rate
        if rate is None:
            return False
        wait_seconds = rate.wait_seconds(self.clock.monotonic())
        if wait_seconds > 0 and not self._waits_for_rate:
            self._waits_for_rate = True
            self.send_after(wait_seconds, _Due.SEND_WITHIN_RATE)
        return wait_seconds > 0

    def _send_next(self) -> tuple[Job, ...] | None:
        while self._ready:
            if batch := self._wanted(self.take_batch()):
                return self._send(batch)
        return None

    def _send_alone(self, failed: deque[Job]) -> None:
        """Send the next of those that have failed before; it may be what its batch failed for."""
        while failed:
            if batch := self._wanted([failed.popleft()]):
                self._suspects_under_way += batch[0].is_suspect
                self._send(batch)
                return

    def _wanted(self, jobs: Sequence[Job]) -> tuple[Job, ...]:
        wanted = []
        for job in jobs:
            if job.from_.is_wanted() or not self.drops_unwanted:
                wanted.append(job)
            else:
                job.from_.reply(GaveUp("whoever asked has ended"))
        return tuple(wanted)

    def _send(self, batch: tuple[Job, ...]) -> tuple[Job, ...]:
        self._under_way += 1
        self._sent += 1
        for job in batch:
            job.number = self._sent
        batch[0].sent_at_seconds = now = self.clock.monotonic()
        self._next_partial_at_seconds = now + self.pace_seconds
        if (rate := self.rate) is not None:
            self._rate = rate.taken(now)
        self.carry_out(batch)
        return batch

    def handle_reply(self, label: Any, value: Any) -> Any:
        self._is_back(label)
        trouble = self.trouble_in(value)
        if trouble is not None:
            self._service_failed(label, trouble)
        else:
            self._service_answered(label)
            seconds = self.answered_at_seconds(value) - label[0].sent_at_seconds
            self._statistics.request_answered(self.service, len(label), seconds)
            self.settle(label, value)
        return DISPATCH

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        self._is_back(label)
        error = reason.exception if isinstance(reason, Crash) else RuntimeError(str(reason))
        match error:
            case UnavailableError():
                self._service_failed(label, error)
            case QueueRefused() as refusal:
                self._service_answered(label)  # the service is there, it is the queue that is not
                self._notice(IncidentKind.CONFIGURATION, f"{self.service} is refused: {refusal}")
                for job in label:
                    job.from_.reply(Refused(str(error)))
            case _:
                for job in label:
                    job.from_.reply(Broken(error))
        return DISPATCH

    def _is_back(self, batch: Sequence[Job]) -> None:
        self._under_way -= 1
        self._suspects_under_way -= batch[0].is_suspect

    def _service_answered(self, batch: Sequence[Job]) -> None:
        self._last_answered = max(self._last_answered, batch[0].number)
        if batch[0].is_suspect:
            self._suspects_answered_at_seconds = self.clock.monotonic()
        if not self._breaker.is_closed:
            self._outage_ends(f"{self.service} is available again", logging.WARNING)
        self._breaker = self._breaker.answered()

    def _service_failed(self, batch: Sequence[Job], error: UnavailableError) -> None:
        self._statistics.request_failed(self.service)
        if error.is_unknown_answer:
            fields = {"service": self.service}
            logger.warning("%s gives an unknown answer: %s", self.service, error, extra=fields)
            message = self.message_of(batch[0])  # the one that it was about, where it was about one
            self._notice(IncidentKind.UNKNOWN_ANSWER, str(error), message if isinstance(message, str) else None)
        wish_seconds = error.retry_after_seconds or 0.0
        was_closed = self._breaker.is_closed
        may_be_its_own = error.was_sent and not error.is_about_the_rate
        held = {job for job in batch if may_be_its_own and self._is_held_against(job)}
        for job in batch:
            job.has_failed = True
            job.failed_since = self._sent
            if job in held and self.isolates:
                job.is_suspect = True
                self._known_suspects[self.message_of(job)] = True
        unsettled = [job for job in batch if not (job in held or job.is_suspect)]
        if unsettled:
            self._breaker = self._breaker.failed(
                map(self.message_of, unsettled), self.clock.monotonic(), retry_after_seconds=wish_seconds
            )
        for job in batch:
            if self._breaker.is_closed:
                self._try_later(job, error, wish_seconds, is_held=job in held)
            elif job.is_suspect:
                self._suspects.append(job)
            else:
                self._keep(job)
        if was_closed and not self._breaker.is_closed:
            self._outage_begins(error)
        elif unsettled and wish_seconds and not self._breaker.is_closed:
            if wish_seconds > self._breaker.max_pause_seconds:
                logger.warning("%s asks for patience: next try in %.0f s", self.service, wish_seconds)
            self._wait_and_try()

    def _is_held_against(self, job: Job) -> bool:
        return is_held_against(job.failed_since if job.has_failed else job.number, self._last_answered)

    def _try_later(self, job: Job, error: UnavailableError, at_least_seconds: float, *, is_held: bool) -> None:
        """Retry after a pause; give up only on what was sent, and not while an outage may have begun."""
        may_be_an_outage = self._breaker.failures > 0 if job.is_suspect else self._breaker.is_spread
        is_fair = is_held or (error.was_sent and not may_be_an_outage)
        detail = str(error)
        innocent_until_seconds = self._suspects_answered_at_seconds + INNOCENCE_SECONDS
        if is_fair and job.was_suspect and self.clock.monotonic() >= innocent_until_seconds:
            job.from_.reply(GaveUp(f"{self.service}: {detail}"))
        elif is_fair or self._retry.pause_seconds(job.attempts + 1) is not None:
            self.retry(job, detail, at_least_seconds=at_least_seconds)
        else:
            self._pause(job, detail, max(LAST_PAUSE_SECONDS, at_least_seconds))

    def retry(self, job: Job, detail: str, *, at_least_seconds: float = 0.0, given_up: object = None) -> None:
        """Retry after a pause; after enough attempts answer ``given_up`` (or ``GaveUp``)."""
        job.attempts += 1
        pause_seconds = self._retry.pause_seconds(job.attempts, at_least_seconds=at_least_seconds)
        if pause_seconds is None:
            self.give_up(job, GaveUp(f"{self.service}: {detail}") if given_up is None else given_up)
        else:
            self._pause(job, detail, pause_seconds)

    def _pause(self, job: Job, detail: str, pause_seconds: float) -> None:
        self._retries += 1
        fields = {"service": self.service}
        logger.info("%s: tried again in %.1f s: %s", self.service, pause_seconds, detail, extra=fields)
        self._statistics.entry_retried(self.service)
        self._pausing[job] = None
        self.send_after(pause_seconds, job)

    def give_up(self, job: Job, answer: object) -> None:
        job.from_.reply(answer)

    def handle_info(self, message: Any) -> Any:
        match message:
            case Job():
                if message in self._pausing:  # else an outage was over before
                    del self._pausing[message]
                    self.accept(message)
            case _Due.SEND_GATHERED:
                self._is_gathering = False
            case _Due.SEND_WITHIN_RATE:
                self._waits_for_rate = False
            case _ if message is TIMEOUT:
                self._dispatch()
                return None
            case _Due.TRY:
                self._try_service()
            case _:
                return super().handle_info(message)
        return DISPATCH

    def _outage_begins(self, error: UnavailableError) -> None:
        self._unavailable_since_seconds = self.clock.time()
        pausing = [job for job in self._pausing if not job.is_suspect]  # their pauses were for the outage
        for job in pausing:
            del self._pausing[job]
            self._keep(job)
        logger.error(
            "%s is unavailable, requests are kept until it is back (next try in %.1f s): %s",
            self.service,
            self._breaker.pause_seconds(self.clock.monotonic()),
            error,
        )
        self._notice(IncidentKind.OUTAGE, f"{self.service} is unavailable: {error}")
        self._wait_and_try()

    def _keep(self, job: Job) -> None:
        job.attempts = 0
        self._kept.append(job)  # at the end: another one is the next to try

    def _outage_ends(self, told: str, level: int) -> None:
        logger.log(level, "%s", told)
        self._notice(IncidentKind.RECOVERED, told)
        self.cast(IN_FLIGHT, ServiceAvailable(self.service))
        self._ready.extend(self._kept)
        self._kept.clear()
        self._new_tries = 0

    def _forget_outage(self) -> None:
        # Others do the work. Nobody here could find out that the service is back, and it would be unavailable for ever.
        if not self._breaker.is_closed:
            told = f"{self.service}: whether it is available is for the nodes to say that do the work now"
            self._outage_ends(told, logging.INFO)
        self._breaker = self._breaker.answered()

    def _wait_and_try(self) -> None:
        # Where no message of those that are kept may be the trouble, they are enough to try with.
        is_wanted = self.stops_receiving and (self.isolates or not self.waiting)
        self.cast(IN_FLIGHT, self._outage(self._new_tries if is_wanted else 0))
        if self._try_timer is not None:
            self._try_timer.cancel()
        self._try_timer = self.send_after(self._breaker.pause_seconds(self.clock.monotonic()), _Due.TRY)

    def _outage(self, wanted_messages: int = 0) -> ServiceUnavailable:
        return ServiceUnavailable(self.service, wanted_messages, self.stops_receiving, self.source_queue)

    def _try_service(self) -> None:
        if self._breaker.is_closed:
            return
        # There is no room where the limits are lent to others, or all requests hang.
        has_room = self._under_way < self.concurrency
        self._new_tries = self._breaker.new_messages(self.clock.monotonic()) if has_room else 0
        if has_room and (self._kept or not self._ready) and not self._must_wait_for_rate():
            self._send_alone(self._kept or self._suspects)
        self._try_new()
        self._wait_and_try()

    def _try_new(self) -> None:
        while self._new_tries and self._ready and self._under_way < self.concurrency:
            if self._must_wait_for_rate():
                return
            self._new_tries -= self._send_next() is not None

    def _notice(self, kind: IncidentKind, summary: str, message_id: str | None = None) -> None:
        self.cast(INCIDENTS, Noticed(kind, self.service, summary, message_id))
