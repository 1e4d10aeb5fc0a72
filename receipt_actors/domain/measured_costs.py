"""What a receipt has been measured to cost: the figures that ``receipt-actors plan`` uses where it is given no report.

They are those of one machine, named in ``MACHINE``; ``receipt-actors bench`` measures another, and ``plan --bench``
takes its report.
"""

from __future__ import annotations

from collections.abc import Mapping

from receipt_actors.domain.capacity import Call, Client, Cost

MACHINE = "a virtual machine of 2 cores, CPython 3.11, services emulated on it, messages with 5 KB receipts"

#: CPU of one request by boto3 as it is set up here, with one entry; more entries cost a receipt the same in any batch.
CPU_SECONDS_OF_CALL: Mapping[Call, float] = {
    Call.RECEIVE: 0.85e-3,
    Call.SEND: 0.80e-3,
    Call.DELETE: 0.65e-3,
    Call.CLAIM: 0.78e-3,
}

_FULL_BATCHES: Mapping[Call, float] = {Call.RECEIVE: 0.1, Call.SEND: 0.1, Call.DELETE: 0.1, Call.CLAIM: 0.04}

CURL = Cost(
    machine=MACHINE,
    cpu_seconds=0.6e-3,
    requests=_FULL_BATCHES,
    cpu_seconds_of_call=CPU_SECONDS_OF_CALL,
    process_bytes=80_000_000,
    in_flight_bytes=12_288,
    client=Client("curl", max_concurrency=5_000),
)
REQUESTS = Cost(
    machine=MACHINE,
    cpu_seconds=1.0e-3,
    requests=_FULL_BATCHES,
    cpu_seconds_of_call=CPU_SECONDS_OF_CALL,
    process_bytes=80_000_000,
    in_flight_bytes=12_288,
    client=Client("requests", max_concurrency=200),
)
