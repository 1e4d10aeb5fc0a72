"""The vocabulary of ``GenStateMachine``: its events, what a state callback returns, and the actions in that.

Values only, checked where they are made. What they bring about stands in ``_state_machine_loop``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from receipt_actors.otp._calls import From
from receipt_actors.otp._messages import NO_REPLY, Receiving, Stop
from receipt_actors.otp._reasons import ExitReason

# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A ``call``, ``ask`` or ``send_request``; answer it, now or from a later state, with ``reply(from_, value)``."""

    request: Any
    from_: From


@dataclass(frozen=True, slots=True)
class Cast:
    """A ``cast``."""

    request: Any


@dataclass(frozen=True, slots=True)
class Info:
    """Any other message: ``send``, ``tell``, ``send_after``, ``Down``, ``Exit``, ``StartFinished``."""

    message: Any


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to a ``send_request``, ``run_blocking`` or ``run_async`` (``handle_reply`` of other actors)."""

    label: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A ``send_request`` will not be answered, or a call elsewhere failed (``handle_failure`` of other actors)."""

    label: Any
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Internal:
    """An event of the machine to itself, from ``next_event``: nobody else can send one."""

    content: Any = None


@dataclass(frozen=True, slots=True)
class EventTimeout:
    """No event came for a time (OTP: ``timeout``)."""

    content: Any = None


@dataclass(frozen=True, slots=True)
class StateTimeout:
    """The machine has been in this state for a time (OTP: ``state_timeout``)."""

    content: Any = None


@dataclass(frozen=True, slots=True)
class GenericTimeout:
    """A time-out with a name, whatever state and events there were (OTP: ``{timeout, Name}``)."""

    name: Hashable
    content: Any = None


@dataclass(frozen=True, slots=True)
class Enter:
    """Not an event but a state enter call: this state has been entered from ``old_state``, or again."""

    old_state: Any


TimeoutEvent: TypeAlias = EventTimeout | StateTimeout | GenericTimeout
Event: TypeAlias = Call | Cast | Info | Replied | Failed | Internal | TimeoutEvent
TimeoutKind: TypeAlias = type[EventTimeout] | type[StateTimeout] | tuple[type[GenericTimeout], Hashable]


def kind_of(event: TimeoutEvent) -> TimeoutKind:
    """Tell which time-out an event belongs to: there is one of each kind at most, whatever its content."""
    return (GenericTimeout, event.name) if isinstance(event, GenericTimeout) else type(event)


# --- actions ---------------------------------------------------------------------------------------------------------


class _TimeoutChange(enum.Enum):
    CANCEL = "cancel"
    UPDATE = "update"


CANCEL: Final = _TimeoutChange.CANCEL  #: in place of a time-out's seconds: stop it
UPDATE: Final = _TimeoutChange.UPDATE  #: in place of a time-out's seconds: new content, same time

#: Seconds; None: for ever, which cancels; or ``CANCEL``; or ``UPDATE``.
TimeoutTime: TypeAlias = float | _TimeoutChange | None


@dataclass(frozen=True, slots=True)
class ReplyAction:
    """See ``reply``."""

    from_: From
    value: Any

    def __post_init__(self) -> None:
        if not isinstance(self.from_, From):
            raise TypeError(f"reply() needs the from_ of a Call, not {self.from_!r}")


@dataclass(frozen=True, slots=True)
class Postpone:
    """See ``postpone``."""

    value: bool


@dataclass(frozen=True, slots=True)
class NextEvent:
    """See ``next_event``."""

    event: Event

    def __post_init__(self) -> None:
        if not isinstance(self.event, Event):
            raise TypeError(f"next_event() needs an event, such as Internal(...), not {self.event!r}")


@dataclass(frozen=True, slots=True)
class SetTimeout:
    """See ``event_timeout``, ``state_timeout`` and ``generic_timeout``."""

    event: TimeoutEvent
    time: TimeoutTime
    absolute: bool

    def __post_init__(self) -> None:
        time = self.time
        if time is None or isinstance(time, _TimeoutChange):
            return
        if not isinstance(time, int | float) or isinstance(time, bool):
            raise TypeError(f"a time-out needs seconds, None, CANCEL or UPDATE, not {time!r}")
        if math.isnan(time) or (time < 0 and not self.absolute):
            raise ValueError(f"a time-out needs zero seconds or more, not {time!r}")


Action: TypeAlias = ReplyAction | Postpone | NextEvent | SetTimeout


def reply(from_: From, value: object) -> ReplyAction:
    """Answer a ``Call``, this one or an earlier one (OTP: ``{reply, From, Reply}``). A second answer is dropped.

    Raises:
        TypeError: ``from_`` is not that of a ``Call``.
    """
    return ReplyAction(from_, value)


