"""What actors and runtime exchange: exit reasons, results of callbacks and of a start, the runtime's own messages."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Hashable, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pykka._envelope import Envelope

if TYPE_CHECKING:
    from receipt_actors.otp._ref import CallReply, Ref

# --- exit reasons ----------------------------------------------------------------------------------------------------


def text_of(value: object, how: Callable[[object], str] = str) -> str:
    """Return ``str(value)``, or ``repr(value)``; if that raises, the type: naming a value must never fail."""
    try:
        return how(value)
    except BaseException:
        return f"<{type(value).__name__}>"


@dataclass(frozen=True, slots=True)
class Normal:
    """It had done its work."""

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """It was told to end, or ended in an orderly way because of ``term`` (OTP: ``shutdown``, ``{shutdown, Term}``)."""

    term: object = None

    def __str__(self) -> str:
        return "shutdown" if self.term is None else f"shutdown: {text_of(self.term)}"


@dataclass(frozen=True, slots=True)
class Killed:
    """It was killed: abandoned without a chance to clean up."""

    def __str__(self) -> str:
        return "killed"


@dataclass(frozen=True, slots=True)
class NoProcess:
    """There is no such process; it may have ended before (OTP: ``noproc``)."""

    def __str__(self) -> str:
        return "no process"


@dataclass(frozen=True, slots=True)
class Crash:
    """A callback raised ``exception``."""

    exception: BaseException

    def __str__(self) -> str:
        return f"crash: {type(self.exception).__name__}: {text_of(self.exception)}"


ExitReason: TypeAlias = Normal | Shutdown | Killed | NoProcess | Crash

_ORDERLY = (Normal, Shutdown)

NORMAL = Normal()
SHUTDOWN = Shutdown()
KILLED = Killed()
NO_PROCESS = NoProcess()


def is_orderly(reason: ExitReason) -> bool:
    """Tell whether a transient child that ended so is left alone (OTP: normal, shutdown, {shutdown, Term})."""
    return isinstance(reason, _ORDERLY)


def check_exit_reason(reason: object) -> None:
    """Raise ``TypeError`` for what is no exit reason."""
    if not isinstance(reason, ExitReason):
        raise TypeError(
            "an exit reason is NORMAL, SHUTDOWN, Shutdown(term), Crash(exception), KILLED or NO_PROCESS, "
            f"not a {type(reason).__name__}"
        )


Name: TypeAlias = Hashable

# --- what callbacks return -------------------------------------------------------------------------------------------


class Word(enum.Enum):
    NO_REPLY = "no reply"
    IGNORE = "ignore"
    TIMEOUT = "timeout"


NO_REPLY: Final = Word.NO_REPLY  #: returned by ``handle_call``: the answer comes later, through ``from_``
IGNORE: Final = Word.IGNORE  #: returned by ``init``: do not start, and that is no error
TIMEOUT: Final = Word.TIMEOUT  #: what ``handle_info`` gets after an ``IdleTimeout``


@dataclass(frozen=True, slots=True)
class Stop:
    """Returned by a callback: end with this reason. ``reply`` answers the call under way, unless it is ``NO_REPLY``."""

    reason: ExitReason = NORMAL
    reply: object = NO_REPLY

    def __post_init__(self) -> None:
        check_exit_reason(self.reason)


@dataclass(frozen=True, slots=True)
class Continue:
    """Returned by ``init`` or another callback: call ``handle_continue(term)`` before any message.

    ``reply`` answers the call under way, unless it is ``NO_REPLY``.
    """

    term: object = None
    reply: object = NO_REPLY


def shape_of(value: object) -> str:
    """Name a value without telling it, since it may be a secret: its type, and its length if it has one."""
    if value is None:
        return "None"
    return f"{type(value).__name__}[{len(value)}]" if isinstance(value, Sized) else type(value).__name__


def check_seconds(seconds: object) -> None:
    """Raise ``ValueError`` for what is no length of time."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ValueError(f"a time-out must be a number of seconds, 0 or more, not {seconds!r}")


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """Returned by ``init`` or another callback: send ``TIMEOUT`` to ``handle_info`` if no message comes for so long.

    Any message cancels it (OTP: ``{noreply, State, Timeout}``). ``reply`` answers the call under way, unless it is
    ``NO_REPLY``. With 0 seconds ``TIMEOUT`` comes as soon as no message waits, on the same turn: so an actor gathers
    what has come in and then acts on it. One that does so very often makes its ``IdleTimeout(0)`` once.
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


StartResult: TypeAlias = Started | NotStarted | Literal[Word.IGNORE]


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
    """The answer to a request of this process.

    There are very many: the ``Reply`` is made only if one is looked at, and pykka's ``__init__`` is left out.
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
