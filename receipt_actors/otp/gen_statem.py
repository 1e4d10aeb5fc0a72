"""``gen_statem``: state machines, and the words to write them with (Erlang's ``gen_statem`` module).

::

    from receipt_actors.otp.gen_statem import Cast, GenStateMachine, keep_state, next_state, postpone, state_timeout

The words are kept out of ``receipt_actors.otp`` itself because many are short ones (``Call``, ``Info``, ``reply``).
"""

from receipt_actors.otp._gen_state_machine import GenStateMachine
from receipt_actors.otp._state_machine_actions import (
    CANCEL,
    UPDATE,
    Action,
    Call,
    Cast,
    Enter,
    Event,
    EventTimeout,
    Failed,
    GenericTimeout,
    Info,
    Internal,
    Replied,
    StateResult,
    StateTimeout,
    Transition,
    event_timeout,
    generic_timeout,
    keep_state,
    next_event,
    next_state,
    postpone,
    repeat_state,
    reply,
    state_timeout,
    stop_and_reply,
)

__all__ = [
    "CANCEL",
    "UPDATE",
    "Action",
    "Call",
    "Cast",
    "Enter",
    "Event",
    "EventTimeout",
    "Failed",
    "GenStateMachine",
    "GenericTimeout",
    "Info",
    "Internal",
    "Replied",
    "StateResult",
    "StateTimeout",
    "Transition",
    "event_timeout",
    "generic_timeout",
    "keep_state",
    "next_event",
    "next_state",
    "postpone",
    "repeat_state",
    "reply",
    "state_timeout",
    "stop_and_reply",
]
