"""What the actors tell: facts, cast to ``STATISTICS``. Each may be lost without harm."""

from __future__ import annotations

from dataclasses import dataclass

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason

STATISTICS = "statistics"  #: the name of the actor that counts


@dataclass(frozen=True, slots=True)
class RequestsMade:
    """A service answered some requests."""

    service: str  #: ``app_store``, ``ledger``, ``receive from ReceiptsSQS``, ``send to ResultsSQS``, ...
    requests: int
    entries: int  #: how many messages, claims or deletes they were for


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """A receive brought messages."""

    count: int


@dataclass(frozen=True, slots=True)
class ResultPosted:
    """An answer was confirmed by its post queue."""

    verdict: Verdict
    reason: Reason


@dataclass(frozen=True, slots=True)
class MessageFinished:
    """A message left the house: answered and deleted, moved, handed back, or left as it is."""

    fate: str  #: ``answered``, ``moved``, ``handed_back`` or ``left``
    reason: Reason | None  #: why, unless it was answered
    seconds: float  #: since it was received
    steps: tuple[tuple[str, float], ...] = ()  #: what took how many of these seconds, such as ``verifying``
