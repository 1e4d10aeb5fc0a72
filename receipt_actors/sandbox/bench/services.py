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
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from receipt_actors.sandbox.services import ServiceProcess
from receipt_actors.sandbox.services.load import BUNDLE_ID, POST_QUEUE, SOURCE_QUEUE, TABLE, Load, Way

CONTROL_TIMEOUT_SECONDS = 600.0  #: to mint and to audit the largest load
NO_RATE_LIMIT = "1000000"  #: requests to Apple a second: it is the program that is measured, not what Apple allows


def make_certificate(folder: Path, *, host: str = "127.0.0.1", days: int = 1) -> Path:
    """Make a certificate that only itself vouches for, with its key, in one PEM file; past for ``days`` below 0."""
    key = ec.generate_private_key(ec.SECP256R1())  # Apple's servers have keys on this curve as well
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    since, until = now - timedelta(days=9), now + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number(), since, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{host}{days}.pem"
    path.touch(mode=0o600)
    path.write_bytes(certificate.public_bytes(pem) + private)
    return path


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the services are like. Apple's answers take ``apple_latency_seconds``, evenly spread by the jitter."""

    apple_latency_seconds: float = 0.25
    apple_jitter_seconds: float = 0.1
    sqs_latency_seconds: float = 0.01
    dynamodb_latency_seconds: float = 0.005
    tls: bool = True  #: to the App Store; AWS is always spoken to in the clear, which boto3 allows for an endpoint URL


class Services:
    """SQS and DynamoDB in one process, the App Store in another. A context manager."""

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self.load = Load(0)
        #: The variables of the program under test, for the load that was prepared last.
        self.environment: Mapping[str, str] = {}
        self._processes: dict[str, ServiceProcess] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def process_ids(self) -> Mapping[str, int]:
        """Of each service's process, by its name."""
        return {name: process.process_id for name, process in self._processes.items()}

    def prepare(self, load: Load) -> None:
        """Mint the messages and Apple's answers: each process for itself, at the same time."""
        self.load = load
        self.environment = {**self._variables, **_way_variables(Way(load.way), self._folder / "apple")}
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda service: self.ask(service, "load", **asdict(load)), self._processes))

    def ask(self, service: str, command: str, **fields: object) -> dict[str, Any]:
        """Have a service (``aws``, ``app_store``) carry out a command of ``services.__main__``."""
        url = f"{self._processes[service].url}/_bench/{command}"
        no_proxy = urllib.request.ProxyHandler({})
        opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=self._tls))
        with opener.open(url, json.dumps(fields).encode(), CONTROL_TIMEOUT_SECONDS) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def _start(self, stack: ExitStack) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receipt-actors-bench-")))
        options = self.options
        aws = {"--sqs-latency": options.sqs_latency_seconds, "--dynamodb-latency": options.dynamodb_latency_seconds}
        app_store: dict[str, object] = {"--latency": options.apple_latency_seconds}
        app_store["--jitter"] = options.apple_jitter_seconds
        self._tls: ssl.SSLContext | None = None
        trust: dict[str, str] = {}
        if options.tls:
            certificate = app_store["--certificate"] = make_certificate(self._folder)
            self._tls = ssl.create_default_context(cafile=str(certificate))
            trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), str(certificate))
        for name, flags in (("aws", aws), ("app_store", app_store)):
            words = [str(word) for flag in flags.items() for word in flag]
            process = ServiceProcess([name.replace("_", "-"), *words])
            stack.callback(process.close)
            self._processes[name] = process
        self.environment = self._variables = {
            **_clean_environment(),
            **trust,
            "AWS_ENDPOINT_URL": self._processes["aws"].url,
            "AWS_ACCESS_KEY_ID": "simulated",
            "AWS_SECRET_ACCESS_KEY": "simulated",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **settings_variables(self._processes["app_store"].url),
        }


def settings_variables(app_store_url: str) -> dict[str, str]:
    """Settings that lead the program to the services, as environment variables."""
    return {
        "RECEIPT_ACTORS_SOURCE_QUEUE": SOURCE_QUEUE,
        "RECEIPT_ACTORS_POST_QUEUES": POST_QUEUE,
        "RECEIPT_ACTORS_LEDGER_TABLE": TABLE,
        "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID,
        "RECEIPT_ACTORS_APP_STORE_URL": app_store_url,
    }


def _way_variables(way: Way, folder: Path) -> dict[str, str]:
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
