"""Submissions of an embedding program whose answers it waits for.

The validator resolves a submission once the post queue has confirmed the answers, or with why there is none. The actor
system keeps the table, weakly, so that no crash forgets it. Two submissions share one ``Pending`` only if they ask the
same: transaction, product, source and post queue included.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Hashable, Sequence
from concurrent.futures import Future
from typing import TypeAlias
from weakref import WeakValueDictionary

from receipt_actors.domain.messages import PostedResult, Result, Submission, Unanswerable, parse_result, result_message
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import NotAnswered
from receipt_actors.otp import ActorSystem

_Key: TypeAlias = tuple[Hashable, ...]


class Pending:
    """A submission that was put on the source queue: ``result`` waits for its answers, ``await`` does so in asyncio."""

    def __init__(self, submission_id: str) -> None:
        self.submission_id = submission_id  #: which the answers carry
        self._answers: Future[tuple[PostedResult, ...]] = Future()

    def result(self, timeout: float | None = None) -> tuple[PostedResult, ...]:
        """Wait for the answers, and return all of them: one for each transaction that is answered, never none.

        They are on the post queue as well, and stay there until ``results`` or ``on_result`` acknowledges them.

        Args:
            timeout: seconds to wait; None: as long as it takes. It may be called again.

        Raises:
            NotAnswered: no verdict can be given; ``reason`` says why. Or the system has ended.
            TimeoutError: there is none yet. The submission is as safe as before, and ``results`` will have its answers.
                This system does not hear of what another process validates, nor of what the queue itself moves to its
                dead-letter queue: without a time-out it would wait for that until it ends.
        """
        try:
            return self._answers.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"submission {self.submission_id} was not answered here within {timeout:g} s") from None

    def done(self) -> bool:
        """Tell whether ``result`` would return, or raise ``NotAnswered``, at once."""
        return self._answers.done()

    def __await__(self) -> Generator[None, None, tuple[PostedResult, ...]]:
        """Wait for the answers as ``result`` does, without a thread; ``asyncio.timeout`` limits it."""
        return asyncio.shield(asyncio.wrap_future(self._answers)).__await__()


class PendingSubmissions:
    def __init__(self) -> None:
        self._pending: WeakValueDictionary[_Key, Pending] = WeakValueDictionary()
        self._lock = threading.Lock()  # over the table; programs submit on any thread
        self._has_ended = False

    def expect(self, submission: Submission, source_queue: str) -> Pending:
        """Note that the program waits; of what is asked again meanwhile it is the same ``Pending``."""
        key = _key(submission, source_queue)
        with self._lock:
            pending = self._pending.get(key) or Pending(submission.submission_id)
            if self._has_ended:
                _end(pending)
            else:
                self._pending[key] = pending
            return pending

    def answered(self, submission: Submission, source_queue: str, results: Sequence[Result]) -> None:
        pending = self._resolved(submission, source_queue)
        if pending is not None:
            posted = (parse_result(result_message(submission, result)) for result in results)
            pending._answers.set_result(tuple(each for each in posted if each is not None))

    def not_answered(self, submission: Submission, source_queue: str, why: Unanswerable) -> None:
        pending = self._resolved(submission, source_queue)
        if pending is not None:
            pending._answers.set_exception(NotAnswered(why.reason, why.detail))

    def end(self) -> None:
        with self._lock:
            self._has_ended = True
            pending = list(self._pending.values())
            self._pending.clear()
        for each in pending:
            _end(each)

    def _resolved(self, submission: Submission, source_queue: str) -> Pending | None:
        if not self._pending:  # a service that nobody embeds has none
            return None
        with self._lock:
            return self._pending.pop(_key(submission, source_queue), None)


def pending_submissions_of(system: ActorSystem) -> PendingSubmissions:
    table: PendingSubmissions | None = system.terms.get(PendingSubmissions)
    return system.terms.setdefault(PendingSubmissions, PendingSubmissions()) if table is None else table


def _key(submission: Submission, source_queue: str) -> _Key:
    whose = submission.submission_id, submission.user_id, submission.receipt_sha256
    return *whose, submission.transaction_id, submission.product_id, source_queue, submission.post_queue


def _end(pending: Pending) -> None:
    detail = "the system has ended; submit it again with this submission id, and it gets the same answer"
    pending._answers.set_exception(NotAnswered(Reason.DRAINED, detail))
