"""``receipt-actors demo``: the whole system at work on this machine, against a simulated App Store."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import click
from pydantic import SecretStr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.process import StopSignals, admin_server
from receipt_actors.cli.terminal import FiniteFloatRange, choice, progress_bar
from receipt_actors.domain.ports import MAX_BATCH_ENTRIES, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.notifications import open_handler
from receipt_actors.receipt_system import ReceiptSystem
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.check import AnswerSeen, CheckReport, DeadLetterSeen, check
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from receipt_actors.sandbox.load import INVALID, OK, Answered, Asked, Kind, Receipts, Scenario, make_scenario
from receipt_actors.settings import Settings
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot

BUNDLE_ID = "com.example.game"
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 25.0  #: without progress; then the demo reports what is missing
REFUNDS = 3
DELIVERY_SECONDS = 20.0  #: for all notifications


@click.command(
    epilog="""\b
Examples:
  receipt-actors demo
  receipt-actors demo --messages 2000 --apple-latency 0.25
  # signed transactions of StoreKit 2 alone; or app receipts, looked up by the App Store Server API
  receipt-actors demo --receipts signed
  receipt-actors demo --receipts app --app-receipts server-api
  # with its page in a browser, until Ctrl-C
  receipt-actors demo --messages 20000 --admin 127.0.0.1:9464
