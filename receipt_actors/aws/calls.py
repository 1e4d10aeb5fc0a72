"""How the adapters call AWS: with a thread that waits, or without one.

A method of the adapters is a generator. It yields one ``ApiCall`` after the other and gets the answer or the error of
each. ``blocking`` makes it a method that boto3 carries out on the calling thread. ``AwsCalls`` carries out the same
method on ``transport``, without a thread that waits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from receipt_actors.otp import BlockingPool
from receipt_actors.transport.messages import RequestFailed, Transport, tell

if TYPE_CHECKING:
    from receipt_actors.aws.connection import Client

MAX_THREADS = 64  #: for calls that boto3 has to make itself, and the renewal of credentials; started as needed

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call of an operation (``send_message_batch``). Its result is boto3's answer, or the outcome of a transfer."""

    client: Client
    operation: str
    parameters: Mapping[str, object]

    def carry_out(self) -> Any:
        return getattr(self.client.api, self.operation)(**self.parameters)


Calls: TypeAlias = Generator[ApiCall, Any, T]


def blocking(calls: Callable[Concatenate[S, P], Calls[T]]) -> Callable[Concatenate[S, P], T]:
    """Turn a method that yields calls into one that blocks until they are carried out."""

    @functools.wraps(calls)
    def method(self: S, *args: P.args, **keywords: P.kwargs) -> T:
        under_way = calls(self, *args, **keywords)
        try:
            call = next(under_way)
            while True:
                try:
                    answer = call.carry_out()
                except Exception as error:  # noqa: BLE001 - the method knows what it means
                    call = under_way.throw(error)
                else:
                    call = under_way.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    method.calls = calls  # type: ignore[attr-defined]
    return method  # type: ignore[return-value]  # a function, hence bound like one


class AwsCalls:
    """The port ``BackgroundCalls`` for the adapters' methods, on a transport.

    Threads do what may block: calls that boto3 makes itself, requests that need renewed credentials (unless an
    application's own credentials block unseen), and methods of anything but the adapters.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._pool = BlockingPool("aws", MAX_THREADS)

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        calls = getattr(method, "calls", None)
        if calls is not None:
            under_way: Calls[object] = calls(method.__self__, *args, **keywords)  # type: ignore[attr-defined]
            self._go_on(under_way, done, None)
            return

        def block() -> None:
            try:
                result = method(*args, **keywords)
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                result = error
            tell(done, result)

        self._block(block, lambda failed: tell(done, RuntimeError(str(failed))))

    def close(self) -> None:
        """End the threads, each after its present call. Close the transport as well."""
        self._pool.close()

    def _go_on(self, under_way: Calls[object], done: Callable[[Any], object], outcome: object) -> None:
        result: object
        try:
            call = under_way.throw(outcome) if isinstance(outcome, BaseException) else under_way.send(outcome)
        except StopIteration as end:
            result = end.value
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            result = error
        else:
            self._carry_out(call, partial(self._go_on, under_way, done))
            return
        tell(done, result)

    def _carry_out(self, call: ApiCall, then: Callable[[object], None]) -> None:
        maker = call.client.maker
        if maker is None or maker.may_block(call.operation):
            self._block(partial(self._send_or_call, call, then), then)
        else:
            self._send_or_call(call, then)

    def _send_or_call(self, call: ApiCall, then: Callable[[object], None]) -> None:
        maker = call.client.maker
        answer: object = None
        try:
            request = None if maker is None else maker.request(call.operation, call.parameters)
            if request is None:
                answer = call.carry_out()
        except BaseException as error:  # noqa: BLE001 - the method knows what it means
            answer, request = error, None
        if request is None:
            then(answer)
        else:
            self._transport.begin(request, then)

    def _block(self, work: Callable[[], None], otherwise: Callable[[object], None]) -> None:
        cause = "the client is closed"
        try:
            if self._pool.submit(work):
                return
        except RuntimeError as error:  # out of threads
            cause = str(error)
        otherwise(RequestFailed(cause, was_sent=False))
