"""What ``sys`` has been asked to watch of one process (``Debug``), or of all of a system's (``Watched``).

There is none, and it costs nothing, until something is asked.

A ``Debug`` belongs to its process: ``sent`` is called on the process's thread, ``exited`` on the one that the end comes
from (a killer's, say), and everything else on the process's own turns.

What a debug function (or a log handler, of ``trace``) does itself is no event: one that sends is not told of it.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from pykka._envelope import Envelope

from receipt_actors.otp._log import log
from receipt_actors.otp._messages import CastEnvelope, Reply, ReplyEnvelope

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process
    from receipt_actors.otp._ref import Ref


class EventKind(enum.Enum):
    """What happened to a process that is watched."""

    CALL = "call"  #: a request came that wants a reply
    CAST = "cast"  #: a request came that wants none
    INFO = "info"  #: any other message came
    REPLY = "reply"  #: the answer came to a request of its own, or that there will be none
    SENT = "sent"  #: it sent a message, or a reply
    CRASHED = "crashed"  #: a callback raised an exception
    EXITED = "exited"  #: it has ended


ALL_KINDS = frozenset(EventKind)
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
        """Say what happened without what the content holds."""
        to = "" if self.peer is None else f" to {self.peer}"
        content = self.content
        if isinstance(content, Reply):
            return f"{self.ref} {self.kind.value} to a request with a label of type {type(content.label).__name__}"
        return f"{self.ref} {self.kind.value} {type(content).__name__}{to}"


#: What ``sys.install`` takes; called on the process's own thread, so it must be short. True from it: remove it.
DebugFunction: TypeAlias = Callable[[Event], object]


@dataclass(slots=True)
class Counters:
    """What ``sys.statistics`` counts."""

    started_at_seconds: float
    messages_in: int = 0
    messages_out: int = 0


class Debug:
    """See the module."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.functions: dict[Hashable, tuple[DebugFunction, frozenset[EventKind]]] = {}
        self.counters: Counters | None = None
        self.log: deque[Event] | None = None
        self.traced = False
        self._wanted: frozenset[EventKind] = ALL_KINDS  # by anybody
        self._noting_thread: int | None = None  # which is in the middle of telling of an event

    def install(self, id: Hashable, function: DebugFunction, kinds: frozenset[EventKind] = ALL_KINDS) -> None:
        """Have events of these kinds told to a function."""
        self.functions[id] = (function, kinds)

    def changed(self) -> None:
        """Look again at what is wanted."""
        if self.counters is not None or self.log is not None or self.traced:
            self._wanted = ALL_KINDS
        else:
            self._wanted = frozenset().union(*(kinds for _function, kinds in list(self.functions.values())))

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is watched any more."""
        return not (self.functions or self.counters or self.traced or self.log is not None)

    def received(self, envelope: Envelope[Any]) -> None:
        """Note a message that is about to be handled."""
        if type(envelope) is ReplyEnvelope:
            kind = EventKind.REPLY
        elif envelope.reply_to is not None:
            kind = EventKind.CALL
        else:
            kind = EventKind.CAST if type(envelope) is CastEnvelope else EventKind.INFO
        self._note(kind, envelope.message)

    def sent(self, peer: Ref, message: object) -> None:
        """Note a message that it sends."""
        self._note(EventKind.SENT, message, peer)

    def replied(self, reply: object) -> None:
        """Note an answer that it gives."""
        self._note(EventKind.SENT, reply)

    def crashed(self, error: BaseException) -> None:
        """Note an exception that ends it."""
        self._note(EventKind.CRASHED, error)

    def exited(self, reason: object) -> None:
        """Note its end."""
        self._note(EventKind.EXITED, reason)

    def _note(self, kind: EventKind, content: object, peer: Ref | None = None) -> None:
        if kind not in self._wanted:
            return
        thread = threading.get_ident()
        if self._noting_thread == thread:
            return
        before, self._noting_thread = self._noting_thread, thread
        try:
            self._tell(kind, content, peer)
        finally:
            self._noting_thread = before

    def _tell(self, kind: EventKind, content: object, peer: Ref | None) -> None:
        if self.counters is not None:
            self.counters.messages_in += kind in _MESSAGES_IN
            self.counters.messages_out += kind is EventKind.SENT
        event = Event(self._process.ref, kind, content, peer, self._process.system.clock.monotonic())
        if self.log is not None:
            self.log.append(event)
        if self.traced:
            log(logging.INFO, "trace: %s", event, extra={"event": event})
        for id_, (function, kinds) in list(self.functions.items()):
            if kind not in kinds:
                continue
            try:
                done = function(event)
            except BaseException:  # it is the watcher that is at fault, not who is watched
                log(logging.ERROR, "debug function %r of %s failed and goes", id_, self._process.ref, exc_info=True)
                done = True
            if done is True:
                self.functions.pop(id_, None)
                if not self._process.is_set():
                    self._process.watch(self)


#: Chooses which actors are watched, and by which function each; None: not this one.
Chooser: TypeAlias = "Callable[[Ref], DebugFunction | None]"


class Watched:
    """What is watched of every actor of a system, those included that are started later. Replaced, never changed."""

    def __init__(self, choosers: Mapping[Hashable, tuple[Chooser, frozenset[EventKind]]]) -> None:
        self.choosers = choosers

    def begin(self, process: Process) -> None:
        """Watch a process: one that has not begun yet, or on its own turn."""
        for id_, (choose, kinds) in self.choosers.items():
            try:
                function = choose(process.ref)
            except BaseException:  # who starts an actor is not at fault
                log(logging.ERROR, "%s can't be chosen or not by %r", process.ref, id_, exc_info=True)
                continue
            if function is not None:
                debug = process.debug or Debug(process)
                debug.install(id_, function, kinds)
                process.watch(debug)
