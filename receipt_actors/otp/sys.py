"""``sys``: look into a running actor, hold it, watch it (Erlang's ``sys`` module).

Each function sends a request that the actor's runtime answers between two messages, whatever the actor's own code does.
Import it as a whole: ``from receipt_actors.otp import sys as otp_sys``.

The functions block, so they are for threads of one's own and ``THREAD`` actors. All raise what ``Ref.call`` raises:
``pykka.Timeout`` (the actor is busy, or waits in a selective receive), ``pykka.ActorDeadError``, and ``RuntimeError``
from a pooled actor. An actor that is watched costs about a microsecond more a message; one that is not costs nothing.

What OTP's has and this has not: ``change_code`` (Python can't load two versions of a class), ``log_to_file`` (standard
logging does that), and debug options at the start (``install`` after it).
"""

from __future__ import annotations

import enum
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._messages import (
    CastEnvelope,
    ExitReason,
    Name,
    ParentExitEnvelope,
    Reply,
    ReplyEnvelope,
    SysEnvelope,
    SystemEnvelope,
    check_exit_reason,
)
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import log as write_log

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process
    from receipt_actors.otp._system import ActorSystem

T = TypeVar("T")

DEFAULT_TIMEOUT_SECONDS = 5.0
MAX_FRAMES = 10  #: that ``where`` tells of, innermost ones


class EventKind(enum.Enum):
    """What happened to a process that is watched."""

    CALL = "call"  #: a request came that wants a reply
    CAST = "cast"  #: a request came that wants none
    INFO = "info"  #: any other message came
    REPLY = "reply"  #: the answer came to a request of its own, or that there will be none
    SENT = "sent"  #: it sent a message, or a reply
    CRASHED = "crashed"  #: a callback raised an exception
    EXITED = "exited"  #: it has ended


_MESSAGES_IN = frozenset({EventKind.CALL, EventKind.CAST, EventKind.INFO, EventKind.REPLY})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a process (OTP: ``sys:system_event()``)."""

    ref: Ref
    kind: EventKind
    content: object = field(repr=False)  #: the message, reply, exception or exit reason itself: take care where it goes
    peer: Ref | None  #: to whom it was sent, where that is known
    at_seconds: float  #: on the system's monotonic clock

    def __str__(self) -> str:
        to = "" if self.peer is None else f" to {self.peer}"
        content = self.content
        if isinstance(content, Reply):
            return f"{self.ref} {self.kind.value} to a request with a label of type {type(content.label).__name__}"
        return f"{self.ref} {self.kind.value} {type(content).__name__}{to}"


#: What ``sys.install`` takes; called on the process's own thread, so it must be short. True from it: remove it.
DebugFunction: TypeAlias = Callable[[Event], object]
#: Chooses which actors are watched, and by which function each; None: not this one.
Chooser: TypeAlias = Callable[[Ref], DebugFunction | None]


@dataclass(frozen=True, slots=True)
class Status:
    """What ``get_status`` tells; nothing of it holds the content of a message or of the actor's state."""

    ref: Ref
    name: Name | None
    actor_class: type[Any]
    is_suspended: bool
    trap_exit: bool
    parent: Ref | None
    links: tuple[Ref, ...]
    mailbox_length: int
    unanswered_calls: int
    is_watched: bool  #: by ``trace``, ``statistics``, ``log`` or ``install``
    state: object  #: what ``Actor.format_status`` makes of the state


@dataclass(frozen=True, slots=True)
class Statistics:
    seconds: float  #: since then
    messages_in: int
    messages_out: int


