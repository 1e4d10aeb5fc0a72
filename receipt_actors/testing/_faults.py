"""What all fakes share: the faults that are to come, the calls under way, and how often each operation was called."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from receipt_actors.domain.ports import EntryFailure

T = TypeVar("T")
Outcome = TypeVar("Outcome")

PATIENCE_SECONDS = 60.0  #: real time after which a test that waits has failed: a busy machine may need most of it
INTERNAL_ERROR = EntryFailure("InternalError", "injected by a test", sender_fault=False)


class Hold:
    """Calls that stand still until ``release``; a context manager, which releases at its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0
        self._waiting: set[threading.Thread] = set()
        self.is_released = False

    def wait_for_call(self, calls: int = 1) -> None:
        """Wait until so many calls have come this far. Raises ``TimeoutError`` after ``PATIENCE_SECONDS``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._calls >= calls, PATIENCE_SECONDS):
                raise TimeoutError(f"{self._calls} calls were held, {calls} expected")

    def release(self) -> None:
        """Let the calls go on, and those to come pass. Releasing twice is fine."""
        with self._changed:
            self.is_released = True
            self._waiting.clear()  # here and not by those who wake: from now on they count as busy
            self._changed.notify_all()

    def stand(self) -> None:
        """Wait for the release; the fakes call this."""
        with self._changed:
            self._calls += 1
            self._changed.notify_all()
            if not self.is_released:
                self._waiting.add(threading.current_thread())
            self._changed.wait_for(lambda: self.is_released)

    def waiting_threads(self) -> set[threading.Thread]:
        """Return the threads whose calls stand still here."""
        with self._changed:
            return set(self._waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(slots=True)
class _Fault:
    calls_left: int | None  #: None: any number, until its hold is released
    after: bool = False
    error: BaseException | None = None
    hold: Hold | None = None
    entry_failure: EntryFailure | None = None
    befalls: Callable[[Any], bool] = lambda _entry: True

    @property
    def is_over(self) -> bool:
        return self.calls_left == 0 or (self.hold is not None and self.hold.is_released)

    def strike(self, *, after: bool) -> None:
        if after is self.after and self.hold is not None:
            self.hold.stand()
        if after is self.after and self.error is not None:
            raise self.error


def answer_some(
    entries: Sequence[T],
    spoilt: Sequence[bool],
    work: Callable[[Sequence[T]], Iterable[Outcome]],
    failure: EntryFailure,
    *,
    carried_out: bool,
) -> list[Outcome | EntryFailure]:
    """Carry a batch out, and answer the spoilt entries with a failure, whether they are carried out or not."""
    done = [entry for entry, is_spoilt in zip(entries, spoilt, strict=True) if carried_out or not is_spoilt]
    answers = iter(work(done))
    outcomes = [next(answers) if carried_out or not is_spoilt else failure for is_spoilt in spoilt]
    return [failure if is_spoilt else outcome for is_spoilt, outcome in zip(spoilt, outcomes, strict=True)]


class Fake:
    """The base of the fakes. Faults are used up call by call, in the order in which they were asked for."""

    operations: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything that a fake has
        self._faults: dict[str, deque[_Fault]] = {operation: deque() for operation in self.operations}
        self._holds: list[Hold] = []
        self._counts: Counter[str] = Counter()
        self._busy: set[threading.Thread] = set()

    # --- faults ---

    def fail(self, operation: str, error: BaseException, *, times: int | None = 1) -> None:
        """Have the next calls raise ``error`` and do nothing; ``times`` None: until ``recover``."""
        self._add(operation, _Fault(times, error=error))

    def lose_answer(self, operation: str, error: BaseException, *, times: int | None = 1) -> None:
        """Have the next calls carried out, and then raise ``error`` all the same."""
        self._add(operation, _Fault(times, after=True, error=error))

    def fail_entries(
        self,
        operation: str,
        *,
        times: int | None = 1,
        befalls: Callable[[Any], bool] = lambda _entry: True,
        failure: EntryFailure = INTERNAL_ERROR,
        carried_out: bool = False,
    ) -> None:
        """Have entries of the next batches answered with ``failure``.

        Args:
            operation: ``send``, ``delete``, ``change_visibility`` or ``claim_all``.
            times: how many batches; None: until ``recover``.
            befalls: picks the entries: by its message, its receipt handle, (receipt handle, seconds), or its item.
            failure: the answer.
            carried_out: the entries are carried out all the same, only their confirmation is lost.
        """
        self._add(operation, _Fault(times, carried_out, entry_failure=failure, befalls=befalls))

    def hold(self, operation: str, *, times: int | None = None, then: BaseException | None = None) -> Hold:
        """Have the next calls stand still, before they do anything, until the hold is released; ``then`` they fail."""
        return self._hold(operation, _Fault(times, error=then, hold=Hold()))

    def hold_answer(self, operation: str, *, times: int | None = None, then: BaseException | None = None) -> Hold:
        """Have the next calls carried out, and their answers stand still until the release; ``then`` they are lost."""
        return self._hold(operation, _Fault(times, after=True, error=then, hold=Hold()))

    def recover(self) -> None:
        """Forget every fault, and release what is held."""
        with self._changed:
            for faults in self._faults.values():
                faults.clear()
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.release()

    def count(self, operation: str) -> int:
        """Return how often an operation was called, failures included."""
        self._check(operation)
        with self._changed:
            return self._counts[operation]

    def _hold(self, operation: str, fault: _Fault) -> Hold:
        assert fault.hold is not None
        self._add(operation, fault)
        with self._changed:
            self._holds = [*(each for each in self._holds if not each.is_released), fault.hold]
        return fault.hold

    def _add(self, operation: str, fault: _Fault) -> None:
        self._check(operation)
        with self._changed:
            self._faults[operation].append(fault)

    def _check(self, operation: str) -> None:
        if operation not in self.operations:
            raise ValueError(f"{type(self).__name__} has no {operation!r}, expected one of {sorted(self.operations)}")

    # --- calls ---

    @contextmanager
    def _call(self, operation: str) -> Iterator[_Fault]:
        """Count a call and give it its fault, one without effect where none is due."""
        with self._changed:
            self._counts[operation] += 1
            self._busy.add(threading.current_thread())
            faults = self._faults[operation]
            while faults and faults[0].is_over:
                faults.popleft()
            fault = faults[0] if faults else _Fault(None)
            if fault.calls_left is not None:
                fault.calls_left -= 1
        try:
            yield fault
        finally:
            with self._changed:
                self._busy.discard(threading.current_thread())

    def _carry_out(self, operation: str, work: Callable[[], T], *, is_locked: bool = True) -> T:
        with self._call(operation) as fault:
            fault.strike(after=False)
            with self._changed if is_locked else nullcontext():
                result = work()
            fault.strike(after=True)
            return result

    def _carry_out_batch(
        self, operation: str, entries: Sequence[T], work: Callable[[Sequence[T]], Sequence[Outcome]]
    ) -> Sequence[Outcome | EntryFailure]:
        with self._call(operation) as fault:
            fault.strike(after=False)
            failure = fault.entry_failure or INTERNAL_ERROR
            spoilt = [fault.entry_failure is not None and fault.befalls(entry) for entry in entries]
            with self._changed:
                outcomes = answer_some(entries, spoilt, work, failure, carried_out=fault.after)
            fault.strike(after=True)
            return outcomes

    def busy_threads(self) -> set[threading.Thread]:
        """Return the threads that are in a call, standing still or not."""
        with self._changed:
            return set(self._busy)

    def standing_threads(self) -> set[threading.Thread]:
        """Return the threads whose calls stand still until somebody outside does something."""
        with self._changed:
            holds = list(self._holds)
        return set[threading.Thread]().union(*(hold.waiting_threads() for hold in holds))
