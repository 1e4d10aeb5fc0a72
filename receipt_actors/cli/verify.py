"""``receipt-actors verify``: what Apple vouches for in one receipt, and what we would answer. It claims nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from receipt_actors.backends import open_ledger
from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.options import options_of
from receipt_actors.cli.terminal import read_receipt
from receipt_actors.domain.messages import Submission, Unanswerable, Verdict, parse_submission
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment, Ledger, LedgerItem, ReceivedMessage, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import (
    Genuine,
    Interpretation,
    Misconfigured,
    TryAgain,
    Unidentified,
    WrongEnvironment,
)
from receipt_actors.domain.verdicts import (
    Answer,
    Candidate,
    Ownership,
    Plan,
    ledger_item,
    make_plan,
    ownership_after_lookup,
)
from receipt_actors.settings import LedgerSettings, load_source_settings
from receipt_actors.stores.apple import server_api, signed_transactions, verify_receipt
from receipt_actors.stores.apple.opening import open_app_store, open_server_api, open_signatures, policy_of, signer_of
from receipt_actors.stores.apple.ports import ReceiptApi, SignatureRefused, Signed, SignedKind
from receipt_actors.stores.apple.server_api import CODE_TABLE, interpret_found
from receipt_actors.stores.apple.settings import AppStoreSettings
from receipt_actors.stores.apple.verify_receipt import status_row

TABLE_WIDTH = 1000  #: characters; no column is ever cut
_NOBODY = 2**64  # no user's id, which are within +-2^63


class LookUpSettings(AppStoreSettings, LedgerSettings, frozen=True):
    """What it takes to ask Apple and the ledger."""


@click.command(
    epilog="""\b
Examples:
  receipt-actors verify --bundle-ids com.example.game --receipt-file receipt.txt
  # one of the sandbox, signed by StoreKit 2
  receipt-actors verify --bundle-ids com.example.game --environments Sandbox --receipt-file transaction.jws
  # and is it claimed already?
  receipt-actors verify --bundle-ids com.example.game --database receipts.db --look-up --receipt-file receipt.txt

\b
Exit codes:
  0  genuine, and at least one transaction would be answered OK
  1  it would not, or Apple or the ledger cannot be asked
  2  wrong usage or settings
