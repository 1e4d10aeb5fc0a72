"""Measure a program that validates receipts, from outside: rate, CPU time, memory, latencies, calls.

Every answer is checked.

::

    with Services(ServiceOptions()) as services:
        services.prepare(Load(20_000))
        measurement = run([sys.executable, "pipeline.py"], services)
        assert not measurement.wrong

The program may be anything that keeps the contract of ``doc/contract.rst``. Environment variables
(``Services.environment``) tell it what to use:

- ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``: SQS and DynamoDB, as far as
  ``sandbox.services`` simulates them; the table's key is ``TransactionId``, a string;
- ``RECEIPT_ACTORS_SOURCE_QUEUE``, ``RECEIPT_ACTORS_POST_QUEUES`` (one), ``RECEIPT_ACTORS_LEDGER_TABLE``: names;
- ``RECEIPT_ACTORS_APP_STORE_URL``; and, depending on the load's ``Way``, which root certificate to trust and how to ask
  the Server API (``RECEIPT_ACTORS_APPLE_ROOTS``, ``RECEIPT_ACTORS_SERVER_API_...``);
- ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``, ``SSL_CERT_FILE``: the certificate to trust, if Apple is asked over TLS.

It begins with an empty queue. Once it has asked for messages and come to rest, the messages are there, all at once or
at a rate, and the measuring begins. When all are deleted it gets SIGTERM, and its long polls are answered at once; it
should end with code 0.
"""

from __future__ import annotations

from receipt_actors.sandbox.bench.harness import BenchFailed, run
from receipt_actors.sandbox.bench.measurement import Measurement, Series
from receipt_actors.sandbox.bench.services import ServiceOptions, Services, settings_variables
from receipt_actors.sandbox.services.load import Load, Way

__all__ = [
    "BenchFailed",
    "Load",
    "Measurement",
    "Series",
    "ServiceOptions",
    "Services",
    "Way",
    "run",
    "settings_variables",
]
