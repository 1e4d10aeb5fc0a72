"""Reports of supervisors and crashing actors to operators, through ``logging`` (OTP: SASL's reports)."""

from __future__ import annotations

import enum
import logging
import math
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from receipt_actors.otp._messages import (
    AlreadyStarted,
    Crash,
    Killed,
    Name,
    NoProcess,
    Normal,
    Shutdown,
    shape_of,
    text_of,
)

if TYPE_CHECKING:
    from receipt_actors.otp._child_spec import ChildSpec
    from receipt_actors.otp._process import Process
    from receipt_actors.otp._ref import Ref

logger = logging.getLogger("receipt_actors.otp")

OWN_DECISION = "its own decision to end"  #: what an actor was handling that gave a crash as its reason to stop
TEXT_LIMIT = 200  #: characters of any text that comes from elsewhere
_SECRET_NAME = re.compile("secret|token|password|credential|key|receipt_data", re.IGNORECASE)
_ENCODED_DATA = re.compile(r"[0-9A-Fa-f]{32,}|[A-Za-z0-9+/=_%\\-]{40,}")


# An application's log handler that raises must not end an actor, or all.
def log(level: int, message: str, *args: object, **kwargs: Any) -> None:
    """Log as ``Logger.log`` does; what a filter or a handler raises is printed to stderr and goes no further."""
    try:
        logger.log(level, message, *args, **kwargs)
    except BaseException:
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()


#: What a ``SupervisorReport`` is about (OTP: ``errorContext``).
Context: TypeAlias = Literal["start_error", "child_terminated", "shutdown_error", "shutdown"]


@dataclass(frozen=True, slots=True)
class FailedToStartChild:
    """Why a supervisor did not start: the ``term`` of its ``Shutdown`` (OTP: ``{failed_to_start_child, ...}``)."""

    id: Name
    reason: object

    def __str__(self) -> str:
        return f"child {text_of(self.id, repr)} failed to start: {describe_reason(self.reason)}"


# --- the reports -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildDescription:
    id: str
    actor_class: str  #: of the actor, or the name of a start function that is no ``Start``
    ref: str | None
    restart: str
    shutdown: float | str  #: seconds, or ``brutal_kill`` or ``infinity``
    type: str
    significant: bool


@dataclass(frozen=True, slots=True)
class _Report:
    kind: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": self.kind, **values}


@dataclass(frozen=True, slots=True)
class SupervisorReport(_Report):
    """Something went wrong with a child (OTP: supervisor report)."""

    kind: ClassVar[str] = "supervisor_report"

    supervisor: str
    context: Context
    reason: str
    offender: ChildDescription
    children: int  #: more than one where several children of one spec ended alike
    restarts: int  #: that count at this moment
    note: str  #: what the supervisor does about it

    def __str__(self) -> str:
        child = f"child {self.offender.id}" if self.children == 1 else f"{self.children} children {self.offender.id}"
        what = {
            "start_error": f"{child} failed to start",
            "child_terminated": f"{child} ended",
            "shutdown_error": f"{child} did not end as told",
            "shutdown": f"gives up because of {child}",
        }[self.context]
        return f"{self.supervisor}: {what}: {self.reason}{self.note and f' ({self.note})'}"


@dataclass(frozen=True, slots=True)
class ProgressReport(_Report):
    """A supervisor started a child (OTP: progress report)."""

    kind: ClassVar[str] = "progress_report"

    supervisor: str
    started: ChildDescription

    def __str__(self) -> str:
        return f"{self.supervisor}: child {self.started.id} started: {self.started.ref}"


@dataclass(frozen=True, slots=True)
class CrashReport(_Report):
    """A callback raised, or stopped for a reason that is a crash, and its actor ends (OTP: crash report)."""

    kind: ClassVar[str] = "crash_report"

    actor: str
    reason: str
    handling: str  #: the type of the message, or what else it was doing
    location: str | None  #: where it was raised: file, line and function
    mailbox_length: int
    links: tuple[str, ...]
    parent: str | None

    def __str__(self) -> str:
        if self.handling == OWN_DECISION:
            return f"{self.actor} stops because of {self.reason}"
        return f"{self.actor} crashed while handling {self.handling}: {self.reason}"


