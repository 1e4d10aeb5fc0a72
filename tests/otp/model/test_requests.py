"""Random requests to servers that answer, wait, stop and die, against the model of ``gen_server``.

After every stimulus, once nothing runs any more: every call has the one outcome that the model says, or none yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pykka
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from receipt_actors.otp import (
    KILLED,
    NO_PROCESS,
    NO_REPLY,
    NORMAL,
    Continue,
    Crash,
    ExitReason,
    From,
    GenServer,
    Receive,
    Receiving,
    Ref,
    Runtime,
    Stop,
)
from tests.otp.model.common import END_REASONS, PICKS, Boom, picked
from tests.otp.model.quiet_system import QuietSystem
from tests.otp.model.request_model import HOW_CALLS_GO, HOW_CASTS_GO, Call, Cast, Model, Outcome, Server, answer_to
from tests.otp.support import WAIT_SECONDS

#: A call or a cast, the reason where the server stops with it, and which deferred call a cast answers.
MESSAGES = st.tuples(
    st.sampled_from([how for how in HOW_CALLS_GO + HOW_CASTS_GO if "stop" not in how])
    | st.sampled_from(HOW_CALLS_GO + HOW_CASTS_GO),
    END_REASONS,
    PICKS,
)
AT_ONCE = {
    "reply",
    "reply twice",
    "continue and reply",
    "stop with a reply",
    "stop without a reply",
    "reply, then stop",
}
LET_GO = "let go"
OUTSIDE = -1  #: the client that is no actor


class Journal:
    """What happened, as the actors tell it."""

    def __init__(self) -> None:
        self.outcomes: defaultdict[int, list[Outcome]] = defaultdict(list)
        self.froms: dict[int, From] = {}  # of all deferred calls


class PooledServer(GenServer):
    """Does with each call what the call says."""

    def __init__(self, journal: Journal, answers_at_end: bool) -> None:
        self.journal, self.answers_at_end = journal, answers_at_end
        self.deferred: list[Call] = []

    def handle_call(self, call: Call, from_: From) -> Any:
        match call.how:
            case "defer":
                self.deferred.append(call)
                self.journal.froms[call.number] = from_
                return NO_REPLY
            case "continue and reply":
                return Continue((call, from_))
            case "receive, then reply":
                return self._receive(call)
            case "stop with a reply":
                return Stop(call.reason, answer_to(call))
            case "stop without a reply":
                return stop(call.reason)
        if call.how != "reply":
            from_.reply(answer_to(call))
            return stop(call.reason) if call.how == "reply, then stop" else "a second answer"
        return answer_to(call)

    def handle_continue(self, term: tuple[Call, From]) -> None:
        call, from_ = term
        from_.reply(answer_to(call))

    def _receive(self, call: Call) -> Receiving:
        yield Receive(lambda message: message == LET_GO)
        return answer_to(call)

    def handle_cast(self, cast: Cast) -> Any:
        if cast.how == "stop":
            return stop(cast.reason)
        waiting = [call for call in self.deferred if self.journal.froms[call.number].is_wanted()]
        if cast.how.startswith("answer") and waiting:
            call = picked(waiting, cast.pick)
            from_ = self.journal.froms[call.number]
            from_.reply(answer_to(call))
            if cast.how == "answer one twice":
                from_.reply("a second answer")
        return None

    def handle_info(self, message: Any) -> None:
        assert message == LET_GO

    def terminate(self, reason: ExitReason) -> None:
        if self.answers_at_end:
            for call in self.deferred:
                self.journal.froms[call.number].reply(answer_to(call))


class ThreadedServer(PooledServer):
    runtime = Runtime.THREAD


class PooledClient(GenServer):
    """Sends what it is told in one turn, and notes what becomes of it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def handle_cast(self, script: Callable[[PooledClient], None]) -> None:
        script(self)

    def handle_reply(self, label: int, value: Any) -> None:
        self.journal.outcomes[label].append(("reply", value))

    def handle_failure(self, label: int, reason: ExitReason) -> None:
        self.journal.outcomes[label].append(("failure", reason))


class ThreadedClient(PooledClient):
    runtime = Runtime.THREAD


def stop(reason: ExitReason) -> Stop:
    if isinstance(reason, Crash):
        raise reason.exception.with_traceback(None)
    return Stop(reason)


