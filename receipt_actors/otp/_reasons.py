"""Exit reasons: why a process ended (OTP: the ``Reason`` of an exit signal)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


def text_of(value: object) -> str:
    """Return what a value says of itself; of one that can't say it, the type: naming it must never fail."""
    try:
        return str(value)
    except BaseException:
        return f"<{type(value).__name__}>"


def repr_of(value: object) -> str:
    """Return ``repr(value)``; of what has none that works, the type."""
    try:
        return repr(value)
    except BaseException:
        return f"<{type(value).__name__}>"


@dataclass(frozen=True, slots=True)
class Normal:
    """It had done its work."""

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """It was told to end, or ended in an orderly way because of ``term`` (OTP: ``shutdown``, ``{shutdown, Term}``)."""

    term: object = None

    def __str__(self) -> str:
        return "shutdown" if self.term is None else f"shutdown: {text_of(self.term)}"


@dataclass(frozen=True, slots=True)
class Killed:
    """It was killed: abandoned without a chance to clean up."""

    def __str__(self) -> str:
        return "killed"


@dataclass(frozen=True, slots=True)
class NoProcess:
    """There is no such process; it may have ended before (OTP: ``noproc``)."""

    def __str__(self) -> str:
        return "no process"


@dataclass(frozen=True, slots=True)
class Crash:
    """A callback raised ``exception``."""

    exception: BaseException

    def __str__(self) -> str:
        return f"crash: {type(self.exception).__name__}: {text_of(self.exception)}"


ExitReason: TypeAlias = Normal | Shutdown | Killed | NoProcess | Crash

_ORDERLY = (Normal, Shutdown)

NORMAL = Normal()
SHUTDOWN = Shutdown()
KILLED = Killed()
NO_PROCESS = NoProcess()


def is_orderly(reason: ExitReason) -> bool:
    """Tell whether a transient child that ended so is left alone (OTP: normal, shutdown, {shutdown, Term})."""
    return isinstance(reason, _ORDERLY)


def check_exit_reason(reason: object) -> None:
    """Refuse what is no exit reason.

    Raises:
        TypeError: it is none of the classes here.
    """
    if not isinstance(reason, ExitReason):
        raise TypeError(
            "an exit reason is NORMAL, SHUTDOWN, Shutdown(term), Crash(exception), KILLED or NO_PROCESS, "
            f"not a {type(reason).__name__}"
        )
