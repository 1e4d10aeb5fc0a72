"""The process: what Erlang's virtual machine keeps of each process, kept here for each actor.

A ``Process`` owns an actor's mailbox, name, links, monitors and life cycle; it runs the actor's callbacks one message
at a time. It is the actor's pykka inbox and stop flag at once, which is what keeps a process small.

**Life.** ``STARTING`` (``init`` runs) -> ``RUNNING`` -> ``TERMINATING`` (``terminate`` runs) -> ``EXITED``. However it
ends, ``_exit`` happens once: the name is freed, links and monitors are told, and whoever waits for an answer gets none.
``_exit`` may come from any thread (``kill``) in the middle of a turn: what that turn has in hand or takes up all the
same is given up once more at the turn's own end, and each answer counts only once.

**Selective receive.** A callback may be a generator: ``message = yield Receive(matches, timeout)`` waits for one
message and leaves all others in the mailbox, in order, as Erlang's ``receive`` does; no thread waits meanwhile.

**One crash rule.** Whatever a callback raises (``SystemExit`` too), in ``init``, a call, a cast or an info, ends the
process with ``Crash``; a caller gets the exception as well. Other actors are touched through links and monitors only.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope

from receipt_actors.otp._calls import fail_reply, send_reply
from receipt_actors.otp._clock import Timer
from receipt_actors.otp._context import context
from receipt_actors.otp._messages import (
    IGNORE,
    NO_REPLY,
    Continue,
    Down,
    Exit,
    Name,
    NotStarted,
    ParentExitEnvelope,
    Receive,
    Receiving,
    ReplyEnvelope,
    Started,
    StartResult,
    Stop,
    SystemEnvelope,
)
from receipt_actors.otp._reasons import (
    KILLED,
    NO_PROCESS,
    NORMAL,
    Crash,
    ExitReason,
    Normal,
)
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._scheduler import Runtime, Scheduler

if TYPE_CHECKING:
    from receipt_actors.otp._actor import Actor
    from receipt_actors.otp._system import ActorSystem

logger = logging.getLogger("receipt_actors.otp")

MESSAGES_PER_TURN = 64  #: messages a process handles before it makes room for others


class _State(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    TERMINATING = "terminating"
    EXITED = "exited"


class _Waiting:
    """A callback that is suspended in a selective receive."""

    __slots__ = ("envelope", "generator", "receive", "timer")

    def __init__(self, envelope: Envelope[Any] | None, generator: Receiving) -> None:
        self.envelope = envelope
        self.generator = generator
        self.receive: Receive | None = None
        self.timer: Timer | None = None


class Process:
    """See the module."""

    __slots__ = (
        "__weakref__",
        "_acknowledge",
        "_current",
        "_deferred",
        "_exit_signal",
        "_last_reply",
        "_links",
        "_mailbox",
        "_monitored",
        "_monitors",
        "_scheduled",
        "_scheduler",
        "_stash",
        "_state",
        "_terminate_reason",
        "_waiting",
        "actor",
        "exit_reason",
        "name",
        "parent",
        "ref",
        "start_result",
        "system",
        "trap_exit",
    )

    def __init__(
        self, system: ActorSystem, actor_class: type[Actor], *, name: Name | None, parent: Process | None
    ) -> None:
        self.system = system
        self.name = name
        self.parent = parent
        self.trap_exit = actor_class.trap_exit
        self.actor: Actor | None = None
        self.ref: Ref = Ref(self, actor_class)
        self.exit_reason: ExitReason | None = None
        self.start_result: StartResult | None = None
        self._state = _State.STARTING
        self._mailbox: deque[Envelope[Any]] = deque()
        self._stash: deque[Envelope[Any]] | None = None  # what a selective receive has passed over
        self._current: Envelope[Any] | None = None  # the call that is being handled
        self._last_reply: object = NO_REPLY  # its answer, where the process ends with it
        self._scheduled = threading.Lock()  # held: the process is queued or running; taking it is the test-and-set
        self._scheduled.acquire()
        self._scheduler: Scheduler = (
            system.scheduler
            if actor_class.runtime is Runtime.POOLED
            else system.new_scheduler(actor_class.__name__ if name is None else str(name))
        )
        self._waiting: _Waiting | None = None
        self._exit_signal: ExitReason | None = None
        self._terminate_reason: ExitReason = NORMAL
        self._acknowledge: Callable[[StartResult], None] | None = None
        self._links: set[Process] | None = None
        self._monitors: dict[int, Process | Callable[[Down], None]] | None = None  # who watches this process
        self._monitored: dict[int, Process] | None = None  # whom this process watches
        self._deferred: set[Any] | None = None  # the reply_to of each call that is answered later

    def __repr__(self) -> str:
        return f"<Process {self.ref}>"

    # --- starting ---

    def start(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], acknowledge: Callable[[StartResult], None] | None
    ) -> StartResult | None:
        """Run ``init`` and return its result, or None where ``acknowledge`` will be told later.

        A pooled process runs it here and now, on the thread of who starts it: no hop, and init must not block. A
        process with a thread of its own runs it there.
        """

        def initialise() -> None:
            self._initialise(args, kwargs)

        if self._scheduler is not self.system.scheduler:
            result = self._acknowledge_to(acknowledge)
            if result is None:
                self._mailbox.appendleft(SystemEnvelope(initialise))
                self._scheduler.schedule(self)
            return result
        starter = context.process
        context.process = self
        try:
            initialise()
        finally:
            context.process = starter
        result = self._acknowledge_to(acknowledge)
        self._end_turn(goes_on=False)
        return result

    def _acknowledge_to(self, acknowledge: Callable[[StartResult], None] | None) -> StartResult | None:
        """Return the result of the start where there is one already (it may have been killed); else promise it."""
        with self.system.lock:
            if self.start_result is None:
                self._acknowledge = acknowledge
            return self.start_result

    def _initialise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            actor_class: Any = self.ref.actor_class
            actor: Actor = actor_class.__new__(actor_class)
            actor.adopt(self)
            self.actor = actor
            actor.__init__(*args, **kwargs)  # type: ignore[misc]
            result = actor.init()
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _finish_start(self, result: StartResult) -> None:
        with self.system.lock:
            self.start_result = result
            acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge(result)

    # --- mailbox (pykka's ActorInbox) ---

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue a message; the sender of one to an ended process is told where it waits for an answer."""
        self._mailbox.append(envelope)
        if self._scheduled.acquire(blocking=False):
            if self._state is _State.EXITED:
                self._scheduled.release()
                self._refuse_mailbox()
            else:
                self._scheduler.schedule(self)
        elif self._state is _State.EXITED:
            self._refuse_mailbox()

    def get(self) -> Envelope[Any]:
        """Take the next message (pykka's protocol; the runtime itself does not call it)."""
        return self._mailbox.popleft()

    def empty(self) -> bool:
        """Tell whether no message waits."""
        return not self._mailbox

    @property
    def mailbox_length(self) -> int:
        """Count the messages that wait (``process_info(Pid, message_queue_len)``)."""
        return len(self._mailbox) + len(self._stash or ())

    @property
    def unanswered_calls(self) -> int:
        """Count the calls that ``handle_call`` took (``NO_REPLY``) and that still wait for their answer."""
        return len(self._deferred or ())

    # --- stop flag (pykka's actor_stopped) ---

    def is_set(self) -> bool:
        """Tell whether the process has ended."""
        return self._state is _State.EXITED

    def set(self) -> None:
        """End it at once (pykka's way of stopping from within)."""
        self.kill()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; False on time-out."""
        ended = threading.Event()
        monitor = self.add_monitor(lambda _down: ended.set())
        try:
            return ended.wait(timeout)
        finally:
            self.remove_monitor(monitor)

    # --- running ---

    def run(self) -> None:
        """Handle the messages of one turn (the scheduler calls this)."""
        context.process = self
        mailbox = self._mailbox
        goes_on = False
        try:
            for _ in range(MESSAGES_PER_TURN):
                if self._exit_signal is not None:
                    self._obey_exit_signal()
                if self._state is _State.EXITED:
                    break
                try:
                    envelope = mailbox.popleft()
                except IndexError:
                    break
                self._step(envelope)
            else:
                goes_on = True
        finally:
            context.process = None
        self._end_turn(goes_on=goes_on)

    def _end_turn(self, *, goes_on: bool) -> None:
        """Queue for the next turn, or give up the turn and take it again at once if a message came in meanwhile."""
        if self._state is _State.EXITED:
            self._abandon()  # again: it may have been killed while this turn had a message in hand
            return
        if not goes_on:
            self._scheduled.release()
            goes_on = (bool(self._mailbox) or self._exit_signal is not None) and self._scheduled.acquire(blocking=False)
        if goes_on:
            self._scheduler.schedule(self)

    def _step(self, envelope: Envelope[Any]) -> None:
        if type(envelope) is SystemEnvelope:
            envelope.message()
            return
        waiting = self._waiting
        if waiting is not None:
            self._offer(waiting, envelope)
            return
        if type(envelope) is ParentExitEnvelope:
            self.terminate(envelope.message)
            return
        if envelope.reply_to is not None:
            self._current = envelope
        actor = self.actor
        if actor is None:  # killed at this moment by another thread
            return
        try:
            result = actor.deliver(envelope)
        except BaseException as error:
            self._crash(error, type(envelope.message).__name__)
            return
        if result is not None or envelope.reply_to is not None:
            self._settle(envelope, result)

    def _offer(self, waiting: _Waiting, envelope: Envelope[Any]) -> None:
        """Give a message to the selective receive under way, or keep it for later."""
        receive = waiting.receive
        assert receive is not None
        try:
            wanted = self._matches(receive, envelope)
        except BaseException as error:
            self._stash_away(envelope)
            self._waiting = None
            self._crash(error)
            return
        if wanted:
            self._resume(waiting, envelope.message)
        else:
            self._stash_away(envelope)

    def _stash_away(self, envelope: Envelope[Any]) -> None:
        stash = self._stash
        if stash is None:
            stash = self._stash = deque()
        stash.append(envelope)

    @staticmethod
    def _tell_down(watcher: Process | Callable[[Down], None], down: Down) -> None:
        if isinstance(watcher, Process):
            watcher.put(Envelope(down))
        else:
            watcher(down)

    @staticmethod
    def _matches(receive: Receive, envelope: Envelope[Any]) -> bool:
        receivable = type(envelope) is ReplyEnvelope or (type(envelope) is Envelope and envelope.reply_to is None)
        return receivable and receive.matches(envelope.message)

    def _settle(self, envelope: Envelope[Any] | None, result: Any) -> None:
        """Carry out what a callback returned. ``envelope`` is None for ``init``, ``terminate``, ``handle_continue``."""
        if self._state is _State.EXITED:  # killed while the callback ran: nothing of it counts any more
            return
        if type(result) is GeneratorType:
            self._waiting = waiting = _Waiting(envelope, result)
            self._resume(waiting, None)
            return
        if self._state is _State.TERMINATING:
            self._exit(self._terminate_reason)
            return
        if self._state is _State.STARTING:
            if result is IGNORE:
                self._exit(NORMAL, start_result=IGNORE)
                return
            if type(result) is Stop:
                self._exit(result.reason, start_result=NotStarted(result.reason))
                return
            if not self._advance(_State.STARTING, _State.RUNNING):
                return
            self._finish_start(Started(self.ref))
        if type(result) is Stop:
            self._last_reply = result.reply
            self.terminate(result.reason)
            return
        if envelope is not None and envelope.reply_to is not None:
            unanswered, self._current = self._current is envelope, None
            if unanswered and (result is NO_REPLY or type(result) is Continue):
                self._defer(envelope.reply_to)
            elif unanswered:
                send_reply(envelope.reply_to, result)
        if type(result) is Continue:
            self._continue(result.term)

    def _advance(self, before: _State, after: _State) -> bool:
        """Go from one state to the next; False when it was ended from outside meanwhile."""
        with self.system.lock:
            if self._state is not before:
                return False
            self._state = after
            return True

    def _defer(self, reply_to: Any) -> None:
        """Note a call that is answered later, so that its caller is told when this process ends first."""
        with self.system.lock:
            if self._state is not _State.EXITED:
                self._deferred = set() if self._deferred is None else self._deferred
                self._deferred.add(reply_to)
                return
        fail_reply(reply_to, self.exit_reason or NO_PROCESS)

    def _continue(self, term: object) -> None:
        actor = self.actor
        if actor is None:  # killed at this moment by another thread
            return
        try:
            result = actor.handle_continue(term)
        except BaseException as error:
            self._crash(error)
            return
        if result is not None:
            self._settle(None, result)

    def _resume(self, waiting: _Waiting, value: object) -> None:
        """Go on with a suspended callback until it waits for something that is not there yet, or ends."""
        while True:
            if waiting.timer is not None:
                waiting.timer.cancel()
                waiting.timer = None
            previous = waiting.receive
            waiting.receive = None
            try:
                receive = waiting.generator.send(value)
            except StopIteration as end:
                self._waiting = None
                stash, self._stash = self._stash, None
                if stash:
                    self._mailbox.extendleft(reversed(stash))
                self._settle(waiting.envelope, end.value)
                return
            except BaseException as error:
                self._waiting = None
                self._crash(error)
                return
            try:
                if not isinstance(receive, Receive):
                    raise TypeError(f"a callback that is a generator yields Receive, not {receive!r}")
                waiting.receive = receive
                # What was passed over for this very receive need not be looked at again.
                found = self._take_from_stash(receive) if receive is not previous else None
                if found is None:
                    self._arm(waiting, receive)
                    return
            except BaseException as error:
                self._waiting = None
                self._crash(error)
                return
            value = found.message

    def _arm(self, waiting: _Waiting, receive: Receive) -> None:
        if receive.timeout_seconds is None:
            return

        def time_out() -> None:
            # Its message may have come just before, and the same Receive be under way again with a new timer.
            if self._waiting is waiting and waiting.timer is timer:
                self._resume(waiting, None)

        def fire() -> None:
            self.put(SystemEnvelope(time_out))

        # No time at all means "once the mailbox has been looked through" (Erlang's "after 0"): no matter for a clock.
        no_time = receive.timeout_seconds <= 0
        timer = Timer(0.0, fire) if no_time else self.system.clock.call_later(receive.timeout_seconds, fire)
        waiting.timer = timer
        if no_time:
            timer.fire()

    def _take_from_stash(self, receive: Receive) -> Envelope[Any] | None:
        stash = self._stash
        if stash:
            for index, envelope in enumerate(stash):
                if self._matches(receive, envelope):
                    del stash[index]
                    return envelope
        return None

    def forget_call(self, reply_to: object) -> None:
        """Note that a call has been answered, so that nobody tells its caller otherwise."""
        current = self._current
        if current is not None and current.reply_to is reply_to:
            self._current = None
            return
        with self.system.lock:
            if self._deferred is not None:
                self._deferred.discard(reply_to)

    # --- ending ---

    def signal(self, sender: Process | None, reason: ExitReason) -> None:
        """Receive an exit signal (``exit/2``; see "Receiving Exit Signals" in Erlang's reference manual).

        A process that traps exits terminates when its parent sent it (or nobody did: the system), and gets ``Exit`` as
        a message from anyone else. One that does not ends at once, without ``terminate``, unless the reason is normal.
        """
        if self.trap_exit:
            if sender is None or sender is self.parent:
                self.put(ParentExitEnvelope(reason))
            else:
                self.put(Envelope(Exit(sender.ref, reason)))
        elif not isinstance(reason, Normal):
            if self._exit_signal is None:  # the first one counts
                self._exit_signal = reason
            if self._scheduled.acquire(blocking=False):
                self._scheduler.schedule(self)

    def kill(self) -> None:
        """End the process now, without ``terminate`` (``exit(Pid, kill)``).

        CPython can't kill a thread: a callback that is running goes on to its end, but nothing that it returns counts.
        """
        self._exit(KILLED)

    def _obey_exit_signal(self) -> None:
        reason, self._exit_signal = self._exit_signal, None
        assert reason is not None
        self._exit(reason)

    def terminate(self, reason: ExitReason) -> None:
        """Run the actor's ``terminate`` and exit. On the process's own turn only."""
        actor = self.actor
        if not self._advance(_State.RUNNING, _State.TERMINATING) or actor is None:
            return
        self._terminate_reason = reason
        try:
            result = actor.terminate(reason)
        except BaseException as error:
            self._crash(error)
            return
        self._settle(None, result)

    def _crash(self, error: BaseException, handling: str = "what it had begun") -> None:
        reason = Crash(error)
        if self._state is _State.RUNNING:
            # Only the message's type is reported: the message may hold what nobody should log.
            logger.error("%s crashed while handling %s: %s", self.ref, handling, type(error).__name__, exc_info=error)
            self.terminate(reason)
        else:
            if self._state is _State.TERMINATING:
                logger.error("%s crashed in terminate", self.ref, exc_info=error)
            self._exit(reason, start_result=NotStarted(reason))

    def _exit(self, reason: ExitReason, *, start_result: StartResult | None = None) -> None:
        """End, once, from whichever thread: everything that others must learn of it is sent here."""
        with self.system.lock:
            if self._state is _State.EXITED:
                return
            was_starting = self._state is _State.STARTING
            self._state = _State.EXITED
            self.exit_reason = reason
            links, self._links = self._links, None
            monitors, self._monitors = self._monitors, None
            monitored, self._monitored = self._monitored, None
            deferred, self._deferred = self._deferred, None
            for linked in links or ():
                if linked._links is not None:
                    linked._links.discard(self)
            # Copies: of an actor in another system that ends now, another lock guards the other side.
            for monitor, target in list((monitored or {}).items()):
                if target._monitors is not None:
                    target._monitors.pop(monitor, None)
            for monitor, watcher in list((monitors or {}).items()):
                if isinstance(watcher, Process) and watcher._monitored is not None:
                    watcher._monitored.pop(monitor, None)
            self.system.forget(self)
        if was_starting:
            self._finish_start(start_result or NotStarted(reason))
        for linked in links or ():
            # A start that failed is told by its result; the parent gets no exit signal on top of it.
            if not (was_starting and linked is self.parent):
                linked.signal(self, reason)
        for monitor, watcher in (monitors or {}).items():
            self._tell_down(watcher, Down(monitor, self.ref, reason))
        # Callers learn of it last, so that what they do next comes after a supervisor's reaction.
        for reply_to in deferred or ():
            fail_reply(reply_to, reason)
        self._abandon()
        if self._scheduler is not self.system.scheduler:
            self._scheduler.stop()

    def _abandon(self) -> None:
        """Give up what the ended process had in hand, and tell everyone whose call will not be handled any more."""
        self.actor = None
        waiting, self._waiting = self._waiting, None
        timer = None if waiting is None else waiting.timer
        if timer is not None:
            timer.cancel()
        current, self._current = self._current, None
        if current is not None:
            if self._last_reply is NO_REPLY:
                fail_reply(current.reply_to, self.exit_reason or NO_PROCESS)
            else:
                send_reply(current.reply_to, self._last_reply)
        self._refuse_mailbox()

    def _refuse_mailbox(self) -> None:
        for messages in (self._stash, self._mailbox):
            while messages:
                try:
                    envelope = messages.popleft()
                except IndexError:  # another thread is at it as well
                    break
                self._refuse(envelope)

    def _refuse(self, envelope: Envelope[Any]) -> None:
        if envelope.reply_to is None:
            return
        if isinstance(envelope.message, pykka.messages._ActorStop):
            send_reply(envelope.reply_to, None)
        else:
            fail_reply(envelope.reply_to, NO_PROCESS)

    # --- links and monitors; the system's lock guards them ---

    def link(self, other: Process) -> None:
        """Tie two lives together; a link to an ended process is an exit signal at once."""
        with self.system.lock:
            if not other.is_set() and not self.is_set():
                self._links = set() if self._links is None else self._links
                self._links.add(other)
                other._links = set() if other._links is None else other._links
                other._links.add(self)
                return
        if other.is_set():
            self.signal(other, NO_PROCESS)

    def unlink(self, other: Process) -> None:
        """Undo ``link``."""
        with self.system.lock:
            if self._links is not None:
                self._links.discard(other)
            if other._links is not None:
                other._links.discard(self)

    def add_monitor(self, watcher: Process | Callable[[Down], None]) -> int:
        """Have ``watcher`` told, once, when this process ends (at once where it has ended). Returns the monitor."""
        monitor = next(self.system.monitor_ids)
        with self.system.lock:
            alive = self._state is not _State.EXITED
            if alive and not (isinstance(watcher, Process) and watcher.is_set()):
                self._monitors = {} if self._monitors is None else self._monitors
                self._monitors[monitor] = watcher
                if isinstance(watcher, Process):
                    watcher._monitored = {} if watcher._monitored is None else watcher._monitored
                    watcher._monitored[monitor] = self
        if not alive:
            self._tell_down(watcher, Down(monitor, self.ref, NO_PROCESS))
        return monitor

    def remove_monitor(self, monitor: int) -> None:
        """Forget a monitor on this process; a ``Down`` that has been sent already still arrives."""
        with self.system.lock:
            watcher = self._monitors.pop(monitor, None) if self._monitors is not None else None
            if isinstance(watcher, Process) and watcher._monitored is not None:
                watcher._monitored.pop(monitor, None)
