"""``FakeServerApi``: the App Store Server API, which knows what a test has sold."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from receipt_actors.domain.ports import Environment
from receipt_actors.testing._app_store import Answer, receipt_data_of
from receipt_actors.testing._faults import Fake
from receipt_actors.testing._signed_data import FakeSignedData

_RECEIPT = "app receipt with "
NOT_FOUND = {"errorCode": 4040010, "errorMessage": "Transaction id not found."}


class FakeServerApi(Fake):
    """See ``domain.ports.ServerApi``; what it answers is signed by ``signed_data``."""

    operations: ClassVar[frozenset[str]] = frozenset({"transaction_id_of", "get_transaction_info"})

    def __init__(self, signed_data: FakeSignedData) -> None:
        super().__init__()
        self._signed_data = signed_data
        self._scripts: dict[str, list[Answer]] = {}
        self._sold: dict[tuple[str, Environment], Mapping[str, object]] = {}
        self._requests: Counter[tuple[str, Environment]] = Counter()

    # --- what only a test does ---

    def receipt_of(self, transaction_id: str) -> str:
        """Make the data of an app receipt in which this id can be read, sold or not."""
        return receipt_data_of(_RECEIPT + transaction_id)

    def sell(self, transaction_id: str, *, environment: Environment = Environment.PRODUCTION, **fields: Any) -> str:
        """Know a transaction (``fields`` are those of ``FakeSignedData.sell``), and return its receipt's data."""
        signed = self._signed_data.sell(transaction_id, environment=environment, **fields)
        with self._changed:
            self._sold[transaction_id, environment] = {"signedTransactionInfo": signed}
        return self.receipt_of(transaction_id)

    def script(self, transaction_id: str, *answers: Answer) -> None:
        """Say what to answer for an id: each answer once, and the last one for ever. An exception is raised."""
        if not answers:
            raise ValueError("a script has at least one answer")
        with self._changed:
            self._scripts[transaction_id] = list(answers)

    def requests(self, transaction_id: str, environment: Environment) -> int:
        """Count the requests for an id that reached one environment."""
        with self._changed:
            return self._requests[transaction_id, environment]

    # --- the port ---

    def transaction_id_of(self, receipt_data: str) -> str | None:
        """See ``ServerApi``."""

        def work() -> str | None:
            text = b64decode(receipt_data).decode()
            return text.removeprefix(_RECEIPT) if text.startswith(_RECEIPT) else None

        return self._carry_out("transaction_id_of", work)

    def get_transaction_info(
        self, transaction_id: str, environment: Environment, *, bundle_id: str | None = None
    ) -> Mapping[str, object]:
        """See ``ServerApi``."""

        def work() -> Mapping[str, object]:
            with self._changed:
                self._requests[transaction_id, environment] += 1
                script = self._scripts.get(transaction_id)
                if script is None:
                    return self._sold.get((transaction_id, environment), NOT_FOUND)
                answer = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return self._carry_out("get_transaction_info", work)
