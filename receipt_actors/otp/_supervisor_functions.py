"""The functions of Erlang's ``supervisor`` module, the requests behind them, and the answers.

The functions block, as Erlang's do; pooled actors must not, and send the requests with ``send_request`` instead.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from receipt_actors.otp._child_spec import ChildSpec, ChildType
from receipt_actors.otp._messages import StartResult
from receipt_actors.otp._ref import Ref

# --- answers ---------------------------------------------------------------------------------------------------------


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


StartAnswer: TypeAlias = StartResult | ChildError

# --- requests --------------------------------------------------------------------------------------------------------


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
class GetChildSpec(_ByChildId):
    """Return the spec of a child (by id; for simple_one_for_one by its ref as well)."""


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """List the children."""


@dataclass(frozen=True, slots=True)
class CountChildren:
    """Count the children."""


# --- functions -------------------------------------------------------------------------------------------------------


def start_child(supervisor: Ref, spec_or_args: ChildSpec | Sequence[Any], timeout: float | None = None) -> StartAnswer:
    """Start a child (``supervisor:start_child/2``).

    For a simple_one_for_one supervisor the second argument is a list or tuple of arguments to append to its spec's.

    Returns:
        ``Started(ref)``; ``IGNORE`` (the spec is kept, unless the child is temporary or the supervisor
        simple_one_for_one); ``NotStarted(reason)`` (the spec is not kept), with ``AlreadyStarted(ref)`` where the id
        runs already; ``ChildError.ALREADY_PRESENT`` where the id is known but its child does not run (at this moment).
    """
    answer: StartAnswer = supervisor.call(StartChild(spec_or_args), timeout)
    return answer


def terminate_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> ChildError | None:
    """Stop a child; its spec stays known unless it is temporary (``supervisor:terminate_child/2``).

    A simple_one_for_one supervisor takes the child's ref (a child that has ended already is no error), and answers an
    id with ``ChildError.SIMPLE_ONE_FOR_ONE``. Otherwise the only error is ``NOT_FOUND``.
    """
    answer: ChildError | None = supervisor.call(TerminateChild(child_id), timeout)
    return answer


def restart_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> StartAnswer:
    """Start a child again that was terminated (``supervisor:restart_child/2``).

    Errors are ``RUNNING``, ``RESTARTING``, ``NOT_FOUND``, ``SIMPLE_ONE_FOR_ONE``; a start that fails changes nothing.
    """
    answer: StartAnswer = supervisor.call(RestartChild(child_id), timeout)
    return answer


def delete_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> ChildError | None:
    """Forget a child that does not run (``supervisor:delete_child/2``); errors as for ``restart_child``."""
    answer: ChildError | None = supervisor.call(DeleteChild(child_id), timeout)
    return answer


def get_child_spec(supervisor: Ref, id_or_ref: Hashable, timeout: float | None = None) -> ChildSpec | ChildError:
    """Return a child's spec, or ``ChildError.NOT_FOUND`` (``supervisor:get_childspec/2``).

    By id; for simple_one_for_one, whose children share one spec, by a child's ref as well.
    """
    answer: ChildSpec | ChildError = supervisor.call(GetChildSpec(id_or_ref), timeout)
    return answer


def which_children(supervisor: Ref, timeout: float | None = None) -> list[ChildInfo]:
    """List the children in start order (``supervisor:which_children/1``, which lists them the other way round)."""
    answer: list[ChildInfo] = supervisor.call(WhichChildren(), timeout)
    return answer


def count_children(supervisor: Ref, timeout: float | None = None) -> ChildCounts:
    """Count the children (``supervisor:count_children/1``)."""
    answer: ChildCounts = supervisor.call(CountChildren(), timeout)
    return answer
