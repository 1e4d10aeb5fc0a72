"""``AwsLoop``: the methods of ``AwsQueues`` and ``AwsLedger`` without a thread that waits for each.

It takes calls from any thread and drives their ``steps`` on a thread of its own, which it wakes once for all that
gather meanwhile: requests are made and signed, sent, and their answers read there. Dozens of threads that wait for AWS
would fight for the interpreter's lock instead, which costs more than the calls themselves.

Whatever blocks is left to helpers: new connections, requests for which credentials have to be renewed (by botocore's
own word; credentials of an application's own making that block are not seen), and calls that botocore carries out
itself. So are calls of somebody else's methods.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from botocore.exceptions import HTTPClientError

from receipt_actors.clients.aws.http_loop import HttpLoop
from receipt_actors.clients.aws.steps import Blocking, Exchange, Steps, steps_of
from receipt_actors.otp import BlockingPool

logger = logging.getLogger(__name__)

MAX_HELPERS = 64  #: threads; started when they are needed
CLOSE_SECONDS = 5.0  #: ``close`` waits so long for the thread, which may be in the middle of somebody's ``done``


class AwsLoop:
    """The port ``BackgroundCalls`` on one thread; it is started with the first call."""

    def __init__(self) -> None:
        self._helpers = BlockingPool("aws-helper", MAX_HELPERS)
        self._lock = threading.Lock()  # guards what follows
        self._work: deque[Callable[[], None]] = deque()  # for the thread
        self._is_woken = False
        self._is_closed = False
        self._thread: threading.Thread | None = None  # started with work that finds none
        self._wake_fd = -1
        # Of the thread alone:
        self._http: HttpLoop | None = None
        self._taken: deque[Callable[[], None]] = deque()  # work that is being done
        self._calls: set[_Call] = set()  # under way

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        """See ``BackgroundCalls``. ``done`` is called on the loop's thread, or here once the loop is closed.

        Raises:
            OSError, RuntimeError: the loop has no thread yet, and can't have one.
        """
        call = _Call(steps_of(method, *args, **keywords), done)
        with self._lock:
            if not self._is_closed:
                if self._thread is None:
                    self._start()
                self._post(partial(self._begin, call))
                return
        if call.next(None) is not None:
            call.give_up(_closed())

    def close(self) -> None:
        """End the thread and close its connections; what is under way ends as unavailable.

        May be called twice, and from any thread.
        """
        with self._lock:
            self._is_closed = True
            thread = self._thread
            if thread is not None:
                self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)
        self._helpers.close()

    # --- the thread ---

    def _start(self) -> None:
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            http = HttpLoop(self._wake_fd, self._help)
            thread = threading.Thread(target=self._run, args=(http,), name="aws-loop", daemon=True)
            thread.start()
        except (OSError, RuntimeError):
            os.close(self._wake_fd)
            raise
        self._thread = thread

    def _post(self, work: Callable[[], None]) -> None:
        self._work.append(work)
        self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            os.eventfd_write(self._wake_fd, 1)

    def _take_work(self) -> None:
        with self._lock:
            if self._is_woken:
                self._is_woken = False
                os.eventfd_read(self._wake_fd)
            self._taken, self._work = self._work, self._taken

    def _run(self, http: HttpLoop) -> None:
        self._http = http
        error: Exception = _closed()
        try:
            while not self._is_closed:
                http.wait()
                self._take_work()
                while self._taken:
                    self._taken.popleft()()
        except BaseException as crash:
            logger.exception("all calls of AWS are given up; the next call begins anew")
            error = HTTPClientError(error=crash)
        self._end(http, error)

    def _end(self, http: HttpLoop, error: Exception) -> None:
        self._http = None  # whoever wants to go on now is refused
        http.end()
        calls, self._calls = self._calls, set()
        for call in calls:
            call.give_up(error)
        while True:
            while self._taken:
                self._taken.popleft()()
            with self._lock:
                if not self._work:
                    self._thread = None
                    self._is_woken = False
                    os.close(self._wake_fd)
                    return
                self._taken, self._work = self._work, self._taken

    def _help(self, work: Callable[[], Callable[[], None]]) -> None:
        """Have work done on a helper's thread, and what it returns on ours. Raises ``RuntimeError``."""

        def help_() -> None:
            result = work()
            with self._lock:
                if self._thread is not None:
                    self._post(result)
                    return
            result()  # nobody waits for it any more; it may have something to close

        if not self._helpers.submit(help_):
            raise RuntimeError("the loop is closed")

    # --- calls ---

    def _begin(self, call: _Call) -> None:
        self._calls.add(call)
        self._go_on(call, None)

    def _go_on(self, call: _Call, outcome: object) -> None:
        """Go on with what the last step brought (None at first)."""
        if call not in self._calls:  # it has been given up
            return
        step = call.next(outcome)
        if step is None:
            self._calls.discard(call)
        elif self._http is None:
            self._calls.discard(call)
            call.give_up(_closed())
        elif isinstance(step, Exchange):
            self._http.begin(step, partial(self._go_on, call))
        else:
            self._block(call, step)

    def _block(self, call: _Call, step: Blocking) -> None:
        try:
            self._help(partial(self._blocking, call, step))
        except RuntimeError as error:  # out of threads
            self._go_on(call, HTTPClientError(error=error))

    def _blocking(self, call: _Call, step: Blocking) -> Callable[[], None]:
        outcome: object
        try:
            outcome = step.function()
        except BaseException as error:  # noqa: BLE001 - the operation knows what to make of it
            outcome = error
        return partial(self._go_on, call, outcome)


def _closed() -> Exception:
    return HTTPClientError(error="the client is closed")


class _Call:
    """An operation on its way, and who wants to know what comes of it."""

    __slots__ = ("_done", "_steps")

    def __init__(self, steps: Steps[object], done: Callable[[Any], object]) -> None:
        self._steps = steps
        self._done = done

    def next(self, outcome: object) -> Exchange | Blocking | None:
        """Go on with what the last step brought (None at first), up to the next; None when it is over, and told."""
        try:
            if isinstance(outcome, BaseException):
                return self._steps.throw(outcome)
            return self._steps.send(outcome)
        except StopIteration as end:
            self._tell(end.value)
        except BaseException as error:  # noqa: BLE001 - it is what whoever asked is told
            self._tell(error)
        return None

    def give_up(self, error: Exception) -> None:
        """End it, whatever it wants."""
        while self.next(error) is not None:
            pass

    def _tell(self, outcome: object) -> None:
        try:
            self._done(outcome)
        except BaseException:  # the thread is there for others' answers as well
            logger.exception("whoever called AWS could not take the answer")
