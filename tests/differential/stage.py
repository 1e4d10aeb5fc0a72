"""Where a scenario is played on ``receipt_actors.otp``: an actor system, who is in it, what has been seen.

The counterpart of the collector in ``erlang/otp_peer.erl``. Nothing here waits for a time to pass.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from receipt_actors import otp

WAIT_SECONDS = 60.0  #: until a scenario is given up; one that hangs is tried again and again while it is made smaller
AT_ONCE_SECONDS = 0.01  #: timers up to this fire at once: no scenario has one that is a race


class Boom(Exception):
    """What a scripted crash raises; equal where it says the same."""


REASONS = {
    "normal": otp.NORMAL,
    "shutdown": otp.SHUTDOWN,
    "shutdown_done": otp.Shutdown("done"),
    "crash": otp.Crash(Boom("given")),
    "kill": otp.KILLED,
}


def as_text(reason: Any) -> str:
    if reason == otp.NORMAL:
        return "normal"
    if reason == otp.KILLED:
        return "killed"
    if reason == otp.NO_PROCESS:
        return "noproc"
    if isinstance(reason, otp.AlreadyStarted):
        return "already started"
    if isinstance(reason, otp.Shutdown):
        match reason.term:
            case None:
                return "shutdown"
            case otp.FailedToStartChild(id_, why):
                return f"shutdown: failed to start {id_}: {as_text(why)}"
        return f"shutdown: {reason.term}"
    error = reason.exception
    if isinstance(error, Boom):
        return f"crash: {error}"
    return "bad spec" if isinstance(error, ValueError) else "crash: other"


def when_started(result: otp.StartResult | otp.Starting) -> otp.Receiving:
    if isinstance(result, otp.Starting):
        ref = result.ref
        finished = yield otp.Receive(lambda message: isinstance(message, otp.StartFinished) and message.ref is ref)
        return finished.result
    return result


class _Clock(otp.ManualClock):
    def call_later(self, seconds: float, callback: Callable[[], None]) -> otp.Timer:
        if seconds > AT_ONCE_SECONDS:
            return super().call_later(seconds, callback)
        timer = otp.Timer(self.monotonic(), callback)
        timer.fire()
        return timer


class Puppet(otp.GenServer):
    def handle_call(self, request: Any, from_: Any) -> Any:
        return request(self)

    def handle_cast(self, request: Any) -> Any:
        return request(self)

    def handle_info(self, message: Any) -> Any:
        pass

    def handle_reply(self, label: Any, value: Any) -> Any:
        label.put(("reply", value))

    def handle_failure(self, label: Any, reason: Any) -> Any:
        label.put(("exit", reason))


class _Driver(Puppet):
    trap_exit = True


@dataclass(frozen=True, slots=True)
class Member:
    ref: otp.Ref
    label: str
    number: int
    is_tree: bool
    thread: threading.Thread


class Stage:
    def __init__(self, runtime: otp.Runtime) -> None:
        self.runtime = runtime
        self.system = otp.ActorSystem("differential", _Clock())
        self._lock = threading.Lock()  # guards what follows; actors of either runtime report here
        self._events: list[Any] = []
        self._attempts: Counter[str] = Counter()
        self._members: dict[otp.Ref, Member] = {}
        self._ended: dict[otp.Ref, str] = {}
        self._driver = self.system.start(_Driver)
        self._stranger = self.system.start(Puppet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        busy = self.system.stop(WAIT_SECONDS)
        assert busy == []

    def actor_class(self, base: type[Any], **attributes: object) -> type[Any]:
        return type(base.__name__, (base,), {"runtime": self.runtime, **attributes})

    # --- what actors report ---

    def attempt(self, label: str) -> int:
        with self._lock:
            self._attempts[label] += 1
            return self._attempts[label]

    def log(self, event: Any) -> None:
        with self._lock:
            self._events.append(event)

    def register(self, ref: otp.Ref, label: str, number: int, *, is_tree: bool = False) -> None:
        with self._lock:
            self._members[ref] = Member(ref, label, number, is_tree, threading.current_thread())

        def ended(down: otp.Down) -> None:
            with self._lock:
                self._ended[down.ref] = as_text(down.reason)

        ref.process.add_monitor(ended)

    # --- what the player asks ---

    def take_events(self) -> list[Any]:
        with self._lock:
            events, self._events = self._events, []
            return events

    def members(self, label: str) -> list[Member]:
        with self._lock:
            return [member for member in self._members.values() if member.label == label]

    def member(self, ref: otp.Ref) -> Member:
        return self._members[ref]

    def alive(self) -> list[Member]:
        with self._lock:
            return [member for ref, member in self._members.items() if ref not in self._ended]

    def find(self, ref: otp.Ref) -> Member | None:
        return self._members.get(ref)

    def at(self, index: int) -> otp.Ref:
        with self._lock:
            return list(self._members)[index % len(self._members)]

    def join_ended(self) -> None:
        """Wait until the threads of those who have ended have let go of them: everybody has been told then."""
        self.act(lambda _driver: None)
        for member in self._members.values():
            if member.ref in self._ended and self.runtime is otp.Runtime.THREAD:
                member.thread.join(WAIT_SECONDS)

    def is_over(self, ref: otp.Ref) -> bool:
        return ref in self._ended

    def ended(self) -> list[Any]:
        with self._lock:
            return [
                [member.label, member.number, self._ended[ref]]
                for ref, member in self._members.items()
                if ref in self._ended
            ]

    def mark(self) -> tuple[int, int, int]:
        """Return what changes whenever anything is reported."""
        with self._lock:
            return len(self._events), len(self._members), len(self._ended)

    def reference(self, ref: otp.Ref) -> list[Any]:
        member = self._members[ref]
        return [member.label, member.number]

    # --- what the player does; it is the parent of what it starts ---

    def start_child(self, start: Callable[[], otp.StartResult | otp.Starting]) -> otp.StartResult:
        result: otp.StartResult = self._driver.call(lambda _driver: when_started(start()), WAIT_SECONDS)
        return result

    def request(self, ref: otp.Ref, request: object) -> queue.SimpleQueue[Any]:
        """Call a process without waiting; the answer comes on the queue: "reply" and what, or "exit" and why."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.act(lambda driver: driver.send_request(ref, request, answer))
        return answer

    def wait_for(self, answer: queue.SimpleQueue[Any]) -> tuple[str, Any]:
        try:
            kind, value = answer.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            raise AssertionError("a request is not answered") from None
        return kind, value

    def act(self, action: Callable[[Puppet], None]) -> None:
        self._driver.call(action, WAIT_SECONDS)

    def act_as_stranger(self, action: Callable[[Puppet], None]) -> None:
        self._stranger.call(action, WAIT_SECONDS)
