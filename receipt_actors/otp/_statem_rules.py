"""The words and the rules of ``gen_statem``, without any actor, thread or clock: which callback comes next, and why.

::

    receive(event) or time_out(...) --> current is the event --> (the shell makes the callback) --> settle(result)
                                           ^                                                            |
                                           +---------- current is the next one, until it is None -------+

A transition goes as OTP 27 says (``gen_statem``, ``transition_option()``):

1. The actions are looked at in order: replies are sent, the others set what comes below; the last of a kind wins.
2. With state enter calls: the state that was entered, or is repeated, gets ``Enter``, and 1 again with its result.
3. The event is postponed, if so wished.
4. If the state has changed, the queue starts again with the postponed events, oldest first.
5. The events of ``next_event`` are put before the queue, in the order of their actions.
6. Time-outs: any event has cancelled the event time-out, a state change the state time-out. Then those that were
   asked for start; one of zero seconds becomes an event after the queue, unless it is cancelled before its turn.
7. The oldest of the queue is next; if there is none, the oldest zero time-out; if there is none, whatever comes.

An illegal result raises and changes nothing. States are compared with ``==``.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from receipt_actors.otp._calls import From
from receipt_actors.otp._messages import NO_REPLY, Receiving, Stop, shape_of
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


# --- the engine -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Start a timer; when it fires, ``time_out(kind, tag)``."""

    kind: TimeoutKind
    tag: int
    seconds: float
    absolute: bool


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Cancel the timer with this tag."""

    tag: int


#: What the shell has to do, in order. ``Stop`` comes last, and then nothing is next.
Effect: TypeAlias = ReplyAction | StartTimer | CancelTimer | Stop


@dataclass(slots=True)
class _Timeout:
    event: TimeoutEvent
    tag: int | None  # None: one of zero seconds, which waits in the queue of those


@dataclass(slots=True)
class _Wishes:
    """What the callbacks of one transition have asked for so far."""

    old_state: Any
    postpone: bool = False
    next_events: list[Event] = field(default_factory=list)
    timeouts: dict[TimeoutKind, SetTimeout] = field(default_factory=dict)


class StateMachineLoop:
    """The engine's own state: the machine's state, the queue, the postponed events, the time-outs. See the module."""

    def __init__(self, *, state_enter: bool) -> None:
        self.state: Any = None
        self.current: Event | Enter | None = None  # what the next callback is for; None: wait for an event
        self.postponed: list[Event] = []
        self._state_enter = state_enter
        self._event: Event | None = None  # what the transition under way began with
        self._queue: deque[Event] = deque()
        self._timeouts: dict[TimeoutKind, _Timeout] = {}
        self._zero_timeouts: list[TimeoutKind] = []
        self._tags = itertools.count(1)
        self._wishes = _Wishes(None)

    @property
    def timeouts(self) -> list[TimeoutEvent]:
        return [timeout.event for timeout in self._timeouts.values()]

    # --- what comes in ---

    def begin(self, first: NextState) -> list[Effect]:
        """Enter the first state: an enter call if there are such calls, from the state itself; nothing is postponed."""
        self.state = first.state
        self._wishes = _Wishes(first.state)
        effects = self._look_at(first.actions)
        return effects + (self._enter() if self._state_enter else self._transit())

    def receive(self, event: Event) -> None:
        """Take an event from outside; only while there is no ``current``."""
        self.current = self._event = event
        self._wishes = _Wishes(self.state)

    def time_out(self, kind: TimeoutKind, tag: int) -> bool:
        """Take a timer that has fired; False when it was cancelled or replaced meanwhile: it counts for nothing."""
        timeout = self._timeouts.get(kind)
        if timeout is None or timeout.tag != tag:
            return False
        del self._timeouts[kind]
        self.receive(timeout.event)
        return True

    def raised(self) -> None:
        """Note that the callback raised: a state whose enter call this was has not been entered (OTP)."""
        if isinstance(self.current, Enter):
            self.state = self.current.old_state

    def settle(self, result: object) -> list[Effect]:
        """Carry out what the callback for ``current`` returned.

        Raises:
            TypeError: no result of a state callback, or one that a state enter call may not have.
        """
        if isinstance(result, Stop):
            check_stop(result)
            self.current = None
            return [result]
        if isinstance(result, StopAndReply):
            self.current = None
            return [*result.replies, Stop(result.reason)]
        if not isinstance(result, NextState | KeepState | RepeatState):
            raise TypeError(
                f"a state callback returned {shape_of(result)} for {type(self.current).__name__}, and not "
                "next_state(...), keep_state(...), repeat_state(...), Stop(...) or stop_and_reply(...)"
                + (" (no case fits, or a return is missing)" if result is None else "")
            )
        state = result.state if isinstance(result, NextState) else self.state
        changes = bool(state != self.state)
        if isinstance(self.current, Enter):
            self._check_enter(result, changes)
        effects = self._look_at(result.actions)
        self.state = state
        enters = changes or isinstance(result, RepeatState)
        return effects + (self._enter() if enters and self._state_enter else self._transit())

    def _check_enter(self, result: NextState | KeepState | RepeatState, changes: bool) -> None:
        if changes:
            raise TypeError(
                f"a state enter call must not change the state, here from {self.state!r} by {shape_of(result)}"
            )
        for action in result.actions:
            if isinstance(action, NextEvent) or (isinstance(action, Postpone) and action.value):
                raise TypeError(f"a state enter call must not postpone or insert an event, as {shape_of(action)} does")

    # --- the transition; the numbers are those of the module ---

    def _look_at(self, actions: tuple[Action, ...]) -> list[Effect]:  # 1
        wishes = self._wishes
        replies: list[Effect] = []
        for action in actions:
            if isinstance(action, ReplyAction):
                replies.append(action)
            elif isinstance(action, Postpone):
                wishes.postpone = action.value
            elif isinstance(action, NextEvent):
                wishes.next_events.append(action.event)
            else:
                kind = kind_of(action.event)
                wishes.timeouts.pop(kind, None)  # the last one wins, at its own place
                wishes.timeouts[kind] = action
        return replies

    def _enter(self) -> list[Effect]:  # 2
        self.current = Enter(self._wishes.old_state)
        return []

    def _transit(self) -> list[Effect]:
        wishes = self._wishes
        effects: list[Effect] = []
        if wishes.postpone and self._event is not None:  # 3; with init there is no event
            self.postponed.append(self._event)
        if self.state != wishes.old_state:  # 4
            self._queue.extendleft(reversed(self.postponed))
            self.postponed = []
            self._cancel(StateTimeout, effects)
        self._queue.extendleft(reversed(wishes.next_events))  # 5
        self._cancel(EventTimeout, effects)
        for kind, action in wishes.timeouts.items():  # 6
            self._set(kind, action, effects)
        self._take_next()  # 7
        return effects

    def _take_next(self) -> None:
        if self._queue:
            self.receive(self._queue.popleft())
        elif self._zero_timeouts:
            self.receive(self._timeouts.pop(self._zero_timeouts.pop(0)).event)
        else:
            self.current = self._event = None

    # --- time-outs ---

    def _set(self, kind: TimeoutKind, action: SetTimeout, effects: list[Effect]) -> None:
        if action.time is UPDATE and kind in self._timeouts:
            self._timeouts[kind].event = action.event
            return
        self._cancel(kind, effects)
        if action.time is None or action.time is CANCEL:
            return
        if action.time is UPDATE or (action.time == 0 and not action.absolute):
            self._timeouts[kind] = _Timeout(action.event, None)
            self._zero_timeouts.append(kind)
            return
        tag = next(self._tags)
        self._timeouts[kind] = _Timeout(action.event, tag)
        effects.append(StartTimer(kind, tag, action.time, action.absolute))

    def _cancel(self, kind: TimeoutKind, effects: list[Effect]) -> None:
        timeout = self._timeouts.pop(kind, None)
        if timeout is None:
            return
        if timeout.tag is None:
            self._zero_timeouts.remove(kind)
        else:
            effects.append(CancelTimer(timeout.tag))
