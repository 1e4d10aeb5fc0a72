"""``gen_statem``: state machines, and the words to write them with (Erlang's ``gen_statem`` module).

::

    from receipt_actors.otp.gen_statem import Cast, GenStateMachine, keep_state, next_state, postpone, state_timeout

The words are kept out of ``receipt_actors.otp`` itself because many are short ones (``Call``, ``Info``, ``reply``).

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
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any, ClassVar, Final, TypeAlias

from pykka._envelope import Envelope

from receipt_actors.otp._clock import Timer
from receipt_actors.otp._gen_server import PYKKA_REQUESTS, Actor
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    CastEnvelope,
    Continue,
    ExitReason,
    NotStarted,
    Receiving,
    ReplyEnvelope,
    Stop,
    shape_of,
)
from receipt_actors.otp._process import Process
from receipt_actors.otp._ref import From

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
    """An event of the machine to itself, from ``next_event``; no other actor can send one."""

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
    """Answer a ``Call``, this one or an earlier one (OTP: ``{reply, From, Reply}``). A second answer is dropped."""

    from_: From
    value: Any

    def __post_init__(self) -> None:
        if not isinstance(self.from_, From):
            raise TypeError(f"reply() needs the from_ of a Call, not {self.from_!r}")


@dataclass(frozen=True, slots=True)
class Postpone:
    """Put this event aside until the state has changed (OTP: ``{postpone, Value}``)."""

    value: bool = True


@dataclass(frozen=True, slots=True)
class NextEvent:
    """Have ``event``, of any type, handled before all that wait, after earlier ``next_event`` of the same list.

    OTP: ``{next_event, EventType, EventContent}``.
    """

    event: Event

    def __post_init__(self) -> None:
        if not isinstance(self.event, Event):
            raise TypeError(f"next_event() needs an event, such as Internal(...), not {self.event!r}")


@dataclass(frozen=True, slots=True)
class SetTimeout:
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

reply = ReplyAction
postpone = Postpone
next_event = NextEvent


def event_timeout(seconds: TimeoutTime, content: object = None, *, absolute: bool = False) -> SetTimeout:
    """Get ``EventTimeout(content)`` unless any event comes before (OTP: ``{timeout, Time, Content, Options}``).

    A postponed event that is retried, one from ``next_event`` or another time-out cancels it too. See
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


class KeepState(_WithActions):
    __slots__ = ()


class RepeatState(_WithActions):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class NextState(_WithActions):
    state: Any


@dataclass(frozen=True, slots=True)
class StopAndReply:
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
    """
    return NextState(actions, state)


def keep_state(*actions: Action) -> KeepState:
    """Stay in the state."""
    return KeepState(actions)


def repeat_state(*actions: Action) -> RepeatState:
    """Stay in the state, but make its state enter call again, if there are such calls."""
    return RepeatState(actions)


def stop_and_reply(reason: ExitReason, *replies: ReplyAction) -> StopAndReply:
    """Send the replies, then end as with ``Stop(reason)``."""
    return StopAndReply(reason, replies)


def _check_stop(stop: Stop) -> None:
    # A state machine's callback may have any event in hand, not the call under way.
    if stop.reply is not NO_REPLY:
        raise TypeError("a state machine answers as it stops with stop_and_reply(reason, reply(from_, value))")


# --- the rules -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Timeout:
    event: TimeoutEvent
    is_queued: bool  # one of zero seconds, which becomes an event after the queue
    timer: Timer | None = None


class _TimerEnvelope(Envelope[_Timeout]):
    """A timer of the machine has fired. No plain envelope: a selective receive of the user's must not take it."""

    __slots__ = ()


@dataclass(slots=True)
class _Wishes:
    """What the callbacks of one transition have asked for so far."""

    old_state: Any
    postpone: bool = False
    next_events: list[Event] = field(default_factory=list)
    timeouts: dict[TimeoutKind, SetTimeout] = field(default_factory=dict)


