"""The simulated services as processes of their own, and how a benchmark talks to them."""

from __future__ import annotations

import json
import os
import ssl
import tempfile
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from receipt_actors.sandbox.services.certificates import make_certificate
from receipt_actors.sandbox.services.load import BUNDLE_ID, POST_QUEUE, SOURCE_QUEUE, TABLE, Load, Way
from receipt_actors.sandbox.services.process import ServiceProcess


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes: evenly spread over ``seconds`` plus and minus ``jitter_seconds``."""

    seconds: float = 0.0
    jitter_seconds: float = 0.0


APPLE_LATENCY = Latency(0.25, 0.1)
CONTROL_TIMEOUT_SECONDS = 600.0  #: to mint and to audit the largest load
NO_RATE_LIMIT = "1000000"  #: requests to Apple a second: it is the program that is measured, not what Apple allows


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the services are like."""

    apple: Latency = APPLE_LATENCY
    sqs_latency_seconds: float = 0.01
    dynamodb_latency_seconds: float = 0.005
    tls: bool = True  #: to the App Store; AWS is always spoken to in the clear, which boto3 allows for an endpoint URL


class Services:
    """SQS and DynamoDB in one process, the App Store in another. A context manager.

    ``environment`` has the variables of the program under test; it depends on the load that was prepared last.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self.load = Load(0)
        self._environment: dict[str, str] = {}
        self._way_variables: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="receipt-actors-bench-")))
            self._folder = folder
            self._start(folder)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> Mapping[str, str]:
        return {**self._environment, **self._way_variables}

    @property
    def process_ids(self) -> Mapping[str, int]:
        """Of each service's process, by its name."""
        return {"aws": self._aws.process_id, "app_store": self._app_store.process_id}

    def prepare(self, load: Load) -> None:
        """Mint the messages and Apple's answers: each process for itself, at the same time."""
        self.load = load
        self._way_variables = _way_variables(Way(load.way), self._app_store.url, self._folder / "apple")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda control: self.ask(control, "load", **asdict(load)), ("aws", "app_store")))

    def ask(self, service: str, command: str, **fields: object) -> dict[str, Any]:
        """Have a service do a command of ``services.control``."""
        process = self._aws if service == "aws" else self._app_store
        request = urllib.request.Request(f"{process.url}/_bench/{command}", json.dumps(fields).encode())
        no_proxy = urllib.request.ProxyHandler({})
        opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=self._tls))
        with opener.open(request, timeout=CONTROL_TIMEOUT_SECONDS) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def _start(self, folder: Path) -> None:
        options = self.options
        self._aws = self._serve(
            "aws",
            *("--sqs-latency", str(options.sqs_latency_seconds)),
            *("--dynamodb-latency", str(options.dynamodb_latency_seconds)),
        )
        arguments = ["--latency", str(options.apple.seconds), "--jitter", str(options.apple.jitter_seconds)]
        trust: dict[str, str] = {}
        self._tls: ssl.SSLContext | None = None
        if options.tls:
            certificate, with_key = make_certificate(folder)
            arguments += ["--certificate", str(with_key)]
            self._tls = ssl.create_default_context(cafile=str(certificate))
            trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), str(certificate))
        self._app_store = self._serve("app-store", *arguments)
        self._environment = {
            **_clean_environment(),
            **trust,
            "AWS_ENDPOINT_URL": self._aws.url,
            "AWS_ACCESS_KEY_ID": "simulated",
            "AWS_SECRET_ACCESS_KEY": "simulated",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **settings_variables(self._app_store.url),
        }

    def _serve(self, *arguments: str) -> ServiceProcess:
        process = ServiceProcess(arguments)
        self._stack.callback(process.close)
        return process


def settings_variables(app_store_url: str) -> dict[str, str]:
    """Settings that lead the program to the services, as environment variables."""
    return {
        "RECEIPT_ACTORS_SOURCE_QUEUE": SOURCE_QUEUE,
        "RECEIPT_ACTORS_POST_QUEUES": POST_QUEUE,
        "RECEIPT_ACTORS_LEDGER_TABLE": TABLE,
        "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID,
        "RECEIPT_ACTORS_APP_STORE_URL": app_store_url,
    }


def _way_variables(way: Way, app_store_url: str, folder: Path) -> dict[str, str]:
    """Settings by which the program vouches for receipts in this way: what it trusts, and whom it asks."""
    if way is Way.VERIFY_RECEIPT:
        return {}
    from receipt_actors.sandbox.apple_ca import default_authority

    authority = default_authority()
    variables = {"RECEIPT_ACTORS_APPLE_ROOTS": str(authority.write_roots(folder).parent)}
    if way is Way.SERVER_API:
        pair = authority.server_api_key
        variables |= {
            "RECEIPT_ACTORS_APP_RECEIPTS": "server-api",
            "RECEIPT_ACTORS_SERVER_API_KEY": pair.private_key_pem.decode(),
            "RECEIPT_ACTORS_SERVER_API_KEY_ID": pair.key_id,
            "RECEIPT_ACTORS_SERVER_API_ISSUER_ID": pair.issuer_id,
            "RECEIPT_ACTORS_APP_STORE_RATE_PER_SECOND": NO_RATE_LIMIT,
        }
    return variables


def _clean_environment() -> dict[str, str]:
    """This process's, without what would lead the program elsewhere: settings, accounts, proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "RECEIPT_ACTORS_")) and not name.lower().endswith("_proxy")
    }
