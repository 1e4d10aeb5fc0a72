"""Exit reasons: why a process ended (OTP: the ``Reason`` of an exit signal)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


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
        return "shutdown" if self.term is None else f"shutdown: {self.term}"


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
        try:
            return f"crash: {type(self.exception).__name__}: {self.exception}"
        except Exception:  # an exception that can't say what it is must not hide that it was raised
            return f"crash: {type(self.exception).__name__}"


ExitReason: TypeAlias = Normal | Shutdown | Killed | NoProcess | Crash

_ORDERLY = (Normal, Shutdown)

NORMAL = Normal()
SHUTDOWN = Shutdown()
KILLED = Killed()
NO_PROCESS = NoProcess()


def is_orderly(reason: ExitReason) -> bool:
    """Tell whether a transient child that ended so is left alone (OTP: normal, shutdown, {shutdown, Term})."""
    return isinstance(reason, _ORDERLY)
