"""``gen_statem``: state machines, and the words to write them with (Erlang's ``gen_statem`` module).

::

    from receipt_actors.otp.gen_statem import Cast, GenStateMachine, keep_state, next_state, postpone, state_timeout

The words are kept out of ``receipt_actors.otp`` itself because many are short ones (``Call``, ``Info``, ``reply``).
"""

from __future__ import annotations

from types import GeneratorType
from typing import Any, ClassVar

from pykka._envelope import Envelope

from receipt_actors.otp._calls import From
from receipt_actors.otp._clock import Timer
from receipt_actors.otp._gen_server import PYKKA_REQUESTS, Actor
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    CastEnvelope,
    Continue,
    NotStarted,
    Receiving,
    ReplyEnvelope,
    Stop,
    shape_of,
)
from receipt_actors.otp._process import Process
from receipt_actors.otp._reasons import ExitReason
from receipt_actors.otp._statem_rules import (
    CANCEL,
    UPDATE,
    Action,
    Call,
    CancelTimer,
    Cast,
    Effect,
    Enter,
    Event,
    EventTimeout,
    Failed,
    GenericTimeout,
    Info,
    Internal,
    NextState,
    Replied,
    ReplyAction,
    StartTimer,
    StateMachineLoop,
    StateResult,
    StateTimeout,
    TimeoutKind,
    Transition,
    check_stop,
    event_timeout,
    generic_timeout,
    keep_state,
    next_event,
    next_state,
    postpone,
    repeat_state,
    reply,
    state_timeout,
    stop_and_reply,
)

__all__ = [
    "CANCEL",
    "UPDATE",
    "Action",
    "Call",
    "Cast",
    "Enter",
    "Event",
    "EventTimeout",
    "Failed",
    "GenStateMachine",
    "GenericTimeout",
    "Info",
    "Internal",
    "Replied",
    "StateResult",
    "StateTimeout",
    "Transition",
    "event_timeout",
    "generic_timeout",
    "keep_state",
    "next_event",
    "next_state",
    "postpone",
    "repeat_state",
    "reply",
    "state_timeout",
    "stop_and_reply",
]


class _TimerEnvelope(Envelope[tuple[TimeoutKind, int]]):
    """A timer of the machine has fired. No plain envelope: a selective receive of the user's must not take it."""

    __slots__ = ()


