"""A process that serves SQS and DynamoDB, or the App Store, on loopback.

::

    python -m receipt_actors.sandbox.services aws --sqs-latency 0.01 --dynamodb-latency 0.005
    python -m receipt_actors.sandbox.services app-store --latency 0.25 --jitter 0.1 --certificate C.pem --key K.pem

It prints one line, its URL, once it listens, and ends when its standard input does: it never outlives who started it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import http.client
import resource
import signal
import ssl
import sys
from collections.abc import Callable, Sequence

from receipt_actors.sandbox.http_server import LISTEN_BACKLOG, Connection, Request, Service, response
from receipt_actors.sandbox.services.app_store import FastAppStore, Latency
from receipt_actors.sandbox.services.control import AppStoreControl, AwsControl
from receipt_actors.sandbox.services.dynamodb import SimulatedDynamoDb
from receipt_actors.sandbox.services.sqs import SimulatedSqs

MAX_CONNECTIONS = 20_000

Part = Callable[[Connection, Request], bool]


def main() -> None:
    """Serve until standard input ends."""
    options = _parse()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and then our standard input ends
    _raise_file_limit()
    gc.disable()  # nothing here makes cycles, and a full collection over a whole load is a pause that would be measured
    if options.service == "aws":
        sqs = SimulatedSqs(options.sqs_latency)
        dynamodb = SimulatedDynamoDb(options.dynamodb_latency)
        control = AwsControl(sqs, dynamodb)
        sqs.on_sent = control.on_sent
        parts: Sequence[Part] = (sqs.handle, dynamodb.handle, control.handle)

        def listens(url: str) -> None:
            sqs.url = url
    else:
        store = FastAppStore(Latency(options.latency, options.jitter))
        parts = (store.handle, AppStoreControl(store).handle)

        def listens(url: str) -> None:
            pass

    tls = None
    if options.service == "app-store" and options.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate, options.key)
    try:
        import uvloop
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    run(_serve(_service(parts), options.port, tls, listens))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m receipt_actors.sandbox.services")
    services = parser.add_subparsers(dest="service", required=True)
    aws = services.add_parser("aws")
    aws.add_argument("--port", type=int, default=0)
    aws.add_argument("--sqs-latency", type=float, default=0.0)
    aws.add_argument("--dynamodb-latency", type=float, default=0.0)
    app_store = services.add_parser("app-store")
    app_store.add_argument("--port", type=int, default=0)
    app_store.add_argument("--latency", type=float, default=0.0)
    app_store.add_argument("--jitter", type=float, default=0.0)
    app_store.add_argument("--certificate")
    app_store.add_argument("--key")
    return parser.parse_args()


def _raise_file_limit() -> None:
    """Let in a connection for each receipt in flight, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _service(parts: Sequence[Part]) -> Service:
    def service(connection: Connection, request: Request) -> None:
        if not any(part(connection, request) for part in parts):
            connection.respond(response(http.client.NOT_FOUND, b""))

    return service


async def _serve(service: Service, port: int, tls: ssl.SSLContext | None, listens: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", port, ssl=tls, backlog=LISTEN_BACKLOG)
    scheme = "http" if tls is None else "https"
    url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    listens(url)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    main()
