"""``AwsLoop``: the methods of ``AwsQueues`` and ``AwsLedger`` without a thread that waits for each.

It takes calls from any thread and drives their ``steps`` in one place (see ``network_loop``): requests are made and
signed, sent, and their answers read there. Dozens of threads that wait for AWS would fight for the interpreter's lock
instead, which costs more than the calls themselves.

Whatever blocks is left to helpers: new connections, requests for which credentials have to be renewed (by botocore's
own word; credentials of an application's own making that block are not seen), and calls that botocore carries out
itself. So are calls of somebody else's methods.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from botocore.exceptions import HTTPClientError

from receipt_actors.aws.http_loop import HttpLoop
from receipt_actors.aws.steps import Blocking, Exchange, Steps, steps_of
from receipt_actors.network_loop import Exchanges, NetworkLoop
from receipt_actors.otp import BlockingPool

logger = logging.getLogger(__name__)

MAX_HELPERS = 64  #: threads; started when they are needed

#: A call to begin, or something to be done by the place where calls are.
_Work: TypeAlias = "_Call | Callable[[], None]"


class AwsLoop(NetworkLoop[_Work]):
    """The port ``BackgroundCalls`` without a thread for each call; see the module."""

    def __init__(self) -> None:
        super().__init__("aws-loop")
        self._helpers = BlockingPool("aws-helper", MAX_HELPERS)

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        """See ``BackgroundCalls``. ``done`` is called in the loop's place, or here once the loop is closed.

        Where the loop does not run yet, and can't for want of descriptors or threads, the call ends as unavailable.
        """
        call = _Call(steps_of(method, *args, **keywords), done)
        try:
            refusal = None if self.submit(call) else _closed()
        except (OSError, RuntimeError) as error:
            refusal = HTTPClientError(error=error)
        if refusal is not None:
            call.refuse(refusal)

    def close(self) -> None:
        """See ``NetworkLoop``; what is under way ends as unavailable."""
        super().close()
        self._helpers.close()

    def _open(self, wake_fd: int) -> _Calls:
        return _Calls(wake_fd, self._help)

    def _end(self, exchanges: Exchanges[_Work], left: deque[_Work], crash: BaseException | None) -> None:
        assert isinstance(exchanges, _Calls)
        if crash is not None:
            logger.error("all calls of AWS are given up; the next call begins anew", exc_info=crash)
        error: BaseException = _closed() if crash is None else crash
        if isinstance(crash, OSError):  # the machine's trouble, not a bug
            error = HTTPClientError(error=crash)
        exchanges.end(error)
        for work in left:
            if isinstance(work, _Call):
                work.refuse(error)
            else:
                work()  # nobody waits for it any more; it may have something to close

    def _help(self, work: Callable[[], Callable[[], None]]) -> None:
        """Have work done on a helper's thread, and what it returns in the loop's place. Raises ``RuntimeError``."""

        def help_() -> None:
            result = work()
            if not self.submit_if_running(result):
                result()  # as above

        if not self._helpers.submit(help_):
            raise RuntimeError("the loop is closed")


class _Calls:
    """The calls under way, and their connections: ``Exchanges``."""

    def __init__(self, wake_fd: int, help_: Callable[[Callable[[], Callable[[], None]]], None]) -> None:
        self._help = help_
        self._http = HttpLoop(wake_fd, help_)
        self._calls: set[_Call] = set()
        self.fileno = self._http.fileno
        self.due_at = self._http.due_at
        self.look = self._http.look

    def go_on(self, work: deque[_Work]) -> None:
        """See ``Exchanges``."""
        self._http.go_on()
        while work:
            item = work.popleft()
            if isinstance(item, _Call):
                self._calls.add(item)
                self._go_on(item, None)
            else:
                item()

    def end(self, error: BaseException) -> None:
        """Give up all calls."""
        self._http.end()
        calls, self._calls = self._calls, set()  # whoever wants to go on now finds nothing
        for call in calls:
            call.give_up(error)

    def _go_on(self, call: _Call, outcome: object) -> None:
        """Go on with what the last step brought (None at first)."""
        if call not in self._calls:  # it has been given up
            return
        step = call.next(outcome)
        if step is None:
            self._calls.discard(call)
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

    def refuse(self, error: BaseException) -> None:
        """End it before it has begun."""
        if self.next(None) is not None:
            self.give_up(error)

    def give_up(self, error: BaseException) -> None:
        """End it, whatever it wants."""
        while self.next(error) is not None:
            pass

    def _tell(self, outcome: object) -> None:
        try:
            self._done(outcome)
        except BaseException:  # the thread is there for others' answers as well
            logger.exception("whoever called AWS could not take the answer")
