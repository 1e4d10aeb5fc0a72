"""``intercept``: real clients (or fakes) behind the ports, with a function of yours around each call.

The calls of the ports are all that the actors do to the world. So whatever can go wrong between them and the world can
be made to happen here: ``FaultyCalls`` makes it happen at random, ``CrashPoint`` ends the process at a chosen step.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from receipt_actors.backends import Backend
from receipt_actors.errors import AppStoreUnavailable, LedgerUnavailable, QueueUnavailable, UnavailableError
from receipt_actors.testing._faults import INTERNAL_ERROR, answer_some

_UNAVAILABLE: Mapping[str, type[UnavailableError]] = {
    "verify_receipt": AppStoreUnavailable,
    "get_transaction_info": AppStoreUnavailable,
    "claim": LedgerUnavailable,
    "claim_all": LedgerUnavailable,
    "get": LedgerUnavailable,
    "mark_refunded": LedgerUnavailable,
    "unmark_refunded": LedgerUnavailable,
}


@dataclass(frozen=True, slots=True)
class PortCall:
    """A call of a port on its way to the client."""

    operation: str  #: the port's method: ``receive``, ``claim``, ``verify_receipt``, ...
    queue: str | None  #: of ``Queues``, else None
    entries: Sequence[Any] | None  #: of a batch call, else None
    client: Any  #: what stands behind the port
    _function: Callable[[Any], Any] = field(repr=False)

    def carry_out(self, entries: Sequence[Any] | None = None) -> Any:
        """Have the client do it, for all the entries or for some of them, and return its answer."""
        return self._function(self.entries if entries is None else entries)

    def unavailable(self, detail: str) -> UnavailableError:
        """Make the error that a client raises when this call got no answer."""
        return _UNAVAILABLE.get(self.operation, QueueUnavailable)(f"{self.operation}: {detail}")


#: Carries the call out (or not), and answers or raises what a client might.
Around: TypeAlias = Callable[[PortCall], Any]


def intercept(backend: Backend, around: Around) -> Backend:
    """Return the same backend with ``around`` around each call of its ports; it is called from many threads.

    Each call blocks: the App Store is asked by ``verify_receipt``, even if the client has ``begin``.
    What Apple signed is verified without a word to the world, and left alone.
    """
    queues: Any = _Intercepted(
        backend.queues,
        around,
        calls="receive",
        batches="send delete change_visibility",
        left_alone="dead_letter_queue approximate_number_of_messages",
    )
    claims = "claim get mark_refunded unmark_refunded"
    ledger: Any = _Intercepted(backend.ledger, around, calls=claims, batches="claim_all", left_alone="check")
    app_store: Any = _Intercepted(backend.app_store, around, calls="verify_receipt")
    api: Any = backend.server_api
    if api is not None:
        api = _Intercepted(api, around, calls="get_transaction_info", left_alone="transaction_id_of")
    return replace(backend, queues=queues, ledger=ledger, app_store=app_store, server_api=api)


class _Intercepted:
    """A client of which some methods go through ``around``, some are ``left_alone``, and no others can be called.

    So a client that has ``begin`` as well is asked by these methods all the same.
    """

    def __init__(self, client: Any, around: Around, *, calls: str, batches: str = "", left_alone: str = "") -> None:
        self._client = client
        self._around = around
        for name in calls.split():
            setattr(self, name, partial(self._call, name))
        for name in batches.split():
            setattr(self, name, partial(self._batch, name))
        for name in left_alone.split():
            setattr(self, name, getattr(client, name))

    def _call(self, operation: str, *args: Any, **keywords: Any) -> Any:
        queue = args[0] if operation == "receive" else None
        carry_out = partial(getattr(self._client, operation), *args, **keywords)
        return self._around(PortCall(operation, queue, None, self._client, lambda _: carry_out()))

    def _batch(self, operation: str, *args: Any) -> Any:
        *queue, entries = args
        method = partial(getattr(self._client, operation), *queue)
        carry_out = lambda some: method(some) if some else []  # noqa: E731
        return self._around(PortCall(operation, queue[0] if queue else None, entries, self._client, carry_out))


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How often calls fare badly: probabilities from 0 to 1, together at most 1 (else ``ValueError``)."""

    refused: float = 0.0  #: the service does nothing, and the call fails: no connection, 5xx, throttling
    lost: float = 0.0  #: it is carried out, and the answer is lost
    slow: float = 0.0  #: it takes ``slow_seconds`` longer, of real time, whatever the clock
    failed_entries: float = 0.0  #: some entries of the batch are not carried out, and answered as failed
    unconfirmed_entries: float = 0.0  #: some entries are carried out, and answered as failed all the same
    delivered_twice: float = 0.0  #: what was received can be received again at once, by anyone
    slow_seconds: float = 1.0

    def __post_init__(self) -> None:
        rates = {name: getattr(self, name) for name in _RATES}
        if not all(0 <= rate <= 1 for rate in rates.values()) or sum(rates.values()) > 1:
            raise ValueError(f"rates must be from 0 to 1, and together at most 1; found {rates}")


