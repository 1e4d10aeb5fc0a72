"""Apple in memory: ``FakeSignedData`` signs, ``FakeAppStore`` and ``FakeServerApi`` know what a test has sold."""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeAlias

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.sandbox import answers
from receipt_actors.sandbox.apple_ca import Authority
from receipt_actors.sandbox.receipts import (
    DEFAULT_KEY,
    Fault,
    ForgedReceipt,
    MalformedReceipt,
    Purchase,
    SampleReceipt,
    mint,
    read,
)
from receipt_actors.sandbox.signed_transactions import mint_signed
from receipt_actors.sandbox.store import Store
from receipt_actors.stores.apple.ports import Outcome, SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.testing._faults import Fake

BUNDLE_ID = "com.example.game"


class FakeSignedData(Fake):
    """Both ``SignedData`` and ``SignedDataCalls``.

    It trusts no authority but its own. ``now_seconds`` is the UNIX time, from which a date of signing must not be too
    far ahead.
    """

    operations: ClassVar[frozenset[str]] = frozenset({"verify"})

    def __init__(self, now_seconds: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.authority = Authority(os.urandom(32))
        self._now_seconds = now_seconds
        self._verifier: AppleSignedData | None = None  # most tests verify nothing, and the root takes its time to make

    def sign(self, payload: Mapping[str, object]) -> str:
        """Sign whatever is to be Apple's."""
        return self.authority.sign(payload)

    def sell(
        self,
        transaction_id: str,
        *,
        bundle_id: str = BUNDLE_ID,
        product_id: str = "coins_100",
        environment: Environment = Environment.PRODUCTION,
        **fields: object,
    ) -> str:
        """Make the signed transaction of a purchase; ``fields`` are put over those of Apple's, or None leaves one out.

        They are called as Apple calls them: ``type``, ``revocationDate``, ``appAccountToken`` and so on.
        """
        receipt = SampleReceipt(bundle_id, (Purchase(transaction_id, product_id),), environment=environment)
        return mint_signed(receipt, self.authority, changes=fields)

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        return self._carry_out("verify", lambda: self._verify(kind, signed))

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], Any]) -> None:
        outcome: Outcome
        try:
            outcome = self.verify(kind, signed)
        except Exception as error:  # noqa: BLE001 - what a test has told it to fail with
            outcome = error
        done(outcome)

    def _verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        if self._verifier is None:
            self._verifier = AppleSignedData([self.authority.root], now_seconds=self._now_seconds)
        return self._verifier.verify(kind, signed)


_UNSOLD_KEY = b"receipts that hold an id, and prove nothing"

#: What the store answers, or raises.
Answer: TypeAlias = Mapping[str, object] | BaseException


def receipt_data_of(text: str) -> str:
    """Make a string that passes for a receipt out of any text."""
    return base64.b64encode(text.encode()).decode()


def genuine(
    *transaction_ids: str,
    bundle_id: str = BUNDLE_ID,
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
    return {"status": 0, "environment": environment.value, "receipt": {"bundle_id": bundle_id, "in_app": in_app}}


class _ScriptedFake(Fake):
    """What both are: a store that a test may overrule, key by key."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._scripts: dict[str, list[Answer]] = {}
        self._requests: Counter[tuple[str, Environment]] = Counter()

    def script(self, key: str, *answers: Answer) -> None:
        """Say what to answer for a receipt, or a transaction id: each answer once, the last one for ever.

        An exception is raised.
        """
        if not answers:
            raise ValueError("a script has at least one answer")
        with self._changed:
            self._scripts[key] = list(answers)

    def requests(self, key: str, environment: Environment | None = None) -> int:
        """Count the requests for a receipt, or a transaction id, that reached one environment, or both."""
        with self._changed:
            environments = [environment] if environment is not None else list(Environment)
            return sum(self._requests[key, each] for each in environments)

    def _answer_for(
        self, key: str, environment: Environment, otherwise: Callable[[], Answer | Fault]
    ) -> Mapping[str, object]:
        with self._changed:
            self._requests[key, environment] += 1
            script = self._scripts.get(key)
            scripted = None if script is None else script.pop(0) if len(script) > 1 else script[0]
        answer = otherwise() if scripted is None else scripted
        if isinstance(answer, Fault):
            raise AppStoreUnavailable(f"{answer.kind} (of a sample receipt)")
        if isinstance(answer, BaseException):
            raise answer
        return answer


class FakeAppStore(_ScriptedFake):
    """See ``AppStore``. It answers for what it has sold, and for all sample receipts of ``receipt_actors.sandbox``.

    ``answer`` is asked about all others; by default they are not authentic (21003).
    """

    operations: ClassVar[frozenset[str]] = frozenset({"verify_receipt"})

    def __init__(
        self,
        answer: Callable[[str, Environment], Answer] = lambda _data, _environment: {"status": answers.NOT_AUTHENTIC},
        store: Store | None = None,
    ) -> None:
        super().__init__(store or Store(FakeSignedData().sign))
        self._answer = answer

    def sell(self, *transaction_ids: str, bundle_id: str = BUNDLE_ID) -> str:
        """Make a genuine receipt with these purchases, and return its data."""
        receipt = SampleReceipt(
            bundle_id,
            tuple(
                Purchase(transaction_id, purchased_at_ms=1_700_000_000_000 + 1000 * number)
                for number, transaction_id in enumerate(transaction_ids)
            ),
        )
        self._store.record(receipt)
        return mint(receipt)

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        def otherwise() -> Answer | Fault:
            answer = self._store.verify_receipt(receipt_data, environment)
            is_ours = isinstance(answer, Fault) or answer["status"] not in (answers.MALFORMED, answers.NOT_AUTHENTIC)
            return answer if is_ours else self._answer(receipt_data, environment)

        return self._carry_out(
            "verify_receipt", lambda: self._answer_for(receipt_data, environment, otherwise), is_locked=False
        )


class FakeServerApi(_ScriptedFake):
    """See ``ServerApi``; what it answers is signed by ``signed_data``."""

    operations: ClassVar[frozenset[str]] = frozenset({"transaction_id_of", "get_transaction_info"})

    def __init__(self, signed_data: FakeSignedData, store: Store | None = None) -> None:
        super().__init__(store or Store(signed_data.sign))

    def receipt_of(self, transaction_id: str) -> str:
        """Make the data of an app receipt in which this id can be read, sold or not; verifyReceipt refuses it."""
        return mint(SampleReceipt(BUNDLE_ID, (Purchase(transaction_id),)), key=_UNSOLD_KEY)

    def sell(self, transaction_id: str, *, environment: Environment = Environment.PRODUCTION) -> str:
        """Know a transaction, and return its receipt's data."""
        self._store.record(SampleReceipt(BUNDLE_ID, (Purchase(transaction_id),), environment=environment))
        return self.receipt_of(transaction_id)

    def transaction_id_of(self, receipt_data: str) -> str | None:
        def work() -> str | None:
            for key in (DEFAULT_KEY, _UNSOLD_KEY):
                with suppress(MalformedReceipt, ForgedReceipt):
                    return next((each.transaction_id for each in read(receipt_data, key=key).purchases), None)
            return None

        return self._carry_out("transaction_id_of", work)

    def get_transaction_info(
        self, transaction_id: str, environment: Environment, *, bundle_id: str | None = None
    ) -> Mapping[str, object]:
        def otherwise() -> Answer | Fault:
            return self._store.transaction_info(transaction_id, environment, bundle_id)

        return self._carry_out("get_transaction_info", lambda: self._answer_for(transaction_id, environment, otherwise))
