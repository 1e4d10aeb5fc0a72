"""Operations as steps: what is to be exchanged with AWS, without saying who waits for it.

An operation of the adapters is a generator. It yields what it needs, an ``Exchange`` over HTTP or ``Blocking`` work, is
sent the result or thrown the error, and returns what its caller asked for. So everything that is decided about requests
and answers stands in one place, and two drivers carry it out: a method ``as_call`` does so on the thread that calls it;
``loop.AwsLoop`` begins the same method without a thread that waits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from receipt_actors.aws.http_answer import Origin
from receipt_actors.aws.http_pool import HttpPool

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to be sent, head and body; ``pool`` says on which connections. Brings an ``HttpAnswer``."""

    pool: HttpPool
    origin: Origin
    request: bytes


@dataclass(frozen=True, slots=True)
class Blocking:
    """A call that may take its time, for a thread that may wait. Brings what it returns."""

    function: Callable[[], object]


Steps: TypeAlias = Generator[Exchange | Blocking, Any, T]


def as_call(steps: Callable[Concatenate[S, P], Steps[T]]) -> Callable[Concatenate[S, P], T]:
    """Make a method of steps one that carries them out and blocks meanwhile; ``steps_of`` has the steps back."""

    @functools.wraps(steps)
    def method(self: S, *args: P.args, **keywords: P.kwargs) -> T:
        return carry_out(steps(self, *args, **keywords))

    method.steps = steps  # type: ignore[attr-defined]
    return method  # type: ignore[return-value]  # a function, hence bound like one


def steps_of(method: Callable[..., Any], *args: object, **keywords: object) -> Steps[Any]:
    """Return the steps of a bound method; of one that is none of the adapters', a single one that blocks."""
    steps = getattr(method, "steps", None)
    if steps is None:
        return _at_once(functools.partial(method, *args, **keywords))
    made: Steps[Any] = steps(method.__self__, *args, **keywords)  # type: ignore[attr-defined]
    return made


def _at_once(function: Callable[[], object]) -> Steps[Any]:
    return (yield Blocking(function))


def carry_out(steps: Steps[T]) -> T:
    """Carry an operation out on this thread."""
    try:
        step = next(steps)
        while True:
            try:
                result = _done(step)
            except Exception as error:  # noqa: BLE001 - the operation knows what to make of it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: T = end.value
        return value


def _done(step: Exchange | Blocking) -> object:
    return step.pool.exchange(step.origin, step.request) if isinstance(step, Exchange) else step.function()
