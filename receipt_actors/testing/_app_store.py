"""``FakeAppStore``: Apple's verifyReceipt, answering as a test says."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

from receipt_actors.domain.ports import Environment
from receipt_actors.testing._faults import Fake

#: What the store answers, or raises.
Answer: TypeAlias = Mapping[str, object] | BaseException


def receipt_data_of(text: str) -> str:
    """Make a string that passes for a receipt out of any text."""
    return base64.b64encode(text.encode()).decode()


def genuine(
    *transaction_ids: str,
    bundle_id: str = "com.example.game",
    product_id: str = "coins_100",
    environment: Environment = Environment.PRODUCTION,
    **fields: str,
) -> Mapping[str, object]:
    """Make Apple's answer for a receipt with these purchases, the first the oldest; ``fields`` go into each of them."""
    in_app = [
        {
            "transaction_id": transaction_id,
            "product_id": product_id,
            "purchase_date_ms": str(1_700_000_000_000 + 1000 * number),
            **fields,
        }
        for number, transaction_id in enumerate(transaction_ids)
    ]
    return {
        "status": 0,
        "environment": environment.value,
        "receipt": {"bundle_id": bundle_id, "in_app": in_app},
    }


class FakeAppStore(Fake):
    """See ``domain.ports.AppStore``.

    ``answer`` is asked about receipts that no ``script`` was given for; by default they are not authentic (21003).
    """

    operations: ClassVar[frozenset[str]] = frozenset({"verify_receipt"})

    def __init__(self, answer: Callable[[str, Environment], Answer] = lambda _data, _environment: {"status": 21003}):
        super().__init__()
        self._answer = answer
        self._scripts: dict[str, list[Answer]] = {}
        self._requests: Counter[tuple[str, Environment]] = Counter()

    # --- what only a test does ---

    def script(self, receipt_data: str, *answers: Answer) -> None:
        """Say what to answer for a receipt: each answer once, and the last one for ever. An exception is raised."""
        if not answers:
            raise ValueError("a script has at least one answer")
        with self._changed:
            self._scripts[receipt_data] = list(answers)

    def sell(self, *transaction_ids: str, bundle_id: str = "com.example.game") -> str:
        """Make a genuine receipt with these purchases, and return its data."""
        receipt_data = receipt_data_of(f"{bundle_id} {' '.join(transaction_ids)}")
        self.script(receipt_data, genuine(*transaction_ids, bundle_id=bundle_id))
        return receipt_data

    def requests(self, receipt_data: str, environment: Environment | None = None) -> int:
        """Count the requests for a receipt that reached the store, at one endpoint or at both."""
        with self._changed:
            environments = [environment] if environment is not None else list(Environment)
            return sum(self._requests[receipt_data, each] for each in environments)

    # --- the port ---

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """See ``AppStore.verify_receipt``."""

        def work() -> Mapping[str, object]:
            with self._changed:
                self._requests[receipt_data, environment] += 1
                script = self._scripts.get(receipt_data)
                answer = None if script is None else script.pop(0) if len(script) > 1 else script[0]
            if answer is None:
                answer = self._answer(receipt_data, environment)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return self._carry_out("verify_receipt", work)
