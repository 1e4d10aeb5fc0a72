"""A process that serves SQS and DynamoDB, or the App Store, on loopback.

::

    python -m receipt_actors.sandbox.services aws --sqs-latency 0.01 --dynamodb-latency 0.005
    python -m receipt_actors.sandbox.services app-store --latency 0.25 --jitter 0.1 --certificate C.pem

It prints one line, its URL, once it listens, and ends when its standard input does: it never outlives who started it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import resource
import signal
import ssl
import sys

from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, Run, response
from receipt_actors.sandbox.services.app_store import FastAppStore
from receipt_actors.sandbox.services.control import BENCH_PATH, AwsControl
from receipt_actors.sandbox.services.dynamodb import SimulatedDynamoDb
from receipt_actors.sandbox.services.sqs import SimulatedSqs

MAX_CONNECTIONS = 20_000


def main() -> None:
    """Serve until standard input ends."""
    options = _parse()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and then our standard input ends
    _raise_file_limit()
    gc.disable()  # nothing here makes cycles, and a full collection over a whole load is a pause that would be measured
    run: Run = asyncio.run
    with contextlib.suppress(ImportError):
        from uvloop import run
    url = _serve_app_store(options, run) if options.service == "app-store" else _serve_aws(options, run)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _serve_app_store(options: argparse.Namespace, run: Run) -> str:
    lowest = max(0.0, options.latency - options.jitter)
    store = FastAppStore(latency_seconds=lowest, jitter_seconds=2 * options.jitter, tls=_tls(options), run=run)
    return store.start().url


def _serve_aws(options: argparse.Namespace, run: Run) -> str:
    sqs, dynamodb = SimulatedSqs(options.sqs_latency), SimulatedDynamoDb(options.dynamodb_latency)
    control = AwsControl(sqs, dynamodb)
    services = {"AmazonSQS": sqs, "DynamoDB_20120810": dynamodb}

    def handle(request: Request) -> Reply | None:
        service, _, operation = (request.header("x-amz-target") or "").partition(".")
        if service in services:
            return services[service].handle(operation, request)
        if request.path.startswith(BENCH_PATH):
            return control.handle(request)
        return Reply(response(http.client.NOT_FOUND, b""))

    sqs.url = HttpServer(handle, run=run).start().url
    return sqs.url


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certificate is None:
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(options.certificate)
    return tls


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m receipt_actors.sandbox.services")
    services = parser.add_subparsers(dest="service", required=True)
    aws = services.add_parser("aws")
    aws.add_argument("--sqs-latency", type=float, default=0.0)
    aws.add_argument("--dynamodb-latency", type=float, default=0.0)
    app_store = services.add_parser("app-store")
    app_store.add_argument("--latency", type=float, default=0.0)
    app_store.add_argument("--jitter", type=float, default=0.0)
    app_store.add_argument("--certificate", help="PEM, with its private key")
    return parser.parse_args()


def _raise_file_limit() -> None:
    """Let in a connection for each receipt in flight, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