class Requests(RuleBasedStateMachine):
    """Some servers, some clients, and every call that was ever made."""

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.system = QuietSystem()
        self.journal = Journal()
        self.servers: list[tuple[Server, Ref]] = []
        self.clients: list[Ref] = []
        self.calls: list[tuple[Call, Server]] = []
        self.futures: dict[int, pykka.Future[Any]] = {}
        self.start_server(threaded=False, answers_at_end=False)
        self.start_client(threaded=False)

    def teardown(self) -> None:
        if hasattr(self, "system"):
            self.system.close()

    @precondition(lambda self: len(self._living_servers()) < 4)
    @rule(threaded=st.booleans(), answers_at_end=st.booleans())
    def start_server(self, threaded: bool, answers_at_end: bool) -> None:
        server = Server(answers_at_end)
        ref = self.system.start(ThreadedServer if threaded else PooledServer, self.journal, answers_at_end)
        self.servers.append((server, ref))

    @precondition(lambda self: len(self._living_clients()) < 4)
    @rule(threaded=st.booleans())
    def start_client(self, threaded: bool) -> None:
        self.clients.append(self.system.start(ThreadedClient if threaded else PooledClient, self.journal))

    @precondition(lambda self: self._living_clients() and self._living_servers())
    @rule(pick=PICKS, pick_server=PICKS, messages=st.lists(MESSAGES, min_size=1, max_size=6))
    def send(self, pick: int, pick_server: int, messages: list[tuple[str, ExitReason, int]]) -> None:
        """An actor sends several messages to a server in one turn of its own."""
        client = picked(self._living_clients(), pick)
        server, ref = self._server(pick_server)
        sent = [self._message(client, server, *message) for message in messages]

        def script(actor: PooledClient) -> None:
            for message in sent:
                if isinstance(message, Call):
                    actor.send_request(ref, message, message.number)
                else:
                    send_cast(ref, message)

        self.clients[client].cast(script)
        self.model.send(server, sent)
        self._compare()

    @precondition(lambda self: self._living_servers())
    @rule(pick_server=PICKS, messages=st.lists(MESSAGES, min_size=1, max_size=3))
    def ask_from_outside(self, pick_server: int, messages: list[tuple[str, ExitReason, int]]) -> None:
        """A thread that is no actor's asks without waiting; each message is handled before the next is sent."""
        server, ref = self._server(pick_server)
        for message in messages:
            sent = self._message(OUTSIDE, server, *message)
            if isinstance(sent, Call):
                self.futures[sent.number] = ref.ask(sent, block=False)
            else:
                send_cast(ref, sent)
            self.model.send(server, [sent])
            self._compare()

    @precondition(lambda self: self._threaded_clients() and self._living_servers())
    @rule(pick=PICKS, pick_server=PICKS, how=st.sampled_from(sorted(AT_ONCE)), reason=END_REASONS)
    def call_and_wait(self, pick: int, pick_server: int, how: str, reason: ExitReason) -> None:
        """An actor with a thread of its own waits for an answer that comes at once."""
        client = picked(self._threaded_clients(), pick)
        server, ref = self._server(pick_server)
        if server.receiving is not None:
            return
        call = self._message(client, server, how, reason, 0)

        def script(actor: PooledClient) -> None:
            self._note(call.number, lambda: ref.call(call, WAIT_SECONDS))

        self.clients[client].cast(script)
        self.model.send(server, [call])
        self._compare()

    @precondition(lambda self: self.journal.froms)
    @rule(pick=PICKS, by_client=st.booleans())
    def answer_for_the_server(self, pick: int, by_client: bool) -> None:
        """Whoever has its ``From`` answers a call that was deferred: in time, too late or again."""
        number = picked(sorted(self.journal.froms), pick)
        call, server = self.calls[number]
        from_ = self.journal.froms[number]
        if by_client and self._living_clients():
            client = picked(self._living_clients(), pick)
            self.clients[client].cast(lambda _actor: from_.reply(answer_to(call)))
        else:
            from_.reply(answer_to(call))
        self.model.answer(server, call)
        self._compare()

    @precondition(lambda self: self._living_servers())
    @rule(pick_server=PICKS, reason=END_REASONS | st.just(KILLED))
    def end_server(self, pick_server: int, reason: ExitReason) -> None:
        server, ref = self._server(pick_server)
        if reason == KILLED:
            ref.kill()
            self.model.exit(server, KILLED)
        elif reason != NORMAL:
            ref.exit(reason)
            self.model.exit(server, reason)
        self._compare()

    @precondition(lambda self: self._living_clients())
    @rule(pick=PICKS)
    def kill_client(self, pick: int) -> None:
        client = picked(self._living_clients(), pick)
        self.clients[client].kill()
        self.model.end_client(client)
        self._compare()

    @precondition(lambda self: self._living_clients() and self._living_servers())
    @rule(pick=PICKS, pick_server=PICKS, count=st.integers(1, 8))
    def race_with_a_kill(self, pick: int, pick_server: int, count: int) -> None:
        """Calls are sent while their server is killed: some first ones are answered, all others fail."""
        client = picked(self._living_clients(), pick)
        server, ref = self._server(pick_server)
        before = server.alive and server.receiving is None
        calls = [self._message(client, server, "reply", NORMAL, 0) for _ in range(count)]

        def script(actor: PooledClient) -> None:
            for call in calls:
                actor.send_request(ref, call, call.number)

        self.clients[client].cast(script)
        ref.kill()
        self.system.settle()
        self.model.exit(server, KILLED)
        outcomes = [self.journal.outcomes[call.number] for call in calls]
        assert all(len(each) == 1 for each in outcomes)
        answered = sum(each[0][0] == "reply" for each in outcomes)
        assert before or not answered
        for call, outcome in zip(calls, outcomes, strict=True):
            expected = ("reply", answer_to(call)) if call in calls[:answered] else ("failure", outcome[0][1])
            assert outcome == [expected]
            assert expected[0] == "reply" or expected[1] in (KILLED, NO_PROCESS, server.reason)
            self.model.outcomes[call.number] = expected
        self._compare()

    # --- who, and what ---

    def _living_servers(self) -> list[Server]:
        return [server for server, _ in self.servers if server.alive]

    def _living_clients(self) -> list[int]:
        return [client for client in range(len(self.clients)) if client not in self.model.dead_clients]

    def _threaded_clients(self) -> list[int]:
        return [each for each in self._living_clients() if self.clients[each].actor_class is ThreadedClient]

    def _server(self, pick: int) -> tuple[Server, Ref]:
        """Return one of those that live, or sometimes any."""
        living = [each for each in self.servers if each[0].alive]
        return picked(self.servers if pick % 8 == 7 else living, pick)

    def _message(self, client: int, server: Server, how: str, reason: ExitReason, pick: int) -> Any:
        if how in HOW_CASTS_GO:
            return Cast(how, reason, pick)
        call = Call(len(self.calls), client, how, reason)
        self.calls.append((call, server))
        return call

    def _note(self, number: int, call: Callable[[], Any]) -> None:
        """Write down what becomes of a call whose failure is an exception."""
        try:
            outcome: Outcome = "reply", call()
        except (pykka.ActorDeadError, Boom) as error:
            outcome = "failure", error
        self.journal.outcomes[number].append(outcome)

    # --- comparing ---

    def _compare(self) -> None:
        self.system.settle()
        for number, future in list(self.futures.items()):
            try:
                self._note(number, lambda future=future: future.get(timeout=0))
            except pykka.Timeout:
                continue
            del self.futures[number]
        servers = {ref for server, ref in self.servers if server.alive}
        assert set(self.system.processes()) == servers | {self.clients[client] for client in self._living_clients()}
        outcomes = {number: outcome for number, outcome in self.journal.outcomes.items() if outcome}
        assert outcomes.keys() == self.model.outcomes.keys()
        for number, (outcome,) in outcomes.items():
            assert_same(outcome, self.model.outcomes[number])


def send_cast(ref: Ref, cast: Cast) -> None:
    if cast.how == "let go":
        ref.send(LET_GO)
    else:
        ref.cast(cast)


def assert_same(actual: Outcome, expected: Outcome) -> None:
    """Compare outcomes; who calls or asks gets an exception for a reason."""
    if isinstance(actual[1], pykka.ActorDeadError):
        actual = "failure", expected[1]
    elif isinstance(actual[1], Boom):
        actual = "failure", Crash(actual[1])
    assert actual == expected


TestRequests = Requests.TestCase
TestRequests.settings = settings(
    max_examples=2 * settings().max_examples,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