class _Loop:
    """The machine's state, the queue, the postponed events, the time-outs, and the rules of the module."""

    def __init__(self, process: Process, *, state_enter: bool) -> None:
        self.state: Any = None
        self.current: Event | Enter | None = None  # what the next callback is for; None: wait for an event
        self.postponed: list[Event] = []
        self.timeouts: dict[TimeoutKind, _Timeout] = {}
        self._process = process
        self._state_enter = state_enter
        self._event: Event | None = None  # what the transition under way began with
        self._queue: deque[Event] = deque()
        self._wishes = _Wishes(None)

    def begin(self, first: NextState) -> None:
        """Enter the first state: an enter call if there are such calls, from the state itself; nothing is postponed."""
        self.state = first.state
        self._wishes = _Wishes(first.state)
        self._look_at(first.actions)
        self._enter_or_transit(enters=True)

    def receive(self, event: Event) -> None:
        """Take an event from outside; only while there is no ``current``."""
        self.current = self._event = event
        self._wishes = _Wishes(self.state)

    def time_out(self, timeout: _Timeout) -> None:
        """Take the event of a time-out, unless it was cancelled or replaced after its timer had fired."""
        kind = kind_of(timeout.event)
        if self.timeouts.get(kind) is timeout:
            del self.timeouts[kind]
            self.receive(timeout.event)

    def raised(self) -> None:
        # A state whose enter call raised has not been entered (OTP).
        if isinstance(self.current, Enter):
            self.state = self.current.old_state

    def settle(self, result: object) -> Stop | None:
        """Carry out what the callback for ``current`` returned; raise ``TypeError`` for no legal result."""
        if isinstance(result, Stop):
            _check_stop(result)
            return result
        if isinstance(result, StopAndReply):
            self._look_at(result.replies)
            return Stop(result.reason)
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
        self.state = state
        self._look_at(result.actions)
        self._enter_or_transit(enters=changes or isinstance(result, RepeatState))
        return None

    def _check_enter(self, result: NextState | KeepState | RepeatState, changes: bool) -> None:
        if changes:
            raise TypeError(
                f"a state enter call must not change the state, here from {self.state!r} by {shape_of(result)}"
            )
        for action in result.actions:
            if isinstance(action, NextEvent) or (isinstance(action, Postpone) and action.value):
                raise TypeError(f"a state enter call must not postpone or insert an event, as {shape_of(action)} does")

    # --- the transition; the numbers are those of the module ---

    def _look_at(self, actions: tuple[Action, ...]) -> None:  # 1
        wishes = self._wishes
        for action in actions:
            if isinstance(action, ReplyAction):
                action.from_.reply(action.value)
            elif isinstance(action, Postpone):
                wishes.postpone = action.value
            elif isinstance(action, NextEvent):
                wishes.next_events.append(action.event)
            else:
                kind = kind_of(action.event)
                wishes.timeouts.pop(kind, None)  # the last one wins, at its own place
                wishes.timeouts[kind] = action

    def _enter_or_transit(self, *, enters: bool) -> None:
        wishes = self._wishes
        if enters and self._state_enter:  # 2
            self.current = Enter(wishes.old_state)
            return
        if wishes.postpone and self._event is not None:  # 3; with init there is no event
            self.postponed.append(self._event)
        if self.state != wishes.old_state:  # 4
            self._queue.extendleft(reversed(self.postponed))
            self.postponed = []
            self._cancel(StateTimeout)
        self._queue.extendleft(reversed(wishes.next_events))  # 5
        self._cancel(EventTimeout)
        for kind, action in wishes.timeouts.items():  # 6
            self._set(kind, action)
        zero = next((kind for kind, timeout in self.timeouts.items() if timeout.is_queued), None)
        if self._queue:  # 7
            self.receive(self._queue.popleft())
        elif zero is not None:
            self.receive(self.timeouts.pop(zero).event)
        else:
            self.current = self._event = None

    def _set(self, kind: TimeoutKind, action: SetTimeout) -> None:
        if action.time is UPDATE and kind in self.timeouts:
            self.timeouts[kind].event = action.event
            return
        self._cancel(kind)
        if action.time is None or action.time is CANCEL:
            return
        if action.time is UPDATE or (action.time == 0 and not action.absolute):
            self.timeouts[kind] = _Timeout(action.event, is_queued=True)
            return
        process = self._process
        timeout = self.timeouts[kind] = _Timeout(action.event, is_queued=False)
        seconds = action.time - process.system.clock.monotonic() if action.absolute else action.time
        if seconds > 0:
            timeout.timer = process.send_later(seconds, _TimerEnvelope(timeout))
        else:
            process.put(_TimerEnvelope(timeout))

    def _cancel(self, kind: TimeoutKind) -> None:
        timeout = self.timeouts.pop(kind, None)
        if timeout is not None and timeout.timer is not None:
            timeout.timer.cancel()


