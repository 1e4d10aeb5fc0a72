"""A pure model of how ``gen_server`` handles requests, written from its manual: what becomes of every call.

A server takes its mailbox in order. A call is answered at once, or later through its ``From``, by whoever has it; a
selective receive in ``handle_call`` lets everything else wait. Where the server ends first, a call that it had, begun
or not, fails with the reason of its end; one that comes later fails with ``NO_PROCESS``. Nobody is told twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from receipt_actors.otp import KILLED, NO_PROCESS, ExitReason

#: A reply, or why there is none.
Outcome = tuple[str, object]


@dataclass(frozen=True, eq=False)
class Call:
    """One call, and what its server is to do with it."""

    number: int
    client: int
    how: str  # one of HOW_CALLS_GO
    reason: ExitReason  # where the server stops with it


@dataclass(frozen=True, eq=False)
class Cast:
    """Something else that is sent; "let go" is what a ``handle_call`` waits for that receives selectively."""

    how: str  # one of HOW_CASTS_GO
    reason: ExitReason
    pick: int  # which deferred call it is about


HOW_CALLS_GO = (
    "reply",
    "reply twice",
    "defer",
    "continue and reply",
    "receive, then reply",
    "stop with a reply",
    "stop without a reply",
    "reply, then stop",
)
HOW_CASTS_GO = ("answer one", "answer one twice", "let go", "stop", "nothing")


def answer_to(call: Call) -> str:
    """What an answer says."""
    return f"answer {call.number}"


@dataclass(eq=False)
class Server:
    """What is known of one server; ``answers_at_end``: its ``terminate`` answers whom it still owes an answer."""

    answers_at_end: bool
    alive: bool = True
    reason: ExitReason = NO_PROCESS  #: why it ended
    mailbox: deque[Call | Cast] = field(default_factory=deque)
    deferred: list[Call] = field(default_factory=list)
    receiving: Call | None = None  #: whose ``handle_call`` waits for a message


class Model:
    """What became of every call, by its number; who has no outcome waits, or has ended."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.dead_clients: set[int] = set()

    def send(self, server: Server, messages: list[Call | Cast]) -> None:
        """A client sends these, and the server handles them."""
        if not server.alive:
            self._fail([each for each in messages if isinstance(each, Call)], NO_PROCESS)
            return
        server.mailbox.extend(messages)
        self._work(server)

    def answer(self, server: Server, call: Call) -> None:
        """Somebody else answers a deferred call: in time, too late or again."""
        if call in server.deferred:
            server.deferred.remove(call)
            self._answer(call)

    def kill(self, server: Server) -> None:
        """End it at once."""
        if server.alive:
            self._end(server, KILLED, answers=False)

    def exit(self, server: Server, reason: ExitReason) -> None:
        """An exit signal of a stranger ends it, as it does not trap exits."""
        if server.alive:
            self._end(server, reason, answers=False)

    def end_client(self, client: int) -> None:
        """Nobody learns what becomes of its calls."""
        self.dead_clients.add(client)

    def _work(self, server: Server) -> None:
        while server.alive and server.mailbox:
            message: Call | Cast | None
            if server.receiving is not None:
                message = next((each for each in server.mailbox if each.how == "let go"), None)
                if message is None:
                    break
                server.mailbox.remove(message)
                self._answer(server.receiving)
                server.receiving = None
                continue
            message = server.mailbox.popleft()
            if isinstance(message, Call):
                self._handle_call(server, message)
            else:
                self._handle_cast(server, message)

    def _handle_call(self, server: Server, call: Call) -> None:
        match call.how:
            case "defer":
                server.deferred.append(call)
            case "receive, then reply":
                server.receiving = call
            case "stop without a reply":
                server.receiving = call
                self._end(server, call.reason, answers=True)
            case "stop with a reply" | "reply, then stop":
                self._answer(call)
                self._end(server, call.reason, answers=True)
            case _:
                self._answer(call)

    def _handle_cast(self, server: Server, cast: Cast) -> None:
        if cast.how == "stop":
            self._end(server, cast.reason, answers=True)
        elif cast.how.startswith("answer"):
            wanted = [call for call in server.deferred if call.client not in self.dead_clients]
            if wanted:
                call = wanted[cast.pick % len(wanted)]
                server.deferred.remove(call)
                self._answer(call)

    def _end(self, server: Server, reason: ExitReason, *, answers: bool) -> None:
        server.alive, server.reason = False, reason
        if answers and server.answers_at_end:
            for call in server.deferred:
                self._answer(call)
        else:
            self._fail(server.deferred, reason)
        waiting = [] if server.receiving is None else [server.receiving]
        self._fail([*waiting, *(each for each in server.mailbox if isinstance(each, Call))], reason)
        server.deferred, server.receiving = [], None
        server.mailbox.clear()

    def _answer(self, call: Call) -> None:
        self._note(call, ("reply", answer_to(call)))

    def _fail(self, calls: list[Call], reason: ExitReason) -> None:
        for call in calls:
            self._note(call, ("failure", reason))

    def _note(self, call: Call, outcome: Outcome) -> None:
        assert call.number not in self.outcomes
        if call.client not in self.dead_clients:
            self.outcomes[call.number] = outcome
