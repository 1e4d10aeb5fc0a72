"""The mover: has one message that cannot be answered sent to the dead-letter queue, then deleted."""

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
        return self.move(self._unanswerable)