def postpone(value: bool = True) -> Postpone:
    """Put this event aside until the state has changed (OTP: ``{postpone, Value}``)."""
    return Postpone(value)


def next_event(event: Event) -> NextEvent:
    """Have ``event``, of any type, handled before all that wait, after earlier ``next_event`` of the same list.

    OTP: ``{next_event, EventType, EventContent}``.

    Raises:
        TypeError: it is not an event.
    """
    return NextEvent(event)


def event_timeout(seconds: TimeoutTime, content: object = None, *, absolute: bool = False) -> SetTimeout:
    """Get ``EventTimeout(content)`` unless any event comes before (OTP: ``{timeout, Time, Content, Options}``).

    Any event cancels it: a postponed one that is retried, one from ``next_event``, another time-out. See
    ``state_timeout`` for the arguments and errors.
    """
    return SetTimeout(EventTimeout(content), seconds, absolute)


def state_timeout(seconds: TimeoutTime, content: object = None, *, absolute: bool = False) -> SetTimeout:
    """Get ``StateTimeout(content)`` unless the state changes before (OTP: ``{state_timeout, Time, Content, Options}``).

    Together with a state change it counts for the new state.

    Args:
        seconds: when; a running time-out of the kind starts anew. Zero: at once, after the events that are queued in
            the machine already, before any message. None: never, as ``CANCEL``. ``CANCEL``: stop it. ``UPDATE``: new
            content for the one that runs; where none does, as zero.
        content: what the event will hold.
        absolute: ``seconds`` is a moment of ``clock.monotonic()``; one in the past falls due at once, as a message.

    Raises:
        TypeError: ``seconds`` is nothing of the above.
        ValueError: ``seconds`` is negative, and not absolute, or no number.
    """
    return SetTimeout(StateTimeout(content), seconds, absolute)


def generic_timeout(
    name: Hashable, seconds: TimeoutTime, content: object = None, *, absolute: bool = False
) -> SetTimeout:
    """Get ``GenericTimeout(name, content)``, which only the machine itself cancels (OTP: ``{{timeout, Name}, ...}``).

    There is one of each name. See ``state_timeout`` for the arguments and errors.
    """
    return SetTimeout(GenericTimeout(name, content), seconds, absolute)


# --- what a state callback returns -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _WithActions:
    actions: tuple[Action, ...]

    def __post_init__(self) -> None:
        for action in self.actions:
            if not isinstance(action, Action):
                raise TypeError(f"{action!r} is not an action, such as reply(...) or state_timeout(...)")


@dataclass(frozen=True, slots=True)
class KeepState(_WithActions):
    """See ``keep_state``."""


@dataclass(frozen=True, slots=True)
class RepeatState(_WithActions):
    """See ``repeat_state``."""


@dataclass(frozen=True, slots=True)
class NextState(_WithActions):
    """See ``next_state``."""

    state: Any


@dataclass(frozen=True, slots=True)
class StopAndReply:
    """See ``stop_and_reply``."""

    reason: ExitReason
    replies: tuple[ReplyAction, ...]

    def __post_init__(self) -> None:
        for answer in self.replies:
            if not isinstance(answer, ReplyAction):
                raise TypeError(f"stop_and_reply() takes reply(...) and nothing else, not {answer!r}")


#: What a state callback returns, at once or as a generator at its end.
Transition: TypeAlias = NextState | KeepState | RepeatState | Stop | StopAndReply
StateResult: TypeAlias = Transition | Receiving


def next_state(state: Any, *actions: Action) -> NextState:
    """Go to ``state``; from ``init``, start in it. The state that it is in already: as ``keep_state``.

    A state change retries the postponed events, oldest first, before any other, and cancels the state time-out.

    Raises:
        TypeError: one of ``actions`` is not an action.
    """
    return NextState(actions, state)


def keep_state(*actions: Action) -> KeepState:
    """Stay in the state; errors as ``next_state``."""
    return KeepState(actions)


def repeat_state(*actions: Action) -> RepeatState:
    """Stay in the state, but make its state enter call again, where there are such calls; errors as ``next_state``."""
    return RepeatState(actions)


def stop_and_reply(reason: ExitReason, *replies: ReplyAction) -> StopAndReply:
    """Send the replies, then end as with ``Stop(reason)``.

    Raises:
        TypeError: one of ``replies`` is not a ``reply(...)``.
    """
    return StopAndReply(reason, replies)


def check_stop(stop: Stop) -> None:
    """Refuse ``Stop`` with a reply: a state machine's callback may have any event in hand, not the call under way.

    Raises:
        TypeError: it has one.
    """
    if stop.reply is not NO_REPLY:
        raise TypeError("a state machine answers as it stops with stop_and_reply(reason, reply(from_, value))")
