"""What an answer of the App Store Server API's "Get Transaction Info" means: one table of Apple's error codes.

A transaction that was found comes signed: ``Signed`` has to be verified before it says anything, and
``interpret_found`` then compares it with what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Interpretation, Misconfigured, Unidentified, WrongEnvironment
from receipt_actors.domain.values import json_type
from receipt_actors.stores.apple import signed_transactions
from receipt_actors.stores.apple.fields import is_integer
from receipt_actors.stores.apple.ports import UNAUTHORIZED, ReceiptApi, ServerApi, SignatureRefused, Signed, begin_of
from receipt_actors.stores.apple.verify_receipt import StatusRow, later, shown, unknown

_NOT_FOUND: Final = Unidentified(
    Reason.TRANSACTION_NOT_FOUND, "the App Store Server API knows no transaction of the id that is in the receipt"
)


#: Those that "Get Transaction Info" is documented to answer; 4040010 depends on who was asked (``interpret``).
CODE_TABLE: Final[Mapping[int, StatusRow]] = MappingProxyType(
    {
        4000000: StatusRow("general bad request", unknown("errorCode 4000000: a bad request, says Apple")),
        4000002: StatusRow(
            "invalid app identifier",
            Misconfigured("errorCode 4000002: the bundle id of our token is no app's; check bundle_ids"),
        ),
        4000006: StatusRow(
            "invalid transaction id",
            Unidentified(Reason.NO_TRANSACTION_ID, "what the receipt has as a transaction id is none, says Apple"),
        ),
        UNAUTHORIZED: StatusRow(
            "HTTP 401: not authorized",
            Misconfigured(
                "HTTP 401: our token is refused; check server_api_key, its id and its issuer, and whether the app is "
                "in the store (until then only the Sandbox may be asked)"
            ),
        ),
        4040001: StatusRow("account not found", Unidentified(Reason.ACCOUNT_NOT_FOUND)),
        4040002: StatusRow("account not found, try again", later("errorCode 4040002")),
        4040003: StatusRow(
            "app not found", Misconfigured("errorCode 4040003: Apple knows no such app; check bundle_ids")
        ),
        4040004: StatusRow("app not found, try again", later("errorCode 4040004")),
        4040010: StatusRow("transaction id not found", _NOT_FOUND),
        4290000: StatusRow("rate limit exceeded", later("errorCode 4290000")),
        5000000: StatusRow("internal error", later("errorCode 5000000")),
        5000001: StatusRow("internal error, try again", later("errorCode 5000001")),
    }
)


def receipt_api(
    server_api: ServerApi, policy: Policy, *, bundle_id: str | None = None, of_source: str = ""
) -> ReceiptApi:
    """Have the App Store Server API called: production first, unless nothing of it counts here.

    An app that is not in the store yet may not call production, and Apple answers 401 if it does. ``bundle_id`` is the
    app that is asked for, if that is not the client's; ``of_source`` is where it stands.
    """
    is_production = Environment.PRODUCTION in policy.environments
    own: dict[str, Any] = {} if bundle_id is None else {"bundle_id": bundle_id}
    begin = begin_of(server_api)
    return ReceiptApi(
        call=partial(server_api.get_transaction_info, **own),
        interpret=interpret,
        first=Environment.PRODUCTION if is_production else Environment.SANDBOX,
        what_to_check=f"server_api_key, its id, its issuer and {of_source}bundle_ids",
        environments=policy.environments,
        begin=begin and partial(begin, **own),
        question_of=server_api.transaction_id_of,
    )


def interpret(answer: Mapping[str, object], asked: Environment) -> Interpretation | Signed:
    """Say what the answer of ``asked`` means. Total: never raises for anything that JSON can hold."""
    if "errorCode" in answer:
        return _interpret_error(answer["errorCode"], asked)
    signed = answer.get("signedTransactionInfo")
    if isinstance(signed, str) and signed:
        return Signed(signed)
    return unknown(f"signedTransactionInfo: expected a JWS, found {json_type(signed)}")


def _interpret_error(code: object, asked: Environment) -> Interpretation:
    if not is_integer(code):
        return unknown(f"errorCode: expected an integer, found {json_type(code)}")
    row = CODE_TABLE.get(code)
    if row is None:
        return unknown(f"errorCode {shown(code)} is not documented")
    if row.calls_for is _NOT_FOUND and asked is Environment.PRODUCTION:  # ids do not say where they come from
        return WrongEnvironment(Environment.SANDBOX, otherwise=_NOT_FOUND)
    assert not callable(row.calls_for), "no row here is made from the answer"
    return row.calls_for


def interpret_found(asked_id: str, verified: Mapping[str, object] | SignatureRefused) -> Interpretation:
    """Say what a transaction means that was found, and then verified. Total.

    If it is not Apple's, or not the one that was asked for, the server is at fault and not the receipt: no refusal.
    """
    if isinstance(verified, SignatureRefused):
        return unknown(f"what the App Store Server API answered is not signed by Apple ({verified.reason})")
    meaning = signed_transactions.interpret(verified)
    if isinstance(meaning, Genuine) and meaning.transactions[0].transaction_id != asked_id:
        return unknown("the App Store Server API answered with another transaction than was asked for")
    return meaning
