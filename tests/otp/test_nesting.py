"""Starts in starts and continuations of continuations: however many, none of them uses the stack up."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from receipt_actors.otp import ActorSystem, Continue, GenServer, Receive, Receiving, Ref, Started, Starting
from tests.otp.support import WAIT_SECONDS, Pooled, Seen, run_in

DEEP = 400  #: more than Python's stack would hold of these
MANY = 3_000  #: continuations, likewise


class Nested(GenServer):
    """Starts the next of a row, in ``init`` or after it, until the row is complete; then says so."""

    def __init__(self, left: int, complete: threading.Event, *, in_init: bool) -> None:
        self.left = left
        self.complete = complete
        self.in_init = in_init

    def init(self) -> Any:
        return self.start_next() if self.in_init else Continue()

    def handle_continue(self, term: object) -> None:
        self.start_next()

    def start_next(self) -> None:
        if self.left:
            self.system.start_link(Nested, self.left - 1, self.complete, in_init=self.in_init)
        else:
            self.complete.set()

    def handle_info(self, message: object) -> None:
        """Of starts that were too deep to be waited for."""


class Counting(GenServer):
    """Goes on and on, by ``Continue``; ``by_generator``: from callbacks that are generators."""

    def __init__(self, done: threading.Event, *, by_generator: bool) -> None:
        self.done = done
        self.by_generator = by_generator

    def init(self) -> Continue:
        return Continue(1)

    def handle_continue(self, count: int) -> Any:
        return self.go_on_from_a_generator(count) if self.by_generator else self.go_on(count)

    def go_on_from_a_generator(self, count: int) -> Receiving:
        yield from ()
        return self.go_on(count)

    def go_on(self, count: int) -> Continue | None:
        if count < MANY:
            return Continue(count + 1)
        self.done.set()
        return None


@pytest.mark.parametrize("in_init", [True, False], ids=["in init", "in handle_continue"])
def test_a_row_of_starts_may_be_long(system: ActorSystem, in_init: bool) -> None:
    """Each actor starts the next, 400 times over: all of them live."""
    complete = threading.Event()
    system.start(Nested, DEEP, complete, in_init=in_init)
    assert complete.wait(WAIT_SECONDS)
    assert len(system.processes()) == DEEP + 1


def test_a_start_that_is_nested_deeply_is_told_later(system: ActorSystem) -> None:
    """The first of a row of starts in ``init`` are done at once; further down ``Starting`` is returned."""
    results: list[object] = []

    def start_next(actor: Any) -> None:
        if len(results) < 30:
            results.append(None)
            index = len(results) - 1
            results[index] = actor.system.start_link(Pooled, actor.seen, init=start_next)

    system.start(Pooled, init=start_next)
    last = system.processes()[-1]
    run_in(last, lambda _actor: None)
    assert {type(result) for result in results[:10]} == {Started}
    assert any(type(result) is Starting for result in results)


@pytest.mark.parametrize("by_generator", [False, True], ids=["plain", "generator"])
def test_continue_may_follow_continue_without_end(system: ActorSystem, by_generator: bool) -> None:
    """3,000 continuations in a row are no deeper than one (OTP: ``{continue, Continue}`` is a tail call)."""
    done = threading.Event()
    ref = system.start(Counting, done, by_generator=by_generator)
    assert done.wait(WAIT_SECONDS)
    assert ref.is_alive()


def test_a_continuation_comes_before_what_init_passed_over(system: ActorSystem, server: type[Pooled]) -> None:
    """Messages that ``init`` left in the mailbox while it waited for another are handled after its continuation."""
    seen = Seen()
    known: Seen = Seen()

    def init(actor: Any) -> Receiving:
        known.put(actor.ref)
        yield Receive(lambda message: message == "go")
        return Continue(lambda _actor: seen.put("continued"))

    def start() -> None:
        system.start(server, seen, init=init)

    thread = threading.Thread(target=start)
    thread.start()
    ref: Ref = known.next()
    for message in ("first", "go", "second"):
        ref.send(message)
    assert seen.take(3) == ["continued", "first", "second"]
    thread.join(WAIT_SECONDS)