#: What a listener is told; see ``ActorSystem.add_report_listener``.
Report: TypeAlias = SupervisorReport | CrashReport | ProgressReport


# --- reporting -------------------------------------------------------------------------------------------------------


class RaisedError(Exception):
    """Stands in for an exception in a traceback that is logged: its type and the beginning of what it says."""


def report_crash(process: Process, crash: Crash, handling: str) -> None:
    """Log a ``CrashReport``, with a traceback that shows where, but not everything the exception says."""
    ref, error = process.ref, crash.exception
    if not is_wanted(ref, logging.ERROR):
        return
    said = describe_exception(error)
    report = CrashReport(
        describe(ref),
        said,
        handling,
        _location(error),
        process.mailbox_length,
        tuple(sorted(describe(linked.ref) for linked in process.links)),
        None if process.parent is None else describe(process.parent.ref),
    )
    # One that was never raised has no traceback, and has been told in full.
    trace = None if error.__traceback__ is None else (RaisedError, RaisedError(said), error.__traceback__)
    publish(ref, logging.ERROR, report, exc_info=trace)


def is_wanted(whose: Ref, level: int) -> bool:
    return bool(whose.process.system.report_listeners) or logger.isEnabledFor(level)


def publish(whose: Ref, level: int, report: Report, **how: Any) -> None:
    log(level, "%s", report, extra={"report": report}, **how)
    for listener in whose.process.system.report_listeners:
        try:
            listener(report)
        except BaseException:  # the listener is at fault, not the actor of the report
            log(logging.ERROR, "report listener %r failed", listener, exc_info=True)


# --- describing ------------------------------------------------------------------------------------------------------


def describe(value: object) -> str:
    """Return what a value says of itself, on one line and not longer than ``TEXT_LIMIT``."""
    text = text_of(value)
    shortened = text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 3]}..."
    return " ".join(shortened.split())


def masked(text: str) -> str:
    """Replace by ``...`` each run of 40 characters and more of base64, or 32 of hex digits, but words and paths."""

    def mask(run: re.Match[str]) -> str:
        characters = run[0]
        is_mixed = any(map(str.isdigit, characters)) and any(map(str.isalpha, characters))
        is_path = "/" in characters and characters.islower()
        return "..." if is_mixed and not is_path else characters

    return _ENCODED_DATA.sub(mask, text)


def plain_state(attributes: Mapping[str, object]) -> dict[str, object]:
    """Describe attributes in JSON's types; of a value that might be long or secret, only what kind it is."""
    return {name.lstrip("_"): _plain(name, value) for name, value in attributes.items()}


def _plain(name: str, value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no infinity
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str) and not _SECRET_NAME.search(name):
        return masked(describe(value))
    return shape_of(value)


def describe_exception(error: BaseException) -> str:
    said = masked(describe(error))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def describe_reason(reason: object) -> str:
    """Describe why an actor ended or did not start; of what is not the runtime's own, only the type is told."""
    match reason:
        case Crash(error):
            return f"crash: {describe_exception(error)}"
        case Shutdown(term) if term is not None:
            return f"shutdown: {describe_reason(term)}"
        case Normal() | Shutdown() | Killed() | NoProcess() | AlreadyStarted() | str():
            return describe(reason)
        case FailedToStartChild(id_, why):
            return f"child {describe(text_of(id_, repr))} failed to start: {describe_reason(why)}"
    return f"<{type(reason).__name__}>"


def describe_child(spec: ChildSpec, child: Ref | None) -> ChildDescription:
    made_by = getattr(spec.start, "actor_class", spec.start)  # a Start's, or the start function itself
    return ChildDescription(
        describe(spec.id),
        getattr(made_by, "__name__", type(made_by).__name__),
        None if child is None else describe(child),
        spec.restart.value,
        spec.shutdown if isinstance(spec.shutdown, int | float) else str(spec.shutdown.value),
        spec.type.value,
        spec.significant,
    )


def _location(error: BaseException) -> str | None:
    traceback = error.__traceback__
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return f"{code.co_filename}:{traceback.tb_lineno} in {code.co_name}"
