"""The values that actors and runtime exchange: what callbacks return, how a start ends, the runtime's own messages."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Hashable, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pykka._envelope import Envelope

from receipt_actors.otp._reasons import NORMAL, ExitReason, check_exit_reason

if TYPE_CHECKING:
    from receipt_actors.otp._calls import CallReply
    from receipt_actors.otp._ref import Ref

Name: TypeAlias = Hashable

# --- what callbacks return -------------------------------------------------------------------------------------------


class _NoReply(enum.Enum):
    NO_REPLY = "no reply"


NO_REPLY = _NoReply.NO_REPLY  #: returned by ``handle_call``: the answer comes later, through ``from_``


class Ignore(enum.Enum):
    IGNORE = "ignore"


IGNORE = Ignore.IGNORE  #: returned by ``init``: do not start, and that is no error


@dataclass(frozen=True, slots=True)
class Stop:
    """Returned by a callback: end with this reason. ``reply`` answers the call under way, unless it is ``NO_REPLY``."""

    reason: ExitReason = NORMAL
    reply: object = NO_REPLY

    def __post_init__(self) -> None:
        check_exit_reason(self.reason)


@dataclass(frozen=True, slots=True)
class Continue:
    """Returned by ``init`` (or a callback): call ``handle_continue(term)`` before any message.

    ``reply`` answers the call under way, unless it is ``NO_REPLY``.
    """

    term: object = None
    reply: object = NO_REPLY


def shape_of(value: object) -> str:
    """Name a value without telling it, since it may be a secret: its type, and its length where it has one."""
    if value is None:
        return "None"
    return f"{type(value).__name__}[{len(value)}]" if isinstance(value, Sized) else type(value).__name__


def check_seconds(seconds: object) -> None:
    """Refuse what is no length of time.

    Raises:
        ValueError: no number, NaN, or negative.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ValueError(f"a time-out must be a number of seconds, 0 or more, not {seconds!r}")


class _Timeout(enum.Enum):
    TIMEOUT = "timeout"


TIMEOUT = _Timeout.TIMEOUT  #: what ``handle_info`` gets after an ``IdleTimeout``


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """Returned by ``init`` or a callback: send ``TIMEOUT`` to ``handle_info`` if no message comes for so long.

    Whatever comes cancels it (OTP: ``{noreply, State, Timeout}``). ``reply`` answers the call under way, unless it is
    ``NO_REPLY``.

    With 0 seconds ``TIMEOUT`` comes as soon as no message waits, on the same turn and without a clock: so an actor
    gathers what has come in and then acts on it, without a cast to itself. One that does so for very many messages
    makes its ``IdleTimeout(0)`` once, and returns it again and again.
    """

    seconds: float
    reply: object = NO_REPLY

    def __post_init__(self) -> None:
        check_seconds(self.seconds)


@dataclass(frozen=True, slots=True)
class Receive:
    """Yielded by a callback: wait for a message that ``matches``, or for ``timeout_seconds``; gives it, or None."""

    matches: Callable[[object], bool]
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_seconds is not None:
            check_seconds(self.timeout_seconds)


class ReceiveMore(Receive):
    """One of the runtime's own, yielded again and again: what was passed over for it is not looked at once more."""

    __slots__ = ()


class ReceiveNew(Receive):
    """One of the runtime's own, for what can't have come before: what was passed over is not looked at."""

    __slots__ = ()


#: A callback that receives selectively, or waits for the answer to a call (``Actor.call_to``).
Receiving: TypeAlias = Generator["Receive | CallReply", Any, Any]


# --- what a start ends in --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """It runs: ``init`` has returned."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class NotStarted:
    """It does not run, for this reason."""

    reason: ExitReason | AlreadyStarted


@dataclass(frozen=True, slots=True)
class AlreadyStarted:
    """Its name is taken by ``ref``, which runs."""

    ref: Ref

    def __str__(self) -> str:
        return f"already started: {self.ref}"


@dataclass(frozen=True, slots=True)
class Starting:
    """Its ``init`` is under way; a ``StartFinished`` with this ``ref`` follows."""

    ref: Ref


StartResult: TypeAlias = Started | NotStarted | Ignore


# --- messages of the runtime, delivered to ``handle_info`` -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartFinished:
    """To the starter: the ``init`` of ``ref`` is done."""

    ref: Ref
    result: StartResult


@dataclass(frozen=True, slots=True)
class Down:
    """To a monitor's owner, once: ``ref`` has ended."""

    monitor: int
    ref: Ref
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Exit:
    """To a linked process that traps exits: ``ref`` has ended."""

    ref: Ref
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Reply:
    """To who sent a request: the answer; or, with a ``failure``, that none will come. Goes to ``handle_reply``."""

    label: Any
    value: Any
    failure: ExitReason | None = None


# --- envelopes -------------------------------------------------------------------------------------------------------


class CastEnvelope(Envelope[Any]):
    """A message for ``handle_cast``; a plain envelope without ``reply_to`` is one for ``handle_info``."""

    __slots__ = ()


class ReplyEnvelope(Envelope[Any]):
    """The answer to a request of this process. There are very many: the ``Reply`` is made only where one is looked at.

    pykka's ``__init__`` is left out for the same reason.
    """

    __slots__ = ("failure", "label", "value")

    reply_to = None

    def __init__(self, label: Any, value: Any, failure: ExitReason | None) -> None:
        self.label = label
        self.value = value
        self.failure = failure

    @property
    def message(self) -> Reply:
        return Reply(self.label, self.value, self.failure)


class DownEnvelope(Envelope[Any]):
    """A monitor's message, a ``Down``: delivered unless the monitor has been flushed meanwhile."""

    __slots__ = ()


class SystemEnvelope(Envelope[Any]):
    """The runtime's own business: ``message`` is a function to run now, whatever the process waits for."""

    __slots__ = ()


class ContinueEnvelope(Envelope[Any]):
    """To itself: call ``handle_continue(message)``, before any other message is looked at."""

    __slots__ = ()


class SysEnvelope(Envelope[Any]):
    """A request of ``sys``: ``message`` is a function of the process whose result is the answer."""

    __slots__ = ()


class ParentExitEnvelope(Envelope[Any]):
    """The parent wants the process to end, for the reason ``message``; takes its turn like any message."""

    __slots__ = ()
