"""The limits keeper: has the limits changed while everything runs, and says when that is true.

It owns the changes under way. New work keeps to new limits as soon as they hold; what was begun before is not stopped,
so a change is answered only when intake and both gateways have no more under way than is allowed now. A crash of it
forgets who waits for that, and they ask again; the limits stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from receipt_actors.actors.protocol import (
    APP_STORE_GATEWAY,
    INTAKE,
    LEDGER_GATEWAY,
    ChangeLimits,
    Done,
    ObeyLimits,
)
from receipt_actors.domain.limits import LiveLimits
from receipt_actors.otp import NO_REPLY, ExitReason, From, GenServer, Name

ASK_AGAIN_SECONDS = 0.1  #: an actor that is being restarted

_SUBJECTS: tuple[Name, ...] = (INTAKE, APP_STORE_GATEWAY, LEDGER_GATEWAY)


@dataclass(frozen=True, slots=True)
class _Question:
    """To one subject, about one change; also to itself: ask once more."""

    subject: Name
    change: int


class LimitsKeeper(GenServer):
    """See the module."""

    def __init__(self, limits: LiveLimits) -> None:
        self._limits = limits
        self._changes = 0
        self._not_heard: set[Name] = set()  # about the newest change
        self._waiting: list[From] = []  # for the newest change, whichever they asked for

    def handle_call(self, request: Any, from_: From) -> Any:
        """Let new limits hold, and have everyone look at them."""
        if not isinstance(request, ChangeLimits):
            return super().handle_call(request, from_)
        self._limits.change(request.limits)
        self._changes += 1
        self._waiting.append(from_)
        self._not_heard = set(_SUBJECTS)
        for subject in _SUBJECTS:
            self._ask(_Question(subject, self._changes))
        return NO_REPLY

    def _ask(self, question: _Question) -> None:
        if question.change == self._changes:
            self.send_request(question.subject, ObeyLimits(), question)

    def handle_reply(self, label: Any, value: Any) -> None:
        """One of them keeps to the limits; say so when all of them do."""
        if label.change != self._changes:
            return
        self._not_heard.discard(label.subject)
        if not self._not_heard:
            for from_ in self._waiting:
                from_.reply(Done())
            self._waiting.clear()

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        """It is being restarted: its successor is to say what is under way."""
        self.send_after(ASK_AGAIN_SECONDS, label)

    def handle_info(self, message: Any) -> Any:
        """Ask once more."""
        if isinstance(message, _Question):
            self._ask(message)
            return None
        return super().handle_info(message)
