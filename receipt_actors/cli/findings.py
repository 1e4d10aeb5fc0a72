"""What is found out about one receipt or signed transaction, step by step as the App Store gateway does, but once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Interpretation, Unidentified, WrongEnvironment
from receipt_actors.stores.apple import server_api, signed_transactions, verify_receipt
from receipt_actors.stores.apple.opening import open_app_store, open_server_api, open_signatures, signer_of
from receipt_actors.stores.apple.ports import ReceiptApi, SignatureRefused, Signed
from receipt_actors.stores.apple.server_api import CODE_TABLE, interpret_found
from receipt_actors.stores.apple.settings import AppStoreSettings
from receipt_actors.stores.apple.verify_receipt import status_row

SIGNATURE = "signature"  #: of a signed transaction, which nobody has to be asked about


@dataclass(frozen=True, slots=True)
class Finding:
    """What was said at last, by whom, and what that means."""

    way: str  #: ``verify-receipt``, ``server-api`` or ``signature``
    asked: Environment | None  #: None where nobody was
    status: int | None  #: the ``status`` of verifyReceipt, or the ``errorCode`` of the Server API, where there is one
    meaning: str  #: of the status, in words
    interpretation: Interpretation

    @property
    def headline(self) -> str:
        """All that in a line."""
        if self.asked is None:
            return self.meaning
        return f"{self.asked} says {'yes' if self.status is None else self.status}: {self.meaning}"


def find_out(settings: AppStoreSettings, receipt_data: str, policy: Policy) -> Finding:
    """Verify a signed transaction, or ask Apple about an app receipt.

    Raises ``AppStoreUnavailable``, and ``ConfigurationError`` where what it takes is not here.
    """
    signed = signed_transactions.signed_transaction_of(receipt_data)
    if signed is not None:
        return _verified(settings, signed)
    if settings.uses_server_api:
        with closing(open_server_api(settings)) as client:
            return _asked(settings, server_api.receipt_api(client, policy), receipt_data, policy)
    with closing(open_app_store(settings)) as app_store:
        return _asked(settings, verify_receipt.receipt_api(app_store, policy), receipt_data, policy)


def _verified(settings: AppStoreSettings, signed: str) -> Finding:
    verified = open_signatures(settings).verify_transaction(signed)
    if isinstance(verified, SignatureRefused):
        refusal = signed_transactions.refusal(verified)
        told = "not signed by Apple" if settings.apple_roots is None else "not signed under a root of apple_roots"
        return Finding(SIGNATURE, None, None, f"{told}: {verified.detail}", refusal)
    signer = signer_of(settings, signed)
    return Finding(SIGNATURE, None, None, f"signed by {signer}", signed_transactions.interpret(verified))


def _asked(settings: AppStoreSettings, api: ReceiptApi, receipt_data: str, policy: Policy) -> Finding:
    """Ask where one asks first, and in the other environment at most once, if Apple says so and policy allows it."""
    question = receipt_data if api.question_of is None else api.question_of(receipt_data)
    if question is None:
        missing = Unidentified(Reason.NO_TRANSACTION_ID)
        return Finding(settings.app_receipts, None, None, "no transaction id can be read in the receipt", missing)
    asked = api.first
    answer, meaning = _ask(api, question, asked)
    if isinstance(meaning, WrongEnvironment) and meaning.right in policy.environments:
        asked = meaning.right
        answer, meaning = _ask(api, question, asked)
    if isinstance(meaning, WrongEnvironment):
        meaning = meaning.otherwise
    if isinstance(meaning, Signed):
        verified = open_signatures(settings).verify_transaction(meaning.signed_transaction)
        found = interpret_found(question, verified)
        return Finding(settings.app_receipts, asked, None, f"it knows transaction {question}", found)
    return Finding(settings.app_receipts, asked, *_status(settings, answer), meaning)


def _ask(
    api: ReceiptApi, question: str, environment: Environment
) -> tuple[Mapping[str, object], Interpretation | Signed]:
    answer = api.call(question, environment)
    return answer, api.interpret(answer, environment)


def _status(settings: AppStoreSettings, answer: Mapping[str, object]) -> tuple[int | None, str]:
    status = answer.get("errorCode" if settings.uses_server_api else "status")
    if not isinstance(status, int):
        return None, "an answer that is not documented"
    row = CODE_TABLE.get(status) if settings.uses_server_api else status_row(status)
    return status, "not documented" if row is None else row.meaning