# --- the actor ---


class GenStateMachine(Actor):
    """An actor with a state: each state is a method, which gets every event while the machine is in that state.

    =====================  ==========================================================================================
    callback               returns
    =====================  ==========================================================================================
    ``init``               ``next_state(state, *actions)``: the first state; or ``IGNORE``, ``Stop(reason)``
    the state's method,    ``next_state(state, *actions)``, ``keep_state(*actions)``, ``repeat_state(*actions)``,
    or ``handle_event``    ``Stop(reason)``, ``stop_and_reply(reason, *replies)``; nothing else, and not None
    ``terminate``          nothing; ``state`` tells where the machine was
    =====================  ==========================================================================================

    A class that defines ``handle_event(event, state)`` gets all events there, and its states may be any values that can
    be compared; otherwise a state is the name of a method of the class, and no name that ``GenStateMachine`` has
    itself.

    Data are the instance's attributes. What decides which events are handled belongs into the state, not into the data:
    only a state change retries postponed events.

    A callback that raises, or returns what it must not, ends the machine (``Crash``). Callbacks may be generators that
    yield ``Receive``, as everywhere; what they return at their end counts.
    """

    state_enter: ClassVar[bool] = False
    """True: a state that is entered, the first one too, or repeated gets ``Enter`` before any event."""

    def init(self) -> Any:
        """Get ready and return the first state. Its actions and ``Enter`` come after the start."""
        raise NotImplementedError(f"{type(self).__name__} has no init, which returns next_state(...): the first state")

    def handle_event(self, event: Any, state: Any) -> Any:
        """Handle all events in all states, in place of a method for each state."""
        raise NotImplementedError(f"{type(self).__name__} has methods as states, and no handle_event")

    def terminate(self, reason: ExitReason) -> Any:
        pass

    @property
    def state(self) -> Any:
        """The state that the machine is in; None in ``init``."""
        return self.__loop.state

    def system_get_state(self) -> tuple[Any, dict[str, Any]]:
        data = {name: value for name, value in vars(self).items() if name not in self.__not_data}
        return self.state, data

    def system_replace_state(self, state: tuple[Any, dict[str, Any]]) -> None:
        """Take state and data as ``get_state`` gives them; the data are replaced as a whole.

        It counts as a renaming: no state enter call, no retry of postponed events, no time-out cancelled.

        Raises:
            ValueError: there is no such state; nothing is changed then.
        """
        name, data = state
        self.__check_state(name)
        attributes = vars(self)
        for gone in attributes.keys() - data.keys() - self.__not_data:
            del attributes[gone]
        attributes.update({key: value for key, value in data.items() if key not in self.__not_data})
        self.__loop.state = name

    def format_status(self) -> Any:
        """Describe the machine for ``sys.get_status``: the state, and of all else the types."""
        state, data = self.system_get_state()
        return {
            "state": state,
            "data": {name: type(value).__name__ for name, value in data.items()},
            "postponed": [type(event).__name__ for event in self.__loop.postponed],
            "timeouts": [type(timeout.event).__name__ for timeout in self.__loop.timeouts.values()],
        }

    def _otp_adopt(self, process: Process) -> None:
        super()._otp_adopt(process)
        self.__loop = _Loop(process, state_enter=self.state_enter)
        self.__not_data: frozenset[str] = frozenset()
        self.__not_data = frozenset(vars(self))

    def _otp_initialise(self) -> Any:
        # What ``init`` returns is checked while the start can still fail.
        result = self.init()
        return self.__initialise_receiving(result) if type(result) is GeneratorType else self.__first(result)

    def __initialise_receiving(self, callback: Receiving) -> Receiving:
        return self.__first((yield from callback))

    def __first(self, result: Any) -> Any:
        if result is IGNORE or isinstance(result, NotStarted):
            return result
        if isinstance(result, Stop):
            _check_stop(result)
            return result
        if not isinstance(result, NextState):
            raise TypeError(
                f"init returned {shape_of(result)}, and not next_state(...), Stop(...), NotStarted(...) or IGNORE"
            )
        self.__check_state(result.state)
        return Continue(result)

    def handle_continue(self, term: Any) -> Any:
        self.__loop.begin(term)
        return self.__run()

    def _otp_deliver(self, envelope: Envelope[Any]) -> Any:
        message = envelope.message
        if type(envelope) is _TimerEnvelope:
            self.__loop.time_out(message)
            return self.__run()
        if type(message) in PYKKA_REQUESTS:
            return super()._otp_deliver(envelope)
        self.__loop.receive(self.__event(envelope))
        return self.__run()

    def __event(self, envelope: Envelope[Any]) -> Event:
        message = envelope.message
        kind = type(envelope)
        if kind is CastEnvelope:
            return Cast(message)
        if kind is ReplyEnvelope:
            failure = message.failure
            return Replied(message.label, message.value) if failure is None else Failed(message.label, failure)
        if envelope.reply_to is None:
            return Info(message)
        return Call(message, From(self._otp_process, envelope.reply_to))

    # --- the shell around the loop ---

    def __run(self) -> Any:
        """Make callbacks until the machine has to wait for a message; a call under way may be answered by then."""
        outcome = self.__advance()
        return self.__run_receiving(outcome) if type(outcome) is GeneratorType else outcome

    def __run_receiving(self, callback: Receiving) -> Receiving:
        while True:
            try:
                result = yield from callback
            except BaseException:
                self.__loop.raised()
                raise
            stop = self.__settle(result)
            outcome = self.__advance() if stop is None else stop
            if type(outcome) is not GeneratorType:
                return outcome
            callback = outcome

    def __advance(self) -> Any:
        """Go on to the end, which is ``Stop`` or ``NO_REPLY``, or to a callback that receives: a generator."""
        loop = self.__loop
        while (current := loop.current) is not None:
            if self._otp_process.is_set():  # killed: nothing counts any more
                break
            try:
                result = self.__call_back(current)
            except BaseException:
                loop.raised()
                raise
            if type(result) is GeneratorType:
                return result
            stop = self.__settle(result)
            if stop is not None:
                return stop
        return NO_REPLY

    def __call_back(self, event: Event | Enter) -> Any:
        state = self.__loop.state
        if self.__has_state_methods:
            return getattr(type(self), state)(self, event)
        return self.handle_event(event, state)

    def __settle(self, result: Any) -> Stop | None:
        if self._otp_process.is_set():
            return None
        if isinstance(result, NextState):
            self.__check_state(result.state)
        return self.__loop.settle(result)

    @property
    def __has_state_methods(self) -> bool:
        return type(self).handle_event is GenStateMachine.handle_event

    def __check_state(self, state: Any) -> None:
        if self.__has_state_methods and not _is_state(type(self), state):
            names = ", ".join(name for name in dir(type(self)) if _is_state(type(self), name)) or "none"
            raise ValueError(
                f"{type(self).__name__} has no state {state!r}; a state is the name of a method of the class that is "
                f"none of GenStateMachine's own; these are: {names}"
            )


def _is_state(actor_class: type[GenStateMachine], name: object) -> bool:
    return (
        isinstance(name, str)
        and not name.startswith("_")
        and not hasattr(GenStateMachine, name)
        and callable(getattr(actor_class, name, None))
    )
