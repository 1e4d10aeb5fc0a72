"""What can be traced, and the filters that choose from it; the manual (tracing) says what filters match."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from receipt_actors.errors import TraceRefused

MAX_VALUES: Final = 50  #: of all filters of a trace together
MAX_VALUE_CHARACTERS: Final = 200
EVENT: Final = "event"  #: the filter that names events
SLOWER_THAN: Final = "slower_than"  #: the filter of messages that were received more than so many seconds ago
_AGE: Final = "seconds_since_received"


@dataclass(frozen=True, slots=True)
class EventDescription:
    happens: str  #: when
    fields: tuple[str, ...]  #: that it may have


@dataclass(frozen=True, slots=True)
class Field:
    holds: str
    option: str | None = None  #: of ``receipt-actors trace``, which filters by it
    is_number: bool = False


#: Every field of events.
FIELDS: Final[Mapping[str, Field]] = {
    "process": Field("``main``, or ``worker-1`` and so on", "process"),
    "message_id": Field("SQS's ``MessageId`` of the source message", "message"),
    "receive_count": Field("which delivery of it this is", "receive-count", is_number=True),
    "source_queue": Field("the queue that it was received from", "queue"),
    "user_id": Field("whose purchase it is to be", "user", is_number=True),
    "submission_id": Field("which sending of a receipt", "submission"),
    "post_queue": Field("where the answer goes", "post-queue"),
    "seconds_since_received": Field("since it was received"),
    "seconds": Field("what the step took that is over"),
    "outcome": Field(
        "``genuine``, ``unidentified``, ``try_again`` or ``misconfigured`` of ``verified``; ``new``, ``ours``, "
        "``same_user``, ``other_user``, ``refunded`` or ``free`` of ``claimed``",
        "outcome",
    ),
    "transaction_id": Field("Apple's id of the purchase", "transaction"),
    "verdict": Field("``OK`` or ``INVALID``", "verdict"),
    "reason": Field(
        "why, as in the message attribute; of ``exited``: ``normal``, ``shutdown``, ``crash`` or ``killed``", "reason"
    ),
    "actor": Field("its registered name, such as ``result_batcher ResultsSQS``, else what it is", "actor"),
    "message": Field("type of the message; of ``crashed``, of the exception", "type"),
    "peer": Field("the actor that it goes to", "peer"),
}

_DELIVERY = ("process", "message_id", "receive_count", "source_queue")
_RECEIVED = (*_DELIVERY, "user_id", "submission_id", "post_queue")
_SUBMISSION = (*_RECEIVED, "seconds_since_received")
_ACTOR = ("process", "actor", "message")


def _described(rows: Mapping[str, tuple[str, ...]]) -> Mapping[str, EventDescription]:
    return {event: EventDescription(happens, tuple(fields)) for event, (happens, *fields) in rows.items()}


#: Every event of a message, in the order in which it meets them: when it happens, and its fields.
MESSAGE_EVENTS: Final = _described({
    "received": ("a message was received; it has a ``reason`` where it can't be answered", *_RECEIVED, "reason"),
    "left": ("it arrived corrupt and is left to be redelivered", *_DELIVERY, "reason"),
    "verify": ("Apple is to be asked", *_SUBMISSION),
    "verified": ("Apple's answer is understood", *_SUBMISSION, "outcome", "reason", "seconds"),
    "claim": ("a transaction is to be claimed", *_SUBMISSION, "transaction_id"),
    "look_up": ("the ledger is to say whose a transaction is, without a claim", *_SUBMISSION, "transaction_id"),
    "claimed": ("the ledger has answered a claim, or a look-up", *_SUBMISSION, "transaction_id", "outcome", "seconds"),
    "reply": ("an answer is to be sent", *_SUBMISSION, "transaction_id", "verdict", "reason"),
    "replied": ("its queue has confirmed it", *_SUBMISSION, "transaction_id", "verdict", "reason", "seconds"),
    "move": ("the message is to be moved to the dead-letter queue", *_SUBMISSION, "reason"),
    "delete": ("the source message is to be deleted", *_SUBMISSION),
    "answered": ("it is deleted, after its answer: the end", *_SUBMISSION, "seconds"),
    "moved": ("it is deleted, after its move: the end", *_SUBMISSION, "reason", "seconds"),
    "handed_back": ("it comes back later: the end of this delivery", *_SUBMISSION, "reason"),
})  # fmt: skip

#: Every event of an actor.
ACTOR_EVENTS: Final = _described({
    "call": ("it got a request that wants an answer", *_ACTOR),
    "cast": ("it got a request that wants none", *_ACTOR),
    "info": ("it got any other message", *_ACTOR),
    "returned": ("it got the answer to a request of its own", *_ACTOR),
    "sent": ("it sent a message, or an answer", *_ACTOR, "peer"),
    "crashed": ("a callback of it raised an exception", *_ACTOR),
    "exited": ("it has ended", "process", "actor", "reason"),
})  # fmt: skip

EVENTS: Final[Mapping[str, EventDescription]] = {**MESSAGE_EVENTS, **ACTOR_EVENTS}
#: What filters may name.
FILTERS: Final = (EVENT, *(name for name, field in FIELDS.items() if field.option), SLOWER_THAN)


class TraceFilter:
    """Values by filter (``FILTERS``). Raises ``TraceRefused`` if no event could match, or a filter can't be read."""

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        if not isinstance(filters, Mapping) or not all(map(_is_list_of_text, filters.values())):
            raise TraceRefused('filters: expected lists of strings by name, such as {"user_id": ["42"]}')
        if sum(map(len, filters.values())) > MAX_VALUES:
            raise TraceRefused(f"a trace has at most {MAX_VALUES} values to filter by")
        self._tests = {name: _test_of(name, values) for name, values in filters.items() if values}
        is_named = self._tests.pop(EVENT, None) or (lambda _event: True)
        named = [event for event in EVENTS if is_named(event)]
        fields = {_AGE if name == SLOWER_THAN else name for name in self._tests}
        #: the events that are named and have all fields that are filtered by
        self.events: frozenset[str] = frozenset(event for event in named if fields <= set(EVENTS[event].fields))
        if not named:
            raise TraceRefused(f"no event is called {' or '.join(filters[EVENT])}{_hint(filters[EVENT], EVENTS)}")
        if not self.events:
            raise TraceRefused(f"no event that is named here has all of {', '.join(sorted(fields))}")

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Return whether an event of ``events`` with these fields is wanted; None stands for a missing field."""
        for name, test in self._tests.items():
            value = fields.get(_AGE if name == SLOWER_THAN else name)
            if value is None or not test(value):
                return False
        return True

    def accepts(self, field: str, value: object) -> bool:
        return field not in self._tests or self._tests[field](value)


def _is_list_of_text(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)


def _test_of(name: str, values: Sequence[str]) -> Callable[[Any], bool]:
    if name not in FILTERS:
        raise TraceRefused(
            f"found {name[:MAX_VALUE_CHARACTERS]}, expected a filter{_hint([name], FILTERS)}: {', '.join(FILTERS)}"
        )
    if not all(value and len(value) <= MAX_VALUE_CHARACTERS for value in values):
        raise TraceRefused(f"{name}: expected 1 to {MAX_VALUE_CHARACTERS} characters")
    if name == SLOWER_THAN:
        return _slower_than(values)
    if name in FIELDS and FIELDS[name].is_number:
        for value in values:
            if not re.fullmatch(r"!?-?[0-9*?]+", value, re.ASCII):
                raise TraceRefused(f"{name}: expected a number, not {value}")
    wanted = _any_of(value for value in values if not value.startswith("!"))
    unwanted = _any_of(value[1:] for value in values if value.startswith("!"))

    def test(found: object) -> bool:
        text = str(found.value if isinstance(found, Enum) else found)
        return (wanted is None or wanted(text)) and not (unwanted is not None and unwanted(text))

    return test


def _any_of(patterns: Iterable[str]) -> Callable[[str], bool] | None:
    # ``fnmatch`` writes atomic groups, so no text takes long.
    tests = [re.compile(fnmatch.translate(pattern)).match for pattern in patterns]
    return (lambda text: any(test(text) for test in tests)) if tests else None


def _slower_than(values: Sequence[str]) -> Callable[[float], bool]:
    try:
        (seconds,) = map(float, values)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise TraceRefused(f"{SLOWER_THAN}: expected one number of seconds, not {', '.join(values)}")
    return lambda found: found > seconds


def _hint(found: Sequence[str], names: Iterable[str]) -> str:
    near = difflib.get_close_matches(found[0].lower(), list(names), 3, 0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
