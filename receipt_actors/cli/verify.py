"""``receipt-actors verify``: what Apple vouches for in one receipt, and what we would answer. It claims nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from receipt_actors.backends import open_ledger
from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.findings import Finding, find_out
from receipt_actors.cli.options import options_of
from receipt_actors.cli.receipt_files import read_receipt
from receipt_actors.domain.ledger import Ownership, ledger_item, ownership_after_lookup
from receipt_actors.domain.messages import Result, Submission, Unanswerable, Verdict, parse_submission
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Ledger, ReceivedMessage, Standing, Tombstone
from receipt_actors.domain.receipts import Genuine, Misconfigured, TryAgain, Unidentified, WrongEnvironment
from receipt_actors.domain.verdicts import Answer, Candidate, Plan, make_plan
from receipt_actors.settings import LedgerSettings, load_source_settings
from receipt_actors.stores.apple.opening import policy_of
from receipt_actors.stores.apple.settings import AppStoreSettings

TABLE_WIDTH = 1000  #: characters; no column is ever cut
_NOBODY = 2**64  # no user's id, which are within +-2^63


class LookUpSettings(AppStoreSettings, LedgerSettings, frozen=True):
    """What it takes to ask Apple and the ledger."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What would be answered for one transaction."""

    candidate: Candidate
    result: Result
    standing: Standing | None  #: what the ledger has, where it was asked


@dataclass(frozen=True, slots=True)
class Report:
    """All that there is to tell."""

    finding: Finding
    looked_up: bool
    judgements: tuple[Judgement, ...]
    outcome: str  #: in words, what becomes of a message with this receipt

    @property
    def is_acceptable(self) -> bool:
        """Tell whether a message with this receipt would get at least one OK."""
        return any(judgement.result.verdict is Verdict.OK for judgement in self.judgements)


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
    with ExitStack() as stack:
        ledger: Ledger | None = None
        if isinstance(settings, LookUpSettings):
            ledger = stack.enter_context(closing(open_ledger(settings, create=False)))
            ledger.check()
        finding = find_out(settings, submission.receipt_data, policy)
        report = _report(finding, submission, policy, settings, ledger)
    if as_json:
        click.echo(json.dumps(_as_json(report)))
    else:
        _print(report)
    return EXIT_DONE if report.is_acceptable else EXIT_WORLD_FAILED


def _submission(receipt: str | None, user_id: int | None) -> Submission:
    """Make the submission that a message with this receipt would be, by the consumer's own parser."""
    body = json.dumps({"receipt": receipt, "user_id": 0 if user_id is None else user_id, "post_queue": "ResultsSQS"})
    delivery = ReceivedMessage("verify", "", body, "", sent_at_seconds=time.time())
    submission = parse_submission(delivery, {"ResultsSQS"}, source_queue="ReceiptsSQS")
    if isinstance(submission, Unanswerable):
        raise click.UsageError(f"{submission.reason}: {submission.detail}")
    return submission if user_id is not None else replace(submission, user_id=_NOBODY)


def _report(
    finding: Finding, submission: Submission, policy: Policy, settings: AppStoreSettings, ledger: Ledger | None
) -> Report:
    def without_transactions(outcome: str) -> Report:
        return Report(finding, ledger is not None, (), outcome)

    match finding.interpretation:
        case Genuine() as receipt:
            plan = make_plan(submission, receipt, policy)
            if isinstance(plan, Unanswerable):
                return without_transactions(f"dead-letter queue, {plan.reason}: {plan.detail}")
            judgements = tuple(_judge(plan, candidate, submission, ledger) for candidate in plan.candidates)
            return Report(finding, ledger is not None, judgements, "answered, transaction by transaction")
        case Unidentified(reason) if settings.unidentified == "reply":
            return without_transactions(f"INVALID without a transaction id, {reason}")
        case Unidentified(reason):
            return without_transactions(f"dead-letter queue, {reason}")
        case TryAgain(reason, detail, then_unanswerable):
            end = "the dead-letter queue" if then_unanswerable else "another delivery"
            return without_transactions(f"tried again, in the end {end}, {reason}: {detail}")
        case Misconfigured(detail):
            return without_transactions(f"no answer until this is put right: {detail}")
        case WrongEnvironment():
            raise AssertionError("a redirect has been followed or refused")


