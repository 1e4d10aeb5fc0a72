"""A state machine whose rules a test writes down as a table, and the log of what happens to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from receipt_actors.otp import ActorSystem, ExitReason, From, Ref, Runtime
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.gen_statem import Call, Enter, GenericTimeout, GenStateMachine, keep_state, next_state, reply
from tests.otp.support import WAIT_SECONDS, Seen

#: For "state content", or "state" and an enter call: the result, or who makes it from machine and event.
Table: TypeAlias = Mapping[str, Any]


class TableMachine(GenStateMachine):
    """Looks up what to return; logs each event as "state Type content". A call that the table does not know is kept."""

    def __init__(self, seen: Seen, table: Table, first: Any = None) -> None:
        self.seen = seen
        self.table = table
        self.first = next_state("a") if first is None else first
        self.calls: list[From] = []

    def init(self) -> Any:
        return self.first() if callable(self.first) else self.first

    def terminate(self, reason: ExitReason) -> Any:
        self.seen.put(f"{self.state} terminate")

    def answer(self, value: object) -> list[Any]:
        """Make the replies to all calls that were kept."""
        return [reply(from_, value) for from_ in self.calls]

    def in_state(self, state: str, event: Any) -> Any:
        assert self.state == state
        if isinstance(event, Call):
            self.calls.append(event.from_)
            content = event.request
        else:
            content = getattr(event, fields(event)[-1].name)
        name = event.name if isinstance(event, GenericTimeout) else type(event).__name__
        self.seen.put(f"{state} {name} {content}")
        result = self.table.get(state if isinstance(event, Enter) else f"{state} {content}", keep_state())
        return result(self, event) if callable(result) else result

    def a(self, event: Any) -> Any:
        return self.in_state("a", event)

    def b(self, event: Any) -> Any:
        return self.in_state("b", event)

    def c(self, event: Any) -> Any:
        return self.in_state("c", event)


def state_of(ref: Ref) -> Any:
    """Wait until a machine has handled what is in its mailbox, without any event; return its state."""
    return otp_sys.get_state(ref, WAIT_SECONDS)[0]


class Machines:
    """Starts table machines in one system, on one runtime, with one log."""

    def __init__(self, system: ActorSystem, runtime: Runtime) -> None:
        self.seen = Seen()
        self._system = system
        self._runtime = runtime

    def start(self, table: Table, first: Any = None, *, state_enter: bool = False, trap_exit: bool = False) -> Ref:
        return self._system.start(self.a_class(state_enter, trap_exit), self.seen, table, first)

    def a_class(self, state_enter: bool = False, trap_exit: bool = False) -> type[TableMachine]:
        attributes = {"runtime": self._runtime, "state_enter": state_enter, "trap_exit": trap_exit}
        return type("TableMachine", (TableMachine,), attributes)

    def log(self, ref: Ref) -> list[str]:
        """What has happened since the last look, once the mailbox is empty."""
        state_of(ref)
        return self.seen.rest()

    def run(self, table: Table, *requests: str, first: Any = None, state_enter: bool = False) -> list[str]:
        """Start a machine, cast the requests one by one, and return the log."""
        ref = self.start(table, first, state_enter=state_enter)
        for request in requests:
            ref.cast(request)
        return self.log(ref)
