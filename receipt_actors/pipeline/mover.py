"""The mover: responsible for one message that cannot be answered; has it sent to the dead-letter queue, then deleted.

No validator is started for such a message (not JSON, fields missing, ...), but it must not be lost either. See
``processor`` for what a crash forgets.
"""

from __future__ import annotations

from receipt_actors.domain.messages import Unanswerable
from receipt_actors.domain.policy import Source
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.pipeline.processor import Processor, Work


class Mover(Processor):
    def __init__(
        self, source: Source, delivery: ReceivedMessage, unanswerable: Unanswerable, since_seconds: float
    ) -> None:
        super().__init__(source, delivery, since_seconds)
        self._unanswerable = unanswerable

    def work(self) -> Work:
        """Move the message at once."""
        return self.move(self._unanswerable)