def _judge(plan: Plan, candidate: Candidate, submission: Submission, ledger: Ledger | None) -> Judgement:
    """Decide on one transaction as the validator would, were its claim to be made now."""
    standing = None if ledger is None else ledger.get(candidate.transaction_id)
    wanted = ledger_item(submission, candidate.transaction, plan.receipt.environment, "", time.time())
    owned = ownership_after_lookup(standing, wanted)
    if owned is Ownership.FREE and candidate.refusal is None:
        owned = Ownership.NEW
    said = standing if isinstance(standing, Tombstone) else owned
    step = replace(plan, candidates=(candidate,), newest_only=False).next_step({candidate.transaction_id: said})
    assert isinstance(step, Answer), "all is known"
    return Judgement(candidate, step.results[0], standing)


def _as_json(report: Report) -> dict[str, Any]:
    finding = report.finding
    genuine = finding.interpretation if isinstance(finding.interpretation, Genuine) else None
    return {
        "way": finding.way,
        "asked": finding.asked,
        "status": finding.status,
        "meaning": finding.meaning,
        "genuine": genuine is not None,
        "environment": genuine.environment if genuine else None,
        "bundle_id": genuine.bundle_id if genuine else None,
        "outcome": report.outcome,
        "acceptable": report.is_acceptable,
        "looked_up": report.looked_up,
        "transactions": [_transaction_as_json(judgement) for judgement in report.judgements],
    }


def _transaction_as_json(judgement: Judgement) -> dict[str, Any]:
    transaction, standing = judgement.candidate.transaction, judgement.standing
    claim = None if isinstance(standing, Tombstone) else standing
    return {
        "transaction_id": transaction.transaction_id,
        "original_transaction_id": transaction.original_transaction_id,
        "product_id": transaction.product_id,
        "quantity": transaction.quantity,
        "purchased_at_seconds": transaction.purchased_at_seconds,
        "expires_at_seconds": transaction.expires_at_seconds,
        "cancelled": transaction.cancelled,
        "product_type": transaction.product_type,
        "is_upgraded": transaction.is_upgraded,
        "is_family_shared": transaction.is_family_shared,
        "app_account_token": transaction.app_account_token,
        "revocation_type": judgement.result.revocation_type,
        "revocation_percentage": judgement.result.revocation_percentage,
        "verdict": judgement.result.verdict,
        "reason": judgement.result.reason,
        "claimed_by": claim
        and {
            "user_id": claim.user_id,
            "submission_id": claim.submission_id,
            "claimed_at_seconds": claim.claimed_at_seconds,
            "refunded_at_seconds": claim.refunded_at_seconds,
        },
        "refunded_at_seconds": standing and standing.refunded_at_seconds,
    }


def _print(report: Report) -> None:
    fields = _as_json(report)
    click.echo(report.finding.headline)
    if fields["genuine"]:
        click.echo(f"environment {fields['environment']}, bundle id {fields['bundle_id'] or 'none'}")
    click.echo(f"a message with this receipt: {report.outcome}")
    if not report.judgements:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("transaction", "product", "bought", "expires", "verdict", "reason"):
        table.add_column(title, no_wrap=True)
    for judgement in report.judgements:
        transaction, result = judgement.candidate.transaction, judgement.result
        table.add_row(
            transaction.transaction_id,
            transaction.product_id or "",
            _date(transaction.purchased_at_seconds),
            _date(transaction.expires_at_seconds),
            result.verdict,
            result.reason,
        )
    # Ids are there to be copied: a line that is too long for the terminal wraps there, not within a column.
    Console(markup=False, highlight=False, emoji=False, width=TABLE_WIDTH).print(table, soft_wrap=True)
    if report.looked_up:
        for judgement in report.judgements:
            click.echo(f"{judgement.candidate.transaction_id} is {_told(judgement.standing)}")
    if report.is_acceptable and not report.looked_up:
        click.echo("OK holds if nobody has claimed the transaction; --look-up asks the ledger")


def _told(standing: Standing | None) -> str:
    match standing:
        case None:
            return "claimed by nobody"
        case Tombstone(_, refunded_at_seconds):
            return f"claimed by nobody, and was refunded on {_date(refunded_at_seconds)}"
    refund = "" if standing.refunded_at_seconds is None else f", refunded on {_date(standing.refunded_at_seconds)}"
    claimed = f"claimed by user {standing.user_id} on {_date(standing.claimed_at_seconds)}"
    return f"{claimed}, submission {standing.submission_id}{refund}"


def _date(seconds: float | None) -> str:
    if seconds is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):  # beyond the year 9999
        return f"{seconds:.0f} s"
