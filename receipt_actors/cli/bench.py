"""``receipt-actors bench``: what a receipt costs on this machine."""

from __future__ import annotations

import sys

import click

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED, complain


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--messages", type=click.IntRange(1), default=20_000, show_default=True, help="How many to validate.")
@click.option("--apple-latency", type=click.FloatRange(0, 60), default=0.25, show_default=True, metavar="SECONDS")
@click.option("--apple-jitter", type=click.FloatRange(0, 60), default=0.1, show_default=True, metavar="SECONDS")
@click.option("--dynamodb-latency", type=click.FloatRange(0, 60), default=0.005, show_default=True, metavar="SECONDS")
@click.option("--sqs-latency", type=click.FloatRange(0, 60), default=0.01, show_default=True, metavar="SECONDS")
@click.option("--no-latency", is_flag=True, help="Services answer at once.")
@click.option("--tls/--no-tls", default=True, show_default=True, help="To the simulated App Store.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Messages available a second, instead of all at once."
)
@click.argument("start_flags", nargs=-1, type=click.UNPROCESSED)
def command(
    messages: int,
    apple_latency: float,
    apple_jitter: float,
    dynamodb_latency: float,
    sqs_latency: float,
    no_latency: bool,
    tls: bool,
    rate: float | None,
    start_flags: tuple[str, ...],
) -> int:
    """Measure what a receipt costs. Flags of ``start`` are passed on to it."""
    from receipt_actors.sandbox.bench import Latency, Load, ServiceOptions, Services, run

    if no_latency:
        options = ServiceOptions(Latency(), 0.0, 0.0, tls)
    else:
        options = ServiceOptions(Latency(apple_latency, apple_jitter), sqs_latency, dynamodb_latency, tls)
    program = [sys.executable, "-m", "receipt_actors", "start", "--backend", "aws", *start_flags]
    with Services(options) as services:
        services.prepare(Load(messages))
        result = run(program, services, rate=rate)
    click.echo(
        f"{result.per_second:.0f} receipts/s ({result.steady_per_second:.0f} steady), {result.cpu_ms:.3f} ms CPU each"
    )
    click.echo(f"latency {_ms(result.latency_ms)}; Apple's {_ms(result.apple_latency_ms)}")
    click.echo(f"services: CPU ms {_ms(result.services_cpu_ms, 3)}")
    click.echo(f"start {result.start_seconds:.2f} s; memory {result.memory_bytes / 1024:.1f} KiB a receipt in flight")
    for operation, requests in result.requests.items():
        click.echo(f"  {operation:30} {requests / messages:.3f} a receipt, filled {result.fill(operation):.1f}")
    for line in result.wrong_shown:
        complain(f"wrong: {line}")
    return EXIT_WORLD_FAILED if result.wrong or result.exit_code else EXIT_DONE


def _ms(values: object, digits: int = 0) -> str:
    assert isinstance(values, dict)
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
