"""The signature gateway: has signed data verified again that the App Store gateway could not have verified at once.

It gets what fails there for a reason that may pass (no process for signatures can be started, say), and treats it as
every gateway treats requests in an outage. A crash of it forgets them; their messages are handed back.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.pipeline.gateway import Gateway, Job
from receipt_actors.pipeline.protocol import VerifySignature
from receipt_actors.stores.apple.ports import SignedDataCalls, SignedKind


class SignatureGateway(Gateway):
    """See the module."""

    def __init__(self, signed_data: SignedDataCalls, limits: LiveLimits, retry: RetryPolicy) -> None:
        super().__init__("signatures", limits.whole.max_in_flight, retry)
        self._signed_data = signed_data
        self._limits = limits

    def message_of(self, job: Job) -> Hashable:
        request: VerifySignature = job.request
        return request.message_id

    def carry_out(self, batch: tuple[Job, ...]) -> None:
        self.run_async(batch, self._signed_data.begin, SignedKind.TRANSACTION, batch[0].request.signed)

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        batch[0].from_.reply(answer)

    @property
    def stops_receiving(self) -> bool:
        """See ``Gateway``: app receipts need no signature. What is kept here leaves half of the room to them."""
        return self.outside_view().waiting >= self._limits.current.max_in_flight // 2