class GenStateMachine(Actor):
    """An actor with a state: each state is a method, which gets every event while the machine is in that state.

    ::

        class Switch(GenStateMachine):
            def init(self):
                self.count = 0
                return next_state("off")

            def off(self, event):
                match event:
                    case Call("push", from_):
                        self.count += 1
                        return next_state("on", reply(from_, "on"), state_timeout(60.0))
                    case _:
                        return keep_state()

            def on(self, event):
                match event:
                    case Call("push", from_):
                        return next_state("off", reply(from_, "off"))
                    case StateTimeout():
                        return next_state("off")
                    case _:
                        return keep_state()

    =====================  ==========================================================================================
    callback               returns
    =====================  ==========================================================================================
    ``init``               ``next_state(state, *actions)``: the first state; or ``IGNORE``, ``Stop(reason)``
    the state's method,    ``next_state(state, *actions)``, ``keep_state(*actions)``, ``repeat_state(*actions)``,
    or ``handle_event``    ``Stop(reason)``, ``stop_and_reply(reason, *replies)``; nothing else, and not None
    ``terminate``          nothing; ``state`` tells where the machine was
    =====================  ==========================================================================================

    **Events** are ``Call``, ``Cast``, ``Info``, ``Replied``, ``Failed``, ``Internal``, ``EventTimeout``,
    ``StateTimeout`` and ``GenericTimeout``. **Actions** are ``reply``, ``postpone``, ``next_event``,
    ``event_timeout``, ``state_timeout`` and ``generic_timeout``. The order of things is that of OTP 27, see
    ``_statem_rules``.

    **Callback mode** (``callback_mode/0``). A class that defines ``handle_event(event, state)`` gets all events there,
    and its states may be any values that can be compared; otherwise a state is the name of a method of the class, and
    no name that ``GenStateMachine`` has itself (as no state of a ``gen_statem`` can be called ``terminate``).

    **Data** are the instance's attributes: no callback gets or returns them. So what a callback has changed before it
    raises stays changed for ``terminate``. What decides which events are handled belongs into the state, not into
    the data: only a state change retries postponed events.

    A callback that raises, or returns what it must not, ends the machine (``Crash``). Callbacks may be generators that
    yield ``Receive``, as everywhere; what they return at their end counts. A machine that goes on inserting events
    never comes to its mailbox, and keeps its thread from others: a pooled one should take its work in pieces.
    """

    state_enter: ClassVar[bool] = False
    """True: a state that is entered, the first one too, or repeated gets ``Enter`` before any event."""

    # --- what a subclass overrides ---

    def init(self) -> Any:
        """Get ready and return the first state; see the class. Its actions and ``Enter`` come after the start."""
        raise NotImplementedError(f"{type(self).__name__} has no init, which returns next_state(...): the first state")

    def handle_event(self, event: Any, state: Any) -> Any:
        """Handle all events in all states, in place of a method for each state; see the class."""
        raise NotImplementedError(f"{type(self).__name__} has methods as states, and no handle_event")

    def terminate(self, reason: ExitReason) -> Any:
        """Clean up; ``state`` is the last state. See ``Actor.terminate``."""

    # --- what it offers ---

    @property
    def state(self) -> Any:
        """The state that the machine is in; None in ``init``."""
        return self.__loop.state

    def system_get_state(self) -> tuple[Any, dict[str, Any]]:
        """Return the state and the data, for ``sys`` (OTP: ``{State, Data}``)."""
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
        """Describe the machine for ``sys.get_status``: the state, and of all else the types; see ``Actor``.

        A subclass whose states are values with secrets in them overrides it.
        """
        state, data = self.system_get_state()
        return {
            "state": state,
            "data": {name: type(value).__name__ for name, value in data.items()},
            "postponed": [type(event).__name__ for event in self.__loop.postponed],
            "timeouts": [type(event).__name__ for event in self.__loop.timeouts],
        }

    # --- what the runtime calls ---

    def _otp_adopt(self, process: Process) -> None:
        super()._otp_adopt(process)
        self.__loop = StateMachineLoop(state_enter=self.state_enter)
        self.__timers: dict[int, Timer] = {}
        self.__not_data: frozenset[str] = frozenset()
        self.__not_data = frozenset(vars(self))

    def _otp_initialise(self) -> Any:
        """See ``Actor``. What ``init`` returns is checked while the start can still fail."""
        result = self.init()
        return self.__initialise_receiving(result) if type(result) is GeneratorType else self.__first(result)

    def __initialise_receiving(self, callback: Receiving) -> Receiving:
        return self.__first((yield from callback))

    def __first(self, result: Any) -> Any:
        if result is IGNORE or isinstance(result, NotStarted):
            return result
        if isinstance(result, Stop):
            check_stop(result)
            return result
        if not isinstance(result, NextState):
            raise TypeError(
                f"init returned {shape_of(result)}, and not next_state(...), Stop(...), NotStarted(...) or IGNORE"
            )
        self.__check_state(result.state)
        return Continue(result)

    def handle_continue(self, term: Any) -> Any:
        """Enter the first state, once the start has been acknowledged (a subclass has ``next_event`` instead)."""
        self.__do(self.__loop.begin(term))
        return self.__run()

    def _otp_deliver(self, envelope: Envelope[Any]) -> Any:
        message = envelope.message
        if type(envelope) is _TimerEnvelope:
            kind, tag = message
            self.__timers.pop(tag, None)
            return self.__run() if self.__loop.time_out(kind, tag) else None
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
        return self.__do(self.__loop.settle(result))

    def __do(self, effects: list[Effect]) -> Stop | None:
        for effect in effects:
            match effect:
                case ReplyAction(from_, value):
                    from_.reply(value)
                case StartTimer():
                    self.__start_timer(effect)
                case CancelTimer(tag):
                    timer = self.__timers.pop(tag, None)
                    if timer is not None:
                        timer.cancel()
                case Stop():
                    self.__cancel_all_timers()
                    return effect
        return None

    def __start_timer(self, start: StartTimer) -> None:
        process = self._otp_process
        envelope = _TimerEnvelope((start.kind, start.tag))
        seconds = start.seconds - self.clock.monotonic() if start.absolute else start.seconds
        if seconds > 0:
            self.__timers[start.tag] = process.send_later(seconds, envelope)
        else:
            process.put(envelope)

    def __cancel_all_timers(self) -> None:
        while self.__timers:
            self.__timers.popitem()[1].cancel()

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