"""
)
@click.argument("receipt", required=False)
@click.option("--receipt-file", metavar="PATH", help="File that holds the receipt; - reads standard input.")
@click.option("--look-up", is_flag=True, help="Ask the ledger, too, who has claimed the transactions.")
@click.option("--user-id", type=int, metavar="N", help="User who would submit it. [default: one who owns nothing]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@options_of(LookUpSettings)
def command(
    flags: Mapping[str, object],
    config: Path | None,
    receipt: str | None,
    receipt_file: str | None,
    look_up: bool,
    user_id: int | None,
    as_json: bool,
) -> int:
    """Have one RECEIPT vouched for, and say what would be answered.

    A signed transaction (JWS) is verified here. About an app receipt Apple is asked, as app_receipts says: production
    first, the sandbox where Apple sends us there and the settings allow it. Nothing is claimed: without --look-up, OK
    means that nobody has claimed the transaction yet. Without --user-id, app account tokens say nothing. Of several
    source queues, --source-queue says by whose rules to judge.
    """
    if (receipt is None) == (receipt_file is None):
        raise click.UsageError("Give either RECEIPT or --receipt-file.")
    model: type[AppStoreSettings] = LookUpSettings if look_up else AppStoreSettings
    flags = {name: value for name, value in flags.items() if name in model.model_fields}
    settings = load_source_settings(model, flags, config=config)
    submission = _submission(read_receipt(receipt_file) if receipt_file is not None else receipt, user_id)
    policy = policy_of(settings)
    if user_id is None:
        policy = replace(policy, account_tokens=None)  # nobody's token is as good as another's
    opened = closing(open_ledger(settings, create=False)) if isinstance(settings, LookUpSettings) else nullcontext()
    with opened as ledger:
        if ledger is not None:
            ledger.check()
        report = _report(settings, submission, policy, ledger)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report)
    return EXIT_DONE if report["acceptable"] else EXIT_WORLD_FAILED


def _submission(receipt: str | None, user_id: int | None) -> Submission:
    body = json.dumps({"receipt": receipt, "user_id": 0 if user_id is None else user_id, "post_queue": "ResultsSQS"})
    delivery = ReceivedMessage("verify", "", body, "", sent_at_seconds=time.time())
    submission = parse_submission(delivery, {"ResultsSQS"}, source_queue="ReceiptsSQS")
    if isinstance(submission, Unanswerable):
        raise click.UsageError(f"{submission.reason}: {submission.detail}")
    return submission if user_id is not None else replace(submission, user_id=_NOBODY)


# --- what Apple says ---


@dataclass(frozen=True, slots=True)
class _Finding:
    """What the receipt was found to be, as the App Store gateway would find it, but with one attempt."""

    way: str  #: ``verify-receipt``, ``server-api`` or ``signature``
    asked: Environment | None  #: None if the receipt was verified here
    status: int | None  #: the ``status`` of verifyReceipt, or the ``errorCode`` of the Server API, where there is one
    meaning: str  #: of the status, in words
    interpretation: Interpretation


def _find_out(settings: AppStoreSettings, receipt_data: str, policy: Policy) -> _Finding:
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


def _verified(settings: AppStoreSettings, signed: str) -> _Finding:
    verified = open_signatures(settings).verify(SignedKind.TRANSACTION, signed)
    if isinstance(verified, SignatureRefused):
        who = "by Apple" if settings.apple_roots is None else "under a root of apple_roots"
        refusal = signed_transactions.refusal(verified)
        return _Finding("signature", None, None, f"not signed {who}: {verified.detail}", refusal)
    meaning = f"signed by {signer_of(settings, signed)}"
    return _Finding("signature", None, None, meaning, signed_transactions.interpret(verified))


def _asked(settings: AppStoreSettings, api: ReceiptApi, receipt_data: str, policy: Policy) -> _Finding:
    question = receipt_data if api.question_of is None else api.question_of(receipt_data)
    if question is None:
        missing = Unidentified(Reason.NO_TRANSACTION_ID)
        return _Finding(settings.app_receipts, None, None, "no transaction id can be read in the receipt", missing)
    asked = api.first
    answer = api.call(question, asked)
    meaning = api.interpret(answer, asked)
    if isinstance(meaning, WrongEnvironment) and meaning.right in policy.environments:
        asked = meaning.right
        answer = api.call(question, asked)
        meaning = api.interpret(answer, asked)
    if isinstance(meaning, WrongEnvironment):
        meaning = meaning.otherwise
    if isinstance(meaning, Signed):
        verified = open_signatures(settings).verify(SignedKind.TRANSACTION, meaning.signed_transaction)
        found = interpret_found(question, verified)
        return _Finding(settings.app_receipts, asked, None, f"it knows transaction {question}", found)
    status = answer.get("errorCode" if settings.uses_server_api else "status")
    if not isinstance(status, int):
        return _Finding(settings.app_receipts, asked, None, "an answer that is not documented", meaning)
    row = CODE_TABLE.get(status) if settings.uses_server_api else status_row(status)
    return _Finding(settings.app_receipts, asked, status, row.meaning if row else "not documented", meaning)


# --- what we would answer ---


def _report(
    settings: AppStoreSettings, submission: Submission, policy: Policy, ledger: Ledger | None
) -> dict[str, Any]:
    finding = _find_out(settings, submission.receipt_data, policy)
    transactions: list[dict[str, Any]] = []
    match finding.interpretation:
        case Genuine() as receipt:
            plan = make_plan(submission, receipt, policy)
            if isinstance(plan, Unanswerable):
                outcome = f"dead-letter queue, {plan.reason}: {plan.detail}"
            else:
                outcome = "answered, transaction by transaction"
                transactions = [_judged(plan, candidate, submission, ledger) for candidate in plan.candidates]
        case Unidentified(reason):
            replies = settings.unidentified == "reply"
            outcome = f"INVALID without a transaction id, {reason}" if replies else f"dead-letter queue, {reason}"
        case TryAgain(reason, detail, then_unanswerable):
            end = "the dead-letter queue" if then_unanswerable else "another delivery"
            outcome = f"tried again, in the end {end}, {reason}: {detail}"
        case Misconfigured(detail):
            outcome = f"no answer until this is put right: {detail}"
        case WrongEnvironment():
            raise AssertionError("a redirect has been followed or refused")
    genuine = finding.interpretation if isinstance(finding.interpretation, Genuine) else None
    return {
        "way": finding.way,
        "asked": finding.asked,
        "status": finding.status,
        "meaning": finding.meaning,
        "genuine": genuine is not None,
        "environment": genuine.environment if genuine else None,
        "bundle_id": genuine.bundle_id if genuine else None,
        "outcome": outcome,
        "acceptable": any(each["verdict"] is Verdict.OK for each in transactions),
        "looked_up": ledger is not None,
        "transactions": transactions,
    }


def _judged(plan: Plan, candidate: Candidate, submission: Submission, ledger: Ledger | None) -> dict[str, Any]:
    """Decide on one transaction as the validator would, were its claim to be made now."""
    entry = None if ledger is None else ledger.get(candidate.transaction_id)
    wanted = ledger_item(submission, candidate.transaction, plan.receipt.environment, "", time.time())
    owned = ownership_after_lookup(entry, wanted)
    if owned is Ownership.FREE and candidate.refusal is None:
        owned = Ownership.NEW
    said = entry if isinstance(entry, Tombstone) else owned
    step = replace(plan, candidates=(candidate,), newest_only=False).next_step({candidate.transaction_id: said})
    assert isinstance(step, Answer), "all is known"
    (result,) = step.results
    transaction = asdict(candidate.transaction)
    del transaction["expired"]  # which the verdict says
    claim = ("user_id", "submission_id", "claimed_at_seconds", "refunded_at_seconds")
    return {
        **transaction,
        "revocation_type": result.revocation_type,
        "revocation_percentage": result.revocation_percentage,
        "verdict": result.verdict,
        "reason": result.reason,
        "claimed_by": {name: getattr(entry, name) for name in claim} if isinstance(entry, LedgerItem) else None,
        "refunded_at_seconds": entry and entry.refunded_at_seconds,
    }


def _print(report: Mapping[str, Any]) -> None:
    status = "yes" if report["status"] is None else report["status"]
    click.echo(
        report["meaning"] if report["asked"] is None else f"{report['asked']} says {status}: {report['meaning']}"
    )
    if report["genuine"]:
        click.echo(f"environment {report['environment']}, bundle id {report['bundle_id'] or 'none'}")
    click.echo(f"a message with this receipt: {report['outcome']}")
    if not report["transactions"]:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("transaction", "product", "bought", "expires", "verdict", "reason"):
        table.add_column(title, no_wrap=True)
    for each in report["transactions"]:
        dates = _date(each["purchased_at_seconds"]), _date(each["expires_at_seconds"])
        table.add_row(each["transaction_id"], each["product_id"] or "", *dates, each["verdict"], each["reason"])
    # Ids are there to be copied: a line that is too long for the terminal wraps there, not within a column.
    Console(markup=False, highlight=False, emoji=False, width=TABLE_WIDTH).print(table, soft_wrap=True)
    if report["looked_up"]:
        for each in report["transactions"]:
            click.echo(f"{each['transaction_id']} is {_claim(each)}")
    elif report["acceptable"]:
        click.echo("OK holds if nobody has claimed the transaction; --look-up asks the ledger")


def _claim(transaction: Mapping[str, Any]) -> str:
    claim, refunded_at = transaction["claimed_by"], transaction["refunded_at_seconds"]
    if claim is None:
        return "claimed by nobody" + ("" if refunded_at is None else f", and was refunded on {_date(refunded_at)}")
    refund = "" if refunded_at is None else f", refunded on {_date(refunded_at)}"
    since = _date(claim["claimed_at_seconds"])
    return f"claimed by user {claim['user_id']} on {since}, submission {claim['submission_id']}{refund}"


def _date(seconds: float | None) -> str:
    if seconds is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):  # beyond the year 9999
        return f"{seconds:.0f} s"