_RATES = ("refused", "lost", "slow", "failed_entries", "unconfirmed_entries", "delivered_twice")


class FaultyCalls:
    """Faults at random, for ``intercept``: the same seed draws the same faults, in the order of the calls.

    ``rates`` are for every operation, ``by_operation`` for those that fare otherwise. ``happened`` counts what was
    drawn, so that a test can tell that there were any.
    """

    def __init__(
        self, rates: FaultRates, by_operation: Mapping[str, FaultRates] | None = None, *, seed: int = 0
    ) -> None:
        self._rates = rates
        self._by_operation = dict(by_operation or {})
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # over the two others
        self.happened: Counter[tuple[str, str]] = Counter()

    def calm(self) -> None:
        """From now on nothing fails."""
        self._rates, self._by_operation = FaultRates(), {}

    def __call__(self, call: PortCall) -> Any:
        rates = self._by_operation.get(call.operation, self._rates)
        match fault := self._draw(call, rates):
            case "refused":
                raise call.unavailable("refused (injected)")
            case "failed_entries" | "unconfirmed_entries":
                return self._spoil_entries(call, carried_out=fault == "unconfirmed_entries")
            case "slow":
                time.sleep(rates.slow_seconds)
        answer = call.carry_out()
        if fault == "lost":
            raise call.unavailable("the answer was lost (injected)")
        if fault == "delivered_twice":
            call.client.change_visibility(call.queue, [(message.receipt_handle, 0) for message in answer])
        return answer

    def _draw(self, call: PortCall, rates: FaultRates) -> str | None:
        with self._lock:
            number = self._random.random()
            for fault in _RATES:
                number -= getattr(rates, fault)
                if number < 0:
                    if not _can_befall(fault, call):
                        return None
                    self.happened[call.operation, fault] += 1
                    return fault
        return None

    def _spoil_entries(self, call: PortCall, *, carried_out: bool) -> list[Any]:
        assert call.entries is not None
        with self._lock:
            spoilt = [self._random.random() < 0.5 for _ in call.entries]
        return answer_some(call.entries, spoilt, call.carry_out, INTERNAL_ERROR, carried_out=carried_out)


def _can_befall(fault: str, call: PortCall) -> bool:
    if fault == "delivered_twice":
        return call.operation == "receive"
    return call.entries is not None or not fault.endswith("entries")


def kill_this_process() -> None:
    """``kill -9``, by our own hand: nothing is closed, flushed or handed back."""
    os.kill(os.getpid(), signal.SIGKILL)


class CrashPoint:
    """Ends the process before or after its n-th call of an operation, for ``intercept``.

    The calls of the ports are the only steps that anybody outside can see, so a run for each call, before it and after
    it, is a run for every moment at which a process can die. ``steps`` lists the calls of a run, for finding the n.

    Args:
        operation: the call to die at; None only counts.
        number: which call of this operation, 1 for the first.
        after: die when it has been carried out and its answer is not known yet, instead of before.
        crash: what dying is.
    """

    def __init__(
        self,
        operation: str | None = None,
        number: int = 1,
        *,
        after: bool = False,
        crash: Callable[[], None] = kill_this_process,
    ) -> None:
        self._step = operation, number
        self._after = after
        self._crash = crash
        self._lock = threading.Lock()
        self.steps: list[tuple[str, int]] = []

    def __call__(self, call: PortCall) -> Any:
        with self._lock:
            step = call.operation, 1 + sum(operation == call.operation for operation, _ in self.steps)
            self.steps.append(step)
        if step == self._step and not self._after:
            self._crash()
        answer = call.carry_out()
        if step == self._step and self._after:
            self._crash()
        return answer
