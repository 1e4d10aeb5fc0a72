"""Actors and helpers that the tests of the OTP layer share. Nothing here sleeps; every wait has a time limit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from receipt_actors.otp import (
    KILLED,
    NO_REPLY,
    ActorSystem,
    Crash,
    ExitReason,
    From,
    GenServer,
    ManualClock,
    Receive,
    Receiving,
    Ref,
    Runtime,
    Started,
    StartFinished,
    Starting,
    StartResult,
    Stop,
    Timer,
    which_children,
)
from tests.patience import PATIENCE_SECONDS

WAIT_SECONDS = PATIENCE_SECONDS


class Seen:
    """What has been observed, in order, by whichever thread."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, item: object) -> None:
        self._items.put(item)

    def next(self) -> Any:
        return self._items.get(timeout=WAIT_SECONDS)

    def take(self, count: int) -> list[Any]:
        return [self.next() for _ in range(count)]

    def rest(self) -> list[Any]:
        """Take what is there, without waiting."""
        items = []
        while not self._items.empty():
            items.append(self._items.get_nowait())
        return items


class Gate:
    """A callback that blocks its thread until the test opens it; leaving the ``with`` block opens it at the latest."""

    def __init__(self, returns: object = None) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()
        self._returns = returns

    def __call__(self, *_args: object) -> Any:
        self.entered.set()
        assert self._opened.wait(WAIT_SECONDS)
        return self._returns

    def wait_entered(self) -> None:
        assert self.entered.wait(WAIT_SECONDS)

    def open(self) -> None:
        self._opened.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.open()


class WatchedClock(ManualClock):
    """A manual clock that tells of each timer that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.set_timers = Seen()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = super().call_later(seconds, callback)
        self.set_timers.put(seconds)
        return timer


class Pooled(GenServer):
    """Runs the functions that it is sent; whatever else happens to it goes into ``seen``."""

    def __init__(
        self,
        seen: Seen | None = None,
        *,
        init: Callable[[Any], Any] | None = None,
        terminate: Callable[[Any], Any] | None = None,
    ) -> None:
        self.seen = Seen() if seen is None else seen
        self._on_init = init
        self._on_terminate = terminate

    def init(self) -> Any:
        return None if self._on_init is None else self._on_init(self)

    def terminate(self, reason: ExitReason) -> Any:
        self.seen.put(("terminate", reason))
        return None if self._on_terminate is None else self._on_terminate(self)

    def handle_call(self, request: Any, from_: From) -> Any:
        return request(self, from_)

    def handle_cast(self, request: Any) -> Any:
        return request(self)

    def handle_info(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.seen.put(message)
        return None

    def handle_continue(self, term: Any) -> Any:
        return term(self)

    def handle_reply(self, label: Any, value: Any) -> Any:
        if callable(label):
            return label(self)
        self.seen.put(("reply", label, value))
        return None

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        if callable(label):
            return label(self)
        self.seen.put(("failure", label, reason))
        return None


class PooledTrapping(Pooled):
    trap_exit = True


class Threaded(Pooled):
    runtime = Runtime.THREAD


class ThreadedTrapping(Threaded):
    trap_exit = True


def run_in(ref: Ref, function: Callable[[Any], Any]) -> Any:
    return ref.call(lambda actor, _from: function(actor), WAIT_SECONDS)


def sync(ref: Ref) -> None:
    """Wait until an actor has handled what is in its mailbox now."""
    run_in(ref, lambda _actor: None)


def exit_reason_of(ref: Ref) -> ExitReason:
    assert ref.process.wait(WAIT_SECONDS), f"{ref} still lives"
    reason = ref.process.exit_reason
    assert reason is not None
    return reason


def whereis(system: ActorSystem, name: object) -> Ref:
    ref = system.whereis(name)
    assert ref is not None
    return ref


def end(ref: Ref, reason: ExitReason) -> None:
    if reason == KILLED:
        ref.kill()
    else:
        ref.cast(lambda _actor: Stop(reason))
    assert exit_reason_of(ref) == reason


def states(supervisor: Ref) -> dict[object, object]:
    """Return id -> "running", "restarting" or None."""
    return {
        info.id: "running" if isinstance(info.child, Ref) and info.child.is_alive() else info.child
        for info in which_children(supervisor)
    }


def raising(error: BaseException) -> Callable[..., Any]:
    """Make a script that raises ``error`` wherever it is run."""

    def script(*_args: object) -> None:
        raise error

    return script


def deferring(kept: Seen) -> Callable[..., Any]:
    """Make a call that is not answered, and whose ``From`` goes to ``kept``."""

    def script(_actor: Any, from_: From) -> Any:
        kept.put(from_)
        return NO_REPLY

    return script


def link_child(parent: Ref, actor_class: type[GenServer], *args: Any, **kwargs: Any) -> Ref:
    """Have ``parent`` start a linked child, and wait for its ``init``."""
    result = parent.call(lambda actor, _from: link_child_script(actor, actor_class, *args, **kwargs), WAIT_SECONDS)
    assert isinstance(result, Started), result
    return result.ref


def link_child_script(actor: GenServer, /, actor_class: type[GenServer], *args: Any, **kwargs: Any) -> Receiving:
    """Start a linked child and return its ``StartResult``; a script for the parent."""
    result: StartResult | Starting = actor.system.start_link(actor_class, *args, **kwargs)
    if isinstance(result, Starting):
        ref = result.ref
        finished = yield Receive(lambda message: isinstance(message, StartFinished) and message.ref is ref)
        return finished.result
    return result


def thread_of(ref: Ref) -> threading.Thread:
    thread: threading.Thread = run_in(ref, lambda _actor: threading.current_thread())
    return thread


def settle(system: ActorSystem, thread: threading.Thread) -> None:
    """Wait until the thread of an actor that has ended has let go of it."""
    if system.scheduler.name == thread.name:
        sync(system.start(Pooled))
    else:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


class Flaky:
    """An init that fails while ``failures`` are left; ``before`` is called first."""

    def __init__(self) -> None:
        self.failures = 0
        self.before: Callable[[], object] = lambda: None

    def __call__(self, _actor: Any) -> Any:
        self.before()
        if self.failures:
            self.failures -= 1
            return Stop(Crash(ValueError("bug")))
        return None
