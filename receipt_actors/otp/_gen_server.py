"""``Actor``, a ``pykka.Actor`` that runs as a process, and ``GenServer``: the same with Erlang's callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._clock import Clock, Timer
from receipt_actors.otp._messages import (
    NO_PROCESS,
    NO_REPLY,
    NORMAL,
    CastEnvelope,
    Crash,
    ExitReason,
    Killed,
    Name,
    Receiving,
    ReplyEnvelope,
    Stop,
    check_seconds,
    shape_of,
)
from receipt_actors.otp._process import Process
from receipt_actors.otp._ref import CallReply, From, Future, Ref, RequestReply, check_ref
from receipt_actors.otp._reports import log, plain_state
from receipt_actors.otp._scheduler import BlockingPool, Runtime

if TYPE_CHECKING:
    from receipt_actors.otp._system import ActorSystem


class Actor(pykka.Actor):
    """A pykka actor in an actor system: ``on_start``, ``on_receive``, ``on_stop``, ``on_failure``, proxies and futures.

    OTP's crash rule holds: an exception ends the actor, also one raised in an ``ask`` (the asker gets it as well).

    ``self.ref``, ``self.system`` and ``self.clock`` are there in ``__init__`` already, which needs no
    ``super().__init__()``.
    """

    runtime: ClassVar[Runtime] = Runtime.POOLED
    trap_exit: ClassVar[bool] = False
    """True: exit signals become messages, and ``terminate`` runs when a supervisor ends the actor."""

    _otp_process: Process

    # --- construction; pykka's own would make a queue, an event and a UUID for each actor ---

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse pykka's way of starting: it knows no actor system."""
        raise TypeError(f"start {cls.__name__} with ActorSystem.start({cls.__name__}, ...) or under a supervisor")

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Keep the arguments; effects belong in ``init``."""

    _otp_takes_nothing = __init__  # a class that has no other is not started with arguments

    def _otp_adopt(self, process: Process) -> None:
        self._otp_process = process

    def __str__(self) -> str:
        # An actor may be made without being started, say in a unit test of its methods.
        return str(self.ref) if hasattr(self, "_otp_process") else f"{type(self).__name__} (not started)"

    @property
    def _actor_ref(self) -> Ref:  # type: ignore[override]
        return self._otp_process.ref

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        return self._otp_process.ref.actor_urn

    @property
    def actor_inbox(self) -> Process:  # type: ignore[override]
        return self._otp_process

    @property
    def actor_stopped(self) -> Process:  # type: ignore[override]
        return self._otp_process

    @staticmethod
    def _create_actor_inbox() -> NoReturn:
        raise TypeError("the process is the inbox")

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return Future()

    def _start_actor_loop(self) -> NoReturn:
        raise TypeError("the process runs the actor")

    def init(self) -> Any:
        """Get ready. None: running; an exception: not started. Or ``IGNORE``, ``Stop(reason)``, ``NotStarted(reason)``
        (the same without a crash, OTP's ``{error, Reason}``), ``Continue(term)``, ``IdleTimeout(seconds)``.
        """
        self.on_start()

    def terminate(self, reason: ExitReason) -> Any:
        """Clean up: after a crash, after ``Stop``, and, if exits are trapped, when the supervisor says so."""
        if isinstance(reason, Crash):
            error = reason.exception
            self.on_failure(type(error), error, error.__traceback__)
        else:
            self.on_stop()

    def handle_continue(self, term: Any) -> Any:
        """Go on after ``Continue(term)``, before any message."""
        raise NotImplementedError(f"{type(self).__name__} returned Continue but has no handle_continue")

    def handle_reply(self, label: Any, value: Any) -> Any:
        """Take the answer to ``send_request``, ``run_blocking`` or ``run_async``."""
        raise NotImplementedError(f"{type(self).__name__} got a reply but has no handle_reply")

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        """Note that a request will not be answered (its actor ended), or that a call elsewhere failed (``Crash``)."""
        raise NotImplementedError(f"{type(self).__name__} got a failure of a request but has no handle_failure")

    def _otp_initialise(self) -> Any:
        return self.init()

    def _otp_deliver(self, envelope: Envelope[Any]) -> Any:
        """Hand a message to its callback and return what that returns (the runtime calls this)."""
        if isinstance(envelope, ReplyEnvelope):
            if envelope.failure is None:
                return self.handle_reply(envelope.label, envelope.value)
            return self.handle_failure(envelope.label, envelope.failure)
        message = envelope.message
        if isinstance(message, pykka.messages._ActorStop):
            return Stop(NORMAL, reply=None)
        result = self._handle_receive(message)
        if envelope.reply_to is not None and isinstance(message, pykka.messages.ProxyGetAttr):
            # A value, whatever it would mean if a callback returned it.
            From(self._otp_process, envelope.reply_to).reply(result)
            return NO_REPLY
        return result

    def _otp_takes_exit(self, _ref: Ref, _reason: ExitReason) -> bool:
        """Deal with the ``Exit`` of a linked actor here and now; False: it is to come as a message."""
        return False

    @property
    def ref(self) -> Ref:
        """This actor's reference (``self()``)."""
        return self._otp_process.ref

    @property
    def system(self) -> ActorSystem:
        """The ``ActorSystem`` that it belongs to."""
        return self._otp_process.system

    @property
    def clock(self) -> Clock:
        """The system's clock."""
        return self._otp_process.system.clock

    def _find(self, destination: Ref | Name) -> Ref | None:
        return destination if isinstance(destination, Ref) else self._otp_process.system.whereis(destination)

    def cast(self, destination: Ref | Name, request: object) -> None:
        """Send a request without a reply to an actor or to a name; dropped if there is none."""
        target = self._find(destination)
        if target is not None:
            target.cast(request)

    def send_request(self, destination: Ref | Name, request: object, label: object) -> None:
        """Call without waiting (``gen_server:send_request``).

        Exactly one of ``handle_reply(label, value)`` and ``handle_failure(label, reason)`` follows, unless this actor
        ends first.
        """
        reply_to: Any = RequestReply(self._otp_process, label)
        target = self._find(destination)
        if target is None:
            reply_to.fail(NO_PROCESS)
        else:
            target.send_request(request, reply_to)

    def call_to(self, destination: Ref | Name, request: object, timeout: float | None = 5.0) -> Receiving:
        """Call another actor and wait for the answer, without blocking: ``value = yield from self.call_to(...)``.

        For callbacks that are generators, of pooled actors as well. Meanwhile this actor handles no message, and the
        answer does not wait behind those in its mailbox. A late answer is dropped. ``timeout`` is in seconds, None for
        ever.

        Raises:
            pykka.Timeout: no reply in time.
            pykka.ActorDeadError: the actor has ended, or ended before it answered (a crash is the ``__cause__``); or
                there is none of this name.
            RuntimeError: an actor would wait for its own answer.
            ValueError: ``timeout`` is no number of seconds.
        """
        if timeout is not None:
            check_seconds(timeout)
        target = self._find(destination)
        if target is None:
            raise pykka.ActorDeadError(f"there is no actor named {destination!r}")
        if target.process is self._otp_process:
            raise RuntimeError(f"{self} must not call itself: it would wait for its own answer")
        answer = CallReply(self._otp_process, timeout)
        target.send_request(request, answer)
        value, error = yield answer
        if error is not None:
            raise error
        return value

    def run_blocking(self, pool: BlockingPool, label: object, function: Callable[..., object], *args: object) -> None:
        """Run ``function(*args)`` on a thread of ``pool``; its result comes as ``handle_reply(label, result)``.

        What it raises comes as ``handle_failure(label, Crash(exception))``; from a closed pool comes
        ``handle_failure(label, NO_PROCESS)``. If the actor is killed first, it is not begun.
        """
        process = self._otp_process
        if process.is_set():
            return
        reply_to = RequestReply(process, label)

        def work() -> None:
            if isinstance(process.exit_reason, Killed):
                return
            try:
                result = function(*args)
            except BaseException as error:
                reply_to.fail(Crash(error))
            else:
                reply_to.set(result)

        if not pool.submit(work):
            reply_to.fail(NO_PROCESS)

    def run_async(
        self, label: object, begin: Callable[..., object], *args: object, then: Callable[[Any], object] | None = None
    ) -> None:
        """Call ``begin(*args, done)``, which starts something that ends later and returns at once.

        What ``done(outcome)`` is called with, from any thread, comes as ``handle_reply(label, outcome)``; an exception,
        also one that ``begin`` raises, as ``handle_failure(label, Crash(exception))``. Only the first call of ``done``
        counts, and none once this actor has ended. ``then`` is applied to an outcome that is no exception, on the
        thread that calls ``done``; what it returns or raises takes the outcome's place.
        """
        process = self._otp_process
        if process.is_set():
            return
        reply_to = RequestReply(process, label)

        def done(outcome: object) -> None:
            if not reply_to.is_wanted():
                return
            try:
                if then is not None and not isinstance(outcome, BaseException):
                    outcome = then(outcome)
            except BaseException as error:
                outcome = error
            if isinstance(outcome, BaseException):
                reply_to.fail(Crash(outcome))
            else:
                reply_to.set(outcome)

        try:
            begin(*args, done)
        except BaseException as error:
            reply_to.fail(Crash(error))

    def send_after(self, seconds: float, message: object) -> Timer:
        """Deliver ``message`` to ``handle_info`` later (``erlang:send_after/3``); ``cancel()`` on the result.

        Raises:
            ValueError: ``seconds`` is no number, or negative.
        """
        check_seconds(seconds)
        return self._otp_process.send_later(seconds, Envelope(message))

    def monitor(self, ref: Ref) -> int:
        """Get one ``Down`` when ``ref`` ends (at once if it has ended). Returns the monitor that ``Down`` names.

        Raises:
            TypeError: ``ref`` is no ``Ref`` (of a name: ``system.whereis(name)``).
        """
        check_ref(ref)
        return ref.process.add_monitor(self._otp_process)

    def demonitor(self, monitor: int, *, flush: bool = False) -> None:
        """Undo ``monitor``; a ``Down`` already sent still arrives, unless ``flush`` is set (``erlang:demonitor/2``)."""
        self._otp_process.demonitor(monitor, flush=flush)

    def link(self, ref: Ref) -> None:
        """Tie this actor's life to that of ``ref``, both ways (``erlang:link/1``).

        If ``ref`` has ended, an actor that traps exits gets its ``Exit`` at once.

        Raises:
            pykka.ActorDeadError: ``ref`` has ended, and this actor does not trap exits (OTP: ``noproc``).
            TypeError: ``ref`` is no ``Ref`` (of a name: ``system.whereis(name)``).
        """
        check_ref(ref)
        if ref.process.is_set() and not self._otp_process.trap_exit:
            raise pykka.ActorDeadError(f"{ref} has ended: it can't be linked to")
        self._otp_process.link(ref.process)

    def unlink(self, ref: Ref) -> None:
        """Undo ``link``. A signal that was sent before, also at this very moment, may still arrive.

        Raises:
            TypeError: ``ref`` is no ``Ref``.
        """
        check_ref(ref)
        self._otp_process.unlink(ref.process)

    def set_trap_exit(self, trap_exit: bool) -> bool:
        """Have exit signals come as messages from now on, or not; returns what it was (``process_flag(trap_exit)``)."""
        if not isinstance(trap_exit, bool):
            raise TypeError(f"trap_exit must be True or False, not {shape_of(trap_exit)}")
        before, self._otp_process.trap_exit = self._otp_process.trap_exit, trap_exit
        return before

    def outside_view(self) -> object:
        """Return what a picture of the tree shows of this actor (``look_at``); None unless overridden.

        It is called at any time and on the **caller's thread**, whatever the actor does meanwhile. It must only read,
        and only what is always whole: numbers, lengths, values that are replaced and never changed.
        """
        return None

    def system_get_state(self) -> Any:
        """Return the state for ``sys.get_state``: the attributes (OTP: ``system_get_state/1``)."""
        return {name: value for name, value in vars(self).items() if name != "_otp_process"}

    def describe_state(self) -> Mapping[str, object]:
        """Describe the state for people, in JSON's types (``sys.describe_state``).

        By default the attributes: numbers and members of an ``Enum`` as they are, texts with what looks like a secret
        left out, and of all else the type and the length.
        """
        state = self.system_get_state()
        return plain_state(state) if isinstance(state, dict) else {"state": shape_of(state)}

    def system_replace_state(self, state: Any) -> None:
        """Take what ``sys.replace_state`` made of ``get_state`` (OTP: ``system_replace_state/2``)."""
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise TypeError(f"the state must be a dict of attributes, as system_get_state gives it: {shape_of(state)}")
        process = self._otp_process
        vars(self).clear()
        vars(self).update(state)
        self._otp_process = process

    def format_status(self) -> Any:
        """Describe the state for ``sys.get_status`` (OTP: ``format_status/1``): attributes and their types.

        Values are left out because a status ends up in logs and on pages, and a state may hold secrets.
        """
        state = self.system_get_state()
        return {name: shape_of(value) for name, value in state.items()} if isinstance(state, dict) else shape_of(state)


PYKKA_REQUESTS = frozenset(
    {pykka.messages.ProxyCall, pykka.messages.ProxyGetAttr, pykka.messages.ProxySetAttr, pykka.messages._ActorStop}
)


class GenServer(Actor):
    """An actor with a request for each callback: calls, casts, and everything else.

    ===================  ====================================  ========================================================
    callback             for                                   returns
    ===================  ====================================  ========================================================
    ``init``             the start                             as ``handle_cast``, ``IGNORE``, ``NotStarted(reason)``
    ``handle_call``      ``call``, ``ask``, ``send_request``   the reply, ``NO_REPLY``, or as ``handle_cast``
    ``handle_cast``      ``cast``                              None, ``Stop(reason)``, ``Continue(term)``,
                                                               ``IdleTimeout(seconds)``
    ``handle_info``      ``send``, ``tell``, timers, ``Down``  as ``handle_cast``
    ``handle_continue``  ``Continue``                          as ``handle_cast``
    ``handle_reply``     answers to ``send_request``           as ``handle_cast``
    ``handle_failure``   requests that got no answer           as ``handle_cast``
    ``terminate``        the end                               nothing
    ===================  ====================================  ========================================================

    From ``handle_call``, ``Stop``, ``Continue`` and ``IdleTimeout`` carry the ``reply``; without one it comes later.
    Any callback may be a generator that yields ``Receive`` to wait for one message. An exception ends the actor.
    For an actor that is there for one task, ``init`` returns ``Continue()`` and ``handle_continue`` is that task: a
    generator which receives what it needs, and returns ``Stop()``.
    """

    def init(self) -> Any:
        pass

    def handle_call(self, request: Any, from_: From) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no answer to a call of {type(request).__name__}")

    def handle_cast(self, request: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not know the cast {type(request).__name__}")

    def handle_info(self, message: Any) -> Any:
        """Log and drop any other message, as in OTP."""
        log(logging.WARNING, "%s dropped an unexpected message of type %s", self.ref, type(message).__name__)

    def terminate(self, reason: ExitReason) -> Any:
        pass

    def _otp_deliver(self, envelope: Envelope[Any]) -> Any:
        kind = type(envelope)
        if kind is CastEnvelope:
            return self.handle_cast(envelope.message)
        if isinstance(envelope, ReplyEnvelope):
            if envelope.failure is None:
                return self.handle_reply(envelope.label, envelope.value)
            return self.handle_failure(envelope.label, envelope.failure)
        message = envelope.message
        if type(message) in PYKKA_REQUESTS:
            return super()._otp_deliver(envelope)
        if envelope.reply_to is None:
            return self.handle_info(message)
        return self.handle_call(message, From(self._otp_process, envelope.reply_to))
