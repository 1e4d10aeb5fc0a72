"""One log line for each decision about a message, in words and as fields of the record (``logs.FIELDS``).

Answers have a logger of their own, which is quiet unless its level is set to INFO, as the setting ``log_decisions``
does: a line for each receipt would be most of a log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from receipt_actors.domain.messages import Result
from receipt_actors.domain.reasons import Reason

LOGGER = "receipt_actors.decisions"
ANSWERED_LOGGER = f"{LOGGER}.answered"

_NOT_ITS_OWN = frozenset({Reason.DRAINED, Reason.GROUP_HANDED_BACK})  #: not about the message itself

_SHOWN = ("transaction_id", "verdict", "reason")  #: of a result

_logger = logging.getLogger(LOGGER)
_answered_logger = logging.getLogger(ANSWERED_LOGGER)
if _answered_logger.level == logging.NOTSET:  # else the program has set a level already
    _answered_logger.setLevel(logging.WARNING)


def log_answered(message_id: str, user_id: int, results: Sequence[Result], seconds: float) -> None:
    """Log the answers of a message, once they are confirmed and it is deleted."""
    if not _answered_logger.isEnabledFor(logging.INFO):
        return
    told = "; ".join(f"transaction {each.transaction_id} is {each.verdict}, {each.reason}" for each in results)
    fields = {
        "event": "answered",  # not summed up: an operator asked for all of them
        "message_id": message_id,
        "user_id": user_id,
        "seconds": round(seconds, 3),
        "results": [
            {name: getattr(each, name) for name in ("transaction_id", "verdict", "reason")} for each in results
        ],
    }
    words = "message %s of user %d answered after %.3f s: %s"
    _answered_logger.info(words, message_id, user_id, seconds, told, extra=fields)


def log_moved(message_id: str, reason: Reason, detail: str, seconds: float) -> None:
    """Log that a message is on the dead-letter queue, and deleted."""
    fields = {"fate": "moved", "message_id": message_id, "reason": reason, "seconds": round(seconds, 3)}
    _logger.info("message %s moved, %s: %s", message_id, reason, detail, extra=fields)


def log_handed_back(message_id: str, reason: Reason, detail: str, seconds: float) -> None:
    """Log that a message comes back later, and what kept it from being answered."""
    fields = {"fate": "handed_back", "message_id": message_id, "reason": reason, "seconds": round(seconds, 3)}
    level = logging.INFO if reason in _NOT_ITS_OWN else logging.WARNING
    _logger.log(level, "message %s is handed back, %s: %s", message_id, reason, detail, extra=fields)


def log_left(message_id: str, reason: Reason, detail: str) -> None:
    """Log that a delivery was left as it is."""
    fields = {"fate": "left", "message_id": message_id, "reason": reason}
    _logger.warning("message %s %s", message_id, detail, extra=fields)
