"""A door with a code lock: the example of OTP's design principles, as a ``GenStateMachine``."""

from __future__ import annotations

from typing import Any

from receipt_actors.otp import (
    ActorSystem,
    ManualClock,
)
from receipt_actors.otp.gen_statem import (
    Call,
    Cast,
    Enter,
    Event,
    EventTimeout,
    GenStateMachine,
    StateResult,
    StateTimeout,
    event_timeout,
    keep_state,
    next_state,
    postpone,
    reply,
    state_timeout,
)


class CodeLock(GenStateMachine):
    """Open for ten seconds after the right buttons; what is pressed while it is open counts afterwards."""

    state_enter = True

    def __init__(self, code: str) -> None:
        self.code = code
        self.pressed = ""

    def init(self) -> Any:
        """Start locked."""
        return next_state("locked")

    def locked(self, event: Event | Enter) -> StateResult:
        """Collect buttons; half a minute without any forgets them."""
        match event:
            case Enter() | EventTimeout():
                self.pressed = ""
                return keep_state()
            case Cast(button):
                self.pressed += button
                if self.pressed.endswith(self.code):
                    return next_state("open")
                return keep_state(event_timeout(30.0))
            case _:
                return self.in_any_state(event)

    def open(self, event: Event | Enter) -> StateResult:
        """Let people pass."""
        match event:
            case Enter():
                return keep_state(state_timeout(10.0, "lock"))
            case StateTimeout("lock"):
                return next_state("locked")
            case Cast():
                return keep_state(postpone())
            case _:
                return self.in_any_state(event)

    def in_any_state(self, event: Event | Enter) -> StateResult:
        """Tell the state; anything else is a mistake, and ends the lock."""
        match event:
            case Call("state", from_):
                return keep_state(reply(from_, self.state))
        raise ValueError(f"a lock knows nothing of {event}")


def main() -> None:
    """Press some buttons; the clock stands still until it is told otherwise, so nothing has to wait."""
    clock = ManualClock()
    with ActorSystem(clock=clock) as system:
        lock = system.start(CodeLock, "1234", name="lock")
        for button in "0123456":
            lock.cast(button)
        print(lock.call("state"))
        clock.advance(10.0)
        print(lock.call("state"))


if __name__ == "__main__":
    main()