def get_state(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> Any:
    """Return the actor's state (``sys:get_state/1``): what its ``system_get_state`` says, by default its attributes."""
    return _ask(ref, lambda process: _actor_of(process).system_get_state(), timeout)


def replace_state(ref: Ref, function: Callable[[Any], Any], timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> Any:
    """Replace the actor's state by ``function(state)`` and return the new one (``sys:replace_state/2``).

    Raises:
        Exception: what ``function`` raises; the state is left as it was then, and the actor goes on.
    """

    def replace(process: Process) -> Any:
        actor = _actor_of(process)
        actor.system_replace_state(function(actor.system_get_state()))
        return actor.system_get_state()

    return _ask(ref, replace, timeout)


def get_status(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> Status:
    """Describe the actor (``sys:get_status/1``)."""

    def describe(process: Process) -> Status:
        return Status(
            ref=process.ref,
            name=process.name,
            actor_class=process.ref.actor_class,
            is_suspended=process.is_suspended,
            trap_exit=process.trap_exit,
            parent=None if process.parent is None else process.parent.ref,
            links=tuple(linked.ref for linked in process.links),
            mailbox_length=process.mailbox_length,
            unanswered_calls=process.unanswered_calls,
            is_watched=process.debug is not None,
            state=_actor_of(process).format_status(),
        )

    return _ask(ref, describe, timeout)


def describe_state(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> Mapping[str, object]:
    """Describe the actor's state for people, in JSON's types: what its ``describe_state`` says. Not OTP's."""
    return _ask(ref, lambda process: dict(_actor_of(process).describe_state()), timeout)


def where(ref: Ref) -> tuple[str, ...]:
    """Say where in the code an actor's callback is at this moment, outermost first; nothing when none is under way.

    Not OTP's (``process_info(Pid, current_stacktrace)``): the actor is not asked, so it may hang.
    """
    frame = ref.process.frame()
    if frame is None:
        return ()
    # Without the lines themselves, which would be read from files.
    summaries = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=MAX_FRAMES, lookup_lines=False)
    return tuple(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in reversed(summaries))


def suspend(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Have the actor handle no message until ``resume`` (``sys:suspend/1``).

    Messages wait, in order. ``sys`` itself and an exit signal of the actor's parent are still heard.
    """
    _ask(ref, lambda process: process.suspend(), timeout)


def resume(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Undo ``suspend`` (``sys:resume/1``)."""
    _ask(ref, lambda process: process.resume(), timeout)


def terminate(ref: Ref, reason: ExitReason, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Have the actor end in an orderly way, by ``terminate(reason)`` (``sys:terminate/2``), and do not wait for the
    end.
    """
    check_exit_reason(reason)

    def end(process: Process) -> None:
        process.resume()
        process.put_first(ParentExitEnvelope(reason))

    _ask(ref, end, timeout)


def statistics(
    ref: Ref, enable: bool | None = None, timeout: float | None = DEFAULT_TIMEOUT_SECONDS
) -> Statistics | None:
    """Count messages: True switches on, False off, None (the default) tells the counts (``sys:statistics/2``).

    Returns:
        The counts so far; None if nothing was counted.
    """

    def do(process: Process) -> Statistics | None:
        counters = _installed(process, _Counters)
        if enable is not None:
            new = (counters or _Counters(process)) if enable else None
            _watch(lambda debug: debug.install(_Counters, new), process)
        return None if counters is None else counters.read()

    return _ask(ref, do, timeout)


def trace(ref: Ref, enable: bool, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Log each event of the actor at level INFO, without contents (``sys:trace/2``); the record has it as ``event``."""
    _ask(ref, partial(_watch, lambda debug: debug.install(_trace, _trace if enable else None)), timeout)


def _trace(event: Event) -> None:
    write_log(logging.INFO, "trace: %s", event, extra={"event": event})


def log(ref: Ref, size: int, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Keep the last ``size`` events of the actor, for ``get_log``; 0 keeps none any more (``sys:log/2``)."""
    if size < 0:
        raise ValueError(f"size must be 0 or more events, not {size}")

    def keep(process: Process) -> None:
        kept = _installed(process, _Log)
        _watch(lambda debug: debug.install(_Log, _Log(kept or (), maxlen=size) if size else None), process)

    _ask(ref, keep, timeout)


def get_log(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> list[Event]:
    """Return the events that ``log`` keeps, oldest first (``sys:get_log/1``)."""
    return _ask(ref, lambda process: list(_installed(process, _Log) or ()), timeout)


def install(ref: Ref, id: Hashable, function: DebugFunction, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Have ``function(event)`` called at each event of the actor (``sys:install/2``).

    It is called on the actor's own thread, the last event (its end) on the thread that the end comes from.
    It is removed when it returns True, when it raises, and by ``remove(ref, id)``. An ``id`` that is there is replaced.
    """
    _ask(ref, partial(_watch, lambda debug: debug.install(id, function)), timeout)


def remove(ref: Ref, id: Hashable, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Undo ``install`` (``sys:remove/2``)."""
    _ask(ref, partial(_watch, lambda debug: debug.install(id, None)), timeout)


def no_debug(ref: Ref, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Undo ``trace``, ``statistics``, ``log`` and every ``install`` (``sys:no_debug/1``)."""
    _ask(ref, lambda process: process.watch(None), timeout)


def install_everywhere(
    system: ActorSystem, id: Hashable, choose: Chooser, kinds: Collection[EventKind] = tuple(EventKind)
) -> None:
    """Do what ``install`` does for every actor of a system, those included that are started from now on. Not OTP's.

    It does not wait: each actor is watched from its next turn on, and a new one from its first message.

    Args:
        system: whose actors.
        id: for ``remove_everywhere``; one that is there is replaced.
        choose: gives the function for an actor, or None for one that is not to be watched. It is called on the
            thread that starts the actor or on the actor's own, so it must be short.
        kinds: of events; no other reaches the function, and others cost next to nothing.
    """
    chooser = (choose, frozenset(kinds))

    def begin(process: Process) -> None:
        if (system.watched or {}).get(id) is chooser:  # otherwise it is over already
            watch_as_chosen(process, {id: chooser})

    with system.lock:
        system.watched = {**(system.watched or {}), id: chooser}
    for ref in system.processes():
        ref.process.put(SystemEnvelope(partial(begin, ref.process)))


def remove_everywhere(system: ActorSystem, id: Hashable) -> None:
    """Undo ``install_everywhere``; it does not wait either."""
    with system.lock:
        system.watched = {other: chooser for other, chooser in (system.watched or {}).items() if other != id} or None
    for ref in system.processes():
        if ref.process.debug is not None:
            ref.process.put(SystemEnvelope(partial(_watch, lambda debug: debug.install(id, None), ref.process)))


def _watch(change: Callable[[Debug], object], process: Process) -> None:
    debug = process.debug or Debug(process)
    change(debug)
    process.watch(debug)


def _ask(ref: Ref, function: Callable[[Process], T], timeout: float | None) -> T:
    answer: T = ref.request(SysEnvelope, function, timeout)
    return answer


def _actor_of(process: Process) -> Any:
    actor = process.actor
    if actor is None:
        raise pykka.ActorDeadError(f"{process.ref} was killed at this moment")
    return actor


# --- what has been asked for, of one process or of all of a system ---


class _Counters:
    def __init__(self, process: Process) -> None:
        self._clock = process.system.clock
        self._started_at_seconds = self._clock.monotonic()
        self._messages_in = self._messages_out = 0

    def __call__(self, event: Event) -> None:
        self._messages_in += event.kind in _MESSAGES_IN
        self._messages_out += event.kind is EventKind.SENT

    def read(self) -> Statistics:
        return Statistics(self._clock.monotonic() - self._started_at_seconds, self._messages_in, self._messages_out)


class _Log(deque[Event]):
    def __call__(self, event: Event) -> None:
        self.append(event)


def _installed(process: Process, kind: type[T]) -> T | None:
    functions = {} if process.debug is None else process.debug.functions
    return next((function for function, _kinds in functions.values() if isinstance(function, kind)), None)


class Debug:
    """What is called at the events of one process. There is none, and it costs nothing, until something is asked for.

    ``sent`` is called on the process's thread, ``exited`` on the one that the end comes from (a killer's, say), and
    everything else on the process's own turns. What a debug function does itself is no event.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.functions: dict[Hashable, tuple[DebugFunction, frozenset[EventKind]]] = {}
        self._wanted: frozenset[EventKind] = frozenset()  # by any function
        self._noting_thread: int | None = None  # which is in the middle of telling of an event

    def install(
        self, id: Hashable, function: DebugFunction | None, kinds: frozenset[EventKind] = frozenset(EventKind)
    ) -> None:
        if function is None:
            self.functions.pop(id, None)
        else:
            self.functions[id] = (function, kinds)
        self._wanted = frozenset().union(*(kinds for _function, kinds in list(self.functions.values())))

    def received(self, envelope: Envelope[Any]) -> None:
        if type(envelope) is ReplyEnvelope:
            kind = EventKind.REPLY
        elif envelope.reply_to is not None:
            kind = EventKind.CALL
        else:
            kind = EventKind.CAST if type(envelope) is CastEnvelope else EventKind.INFO
        self._note(kind, envelope.message)

    def sent(self, message: object, peer: Ref | None = None) -> None:
        self._note(EventKind.SENT, message, peer)

    def crashed(self, error: BaseException) -> None:
        self._note(EventKind.CRASHED, error)

    def exited(self, reason: object) -> None:
        self._note(EventKind.EXITED, reason)

    def _note(self, kind: EventKind, content: object, peer: Ref | None = None) -> None:
        thread = threading.get_ident()
        if kind not in self._wanted or self._noting_thread == thread:
            return
        event = Event(self._process.ref, kind, content, peer, self._process.system.clock.monotonic())
        before, self._noting_thread = self._noting_thread, thread
        try:
            for id_, (function, kinds) in list(self.functions.items()):
                if kind in kinds and self._is_done(function, id_, event):
                    self.install(id_, None)
                    if not self._process.is_set():
                        self._process.watch(self)
        finally:
            self._noting_thread = before

    @staticmethod
    def _is_done(function: DebugFunction, id_: Hashable, event: Event) -> bool:
        try:
            return function(event) is True
        except BaseException:  # it is the watcher that is at fault, not the watched actor
            write_log(logging.ERROR, "debug function %r of %s failed and goes", id_, event.ref, exc_info=True)
            return True


def watch_as_chosen(process: Process, choosers: Mapping[Hashable, tuple[Chooser, frozenset[EventKind]]]) -> None:
    for id_, (choose, kinds) in choosers.items():
        try:
            function = choose(process.ref)
        except BaseException:  # who starts an actor is not at fault
            write_log(logging.ERROR, "%s can't be chosen or not by %r", process.ref, id_, exc_info=True)
            continue
        if function is not None:
            debug = process.debug or Debug(process)
            debug.install(id_, function, kinds)
            process.watch(debug)
