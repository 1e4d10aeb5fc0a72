"""Child specifications: how a supervisor starts, restarts and stops a child (OTP: ``child_spec()``).

``Backoff`` is not OTP's: Erlang's supervisor restarts at once.
"""

from __future__ import annotations

import bisect
import enum
import math
import random
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TypeAlias

from receipt_actors.otp._gen_server import Actor
from receipt_actors.otp._messages import Name, Starting, StartResult
from receipt_actors.otp._scheduler import current_process


class Restart(enum.Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"  #: always
    TRANSIENT = "transient"  #: after a crash, not after ``normal`` or ``shutdown``
    TEMPORARY = "temporary"  #: never, and its spec is forgotten


class Strategy(enum.Enum):
    """Which siblings share the fate of a child that is restarted."""

    ONE_FOR_ONE = "one_for_one"  #: none
    ONE_FOR_ALL = "one_for_all"  #: all
    REST_FOR_ONE = "rest_for_one"  #: those started after it
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"  #: none; all children are made from one spec, on demand


class AutoShutdown(enum.Enum):
    """Whether a supervisor ends, with ``SHUTDOWN``, when ``significant`` children have ended by themselves.

    A transient one counts when it ends in an orderly way (else it is restarted), a temporary one however it ends.
    """

    NEVER = "never"  #: significant children are refused
    ANY_SIGNIFICANT = "any_significant"  #: with the first of them
    ALL_SIGNIFICANT = "all_significant"  #: with the last of them that ran


class ChildType(enum.Enum):
    """What a child is; a supervisor should get ``INFINITY`` to shut its own children down."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


class _ShutdownWord(enum.Enum):
    BRUTAL_KILL = "brutal_kill"
    INFINITY = "infinity"
    DEFAULT = "default"


BRUTAL_KILL: Final = _ShutdownWord.BRUTAL_KILL  #: kill it at once
INFINITY: Final = _ShutdownWord.INFINITY  #: wait for as long as it takes

#: Seconds a child may take to end after the exit signal ``shutdown`` before it is killed; or one of the two words.
Shutdown: TypeAlias = float | _ShutdownWord

WORKER_SHUTDOWN_SECONDS = 5.0  #: what a worker gets whose spec does not say


class Start:
    """The usual ``start`` of a spec: an actor class, its arguments and the name to register it under (OTP: ``MFA``)."""

    __slots__ = ("actor_class", "args", "kwargs", "name")

    def __init__(self, actor_class: type[Actor], /, *args: Any, name: Name | None = None, **kwargs: Any) -> None:
        if not (isinstance(actor_class, type) and issubclass(actor_class, Actor)):
            raise ValueError(
                f"Start takes an actor class first, then the arguments to make it with; not {actor_class!r}"
            )
        self.actor_class = actor_class
        self.args = args
        self.kwargs = kwargs
        self.name = name

    def __call__(self, *extra_args: Any) -> StartResult | Starting:
        """Start it as a child of the current actor; simple_one_for_one appends ``extra_args``."""
        process = current_process()
        if process is None:
            raise RuntimeError("a child is started by its supervisor")
        return process.system.start_link(self.actor_class, *self.args, *extra_args, name=self.name, **self.kwargs)

    def __repr__(self) -> str:
        return f"Start({self.actor_class.__name__})"


class ForgottenStart:
    """The ``start`` of a temporary child's spec once it was started (OTP: ``{M, F, undefined}``): it holds nothing."""

    __slots__ = ("__name__",)  # what it was, for reports

    def __init__(self, start: object) -> None:
        made_by = getattr(start, "actor_class", start)
        self.__name__ = str(getattr(made_by, "__name__", type(made_by).__name__))

    def __call__(self, *_args: object) -> NoReturn:
        raise RuntimeError("a temporary child is never started again: its start arguments are forgotten")

    def __repr__(self) -> str:
        return f"ForgottenStart({self.__name__})"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor starts, restarts and stops one child.

    ``shutdown`` defaults to 5 seconds for a worker and ``INFINITY`` for a supervisor.

    Raises:
        ValueError: a field makes no sense, with what was found and what was expected.
    """

    id: Hashable
    start: Callable[..., StartResult | Starting]  #: called in the supervisor; usually a ``Start``
    restart: Restart = Restart.PERMANENT
    shutdown: Shutdown = _ShutdownWord.DEFAULT
    type: ChildType = ChildType.WORKER
    significant: bool = False  #: its end counts for the supervisor's ``auto_shutdown``
    backoff: Backoff | None = None  #: wait before a restart; not OTP's, see ``Backoff``

    def __post_init__(self) -> None:
        try:
            hash(self.id)
        except TypeError:
            self._refuse(f"id must be hashable, as a string is; it is of type {type(self.id).__name__}")
        self._check_start()
        if not isinstance(self.restart, Restart):
            self._refuse(f"restart must be a Restart, not {self.restart!r}; PERMANENT, TRANSIENT or TEMPORARY")
        if not isinstance(self.type, ChildType):
            self._refuse(f"type must be a ChildType, not {self.type!r}; WORKER or SUPERVISOR")
        if self.shutdown is _ShutdownWord.DEFAULT:
            default = INFINITY if self.type is ChildType.SUPERVISOR else WORKER_SHUTDOWN_SECONDS
            object.__setattr__(self, "shutdown", default)
        elif not isinstance(self.shutdown, _ShutdownWord) and not _is_time(self.shutdown):
            self._refuse(f"shutdown must be seconds (0 or more), BRUTAL_KILL or INFINITY, not {self.shutdown!r}")
        if not isinstance(self.significant, bool):
            self._refuse(f"significant must be True or False, not {self.significant!r}")
        if self.significant and self.restart is Restart.PERMANENT:
            self._refuse("a permanent child can't be significant: it is always restarted; use TRANSIENT or TEMPORARY")
        if self.backoff is not None:
            if not isinstance(self.backoff, Backoff):
                self._refuse(f"backoff must be a Backoff or None, not {self.backoff!r}")
            if self.restart is Restart.TEMPORARY:
                self._refuse(
                    "a temporary child can't have a backoff: it is never restarted; use PERMANENT or TRANSIENT"
                )

    def _check_start(self) -> None:
        if isinstance(self.start, type):
            name = self.start.__name__
            self._refuse(f"start must be callable, and no class: write Start({name}, ...) instead of {name}")
        if not callable(self.start):
            self._refuse(f"start must be callable (usually a Start), not {self.start!r}")

    def _refuse(self, why: str) -> None:
        raise ValueError(f"child {self.id!r}: {why}")


def _is_time(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < math.inf


def check_child_specs(specs: Sequence[ChildSpec], auto_shutdown: AutoShutdown | None = None) -> None:
    """Raise ``ValueError`` for a list of specs that no supervisor can have (OTP: ``supervisor:check_childspecs/1,2``).

    With an ``auto_shutdown`` also for what a supervisor of that kind can't have.
    """
    if auto_shutdown is not None:
        check_auto_shutdown(auto_shutdown)
    if not isinstance(specs, Sequence) or isinstance(specs, str | bytes):
        raise ValueError(
            f"a supervisor's children are a list or tuple of ChildSpecs, not of type {type(specs).__name__}"
        )
    seen: set[Hashable] = set()
    for spec in specs:
        check_child_spec(spec, auto_shutdown)
        if spec.id in seen:
            raise ValueError(f"child id {spec.id!r} is there twice; ids must be unique within a supervisor")
        seen.add(spec.id)


def check_auto_shutdown(auto_shutdown: AutoShutdown) -> None:
    if not isinstance(auto_shutdown, AutoShutdown):
        raise ValueError(
            f"auto_shutdown must be an AutoShutdown, not {auto_shutdown!r}; NEVER, ANY_SIGNIFICANT or ALL_SIGNIFICANT"
        )


def check_child_spec(spec: ChildSpec, auto_shutdown: AutoShutdown | None) -> None:
    if not isinstance(spec, ChildSpec):
        raise ValueError(f"a supervisor's children are ChildSpecs, not {spec!r}")
    if spec.significant and auto_shutdown is AutoShutdown.NEVER:
        raise ValueError(
            f"child {spec.id!r}: it can't be significant while its supervisor's auto_shutdown is NEVER; "
            "give the supervisor ANY_SIGNIFICANT or ALL_SIGNIFICANT"
        )


# --- restarts: how many, how soon, and who shares them ---


@dataclass(frozen=True, slots=True)
class RestartWindow:
    """The restarts of the last ``period_seconds``. *More than* ``intensity`` of them end the supervisor."""

    intensity: int = 1
    period_seconds: float = 5.0
    restarts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        intensity, period = self.intensity, self.period_seconds
        if isinstance(intensity, bool) or not isinstance(intensity, int) or intensity < 0:
            raise ValueError(
                f"intensity must be a whole number of restarts, 0 or more, not {intensity!r}; "
                "a large one for as good as no limit"
            )
        if isinstance(period, bool) or not isinstance(period, int | float) or not 0 < period < math.inf:
            raise ValueError(f"period_seconds must be a finite number of seconds, more than 0, not {period!r}")

    def add(self, now_seconds: float) -> tuple[RestartWindow, bool]:
        """Count a restart; the second value says whether it may be carried out."""
        # They are in order. More than one too many need not be kept: that is too many as well.
        first = bisect.bisect_left(self.restarts, True, key=lambda at: now_seconds - at <= self.period_seconds)
        restarts = (*self.restarts[max(first, len(self.restarts) - self.intensity) :], now_seconds)
        return replace(self, restarts=restarts), len(restarts) <= self.intensity


def restart_group(strategy: Strategy, ids: Collection[Hashable], ended: Hashable) -> Sequence[Hashable]:
    """Return the ids to stop (last to first) and to start again (first to last), in start order."""
    if strategy is Strategy.ONE_FOR_ALL:
        return tuple(ids)
    if strategy is Strategy.REST_FOR_ONE:
        ids = tuple(ids)
        return ids[ids.index(ended) :]
    return (ended,)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a supervisor waits before it restarts a child; ``ChildSpec(..., backoff=...)``, off by default.

    The first restart comes after ``first_seconds``, each further one after ``factor`` times as long, up to
    ``max_seconds``. A child that ran for ``reset_after_seconds`` starts the row anew. A start that fails is one more
    restart in the row. Time is the actor system's clock's.

    While it waits, the child is ``restarting``: ``terminate_child`` cancels the restart and ends the row,
    ``restart_child`` and ``delete_child`` are refused. With one_for_all and rest_for_one the group is stopped at once
    and started together after the delay, or with a sibling that is restarted before.

    Delayed restarts do **not** count for the supervisor's ``intensity``: the delay bounds their rate, and a service
    that is away for a while must not bring down the whole tree. ``give_up_after`` is their limit instead.

    Raises:
        ValueError: naming what makes no sense.
    """

    first_seconds: float
    factor: float = 2.0
    max_seconds: float = 60.0
    reset_after_seconds: float = 60.0
    give_up_after: int | None = None
    """Restarts in a row after which the supervisor ends with ``SHUTDOWN``, as after too many restarts; None: never."""
    jitter: float = 0.0
    """The part of each delay, 0 to 1, that chance may take away, so that what failed together does not return so."""

    def __post_init__(self) -> None:
        for name in ("first_seconds", "factor", "max_seconds", "reset_after_seconds", "jitter"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"backoff: {name} must be a finite number, not {value!r}")
        if self.first_seconds <= 0:
            raise ValueError(f"backoff: first_seconds must be more than 0, not {self.first_seconds!r}")
        if self.factor < 1:
            raise ValueError(f"backoff: factor must be 1 or more, not {self.factor!r}; below 1 the delays would shrink")
        if self.max_seconds < self.first_seconds:
            raise ValueError(
                f"backoff: max_seconds must be first_seconds ({self.first_seconds!r}) or more, not {self.max_seconds!r}"
            )
        if self.reset_after_seconds < 0:
            raise ValueError(f"backoff: reset_after_seconds must be 0 or more, not {self.reset_after_seconds!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"backoff: jitter must be a part from 0 to 1, not {self.jitter!r}")
        limit = self.give_up_after
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ValueError(f"backoff: give_up_after must be a count, 0 or more, or None for never, not {limit!r}")

    def delay_seconds(self, restarts: int) -> float:
        """Return how long to wait after so many restarts in a row."""
        try:
            seconds = min(self.first_seconds * self.factor**restarts, self.max_seconds)
        except OverflowError:
            seconds = self.max_seconds
        return seconds * (1 - self.jitter * random.random()) if self.jitter else seconds


class Streak:
    __slots__ = ("_started_at", "restarts")

    def __init__(self) -> None:
        self.restarts = 0
        self._started_at: float | None = None  # None: it has not run since the last restart was decided

    def started(self, now_seconds: float) -> None:
        self._started_at = now_seconds

    def count_restart(self, backoff: Backoff, now_seconds: float) -> float | None:
        """Count one more restart and return how long to wait for it, or None when the limit has been reached."""
        if self._started_at is not None and now_seconds - self._started_at >= backoff.reset_after_seconds:
            self.restarts = 0
        self._started_at = None
        if backoff.give_up_after is not None and self.restarts >= backoff.give_up_after:
            return None
        self.restarts += 1
        return backoff.delay_seconds(self.restarts - 1)