"""
)
@click.option("--messages", type=click.IntRange(20, 100_000), default=300, help="How many to send.")
@click.option("--seed", type=int, default=1, help="The same seed makes the same messages.")
@click.option(
    "--apple-latency", type=FiniteFloatRange(0, 10), default=0.1, metavar="SECONDS", help="How long Apple takes."
)
@click.option("--receipts", type=choice(Receipts), default="mixed", help="Kinds of receipts.")
@click.option("--app-receipts", type=choice(Asked), default="verify-receipt", help="Who is asked, as for start.")
@click.option("--admin", metavar="HOST:PORT", help="Serve the page of the running system there, until Ctrl-C.")
def command(messages: int, seed: int, apple_latency: float, receipts: str, app_receipts: str, admin: str | None) -> int:
    """Show the system at work: no account, no server, nothing to set up.

    Starts the whole supervision tree on the embedded backend (a SQLite file that is thrown away) and a simulated App
    Store on loopback HTTP, feeds it good and bad receipts and signed transactions, and checks every answer. The exit
    code is 0 only if every message came out as it should.
    """
    console = Console()
    logging.basicConfig(level="ERROR", format="%(levelname)s %(name)s: %(message)s")
    asked = Asked(app_receipts)
    scenario = make_scenario(messages, seed, BUNDLE_ID, "ResultsSQS", receipts=Receipts(receipts), asked=asked)
    with (
        tempfile.TemporaryDirectory(prefix="receipt-actors-demo-") as folder,
        SimulatedAppStore(latency_seconds=apple_latency) as store,
        _started(Path(folder), store, admin, asked, scenario) as (system, url, settings),
        closing(EmbeddedQueues(Path(folder) / "receipts.db")) as queues,
    ):
        console.print(
            f"{len(scenario.messages)} messages, a simulated App Store that takes {apple_latency:g} s, and the whole "
            "supervision tree on SQLite\n"
        )
        if url is not None:
            console.print(f"The page of the running system: {url}\n")
        started_at = time.monotonic()
        with progress_bar(console) as progress:
            _send(scenario, queues, progress)
            _wait_until_finished(system, scenario, progress)
        seconds = time.monotonic() - started_at
        statistics = system.statistics()
        answers = _answers(queues)
        moved = _read(queues, "ReceiptsSQSDLQ")
        dead_letters = [DeadLetterSeen(each.body, each.attributes.get("reason", "")) for each in moved]
        left = queues.approximate_number_of_messages("ReceiptsSQS")
        refunded = _refund_some(scenario, store, settings)
        posted = {*_answers(queues)}
        if url is not None:
            with StopSignals() as signals:
                console.print("\nAll is done; Ctrl-C closes the page, and brings the report.")
                signals.wait(None)
    report = check(scenario, answers, dead_letters)
    _print_report(console, report, statistics, seconds)
    if refunded:
        console.print(
            f"Then Apple refunded {len(refunded) - 1} purchases, and reversed one of these refunds. It said so by "
            "signed notifications: INVALID (refunded), and OK (refund_reversed), on the queue that had got the OK.\n",
            highlight=False,
        )
    wrong = [
        *report.wrong,
        *(f"refund of transaction {each.transaction_id}: nothing was posted" for each in {*refunded} - posted),
        *(f"answer to user {each.user_id} after the refunds: {each.status}" for each in posted - {*refunded}),
        *([f"{left} messages are left on the source queue"] if left else []),
    ]
    for line in wrong:
        console.print(f"[red]wrong:[/red] {line}", highlight=False)
    if wrong:
        return EXIT_WORLD_FAILED
    console.print(f"[green]All {len(scenario.messages)} messages came out as they should.[/green]")
    return EXIT_DONE


@contextmanager
def _started(
    folder: Path, store: SimulatedAppStore, admin: str | None, asked: Asked, scenario: Scenario
) -> Iterator[tuple[ReceiptSystem, str | None, Settings]]:
    for receipt in scenario.sold:
        store.record(receipt)
    files = store.write_files(folder / "apple")
    settings = Settings(
        database=folder / "receipts.db",
        bundle_ids=(BUNDLE_ID,),
        app_store_url=store.url,
        admin=admin,
        apple_roots=files.roots,
        app_receipts=asked.value,
        server_api_key=SecretStr(str(files.key)),
        server_api_key_id=files.key_id,
        server_api_issuer_id=files.issuer_id,
    )
    port = nullcontext() if settings.admin is None else admin_server(settings, settings.admin)
    with port as server, ReceiptSystem.start(settings) as system:
        if server is not None:
            server.serve(system)
        yield system, None if server is None else server.url, settings


def _send(scenario: Scenario, queues: EmbeddedQueues, progress: Progress) -> None:
    messages = [OutgoingMessage(message.body, message.attributes) for message in scenario.messages]
    for start in progress.track(range(0, len(messages), MAX_BATCH_ENTRIES), description="sending  "):
        queues.send("ReceiptsSQS", messages[start : start + MAX_BATCH_ENTRIES])


def _wait_until_finished(system: ReceiptSystem, scenario: Scenario, progress: Progress) -> None:
    total = len(scenario.messages)
    task = progress.add_task("validating", total=total)
    finished, last_progress_at = -1, time.monotonic()
    while finished < total and time.monotonic() - last_progress_at < PATIENCE_SECONDS:
        statistics = system.statistics()
        now_finished = statistics.count("answered") + statistics.count("moved")
        if now_finished != finished:
            finished, last_progress_at = now_finished, time.monotonic()
            progress.update(task, completed=finished)
        if finished < total:
            time.sleep(LOOK_SECONDS)


def _read(queues: EmbeddedQueues, queue: str) -> Iterator[ReceivedMessage]:
    while messages := queues.receive(
        queue, max_messages=MAX_BATCH_ENTRIES, wait_seconds=0, visibility_timeout_seconds=600
    ):
        yield from messages


def _answers(queues: EmbeddedQueues) -> Sequence[AnswerSeen]:
    answers = _read(queues, "ResultsSQS")
    return [AnswerSeen(**json.loads(each.body), reason=each.attributes.get("reason", "")) for each in answers]


def _refund_some(scenario: Scenario, store: SimulatedAppStore, settings: Settings) -> Sequence[AnswerSeen]:
    """Have Apple refund some purchases that count, reverse the last refund, and notify us over HTTP.

    Returns what is to be posted.
    """
    refunded = [
        AnswerSeen(message.user_id, message.expected.transaction_ids[0], INVALID, Reason.REFUNDED)
        for message in scenario.messages
        if message.kind in (Kind.GENUINE, Kind.SIGNED) and isinstance(message.expected, Answered)
    ][:REFUNDS]
    reversed_ = [replace(each, status=OK, reason=Reason.REFUND_REVERSED) for each in refunded[-1:]]
    with open_handler(settings) as handler:

        def take(request: Request) -> Reply:
            answer = handler.handle(request.body)
            return Reply(response(answer.status, answer.text.encode(), "text/plain"))

        server = HttpServer(take).start()
        try:
            for kind, answers in (("REFUND", refunded), ("REFUND_REVERSED", reversed_)):
                for answer in answers:
                    store.notify(kind, answer.transaction_id, url=f"{server.url}/")
                store.wait_until_delivered(DELIVERY_SECONDS)
        finally:
            server.stop()
    return [*refunded, *reversed_]


def _print_report(console: Console, report: CheckReport, statistics: StatisticsSnapshot, seconds: float) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kind of message", no_wrap=True)
    for name in ("sent", "OK", "INVALID", "moved"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_column("")
    for kind, row in report.kinds.items():
        table.add_row(
            kind.replace("_", " "),
            *(
                str(count or "")
                for count in (row.sent, row.ok, sum(row.invalid.values()), sum(row.dead_lettered.values()))
            ),
            _counts({**row.invalid, **row.dead_lettered}),
            "[red]wrong[/red]" if row.wrong else "[green]right[/green]",
        )
    console.print("\n[bold]What was sent, and what came of it[/bold]", table)
    finished = statistics.count("answered") + statistics.count("moved")
    latencies = [statistics.latencies.percentile_seconds(percent) for percent in (50, 95, 99)]
    p50, p95, p99 = (f"{value:.2f} s" if value is not None else "-" for value in latencies)
    console.print(
        f"{finished} messages in {seconds:.1f} s, {finished / seconds:.0f} a second; from receive to delete "
        f"p50 {p50}, p95 {p95}, p99 {p99}",
        highlight=False,
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" if len(counts) > 1 else reason for reason, count in sorted(counts.items()))
