"""What actors say to each other: requests in the imperative, facts in the past tense.

A name always means the actor that lives now, so that a restart leaves no stale reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from receipt_actors.domain.messages import Submission, Unanswerable
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import LedgerItem, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import Name, Ref

# --- names ---

IN_FLIGHT = "in_flight"
VISIBILITY_BATCHER = "visibility_batcher"
APP_STORE_GATEWAY = "app_store_gateway"
LEDGER_GATEWAY = "ledger_gateway"
SIGNATURE_GATEWAY = "signature_gateway"
DELETE_BATCHER = "delete_batcher"
RESULT_BATCHERS = "result_batchers"
VALIDATORS = "validators"
MOVERS = "movers"
CONSUMERS = "consumers"


def result_batcher_name(queue: str) -> tuple[str, str]:
    return ("result_batcher", queue)


def delete_batcher_of(source: Source) -> Name:
    return DELETE_BATCHER if source.is_first else (DELETE_BATCHER, source.queue)


def visibility_batcher_of(source: Source) -> Name:
    return VISIBILITY_BATCHER if source.is_first else (VISIBILITY_BATCHER, source.queue)


# consumers -> in_flight
@dataclass(frozen=True, slots=True)
class ReserveCredits:
    """A consumer wants to receive up to ``count`` messages; answered by ``CreditsGranted`` when there is room."""

    consumer: Ref
    source_queue: str
    count: int


@dataclass(frozen=True, slots=True)
class CreditsGranted:
    """Receive at most ``count`` messages, then send ``Received``."""

    count: int


#: A delivery and what is to be done about it; None: nothing, for the copy is corrupt.
Delivery: TypeAlias = tuple[ReceivedMessage, Submission | Unanswerable | None]


@dataclass(frozen=True, slots=True)
class Received:
    """A receive is over: start processors for what came.

    Answered as ``ReserveCredits``; by ``Done`` where the consumer wants no more credits yet.
    """

    consumer: Ref
    source: Source
    messages: Sequence[Delivery]
    began_at_seconds: float = 0.0  #: monotonic
    failure: str | None = None  #: why none could come
    next_count: int = 0  #: how many credits to reserve for the next receive; 0: the consumer will ask later
    is_last: bool = False  #: the consumer ends, and the processors would end next: hand all of it back


# gateways -> in_flight
@dataclass(frozen=True, slots=True)
class ServiceUnavailable:
    """A service failed repeatedly: receive nothing until ``ServiceAvailable``. Repeated at every probe."""

    service: str
    wanted_messages: int = 0  #: let so many in all the same: those that are kept may themselves be what fails
    stops_receiving: bool = True  #: False: it is some messages' trouble, which are kept; go on to receive
    source_queue: str | None = None  #: the only one that is closed for it; None: all are


@dataclass(frozen=True, slots=True)
class ServiceAvailable:
    service: str


# in_flight -> gateways
@dataclass(frozen=True, slots=True)
class DescribeService:
    """Say what ``in_flight`` should know: ``ServiceUnavailable`` or ``ServiceAvailable``."""


# the system -> in_flight
@dataclass(frozen=True, slots=True)
class StopReceiving:
    """Grant no more credits: the process stops.

    Answered by ``Done`` once nothing is in flight, or by ``StuckInOutage`` where that takes an outage's end.
    """


@dataclass(frozen=True, slots=True)
class StuckInOutage:
    """So many messages wait for unavailable services, and none has finished for a while."""

    messages: int
    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class PauseReceiving:
    """``LiveLimits.is_paused`` is set: grant no credits. Answered by ``Done`` once nothing is received."""


@dataclass(frozen=True, slots=True)
class ResumeReceiving:
    """``LiveLimits.is_paused`` is no longer set."""


@dataclass(frozen=True, slots=True)
class ReleaseMessages:
    """Another node does the work now: have every message in flight handed back."""


@dataclass(frozen=True, slots=True)
class DescribeInFlight:
    """Say what is in flight: ``InFlightStatus``."""


@dataclass(frozen=True, slots=True)
class InFlightStatus:
    in_flight: int  #: messages
    reserved: int  #: credits of receives under way
    unavailable: frozenset[str]  #: services that keep the gate closed, for one source at least
    #: How long nothing has been in flight or received, as each source queue has confirmed by an empty answer since; 0:
    #: it is busy, paused, lent nothing, or nobody knows.
    idle_seconds: float
    is_paused: bool = False
    receives_fail: frozenset[str] = frozenset()  #: source queues; those of some consumer, at least
    is_closed: bool = False  #: nothing can be taken in from any source, for services that are unavailable
    oldest_in_flight_seconds: float = 0.0  #: how long the oldest has been, as far as is known; 0: none is
    unable_seconds: float = 0.0
    """For how long nothing could be received from any source queue, without a break; 0: something can, or might."""

    @property
    def troubles(self) -> frozenset[str]:
        return self.unavailable | {f"receive from {queue}" for queue in self.receives_fail}


# the system -> in_flight and gateways
@dataclass(frozen=True, slots=True)
class ObeyLimits:
    """The limits have changed: look again; answered by ``Done`` when no more is under way than they allow."""


# processors -> in_flight
@dataclass(frozen=True, slots=True)
class HandBack:
    """Why a processor ended (``Shutdown(HandBack(...))``) that gave up for this delivery: the message comes back."""

    reason: Reason


# processors -> gateways and batchers; answered by the values below
@dataclass(frozen=True, slots=True)
class VerifyReceipt:
    """Ask Apple, as is right for this source; answered by ``domain.receipts.Interpretation``."""

    submission: Submission
    source_queue: str


@dataclass(frozen=True, slots=True)
class VerifySignature:
    """Verify a signed transaction; answered by its payload or ``SignatureRefused``."""

    message_id: str
    signed: str


@dataclass(frozen=True, slots=True)
class ClaimTransaction:
    """Claim a transaction; answered by ``domain.verdicts.Said``."""

    item: LedgerItem


@dataclass(frozen=True, slots=True)
class LookUpTransaction:
    """Ask who owns a transaction, without claiming it; answered by ``domain.verdicts.Said``."""

    item: LedgerItem  #: the claim that it would be


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send to the batcher's queue; answered by ``Done`` once SQS confirms, or ``Refused``."""

    message: OutgoingMessage


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Delete from the batcher's queue; answered by ``Done``, also where there is nothing to delete any more."""

    receipt_handle: str


@dataclass(frozen=True, slots=True)
class ChangeVisibility:
    """Set a message's visibility timeout, counted from now; answered by ``Done`` or ``Refused``."""

    receipt_handle: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Done:
    """The service confirmed it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The service will never do it as it stands."""

    detail: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The service kept failing for longer than one delivery should wait."""

    detail: str


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The service is down, and as many requests as may wait for it do."""

    detail: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The client raised what it never should: a bug. Whoever asked crashes with it; the gateway lives."""

    error: BaseException


GatewayFailure: TypeAlias = Refused | GaveUp | NoRoom | Broken
