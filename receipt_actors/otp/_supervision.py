"""What both kinds of supervisor share: starting a child, stopping a child, counting restarts, answers to questions."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from receipt_actors.otp._child_spec import BRUTAL_KILL, INFINITY, ChildSpec, ChildType, Shutdown
from receipt_actors.otp._gen_server import GenServer
from receipt_actors.otp._messages import (
    IGNORE,
    Exit,
    NotStarted,
    Receive,
    Started,
    StartFinished,
    Starting,
    StartResult,
)
from receipt_actors.otp._reasons import SHUTDOWN, Crash, ExitReason
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._restart_window import RestartWindow

logger = logging.getLogger("receipt_actors.otp")


class ChildError(enum.Enum):
    """Why a supervisor did not do what it was asked."""

    NOT_FOUND = "not_found"
    ALREADY_PRESENT = "already_present"  #: the id is known but its child does not run: restart or delete it
    RUNNING = "running"
    RESTARTING = "restarting"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"  #: not for this kind of supervisor


class ChildInfo(NamedTuple):
    """One line of ``which_children``; ``id`` is None for children of a simple_one_for_one supervisor."""

    id: Hashable | None
    child: Ref | Literal["restarting"] | None
    type: ChildType


class ChildCounts(NamedTuple):
    """The answer of ``count_children``."""

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child: its spec, or for simple_one_for_one the arguments to append."""

    spec_or_args: ChildSpec | Sequence[Any]


@dataclass(frozen=True, slots=True)
class _ByChildId:
    id: Hashable

    def __post_init__(self) -> None:
        hash(self.id)  # a TypeError belongs to who asks, not into the supervisor


@dataclass(frozen=True, slots=True)
class TerminateChild(_ByChildId):
    """Stop a child (by id; for simple_one_for_one by its ref)."""


@dataclass(frozen=True, slots=True)
class RestartChild(_ByChildId):
    """Start a child again whose spec is known and that does not run."""


@dataclass(frozen=True, slots=True)
class DeleteChild(_ByChildId):
    """Forget the spec of a child that does not run."""


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """List the children."""


@dataclass(frozen=True, slots=True)
class CountChildren:
    """Count the children."""


StartAnswer: TypeAlias = StartResult | ChildError


class SupervisorBase(GenServer):
    """See ``Supervisor`` and ``SimpleOneForOneSupervisor``."""

    trap_exit: ClassVar[bool] = True

    def __init__(self, intensity: int, period_seconds: float) -> None:
        self._window = RestartWindow(intensity, period_seconds)

    def _restart_allowed(self, child_id: Hashable, reason: ExitReason | str) -> bool:
        """Count a restart and report it; False when the supervisor has to give up."""
        self._window, allowed = self._window.add(self.clock.monotonic())
        window = self._window
        if allowed:
            logger.warning(
                "%s restarts child %s (%d of at most %d in %g s): %s",
                self.ref,
                child_id,
                len(window.restarts),
                window.intensity,
                window.period_seconds,
                reason,
            )
        else:
            logger.error(
                "%s gives up: child %s ended for the %d. time in %g s, %d are allowed: %s",
                self.ref,
                child_id,
                len(window.restarts),
                window.period_seconds,
                window.intensity,
                reason,
            )
        return allowed

    def _start(self, spec: ChildSpec, args: Sequence[Any] = ()) -> StartResult | Starting:
        """Call the spec's start function; whatever is wrong with it is a child that did not start."""
        try:
            result = spec.start(*args)
        except BaseException as error:
            return NotStarted(Crash(error))
        if isinstance(result, Started | NotStarted | Starting) or result is IGNORE:
            return result
        wrong = TypeError(f"start of child {spec.id!r} must return Started, NotStarted, Starting or IGNORE: {result!r}")
        return NotStarted(Crash(wrong))

    def _await_start(self, starting: Starting) -> Generator[Receive, Any, StartResult]:
        """Wait for the end of a child's ``init``; it may take as long as it likes, as in OTP."""
        finished = yield Receive(lambda message: type(message) is StartFinished and message.ref is starting.ref)
        result: StartResult = finished.result
        return result

    def _start_and_wait(self, spec: ChildSpec) -> Generator[Receive, Any, StartResult]:
        result = self._start(spec)
        return (yield from self._await_start(result)) if isinstance(result, Starting) else result

    def _shut_down(self, ref: Ref, shutdown: Shutdown) -> Generator[Receive, Any, None]:
        """Ask a child to end, wait for it as its spec says, and kill it then."""
        ended: Callable[[object], bool] = lambda message: type(message) is Exit and message.ref is ref  # noqa: E731
        if shutdown is BRUTAL_KILL:
            ref.kill()
            yield Receive(ended)
            return
        ref.exit(SHUTDOWN)
        timeout_seconds = None if shutdown is INFINITY else shutdown
        assert not isinstance(timeout_seconds, enum.Enum)
        if (yield Receive(ended, timeout_seconds)) is None:
            logger.error("%s kills %s: it did not end within %s s", self.ref, ref, timeout_seconds)
            ref.kill()
            yield Receive(ended)


# --- the functions of Erlang's supervisor module; they block, so pooled actors send the requests instead --------------


def start_child(supervisor: Ref, spec_or_args: ChildSpec | Sequence[Any], timeout: float | None = None) -> StartAnswer:
    """Start a child (``supervisor:start_child/2``). ``NotStarted(AlreadyStarted(ref))`` where its id runs already."""
    answer: StartAnswer = supervisor.call(StartChild(spec_or_args), timeout)
    return answer


def terminate_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> ChildError | None:
    """Stop a child; its spec stays known unless it is temporary (``supervisor:terminate_child/2``)."""
    answer: ChildError | None = supervisor.call(TerminateChild(child_id), timeout)
    return answer


def restart_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> StartAnswer:
    """Start a child again that was terminated (``supervisor:restart_child/2``)."""
    answer: StartAnswer = supervisor.call(RestartChild(child_id), timeout)
    return answer


def delete_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> ChildError | None:
    """Forget a child that does not run (``supervisor:delete_child/2``)."""
    answer: ChildError | None = supervisor.call(DeleteChild(child_id), timeout)
    return answer


def which_children(supervisor: Ref, timeout: float | None = None) -> list[ChildInfo]:
    """List the children in start order (``supervisor:which_children/1``, which lists them the other way round)."""
    answer: list[ChildInfo] = supervisor.call(WhichChildren(), timeout)
    return answer


def count_children(supervisor: Ref, timeout: float | None = None) -> ChildCounts:
    """Count the children (``supervisor:count_children/1``)."""
    answer: ChildCounts = supervisor.call(CountChildren(), timeout)
    return answer
